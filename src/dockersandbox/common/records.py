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
from dockersandbox.common.outbox import Outbox

# What a service takes as a parameter, so that a test can hand in another.
Record = t.Callable[[dict[str, t.Any]], asyncio.Future[Ack]]
SOCKET = "/run/guardrails/recorder/event.sock"
_PAUSE = 0.02

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
    """A client of the recorder at *path*, for the running event loop.

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
        self._loop = asyncio.get_running_loop()
        self._outbox: Outbox[bytes] = Outbox(self._loop, self._send)
        self._looks: asyncio.TimerHandle | None = None
        self._ids = Ids()

    def record(self, event: t.Mapping[str, t.Any]) -> asyncio.Future[Ack]:
        """Record one event (sender's fields of :mod:`events`); it is durable when the future is done, which may raise RecorderError."""
        return self._record(event, waits=False)

    def record_soon(self, event: t.Mapping[str, t.Any]) -> asyncio.Future[Ack]:
        """Do the same for an event that nothing waits for: it is sent with the next one, or after a few milliseconds."""
        return self._record(event, waits=True)

    def _record(self, event: t.Mapping[str, t.Any], waits: bool) -> asyncio.Future[Ack]:
        answer: asyncio.Future[Ack] = self._loop.create_future()
        try:
            item = _Waiting(self._framed(event), answer, self._loop.time() + self.patience)
        except RecorderError as error:
            answer.set_exception(error)
            return answer
        self._waiting.append(item)
        if self._connection is not None:
            self._outbox.put(item.frame, waits)
        elif self._connecting is None:
            self._connecting = self._loop.create_task(self._connect())
        if self._looks is None:
            self._looks = self._loop.call_at(item.deadline, self._look)
        return answer

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
        self._outbox.flush()
        if self._looks is not None:
            self._looks.cancel()
            self._looks = None
        for item in self._waiting:
            if not item.answer.done():
                item.answer.set_exception(unreachable(self.path, "this client was closed"))
        self._waiting.clear()

    def _send(self, unsent: list[bytes]) -> None:
        # Without a connection all that waits goes out with the next one.
        if self._connection is not None:
            self._connection.write(b"".join(unsent))

    def _look(self) -> None:
        """Give an error to those that waited too long, and look again when the next one has."""
        self._looks = None
        why = self._why if self._connection is None and self._why else f"no answer within {self.patience:g} s"
        for item in self._waiting:
            if item.answer.done():
                continue
            if item.deadline > self._loop.time():
                self._looks = self._loop.call_at(item.deadline, self._look)
                return
            item.answer.set_exception(unreachable(self.path, why))

    async def _connect(self) -> None:
        while True:
            # What nobody waits for any more is not sent by a later connection.
            self._waiting = collections.deque(item for item in self._waiting if not item.answer.done())
            if not self._waiting:
                self._connecting = None
                return
            try:
                _transport, connection = await self._loop.create_unix_connection(lambda: _Connection(self._replied, self._lost), self.path)
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
        self._outbox.flush()
        if self._connecting is None and self._waiting:
            self._connecting = self._loop.create_task(self._connect())


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
