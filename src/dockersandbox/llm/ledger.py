# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ledger: what is held and what is spent, durable before anybody is told.

SQLite with one thread that writes: whatever is asked of it while it commits goes into the next transaction together, so
that a hundred calls wait for one flush of the disk. Several processes may share a ledger. A lock on a file makes them take
turns, and each notices by SQLite's ``data_version`` when what it knows was changed by another.

A hold whose process died, or whose answer was lost, stays charged: until a statement of the upstream says what the call
did cost, or until it is old enough to be taken as spent whole.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import fcntl
import itertools
import json
import os
import queue
import sqlite3
import threading
import time
import typing as t
from pathlib import Path

from ansible_collections.dockersandbox.guardrails.plugins.module_utils import atomic, budgets
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.budgets import BUCKET, Budget

from dockersandbox.common.outbox import Outbox
from dockersandbox.llm.books import Ask, Books, Held, Hold, Refused

VERSION = 1
BATCH = 512
# How often it is looked whether another process freed money that somebody waits for, and whether one stopped all.
_POLL = 0.05
_IDLE_POLL = 0.5
# How much longer than it may wait for money a call waits for the file.
_PATIENCE = 10.0
_LOOK = 0.5
_DAY = 86400
# More models than these, but for those that a budget names, are one: a name costs whoever asks for it nothing.
_MODELS = 256
_OTHER = "other"
# Of one budget so many subjects are told, those that have spent most.
_TOLD = 500
_TABLES = """
CREATE TABLE spend (key TEXT NOT NULL, bucket INTEGER NOT NULL, micro INTEGER NOT NULL, calls INTEGER NOT NULL,
    PRIMARY KEY (key, bucket)) WITHOUT ROWID;
CREATE TABLE call (id TEXT PRIMARY KEY, at INTEGER NOT NULL, owner TEXT NOT NULL, upstream TEXT NOT NULL, keys TEXT NOT NULL,
    held INTEGER NOT NULL, spent INTEGER NOT NULL, state TEXT NOT NULL, since INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX call_open ON call (owner) WHERE state IN ('held', 'lost');
CREATE INDEX call_at ON call (at);
CREATE TABLE budget (name TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE stop (key TEXT PRIMARY KEY, reason TEXT NOT NULL, at INTEGER NOT NULL) WITHOUT ROWID;
"""

# What is written of calls, and of what was spent; in braces the rows.
_NEW = "INSERT INTO call VALUES {}"
_CHANGED = (
    "WITH new (spent, state, since, id) AS (VALUES {})"
    " UPDATE call SET spent = new.spent, state = new.state, since = new.since FROM new WHERE call.id = new.id"
)
_SPENT = "INSERT INTO spend VALUES {} ON CONFLICT DO UPDATE SET micro = micro + excluded.micro, calls = calls + excluded.calls"
_ROWS = 32

T = t.TypeVar("T")


class LedgerError(Exception):
    """Nothing was written; the text is one line. Without a ledger there is no call."""


class Reconciled(t.NamedTuple):
    """What a reconciliation did: how many calls it *settled*, *freed* and *corrected*, and the micro-dollars it put right."""

    settled: int
    freed: int
    corrected: int
    micro: int


class Ledger(t.Protocol):
    """What the service needs of a ledger; a fleet's may lie in another database."""

    async def reserve(self, ask: Ask, wait: float = 0.0, decided: t.Callable[[Held], None] | None = None) -> Held | Refused:
        """Hold money for a call, durably; wait up to *wait* seconds for calls under way. Raises LedgerError.

        *decided* may be called from the event loop with what is held when it is not durable yet, and may never be.
        """

    def settle(self, hold_id: str, micro: int, estimated: bool = False) -> asyncio.Future[bool]:
        """Put what a call did cost in the place of its hold; False when nothing was held."""

    def release(self, hold_id: str) -> asyncio.Future[bool]:
        """Free the hold of a call that never left, or was refused by the upstream; False when nothing was held."""

    def lose(self, hold_id: str) -> asyncio.Future[bool]:
        """Leave a hold charged whose call's cost is not known; False when nothing was held."""

    async def close(self) -> None:
        """Write all that was asked for, and end."""


@dataclasses.dataclass(slots=True)
class _Wish:
    """An ask that may wait; *decided* is told of money that is held before that is durable."""

    ask: Ask
    deadline: float
    answer: asyncio.Future[t.Any]
    decided: t.Callable[[Held], None] | None


