# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The sockets that sandboxes connect to, each sandbox its own: which one a connection comes in on says who asks."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
import typing as t

from dockersandbox.egress.gate import Egress
from dockersandbox.egress.relay import Tunnel

NAME = "egress.sock"
_BACKLOG = 128
_TURN = 8  # connections that one sandbox may have accepted before the others have their turn
_SHORT = 0.2  # seconds to wait when the process is out of descriptors


class Door:
    """One sandbox's socket below *folder*. Above its rate a sandbox waits in the backlog of its own socket."""

    def __init__(self, egress: Egress, sandbox: str, folder: str) -> None:
        self._egress = egress
        self._sandbox = sandbox
        self._path = os.path.join(folder, sandbox, NAME)
        self._loop = asyncio.get_running_loop()
        self._paused: asyncio.TimerHandle | None = None
        os.makedirs(os.path.dirname(self._path), mode=0o755, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self._socket.bind(self._path)
        # The sandbox's uid is nobody here; whose folder is mounted in which sandbox decides.
        os.chmod(self._path, 0o666)
        self._socket.listen(_BACKLOG)
        self._loop.add_reader(self._socket.fileno(), self._ready)

    def close(self) -> None:
        """Let nobody in any more."""
        if self._paused is None:
            self._loop.remove_reader(self._socket.fileno())
        else:
            self._paused.cancel()
        self._socket.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)

    def _ready(self) -> None:
        ration = self._egress.ration(self._sandbox)
        for _turn in range(_TURN):
            if wait := ration.wait(time.time()):
                self._pause(wait)
                return
            try:
                connection, _address = self._socket.accept()
            except BlockingIOError:
                return
            except OSError:
                self._pause(_SHORT)
                return
            tunnel = Tunnel(self._egress, self._sandbox, self._loop)
            most = ration.limits.connections
            full = most is not None and ration.open >= most
            self._egress.arrived(tunnel)
            task = self._loop.create_task(self._adopt(tunnel, connection, f"{most} connections are open, and no more are allowed" if full else ""))
            _TASKS.add(task)
            task.add_done_callback(_TASKS.discard)

    async def _adopt(self, tunnel: Tunnel, connection: socket.socket, refused: str) -> None:
        await self._loop.connect_accepted_socket(lambda: tunnel.client, connection)
        if refused:
            tunnel.refuse(429, "default", refused)

    def _pause(self, seconds: float) -> None:
        self._loop.remove_reader(self._socket.fileno())
        self._paused = self._loop.call_later(seconds, self._resume)

    def _resume(self) -> None:
        self._paused = None
        self._loop.add_reader(self._socket.fileno(), self._ready)


_TASKS: set[asyncio.Task[None]] = set()


class Doors:
    """The doors of all sandboxes, below *folder*."""

    def __init__(self, egress: Egress, folder: str) -> None:
        self._egress = egress
        self._folder = folder
        self._open: dict[str, Door] = {}

    def converge(self, sandboxes: t.Collection[str]) -> None:
        """Have a door for each of *sandboxes* and for nobody else."""
        for name in sorted(set(self._open) - set(sandboxes)):
            self._open.pop(name).close()
        for name in sorted(set(sandboxes) - set(self._open)):
            self._open[name] = Door(self._egress, name, self._folder)

    def close(self) -> None:
        """Close them all."""
        self.converge(())
