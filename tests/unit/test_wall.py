# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The second wall: what rules open in it, and what the kernel then lets through, in network namespaces of the test's own."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import typing as t

import pytest
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import wall
from services.world import inside

NAME = {"host": "a.example.org"}
RESOLVERS = ["9.9.9.9"]


def document(*rules: dict[str, t.Any], **more: t.Any) -> dict[str, t.Any]:
    return {"groups": {}, "sandboxes": {"box": {"rules": list(rules)}}, "resolvers": RESOLVERS, **more}


@pytest.mark.parametrize(
    ("given", "exact", "public", "private"),
    [
        (document(), set(), set(), set()),
        (document(NAME), set(), {443}, set()),
        (document({**NAME, "ports": [8443, 443]}, {"host": "b.example.org", "scheme": "http"}), set(), {80, 443, 8443}, set()),
        (document({**NAME, "allow_private": True}), set(), {443}, {443}),
        (document({"host": "10.1.2.3", "allow_private": True}), {("10.1.2.3", 443)}, set(), set()),
        (document({"host": "fd00::1", "allow_private": True}), set(), set(), set()),
        (document({**NAME, "pins": "strict"}), set(), set(), set()),
        (document({**NAME, "pins": "strict"}, pins={"a.example.org": ["192.0.9.1", "2600::1"]}), {("192.0.9.1", 443)}, set(), set()),
        (document({**NAME, "pins": "strict"}, pins={"b.example.org": ["192.0.9.1"]}), set(), set(), set()),
        (document({"host": "*.example.org", "pins": "strict"}, pins={"a.example.org": ["192.0.9.1"]}), {("192.0.9.1", 443)}, set(), set()),
        (document(token_ports=[8443]), set(), {8443}, set()),
        # Of a group that no sandbox has, nothing is opened.
        ({"groups": {"some": [NAME]}, "sandboxes": {"box": {}}}, set(), set(), set()),
        ({"groups": {"some": [NAME]}, "sandboxes": {"box": {"groups": ["some"]}}}, set(), {443}, set()),
    ],
)
def test_openings(given: dict[str, t.Any], exact: set[tuple[str, int]], public: set[int], private: set[int]) -> None:
    found = wall.openings(given)
    assert ({(str(address), port) for address, port in found.exact}, set(found.public), set(found.private)) == (exact, public, private)


@pytest.mark.parametrize(("resolvers", "found"), [(["9.9.9.9", "9.9.9.9:5353", "[2600::1]:53"], {("9.9.9.9", 53), ("9.9.9.9", 5353)}), ([], set())])
def test_resolvers(resolvers: list[str], found: set[tuple[str, int]]) -> None:
    opened = wall.openings({**document(), "resolvers": resolvers})
    assert {(str(address), port) for address, port in opened.resolvers} == found


def run(*command: str, text: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False)


_numbers = itertools.count()


class Net:
    """A service, the host that it is behind, and the world beyond, a namespace each; every address of the world answers."""

    def __init__(self) -> None:
        self.names = [f"wall-{os.getpid()}-{next(_numbers)}-{word}" for word in ("in", "host", "out")]
        self.inner, self.host, self.outer = self.names

    def __enter__(self) -> Net:
        for name in self.names:
            self.do("ip", "netns", "add", name)
            self.do("ip", "-n", name, "link", "set", "lo", "up")
        self.do("ip", "-n", self.host, "link", "add", wall.bridge("egress"), "type", "veth", "peer", "name", "eth0", "netns", self.inner)
        self.do("ip", "-n", self.host, "link", "add", "up0", "type", "veth", "peer", "name", "eth0", "netns", self.outer)
        for name, link, address in (
            (self.inner, "eth0", "172.31.0.2/24"),
            (self.host, wall.bridge("egress"), "172.31.0.1/24"),
            (self.host, "up0", "198.51.100.1/24"),
            (self.outer, "eth0", "198.51.100.2/24"),
        ):
            self.do("ip", "-n", name, "address", "add", address, "dev", link)
            self.do("ip", "-n", name, "link", "set", link, "up")
        self.do("ip", "-n", self.inner, "route", "add", "default", "via", "172.31.0.1")
        self.do("ip", "-n", self.host, "route", "add", "default", "via", "198.51.100.2")
        self.do("ip", "-n", self.outer, "route", "add", "172.31.0.0/24", "via", "198.51.100.1")
        self.do("ip", "-n", self.outer, "route", "add", "local", "0.0.0.0/0", "dev", "lo")
        self.do("ip", "netns", "exec", self.host, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        return self

    def __exit__(self, *_exception: object) -> None:
        for name in self.names:
            run("ip", "netns", "delete", name)

    @staticmethod
    def do(*command: str) -> None:
        done = run(*command)
        assert done.returncode == 0, done.stderr

    def arrives(self, address: str, port: int, kind: str = "tcp") -> bool:
        """Whether a packet to *address* comes to anybody: nobody listens, so that the kernel says at once that it has come."""
        script = (
            "import socket, sys\n"
            f"s = socket.socket(socket.AF_INET, socket.{'SOCK_STREAM' if kind == 'tcp' else 'SOCK_DGRAM'})\n"
            "s.settimeout(0.5)\n"
            "try:\n"
            f"    s.connect(({address!r}, {port})); s.send(b'x'); s.recv(1)\n"
            "except ConnectionRefusedError:\n"
            "    print('arrived')\n"
            "except OSError:\n"
            "    pass\n"
        )
        return "arrived" in run("ip", "netns", "exec", self.inner, "/usr/bin/python3", "-I", "-c", script).stdout

    def nft(self, text: str) -> None:
        done = run("ip", "netns", "exec", self.host, "nft", "-f", "-", text=text)
        assert done.returncode == 0, done.stderr


needs_root = pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("nft"), reason="makes namespaces, needs nft")


