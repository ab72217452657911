# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What lies beyond the battery's sandboxes: egress with its rules, and a world that has every address there is.

The world is a network namespace of the battery's own: it notes all that arrives, and nothing in it leads to the machine's network.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import socket
import socketserver
import struct
import subprocess
import threading
import time
import typing as t
import urllib.parse

from services.world import EVIL, GOOD, RESOLVER, Arrival, World, inside, run, tunnel

API, MIRROR, PINNED, WILD, THEIRS = "api.example.org", "mirror.example.org", "pinned.example.org", "a.example.org", "theirs.example.org"
OTHER = "other"  # a sandbox that is not there, and whose door is
NAMES = 4  # below WILD, that one sandbox may use
# Names that rules allow, and that lead where nothing may go.
INWARDS = {
    "metadata.example.org": "169.254.169.254",
    "private.example.org": "10.0.0.1",
    "shared.example.org": "100.64.0.1",
    "multicast.example.org": "224.0.0.1",
    "loopback.example.org": "127.0.0.1",
    "own.example.org": "198.18.255.2",
    "mapped.example.org": "::ffff:10.0.0.1",
    "translated.example.org": "64:ff9b::a00:1",
    "local.example.org": "fe80::1",
}
_RULES: list[dict[str, t.Any]] = [
    # On port 80 without TLS it would be plain HTTP past the rules for that.
    {"host": API, "ports": [80, 443]},
    {"host": MIRROR, "scheme": "http", "paths": ["/open", "/redirect"]},
    {"host": PINNED, "pins": "strict"},
    {"host": f"*.{WILD}", "names": NAMES},
    *({"host": name, "ports": [80, 443]} for name in INWARDS),
]
_LIMITS = {"connections": 64, "rate": 100_000}


class Outside:
    """The world, and egress, whose folder is *folder*, for the sandboxes *names*."""

    def __init__(self, folder: pathlib.Path, names: t.Iterable[str]) -> None:
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        shares = {"rules": _RULES, "limits": _LIMITS}
        theirs = {"rules": [{"host": THEIRS}], "limits": _LIMITS}
        config = {"sandboxes": {**dict.fromkeys(names, shares), OTHER: theirs}, "pins": {PINNED: [GOOD]}, "token_ports": [443]}
        self.world = World(folder, config)
        self.world.sinks.names = {
            **{name: [address] for name, address in INWARDS.items()},
            **{name: [GOOD] for name in (API, MIRROR, THEIRS)},
            **{name: [EVIL] for name in (PINNED, "evil.example", f"{API}.evil.example", f"x{API}", f"x{WILD}", WILD)},
        }
        self.open = folder / "open"
        self._servers: list[socketserver.BaseServer] = []
        try:
            self.world.start()
        except BaseException:
            self.world.stop()
            raise

    def close(self) -> None:
        """Be rid of all."""
        for server in self._servers:
            server.shutdown()
            server.server_close()
        self.world.stop()

    def quiet(self) -> None:
        """Forget what arrived, once nobody is connected any more."""
        self.world.forget()

    def arrived(self) -> list[Arrival]:
        """Return what has arrived that no rule lets out, once all that is under way has."""
        if self.world.process:
            with contextlib.suppress(AssertionError):
                self.world.wait(self.world.quiet, "all connections end")
        time.sleep(0.2)
        below = {arrival.what.split()[0] for arrival in self.world.sinks.of("dns") if arrival.what.split()[0].endswith(f".{WILD}")}
        found = [arrival for arrival in list(self.world.sinks.arrived) if not _let_out(arrival)]
        return found if len(below) <= NAMES else [*found, *(arrival for arrival in self.world.sinks.of("dns") if WILD in arrival.what)]

    def serves(self) -> bool:
        """Tell whether another sandbox than the one that is at it gets out, within a time that a person bears."""
        begun = time.monotonic()
        return tunnel(self.world, f"{THEIRS}:443", sandbox=OTHER) == (200, "ok") and time.monotonic() - begun < 5

    # -- what is there when a protection is not

    def open_door(self) -> str:
        """Return the folder of a socket behind which is a proxy that decides nothing."""
        if not self._servers:
            self.open.mkdir(mode=0o755)
            server = _Open(str(self.open / "egress.sock"), _Careless)
            server.namespace = self.world.inner
            os.chmod(self.open / "egress.sock", 0o666)
            threading.Thread(target=server.serve_forever, daemon=True).start()
            self._servers.append(server)
        return str(self.open)

    def lead_out(self, pid: int) -> None:
        """Give the network of the process *pid* an interface that leads to the world."""
        own = f"out{pid}"
        run("ip", "link", "add", own, "netns", self.world.outer, "type", "veth", "peer", "name", "eth0", "netns", str(pid))
        run("ip", "-n", self.world.outer, "address", "add", "198.18.254.2/30", "dev", own)
        run("ip", "-n", self.world.outer, "address", "add", "fd98::2/64", "dev", own, "nodad")
        run("ip", "-n", self.world.outer, "link", "set", own, "up")
        within = ("nsenter", "--net", "--target", str(pid), "ip")
        subprocess.run([*within, "link", "set", "eth0", "up"], check=True)
        for family, address, way in (("-4", "198.18.254.1/30", "198.18.254.2"), ("-6", "fd98::1/64", "fd98::2")):
            # A network without IPv6 has none of it.
            given = subprocess.run([*within, family, "address", "add", address, "dev", "eth0"], capture_output=True, check=family == "-4")
            if given.returncode == 0:
                subprocess.run([*within, family, "route", "add", "default", "via", way], check=True)


