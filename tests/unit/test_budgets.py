# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Budgets: what may be declared, and where windows begin."""

from __future__ import annotations

import datetime
import typing as t

import pytest
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import budgets


def at(text: str) -> int:
    return int(datetime.datetime.fromisoformat(text).timestamp())


@pytest.mark.parametrize(
    ("value", "micro", "text"),
    [
        (5, 5_000_000, "5.00"),
        ("0.25", 250_000, "0.25"),
        ("$1.5", 1_500_000, "1.50"),
        (0, 0, "0.00"),
        (0.1, 100_000, "0.10"),
        ("0.000001", 1, "0.000001"),
        ("1e3", 1_000_000_000, "1000.00"),
    ],
)
def test_money(value: t.Any, micro: int, text: str) -> None:
    assert budgets.micro(value) == micro
    assert budgets.dollars(micro) == text


@pytest.mark.parametrize("value", [-1, "x", None, True, float("nan"), "inf", "0.0000001", 10**13, [], ""])
def test_money_that_is_none(value: t.Any) -> None:
    with pytest.raises(ValueError):
        budgets.micro(value)


def test_debts_are_shown() -> None:
    assert budgets.dollars(-1_250_000) == "-1.25"


@pytest.mark.parametrize(
    ("kind", "zone", "when", "start", "end"),
    [
        ("hour", "UTC", "2026-11-24T14:31:00+00:00", "2026-11-24T14:00:00+00:00", "2026-11-24T15:00:00+00:00"),
        ("day", "UTC", "2026-11-24T00:00:00+00:00", "2026-11-24T00:00:00+00:00", "2026-11-25T00:00:00+00:00"),
        ("day", "Europe/Berlin", "2026-11-24T23:30:00+00:00", "2026-11-24T23:00:00+00:00", "2026-11-25T23:00:00+00:00"),
        # Both days of a change of the clock are as long as they are.
        ("day", "Europe/Berlin", "2026-03-29T12:00:00+00:00", "2026-03-28T23:00:00+00:00", "2026-03-29T22:00:00+00:00"),
        ("day", "Europe/Berlin", "2026-10-25T12:00:00+00:00", "2026-10-24T22:00:00+00:00", "2026-10-25T23:00:00+00:00"),
        # The hour that comes twice is two windows.
        ("hour", "Europe/Berlin", "2026-10-25T00:30:00+00:00", "2026-10-25T00:00:00+00:00", "2026-10-25T01:00:00+00:00"),
        ("hour", "Europe/Berlin", "2026-10-25T01:30:00+00:00", "2026-10-25T01:00:00+00:00", "2026-10-25T02:00:00+00:00"),
        ("hour", "Asia/Kathmandu", "2026-11-24T14:10:00+00:00", "2026-11-24T13:15:00+00:00", "2026-11-24T14:15:00+00:00"),
        ("month", "America/New_York", "2026-03-01T04:00:00+00:00", "2026-02-01T05:00:00+00:00", "2026-03-01T05:00:00+00:00"),
        ("month", "UTC", "2026-12-31T23:59:59+00:00", "2026-12-01T00:00:00+00:00", "2027-01-01T00:00:00+00:00"),
    ],
)
def test_windows(kind: str, zone: str, when: str, start: str, end: str) -> None:
    found = budgets.window(kind, zone, at(when))
    assert found == (at(start), at(end))
    assert found[0] % budgets.BUCKET == 0


def test_a_window_that_never_ends() -> None:
    assert budgets.window("ever", "UTC", 1_800_000_000) == (0, None)


def test_what_is_not_said() -> None:
    (run, total) = budgets.parse([{"name": "total", "scope": "total", "limit": 20}, {"name": "each-run", "scope": "run", "limit": "2.50"}])
    assert run == budgets.Budget("each-run", "run", "*", 2_500_000, "ever", "UTC", "hard")
    assert total == budgets.Budget("total", "total", "*", 20_000_000, "day", "UTC", "hard")
    assert budgets.parse([run.declared(), total.declared()]) == [run, total]


@pytest.mark.parametrize(
    ("declared", "problem"),
    [
        ("x", "budgets: 'x' is not a list"),
        ([3], "budgets[0]: 3 is not a mapping"),
        ([{"scope": "total", "limit": 1}], "budgets[0].name: None is not a name"),
        ([{"name": "A b", "scope": "total", "limit": 1}], "budgets[0].name: 'A b' is not a name"),
        ([{"name": "a", "scope": "planet", "limit": 1}], "budgets[0].scope: 'planet' is not one of run, sandbox"),
        ([{"name": "a", "scope": "total", "subject": "x", "limit": 1}], "budgets[0].subject: 'x': a total has no subject"),
        ([{"name": "a", "scope": "team", "subject": "a b", "limit": 1}], "budgets[0].subject: 'a b' is not the name of a team"),
        ([{"name": "a", "scope": "total"}], "budgets[0].limit: is missing"),
        ([{"name": "a", "scope": "total", "limit": -1}], "budgets[0].limit: -1 is not an amount"),
        ([{"name": "a", "scope": "total", "limit": 1, "window": "week"}], "budgets[0].window: 'week' is not one of"),
        ([{"name": "a", "scope": "total", "limit": 1, "zone": "Mars/Olympus"}], "budgets[0].zone: 'Mars/Olympus' is not a time zone"),
        ([{"name": "a", "scope": "total", "limit": 1, "zone": "../etc"}], "budgets[0].zone: '../etc' is not a time zone"),
        ([{"name": "a", "scope": "total", "limit": 1, "mode": "firm"}], "budgets[0].mode: 'firm' is not one of hard, soft"),
        ([{"name": "a", "scope": "total", "limit": 1, "colour": 1}], "budgets[0].colour: is not known"),
        ([{"name": "a", "scope": "total", "limit": 1}] * 2, "budgets[1].name: a is there twice"),
    ],
)
def test_wrong(declared: t.Any, problem: str) -> None:
    with pytest.raises(budgets.BudgetError) as raised:
        budgets.parse(declared)
    assert raised.value.problems[0].startswith(problem)


SUBJECTS = {"run": "r1", "sandbox": "s1", "team": "blue", "model": "anthropic/claude", "host": "h"}


@pytest.mark.parametrize(
    ("scope", "subject", "key"),
    [
        ("run", "*", "run:r1"),
        ("sandbox", "s1", "sandbox:s1"),
        ("sandbox", "s2", None),
        ("team", "blue", "team:blue"),
        ("model", "anthropic/claude", "model:anthropic/claude"),
        ("host", "*", "host:h"),
        ("total", "*", "total"),
    ],
)
def test_who_pays(scope: str, subject: str, key: str | None) -> None:
    assert budgets.Budget("b", scope, subject, 1, "day", "UTC", "hard").subject_of(SUBJECTS) == key


def test_outside_a_run_no_budget_of_runs_applies() -> None:
    assert budgets.Budget("b", "run", "*", 1, "ever", "UTC", "hard").subject_of({"sandbox": "s1"}) is None
