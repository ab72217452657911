# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The recorder's client for whatever runs as a plain process: modules, the callback, ``bin/sandbox``.

An event that was not acknowledged did not happen: whoever gets a RecorderError does not go on with what it wanted to
record. Each event carries an id of its own, so that one sent again after a lost connection is recorded once.
"""

from __future__ import annotations

import os
import socket
import time
import typing as t

from ansible_collections.dockersandbox.guardrails.plugins.module_utils import atomic, frames

PATIENCE = 5.0  # seconds for a recorder that is being started
SENDER = "host"
_PAUSE = 0.02


class RecorderError(Exception):
    """An event that is not on record, or a command that was not done; the text is one line for the operator."""


class Ack(t.NamedTuple):
    """Where a durable event is: its number in the log, and its id (32 hexadecimal digits)."""

    seq: int
    id: str


def event_socket(run: str, sender: str = SENDER) -> str:
    """Return the socket that *sender* records through; *run* is the folder of all sockets of a host."""
    return os.path.join(run, "recorder", sender, "event.sock")


def admin_socket(run: str, service: str = "recorder") -> str:
    """Return the socket on which root commands *service*."""
    return os.path.join(run, service, "admin.sock")


def record(run: str, event: t.Mapping[str, t.Any]) -> Ack:
    """Record one event (sender's fields of :mod:`events`) as ``host``; return once it is durable. Raises RecorderError."""
    with Client(event_socket(run)) as client:
        return client.record(event)


def new_id() -> str:
    """Return an id for an event."""
    return os.urandom(16).hex()


def framed(event: t.Mapping[str, t.Any]) -> bytes:
    """Return the frame of *event*, with an id when it has none. Raises RecorderError."""
    try:
        return frames.encode({"id": new_id(), **event})
    except frames.FrameError as error:
        raise RecorderError(f"the event {event.get('action')!r} cannot be recorded: {error}") from None


def acknowledged(text: bytes, decode: t.Callable[[bytes], t.Any] = frames.decode) -> Ack:
    """Return what a reply says. Raises RecorderError for a refusal. *decode* may be another library's."""
    try:
        reply = decode(text)
        if "error" in reply:
            raise RecorderError(str(reply["error"]))
        return Ack(int(reply["seq"]), str(reply["id"]))
    except (frames.FrameError, KeyError, TypeError, ValueError):
        raise RecorderError("the recorder's answer is none: is it another program's socket?") from None


def unreachable(path: str, why: str) -> RecorderError:
    """Return the error for the recorder, or the service whose admin.sock it is, at *path* that gives no answer."""
    folder, word = os.path.split(path)
    name = os.path.basename(folder)
    if word == "admin.sock" and name != "recorder":
        return RecorderError(f"{path}: service {name} does not answer ({why}); bring it up: bin/sandbox up, or see: docker logs guardrails-{name}")
    return RecorderError(
        f"{path}: the recorder does not answer ({why}), and nothing is done off the record; bring it up: bin/sandbox up, or see:"
        " docker logs guardrails-recorder"
    )


class Client:
    """A connection to a service's socket at *path*, for one thread. *patience*: the most seconds a call may take."""

    def __init__(self, path: str, patience: float = PATIENCE) -> None:
        self.path = path
        self.patience = patience
        self._socket: socket.socket | None = None

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; the next call opens another."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def record(self, event: t.Mapping[str, t.Any]) -> Ack:
        """Record one event; return once it is durable. Raises RecorderError."""
        frame = framed(event)
        return acknowledged(self._exchanged(frame, again=True))

    def command(self, message: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
        """Return the answer to one command of an admin socket. Raises RecorderError; a refusal is one."""
        try:
            answer = frames.decode(self._exchanged(frames.encode(message), again=False))
        except frames.FrameError as error:
            raise RecorderError(f"{self.path}: {error}") from None
        if "error" in answer:
            raise RecorderError(str(answer["error"]))
        return answer

    def _exchanged(self, frame: bytes, again: bool) -> bytes:
        """Return the text of the answer to *frame*; with *again* it may be sent more than once."""
        deadline = time.monotonic() + self.patience
        # The answer to a command may take long; a service that is not there is not waited for as long.
        there = deadline if again else min(deadline, time.monotonic() + PATIENCE)
        why = ""
        while True:
            sent = False
            try:
                connected = self._socket
                if connected is None:
                    self._socket = connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                    _wait(connected, deadline)
                    connected.connect(self.path)
                _wait(connected, deadline)
                sent, why = True, ""
                connected.sendall(frame)
                return _answer(connected, deadline)
            except TimeoutError:
                self.close()
                raise unreachable(self.path, why or f"no answer within {self.patience:g} s") from None
            except OSError as error:
                self.close()
                why = atomic.reason(error)
                if (sent and not again) or time.monotonic() + _PAUSE > there:
                    raise unreachable(self.path, why) from None
                time.sleep(_PAUSE)


def _wait(connected: socket.socket, deadline: float) -> None:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    connected.settimeout(left)


def _answer(connected: socket.socket, deadline: float) -> bytes:
    stream = frames.Frames()
    while True:
        _wait(connected, deadline)
        data = connected.recv(1 << 16)
        if not data:
            raise ConnectionError("it closed the connection")
        if texts := stream.feed(data):
            return texts[0]
        if stream.lost:
            raise ConnectionError(stream.lost)
