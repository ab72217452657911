# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Egress beside Squid: bulk through CONNECT, new tunnels a second, added latency, and a crowd of tunnels; prints JSON lines.

Run it as root as ``python tests/bench/egress.py [rounds]``, with the requirements of services and Debian's squid-openssl. All
happens in a network namespace of its own. The proxy under test has one processor, load and sink have another; contestants
take turns, so that what else the machine does falls on each.

- ``squid``: CONNECT as it is, without a look at TLS, an access log or a cache.
- ``egress``: without records. ``egress_recorded``: every opening durable before anything leaves (``fdatasync``).
- ``way_squid``, ``way_egress``: the whole way from inside a sandbox, through the program that is its first process, on the
  processor of load and sink; Squid has no unix socket, so for it the same program connects to its port.
- ``crowd``: 1,000 idle tunnels and 200 that take what they get, from 20 sandboxes: what egress keeps in memory, and what the
  sandboxes get.

A machine that does something else bends what is measured by the clock; what each spends of a processor it bends far less.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import json
import os
import pathlib
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import typing as t

import uvloop

CHECKOUT = pathlib.Path(__file__).resolve().parents[2]
SINK, RESOLVER, NAME = "93.184.216.34", "9.9.9.9", "bench.example.org"
PORT = 443
BULK = 1 << 30  # bytes
TUNNELS = 2000
AT_ONCE = 32
CALLS = 300
SANDBOXES, IDLE, ACTIVE, SECONDS = 20, 50, 10, 5  # a crowd: idle and active tunnels of each
NAMESPACE = f"bench{os.getpid()}"
# A ServerHello's worth, so that whoever waits for one goes on.
ANSWER = b"\x16\x03\x03\x00\x46\x02\x00\x00\x42\x03\x03" + bytes(64)
CONNECT = f"CONNECT {NAME}:{PORT} HTTP/1.1\r\nHost: {NAME}:{PORT}\r\n\r\n".encode()


def hello(bulk: bool = False) -> bytes:
    """Return a ClientHello for the sink; *bulk* is told by its random."""
    name = NAME.encode()
    entry = b"\x00" + len(name).to_bytes(2, "big") + name
    listed = len(entry).to_bytes(2, "big") + entry
    extensions = b"\x00\x00" + len(listed).to_bytes(2, "big") + listed
    body = b"\x03\x03" + bytes([bulk]) * 32 + b"\x00\x00\x02\x13\x01\x01\x00" + len(extensions).to_bytes(2, "big") + extensions
    message = b"\x01" + len(body).to_bytes(3, "big") + body
    return b"\x16\x03\x01" + len(message).to_bytes(2, "big") + message


# -- the parts that run as processes of their own


class Sink(asyncio.Protocol):
    """Answers whatever comes; after a hello that asks for bulk it sends that and ends."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = t.cast(asyncio.Transport, transport)
        self._left = -1

    def data_received(self, data: bytes) -> None:
        self._transport.write(ANSWER)
        if data == hello(bulk=True):
            self._left = BULK
            self.resume_writing()

    def resume_writing(self) -> None:
        while self._left > 0 and self._transport.get_write_buffer_size() < len(_BLOCK):
            self._transport.write(_BLOCK)
            self._left -= len(_BLOCK)
        if self._left == 0:
            self._transport.close()


_BLOCK = bytes(1 << 20)


class Dns(asyncio.DatagramProtocol):
    """Says that every name is the sink's."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = t.cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: t.Any) -> None:
        end = data.index(b"\0", 12) + 5
        address = data[end - 3] == 1
        answer = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x0e\x10\x00\x04" + socket.inet_aton(SINK) if address else b""
        self._transport.sendto(data[:2] + bytes([0x81, 0x80, 0, 1, 0, address, 0, 0, 0, 0]) + data[12:end] + answer, addr)


async def sink() -> None:
    """Serve as the outside."""
    loop = asyncio.get_running_loop()
    await loop.create_server(Sink, "0.0.0.0", PORT, backlog=1024)
    await loop.create_datagram_endpoint(Dns, (RESOLVER, 53))
    await asyncio.Event().wait()


