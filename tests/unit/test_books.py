# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What may be spent: every decision as a row, without a file and without a clock."""

from __future__ import annotations

import pytest
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.budgets import Budget, keys_of

from dockersandbox.llm.books import Ask, Books, Held, Hold, Refused

NOON = 1_795_521_600 // 86400 * 86400 + 43200


def budget(limit: int, scope: str = "total", window: str = "day", mode: str = "hard", name: str = "b", subject: str = "*") -> Budget:
    return Budget(name, scope, subject, limit, window, "UTC", mode)


def ask(most: int, least: int | None = None, at: int = NOON, run: str | None = None, call: str = "new") -> Ask:
    subjects = {"sandbox": "s", **({"run": run} if run else {})}
    return Ask(call, at, subjects, most, most if least is None else least, "u")


def books(*budgets: Budget, spent: dict[tuple[str, int], int] | None = None, held: int = 0, held_at: int = NOON, held_run: str | None = None) -> Books:
    def load(key: str, start: int) -> int:
        return sum(micro for (name, when), micro in (spent or {}).items() if name == key and when >= start)

    subjects = {"sandbox": "s", **({"run": held_run} if held_run else {})}
    holds = [Hold("old", held_at, held, keys_of(subjects), "me", "u")] if held else []
    return Books(load, budgets, holds)


@pytest.mark.parametrize(
    ("kept", "asked", "last", "decision"),
    [
        # fits, to the last micro-dollar
        (books(budget(100)), ask(100), False, Held("new", 100, ())),
        (books(budget(100), spent={("total", NOON): 60}, held=30), ask(10), False, Held("new", 10, ())),
        # nothing is free of charge where nothing may be spent, and what costs nothing may be done
        (books(budget(0)), ask(1), False, Refused("spent", "b", "total", 0, 0, 0, NOON + 43200)),
        (books(budget(0)), ask(0), False, Held("new", 0, ())),
        # spent and held are told apart
        (books(budget(100), spent={("total", NOON): 95}), ask(10), False, Refused("spent", "b", "total", 100, 95, 0, NOON + 43200)),
        (books(budget(100), held=95), ask(10), False, None),
        (books(budget(100), held=95), ask(10), True, Refused("held", "b", "total", 100, 0, 95, NOON + 43200)),
        (books(budget(100), spent={("total", NOON): 91}, held=9), ask(10), False, Refused("spent", "b", "total", 100, 91, 9, NOON + 43200)),
        # cut down: at once where nothing is held, after the wait where something is; to half of what is left at the most
        (books(budget(100)), ask(1000, 10), False, Held("new", 50, ())),
        (books(budget(100)), ask(1000, 80), False, Held("new", 80, ())),
        (books(budget(100), held=40), ask(1000, 10), False, None),
        (books(budget(100), held=40), ask(1000, 10), True, Held("new", 30, ())),
        (books(budget(100), held=95), ask(1000, 10), True, Refused("held", "b", "total", 100, 0, 95, NOON + 43200)),
        # every budget that applies counts, and the tightest is named
        (books(budget(100), budget(10, "sandbox", name="s")), ask(11), False, Refused("spent", "s", "sandbox:s", 10, 0, 0, NOON + 43200)),
        (books(budget(100), budget(10, "run", "ever", name="r")), ask(11, run="r1"), False, Refused("spent", "r", "run:r1", 10, 0, 0, None)),
        (books(budget(100), budget(10, "run", "ever", name="r")), ask(11), False, Held("new", 11, ())),
        # of two runs each has its own
        (books(budget(100), budget(10, "run", "ever", name="r"), held=10, held_run="r1"), ask(10, run="r2"), False, Held("new", 10, ())),
        # soft ones are only told of, and are not enough
        (books(budget(100), budget(5, mode="soft", name="soft")), ask(6), False, Held("new", 6, ("soft",))),
        (books(budget(5, mode="soft")), ask(1), False, Refused("no_budget", "", "", 0, 0, 0, None)),
        (books(), ask(1), False, Refused("no_budget", "", "", 0, 0, 0, None)),
        (books(budget(5, "sandbox", subject="other")), ask(1), False, Refused("no_budget", "", "", 0, 0, 0, None)),
        # a window begins anew, and what was held before it began belongs to the one before
        (books(budget(10), spent={("total", NOON - 86400): 10}, held=10, held_at=NOON - 86400), ask(10), False, Held("new", 10, ())),
        # a window that is made longer counts what was spent; one that is made shorter does not block for what was before
        (books(budget(10, window="month"), spent={("total", NOON - 86400): 10}), ask(1), False, Refused("spent", "b", "total", 10, 10, 0, 1796083200)),
        (books(budget(10, window="hour"), spent={("total", NOON - 3600): 10}), ask(1), False, Held("new", 1, ())),
        # a clock that was ahead does not make money free when it is put right
        (books(budget(10), spent={("total", NOON + 86400): 10}), ask(1), False, Refused("spent", "b", "total", 10, 10, 0, NOON + 43200)),
    ],
)
def test_decisions(kept: Books, asked: Ask, last: bool, decision: Held | Refused | None) -> None:
    assert kept.decide(asked, last) == decision


def test_a_hold_is_settled_once_and_in_its_own_window() -> None:
    kept = books(budget(100))
    kept.decide(ask(1), False)
    kept.hold(Hold("a", NOON, 60, ["sandbox:s", "total"], "me", "u"))
    assert kept.standing(kept.budgets[0], "total", NOON) == (0, 60)
    assert kept.settle("a", 20) is not None
    assert kept.settle("a", 20) is None
    assert kept.standing(kept.budgets[0], "total", NOON) == (20, 0)
    kept.hold(Hold("late", NOON - 86400, 60, ["sandbox:s", "total"], "me", "u"))
    kept.settle("late", 60)
    assert kept.standing(kept.budgets[0], "total", NOON) == (20, 0)
    assert kept.standing(kept.budgets[0], "total", NOON - 86400) == (0, 0)


def test_more_subjects_than_are_kept_at_hand() -> None:
    kept = books(budget(10, "run", "ever"))
    for number in range(9000):
        assert isinstance(kept.decide(ask(10, run=f"r{number}"), False), Held)
    kept.hold(Hold("a", NOON, 10, ["run:r1", "total"], "me", "u"))
    assert kept.decide(ask(10, run="r1"), False) is None
    assert kept.held_by("run") == {"run:r1": 10}
