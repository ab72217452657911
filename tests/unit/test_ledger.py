# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ledger on a real file: holds, waits, several processes, and what is left of one that died."""

from __future__ import annotations

import asyncio
import fcntl
import os
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import budgets

from dockersandbox.llm import ledger as ledger_module
from dockersandbox.llm.books import Ask, Held, Refused
from dockersandbox.llm.ledger import LedgerError, Reconciled, SqliteLedger

NOON = 1_795_500_000
Clock = t.Callable[[], float]


def ask(call: str, most: int, least: int | None = None, at: int = NOON, **subjects: str) -> Ask:
    return Ask(call, at, {"sandbox": "s", **subjects}, most, most if least is None else least, "sim")


def total(limit: int, window: str = "day") -> list[budgets.Budget]:
    return [budgets.Budget("total", "total", "*", limit, window, "UTC", "hard")]


def run(path: Path, *stories: t.Callable[..., t.Awaitable[None]], limit: int | None = 100, ledgers: int = 1, **options: t.Any) -> None:
    """Tell each story to ledgers that have the same file, the first with a budget of *limit*."""

    async def all_of_it() -> None:
        opened = [SqliteLedger(path, **{"clock": lambda: NOON, **options}) for _number in range(ledgers)]
        try:
            if limit is not None:
                await opened[0].declare(total(limit), True)
            for story in stories:
                await story(*opened)
        finally:
            for ledger in opened:
                await ledger.close()

    asyncio.run(all_of_it())


def test_what_is_held_and_spent_survives_the_process(tmp_path: Path) -> None:
    async def first(ledger: SqliteLedger) -> None:
        assert await ledger.reserve(ask("a", 60)) == Held("a", 60, ())
        assert await ledger.settle("a", 40)
        assert not await ledger.settle("a", 40)
        assert not await ledger.release("a")
        assert await ledger.reserve(ask("b", 20)) == Held("b", 20, ())
        assert await ledger.release("b")

    async def second(ledger: SqliteLedger) -> None:
        refused = await ledger.reserve(ask("c", 61))
        assert isinstance(refused, Refused) and (refused.reason, refused.spent) == ("spent", 40)
        assert await ledger.reserve(ask("d", 60)) == Held("d", 60, ())
        report = await ledger.spend(0)
        assert report["total"] == {"total": {"spent": 40, "held": 60, "calls": 1}}
        assert report["sandbox"] == {"s": {"spent": 40, "held": 60, "calls": 1}}

    run(tmp_path / "ledger.db", first)
    run(tmp_path / "ledger.db", second, limit=None)


def test_who_waits_gets_what_is_settled_in_the_order_of_asking(tmp_path: Path) -> None:
    async def story(ledger: SqliteLedger) -> None:
        await ledger.reserve(ask("a", 100))
        order: list[str] = []

        async def one(name: str) -> Held | Refused:
            got = await ledger.reserve(ask(name, 40), wait=10)
            order.append(name)
            return got

        tasks = []
        for name in "bcd":
            tasks.append(asyncio.create_task(one(name)))
            await asyncio.sleep(0.01)
        assert isinstance(await ledger.reserve(ask("e", 40), wait=0.01), Refused)
        await ledger.settle("a", 10)
        done, waiting = await asyncio.wait(tasks, timeout=1)
        assert order == ["b", "c"] and len(done) == 2
        await ledger.settle("b", 40)
        # 10 + 40 spent and 40 held: the last one fits no more once the other is settled too.
        await ledger.settle("c", 40)
        (last,) = waiting
        refused = await last
        assert isinstance(refused, Refused) and refused.reason == "spent"

    run(tmp_path / "ledger.db", story)


