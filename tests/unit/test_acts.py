# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a host records is told by its home, so every task of a role says which home that is; tests/services has the rest."""

from __future__ import annotations

import pathlib
import typing as t

import pytest
import yaml
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import acts

ROOT = pathlib.Path(__file__).resolve().parents[2]
PREFIX = "dockersandbox.guardrails."
RECORDING = {
    path.stem
    for path in (ROOT / "plugins/modules").glob("*.py")
    if "acts.OPTIONS" in path.read_text(encoding="utf-8") or "arguments.PLACES" in path.read_text(encoding="utf-8")
}


def tasks(content: t.Any) -> t.Iterator[dict[str, t.Any]]:
    """Yield the tasks in a file of tasks or of plays, those in blocks too."""
    for task in content or []:
        yield task
        for key in ("block", "rescue", "always", "tasks", "pre_tasks", "post_tasks", "handlers"):
            yield from tasks(task.get(key))


def test_the_modules_that_record_are_found() -> None:
    assert {"locked_files", "folders", "step_gate", "sandbox", "working_set", "sandbox_run"} <= RECORDING


FILES = sorted([*ROOT.glob("roles/*/tasks/*.yml"), *ROOT.glob("playbooks/*.yml"), *ROOT.glob("playbooks/tasks/*.yml")])


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_task_names_the_home(path: pathlib.Path) -> None:
    found = tasks(yaml.safe_load(path.read_text(encoding="utf-8")))
    calls = [(task["name"], options) for task in found for word in RECORDING if (options := task.get(PREFIX + word))]
    # Journals are a controller's, which has no home.
    assert [name for name, options in calls if not {"home", "journals"} & set(options)] == []


ENCODABLE: list[tuple[t.Any, t.Any]] = [
    ("é", "é"),
    ("a\udc80", "a\\udc80"),
    (["a\udc80", {"k\udc80": ("x", 1, True, None)}], ["a\\udc80", {"k\\udc80": ["x", 1, True, None]}]),
]


@pytest.mark.parametrize(("value", "due"), ENCODABLE)
def test_what_an_event_cannot_hold_is_spelt_out(value: t.Any, due: t.Any) -> None:
    assert acts.encodable(value) == due


def test_long_reasons_are_cut() -> None:
    assert acts.reasons(["a", "b"]) == "a; b"
    assert len(acts.reasons(["x" * 3000] * 3)) == 4000
