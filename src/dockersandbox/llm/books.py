# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What may be spent: budgets, what was spent, and what is held for calls under way. Without storage and without a clock.

A call belongs to the windows in which it was reserved, also when it is settled later. A window's sum has no end: what was
spent while the clock was ahead still counts after it was put right. So neither a changed window nor a changed clock makes
money free that was spent.
"""

from __future__ import annotations

import collections
import dataclasses
import typing as t

from ansible_collections.dockersandbox.guardrails.plugins.module_utils import budgets
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.budgets import BUCKET, Budget

# Sums that are kept at hand; more runs than this at once are looked up again.
_MOST_KEYS = 4096
_MOST_STARTS = 8


class Ask(t.NamedTuple):
    """A call that asks for money: *most* micro-dollars is what it can cost, *least* what it can be cut down to.

    *at* is in seconds since 1970 UTC; *subjects* maps scopes to names; *upstream* is who will be paid.
    """

    id: str
    at: int
    subjects: dict[str, str]
    most: int
    least: int
    upstream: str


class Held(t.NamedTuple):
    """Money that is held for a call: *micro*, between the least and the most of what it asked for. *over*: the soft
    budgets, by name, that it goes beyond."""

    id: str
    micro: int
    over: tuple[str, ...]


class Refused(t.NamedTuple):
    """Why a call gets no money: *reason* is ``spent``, ``held`` (by calls under way) or ``no_budget``.

    *until* is when the window of *budget* ends (None: never); amounts are micro-dollars.
    """

    reason: str
    budget: str
    subject: str
    limit: int
    spent: int
    held: int
    until: int | None


@dataclasses.dataclass(slots=True)
class Hold:
    """Money that is held: for whom, since which bucket of time, by which process, and whether its answer was lost."""

    id: str
    at: int
    micro: int
    keys: list[str]
    owner: str
    upstream: str
    lost: bool = False

    @property
    def bucket(self) -> int:
        """The start of the quarter of an hour that it is charged to."""
        return self.at // BUCKET * BUCKET


class _Sum:
    __slots__ = ("held", "spent")

    def __init__(self, spent: int, held: int) -> None:
        self.spent = spent
        self.held = held


class Books:
    """Decides on calls. *load* gives what was spent by a subject since a time, from storage, when it is first asked for."""

    def __init__(self, load: t.Callable[[str, int], int], declared: t.Iterable[Budget] = (), holds: t.Iterable[Hold] = ()) -> None:
        self.budgets = list(declared)
        self.holds = {hold.id: hold for hold in holds}
        self._load = load
        self._sums: dict[str, dict[int, _Sum]] = {}
        self._windows: dict[tuple[str, str], tuple[int, int | None]] = {}

    def decide(self, ask: Ask, last: bool) -> Held | Refused | None:
        """Return whether *ask* gets its money, or None when calls under way may yet leave it room; *last*: it waits no more.

        A call that is cut down gets no more than half of what is left, so that one does not shut out all others.
        """
        least_now: int | None = None
        least_later = 0
        tightest = loosest = None
        waits = False
        over = []
        for budget in self.budgets:
            key = budget.subject_of(ask.subjects)
            if key is None:
                continue
            start, _end = self._window(budget, ask.at)
            total = self._sum(key, start)
            later = budget.limit - total.spent
            now = later - total.held
            if not budget.hard:
                if now < ask.most:
                    over.append(budget.name)
                continue
            waits = waits or (now < ask.most and total.held > 0)
            if least_now is None or now < least_now:
                least_now, tightest = now, (budget, key, total)
            if loosest is None or later < least_later:
                least_later, loosest = later, (budget, key, total)
        if least_now is None or tightest is None or loosest is None:
            return Refused("no_budget", "", "", 0, 0, 0, None)
        if ask.most <= least_now:
            return Held(ask.id, ask.most, tuple(over))
        if least_later < ask.least:
            return self._refused("spent", *loosest, ask.at)
        if least_now >= ask.least and (last or not waits):
            return Held(ask.id, min(ask.most, max(ask.least, least_now // 2)), tuple(over))
        return self._refused("held", *tightest, ask.at) if last else None

    def _refused(self, reason: str, budget: Budget, key: str, total: _Sum, at: int) -> Refused:
        return Refused(reason, budget.name, key, budget.limit, total.spent, total.held, self._window(budget, at)[1])

    def hold(self, hold: Hold) -> None:
        """Take *hold* into account."""
        self.holds[hold.id] = hold
        self._add(hold.keys, hold.bucket, 0, hold.micro)

    def settle(self, hold_id: str, micro: int) -> Hold | None:
        """Put *micro* spent in the place of what was held; None when nothing is held under this id."""
        hold = self.holds.pop(hold_id, None)
        if hold is not None:
            self._add(hold.keys, hold.bucket, micro, -hold.micro)
        return hold

    def charge(self, keys: t.Iterable[str], at: int, micro: int) -> None:
        """Add *micro*, which may be below 0, to what was spent."""
        self._add(keys, at // BUCKET * BUCKET, micro, 0)

    def standing(self, budget: Budget, key: str, at: int) -> tuple[int, int]:
        """Return what is spent and what is held of *budget* by the subject *key*, in micro-dollars."""
        total = self._sum(key, self._window(budget, at)[0])
        return total.spent, total.held

    def _window(self, budget: Budget, at: int) -> tuple[int, int | None]:
        kind = (budget.window, budget.zone)
        known = self._windows.get(kind)
        if known is None or at < known[0] or (known[1] is not None and at >= known[1]):
            known = self._windows[kind] = budgets.window(*kind, at)
        return known

    def _sum(self, key: str, start: int) -> _Sum:
        sums = self._sums.get(key)
        if sums is None:
            if len(self._sums) >= _MOST_KEYS:
                self._sums.clear()
            sums = self._sums[key] = {}
        total = sums.get(start)
        if total is None:
            if len(sums) >= _MOST_STARTS:
                sums.clear()
            held = sum(hold.micro for hold in self.holds.values() if hold.bucket >= start and key in hold.keys)
            total = sums[start] = _Sum(self._load(key, start), held)
        return total

    def _add(self, keys: t.Iterable[str], bucket: int, spent: int, held: int) -> None:
        for key in keys:
            for start, total in self._sums.get(key, {}).items():
                if bucket >= start:
                    total.spent += spent
                    total.held += held

    def held_by(self, scope: str) -> dict[str, int]:
        """Return what is held for each subject of *scope*, by the ledger's word for it, in micro-dollars."""
        found: collections.Counter[str] = collections.Counter()
        for hold in self.holds.values():
            for key in hold.keys:
                if key == scope or key.startswith(f"{scope}:"):
                    found[key] += hold.micro
        return dict(found)