def _let_out(arrival: Arrival) -> bool:
    """Tell whether the rules of the sandboxes that are attacked let this out. A connection alone says nothing yet."""
    where = (arrival.address, arrival.port)
    if arrival.kind == "dns":
        name = arrival.what.split()[0]
        return name in {API, MIRROR, PINNED, *INWARDS} or name.endswith(f".{WILD}")
    if arrival.kind == "tcp":
        return where in ((GOOD, 443), (GOOD, 80))
    if arrival.kind == "tls":
        return where == (GOOD, 443) and arrival.what == API
    if arrival.kind == "http":
        head = arrival.what.partition("\r\n\r\n")[0].lower().split("\r\n")
        asked = head[0].split(" ")
        allowed = asked[0] in ("get", "head") and asked[1].partition("?")[0] in ("/open", "/redirect")
        return where == (GOOD, 80) and allowed and f"host: {MIRROR}" in head[1:]
    return False


class _Open(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    request_queue_size = 128
    namespace = ""


class _Careless(socketserver.BaseRequestHandler):
    """A proxy as many are: it goes wherever it is told to, and believes what it reads."""

    def handle(self) -> None:
        client: socket.socket = self.request
        with contextlib.suppress(OSError, ValueError, IndexError):
            data = b""
            while b"\r\n\r\n" not in data:
                if not (part := client.recv(65536)):
                    return
                data += part
            head, _blank, rest = data.partition(b"\r\n\r\n")
            method, target, *_version = head.split(b"\r\n")[0].decode("latin-1").split(" ")
            if method == "CONNECT":
                server = self._connect(target)
                client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                server.sendall(rest)
            else:
                url = urllib.parse.urlsplit(target)
                server = self._connect(url.netloc if ":" in url.netloc else f"{url.netloc}:80")
                server.sendall(data.replace(target.encode("latin-1"), (url.path or "/").encode("latin-1"), 1))
            threading.Thread(target=_copy, args=(client, server), daemon=True).start()
            _copy(server, client)

    def _connect(self, authority: str) -> socket.socket:
        host, _colon, port = authority.rpartition("@")[2].rpartition(":")
        with inside(t.cast(_Open, self.server).namespace):
            return socket.create_connection((_address(host.strip("[]").partition("%")[0]), int(port)), 5)


def _address(host: str) -> str:
    if ":" in host:
        return host
    try:
        return socket.inet_ntoa(socket.inet_aton(host))
    except OSError:
        pass
    labels = b"".join(bytes([len(label)]) + label.encode() for label in host.rstrip(".").split(".")) + b"\0"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.settimeout(2)
        one.sendto(b"\0\1\1\0\0\1\0\0\0\0\0\0" + labels + struct.pack(">HH", 1, 1), (RESOLVER, 53))
        answer = one.recv(512)
    if not answer[7]:
        raise ValueError(host)
    return socket.inet_ntoa(answer[-4:])


def _copy(one: socket.socket, other: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.settimeout(10)
        while part := one.recv(65536):
            other.sendall(part)
    with contextlib.suppress(OSError):
        other.shutdown(socket.SHUT_WR)
