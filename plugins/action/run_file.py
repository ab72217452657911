# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read the command of a run from a file, as data, on the controller."""

from __future__ import annotations

import json
import pathlib
import typing as t

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import spec

KEYS = {"sandbox", "argv", "originals", "timeout"}


def job(path: pathlib.Path) -> dict[str, t.Any]:
    """Return the job in the file at *path*: sandbox, argv, originals, timeout; ValueError in one line for a file that holds none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"run_file: {path}: {error.strerror}: give -e run_file=job.json") from error
    except ValueError as error:
        raise ValueError(f"run_file: {path}: is not JSON: {error}") from error
    if not isinstance(content, dict) or "sandbox" not in content or "argv" not in content:
        raise ValueError(f'run_file: {path}: an object is due, such as {{"sandbox": "default", "argv": ["ls", "-l"]}}')
    if unknown := sorted(set(content) - KEYS):
        raise ValueError(f"run_file: {path}: {unknown[0]} is not a key of a job: use {', '.join(sorted(KEYS))}")
    if not isinstance(content["sandbox"], str):
        raise ValueError(f"run_file: {path}: sandbox: the name of a sandbox is due")
    originals = content.get("originals", "")
    try:
        argv = spec.argv(content["argv"])
        if originals != "":
            originals = spec.originals_path(originals)
        timeout = spec.seconds(content["timeout"]) if "timeout" in content else 0
    except ValueError as error:
        raise ValueError(f"run_file: {path}: {error}") from error
    return {"sandbox": content["sandbox"], "argv": argv, "originals": originals, "timeout": timeout}


class ActionModule(ActionBase):  # type: ignore[misc]
    """Returns the job; nothing in it is ever a template."""

    _requires_connection = False
    _VALID_ARGS = frozenset({"path"})

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Read the file."""
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        options = self.validate_argument_spec(argument_spec={"path": {"type": "path", "required": True}})[1]
        try:
            result.update(changed=False, **job(pathlib.Path(options["path"] or "-e run_file=…")))
        except ValueError as error:
            raise AnsibleActionFail(str(error)) from error
        return result
