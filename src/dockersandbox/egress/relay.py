# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A connection from a sandbox and the one it leads to: bytes in both directions, and nothing that decides.

What is asked goes to :meth:`Gate.open`, which decides, records and connects, or raises :class:`Denied`. From then on a tunnel only
moves bytes, counts them, and is cut when the gate says so.
"""

from __future__ import annotations

import asyncio
import itertools
import time
import typing as t

from ansible_collections.dockersandbox.guardrails.plugins.module_utils.allowlist import Request, Rule
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.hosts import Address

from dockersandbox.egress import hello, wire
from dockersandbox.egress.rations import Ration
from dockersandbox.egress.tokens import Token

BEGIN = 10  # seconds in which a client must have said what it wants, and in which TLS must have begun
# Bytes that wait for a slow reader before the other side is no longer read. Fewer than are read at once: those are written at once.
BUFFER = 128 << 10
_LINGER = 30  # seconds in which a side must take what it was sent last
_ids = itertools.count(1)


class Denied(Exception):
    """A request does not leave; *status* is the HTTP answer, *rule* the id to record, and the text one line."""

    def __init__(self, status: int, rule: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.rule = rule


class Gate(t.Protocol):
    """What a tunnel asks."""

    async def open(self, tunnel: Tunnel) -> None:
        """Decide over ``tunnel.request``, record, and connect by :meth:`Tunnel.connect`. Raises Denied."""

    def refused(self, tunnel: Tunnel, reason: str, rule: str) -> None:
        """Something was denied before anything left."""

    def moved(self, tunnel: Tunnel, count: int) -> None:
        """*count* bytes went one way or the other. It may cut the tunnel."""

    def ended(self, tunnel: Tunnel) -> None:
        """Both sides are gone."""


class Tunnel:
    """One connection of a sandbox, from its first byte to its last. The sizes are in bytes, *opened* in seconds (monotonic)."""

    def __init__(self, gate: Gate, sandbox: str, loop: asyncio.AbstractEventLoop) -> None:
        self.gate = gate
        self.sandbox = sandbox
        self.loop = loop
        self.number = next(_ids)
        self.client = _Client(self)
        self.server: _Server | None = None
        self.exchange = wire.Exchange()
        self.request: Request | None = None
        self.rule: Rule | None = None
        self.token: Token | None = None
        self.address: Address | None = None
        self.rations: tuple[Ration, ...] = ()
        self.recorded = False  # its opening is on record
        self.sent = self.received = 0
        self.opened = time.monotonic()
        self.last = self.opened
        self.deadline: float | None = self.opened + BEGIN
        self.idle = 0
        self.reason = ""  # why it ended, when that was not by itself
        self.denied = False  # and that was a decision
        self.relaying = False
        self._opening: hello.Opening | None = None
        self._task: asyncio.Task[None] | None = None
        self._connecting = self._late = False
        self._eofs = 0
        self._over = False

    # -- the request

    def asked(self, data: bytes) -> None:
        """Take bytes of the client while it has not been answered."""
        if self._over:
            return
        if self._task is not None:
            # It had been read already when reading was paused.
            self.client.early += data
            return
        try:
            request = self.exchange.head(data)
        except wire.Malformed as error:
            self.refuse(error.status, "malformed", str(error))
            return
        if request is None:
            return
        self.request = request
        self.deadline = None
        self.client.transport.pause_reading()
        self._task = self.loop.create_task(self._go())

    async def _go(self) -> None:
        try:
            await self.gate.open(self)
        except Denied as error:
            self.refuse(error.status, error.rule, str(error))
            return
        except asyncio.CancelledError:
            return
        assert self.request is not None and self.server is not None
        if self._over or self.client.transport.is_closing():
            self.cut("the client went away")
            return
        self.relaying = True
        self.last = time.monotonic()
        early = self.client.taken()
        try:
            if self.request.scheme == "https":
                self.deadline = self.last + BEGIN
                self._opening = hello.Opening(self.request.host)
                self.client.transport.write(wire.ESTABLISHED)
                self._begin(self.exchange.tunnelled() + early)
            else:
                self._to_server(self.exchange.forward() + self.exchange.body(b"") + self.exchange.body(early))
        except (hello.Refused, wire.Malformed) as error:
            self._deny(str(error))
            return
        self.client.resume()
        self.server.resume()

    def refuse(self, status: int, rule: str, reason: str) -> None:
        """Answer that nothing leaves; *rule* is the id to record."""
        if self._over:
            return
        self.reason = reason
        if not self.recorded:
            self.gate.refused(self, reason, rule)
        if not self.client.transport.is_closing():
            self.client.transport.write(wire.refusal(status, reason))
        self.close()

    async def connect(self, address: str, port: int) -> None:
        """Connect to *address*, as it is: nothing is looked up here. OSError or TimeoutError when nobody is there."""
        self._connecting = True
        try:
            await self.loop.create_connection(lambda: _Server(self), address, port)
        except asyncio.CancelledError:
            if self._late:
                raise TimeoutError from None
            raise
        finally:
            self._connecting = False

    def waited(self) -> None:
        """The deadline has passed: give up connecting, or cut."""
        if self._connecting and self._task is not None:
            self._late = True
            self._task.cancel()
        else:
            self.cut("it took too long to say what it wants", denied=True)

    # -- bytes

    def from_client(self, data: bytes) -> None:
        """Take bytes of the client that belong to an open tunnel."""
        if self._over:
            return
        try:
            if self._opening is not None:
                self._begin(data)
            elif self.request is not None and self.request.scheme == "http":
                self._to_server(self.exchange.body(data))
            else:
                self._to_server(data)
        except (hello.Refused, wire.Malformed) as error:
            self._deny(str(error))

    def from_server(self, data: bytes) -> None:
        """Take bytes of the server."""
        if self._over:
            return
        if (opening := self._opening) is not None:
            try:
                held = opening.server(data)
            except hello.Refused as error:
                self._deny(str(error))
                return
            self._to_server(held)
            self._opened(opening)
        self.received += len(data)
        self.last = time.monotonic()
        self.client.transport.write(data)
        self.gate.moved(self, len(data))

    def _begin(self, data: bytes) -> None:
        opening = self._opening
        assert opening is not None
        self._to_server(opening.client(data))
        if opening.begun and not opening.done and opening.held > BUFFER:
            self.client.pause(waiting=True)
        self._opened(opening)

    def _opened(self, opening: hello.Opening) -> None:
        if opening.done:
            self._opening = None
            self.deadline = None
            self.client.resume(waiting=True)

    def _to_server(self, data: bytes) -> None:
        if data and self.server is not None:
            self.sent += len(data)
            self.last = time.monotonic()
            self.server.transport.write(data)
            self.gate.moved(self, len(data))

    def client_ended(self) -> bool:
        """The client sends no more; return whether it may still be written to."""
        if not self.relaying or self._opening is not None:
            self.cut("the client went away")
            return False
        if self.request is not None and self.request.scheme == "http":
            # A server that has the whole request would take an end of it for a client that went away.
            if not self.exchange.complete:
                self._deny("the request was cut short")
            return self.exchange.complete
        return self._ended(self.server)

    def server_ended(self) -> bool:
        """The server sends no more; return whether it may still be written to."""
        if not self.relaying or (self.request is not None and self.request.scheme == "http"):
            self.close()
            return False
        return self._ended(self.client)

    def _ended(self, other: _Side | None) -> bool:
        self._eofs += 1
        if self._eofs == 2 or other is None:
            self.close()
            return False
        if other.transport.can_write_eof():
            other.transport.write_eof()
        return True

    # -- the end

    def side_lost(self, error: Exception | None) -> None:
        """One side is gone: the other gets what was sent, and goes."""
        if error is not None and not self._over:
            self.reason = "the connection was broken"
        self.close()
        if self.client.lost and (self.server is None or self.server.lost):
            self.gate.ended(self)

    def close(self) -> None:
        """Send what waits, for a while, and close both sides."""
        if not self._over:
            self._over = True
            self.deadline = time.monotonic() + _LINGER
        self._stop()
        for side in (self.client, self.server):
            if side is not None and not side.transport.is_closing():
                side.transport.close()

    def cut(self, reason: str, *, denied: bool = False) -> None:
        """End it now, and throw away what waits. *denied* tells that this was decided."""
        if not self._over:
            self._over, self.reason, self.denied = True, reason, denied
        self._stop()
        for side in (self.client, self.server):
            if side is not None:
                side.transport.abort()

    def _deny(self, reason: str) -> None:
        """End it because of what the client sent."""
        if self._opening is not None and self.server is not None:
            self.reason, self.denied = reason, True
            self.server.transport.abort()
            self.client.transport.write(hello.ALERT)
            self.close()
        else:
            self.cut(reason, denied=True)

    def _stop(self) -> None:
        if self._task is not None and not self._task.done() and self._task is not asyncio.current_task():
            self._task.cancel()

    @property
    def over(self) -> bool:
        """Whether it is at its end: nothing more is taken from either side."""
        return self._over


class _Side(asyncio.Protocol):
    """One side of a tunnel. Reading is paused for as long as somebody has a reason."""

    transport: asyncio.Transport

    def __init__(self, tunnel: Tunnel) -> None:
        self.tunnel = tunnel
        self.lost = False
        self._full = False  # what the other side is sent waits
        self._held = False  # what this side sends must wait for something else

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = t.cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(BUFFER)

    def other(self) -> _Side | None:
        raise NotImplementedError

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self.tunnel.side_lost(exc)

    def pause(self, *, waiting: bool = False) -> None:
        """Read no more of this side: the other one is full, or it must wait for something else."""
        self._held, self._full = self._held or waiting, self._full or not waiting
        if not self.transport.is_closing():
            self.transport.pause_reading()

    def resume(self, *, waiting: bool = False) -> None:
        """Read on, when nothing else keeps it from that."""
        if waiting:
            self._held = False
        else:
            self._full = False
        if not self._held and not self._full and not self.transport.is_closing():
            self.transport.resume_reading()

    def pause_writing(self) -> None:
        if (other := self.other()) is not None:
            other.pause()

    def resume_writing(self) -> None:
        if (other := self.other()) is not None:
            other.resume()


class _Client(_Side):
    def __init__(self, tunnel: Tunnel) -> None:
        super().__init__(tunnel)
        self.early = b""

    def other(self) -> _Side | None:
        return self.tunnel.server

    def taken(self) -> bytes:
        """Return what came early, once."""
        early, self.early = self.early, b""
        return early

    def data_received(self, data: bytes) -> None:
        tunnel = self.tunnel
        if tunnel.relaying:
            tunnel.from_client(data)
        else:
            tunnel.asked(data)

    def eof_received(self) -> bool:
        return self.tunnel.client_ended()


class _Server(_Side):
    def other(self) -> _Side | None:
        return self.tunnel.client

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.tunnel.server = self
        if self.tunnel.over:
            self.transport.abort()
        else:
            self.transport.pause_reading()

    def data_received(self, data: bytes) -> None:
        self.tunnel.from_server(data)

    def eof_received(self) -> bool:
        return self.tunnel.server_ended()
