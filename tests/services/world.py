# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A small world for egress: network namespaces of the test's own in which every address is a sink that tells what arrived.

The process under test is the real one, in a namespace whose only neighbour has all addresses there are. Nothing in it
reaches the machine that the test runs on.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import ctypes
import datetime
import json
import os
import pathlib
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
import typing as t

from ansible_collections.dockersandbox.guardrails.plugins.module_utils import frames, recorder
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

RESOLVER = "9.9.9.9"
GOOD = "93.184.216.34"  # where names lead that are what they seem
EVIL = "45.33.32.156"
TLS_PORTS, HTTP_PORTS, RAW_PORTS = (443, 8443), (80, 8080), (22, 25)
_ROOT = pathlib.Path(__file__).parents[2]


class Arrival(t.NamedTuple):
    """What came to a sink: *kind* is tcp, tls (its handshake was completed), http or dns; *what* the SNI, bytes or name."""

    kind: str
    address: str
    port: int
    what: str


def certificate(folder: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """Write a certificate for all names that tests use, which is its own authority, with its key, and return the files."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "sink")])
    now = datetime.datetime.now(datetime.UTC)
    names = ["*.example.org", "*.a.example.org", "example.org", "*.example.net", "evil.example", "localhost"]
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(one) for one in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    files = folder / "sink.crt", folder / "sink.key"
    files[0].write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    files[1].write_bytes(private)
    return files


@contextlib.contextmanager
def inside(namespace: str) -> t.Iterator[None]:
    """Have what this thread makes made in a network namespace: sockets stay in it."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/thread-self/ns/net", "rb") as before, open(f"/run/netns/{namespace}", "rb") as there:
        if libc.setns(there.fileno(), 0x40000000):
            raise OSError(ctypes.get_errno(), "setns")
        try:
            yield
        finally:
            libc.setns(before.fileno(), 0)


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


