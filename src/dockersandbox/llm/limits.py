# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Limits on how fast, and breakers for what goes wrong again and again. Time is handed in, in seconds that only grow."""

from __future__ import annotations

import collections
import dataclasses
import typing as t


class Bucket:
    """At most *rate* a minute, with a burst of as much; what was taken and not used can be given back."""

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self._level = float(rate)
        self._at: float | None = None

    def take(self, amount: int, now: float) -> float:
        """Take *amount* (of more than a minute's worth, that), or return after how many seconds it may be tried again."""
        if self._at is not None:
            self._level = min(self.rate, self._level + (now - self._at) * self.rate / 60)
        self._at = now
        amount = min(amount, self.rate)
        if self._level >= amount:
            self._level -= amount
            return 0.0
        return (amount - self._level) * 60 / self.rate

    def give_back(self, amount: int) -> None:
        """Give back what was not used."""
        self._level = min(self.rate, self._level + amount)


@dataclasses.dataclass(frozen=True)
class Tripping:
    """When a breaker opens: after *failures* within *period* seconds; for *pause* seconds, and twice as long each time that it
    does not help, *longest* at the most."""

    failures: int = 10
    period: float = 60.0
    pause: float = 15.0
    longest: float = 240.0


class Change(t.NamedTuple):
    """A breaker went from one state to another, and why."""

    before: str
    after: str
    reason: str


class Breaker:
    """Closed: all may pass. Open: none, until the pause is over. Half-open: one may, and what comes of it decides."""

    def __init__(self, rule: Tripping) -> None:
        self._rule = rule
        self._failures: collections.deque[tuple[float, str]] = collections.deque()
        self._until = 0.0
        self._pause = rule.pause
        self._probing = False
        self.state = "closed"
        self.reason = ""

    def enter(self, now: float) -> tuple[float, Change | None]:
        """Return after how many seconds to come again (0: pass), and the change that this made."""
        if self.state == "closed":
            return 0.0, None
        change = None
        if self.state == "open":
            if now < self._until:
                return self._until - now, None
            self.state = "half-open"
            change = Change("open", "half-open", self.reason)
        if self._probing:
            return 1.0, change
        self._probing = True
        return 0.0, change

    def waits(self, now: float) -> float:
        """Return after how many seconds to come again (0: now), without coming in."""
        return max(0.0, self._until - now) if self.state == "open" else 0.0

    def succeeded(self) -> Change | None:
        """Note that one who passed fared well."""
        if self.state != "half-open":
            return None
        self._probing = False
        self._failures.clear()
        self._pause = self._rule.pause
        self.state = "closed"
        return Change("half-open", "closed", "a try went well")

    def failed(self, now: float, reason: str, who: str = "") -> Change | None:
        """Note that one who passed did not: *who*, where that makes a difference."""
        if self.state == "half-open":
            self._probing = False
            self._pause = min(2 * self._pause, self._rule.longest)
            return self.trip(now, reason)
        if self.state == "open":
            return None
        self._failures.append((now, who))
        self._forget(now)
        return self.trip(now, reason) if len(self._failures) >= self._rule.failures else None

    def had_its_share(self, now: float, who: str) -> bool:
        """Whether half of the failures that it takes are *who*'s alone: somebody else has to fail as well before it opens."""
        self._forget(now)
        return self.state == "closed" and 2 * sum(name == who for _at, name in self._failures) >= self._rule.failures

    def _forget(self, now: float) -> None:
        while self._failures and self._failures[0][0] < now - self._rule.period:
            self._failures.popleft()

    def left(self) -> None:
        """Note that one who passed has neither fared well nor badly: another may try."""
        self._probing = False

    def trip(self, now: float, reason: str) -> Change | None:
        """Open, whatever was counted."""
        before = self.state
        if before == "open":
            return None
        self._failures.clear()
        self._until = now + self._pause
        self.state = "open"
        self.reason = reason
        return Change(before, "open", reason)


class Velocity:
    """Whether more than *most* micro-dollars were spent within *period* seconds."""

    def __init__(self, most: int, period: float = 60.0) -> None:
        self.most = most
        self._period = period
        self._spent: collections.deque[tuple[float, int]] = collections.deque()
        self._total = 0

    def add(self, micro: int, now: float) -> bool:
        """Add what was spent now; return whether it is too much."""
        self._spent.append((now, micro))
        self._total += micro
        while self._spent[0][0] < now - self._period:
            self._total -= self._spent.popleft()[1]
        if self._total <= self.most:
            return False
        self._spent.clear()
        self._total = 0
        return True


class Repeats:
    """Whether the same request came more than *most* times within *period* seconds."""

    _KEPT = 256

    def __init__(self, most: int, period: float = 60.0) -> None:
        self.most = most
        self._period = period
        self._seen: collections.OrderedDict[str, list[float]] = collections.OrderedDict()

    def add(self, sha256: str, now: float) -> bool:
        """Note a request; return whether it has come too often."""
        begun = now - self._period
        times = [*(time for time in self._seen.pop(sha256, ()) if time >= begun), now]
        repeated = len(times) > self.most
        self._seen[sha256] = [] if repeated else times
        if len(self._seen) > self._KEPT:
            self._seen.popitem(last=False)
        return repeated
