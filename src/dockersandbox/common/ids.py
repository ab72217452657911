# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ids for services that make many: the kernel is asked for a few hundred at once. Not for a process that forks.

They begin with the time, as a UUID of version 7 does: in a table by id, those of one time lie in the same few pages.
"""

from __future__ import annotations

import os
import time

_BYTES = 10
_AT_ONCE = 256


class Ids:
    """Makes ids of 32 hex digits, in one thread: twelve are the milliseconds since 1970, the others random."""

    def __init__(self) -> None:
        self._ready: list[str] = []

    def __call__(self) -> str:
        if not self._ready:
            digits = os.urandom(_BYTES * _AT_ONCE).hex()
            self._ready = [digits[start : start + 2 * _BYTES] for start in range(0, len(digits), 2 * _BYTES)]
        return f"{time.time_ns() // 1_000_000:012x}{self._ready.pop()}"