class Loop:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def do(self, work: t.Coroutine[t.Any, t.Any, t.Any]) -> t.Any:
        """Run *work* there and return its result."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()


class Recorder:
    """Takes events on a socket as the recorder does, keeps them in memory, and can fail in every way that one can."""

    def __init__(self, loop: Loop, path: pathlib.Path) -> None:
        self.events: list[dict[str, t.Any]] = []
        self.delay = 0.0
        self.refuse = ""
        self.mute = False
        self._loop = loop
        self._path = path
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._seen: dict[str, int] = {}

    def start(self) -> None:
        async def begin() -> None:
            self._path.unlink(missing_ok=True)
            self._server = await asyncio.start_unix_server(self._serve, str(self._path))

        self._loop.do(begin())

    def stop(self) -> None:
        async def end() -> None:
            assert self._server is not None
            self._server.close()
            for writer in self._writers:
                writer.transport.abort()
            self._path.unlink(missing_ok=True)

        self._loop.do(end())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        stream = frames.Frames()
        self._writers.add(writer)
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                for text in stream.feed(data):
                    if self.delay:
                        await asyncio.sleep(self.delay)
                    if self.mute:
                        continue
                    event = json.loads(text)
                    if self.refuse:
                        writer.write(frames.encode({"error": self.refuse}))
                        continue
                    seq = self._seen.setdefault(event["id"], len(self._seen) + 1)
                    if seq == len(self._seen) and (not self.events or self.events[-1]["id"] != event["id"]):
                        self.events.append(event)
                    writer.write(frames.encode({"seq": seq, "id": event["id"]}))
        self._writers.discard(writer)
        writer.close()

    def of(self, action: str) -> list[dict[str, t.Any]]:
        return [event for event in list(self.events) if event["action"] == action]


class Sinks:
    """Every address and port of a namespace, as servers that note what arrives. *names* is what DNS tells."""

    def __init__(self, loop: Loop, namespace: str, files: tuple[pathlib.Path, pathlib.Path]) -> None:
        self.arrived: list[Arrival] = []
        # An answer is a list of addresses; text is a misbehaviour; a list of those is taken one by one, the last for ever.
        self.names: dict[str, t.Any] = {}
        self.ttl = 1
        self._loop = loop
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(*files)
        self._named: dict[int, str] = {}
        self._tls.sni_callback = lambda tls, name, _context: self._named.__setitem__(id(tls), name or "")
        self._servers: list[t.Any] = []
        with inside(namespace):
            made = [(self._tls_sink, self._listener(port)) for port in TLS_PORTS]
            made += [(self._http_sink, self._listener(port)) for port in HTTP_PORTS]
            made += [(self._raw_sink, self._listener(port)) for port in RAW_PORTS]
            dns = self._datagrams(RESOLVER, 53)
            # Whoever asks another resolver than his own.
            others = [self._datagrams("0.0.0.0", port) for port in (53, 443)]

        async def begin() -> None:
            running = asyncio.get_running_loop()
            for handler, listener in made:
                self._servers.append(await asyncio.start_server(handler, sock=listener, limit=1 << 20, backlog=1024))
            self._servers.append((await running.create_datagram_endpoint(lambda: _Dns(self), sock=dns))[0])
            for other in others:
                self._servers.append((await running.create_datagram_endpoint(lambda: _Other(self), sock=other))[0])

        loop.do(begin())

    @staticmethod
    def _listener(port: int) -> socket.socket:
        listener = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("::", port))
        return listener

    @staticmethod
    def _datagrams(address: str, port: int) -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((address, port))
        return made

    def stop(self) -> None:
        async def end() -> None:
            for server in self._servers:
                server.close()

        self._loop.do(end())

    def note(self, kind: str, where: t.Any, what: str) -> None:
        self.arrived.append(Arrival(kind, where[0].removeprefix("::ffff:"), where[1], what))

    def of(self, kind: str) -> list[Arrival]:
        return [arrival for arrival in list(self.arrived) if arrival.kind == kind]

    async def _tls_sink(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        where = writer.get_extra_info("sockname")
        self.note("tcp", where, "")
        try:
            await writer.start_tls(self._tls, ssl_handshake_timeout=20)
        except (OSError, ssl.SSLError, EOFError):
            writer.close()
            return
        tls = writer.get_extra_info("ssl_object")
        self.note("tls", where, self._named.pop(id(tls), ""))
        await self._echo(reader, writer)

    async def _raw_sink(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.note("tcp", writer.get_extra_info("sockname"), "")
        await self._echo(reader, writer)

    async def _echo(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Send back what comes; ``SEND n`` in a line of its own gets n bytes."""
        with contextlib.suppress(OSError, ssl.SSLError):
            while data := await reader.read(65536):
                if data.startswith(b"SEND "):
                    left = int(data.split()[1])
                    while left > 0:
                        writer.write(bytes(min(left, 65536)))
                        left -= 65536
                        await writer.drain()
                else:
                    writer.write(data)
                    await writer.drain()
        writer.close()

    async def _http_sink(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        where = writer.get_extra_info("sockname")
        self.note("tcp", where, "")
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            fields = head.lower()
            body = b""
            if b"content-length: " in fields:
                body = await reader.readexactly(int(fields.split(b"content-length: ")[1].split(b"\r\n")[0]))
            elif b"transfer-encoding: chunked" in fields:
                body = await reader.readuntil(b"0\r\n\r\n")
            self.note("http", where, (head + body).decode("latin-1"))
            if b" /redirect" in head:
                writer.write(b"HTTP/1.1 302 Found\r\nLocation: http://evil.example/stolen\r\nContent-Length: 0\r\n\r\n")
            else:
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n")
            # What came behind the request would be another one.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.2):
                    if rest := await reader.read(65536):
                        self.note("http", where, rest.decode("latin-1"))
        writer.close()


class _Dns(asyncio.DatagramProtocol):
    def __init__(self, sinks: Sinks) -> None:
        self._sinks = sinks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = t.cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: t.Any) -> None:
        labels, at = [], 12
        while data[at]:
            labels.append(data[at + 1 : at + 1 + data[at]].decode("latin-1"))
            at += 1 + data[at]
        name, (kind,) = ".".join(labels).lower(), struct.unpack(">H", data[at + 1 : at + 3])
        self._sinks.note("dns", (RESOLVER, 53), f"{name} {kind}")
        answer = self._sinks.names.get(name)
        if isinstance(answer, list) and answer and not isinstance(answer[0], str):
            answer = answer[0] if len(answer) == 1 or kind != 1 else answer.pop(0)
        if answer == "stall":
            return
        code = {None: 3, "servfail": 2}.get(answer if not isinstance(answer, list) else "", 0)
        records = b""
        count = 0
        for address in answer if isinstance(answer, list) else []:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            if (kind == 28) == (family == socket.AF_INET6):
                packed = socket.inet_pton(family, address)
                records += b"\xc0\x0c" + struct.pack(">HHIH", kind, 1, self._sinks.ttl, len(packed)) + packed
                count += 1
        if answer == "garbage":
            self._transport.sendto(data[:2] + b"\xff" * 30, addr)
            return
        number = bytes([data[0] ^ 0xFF, data[1]]) if answer == "spoof" else data[:2]
        question = data[12 : at + 5]
        self._transport.sendto(number + struct.pack(">HHHHH", 0x8180 | code, 1, count, 0, 0) + question + records, addr)


