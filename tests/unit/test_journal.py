# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a journal keeps of a task, without Ansible; test_callback.py has the same under real playbooks."""

from __future__ import annotations

import json
import pathlib
import typing as t

import pytest
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import journal
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.journal import Journal, Result, Task

RULES = {"logging_rules": [{"id": "test-key", "regex": "TK[0-9]{12}", "keywords": ["tk"]}]}
KEY = "TK123456789012"
TASK = Task("1", "a task", "ansible.builtin.debug", "play.yml:1")


def kept(folder: pathlib.Path, *events: journal.Event) -> list[dict[str, t.Any]]:
    """Return the records of a journal of *events*, which is proven."""
    one = Journal(folder, RULES)
    for event in events:
        one.write(event)
    one.close()
    assert journal.verify(one.path, journal.public_key(folder)) == []
    return [json.loads(line) for line in one.path.read_text(encoding="utf-8").splitlines()]


def arguments(value: t.Any) -> journal.Event:
    """Return the start of a task with these arguments."""
    return journal.task_started(Task("1", "a task", "debug", "play.yml:1", arguments=value))


def deep(levels: int) -> t.Any:
    """Return lists in each other."""
    inner: t.Any = "bottom"
    for _level in range(levels):
        inner = [inner]
    return inner


ARGUMENTS: list[tuple[t.Any, str]] = [
    ({"a": 1, "b": [True, None, "x"]}, '{"a": 1, "b": [true, null, "x"]}'),
    ({"a": 0.5}, '{"a": "0.5"}'),
    ({"a": 1 << 70}, '{"a": 1180591620717411303424}'),
    ({1: "x"}, '{"1": "x"}'),
    ({"a": "\udc80"}, '{"a": "\\\\udc80"}'),
    ({"a": {1, 2}}, '{"a": "(set)"}'),
    ({"a": "x" * 400}, '{"a": "' + "x" * 299 + '…"}'),
    ({"a": "x" * 294 + KEY}, '{"a": "' + "x" * 294 + "[REDA" + '…"}'),
    ({"a": deep(100)}, '{"a": ' + "[" * 8 + '"…"' + "]" * 8 + "}"),
]


@pytest.mark.parametrize(("value", "shown"), ARGUMENTS)
def test_arguments(tmp_path: pathlib.Path, value: t.Any, shown: str) -> None:
    (record,) = kept(tmp_path, arguments(value))
    assert record["detail"]["arguments"] == shown


MANY: list[t.Any] = [{f"name{number}": "x" * 50 for number in range(1000)}, ["x" * 1000] * 1000, {"a": "x" * (1 << 20)}, {"a": [[1] * 5000] * 5000}]


@pytest.mark.parametrize("value", MANY)
def test_many_arguments_are_cut(tmp_path: pathlib.Path, value: t.Any) -> None:
    (record,) = kept(tmp_path, arguments(value))
    assert len(record["detail"]["arguments"]) < 1 << 20


def result(content: dict[str, t.Any], hidden: bool = False, item: int | None = None) -> Result:
    """Return a result on a host."""
    return Result("host", changed=True, hidden=hidden, check=False, content=lambda: content, item=item)


ENDS: list[tuple[str, Result, str, dict[str, t.Any]]] = [
    ("ok that changed", result({"rc": 0}), "ok", {"outcome": "success", "detail": {"status": "changed", "changed": True}}),
    ("a code", result({"rc": 7}), "failed", {"detail": {"status": "failed", "changed": True, "exit_code": 7}}),
    ("failed", result({"msg": "why"}), "failed", {"outcome": "failure", "reason": "why"}),
    ("failed in a file", result({"reason": "why"}), "failed", {"reason": "why"}),
    ("ignored", result({"msg": "why"}), "ignored", {"outcome": "failure", "reason": "why"}),
    ("unreachable", result({"msg": "why"}), "unreachable", {"outcome": "failure"}),
    ("a long reason", result({"msg": "x" * 2000}), "failed", {"reason": "x" * 999 + "…"}),
    ("a secret where it is cut", result({"msg": "x" * 990 + KEY}), "failed", {"reason": "x" * 990 + "[REDACTED…"}),
    ("no reason of success", result({"msg": "why"}), "ok", {"reason": None}),
    ("hidden", result({"msg": "why", "rc": 3}, hidden=True), "failed", {"reason": None, "detail": {"status": "failed", "changed": True, "no_log": True}}),
    ("an item's label", result({"_ansible_item_label": "l", "item": "i"}, item=2), "ok", {"action": "task.item"}),
    ("an item without a label", result({"item": {"password": "p"}}, item=2), "ok", {"detail": {"status": "changed", "changed": True, "item": 2}}),
    ("a hidden item", result({"item": "i"}, hidden=True, item=1), "ok", {"detail": {"status": "changed", "changed": True, "item": 1, "no_log": True}}),
    ("no number", result({"rc": "x", "attempts": None}), "failed", {"detail": {"status": "failed", "changed": True}}),
]


@pytest.mark.parametrize(("what", "came", "status", "due"), ENDS)
def test_ends(tmp_path: pathlib.Path, what: str, came: Result, status: str, due: dict[str, t.Any]) -> None:
    (record,) = kept(tmp_path, journal.ended(TASK, came, status))
    assert {key: record.get(key) for key in due} == due, what


DIFFS: list[tuple[t.Any, list[tuple[str | None, int, int]]]] = [
    (None, []),
    ([], []),
    ({}, []),
    ({"before": "a\nb\n", "after": "a\nc\nd\n", "after_header": "/f"}, [("/f", 2, 1)]),
    ([{"before": "", "after": "x\n", "before_header": "/g"}, {"prepared": "all is new"}], [("/g", 1, 0), (None, 0, 0)]),
    ({"before": {"a": 1}, "after": {"a": 2}}, [(None, 1, 1)]),
    ({"before": None, "after": "x\nx\n"}, [(None, 2, 0)]),
]


@pytest.mark.parametrize(("diff", "due"), DIFFS)
@pytest.mark.parametrize("hidden", [False, True])
def test_diffs(tmp_path: pathlib.Path, diff: t.Any, due: list[tuple[str | None, int, int]], hidden: bool) -> None:
    records = kept(tmp_path, *journal.differed(TASK, result({"diff": diff}, hidden)))
    told = [record["detail"] for record in records]
    assert [(one.get("file"), one["added"], one["removed"]) for one in told] == [(None if hidden else file, *counts) for file, *counts in due]
