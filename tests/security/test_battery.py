# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Attacks on real sandboxes, each scored by its effect: no word of an attack counts, and no error message.

Each attack is tried under every runtime, and must not succeed. Those that name a protection are tried once more in a
sandbox from which it was taken away, and must succeed there: else they would prove nothing.
"""

from __future__ import annotations

import collections
import contextlib
import importlib
import pathlib
import typing as t
from unittest import mock

import pytest
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.stack import RUNTIMES
from security.arena import Arena, Box, Weakening
from security.cases import CASES, Case, NotHere, Scene
from security.table import HELD, Table
from security.weakenings import WEAKENINGS

for _path in sorted(pathlib.Path(__file__).with_name("attacks").glob("*.py")):
    importlib.import_module(f"security.attacks.{_path.stem}")


def _named(cases: t.Iterable[Case]) -> list[t.Any]:
    return [pytest.param(case, id=f"{case.group}/{case.name}") for case in cases]


WEAK: dict[tuple[str, ...], list[Case]] = collections.defaultdict(list)
for _case in CASES:
    if _case.falls:
        WEAK[_case.falls].append(_case)


@pytest.fixture
def ready(boxes: dict[str, Box]) -> t.Callable[[str], Box]:
    """Return the sandbox of a runtime, as described again whatever the attack before has done to it."""

    def get(runtime: str) -> Box:
        if runtime not in boxes:
            pytest.skip(f"this engine has no {runtime}")
        boxes[runtime].restart()
        return boxes[runtime]

    return get


@pytest.mark.parametrize("case", _named(CASES))
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_no_attack_succeeds(runtime: str, case: Case, ready: t.Callable[[str], Box], arena: Arena, table: Table) -> None:
    box = ready(runtime)
    key = (f"{case.group}/{case.name}", runtime)
    try:
        evidence = case.judge(Scene(arena, box))
    except NotHere as error:
        table.results[key] = f"- ({error})"
        pytest.skip(str(error))
    evidence = evidence or arena.harm()
    table.results[key] = evidence or HELD
    assert evidence == ""


@pytest.mark.parametrize("cases", [pytest.param(cases, id="+".join(falls)) for falls, cases in WEAK.items()])
def test_the_same_attacks_succeed_without_their_protection(cases: list[Case], arena: Arena, table: Table) -> None:
    without = [WEAKENINGS[name] for name in cases[0].falls]
    failed = []
    with contextlib.ExitStack() as stack:
        if theirs := [Weakening(one.name, one.neighbour) for one in without if one.neighbour]:
            stack.enter_context(mock.patch.object(arena, "neighbour", stack.enter_context(arena.sandbox("runc", theirs))))
        box = stack.enter_context(arena.sandbox("runc", without))
        for case in cases:
            try:
                evidence = case.judge(Scene(arena, box, without))
            except NotHere:
                continue
            box.restart()
            arena.harm()
            key = f"{case.group}/{case.name}"
            table.proven[key] = " + ".join(case.falls) if evidence else f"NOT {' + '.join(case.falls)}"
            if not evidence:
                failed.append(key)
    assert failed == []


def test_every_class_has_an_attack_that_is_shown_to_succeed() -> None:
    assert {case.group for case in CASES} == {case.group for case in CASES if case.falls}