class _Other(asyncio.DatagramProtocol):
    def __init__(self, sinks: Sinks) -> None:
        self._sinks = sinks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._where = transport.get_extra_info("sockname")

    def datagram_received(self, data: bytes, addr: t.Any) -> None:
        self._sinks.note("udp", self._where, data[:64].hex())


class World:
    """Namespaces, sinks, a recorder and egress itself. *config* is what egress is told, as its file has it."""

    def __init__(self, folder: pathlib.Path, config: dict[str, t.Any]) -> None:
        self.folder = folder
        self.config = {"resolvers": [RESOLVER], **config}
        self.inner, self.outer = f"egress{os.getpid()}", f"world{os.getpid()}"
        self.loop = Loop()
        self.certificate = certificate(folder)
        self.process: subprocess.Popen[bytes] | None = None
        try:
            self._namespaces()
            self.sinks = Sinks(self.loop, self.outer, self.certificate)
        except BaseException:
            self._remove()
            raise
        self.recorder = Recorder(self.loop, folder / "event.sock")
        self.recorder.start()

    def _namespaces(self) -> None:
        for namespace in (self.inner, self.outer):
            run("ip", "netns", "add", namespace)
            run("ip", "-n", namespace, "link", "set", "lo", "up")
        run("ip", "link", "add", "way", "netns", self.inner, "type", "veth", "peer", "name", "way", "netns", self.outer)
        for namespace, number in ((self.inner, 1), (self.outer, 2)):
            run("ip", "-n", namespace, "address", "add", f"198.18.255.{number}/30", "dev", "way")
            run("ip", "-n", namespace, "address", "add", f"fd99::{number}/64", "dev", "way", "nodad")
            run("ip", "-n", namespace, "link", "set", "way", "up")
        run("ip", "-n", self.inner, "route", "add", "default", "via", "198.18.255.2")
        run("ip", "-n", self.inner, "-6", "route", "add", "default", "via", "fd99::2")
        # All addresses are the neighbour's own.
        run("ip", "-n", self.outer, "route", "add", "local", "0.0.0.0/0", "dev", "lo")
        run("ip", "-n", self.outer, "-6", "route", "add", "local", "::/0", "dev", "lo")

    def write(self, **change: t.Any) -> None:
        """Write the configuration, changed."""
        self.config |= change
        (self.folder / "egress.json").write_text(json.dumps(self.config))

    def start(self) -> None:
        """Start egress and wait until its doors are open."""
        self.write()
        module = ["-m", "dockersandbox.egress", "--folder", str(self.folder), "--config", str(self.folder / "egress.json")]
        command = ["nsenter", f"--net=/run/netns/{self.inner}", sys.executable, *module, "--recorder", str(self.folder / "event.sock")]
        environment = {**os.environ, "PYTHONPATH": f"{_ROOT / '.collections'}:{_ROOT / 'src'}", "PYTHONWARNINGS": "error"}
        with open(self.folder / "egress.log", "ab") as log:
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        self.wait(lambda: all(self._answers(name) for name in self.config["sandboxes"]), "egress opens its doors")

    def _answers(self, sandbox: str) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.door(sandbox))) == 0

    def door(self, sandbox: str) -> pathlib.Path:
        return self.folder / "sandboxes" / sandbox / "egress.sock"

    def kill(self, number: int = signal.SIGKILL) -> None:
        """End egress."""
        assert self.process is not None
        self.process.send_signal(number)
        self.process.wait(20)
        self.process = None

    def reload(self, **change: t.Any) -> dict[str, t.Any]:
        """Change the configuration as an operator does, and return what egress then says of itself."""
        assert self.process is not None
        told = len(self.recorder.of("network.configure"))
        self.write(**change)
        self.process.send_signal(signal.SIGHUP)
        self.wait(lambda: len(self.recorder.of("network.configure")) > told, "egress reads its configuration")
        return self.command("status")

    def command(self, command: str, **more: t.Any) -> dict[str, t.Any]:
        """Return the answer of egress to a command of root's. RecorderError for a refusal."""
        with recorder.Client(str(self.folder / "admin.sock"), 10) as client:
            return client.command({"command": command, **more})

    def wait(self, holds: t.Callable[[], t.Any], what: str, seconds: float = 10) -> None:
        """Wait until something holds."""
        deadline = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {seconds} s: {what}; {(self.folder / 'egress.log').read_text()[-2000:]}")
            time.sleep(0.01)

    def forget(self) -> None:
        """Forget what has arrived and what was recorded, once all is quiet."""
        self.wait(self.quiet, "all connections end")
        self.sinks.arrived.clear()
        self.recorder.events.clear()

    def quiet(self) -> bool:
        return not any(told["connections"] for told in self.command("status")["sandboxes"].values())

    def stop(self) -> None:
        if self.process is not None:
            self.kill(signal.SIGTERM)
        self.sinks.stop()
        self.recorder.stop()
        self.loop.stop()
        self._remove()

    def _remove(self) -> None:
        for namespace in (self.inner, self.outer):
            subprocess.run(["ip", "netns", "del", namespace], capture_output=True, check=False)