async def egress(folder: str, recorded: str) -> None:
    """Serve as egress does, with or without records."""
    from dockersandbox.common.records import Records
    from dockersandbox.egress.service import Service

    async def at_once(_event: dict[str, t.Any]) -> t.Any:
        return None

    record = Records(os.path.join(folder, "event.sock")).record if recorded == "recorded" else at_once
    await Service(folder, os.path.join(folder, "egress.json"), record).run()


class Recorder(asyncio.Protocol):
    """Writes what came since the last time in one go, makes it durable, and acknowledges it."""

    def __init__(self, file: t.BinaryIO) -> None:
        from ansible_collections.dockersandbox.guardrails.plugins.module_utils import frames

        self._file = file
        self._frames = frames.Frames()
        self._pack = frames.pack
        self._waiting: list[bytes] = []
        self._busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = t.cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._waiting += self._frames.feed(data)
        if not self._busy:
            self._busy = True
            self._task = asyncio.create_task(self._flush())

    async def _flush(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            self._file.write(b"\n".join(batch))
            self._file.flush()
            await asyncio.get_running_loop().run_in_executor(None, os.fdatasync, self._file.fileno())
            self._transport.write(b"".join(self._pack(b'{"seq":1,"id":"%s"}' % (b"0" * 32)) for _text in batch))
        self._busy = False


async def recorder(folder: str) -> None:
    """Serve as a recorder that does nothing but what it cannot do without."""
    with open(os.path.join(folder, "events"), "ab") as file:
        await asyncio.get_running_loop().create_unix_server(lambda: Recorder(file), os.path.join(folder, "event.sock"))
        await asyncio.Event().wait()


def forward(port: str, where: str) -> None:
    """Serve as a sandbox's first process does. *where* is the path of a unix socket, or a port."""
    from ansible_collections.dockersandbox.guardrails.plugins.module_utils.forward import Forwarder, Pair

    class ToPort(Forwarder):
        def _connect(self, client: socket.socket, path: str) -> None:
            server = socket.create_connection(("127.0.0.1", int(path)))
            server.setblocking(False)
            Pair(self, client, server).watch()
            self._open += 1

    forwarder = ToPort() if where.isdecimal() else Forwarder()
    forwarder.listen(int(port), where)
    forwarder.run()


# -- the load


Way = tuple[str, t.Any]  # "unix" and a path, "tcp" and an address with its port, "direct" without a proxy


def opened(way: Way) -> socket.socket:
    """Return a connection by which the sink can be spoken to."""
    kind, where = way
    made = socket.socket(socket.AF_UNIX if kind == "unix" else socket.AF_INET)
    made.settimeout(30)
    made.connect((SINK, PORT) if kind == "direct" else where)
    if kind != "direct":
        made.sendall(CONNECT)
        answer = made.recv(65536)
        while b"\r\n\r\n" not in answer:
            answer += made.recv(65536)
        if not answer.startswith((b"HTTP/1.1 200", b"HTTP/1.0 200")):
            raise RuntimeError(answer.decode())
    return made


def bulk(way: Way) -> float:
    """Return gigabytes a second through one tunnel."""
    with opened(way) as made:
        buffer = bytearray(1 << 20)
        start = time.perf_counter()
        made.sendall(hello(bulk=True))
        got = 0
        while got < BULK:
            count = made.recv_into(buffer)
            if not count:
                raise RuntimeError(f"{way}: ended after {got} bytes")
            got += count
        return got / (time.perf_counter() - start) / 1e9


class Caller(asyncio.Protocol):
    """One tunnel: opened, a hello, its answer, closed."""

    def __init__(self, done: asyncio.Future[None]) -> None:
        self._done = done
        self._head = b""
        self._open = False
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = t.cast(asyncio.Transport, transport)
        self._transport.write(CONNECT)

    def data_received(self, data: bytes) -> None:
        if self._open:
            self._transport.close()
            self._done.set_result(None)
            return
        self._head += data
        if b"\r\n\r\n" in self._head:
            if b" 200 " not in self._head[:20]:
                self._done.set_exception(RuntimeError(self._head.decode()))
                return
            self._open = True
            self._transport.write(hello())

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        if not self._done.done():
            self._done.set_exception(RuntimeError(f"a tunnel was lost: {exc}"))


async def tunnels(way: Way) -> float:
    """Return new tunnels a second, some at once."""
    loop = asyncio.get_running_loop()
    left = TUNNELS

    async def caller() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            done = loop.create_future()
            made = functools.partial(Caller, done)
            if way[0] == "unix":
                await loop.create_unix_connection(made, way[1])
            else:
                await loop.create_connection(made, *way[1])
            await done

    start = time.perf_counter()
    async with asyncio.timeout(60):
        await asyncio.gather(*(caller() for _one in range(AT_ONCE)))
    return TUNNELS / (time.perf_counter() - start)


def latency(way: Way) -> tuple[float, float]:
    """Return the medians, in milliseconds, of a first answer in a new tunnel and of one in a tunnel that is open."""
    first, later = [], []
    for _call in range(CALLS):
        start = time.perf_counter()
        with opened(way) as made:
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1) if way[0] != "unix" else None
            made.sendall(hello())
            made.recv(65536)
            first.append(time.perf_counter() - start)
            start = time.perf_counter()
            made.sendall(b"x")
            made.recv(65536)
            later.append(time.perf_counter() - start)
    return statistics.median(first) * 1000, statistics.median(later) * 1000


