# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes out of an event loop, to a thread or a socket: waking the other side for each thing alone costs more than the thing."""

from __future__ import annotations

import asyncio
import typing as t

T = t.TypeVar("T")


class Outbox(t.Generic[T]):
    """Hands *send* what comes in one turn of the event *loop* together.

    What may wait goes with what comes next, or after *linger* seconds.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, send: t.Callable[[list[T]], None], linger: float = 0.005) -> None:
        # To ask for the running loop is a call of the kernel each time.
        self._loop = loop
        self._out = send
        self._linger = linger
        self._items: list[T] = []
        self._soon: asyncio.Handle | None = None
        self._later: asyncio.TimerHandle | None = None

    def put(self, item: T, waits: bool = False) -> None:
        """Send *item* with the end of this turn, or when it *waits* a little later."""
        self._items.append(item)
        if self._soon is not None:
            return
        if not waits:
            self._soon = self._loop.call_soon(self.flush)
        elif self._later is None:
            self._later = self._loop.call_later(self._linger, self.flush)

    def flush(self) -> None:
        """Send all there is now."""
        for handle in (self._soon, self._later):
            if handle is not None:
                handle.cancel()
        self._soon = self._later = None
        if self._items:
            items, self._items = self._items, []
            self._out(items)
