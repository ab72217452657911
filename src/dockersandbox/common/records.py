# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The recorder's client for services: many events under way on one connection."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import typing as t

import msgspec
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import atomic, frames
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.recorder import (
    PATIENCE,
    Ack,
    RecorderError,
    acknowledged,
    unreachable,
)

from dockersandbox.common.ids import Ids

# What a service takes as a parameter, so that a test can hand in another.
Record = t.Callable[[dict[str, t.Any]], t.Awaitable[Ack]]
SOCKET = "/run/guardrails/recorder/event.sock"
_PAUSE = 0.02
_SOON = 0.005


_encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(dict[str, t.Any])


def _decode(text: bytes) -> dict[str, t.Any]:
    try:
        return _decoder.decode(text)
    except (msgspec.DecodeError, RecursionError):
        raise frames.FrameError("the frame does not hold a JSON object") from None


class _Waiting(t.NamedTuple):
    frame: bytes
    answer: asyncio.Future[Ack]
    deadline: float


class Records:
    """A client of the recorder at *path*, for one event loop.

    *patience* is the most seconds that :meth:`record` takes. A lost connection is made again, and what was not
    acknowledged on it is sent again, in its order; by its id the recorder tells it from a new event.
    """

    def __init__(self, path: str = SOCKET, patience: float = PATIENCE) -> None:
        self.path = path
        self.patience = patience
        self._waiting: collections.deque[_Waiting] = collections.deque()
        self._connection: _Connection | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._why = ""
        self._unsent: list[bytes] = []
        self._sends: asyncio.TimerHandle | None = None
        self._sending = False
        self._looks: asyncio.TimerHandle | None = None
        self._ids = Ids()

    async def record(self, event: t.Mapping[str, t.Any]) -> Ack:
        """Record one event (sender's fields of :mod:`events`); return once it is durable. Raises RecorderError."""
        return await self._record(event, soon=False)

    async def record_soon(self, event: t.Mapping[str, t.Any]) -> Ack:
        """Do the same for an event that nothing waits for: it is sent with the next one, or after a few milliseconds."""
        return await self._record(event, soon=True)

    async def _record(self, event: t.Mapping[str, t.Any], soon: bool) -> Ack:
        loop = asyncio.get_running_loop()
        item = _Waiting(self._framed(event), loop.create_future(), loop.time() + self.patience)
        self._waiting.append(item)
        if self._connection is not None:
            self._unsent.append(item.frame)
            # What comes in one turn of the loop goes out together.
            if not soon and not self._sending:
                self._sending = True
                loop.call_soon(self._send)
            elif soon and self._sends is None:
                self._sends = loop.call_later(_SOON, self._send)
        elif self._connecting is None:
            self._connecting = loop.create_task(self._connect())
        if self._looks is None:
            self._looks = loop.call_at(item.deadline, self._look)
        return await item.answer

    def _framed(self, event: t.Mapping[str, t.Any]) -> bytes:
        try:
            return frames.pack(_encode({"id": self._ids(), **event}))
        except (frames.FrameError, TypeError, ValueError, RecursionError) as error:
            raise RecorderError(f"the event {event.get('action')!r} cannot be recorded: {error}") from None

    async def close(self) -> None:
        """Close the connection; what waits for an acknowledgement gets a RecorderError."""
        if self._connecting is not None:
            self._connecting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._connecting
            self._connecting = None
        if self._connection is not None:
            self._connection.end()
            self._connection = None
        self._send()
        if self._looks is not None:
            self._looks.cancel()
            self._looks = None
        for item in self._waiting:
            if not item.answer.done():
                item.answer.set_exception(unreachable(self.path, "this client was closed"))
        self._waiting.clear()

    def _send(self) -> None:
        self._sending = False
        if self._sends is not None:
            self._sends.cancel()
            self._sends = None
        if self._connection is not None and self._unsent:
            self._connection.write(b"".join(self._unsent))
        # Without a connection all that waits goes out with the next one.
        self._unsent.clear()

    def _look(self) -> None:
        """Give an error to those that waited too long, and look again when the next one has."""
        loop = asyncio.get_running_loop()
        self._looks = None
        why = self._why if self._connection is None and self._why else f"no answer within {self.patience:g} s"
        for item in self._waiting:
            if item.answer.done():
                continue
            if item.deadline > loop.time():
                self._looks = loop.call_at(item.deadline, self._look)
                return
            item.answer.set_exception(unreachable(self.path, why))

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            # What nobody waits for any more is not sent by a later connection.
            self._waiting = collections.deque(item for item in self._waiting if not item.answer.done())
            if not self._waiting:
                self._connecting = None
                return
            try:
                _transport, connection = await loop.create_unix_connection(lambda: _Connection(self._replied, self._lost), self.path)
                if not connection.alive:
                    raise ConnectionError("it closed the connection")
            except OSError as error:
                self._why = atomic.reason(error)
                await asyncio.sleep(_PAUSE)
                continue
            self._connecting = None
            self._connection = connection
            for item in self._waiting:
                connection.write(item.frame)
            return

    def _replied(self, text: bytes) -> None:
        if not self._waiting:
            return
        item = self._waiting.popleft()
        if item.answer.done():
            return
        try:
            item.answer.set_result(acknowledged(text, _decode))
        except RecorderError as error:
            item.answer.set_exception(error)

    def _lost(self, why: str) -> None:
        self._why = why
        self._connection = None
        self._unsent.clear()
        if self._connecting is None and self._waiting:
            self._connecting = asyncio.get_running_loop().create_task(self._connect())


class _Connection(asyncio.Protocol):
    """One connection: hands each reply's text on, in order, and says once when it is lost."""

    def __init__(self, replied: t.Callable[[bytes], None], lost: t.Callable[[str], None]) -> None:
        self._replied = replied
        self._lost: t.Callable[[str], None] | None = lost
        self._frames = frames.Frames()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = t.cast(asyncio.Transport, transport)

    @property
    def alive(self) -> bool:
        return self._lost is not None

    def write(self, frame: bytes) -> None:
        assert self._transport is not None
        self._transport.write(frame)

    def end(self) -> None:
        self._lost = None
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        for text in self._frames.feed(data):
            self._replied(text)
        if self._frames.lost:
            assert self._transport is not None
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        lost, self._lost = self._lost, None
        if lost is not None:
            lost(str(exc) if exc else "it closed the connection")