class Member(Caller):
    """A tunnel of a crowd, which stays open."""

    taken = 0

    def data_received(self, data: bytes) -> None:
        if not self._open:
            super().data_received(data)
            return
        self.taken += len(data)
        if not self._done.done():
            self._done.set_result(None)

    def take(self) -> None:
        """Be active from now on."""
        self._transport.write(hello(bulk=True))


async def crowd(folder: str, process: int) -> list[float]:
    """Return the MiB that the process of egress has before the crowd, with its idle tunnels and with all; then what the
    sandbox that got least and the one that got most took in MB a second, and all together."""
    loop = asyncio.get_running_loop()

    async def opened_by(sandbox: int) -> Member:
        done = loop.create_future()
        _transport, member = await loop.create_unix_connection(lambda: Member(done), f"{folder}/box{sandbox}/egress.sock")
        await done
        return member

    kept = [resident(process)]
    held = [await opened_by(sandbox) for sandbox in range(SANDBOXES) for _one in range(IDLE)]
    kept.append(resident(process))
    active = [[await opened_by(sandbox) for _one in range(ACTIVE)] for sandbox in range(SANDBOXES)]
    for member in itertools.chain.from_iterable(active):
        member.take()
    await asyncio.sleep(SECONDS)
    kept.append(resident(process))
    got = sorted(sum(member.taken for member in members) / SECONDS / 1e6 for members in active)
    # They were open all the time.
    assert all(not member.lost for member in held)
    return [*kept, got[0], got[-1], sum(got)]


def resident(process: int) -> float:
    """Return the MiB that a process has in memory."""
    lines = pathlib.Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def load(what: str, way: Way) -> list[float]:
    """Measure one thing."""
    if what == "crowd":
        return uvloop.run(crowd(*way[1]))
    if what == "bulk":
        return [bulk(way)]
    if what == "tunnels":
        return [uvloop.run(tunnels(way))]
    return list(latency(way))


# -- the whole


_SQUID_PORT, _WAY_SQUID, _WAY_EGRESS = 3128, 3129, 3130
SQUID = """
pid_filename none
cache_log {folder}/squid.log
memory_cache_shared off
access_log none
cache_store_log none
cache deny all
cache_mem 8 MB
shutdown_lifetime 1 seconds
pinger_enable off
via off
forwarded_for delete
dns_nameservers {resolver}
visible_hostname bench
cache_effective_user proxy
coredump_dir {folder}
acl allowed dstdomain {name}
acl CONNECT method CONNECT
acl tls port {port}
http_access allow CONNECT allowed tls
http_access deny all
http_port 127.0.0.1:{listen}
"""


