# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check configuration files against their schemas, and what these cannot say, on the controller."""

from __future__ import annotations

import json
import pathlib
import sys
import typing as t

import yaml
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import allowlist, budgets, redaction, shipper

try:
    import jsonschema
except ImportError:
    jsonschema = None  # type: ignore[assignment]


def logging_problems(content: dict[str, t.Any]) -> list[str]:
    """Return what is wrong with the redaction rules and the targets of ``logging.yml``, a line each."""
    found = []
    try:
        redaction.rules_of(content)
    except redaction.RedactionError as error:
        found += error.problems
    try:
        shipper.targets(content.get("logging_ship_to", []))
    except ValueError as error:
        found.append(str(error))
    return found


def cost_problems(content: dict[str, t.Any]) -> list[str]:
    """Return what is wrong with the budgets and the ceiling of ``cost.yml``, a line each."""
    found = []
    try:
        budgets.parse(content["cost_budgets"])
    except budgets.BudgetError as error:
        found += [f"cost_{problem}" for problem in error.problems]
    ceiling = content.get("cost_ceiling") or {}
    if ceiling and (missing := [key for key in ("input_mtok", "output_mtok") if key not in ceiling]):
        found.append(f"cost_ceiling.{missing[0]}: is missing: the dollars for a million tokens")
    return found


def network_problems(content: dict[str, t.Any]) -> list[str]:
    """Return what is wrong with the rules of ``network.yml``, a line each, as far as it can be told here.

    Which sandboxes are declared and which suffixes are shared, and what else is opened at run time, is told on the host.
    """
    try:
        allowlist.parse({key: content.get(f"network_{key}") or {} for key in ("groups", "sandboxes")}, ())
    except allowlist.RulesError as error:
        return error.problems
    return []


# What no schema can say of a file.
_MEANINGS: dict[str, t.Callable[[dict[str, t.Any]], list[str]]] = {
    "cost.yml": cost_problems,
    "logging.yml": logging_problems,
    "network.yml": network_problems,
}


def problems(folder: pathlib.Path) -> tuple[list[str], list[str]]:
    """Return the files of *folder* that have a schema, and what is wrong with them: file, path and reason, a line each."""
    files, found = [], []
    for schema in sorted(folder.glob("schemas/*.json")):
        # JSON is YAML too.
        file = next((file for kind in ("yml", "json") if (file := folder / f"{schema.stem}.{kind}").exists()), None)
        if file is None:
            continue
        shown = f"{folder.name}/{file.name}"
        files.append(shown)
        try:
            content = yaml.safe_load(file.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            found.append(f"{shown}: is not YAML: {' '.join(str(error).split())}")
            continue
        validator = jsonschema.Draft202012Validator(json.loads(schema.read_text(encoding="utf-8")))
        errors = sorted(validator.iter_errors({} if content is None else content), key=lambda error: error.json_path)
        if not errors and file.name in _MEANINGS:
            found += [f"{shown}: {problem}" for problem in _MEANINGS[file.name](content or {})]
        found += [f"{shown}: {error.json_path.removeprefix('$').removeprefix('.') or 'top'}: {reason(error)}" for error in errors]
    return files, found


def reason(error: t.Any) -> str:
    """Return why a value was refused: what is due, in the schema's own words where it has some."""
    due = error.schema.get("description") if isinstance(error.schema, dict) else None
    if due and error.validator in ("pattern", "minimum", "maximum", "type", "enum"):
        return f"{error.instance!r} is not what is due: {due}"
    return " ".join(error.message.split())


class ActionModule(ActionBase):  # type: ignore[misc]
    """Fails when a configuration file is not as its schema says."""

    _requires_connection = False
    _VALID_ARGS = frozenset({"folder"})

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Check the folder."""
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        options = self.validate_argument_spec(argument_spec={"folder": {"type": "path", "required": True}})[1]
        if jsonschema is None:
            raise AnsibleActionFail("jsonschema is not installed on the controller: install requirements/site.txt, as make venv does")
        folder = pathlib.Path(options["folder"]).resolve()
        files, found = problems(folder)
        if not files:
            raise AnsibleActionFail(f"{folder}: holds no configuration file with a schema: name the folder configs of the checkout")
        if found:
            raise AnsibleActionFail("\n".join(found))
        result.update(changed=False, files=files)
        return result


if __name__ == "__main__":
    # Ansible itself reads the files as variables first, and does not say which of them is no YAML.
    sys.exit("\n".join(problems(pathlib.Path(sys.argv[1]).resolve())[1]) or 0)
