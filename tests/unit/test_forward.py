# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The forwarder as the first process of namespaces of its own, under a uid that is nobody else's."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pathlib
import shutil
import socket
import socketserver
import subprocess
import tempfile
import threading
import time
import typing as t

import pytest
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import forward

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces")

UID = "990999"
AS = ["setpriv", "--reuid", UID, "--regid", UID, "--clear-groups"]
PYTHON = ("/usr/bin/python3", "-I", "-S")


class _Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        while data := self.request.recv(65536):
            self.request.sendall(data)
        # What comes after the end of the other's shows that only one direction has ended.
        self.request.sendall(b"end")


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 1


class Box:
    """A first process with a port, and what else can be started beside it."""

    def __init__(self, folder: pathlib.Path, python: t.Sequence[str] = PYTHON) -> None:
        self.path = folder / "egress.sock"
        # setpriv itself has its capabilities still, and with them could read every program.
        command = ["prlimit", "--nofile=128:128", *AS, "env", *python, forward.__file__, f"3128={self.path}", f"4000={folder}/none.sock"]
        self.process = subprocess.Popen(["unshare", "-n", "-p", "-f", "sh", "-c", f"ip link set lo up; exec {' '.join(command)}"])
        deadline = time.monotonic() + 10
        while True:
            with contextlib.suppress(OSError), self.connect() as probe:
                # Nobody is there yet. One that is still under way would be taken for one of the test's.
                assert probe.recv(1) == b""
                return
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def first(self) -> int:
        """Return the number that the first process has outside."""
        try:
            children = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        except OSError:
            return 0
        return int(children[0]) if children else 0

    def end(self) -> None:
        if first := self.first():
            os.kill(first, 9)
        self.process.wait(10)

    def inside(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["nsenter", "-t", str(self.first()), "-n", "-p", *AS, *command], capture_output=True, text=True, check=False)

    def connect(self, port: int = 3128) -> socket.socket:
        """Return a connection from within."""
        made: list[socket.socket] = []

        def there() -> None:
            with contextlib.suppress(OSError), open(f"/proc/{self.first()}/ns/net", "rb") as namespace:
                assert ctypes.CDLL(None).setns(namespace.fileno(), 0x40000000) == 0
                made.append(socket.create_connection(("127.0.0.1", port), 10))

        # Only this thread is there.
        thread = threading.Thread(target=there)
        thread.start()
        thread.join()
        if not made:
            raise ConnectionRefusedError
        return made[0]


@pytest.fixture
def folder() -> t.Iterator[pathlib.Path]:
    """A folder that others may enter. One of pytest's own is closed to them again whenever another run of pytest begins."""
    with tempfile.TemporaryDirectory(prefix="forward-") as made:
        os.chmod(made, 0o755)
        yield pathlib.Path(made)


@pytest.fixture
def box(folder: pathlib.Path) -> t.Iterator[Box]:
    made = Box(folder)
    try:
        yield made
    finally:
        made.end()


@contextlib.contextmanager
def serving(box: Box) -> t.Iterator[_Server]:
    box.path.unlink(missing_ok=True)
    with _Server(str(box.path), _Echo) as server:
        box.path.chmod(0o666)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def _all(connection: socket.socket) -> bytes:
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts)


def _echoed(box: Box, data: bytes) -> bytes:
    with box.connect() as connection:
        got: list[bytes] = []
        reader = threading.Thread(target=lambda: got.append(_all(connection)))
        reader.start()
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        reader.join(20)
        return got[0]


@pytest.mark.parametrize("size", [0, 1, 20_000_000])
def test_both_ways(box: Box, size: int) -> None:
    data = os.urandom(size)
    with serving(box):
        assert _echoed(box, data) == data + b"end"


def test_nobody_inside_reads_or_writes_it_from_a_copy_that_may_only_be_run(folder: pathlib.Path) -> None:
    copy = folder / "python"
    shutil.copyfile(PYTHON[0], copy)
    said = []
    for mode in (0o711, 0o755):
        copy.chmod(mode)
        box = Box(folder, [str(copy), *PYTHON[1:]])
        try:
            assert _echoed_or_closed(box) == b""
            # Read by the same check as its memory, but for what a hardened kernel keeps to itself in any case.
            said.append(subprocess.run([*AS, "sh", "-c", f": < /proc/{box.first()}/environ"], capture_output=True, check=False).returncode == 0)
        finally:
            box.end()
    assert said == [False, True]


def test_without_the_socket(box: Box) -> None:
    assert _echoed_or_closed(box) == b""
    with serving(box):
        assert _echoed(box, b"x") == b"xend"
    assert _echoed_or_closed(box) == b""
    # One that was made anew is found.
    with serving(box):
        assert _echoed(box, b"x") == b"xend"


def _echoed_or_closed(box: Box) -> bytes:
    with box.connect() as connection:
        try:
            return connection.recv(1)
        except ConnectionResetError:
            return b""


def test_it_outlives_what_a_sweep_kills(box: Box) -> None:
    with serving(box):
        sleeper = threading.Thread(target=box.inside, args=("sleep", "60"))
        sleeper.start()
        time.sleep(0.2)
        box.inside("sh", "-c", "kill -KILL -1; kill -KILL 1")
        sleeper.join(5)
        assert not sleeper.is_alive()
        assert _echoed(box, b"x") == b"xend"


def test_it_buries_orphans(box: Box) -> None:
    for _time in range(5):
        box.inside("sh", "-c", "(sleep 0.05 &) ; exit 0")
    time.sleep(0.5)
    children = pathlib.Path(f"/proc/{box.first()}/task/{box.first()}/children").read_text().split()
    assert children == []


def test_a_full_backlog_waits(box: Box) -> None:
    box.path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener, contextlib.ExitStack() as held:
        listener.bind(str(box.path))
        box.path.chmod(0o666)
        listener.listen(1)
        connections = [held.enter_context(box.connect()) for _one in range(10)]
        time.sleep(0.2)
        for _one in connections:
            taken, _address = listener.accept()
            taken.sendall(b"ok")
            held.enter_context(taken)
        assert [connection.recv(2) for connection in connections] == [b"ok"] * 10


def test_more_connections_than_it_holds(box: Box) -> None:
    with serving(box), contextlib.ExitStack() as held:
        opened = [held.enter_context(box.connect()) for _one in range(150)]
        for connection in opened[:120]:
            connection.close()
        last = opened[-1]
        last.sendall(b"x")
        assert last.recv(1) == b"x"


def test_memory_is_bounded(box: Box) -> None:
    """A reader that does not read keeps the other side waiting."""
    with serving(box), box.connect() as connection:
        connection.settimeout(1)
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < 100 << 20:
                sent += connection.send(bytes(1 << 20))
        assert sent < 50 << 20
        resident = int(pathlib.Path(f"/proc/{box.first()}/statm").read_text().split()[1]) * 4096
        assert resident < 30 << 20


def test_stopped(box: Box) -> None:
    os.kill(box.first(), 15)
    assert box.process.wait(5) is not None