def in_namespace(core: int, *command: str, **more: t.Any) -> subprocess.Popen[bytes]:
    """Start a process in the namespace, on one processor."""
    path = os.pathsep.join(str(CHECKOUT / name) for name in (".collections", "src"))
    environment = {**os.environ, "PYTHONPATH": path}
    whole = ["nsenter", f"--net=/run/netns/{NAMESPACE}", "taskset", "-c", str(core), *command]
    return subprocess.Popen(whole, env=environment, **more)


def part(core: int, *arguments: str) -> subprocess.Popen[bytes]:
    """Start a part of this script."""
    return in_namespace(core, sys.executable, __file__, *arguments)


def measured(what: str, way: Way) -> list[float]:
    """Return what the load says."""
    with in_namespace(1, sys.executable, __file__, "load", what, json.dumps(way), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        said = process.stdout.read()
    return t.cast("list[float]", json.loads(said))


def ready(what: str, way: Way) -> None:
    """Wait until a contestant serves."""
    command = [sys.executable, __file__, "load", "probe", json.dumps(way)]
    for _try in range(100):
        with in_namespace(1, *command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            if process.wait() == 0:
                return
        time.sleep(0.1)
    raise RuntimeError(f"{what} does not serve")


def contestants(folder: pathlib.Path, held: contextlib.ExitStack) -> tuple[dict[str, Way], dict[str, int]]:
    """Start all, and return the way to each, and its process."""
    processes: dict[str, int] = {}

    def start(process: subprocess.Popen[bytes], name: str = "") -> None:
        processes[name] = process.pid
        held.callback(process.wait)
        held.callback(process.terminate)

    start(part(1, "sink"))
    allowed = {"groups": ["bench"], "limits": {"bytes": "1t", "rate": 1_000_000, "connections": 4096}}
    names = ["box", *(f"box{number}" for number in range(SANDBOXES))]
    config = {"resolvers": [RESOLVER], "groups": {"bench": [{"host": NAME}]}, "sandboxes": dict.fromkeys(names, allowed)}
    ways: dict[str, Way] = {"direct": ("direct", None)}
    for name, recorded in (("egress", "not"), ("egress_recorded", "recorded")):
        of = folder / name
        of.mkdir()
        (of / "egress.json").write_text(json.dumps(config))
        if recorded == "recorded":
            start(part(1, "recorder", str(of)))
        start(part(0, "egress", str(of), recorded), name)
        ways[name] = ("unix", str(of / "sandboxes" / "box" / "egress.sock"))
    conf = folder / "squid.conf"
    conf.write_text(SQUID.format(folder=folder, resolver=RESOLVER, name=NAME, port=PORT, listen=_SQUID_PORT))
    folder.chmod(0o777)
    # Its name keeps what it shares between processes apart from that of others.
    start(in_namespace(0, "squid", "-N", "-n", NAMESPACE, "-f", str(conf)), "squid")
    ways["squid"] = ("tcp", ["127.0.0.1", _SQUID_PORT])
    for name, port, where in (("squid", _WAY_SQUID, str(_SQUID_PORT)), ("egress", _WAY_EGRESS, ways["egress"][1])):
        start(part(1, "forward", str(port), where))
        ways[f"way_{name}"] = ("tcp", ["127.0.0.1", port])
        processes[f"way_{name}"] = processes[name]
    return ways, processes


def spent(process: int | None) -> float:
    """Return the seconds of a processor that a process has had."""
    if process is None:
        return 0.0
    return int(pathlib.Path(f"/proc/{process}/schedstat").read_text(encoding="ascii").split()[0]) / 1e9


def compare(rounds: int) -> None:
    """Measure and print."""
    subprocess.run(["ip", "netns", "add", NAMESPACE], check=True)
    try:
        # What has ended keeps its port for a minute, and there are not so many.
        for name, value in (("ip_local_port_range", "1024 65535"), ("tcp_tw_reuse", "1")):
            in_namespace(1, "sh", "-c", f"echo {value} >/proc/sys/net/ipv4/{name}").wait()
        for command in (["link", "set", "lo", "up"], ["address", "add", f"{SINK}/32", "dev", "lo"], ["address", "add", f"{RESOLVER}/32", "dev", "lo"]):
            subprocess.run(["ip", "-n", NAMESPACE, *command], check=True)
        with tempfile.TemporaryDirectory(prefix="bench-egress-", dir="/var/tmp") as folder, contextlib.ExitStack() as held:
            ways, processes = contestants(pathlib.Path(folder), held)
            for name, way in ways.items():
                ready(name, way)
            # First, while nothing else has grown it.
            said = measured("crowd", ("crowd", [str(pathlib.Path(folder, "egress", "sandboxes")), processes["egress"]]))
            words = ("before_mib", "idle_mib", "all_mib", "least_mb_s", "most_mb_s", "all_mb_s")
            say({"what": "crowd", **dict(zip(words, (round(value, 1) for value in said), strict=True))})
            for what, names, unit in (
                ("bulk", ("squid", "egress", "way_squid", "way_egress"), "GB/s"),
                ("tunnels", ("squid", "egress", "egress_recorded", "way_squid", "way_egress"), "1/s"),
                ("latency", ("direct", "squid", "egress", "egress_recorded", "way_squid", "way_egress"), "ms"),
            ):
                taken: dict[str, list[list[float]]] = {name: [] for name in names}
                for _round in range(rounds):
                    for name in names:
                        before = spent(processes.get(name))
                        taken[name].append([*measured(what, ways[name]), spent(processes.get(name)) - before])
                report(what, unit, {name: [statistics.median(column) for column in zip(*values, strict=True)] for name, values in taken.items()}, taken)
    finally:
        subprocess.run(["ip", "netns", "del", NAMESPACE], check=True)


def report(what: str, unit: str, medians: dict[str, list[float]], taken: dict[str, list[list[float]]]) -> None:
    """Print one line: medians, and ratios of neighbours in time, which what else the machine does cannot bend much."""
    figures: dict[str, t.Any] = {"what": what, "unit": unit, **{name: [round(value, 3) for value in values[:-1]] for name, values in medians.items()}}
    if what == "latency":
        for name in [name for name in medians if name != "direct"]:
            added = zip(medians[name][:-1], medians["direct"], strict=False)
            figures[f"{name}_added_ms"] = [round(value - least, 3) for value, least in added]
    else:
        figures["processor_s"] = {name: round(values[-1], 3) for name, values in medians.items()}
        for name in medians:
            if "egress" in name:
                pairs = list(zip(taken[name], taken["way_squid" if name.startswith("way_") else "squid"], strict=True))
                figures[f"{name}_to_squid"] = round(statistics.median(mine[0] / peer[0] for mine, peer in pairs), 2)
                figures[f"{name}_to_squid_a_processor_s"] = round(statistics.median(peer[-1] / mine[-1] for mine, peer in pairs), 2)
    say(figures)


def say(line: dict[str, t.Any]) -> None:
    """Print one line."""
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def main(arguments: list[str]) -> None:
    """Be the part that is asked for."""
    word = arguments[0] if arguments else "5"
    if word == "sink":
        uvloop.run(sink())
    elif word == "egress":
        uvloop.run(egress(*arguments[1:]))
    elif word == "recorder":
        uvloop.run(recorder(arguments[1]))
    elif word == "forward":
        forward(*arguments[1:])
    elif word == "load":
        kind, where = json.loads(arguments[2])
        way = kind, tuple(where) if isinstance(where, list) else where
        if arguments[1] == "probe":
            opened(way).close()
            return
        sys.stdout.write(json.dumps(load(arguments[1], way)))
    else:
        compare(int(word))


if __name__ == "__main__":
    main(sys.argv[1:])
