# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What one sandbox may have recorded, and how its repeated denials become one record with a count."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.dockersandbox.guardrails.plugins.module_utils.recorder import Ack

from dockersandbox.recorder.settings import Ration

COUNT_EVERY = 1.0  # seconds between records that say how often a denial was repeated
TELL_EVERY = 10.0  # seconds between records that say that a sandbox is over its ration
ANEW = 60.0  # seconds after which a repeated denial is recorded in full again
_KINDS = 256  # denials of one sandbox that are told apart


@dataclasses.dataclass(slots=True)
class _Bucket:
    events: float
    bytes: float
    time: float


@dataclasses.dataclass(slots=True)
class Over:
    """How far a sandbox is over its ration: events refused and not told of yet, all of them, and when it was told."""

    untold: int = 0
    total: int = 0
    told: float = float("-inf")


class Rations:
    """One bucket of events and one of bytes for each sandbox; times are seconds of any clock that only goes forward."""

    def __init__(self, ration: Ration) -> None:
        self.ration = ration
        self.over: dict[str, Over] = {}
        self._buckets: dict[str, _Bucket] = {}

    def take(self, sandbox: str, size: int, now: float) -> bool:
        """Return whether *sandbox* may have one more event of *size* bytes recorded; what it may not is counted."""
        most_events, most_bytes = self.ration.events * self.ration.burst, self.ration.bytes * self.ration.burst
        bucket = self._buckets.get(sandbox)
        if bucket is None:
            bucket = self._buckets[sandbox] = _Bucket(most_events, most_bytes, now)
        passed = now - bucket.time
        bucket.time = now
        bucket.events = min(most_events, bucket.events + passed * self.ration.events)
        bucket.bytes = min(most_bytes, bucket.bytes + passed * self.ration.bytes)
        if bucket.events >= 1 and bucket.bytes >= size:
            bucket.events -= 1
            bucket.bytes -= size
            return True
        over = self.over.setdefault(sandbox, Over())
        over.untold += 1
        over.total += 1
        return False

    def due(self, now: float) -> t.Iterator[tuple[str, int]]:
        """Yield each sandbox that must be told of, and how many of its events were refused since the last time."""
        for sandbox, over in list(self.over.items()):
            if now - over.told < TELL_EVERY:
                continue
            if over.untold:
                yield sandbox, over.untold
                over.untold, over.told = 0, now
            else:
                del self.over[sandbox]
        # One that is full again says no more than one that is not there.
        self._buckets = {name: bucket for name, bucket in self._buckets.items() if now - bucket.time < 2 * self.ration.burst}


@dataclasses.dataclass(slots=True)
class Denial:
    """A denial that may come again: its event and sender, where it is on record, and how often it came since."""

    event: dict[str, t.Any]
    sender: str
    begun: float
    told: float
    ack: Ack | None = None
    count: int = 0


class Denials:
    """The denials of late, told apart by all that they say but their id and detail."""

    def __init__(self) -> None:
        self._known: dict[str, dict[bytes, Denial]] = {}

    def seen(self, sandbox: str, key: bytes, now: float) -> Denial | None:
        """Return the denial that this one repeats, and count it there; None when it is to be recorded in full."""
        denial = self._known.get(sandbox, {}).get(key)
        if denial is None or now - denial.begun > ANEW:
            return None
        denial.count += 1
        return denial

    def begin(self, sandbox: str, key: bytes, event: dict[str, t.Any], sender: str, now: float) -> Denial | None:
        """Return the denial that later ones will repeat, unless the sandbox has too many already."""
        known = self._known.setdefault(sandbox, {})
        before = known.get(key)
        if (before is None and len(known) >= _KINDS) or (before and before.count):
            return None
        known[key] = Denial(event, sender, now, now)
        return known[key]

    def forget(self, sandbox: str, denial: Denial) -> None:
        """Forget a denial that did not get on record."""
        known = self._known.get(sandbox, {})
        self._known[sandbox] = {key: item for key, item in known.items() if item is not denial}

    def due(self, now: float, all_of_them: bool = False) -> t.Iterator[tuple[Denial, int]]:
        """Yield each denial that was repeated, and how often since the last time; drop those that no longer are."""
        for sandbox, known in list(self._known.items()):
            for key, denial in list(known.items()):
                if denial.count and denial.ack and (all_of_them or now - denial.told >= COUNT_EVERY):
                    yield denial, denial.count
                    denial.count, denial.told = 0, now
                elif not denial.count and now - denial.begun > ANEW:
                    del known[key]
            if not known:
                del self._known[sandbox]