@pytest.fixture(scope="module")
def net() -> t.Iterator[Net]:
    with Net() as made:
        yield made


_PUBLIC, _PRIVATE, _METADATA, _HOST, _ITS_OTHER = "93.184.216.34", "10.1.2.3", "169.254.169.254", "172.31.0.1", "198.51.100.1"
_OPEN = document({**NAME, "ports": [443]}, {"host": "10.9.9.9", "allow_private": True})
_WIDE = document({**NAME, "allow_private": True})


@needs_root
@pytest.mark.parametrize(
    ("given", "address", "port", "kind", "arrives"),
    [
        # Without a wall everything does.
        (None, _PUBLIC, 443, "tcp", True),
        (None, _METADATA, 80, "tcp", True),
        (None, _HOST, 443, "tcp", True),
        (None, _ITS_OTHER, 443, "tcp", True),
        (None, "9.9.9.9", 53, "udp", True),
        (_OPEN, _PUBLIC, 443, "tcp", True),
        (_OPEN, _PUBLIC, 80, "tcp", False),
        (_OPEN, _PUBLIC, 443, "udp", False),
        (_OPEN, "10.9.9.9", 443, "tcp", True),
        (_OPEN, _PRIVATE, 443, "tcp", False),
        (_OPEN, _METADATA, 443, "tcp", False),
        (_OPEN, "168.63.129.16", 443, "tcp", False),
        (_OPEN, _HOST, 443, "tcp", False),
        (_OPEN, _ITS_OTHER, 443, "tcp", False),
        (_OPEN, "9.9.9.9", 53, "udp", True),
        (_OPEN, "9.9.9.9", 53, "tcp", True),
        (_OPEN, "8.8.8.8", 53, "udp", False),
        (_WIDE, _PRIVATE, 443, "tcp", True),
        (_WIDE, _PRIVATE, 22, "tcp", False),
        (_WIDE, _METADATA, 443, "tcp", False),
        (_WIDE, "100.100.100.200", 443, "tcp", False),
        (_WIDE, _HOST, 443, "tcp", False),
        (document(), _PUBLIC, 443, "tcp", False),
    ],
)
def test_what_arrives(net: Net, given: dict[str, t.Any] | None, address: str, port: int, kind: str, arrives: bool) -> None:
    name = f"table inet {wall.table('egress')}"
    net.nft(f"{name}\ndelete {name}\n" if given is None else wall.render("egress", wall.openings(given)))
    assert net.arrives(address, port, kind) is arrives


@needs_root
@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        ("", ""),
        ("add rule inet dockersandbox_egress leave accept", "is not as the rules say"),
        ("flush chain inet dockersandbox_egress leave", "is not as the rules say"),
        ("delete table inet dockersandbox_egress", "is not there"),
    ],
)
def test_a_wall_that_was_changed_is_seen(net: Net, spoil: str, said: str) -> None:
    text = wall.render("egress", wall.openings(_OPEN))
    with inside(net.host):
        wall.raise_(text)
        if spoil:
            net.nft(spoil)
        assert wall.problem("egress", text) == said
        wall.raise_(text)
        assert wall.problem("egress", text) == ""
        assert wall.problem("egress", wall.render("egress", wall.openings(_WIDE))) == "is not as the rules say"


@needs_root
def test_nothing_else_is_touched(net: Net) -> None:
    with inside(net.host):
        net.nft("table inet other { chain c { type filter hook input priority 0; }; }\n")
        wall.raise_(wall.render("egress", wall.openings(_OPEN)))
        before = run("nft", "list", "table", "inet", "other").stdout
        wall.remove("egress")
        wall.remove("egress")
        assert run("nft", "list", "table", "inet", "other").stdout == before
        assert "hook input" in before
        assert "dockersandbox" not in run("nft", "list", "tables").stdout
        net.nft("delete table inet other")