@dataclasses.dataclass(slots=True)
class _Work:
    """Something to do within a transaction."""

    do: t.Callable[[], t.Any]
    answer: asyncio.Future[t.Any]


def _foretold(told: list[tuple[_Wish, Held]]) -> None:
    for wish, held in told:
        if wish.decided is not None and not wish.answer.done():
            wish.decided(held)


class SqliteLedger:
    """The ledger in the file *path*, for the running event loop, in one of any number of processes that have it open.

    *lost_after*: the seconds after which a lost hold counts as spent. *keep*: the seconds that single calls are remembered.
    *clock* gives seconds since 1970 UTC. Raises LedgerError when the file cannot be used.
    """

    def __init__(
        self,
        path: Path,
        lost_after: int = 3600,
        keep: int = 35 * 86400,
        clock: t.Callable[[], float] = time.time,
        stopped: t.Callable[[dict[str, str]], None] | None = None,
    ) -> None:
        self.path = path
        self.owner = os.urandom(8).hex()
        self._lost_after = lost_after
        self._keep = keep
        self._clock = clock
        self._stopped = stopped
        self._stops: dict[str, str] | None = None
        self._queue: queue.SimpleQueue[list[_Wish | _Work] | None] = queue.SimpleQueue()
        self._waiting: collections.deque[_Wish] = collections.deque()
        self._new: dict[str, tuple[t.Any, ...]] = {}
        # Of several changes of a call the last one holds: which of two rows an UPDATE goes by is not defined.
        self._changed: dict[str, tuple[t.Any, ...]] = {}
        self._spend: collections.defaultdict[tuple[str, int], list[int]] = collections.defaultdict(lambda: [0, 0])
        self._models: set[str] = set()
        self._freed = False
        self._seen = -1
        self._next_care = 0.0
        try:
            fresh = not path.exists()
            self._turn = os.open(path.with_name(f"{path.name}.turn"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._alive = self._own(self.owner)
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30)
            with self._taking_turns():
                self._db.execute("PRAGMA journal_mode=WAL")
                self._db.execute("PRAGMA synchronous=FULL")
                self._prepare()
            if fresh:
                atomic.sync_folder(path.parent)
            self._books = Books(self._spent_since)
        except (OSError, sqlite3.Error) as error:
            raise LedgerError(f"{path}: {error}") from None
        self._loop = asyncio.get_running_loop()
        self._asked: dict[asyncio.Future[t.Any], float] = {}
        self._looks: asyncio.TimerHandle | None = None
        self._outbox: Outbox[_Wish | _Work] = Outbox(self._loop, self._queue.put)
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)
        self._thread.start()

    def _prepare(self) -> None:
        found = self._db.execute("PRAGMA user_version").fetchone()[0]
        if found == 0:
            self._db.executescript(f"BEGIN IMMEDIATE; {_TABLES} PRAGMA user_version = {VERSION}; COMMIT;")
        elif found != VERSION:
            raise LedgerError(f"{self.path}: is a ledger of version {found}, and this reads version {VERSION}")

    def _own(self, owner: str) -> int:
        """Return the handle of the lock that *owner* holds as long as its process lives. Raises BlockingIOError when it does."""
        handle = os.open(self._owner_file(owner), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise
        return handle

    def _owner_file(self, owner: str) -> Path:
        return self.path.with_name(f"{self.path.name}.owner-{owner}")

    @contextlib.contextmanager
    def _taking_turns(self) -> t.Iterator[None]:
        # The kernel wakes whoever waited longest; SQLite's own waiting is a guess of when to look again.
        fcntl.flock(self._turn, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._turn, fcntl.LOCK_UN)

    # What is asked for, from the event loop.

    async def reserve(self, ask: Ask, wait: float = 0.0, decided: t.Callable[[Held], None] | None = None) -> Held | Refused:
        """Hold money for a call, durably; wait up to *wait* seconds for calls under way. Raises LedgerError, also when the
        file does not answer in time.

        *decided* is called from the event loop with what is held, when that is not durable yet, and may never be.
        """
        answer: asyncio.Future[Held | Refused] = self._loop.create_future()
        deadline = time.monotonic() + wait
        self._outbox.put(_Wish(ask, deadline, answer, decided))
        # One timer for all: each of its own would be set for nothing nearly always.
        self._asked[answer] = deadline + _PATIENCE
        if self._looks is None:
            self._looks = self._loop.call_later(_LOOK, self._look)
        try:
            return await answer
        finally:
            del self._asked[answer]

    def _look(self) -> None:
        """Tell those who have waited too long that nothing comes."""
        now = time.monotonic()
        for answer, deadline in self._asked.items():
            if deadline <= now and not answer.done():
                answer.set_exception(LedgerError(f"{self.path}: does not answer"))
        self._looks = self._loop.call_later(_LOOK, self._look) if self._asked else None

    def settle(self, hold_id: str, micro: int, estimated: bool = False) -> asyncio.Future[bool]:
        """Put what a call did cost in the place of its hold; False when nothing was held. Raises LedgerError."""
        return self._ask(lambda: self._settle(hold_id, micro, "estimated" if estimated else "settled"), waits=True)

    def release(self, hold_id: str) -> asyncio.Future[bool]:
        """Free the hold of a call that cost nothing; False when nothing was held. Raises LedgerError."""
        return self._ask(lambda: self._settle(hold_id, 0, "released"), waits=True)

    def lose(self, hold_id: str) -> asyncio.Future[bool]:
        """Leave a hold charged whose call's cost is not known; False when nothing was held. Raises LedgerError."""
        return self._ask(lambda: self._lose(hold_id))

    async def reconcile(self, upstream: str, statement: t.Mapping[str, int], until: int) -> Reconciled:
        """Go by the *upstream*'s own account: *statement* has what each call did cost, in micro-dollars, by its id.

        It is whole for what was reserved before *until*: a lost call that is not in it did not arrive, and is freed. What was
        charged by estimate, or whole, is corrected. Raises LedgerError.
        """
        return await self._ask(lambda: self._reconcile(upstream, statement, until))

    async def budgets(self) -> list[Budget]:
        """Return the budgets there are. Raises LedgerError."""
        return await self._ask(lambda: list(self._books.budgets))

    async def declare(self, wanted: t.Sequence[Budget], exclusive: bool) -> None:
        """Make *wanted* the budgets of these names, and with *exclusive* the only ones. Raises LedgerError."""
        return await self._ask(lambda: self._declare(wanted, exclusive))

    async def standing(self) -> list[dict[str, t.Any]]:
        """Return where each budget stands now, for each of its subjects that has spent or holds. Raises LedgerError."""
        return await self._ask(self._standing)

    async def spend(self, since: int) -> dict[str, dict[str, dict[str, int]]]:
        """Return what was spent since then by each subject: scope → name → spent, held (micro-dollars), calls. Raises LedgerError."""
        return await self._ask(lambda: self._spend_report(since))

    async def calls(self, since: int = 0) -> dict[str, tuple[str, int, int]]:
        """Return the calls reserved since then: id → (state, held, spent) in micro-dollars. Raises LedgerError."""
        rows = "SELECT id, state, held, spent FROM call WHERE at >= ?"
        return await self._ask(lambda: {row[0]: row[1:] for row in self._db.execute(rows, (since,))})

    async def stop(self, key: str, reason: str) -> None:
        """Stop a subject (``total`` for all) in every process that has this ledger, until it is resumed. Raises LedgerError."""
        await self._ask(lambda: self._stop(key, reason))

    async def resume(self, key: str) -> bool:
        """Take a stop back; False when there was none. Raises LedgerError."""
        return await self._ask(lambda: self._resume(key))

    async def close(self) -> None:
        """Write all that was asked for, and end."""
        if self._looks is not None:
            self._looks.cancel()
        self._outbox.flush()
        self._queue.put(None)
        await self._loop.run_in_executor(None, self._thread.join)

    def _ask(self, do: t.Callable[[], T], waits: bool = False) -> asyncio.Future[T]:
        answer: asyncio.Future[T] = self._loop.create_future()
        # Whoever waits for money is not made to wait longer for what may free it.
        self._outbox.put(_Work(do, answer), waits=waits and not self._waiting)
        return answer

    # What is done, in the thread that writes.

    def _run(self) -> None:
        ended = False
        with contextlib.suppress(OSError):
            # It does not take the processor from the loop's thread as it wakes: the interpreter is that one's, so that it would wait again.
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        try:
            while not ended:
                batch, ended = self._next()
                self._commit(batch, ended)
        finally:
            self._db.close()
            os.close(self._alive)
            self._owner_file(self.owner).unlink(missing_ok=True)
            os.close(self._turn)

    def _next(self) -> tuple[list[_Wish | _Work], bool]:
        """Return what has come since the last time, and whether that was the last."""
        batch: list[_Wish | _Work] = []
        with contextlib.suppress(queue.Empty):
            came = self._queue.get(timeout=_POLL if self._waiting else _IDLE_POLL)
            while came is not None and len(batch) < BATCH:
                batch += came
                came = self._queue.get_nowait()
            if came is None:
                return batch, True
            batch += came
        return batch, False

    def _commit(self, batch: list[_Wish | _Work], ended: bool) -> None:
        now = time.monotonic()
        due = ended or now >= self._next_care or any(wish.deadline <= now for wish in self._waiting)
        if not batch and not due and self._version() == self._seen:
            return
        answers: list[tuple[_Wish | _Work, t.Any]] = []
        works = [item for item in batch if isinstance(item, _Work)]
        wishes = collections.deque(item for item in batch if isinstance(item, _Wish))
        try:
            with self._taking_turns():
                self._db.execute("BEGIN IMMEDIATE")
                self._refresh()
                if now >= self._next_care:
                    self._next_care = now + 30
                    self._care()
                for work in works:
                    answers.append((work, work.do()))
                self._grant(wishes, answers, ended)
                self._foretell(answers)
                self._flush()
                self._db.execute("COMMIT")
        except Exception as error:
            # Whatever it was: nothing of this batch is in the file, so nobody of it may be told otherwise.
            self._forget()
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            failed = LedgerError(f"{self.path}: {error}")
            answers = [(item, failed) for item in batch]
        self._tell(answers)

    def _grant(self, wishes: collections.deque[_Wish], answers: list[tuple[_Wish | _Work, t.Any]], ended: bool) -> None:
        """Decide on those who wait, if there can be news for them, and then on the new *wishes*."""
        now = time.monotonic()
        ahead = len(self._waiting)
        if not (self._freed or ended or any(wish.deadline <= now for wish in self._waiting)):
            ahead = 0
        self._freed = False
        kept: collections.deque[_Wish] = collections.deque()
        while ahead or wishes:
            wish = self._waiting.popleft() if ahead else wishes.popleft()
            ahead -= 1 if ahead else 0
            if wish.answer.done():
                continue
            ask = self._bounded(wish.ask)
            decision = self._books.decide(ask, ended or wish.deadline <= now)
            if decision is None:
                kept.append(wish)
                continue
            if isinstance(decision, Held):
                if ask.id in self._books.holds:
                    answers.append((wish, LedgerError(f"{ask.id}: is held already")))
                    continue
                self._hold(ask, decision.micro)
            answers.append((wish, decision))
        self._waiting.extend(kept)

    def _bounded(self, ask: Ask) -> Ask:
        """Return *ask* with a model that is counted by its name, or as one of all the others."""
        name = ask.subjects.get("model")
        if name is None or name in self._models:
            return ask
        if len(self._models) >= _MODELS and not any(budget.scope == "model" and budget.subject == name for budget in self._books.budgets):
            return ask._replace(subjects={**ask.subjects, "model": _OTHER})
        self._models.add(name)
        return ask

    def _foretell(self, answers: list[tuple[_Wish | _Work, t.Any]]) -> None:
        """Tell what is about to be durable to those who have something to do meanwhile."""
        told = [(item, answer) for item, answer in answers if isinstance(item, _Wish) and item.decided is not None and isinstance(answer, Held)]
        if told:
            self._in_loop(_foretold, told)

    def _tell(self, answers: list[tuple[_Wish | _Work, t.Any]]) -> None:
        if answers:
            self._in_loop(self._answer, answers)

    def _in_loop(self, act: t.Callable[[list[t.Any]], None], told: list[t.Any]) -> None:
        # A loop that has ended has nobody left to be told: what was held for it is found by its owner's lock.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(act, told)

    def _answer(self, told: list[tuple[_Wish | _Work, t.Any]]) -> None:
        for item, answer in told:
            if item.answer.done():
                if isinstance(answer, Held):
                    # Whoever asked went away in the meantime.
                    hold_id = answer.id
                    unheard: asyncio.Future[bool] = self._loop.create_future()
                    self._outbox.put(_Work(lambda hold_id=hold_id: self._settle(hold_id, 0, "released"), unheard))  # type: ignore[misc]
            elif isinstance(answer, Exception):
                item.answer.set_exception(answer)
            else:
                item.answer.set_result(answer)

    def _version(self) -> int:
        try:
            return int(self._db.execute("PRAGMA data_version").fetchone()[0])
        except sqlite3.Error:
            return -1

    def _refresh(self) -> None:
        """Read again what another process has changed, or what a failure left unsure."""
        version = self._version()
        if version == self._seen:
            return
        declared = [Budget(**json.loads(body)) for (body,) in self._db.execute("SELECT body FROM budget ORDER BY name")]
        rows = self._db.execute("SELECT id, at, held, keys, owner, upstream, state = 'lost' FROM call WHERE state IN ('held', 'lost')")
        holds = [Hold(row[0], row[1], row[2], row[3].split("\n"), row[4], row[5], bool(row[6])) for row in rows]
        self._books = Books(self._spent_since, declared, holds)
        self._seen = version
        self._freed = True
        self._look_for_stops()

    def _stop(self, key: str, reason: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO stop VALUES (?, ?, ?)", (key, reason, int(self._clock())))
        self._look_for_stops()

    def _resume(self, key: str) -> bool:
        found = self._db.execute("DELETE FROM stop WHERE key = ?", (key,)).rowcount > 0
        self._look_for_stops()
        return found

    def _look_for_stops(self) -> None:
        stops = dict(self._db.execute("SELECT key, reason FROM stop ORDER BY key").fetchall())
        if stops != self._stops:
            self._stops = stops
            if self._stopped is not None:
                self._stopped(stops)

    def _forget(self) -> None:
        self._seen = -1
        self._new.clear()
        self._changed.clear()
        self._spend.clear()

    def _spent_since(self, key: str, start: int) -> int:
        self._flush()
        row = self._db.execute("SELECT COALESCE(SUM(micro), 0) FROM spend WHERE key = ? AND bucket >= ?", (key, start)).fetchone()
        return int(row[0])

    def _flush(self) -> None:
        """Write what the transaction has gathered: a hundred calls of one sandbox are one row of its spend."""
        self._write(_NEW, list(self._new.values()))
        self._new.clear()
        self._write(_CHANGED, list(self._changed.values()))
        self._changed.clear()
        self._write(_SPENT, [(*key, *amounts) for key, amounts in self._spend.items()])
        self._spend.clear()

    def _write(self, statement: str, rows: t.Sequence[tuple[t.Any, ...]]) -> None:
        # With each statement the interpreter goes to the other thread, and is waited for: so many rows have one.
        for start in range(0, len(rows), _ROWS):
            some = rows[start : start + _ROWS]
            places = ",".join([f"({','.join('?' * len(some[0]))})"] * len(some))
            self._db.execute(statement.format(places), tuple(itertools.chain.from_iterable(some)))

    def _hold(self, ask: Ask, micro: int) -> None:
        keys = budgets.keys_of(ask.subjects)
        self._books.hold(Hold(ask.id, ask.at, micro, keys, self.owner, ask.upstream))
        self._new[ask.id] = (ask.id, ask.at, self.owner, ask.upstream, "\n".join(keys), micro, 0, "held", ask.at)

    def _settle(self, hold_id: str, micro: int, state: str) -> bool:
        hold = self._books.settle(hold_id, micro)
        if hold is None:
            return False
        self._freed = True
        self._changed[hold_id] = (micro, state, int(self._clock()), hold_id)
        if state != "released":
            bucket = hold.bucket
            for key in hold.keys:
                amounts = self._spend[key, bucket]
                amounts[0] += micro
                amounts[1] += 1
        return True

    def _lose(self, hold_id: str) -> bool:
        hold = self._books.holds.get(hold_id)
        if hold is None:
            return False
        hold.lost = True
        self._changed[hold_id] = (0, "lost", int(self._clock()), hold_id)
        return True

    def _care(self) -> None:
        """See to holds of processes that died, to lost ones that are old, and to calls that need not be remembered."""
        now = int(self._clock())
        for owner in sorted({hold.owner for hold in self._books.holds.values() if not hold.lost} - {self.owner}):
            try:
                handle = self._own(owner)
            except BlockingIOError:
                continue
            for hold in [hold for hold in self._books.holds.values() if hold.owner == owner and not hold.lost]:
                self._lose(hold.id)
            self._owner_file(owner).unlink(missing_ok=True)
            os.close(handle)
        self._flush()
        old = self._db.execute("SELECT id FROM call WHERE state = 'lost' AND since <= ?", (now - self._lost_after,)).fetchall()
        for (hold_id,) in old:
            self._settle(hold_id, self._books.holds[hold_id].micro, "charged")
        self._db.execute("DELETE FROM call WHERE at < ? AND state NOT IN ('held', 'lost')", (now - self._keep,))

    def _reconcile(self, upstream: str, statement: t.Mapping[str, int], until: int) -> Reconciled:
        settled = freed = corrected = total = 0
        lost = [hold for hold in self._books.holds.values() if hold.lost and hold.upstream == upstream]
        for hold in lost:
            if hold.id in statement:
                settled += self._settle(hold.id, statement[hold.id], "reconciled")
                total += statement[hold.id] - hold.micro
            elif hold.at < until:
                freed += self._settle(hold.id, 0, "released")
                total -= hold.micro
        self._flush()
        rows = self._db.execute(
            "SELECT id, at, keys, spent FROM call WHERE upstream = ? AND state IN ('settled', 'estimated', 'charged', 'reconciled')", (upstream,)
        ).fetchall()
        for call_id, at, keys, spent in rows:
            if call_id in statement and statement[call_id] != spent:
                difference = statement[call_id] - spent
                self._books.charge(keys.split("\n"), at, difference)
                for key in keys.split("\n"):
                    self._spend[key, at // BUCKET * BUCKET][0] += difference
                self._changed[call_id] = (statement[call_id], "reconciled", int(self._clock()), call_id)
                corrected += 1
                total += difference
        self._freed = True
        return Reconciled(settled, freed, corrected, total)

    def _declare(self, wanted: t.Sequence[Budget], exclusive: bool) -> None:
        if exclusive:
            self._db.execute("DELETE FROM budget")
        rows = [(budget.name, json.dumps(dataclasses.asdict(budget))) for budget in wanted]
        self._db.executemany("INSERT OR REPLACE INTO budget VALUES (?, ?)", rows)
        self._books.budgets = [Budget(**json.loads(body)) for (body,) in self._db.execute("SELECT body FROM budget ORDER BY name")]
        self._freed = True

    def _standing(self) -> list[dict[str, t.Any]]:
        self._flush()
        now = int(self._clock())
        found = []
        for budget in self._books.budgets:
            start, end = budget.start(now), budget.end(now)
            if budget.scope == "total":
                keys = {"total"}
            elif budget.subject != budgets.EACH:
                keys = {f"{budget.scope}:{budget.subject}"}
            else:
                like = f"{budget.scope}:"
                # There is no end of runs: those of the last day are told.
                told = max(start, now - _DAY) if budget.scope == "run" else start
                rows = self._db.execute(
                    "SELECT key FROM spend WHERE key >= ? AND key < ? AND bucket >= ? GROUP BY key ORDER BY SUM(micro) DESC LIMIT ?",
                    (like, f"{budget.scope};", told, _TOLD),
                )
                keys = {row[0] for row in rows} | set(self._books.held_by(budget.scope))
            for key in sorted(keys):
                spent, held = self._books.standing(budget, key, now)
                found.append(
                    {
                        "name": budget.name,
                        "subject": key,
                        "mode": budget.mode,
                        "window": budget.window,
                        "zone": budget.zone,
                        "limit": budget.limit,
                        "spent": spent,
                        "held": held,
                        "left": budget.limit - spent - held,
                        "since": start,
                        "until": end,
                    }
                )
        return found

    def _spend_report(self, since: int) -> dict[str, dict[str, dict[str, int]]]:
        self._flush()
        found: dict[str, dict[str, dict[str, int]]] = {scope: {} for scope in budgets.SCOPES}
        rows = self._db.execute("SELECT key, SUM(micro), SUM(calls) FROM spend WHERE bucket >= ? GROUP BY key", (since // BUCKET * BUCKET,))
        for key, micro, count in rows:
            scope, _sep, name = key.partition(":")
            found[scope][name or "total"] = {"spent": micro, "held": 0, "calls": count}
        for scope in budgets.SCOPES:
            for key, micro in self._books.held_by(scope).items():
                name = key.partition(":")[2] or "total"
                found[scope].setdefault(name, {"spent": 0, "held": 0, "calls": 0})["held"] = micro
        return found
