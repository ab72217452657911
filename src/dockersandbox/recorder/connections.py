# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The sockets of the senders: frames in, replies out, in the order in which the frames came."""

from __future__ import annotations

import asyncio
import typing as t

from ansible_collections.dockersandbox.guardrails.plugins.module_utils import frames

_UNDER_WAY = 512 << 10  # bytes of one connection's events that wait for their replies, above which no more are read


def error(text: str) -> bytes:
    """Return the reply that refuses an event."""
    return frames.encode({"error": " ".join(text.split())})


class Intake(t.Protocol):
    """What connections hand their events to."""

    def connected(self, connection: Connection) -> str:
        """Return why *connection* is refused; "" when it is not."""

    def gone(self, connection: Connection) -> None:
        """Take note that *connection* has ended."""

    def receive(self, connection: Connection, texts: list[bytes]) -> None:
        """Take events; :meth:`Connection.reply` is called for each, in their order."""

    def last(self, connection: Connection, reply: bytes) -> None:
        """Have *reply* written, as for an event of one byte, after those to what came before."""


class Connection(asyncio.Protocol):
    """One connection of *sender*."""

    def __init__(self, sender: str, intake: Intake) -> None:
        self.sender = sender
        self.begun: float | None = None  # since when a frame is incomplete, or replies are not read
        self._intake = intake
        self._frames = frames.Frames()
        self._transport: asyncio.Transport | None = None
        self._under_way = 0
        self._ending = False
        self._stuck = False  # the other side does not read
        self._drained = False  # nothing more is read, for good
        self._reading = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = t.cast(asyncio.Transport, transport)
        if refused := self._intake.connected(self):
            self._drained = True
            self._transport.write(error(refused))
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        if self._drained:
            return
        texts = self._frames.feed(data)
        if texts:
            self._under_way += sum(map(len, texts))
            self._intake.receive(self, texts)
            self._flow()
        if self._frames.lost:
            self.end_after(error(self._frames.lost))
            return
        if texts or not self._frames.partial or self.begun is None:
            self._watch()

    def reply(self, replies: bytes, size: int) -> None:
        """Write *replies* to events of *size* bytes."""
        self._under_way -= size
        if self._transport is None:
            return
        self._transport.write(replies)
        self._flow()
        if self._ending and not self._under_way:
            self._transport.close()

    def drain(self) -> None:
        """Read nothing more; what was read gets its replies."""
        self._drained = True
        self._flow()

    def end_after(self, last: bytes) -> None:
        """Read nothing more, and close after the replies and *last*."""
        self.drain()
        self._ending = True
        self._under_way += 1
        self._intake.last(self, last)

    def finish(self) -> None:
        """Close once what was replied is written."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    def _flow(self) -> None:
        reading = not (self._drained or self._stuck) and self._under_way <= _UNDER_WAY
        if reading != self._reading and self._transport is not None and not self._transport.is_closing():
            self._reading = reading
            (self._transport.resume_reading if reading else self._transport.pause_reading)()
            self._watch()

    def _watch(self) -> None:
        """Begin to count the seconds that the other side takes, if it is its turn."""
        waiting = self._stuck or (self._reading and self._frames.partial)
        self.begun = asyncio.get_running_loop().time() if waiting else None

    def pause_writing(self) -> None:
        self._stuck = True
        self._flow()
        self._watch()

    def resume_writing(self) -> None:
        self._stuck = False
        self._flow()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._transport = None
        self._intake.gone(self)