# -- the sandbox's side


class Client:
    """A connection of a sandbox to its egress socket."""

    def __init__(self, world: World, sandbox: str = "box", timeout: float = 10) -> None:
        self._world = world
        self.socket: socket.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(timeout)
        self.socket.connect(str(world.door(sandbox)))

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        # Whoever is refused may be hung up on in the middle of what he says.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.socket.sendall(data)

    def read(self) -> bytes:
        """Return all that comes until the end."""
        parts = []
        with contextlib.suppress(ConnectionResetError):
            while part := self.socket.recv(65536):
                parts.append(part)
        return b"".join(parts)

    def head(self) -> bytes:
        """Return an answer's head."""
        found = b""
        while b"\r\n\r\n" not in found:
            part = self.socket.recv(1)
            if not part:
                break
            found += part
        return found

    def connect(self, authority: str, more: str = "") -> int:
        """Ask for a tunnel; return the status."""
        self.send(f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n{more}\r\n".encode())
        return status(self.head())

    def tls(self, name: str | None) -> ssl.SSLSocket:
        """Speak TLS in the tunnel that was opened."""
        context = ssl.create_default_context(cafile=str(self._world.certificate[0]))
        context.check_hostname = name is not None
        self.socket = wrapped = context.wrap_socket(self.socket, server_hostname=name)
        return wrapped


def status(head: bytes) -> int:
    """Return the status of an answer, 0 when there is none."""
    return int(head.split()[1]) if head.startswith(b"HTTP/1.") else 0


def fetch(world: World, url: str, *, method: str = "GET", sandbox: str = "box", more: str = "", body: bytes = b"") -> tuple[int, bytes]:
    """Ask for a plain URL; return the status and the whole answer."""
    host = url.split("/")[2]
    with Client(world, sandbox) as client:
        client.send(f"{method} {url} HTTP/1.1\r\nHost: {host}\r\n{more}\r\n".encode() + body)
        answer = client.read()
    return status(answer), answer


def tunnel(world: World, authority: str, name: str | None = "", *, sandbox: str = "box", more: str = "") -> tuple[int, str]:
    """Open a tunnel and speak TLS in it; return the status, and what came of the TLS: ok, or an error."""
    with Client(world, sandbox) as client:
        answer = client.connect(authority, more)
        if answer != 200:
            return answer, ""
        try:
            tls = client.tls(authority.rpartition(":")[0] if name == "" else name)
            tls.sendall(b"ping")
            return answer, "ok" if tls.recv(4) == b"ping" else "cut"
        except (OSError, ssl.SSLError) as error:
            return answer, str(error)


def counts(arrived: t.Iterable[Arrival]) -> dict[str, int]:
    """Return how much of each kind has arrived."""
    return dict(collections.Counter(arrival.kind for arrival in arrived))
