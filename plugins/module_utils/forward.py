# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The first process of a sandbox: passes loopback ports on to unix sockets, and buries orphans.

``forward.py PORT=SOCKET…`` listens on 127.0.0.1 and connects each connection to the socket, whose owner decides over it. As the
first process it is not killed when what a run left is cleared away, and a sandbox that runs has its ports: whoever ends it from
within ends the sandbox. It forks nothing, so that a sandbox that is full of processes still has them.

A program of its own: it imports nothing but a few modules of the standard library. Source: credentials(7), signal(7), tcp(7).
"""

from __future__ import annotations

import errno
import os
import selectors
import signal
import socket
import sys

_MOST = 512  # connections at one time, where there are descriptors for so many; more wait in the backlog
_SPARE = 32  # descriptors for everything else
_CHUNK = 64 << 10  # bytes that wait for one direction of a connection
_BACKLOG = 128
_PAUSE = 0.05  # seconds until a socket whose backlog is full is tried again


class Pair:
    """A connection to a port and the one that it is passed on to."""

    def __init__(self, loop: Forwarder, client: socket.socket, server: socket.socket) -> None:
        self.loop = loop
        self.there = {client: b"", server: b""}  # what waits to be written to each
        self.other = {client: server, server: client}
        self.ended: set[socket.socket] = set()  # those from which no more comes
        self.shut: set[socket.socket] = set()  # those that were told so of the other

    def ready(self, side: socket.socket, mask: int) -> None:
        """Move what can be moved, as *side* is ready for *mask*."""
        try:
            if mask & selectors.EVENT_WRITE:
                self._write(side)
            if mask & selectors.EVENT_READ:
                self._read(side)
            if len(self.shut) < 2:
                self.watch()
                return
        except OSError:
            pass
        self.close()

    def _read(self, side: socket.socket) -> None:
        other = self.other[side]
        if self.there[other] or side in self.ended:
            return
        try:
            data = side.recv(_CHUNK)
        except BlockingIOError:
            return
        if data:
            self.there[other] = data
        else:
            self.ended.add(side)
        self._write(other)

    def _write(self, side: socket.socket) -> None:
        waiting = self.there[side]
        if waiting:
            try:
                sent = side.send(waiting)
            except BlockingIOError:
                return
            self.there[side] = waiting[sent:]
        if not self.there[side] and self.other[side] in self.ended and side not in self.shut:
            self.shut.add(side)
            side.shutdown(socket.SHUT_WR)

    def watch(self) -> None:
        """Ask to be told of what can go on."""
        for side, waiting in self.there.items():
            mask = selectors.EVENT_WRITE if waiting else 0
            if side not in self.ended and not self.there[self.other[side]]:
                mask |= selectors.EVENT_READ
            self.loop.watch(side, mask, self)

    def close(self) -> None:
        """Be rid of both."""
        for side in self.there:
            self.loop.watch(side, 0, self)
            side.close()
        self.loop.ended()


class Forwarder:
    """Listens on ports, and moves bytes."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._masks: dict[socket.socket, int] = {}
        self._listening: dict[socket.socket, str] = {}
        self._waiting: list[tuple[socket.socket, str]] = []  # accepted, and not yet taken by the other end
        self._most = min(_MOST, max(1, (os.sysconf("SC_OPEN_MAX") - _SPARE) // 2))
        self._open = 0
        self._full = False

    def listen(self, port: int, path: str) -> None:
        """Pass what comes to *port* on to the socket at *path*."""
        made = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(("127.0.0.1", port))
        made.listen(_BACKLOG)
        self._listening[made] = path
        self._selector.register(made, selectors.EVENT_READ)

    def watch(self, side: socket.socket, mask: int, pair: Pair) -> None:
        """Tell *pair* when *side* is ready for *mask*; 0 for no more."""
        before = self._masks.get(side, 0)
        if mask == before:
            return
        if not mask:
            self._selector.unregister(side)
            del self._masks[side]
            return
        self._masks[side] = mask
        (self._selector.modify if before else self._selector.register)(side, mask, pair)

    def ended(self) -> None:
        """A pair has gone."""
        self._open -= 1

    def run(self) -> None:
        """Serve for ever."""
        while True:
            self._admit()
            for key, mask in self._selector.select(_PAUSE if self._waiting else None):
                if key.data is not None:
                    # What was done for another may have closed this one.
                    if key.fileobj in self._masks:
                        key.data.ready(key.fileobj, mask)
                elif isinstance(key.fileobj, socket.socket):
                    self._accept(key.fileobj)

    def _admit(self) -> None:
        """Try again whoever waits, and accept others only when nobody does and there is room."""
        waiting, self._waiting = self._waiting, []
        for client, path in waiting:
            self._connect(client, path)
        full = bool(self._waiting) or self._open >= self._most
        if full != self._full:
            self._full = full
            for listener in self._listening:
                if full:
                    self._selector.unregister(listener)
                else:
                    self._selector.register(listener, selectors.EVENT_READ)

    def _accept(self, listener: socket.socket) -> None:
        try:
            client, _address = listener.accept()
        except OSError:
            return
        client.setblocking(False)
        self._connect(client, self._listening[listener])

    def _connect(self, client: socket.socket, path: str) -> None:
        server = None
        try:
            server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            server.connect(path)
            Pair(self, client, server).watch()
            self._open += 1
            return
        except BlockingIOError:
            # Its backlog is full: whoever is at the other end has sandboxes wait that ask too much at once.
            self._waiting.append((client, path))
        except OSError:
            client.close()
        if server is not None:
            server.close()


def _bury(_number: int, _frame: object) -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def _leave(_number: int, _frame: object) -> None:
    os._exit(0)


def main(arguments: list[str]) -> None:
    """Forward for ever, or until the container is stopped."""
    signal.signal(signal.SIGCHLD, _bury)
    signal.signal(signal.SIGTERM, _leave)
    forwarder = Forwarder()
    for argument in arguments:
        port, _equals, path = argument.partition("=")
        try:
            forwarder.listen(int(port), path)
        except OSError as error:
            raise SystemExit(f"forward: port {port}: {errno.errorcode.get(error.errno or 0, error)}") from None
    forwarder.run()


if __name__ == "__main__":
    main(sys.argv[1:])
