# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a simulated call costs, and the provider's own account of all of them: counted apart from whoever it is compared with."""

from __future__ import annotations

import collections
import dataclasses
import decimal
import typing as t

# In dollars: for a million tokens, and for a use of a tool.
PRICES = {
    "input": decimal.Decimal(3),
    "cache_read": decimal.Decimal("0.30"),
    "cache_write": decimal.Decimal("3.75"),
    "cache_write_1h": decimal.Decimal(6),
    "output": decimal.Decimal(15),
}
WEB_SEARCH = decimal.Decimal("0.01")
_KEPT = 50_000
_MILLION = decimal.Decimal(10**6)


@dataclasses.dataclass(slots=True)
class Used:
    """What one call used, each thing counted once; of *output*, *reasoning* was not shown."""

    input: int
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0
    cache_write_1h: int = 0
    reasoning: int = 0
    web_searches: int = 0

    def micro_dollars(self) -> int:
        """Return the price, rounded up to a whole micro-dollar."""
        dollars = sum((getattr(self, kind) * price / _MILLION for kind, price in PRICES.items()), self.web_searches * WEB_SEARCH)
        return int((dollars * _MILLION).to_integral_value(decimal.ROUND_CEILING))


@dataclasses.dataclass(slots=True)
class Entry:
    """One call: *id* is the one that the client gave it. Unless it is *finished*, the client went away before its end."""

    id: str
    model: str
    used: Used
    finished: bool

    def told(self) -> dict[str, t.Any]:
        """Return the entry as the account's reader gets it."""
        return {"id": self.id, "model": self.model, "finished": self.finished, "micro_dollars": self.used.micro_dollars(), **dataclasses.asdict(self.used)}


class Account:
    """What was charged in all, and for which calls, the last of them."""

    def __init__(self) -> None:
        self.entries: collections.deque[Entry] = collections.deque(maxlen=_KEPT)
        self.count = 0
        self.micro_dollars = 0

    def charge(self, entry: Entry) -> None:
        """Charge a call."""
        self.entries.append(entry)
        self.count += 1
        self.micro_dollars += entry.used.micro_dollars()

    def told(self) -> dict[str, t.Any]:
        """Return the account."""
        return {"simulated": True, "calls": [entry.told() for entry in self.entries], "micro_dollars": self.micro_dollars}