def test_who_waits_too_long_is_told_that_it_is_held(tmp_path: Path) -> None:
    async def story(ledger: SqliteLedger) -> None:
        await ledger.reserve(ask("a", 100))
        refused = await ledger.reserve(ask("b", 10), wait=0.1)
        assert isinstance(refused, Refused) and (refused.reason, refused.held, refused.until) == ("held", 100, NOON // 86400 * 86400 + 86400)

    run(tmp_path / "ledger.db", story)


def test_money_of_one_who_went_away_is_free_again(tmp_path: Path) -> None:
    async def story(ledger: SqliteLedger) -> None:
        for number in range(50):
            task = asyncio.create_task(ledger.reserve(ask(f"a{number}", 100)))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        assert await ledger.reserve(ask("b", 100), wait=5) == Held("b", 100, ())

    run(tmp_path / "ledger.db", story)


@pytest.mark.parametrize("ledgers", [1, 2])
def test_no_burst_gets_more_than_there_is(tmp_path: Path, ledgers: int) -> None:
    async def story(*opened: SqliteLedger) -> None:
        async def one(number: int) -> bool:
            ledger = opened[number % len(opened)]
            got = await ledger.reserve(ask(f"c{number}", 10), wait=20)
            if isinstance(got, Refused):
                assert got.reason == "spent" and got.spent <= got.limit
                return False
            await asyncio.sleep(0.002)
            await ledger.settle(got.id, 7)
            return True

        # 99 calls at 7, and 10 that the last one might cost: that is exactly a hundred.
        await opened[0].declare(total(99 * 7 + 10), True)
        served = await asyncio.gather(*(one(number) for number in range(300)))
        assert sum(served) == 100
        for ledger in opened:
            assert (await ledger.spend(0))["total"]["total"] == {"spent": 700, "held": 0, "calls": 100}

    run(tmp_path / "ledger.db", story, ledgers=ledgers)


def test_one_process_sees_what_another_does(tmp_path: Path) -> None:
    stops: list[dict[str, str]] = []

    async def story(one: SqliteLedger, other: SqliteLedger) -> None:
        await one.reserve(ask("a", 90))
        assert isinstance(await other.reserve(ask("b", 20)), Refused)
        waiting = asyncio.create_task(other.reserve(ask("c", 20), wait=5))
        await asyncio.sleep(0.02)
        await one.settle("a", 1)
        assert await waiting == Held("c", 20, ())
        await one.declare(total(10), True)
        assert isinstance(await other.reserve(ask("d", 20)), Refused)
        await one.stop("sandbox:s", "an audit")
        for _turn in range(100):
            if stops.count({"sandbox:s": "an audit"}) == 2:
                break
            await asyncio.sleep(0.02)
        assert stops.count({"sandbox:s": "an audit"}) == 2
        assert await other.resume("sandbox:s")
        assert not await one.resume("sandbox:s")

    run(tmp_path / "ledger.db", story, ledgers=2, stopped=stops.append)


HOLDER = """
import asyncio, sys
from pathlib import Path
from dockersandbox.llm.books import Ask
from dockersandbox.llm.ledger import SqliteLedger
async def main():
    ledger = SqliteLedger(Path(sys.argv[1]))
    for name in ("finished", "never-came", "not-told"):
        await ledger.reserve(Ask(name, 1795500000, {"sandbox": "s"}, 30, 30, "sim"))
    print("held", flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


def killed_holder(path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", HOLDER, path], stdout=subprocess.PIPE, text=True, env=environment) as child:
        assert child.stdout is not None and child.stdout.readline() == "held\n"
        child.kill()


def test_holds_of_a_dead_process_stay_charged_until_the_upstreams_account(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"

    async def story(ledger: SqliteLedger) -> None:
        killed_holder(path)
        await ledger.declare(total(100), True)
        refused = await ledger.reserve(ask("x", 20), wait=0.2)
        assert isinstance(refused, Refused) and (refused.reason, refused.held) == ("held", 90)
        # An account of another upstream says nothing of these calls.
        assert await ledger.reconcile("other", {}, NOON + 1) == Reconciled(0, 0, 0, 0)

    async def after(ledger: SqliteLedger) -> None:
        # What was reserved when the account ends, or later, is not in it and may yet come.
        assert await ledger.reconcile("sim", {"finished": 12}, NOON) == Reconciled(1, 0, 0, 12 - 30)
        assert await ledger.reconcile("sim", {"finished": 12}, NOON + 1) == Reconciled(0, 2, 0, -60)
        assert (await ledger.spend(0))["total"]["total"] == {"spent": 12, "held": 0, "calls": 1}
        assert list(tmp_path.glob("ledger.db.owner-*")) == [Path(f"{path}.owner-{ledger.owner}")]

    run(path, story)
    run(path, after, limit=None)


def test_a_lost_hold_that_is_old_counts_as_spent_and_can_still_be_put_right(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    now = [float(NOON)]

    async def lose(ledger: SqliteLedger) -> None:
        await ledger.reserve(ask("a", 60))
        assert await ledger.lose("a")
        assert not await ledger.lose("b")
        await ledger.reserve(ask("guess", 10))
        await ledger.settle("guess", 9, estimated=True)
        now[0] += 3601

    async def find(ledger: SqliteLedger) -> None:
        assert (await ledger.spend(0))["total"]["total"] == {"spent": 69, "held": 0, "calls": 2}
        assert (await ledger.calls())["a"] == ("charged", 60, 60)
        assert await ledger.reconcile("sim", {"a": 25, "guess": 4}, NOON + 1) == Reconciled(0, 0, 2, -40)
        assert (await ledger.spend(0))["total"]["total"] == {"spent": 29, "held": 0, "calls": 2}
        assert await ledger.reserve(ask("b", 71)) == Held("b", 71, ())

    run(path, lose, clock=lambda: now[0])
    run(path, find, limit=None, clock=lambda: now[0])


def test_of_two_changes_of_a_call_in_one_transaction_the_last_one_holds(tmp_path: Path) -> None:
    names = [f"{number:03}" for number in range(100)]

    async def story(ledger: SqliteLedger) -> None:
        for name in names:
            await ledger.reserve(ask(name, 1))
        turn = os.open(tmp_path / "ledger.db.turn", os.O_RDWR)
        fcntl.flock(turn, fcntl.LOCK_EX)
        # The first one waits for its turn, and what comes meanwhile is done together.
        first = asyncio.create_task(ledger.budgets())
        await asyncio.sleep(0.1)
        lost = [ledger.lose(name) for name in names]
        last = asyncio.create_task(ledger.reconcile("sim", dict.fromkeys(names[:50], 3), NOON + 1))
        await asyncio.sleep(0.1)
        os.close(turn)
        assert all(await asyncio.gather(*lost)) and await first
        assert await last == Reconciled(50, 50, 0, 50 * 2 - 50)
        found = await ledger.calls()
        assert {name: found[name] for name in names} == {
            name: ("reconciled", 1, 3) if name in names[:50] else ("released", 1, 0) for name in names
        }

    run(tmp_path / "ledger.db", story, limit=1000)


def test_a_window_that_is_changed_neither_resets_nor_blocks(tmp_path: Path) -> None:
    async def story(ledger: SqliteLedger) -> None:
        for day in (2, 1, 0):
            call = ask(f"day{day}", 100, at=NOON - day * 86400)
            assert isinstance(await ledger.reserve(call), Held)
            await ledger.settle(call.id, 90)
        await ledger.declare(total(300, "month"), True)
        refused = await ledger.reserve(ask("a", 31))
        assert isinstance(refused, Refused) and refused.spent == 270
        await ledger.declare(total(100, "day"), True)
        refused = await ledger.reserve(ask("b", 11))
        assert isinstance(refused, Refused) and refused.spent == 90
        await ledger.declare(total(100, "hour"), True)
        assert isinstance(await ledger.reserve(ask("c", 11, at=NOON + 3600)), Held)
        await ledger.release("c")
        (one,) = await ledger.standing()
        assert (one["spent"], one["held"], one["left"]) == (90, 0, 10)

    run(tmp_path / "ledger.db", story)


@pytest.mark.parametrize("step", [-86400, -3600, 3600, 86400])
def test_a_step_of_the_clock_gives_nobody_more_of_a_window_than_there_is(tmp_path: Path, step: int) -> None:
    async def story(ledger: SqliteLedger) -> None:
        assert isinstance(await ledger.reserve(ask("before", 100)), Held)
        # It is settled by another clock than it was held by, and stays in its own window.
        now[0] += step
        await ledger.settle("before", 90)
        stepped = await ledger.reserve(ask("stepped", 100, at=now[0]))
        # What was spent later than now is taken for spent: only another day ahead has money of its own.
        ahead = step == 86400
        assert isinstance(stepped, Held) is ahead
        if ahead:
            await ledger.settle("stepped", 90)
        now[0] -= step
        refused = await ledger.reserve(ask("after", 11))
        assert isinstance(refused, Refused) and refused.spent == (180 if ahead else 90)

    now = [NOON]
    run(tmp_path / "ledger.db", story, clock=lambda: now[0])


def test_what_is_held_is_told_before_it_is_durable_and_never_after_it_is_refused(tmp_path: Path) -> None:
    async def story(ledger: SqliteLedger) -> None:
        told: list[Held] = []
        for call, most in (("a", 60), ("b", 60), ("c", 40)):
            got = await ledger.reserve(ask(call, most), decided=told.append)
            assert isinstance(got, Held) is (call != "b")
            # By the time of the answer it was told.
            assert [held.id for held in told] == (["a", "c"] if call == "c" else ["a"])

    run(tmp_path / "ledger.db", story)


def test_a_file_that_does_not_answer_holds_nobody_and_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "_PATIENCE", 0.2)
    told: list[Held] = []

    async def story(ledger: SqliteLedger) -> None:
        # Another process that has its turn, and stands.
        turn = os.open(tmp_path / "ledger.db.turn", os.O_RDWR)
        fcntl.flock(turn, fcntl.LOCK_EX)
        try:
            with pytest.raises(LedgerError, match="ledger.db: does not answer"):
                await ledger.reserve(ask("late", 60), decided=told.append)
        finally:
            os.close(turn)
        assert isinstance(await ledger.reserve(ask("whole", 100)), Held)
        assert told == []

    run(tmp_path / "ledger.db", story)


def test_budgets_are_declared_for_all_or_added(tmp_path: Path) -> None:
    async def story(ledger: SqliteLedger) -> None:
        extra = budgets.parse([{"name": "each-run", "scope": "run", "limit": 1}])
        await ledger.declare(extra, False)
        assert [budget.name for budget in await ledger.budgets()] == ["each-run", "total"]
        await ledger.reserve(ask("a", 5, run="r1"))
        assert [(one["subject"], one["held"]) for one in await ledger.standing()] == [("run:r1", 5), ("total", 5)]
        await ledger.declare(extra, True)
        assert await ledger.budgets() == extra

    run(tmp_path / "ledger.db", story)


def test_models_beyond_so_many_are_one_but_for_those_that_a_budget_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "_MODELS", 3)
    monkeypatch.setattr(ledger_module, "_TOLD", 4)

    async def story(ledger: SqliteLedger) -> None:
        each = budgets.Budget("each", "model", "*", 9, "day", "UTC", "hard")
        named = budgets.Budget("named", "model", "p/named", 7, "day", "UTC", "hard")
        await ledger.declare([*total(100), each, named], True)
        for number in range(5):
            assert await ledger.reserve(ask(f"m{number}", 1 + number, model=f"p/m{number}")) == Held(f"m{number}", 1 + number, ())
            await ledger.settle(f"m{number}", 1 + number)
        # The fourth and the fifth are one, for which no more is left.
        refused = await ledger.reserve(ask("m5", 1, model="p/m5"))
        assert isinstance(refused, Refused) and (refused.budget, refused.subject) == ("each", "model:other")
        assert await ledger.reserve(ask("n", 7, model="p/named")) == Held("n", 7, ())
        await ledger.settle("n", 7)
        refused = await ledger.reserve(ask("o", 1, model="p/named"))
        assert isinstance(refused, Refused) and (refused.budget, refused.subject) == ("named", "model:p/named")
        spent = (await ledger.spend(0))["model"]
        assert {name: row["spent"] for name, row in spent.items()} == {"p/m0": 1, "p/m1": 2, "p/m2": 3, "other": 9, "p/named": 7}
        # Those that have spent most are told.
        told = [row["subject"] for row in await ledger.standing() if row["name"] == "each"]
        assert told == ["model:other", "model:p/m1", "model:p/m2", "model:p/named"]

    run(tmp_path / "ledger.db", story, limit=None)


def test_single_calls_are_forgotten_and_their_sums_are_not(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"

    async def old(ledger: SqliteLedger) -> None:
        await ledger.reserve(ask("a", 5, at=NOON - 100))
        await ledger.settle("a", 5)
        await ledger.reserve(ask("b", 5, at=NOON - 100))

    async def later(ledger: SqliteLedger) -> None:
        assert list(await ledger.calls()) == ["b"]
        assert (await ledger.spend(0))["total"]["total"]["spent"] == 5

    run(path, old)
    run(path, later, limit=None, keep=50)


def test_a_call_is_held_once(tmp_path: Path) -> None:
    async def story(ledger: SqliteLedger) -> None:
        await ledger.reserve(ask("a", 5))
        with pytest.raises(LedgerError, match="a: is held already"):
            await ledger.reserve(ask("a", 5))
        assert (await ledger.spend(0))["total"]["total"]["held"] == 5

    run(tmp_path / "ledger.db", story)


@pytest.mark.parametrize("content", [b"this is no database, whatever it may be\n" * 100, None])
def test_what_is_no_ledger_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "ledger.db"
    if content is None:
        path = tmp_path / "missing" / "ledger.db"
    else:
        path.write_bytes(content)
    with pytest.raises(LedgerError, match="ledger.db: "):
        SqliteLedger(path)


def test_a_ledger_of_a_later_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    run(path)
    subprocess.run([sys.executable, "-c", "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('PRAGMA user_version = 7')", path], check=True)
    with pytest.raises(LedgerError, match="is a ledger of version 7, and this reads version 1"):
        SqliteLedger(path)
