# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is left of a sandbox's limits, and of a rule's in one sandbox. Pure: the time is given, in seconds since 1970."""

from __future__ import annotations

from ansible_collections.dockersandbox.guardrails.plugins.module_utils.allowlist import Limits

_DAY = 86400
_BURST = 10  # seconds' worth of the rate that may come at once


class Ration:
    """Counts against one set of limits. Limits may change while it counts."""

    def __init__(self, limits: Limits, now: float) -> None:
        self.limits = limits
        self.open = 0
        self.used = 0
        self._day = int(now // _DAY)
        self._tokens = self._burst()
        self._filled = now

    def _burst(self) -> float:
        return max(1.0, (self.limits.rate or 0) * _BURST / 60)

    def refused(self, now: float) -> str:
        """Return in one line which limit keeps another connection from being opened now; empty when none does."""
        self._turn(now)
        if self.limits.connections is not None and self.open >= self.limits.connections:
            return f"{self.open} connections are open, and no more are allowed at one time"
        if self.over(now):
            return f"the {self.limits.bytes} bytes of today are used up"
        if self.wait(now):
            return f"{self.limits.rate} new connections a minute are allowed, and no more"
        return ""

    def over(self, now: float) -> bool:
        """Whether the bytes of today are used up."""
        self._turn(now)
        return self.limits.bytes is not None and self.used >= self.limits.bytes

    def today(self, now: float) -> int:
        """Return the bytes used today."""
        self._turn(now)
        return self.used

    def wait(self, now: float) -> float:
        """Return the seconds until the rate allows another connection, 0 when it does now."""
        if self.limits.rate is None:
            return 0.0
        self._tokens = min(self._burst(), self._tokens + (now - self._filled) * self.limits.rate / 60)
        self._filled = now
        return 0.0 if self._tokens >= 1 else (1 - self._tokens) * 60 / self.limits.rate

    def take(self, now: float) -> None:
        """Count a connection that is opened."""
        self.wait(now)
        self._tokens -= 1
        self.open += 1

    def _turn(self, now: float) -> None:
        day = int(now // _DAY)
        if day != self._day:
            self._day, self.used = day, 0


class Names:
    """The distinct names that a sandbox has used below one wildcard in the last day: a name can carry data."""

    def __init__(self) -> None:
        self._last: dict[str, float] = {}

    def take(self, name: str, most: int, now: float) -> bool:
        """Count the use of *name*, unless it would be one more than *most*; tell whether it was counted."""
        if name not in self._last and len(self._last) >= most:
            self._last = {known: at for known, at in self._last.items() if now - at < _DAY}
            if len(self._last) >= most:
                return False
        self._last[name] = now
        return True
