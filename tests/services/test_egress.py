# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Egress as it runs, between a sandbox's socket and a world in which every address is a sink. Scored at the sinks."""

from __future__ import annotations

import contextlib
import os
import pathlib
import select
import socket
import ssl
import threading
import time
import typing as t

import pytest
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.recorder import RecorderError
from services import world
from services.test_egress_hello import ECH, EVIL, made, record, records, sni
from services.world import Client, World, counts, fetch, tunnel

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces")

GROUPS: dict[str, list[dict[str, t.Any]]] = {
    "api": [{"host": "api.example.org"}, {"host": "hop.example.org"}],
    "mirror": [
        {"host": "mirror.example.org", "scheme": "http", "paths": ["/debian/", "/redirect"]},
        {"host": "git.example.org", "scheme": "http", "methods": ["GET"], "paths": ["/repo.git/info/refs"]},
        {"host": "git.example.org", "scheme": "http", "methods": ["POST"], "paths": ["/repo.git/git-upload-pack"]},
        {"host": "open.example.org", "scheme": "http", "methods": ["GET", "POST"]},
    ],
    "wild": [{"host": "*.a.example.org", "names": 3}],
    "inside": [{"host": "inside.example.org", "allow_private": True}, {"host": "10.1.2.3", "allow_private": True}],
    "pinned": [{"host": "pinned.example.org", "pins": "strict"}],
    "small": [{"host": "small.example.org", "limits": {"bytes": "1m"}}, {"host": "few.example.org", "limits": {"connections": 2}}],
    "idle": [{"host": "idle.example.org", "limits": {"idle": 1}}],
}
# Many connections a minute, because tests are in a hurry.
LIMITS = {"rate": 100_000}
SANDBOXES: dict[str, dict[str, t.Any]] = {
    "box": {"groups": ["api", "mirror", "inside", "pinned", "small", "idle"], "limits": LIMITS},
    "other": {"groups": ["api"], "limits": {"connections": 8, "rate": 100_000}},
    "wild": {"groups": ["wild"], "limits": LIMITS},
    "slow": {"groups": ["api"], "limits": {"rate": 60}},
    "empty": {},
}
CONFIG: dict[str, t.Any] = {"groups": GROUPS, "sandboxes": SANDBOXES, "token_ports": [443], "pins": {"pinned.example.org": [world.GOOD]}}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[World]:
    made_world = World(tmp_path_factory.mktemp("world"), CONFIG)
    try:
        made_world.start()
        yield made_world
    finally:
        made_world.stop()


@pytest.fixture
def here(running: World) -> t.Iterator[World]:
    """The world, as if nothing had happened yet."""
    names = ["api", "hop", "mirror", "git", "open", "x.a", "y.a", "z.a", "w.a", "pinned", "small", "few", "idle"]
    running.sinks.names = {f"{name}.example.org": [world.GOOD] for name in names}
    running.sinks.names |= {"inside.example.org": ["10.9.8.7"], "evil.example": [world.EVIL]}
    running.forget()
    yield running
    running.recorder.refuse, running.recorder.mute, running.recorder.delay = "", False, 0.0


# -- what is allowed works


def test_a_tunnel(here: World) -> None:
    assert tunnel(here, "api.example.org:443") == (200, "ok")
    here.wait(lambda: here.recorder.of("network.close"), "its end is on record")
    assert [arrival for arrival in here.sinks.arrived if arrival.kind != "dns"] == [
        world.Arrival("tcp", world.GOOD, 443, ""),
        world.Arrival("tls", world.GOOD, 443, "api.example.org"),
    ]
    (opened,), (closed,) = here.recorder.of("network.connect"), here.recorder.of("network.close")
    assert (opened["decision"], opened["policy_ids"], opened["resource"]) == ("allow", ["api/api.example.org:443"], "api.example.org:443")
    assert opened["detail"]["address"] == closed["detail"]["address"] == world.GOOD
    assert opened["detail"]["connection"] == closed["detail"]["connection"]
    assert closed["outcome"] == "success"
    assert closed["detail"]["bytes_sent"] > 300
    assert closed["detail"]["bytes_received"] > 300
    assert closed["detail"]["duration_us"] > 0


@pytest.mark.parametrize(
    ("method", "path", "more", "body", "due"),
    [
        ("GET", "mirror.example.org/debian/x?t=1", "", b"", "GET /debian/x?t=1 HTTP/1.1\r\nhost: mirror.example.org\r\nconnection: close\r\n\r\n"),
        (
            "POST",
            "open.example.org/",
            "Content-Length: 3\r\n",
            b"abcPOST http://open.example.org/second HTTP/1.1\r\n\r\n",
            "POST / HTTP/1.1\r\nhost: open.example.org\r\ncontent-length: 3\r\nconnection: close\r\n\r\nabc",
        ),
        (
            "POST",
            "open.example.org/",
            "Transfer-Encoding: chunked\r\n",
            b"3;x\r\nabc\r\n0\r\n\r\nGET http://evil.example/ HTTP/1.1\r\n\r\n",
            "POST / HTTP/1.1\r\nhost: open.example.org\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        ),
    ],
)
def test_plain_http(here: World, method: str, path: str, more: str, body: bytes, due: str) -> None:
    answer, text = fetch(here, f"http://{path}", method=method, more=more, body=body)
    assert answer == 200
    assert text.endswith(b"ok\n")
    assert [arrival.what for arrival in here.sinks.of("http")] == [due]
    here.wait(lambda: here.recorder.of("network.close"), "its end is on record")
    (opened,) = here.recorder.of("network.connect")
    assert opened["class"] == "http_activity"
    assert opened["resource"] == f"{method} http://{path.partition('?')[0].replace('/', ':80/', 1)}"


def test_much_both_ways_and_half_close(here: World) -> None:
    with Client(here) as client:
        assert client.connect("api.example.org:443") == 200
        tls = client.tls("api.example.org")
        tls.sendall(b"SEND 20000000\n")
        got = 0
        while got < 20_000_000:
            got += len(tls.recv(1 << 16))
        sent = os.urandom(5_000_000)
        assert echoed(tls, sent) == sent
    here.wait(lambda: here.recorder.of("network.close"), "its end is on record")
    detail = here.recorder.of("network.close")[0]["detail"]
    assert detail["bytes_received"] > 25_000_000
    assert detail["bytes_sent"] > 5_000_000


def echoed(tls: ssl.SSLSocket, sent: bytes) -> bytes:
    """Send and read at once, and return what came. By one thread: two may not use a connection at the same time."""
    tls.setblocking(False)
    left, back = memoryview(sent), bytearray()
    deadline = time.monotonic() + 20
    while len(back) < len(sent) and time.monotonic() < deadline:
        with contextlib.suppress(ssl.SSLWantWriteError, ssl.SSLWantReadError):
            left = left[tls.send(left[: 1 << 16]) :] if left else left
        try:
            back += tls.recv(1 << 16)
        except ssl.SSLWantReadError:
            select.select([tls], [tls] if left else [], [], 1)
    tls.setblocking(True)
    return bytes(back)


def test_a_slow_reader_holds_only_itself(here: World) -> None:
    before = memory(here)
    with contextlib.ExitStack() as open_:
        for _slow in range(20):
            client = open_.enter_context(Client(here))
            assert client.connect("api.example.org:443") == 200
            client.tls("api.example.org").sendall(b"SEND 50000000\n")
        time.sleep(0.5)
        assert tunnel(here, "api.example.org:443", sandbox="other") == (200, "ok")
        assert memory(here) - before < 40 << 20
    here.wait(here.quiet, "all end")


def memory(here: World) -> int:
    """Return the resident bytes of egress."""
    assert here.process is not None
    status = pathlib.Path(f"/proc/{here.process.pid}/statm").read_text()
    return int(status.split()[1]) * 4096


def test_the_hello_behind_connect(here: World) -> None:
    """A client need not wait for the answer to CONNECT."""
    context = ssl.create_default_context(cafile=str(here.certificate[0]))
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(to_client, to_server, server_hostname="api.example.org")
    with Client(here) as client:
        with pytest.raises(ssl.SSLWantReadError):
            tls.do_handshake()
        client.send(b"CONNECT api.example.org:443 HTTP/1.1\r\nHost: api.example.org\r\n\r\n" + to_server.read())
        assert world.status(client.head()) == 200
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                to_client.write(client.socket.recv(65536))
        tls.write(b"ping")
        client.send(to_server.read())
        while True:
            # The server's tickets may come before its answer.
            to_client.write(client.socket.recv(65536))
            with contextlib.suppress(ssl.SSLWantReadError):
                assert tls.read(4) == b"ping"
                break
    assert counts(here.sinks.arrived)["tls"] == 1


def test_names_below_a_wildcard(here: World) -> None:
    for name in ("x", "y", "z", "x"):
        assert tunnel(here, f"{name}.a.example.org:443", sandbox="wild") == (200, "ok")
    assert tunnel(here, "w.a.example.org:443", sandbox="wild")[0] == 429
    assert "w.a.example.org 1" not in [arrival.what for arrival in here.sinks.of("dns")]
    here.wait(lambda: here.recorder.of("network.close"), "an end is on record")


def test_private_where_the_rule_says_so(here: World) -> None:
    assert tunnel(here, "inside.example.org:443") == (200, "ok")
    with Client(here) as client:
        assert client.connect("10.1.2.3:443") == 200
        with pytest.raises(ssl.SSLError, match="self.signed|IP address mismatch|CERTIFICATE_VERIFY_FAILED"):
            client.tls("10.1.2.3")
    assert [arrival.address for arrival in here.sinks.of("tcp")] == ["10.9.8.7", "10.1.2.3"]


# -- what is denied arrives nowhere


@pytest.mark.parametrize(
    ("authority", "status"),
    [
        ("evil.example:443", 403),
        ("DATA.evil.example:443", 403),
        ("api.example.org.evil.example:443", 403),
        ("notapi.example.org:443", 403),
        ("example.org:443", 403),
        ("api.example.org:22", 403),
        ("api.example.org:80", 403),
        ("api.example.org:8443", 403),
        ("mirror.example.org:80", 403),
        ("1.1.1.1:443", 403),
        (f"{world.GOOD}:443", 403),
        ("9.9.9.9:443", 403),
        ("[2606:4700:4700::1111]:443", 403),
        ("169.254.169.254:80", 403),
        ("127.0.0.1:443", 403),
        ("[::1]:443", 403),
        ("198.18.255.1:443", 403),
        ("localhost:443", 403),
        ("host.docker.internal:443", 403),
        ("[::ffff:93.184.216.34]:443", 403),
        ("2130706433:443", 400),
        ("0x7f.1:443", 400),
        ("0177.0.0.1:443", 400),
        ("127.1:443", 400),
        ("[fe80::1%25eth0]:443", 400),
        ("api%2eexample.org:443", 400),
        ("api.example.org%00.evil.example:443", 400),
        ("evil.example@api.example.org:443", 400),
        ("api.example.org:443:443", 400),
        ("api.example.org", 400),
        ("api。example.org:443", 400),
    ],
)
def test_connect_denied(here: World, authority: str, status: int) -> None:
    assert tunnel(here, authority)[0] == status
    assert here.sinks.arrived == []
    # One that came just before would only be counted, and told of later.
    here.wait(lambda: here.recorder.of("network.connect"), "the denial is on record", 15)
    (denied,) = here.recorder.of("network.connect")
    assert denied["decision"] == "deny"
    assert denied["reason"]
    assert "\n" not in denied["reason"]


@pytest.mark.parametrize(
    ("method", "url", "more", "status"),
    [
        ("GET", "http://evil.example/", "", 403),
        ("GET", "http://DATA.evil.example/", "", 403),
        ("GET", "http://169.254.169.254/latest/meta-data/", "", 403),
        ("GET", "http://api.example.org/", "", 403),
        ("GET", "http://mirror.example.org/", "", 403),
        ("GET", "http://mirror.example.org/debian/../x", "", 403),
        ("POST", "http://mirror.example.org/debian/x", "Content-Length: 0\r\n", 403),
        ("GET", "http://git.example.org/repo.git/info/refs?service=git-upload-pack", "", 200),
        ("POST", "http://git.example.org/repo.git/git-upload-pack", "Content-Length: 0\r\n", 200),
        ("POST", "http://git.example.org/repo.git/git-receive-pack", "Content-Length: 0\r\n", 403),
        ("POST", "http://git.example.org/repo.git/info/refs", "Content-Length: 0\r\n", 403),
        ("GET", "https://api.example.org/", "", 400),
        ("GET", "http://mirror.example.org:443/debian/", "", 403),
    ],
)
def test_plain_denied(here: World, method: str, url: str, more: str, status: int) -> None:
    assert fetch(here, url, method=method, more=more)[0] == status
    assert bool(here.sinks.of("http")) == (status == 200)
    assert not here.sinks.arrived or status == 200


@pytest.mark.parametrize(
    "data",
    [
        b"GET http://mirror.example.org/debian/ HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        b"GET http://mirror.example.org/debian/ HTTP/1.1\r\nHost: mirror.example.org\r\nHost: evil.example\r\n\r\n",
        b"GET http://mirror.example.org/debian/ HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: mirror.example.org\r\n\r\n",
        b"POST http://open.example.org/ HTTP/1.1\r\nHost: open.example.org\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /evil",
        b"POST http://open.example.org/ HTTP/1.1\r\nHost: open.example.org\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        b"POST http://open.example.org/ HTTP/1.1\r\nHost: open.example.org\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        b"POST http://open.example.org/ HTTP/1.1\r\nHost: open.example.org\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        b"POST http://open.example.org/ HTTP/1.1\r\nHost: open.example.org\r\nConnection: content-length\r\nContent-Length: 5\r\n\r\nGET /",
        b"GET http://mirror.example.org/debian/\r\nX: HTTP/1.1\r\nHost: mirror.example.org\r\n\r\n",
        b"GET http://evil.example@mirror.example.org/debian/ HTTP/1.1\r\nHost: mirror.example.org\r\n\r\n",
        b"GET http://mirror.example.org\\@evil.example/debian/ HTTP/1.1\r\nHost: mirror.example.org\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x05\x01\x00",
        b"\x16\x03\x01\x00\x05hello\r\n\r\n",
        b"GET http://mirror.example.org/debian/ HTTP/1.1\r\nHost: mirror.example.org\r\nX: " + b"y" * 40000 + b"\r\n\r\n",
        b"GET http://mirror.example.org/debian/ HTTP/1.1\r\nHost: mirror.example.org\r\n" + b"X: y\r\n" * 5000 + b"\r\n",
        b"G" * 40000,
    ],
)
def test_malformed(here: World, data: bytes) -> None:
    with Client(here) as client:
        client.send(data)
        client.socket.shutdown(socket.SHUT_WR)
        assert world.status(client.read()) in (0, 400, 431, 501)
    assert here.sinks.arrived == []


@pytest.mark.parametrize(
    "opening",
    [
        EVIL,
        made(),
        made(sni(b"api.example.org"), ECH),
        made(sni(b"api.example.org", b"evil.example")),
        made(sni(b"api.example.org"), sni(b"evil.example")),
        records(EVIL[5:], 3),
        record(b"\x01\x00\x80\x00"),
        b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        b"SSH-2.0-x\r\n",
    ],
)
@pytest.mark.parametrize("early", [True, False])
def test_what_is_not_the_agreed_tls(here: World, opening: bytes, early: bool) -> None:
    with Client(here) as client:
        asked = b"CONNECT api.example.org:443 HTTP/1.1\r\nHost: api.example.org\r\n\r\n"
        client.send(asked + (opening if early else b""))
        client.head()
        if not early:
            client.send(opening)
        client.read()
    here.wait(lambda: here.recorder.of("network.close"), "its end is on record")
    (closed,) = here.recorder.of("network.close")
    assert (closed["decision"], closed["detail"]["bytes_sent"]) == ("deny", 0)
    assert here.sinks.of("tls") == []


@pytest.mark.parametrize("name", ["evil.example", "hop.example.org", None])
def test_another_name_in_tls(here: World, name: str | None) -> None:
    answer, told = tunnel(here, "api.example.org:443", name)
    assert answer == 200
    assert "access denied" in told.lower()
    assert here.sinks.of("tls") == []


def test_a_redirect_is_another_request(here: World) -> None:
    answer, text = fetch(here, "http://mirror.example.org/redirect")
    assert answer == 302
    location = text.partition(b"Location: ")[2].partition(b"\r\n")[0].decode()
    assert fetch(here, location)[0] == 403
    assert {arrival.address for arrival in here.sinks.of("tcp")} == {world.GOOD}
    assert all("evil" not in arrival.what for arrival in here.sinks.of("dns"))


def test_an_empty_list_is_nothing(here: World) -> None:
    assert tunnel(here, "api.example.org:443", sandbox="empty")[0] == 403
    assert fetch(here, "http://mirror.example.org/debian/", sandbox="empty")[0] == 403
    assert here.sinks.arrived == []


def test_of_another_sandbox(here: World) -> None:
    assert tunnel(here, "inside.example.org:443", sandbox="other")[0] == 403
    assert here.sinks.arrived == []


# -- addresses


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["10.0.0.1"],
        ["192.168.1.1"],
        ["169.254.169.254"],
        ["100.100.100.200"],
        ["168.63.129.16"],
        ["0.0.0.0"],
        ["224.0.0.1"],
        ["255.255.255.255"],
        ["198.18.255.1"],
        ["::1"],
        ["::ffff:127.0.0.1"],
        ["::ffff:93.184.216.34"],
        ["64:ff9b::7f00:1"],
        ["2002:7f00:1::1"],
        ["fe80::1"],
        ["fd00:ec2::254"],
        [world.GOOD, "127.0.0.1"],
    ],
)
def test_names_that_lead_inside(here: World, addresses: list[str]) -> None:
    here.sinks.names["hop.example.org"] = addresses
    _expired(here)
    assert tunnel(here, "hop.example.org:443")[0] == 403
    assert here.sinks.of("tcp") == []


def _expired(here: World) -> None:
    """Have answers of DNS forgotten: by a name that changed since, egress is asked until it answers anew."""
    assert here.process is not None
    here.kill()
    here.start()
    here.forget()


def test_rebinding(here: World) -> None:
    """What is asked again after a while may be answered by something else."""
    here.sinks.names["hop.example.org"] = [[world.GOOD], ["127.0.0.1"]]
    _expired(here)
    assert tunnel(here, "hop.example.org:443") == (200, "ok")
    # However short the answer wants to live, it is kept for some seconds: checked and connected to are the same.
    assert tunnel(here, "hop.example.org:443") == (200, "ok")
    time.sleep(5.1)
    assert tunnel(here, "hop.example.org:443")[0] == 403
    assert {arrival.address for arrival in here.sinks.of("tcp")} == {world.GOOD}


@pytest.mark.parametrize(
    ("answers", "status"),
    [
        ("stall", 504),
        ("servfail", 502),
        ("garbage", 504),
        ("spoof", 504),
        ([], 502),
        (None, 502),
    ],
)
def test_resolvers_that_do_not_answer(here: World, answers: t.Any, status: int) -> None:
    here.sinks.names["hop.example.org"] = answers
    _expired(here)
    # One name that is waited for keeps no other waiting.
    waiting = threading.Thread(target=lambda: told.append(tunnel(here, "hop.example.org:443")[0]))
    told: list[int] = []
    waiting.start()
    time.sleep(0.2)
    start = time.monotonic()
    assert tunnel(here, "api.example.org:443") == (200, "ok")
    assert time.monotonic() - start < 2
    waiting.join(20)
    assert told[0] in ((502, 504) if answers == "garbage" else (status,))
    here.sinks.names["hop.example.org"] = [world.GOOD]
    assert tunnel(here, "hop.example.org:443") == (200, "ok")


def test_asked_once_however_many_wait(here: World) -> None:
    _expired(here)
    threads = [threading.Thread(target=tunnel, args=(here, "api.example.org:443")) for _one in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert [arrival.what for arrival in here.sinks.of("dns")] == ["api.example.org 1"]
    assert counts(here.sinks.arrived)["tls"] == 20


def test_strict_pins(here: World) -> None:
    assert tunnel(here, "pinned.example.org:443") == (200, "ok")
    here.sinks.names["pinned.example.org"] = [world.EVIL]
    _expired(here)
    assert tunnel(here, "pinned.example.org:443")[0] == 403
    assert here.sinks.of("tcp") == []
    here.wait(lambda: here.recorder.of("network.pin"), "the address is on record")
    (noted,) = here.recorder.of("network.pin")
    assert (noted["decision"], noted["detail"]["addresses"]) == ("deny", world.EVIL)
    assert here.command("status")["unpinned"]["pinned.example.org"] == [world.EVIL]
    here.reload(pins={"pinned.example.org": [world.EVIL]})
    try:
        assert tunnel(here, "pinned.example.org:443") == (200, "ok")
    finally:
        here.reload(pins=CONFIG["pins"])


def test_pins_that_are_taken_away_cut(here: World) -> None:
    _expired(here)
    with Client(here) as client:
        assert client.connect("pinned.example.org:443") == 200
        tls = client.tls("pinned.example.org")
        here.reload(pins={})
        try:
            assert tls.recv(1) == b""
        except OSError:
            pass
        finally:
            here.reload(pins=CONFIG["pins"])


@pytest.mark.parametrize(("name", "said"), [("evil.example", "no rule allows evil.example"), ("1.1.1.1", "is not a name"), (None, "is not a name")])
def test_resolve_refused(here: World, name: t.Any, said: str) -> None:
    with pytest.raises(RecorderError, match=said):
        here.command("resolve", name=name)
    assert here.sinks.arrived == []


def test_resolve(here: World) -> None:
    assert here.command("resolve", name="pinned.example.org")["addresses"] == [world.GOOD]


# -- the record


@pytest.mark.parametrize("failure", ["gone", "refuses", "mute"])
def test_no_recorder_no_egress(here: World, failure: str) -> None:
    _expired(here)
    if failure == "gone":
        here.recorder.stop()
    here.recorder.refuse = "no room" if failure == "refuses" else ""
    here.recorder.mute = failure == "mute"
    try:
        assert tunnel(here, "api.example.org:443")[0] == 503
        assert fetch(here, "http://mirror.example.org/debian/")[0] == 503
        assert here.sinks.arrived == []
    finally:
        if failure == "gone":
            here.recorder.start()
        here.recorder.refuse, here.recorder.mute = "", False
    if failure == "mute":
        _expired(here)
    assert tunnel(here, "api.example.org:443") == (200, "ok")


def test_ends_are_recorded_when_the_recorder_is_back(here: World) -> None:
    with Client(here) as client:
        assert client.connect("api.example.org:443") == 200
        client.tls("api.example.org")
        here.recorder.stop()
    time.sleep(0.3)
    here.recorder.start()
    here.wait(lambda: here.recorder.of("network.close"), "its end is on record")


def test_nothing_leaves_before_it_is_on_record(here: World) -> None:
    assert tunnel(here, "api.example.org:443") == (200, "ok")
    here.forget()
    here.recorder.delay = 0.5
    with Client(here) as client:
        client.send(b"CONNECT api.example.org:443 HTTP/1.1\r\nHost: api.example.org\r\n\r\n")
        time.sleep(0.3)
        assert here.sinks.arrived == []
        assert world.status(client.head()) == 200
        assert counts(here.sinks.arrived) == {"tcp": 1}
    here.recorder.delay = 0


def test_denials_are_coalesced(here: World) -> None:
    for _time in range(300):
        assert fetch(here, "http://evil.example/")[0] == 403
    here.wait(lambda: any("repeated" in event["detail"] for event in here.recorder.of("network.connect")), "the count is on record", 15)
    events = here.recorder.of("network.connect")
    assert len(events) < 10
    assert len([event for event in events if "repeated" not in event["detail"]]) + sum(
        event["detail"].get("repeated", 0) for event in events
    ) >= 300


# -- limits


def test_bytes(here: World) -> None:
    with Client(here) as client:
        assert client.connect("small.example.org:443") == 200
        tls = client.tls("small.example.org")
        got = 0
        with contextlib.suppress(OSError, ssl.SSLError):
            tls.sendall(b"SEND 100000000\n")
            while part := tls.recv(65536):
                got += len(part)
    assert got < 2 << 20
    assert tunnel(here, "small.example.org:443")[0] == 429
    here.wait(lambda: here.recorder.of("network.close"), "its end is on record")
    assert "bytes of today are used up" in here.recorder.of("network.close")[0]["reason"]
    assert tunnel(here, "api.example.org:443") == (200, "ok")


def test_connections_of_a_rule(here: World) -> None:
    with Client(here) as one, Client(here) as two, Client(here) as three:
        assert [client.connect("few.example.org:443") for client in (one, two, three)] == [200, 200, 429]
    here.wait(here.quiet, "all end")
    assert tunnel(here, "few.example.org:443") == (200, "ok")


def test_connections_of_a_sandbox(here: World) -> None:
    with contextlib.ExitStack() as open_:
        clients = [open_.enter_context(Client(here, "other")) for _one in range(40)]
        answers = []
        for client in clients:
            client.send(b"CONNECT api.example.org:443 HTTP/1.1\r\nHost: api.example.org\r\n\r\n")
            answers.append(world.status(client.head()))
        assert answers.count(200) == 8
        assert answers.count(429) == 32
        # Others have room.
        assert tunnel(here, "api.example.org:443") == (200, "ok")


def test_a_rate(here: World) -> None:
    start = time.monotonic()
    for _time in range(13):
        assert tunnel(here, "api.example.org:443", sandbox="slow") == (200, "ok")
    assert time.monotonic() - start > 2
    assert counts(here.sinks.arrived)["tcp"] == 13


def test_idle(here: World) -> None:
    with Client(here) as client:
        assert client.connect("idle.example.org:443") == 200
        tls = client.tls("idle.example.org")
        start = time.monotonic()
        for _time in range(4):
            time.sleep(0.5)
            tls.sendall(b"x")
            assert tls.recv(1) == b"x"
        with contextlib.suppress(OSError):
            tls.recv(1)
        assert 2.5 < time.monotonic() - start < 6


@pytest.mark.parametrize("begin", [b"", b"CONNECT api.exa", b"CONNECT api.example.org:443 HTTP/1.1\r\nHost: api.example.org\r\n\r\n\x16\x03"])
def test_a_slow_drip(here: World, begin: bytes) -> None:
    """Whoever says what he wants one byte at a time has ten seconds for it."""
    start = time.monotonic()
    with Client(here, timeout=15) as client:
        client.send(begin)
        client.read()
    assert 9 < time.monotonic() - start < 13
    assert here.sinks.of("tls") == []


def test_ten_thousand_connections(here: World) -> None:
    """One sandbox floods; another is served meanwhile, and afterwards so is the first."""
    before = memory(here)
    stop = threading.Event()

    def flood() -> None:
        made = []
        while not stop.is_set():
            client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            client.setblocking(False)
            if client.connect_ex(str(here.door("other"))) == 0:
                made.append(client)
            else:
                client.close()
            if len(made) >= 2000:
                for one in made:
                    one.close()
                made.clear()
        for one in made:
            one.close()

    thread = threading.Thread(target=flood)
    thread.start()
    try:
        worst = 0.0
        for _time in range(20):
            start = time.monotonic()
            assert tunnel(here, "api.example.org:443") == (200, "ok")
            worst = max(worst, time.monotonic() - start)
    finally:
        stop.set()
        thread.join()
    assert worst < 2
    here.wait(here.quiet, "all end", 20)
    assert tunnel(here, "api.example.org:443", sandbox="other") == (200, "ok")
    assert memory(here) - before < 40 << 20


# -- tokens


def _minted(here: World, **more: t.Any) -> tuple[str, str]:
    """Return a token's id, and the field that presents it."""
    arguments = {"sandbox": "box", "rule": {"host": "extra.example.org"}, "seconds": 60, "reason": "a test"}
    said = here.command("mint", **{**arguments, **more})
    return said["id"], f"Proxy-Authorization: Bearer {said['secret']}\r\n"


def test_tokens(here: World) -> None:
    here.sinks.names["extra.example.org"] = [world.GOOD]
    assert tunnel(here, "extra.example.org:443")[0] == 403
    this, field = _minted(here)
    assert tunnel(here, "extra.example.org:443", more=field) == (200, "ok")
    assert tunnel(here, "extra.example.org:443", sandbox="other", more=field)[0] == 403
    assert tunnel(here, "evil.example:443", more=field)[0] == 403
    assert tunnel(here, "extra.example.org:8443", more=field)[0] == 403
    assert tunnel(here, "extra.example.org:443", more="Proxy-Authorization: Bearer egt_guess\r\n")[0] == 403
    assert tunnel(here, "extra.example.org:443", "evil.example", more=field)[0] == 200
    assert counts(here.sinks.arrived)["tls"] == 1
    assert this in [token["id"] for token in here.command("tokens")["tokens"]]
    (minted,) = here.recorder.of("network.mint")
    assert (minted["reason"], minted["detail"]["id"]) == ("a test", this)
    assert field.split()[-1] not in str(here.recorder.events)
    assert any(event["detail"].get("token") == this for event in here.recorder.of("network.connect"))


def test_a_token_revoked_cuts(here: World) -> None:
    here.sinks.names["extra.example.org"] = [world.GOOD]
    this, field = _minted(here)
    with Client(here) as client:
        assert client.connect("extra.example.org:443", field) == 200
        tls = client.tls("extra.example.org")
        start = time.monotonic()
        here.command("revoke", id=this)
        with contextlib.suppress(OSError):
            assert tls.recv(1) == b""
        assert time.monotonic() - start < 1
    assert tunnel(here, "extra.example.org:443", more=field)[0] == 403


def test_a_token_expires_within_a_tunnel(here: World) -> None:
    here.sinks.names["extra.example.org"] = [world.GOOD]
    _this, field = _minted(here, seconds=1)
    with Client(here) as client:
        assert client.connect("extra.example.org:443", field) == 200
        tls = client.tls("extra.example.org")
        start = time.monotonic()
        with contextlib.suppress(OSError):
            assert tls.recv(1) == b""
        assert time.monotonic() - start < 2.5
    assert tunnel(here, "extra.example.org:443", more=field)[0] == 403


def test_uses_of_a_token(here: World) -> None:
    here.sinks.names["extra.example.org"] = [world.GOOD]
    _this, field = _minted(here, uses=5)
    told: list[int] = []
    threads = [threading.Thread(target=lambda: told.append(tunnel(here, "extra.example.org:443", more=field)[0])) for _one in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert told.count(200) == 5
    assert told.count(403) == 25
    assert counts(here.sinks.arrived)["tcp"] == 5


def test_bytes_of_a_token(here: World) -> None:
    here.sinks.names["extra.example.org"] = [world.GOOD]
    _this, field = _minted(here, bytes=100_000)
    with Client(here) as client:
        assert client.connect("extra.example.org:443", field) == 200
        tls = client.tls("extra.example.org")
        got = 0
        with contextlib.suppress(OSError, ssl.SSLError):
            tls.sendall(b"SEND 10000000\n")
            while part := tls.recv(65536):
                got += len(part)
    assert got < 1 << 20
    assert tunnel(here, "extra.example.org:443", more=field)[0] == 403


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sandbox": "nobody"}, "sandbox: 'nobody' is not one of"),
        ({"rule": "extra.example.org"}, "mint: takes sandbox, rule"),
        ({"rule": {"host": "extra.example.org", "ports": [8443]}}, "ports: 8443 is not in network_token_ports"),
        ({"rule": {"host": "10.1.2.3", "allow_private": True}}, "allow_private: is for rules alone"),
        ({"seconds": "60"}, "mint: takes sandbox, rule"),
        ({"seconds": 10**6}, "seconds: 1000000 is not from 1 to 86400"),
        ({"reason": ""}, "reason: is empty"),
        ({"rule": {"host": "169.254.169.254", "allow_private": True}}, "is a metadata address"),
        ({"rule": {"host": "*.example.org"}}, "is a wildcard"),
    ],
)
def test_mint_refused(here: World, change: dict[str, t.Any], said: str) -> None:
    with pytest.raises(RecorderError, match=said):
        _minted(here, **change)


def test_no_recorder_no_token(here: World) -> None:
    here.recorder.refuse = "no room"
    with pytest.raises(RecorderError, match="nothing was done: no room"):
        _minted(here, reason="nobody knows of it")
    here.recorder.refuse = ""
    assert "nobody knows of it" not in str(here.command("tokens"))


# -- other rules while it runs


def test_tunnels_that_stay_allowed_go_on(here: World) -> None:
    with Client(here) as stays, Client(here) as goes:
        assert stays.connect("api.example.org:443") == 200
        assert goes.connect("hop.example.org:443") == 200
        kept, cut = stays.tls("api.example.org"), goes.tls("hop.example.org")
        start = time.monotonic()
        here.reload(groups={**GROUPS, "api": [{"host": "api.example.org"}]})
        try:
            with contextlib.suppress(OSError):
                assert cut.recv(1) == b""
            assert time.monotonic() - start < 1
            kept.sendall(b"still")
            assert kept.recv(5) == b"still"
            assert tunnel(here, "hop.example.org:443")[0] == 403
            here.wait(lambda: here.recorder.of("network.close"), "its end is on record")
            assert "the rules changed" in here.recorder.of("network.close")[0]["reason"]
        finally:
            here.reload(groups=GROUPS)
        kept.sendall(b"still")
        assert kept.recv(5) == b"still"
    assert tunnel(here, "hop.example.org:443") == (200, "ok")


def test_rules_that_change_between_check_and_connect(here: World) -> None:
    """What was allowed when it was asked for is not connected to when it no longer is."""
    assert tunnel(here, "hop.example.org:443") == (200, "ok")
    here.forget()
    here.recorder.delay = 1
    with Client(here) as client:
        client.send(b"CONNECT hop.example.org:443 HTTP/1.1\r\nHost: hop.example.org\r\n\r\n")
        here.wait(lambda: here.command("status")["sandboxes"]["box"]["connections"], "it is being opened")
        time.sleep(0.2)
        here.reload(groups={**GROUPS, "api": [{"host": "api.example.org"}]})
        assert world.status(client.read()) == 0
    here.recorder.delay = 0
    here.reload(groups=GROUPS)
    assert here.sinks.of("tcp") == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"groups": {"api": [{"host": "*"}]}}, "\\* stands only before a dot"),
        ({"pins": []}, "pins: is not a mapping"),
        ({"resolvers": ["dns.example.org"]}, "resolvers: 'dns.example.org' is not an address"),
        ({"unknown": 1}, "and nothing else"),
    ],
)
def test_a_bad_configuration_is_refused(here: World, change: dict[str, t.Any], said: str) -> None:
    before = here.command("status")["config_sha256"]
    kept = dict(here.config)
    told = here.reload(**change)
    try:
        assert told["config_sha256"] == before
        assert told["problem"]
        (refused,) = here.recorder.of("network.configure")
        assert refused["outcome"] == "failure"
        assert tunnel(here, "api.example.org:443") == (200, "ok")
    finally:
        here.config.clear()
        here.config.update(kept)
        assert here.reload()["problem"] == ""
    with pytest.raises(AssertionError, match=said):
        raise AssertionError(refused["reason"])


def test_doors_come_and_go(here: World) -> None:
    here.reload(sandboxes={**SANDBOXES, "late": {"groups": ["api"]}})
    assert tunnel(here, "api.example.org:443", sandbox="late") == (200, "ok")
    with Client(here, "late") as client:
        assert client.connect("api.example.org:443") == 200
        tls = client.tls("api.example.org")
        here.reload(sandboxes=SANDBOXES)
        with contextlib.suppress(OSError):
            assert tls.recv(1) == b""
    with pytest.raises(OSError, match="No such file"):
        Client(here, "late")


# -- its own end


def test_killed_it_fails_closed(here: World) -> None:
    with Client(here) as client:
        assert client.connect("api.example.org:443") == 200
        tls = client.tls("api.example.org")
        here.kill()
        with contextlib.suppress(OSError):
            assert tls.recv(1) == b""
    with pytest.raises(OSError, match="refused"):
        Client(here)
    here.start()
    assert tunnel(here, "api.example.org:443") == (200, "ok")


def test_stopped_it_tells_the_ends(here: World) -> None:
    with Client(here) as client:
        assert client.connect("api.example.org:443") == 200
        client.tls("api.example.org")
        here.kill(15)
    assert [event["reason"] for event in here.recorder.of("network.close")] == ["egress is being stopped"]
    assert len(here.recorder.of("network.stop")) == 1
    here.start()


def test_nobody_gets_in_before_the_start_is_on_record(here: World) -> None:
    here.kill()
    here.recorder.mute = True
    for door in (here.folder / "sandboxes").glob("*/egress.sock"):
        door.unlink()
    starter = threading.Thread(target=here.start)
    starter.start()
    time.sleep(1.5)
    assert not list((here.folder / "sandboxes").glob("*/egress.sock"))
    here.recorder.mute = False
    here.recorder.stop()
    here.recorder.start()
    starter.join(20)
    assert tunnel(here, "api.example.org:443") == (200, "ok")


def test_other_resolvers_are_asked_at_once(here: World) -> None:
    assert tunnel(here, "api.example.org:443") == (200, "ok")
    here.sinks.arrived.clear()
    assert here.reload(resolvers=["9.9.9.10"])["problem"] == ""
    try:
        # Nobody answers there.
        assert tunnel(here, "api.example.org:443")[0] == 504
        assert here.sinks.of("udp")
        assert here.sinks.of("dns") == []
    finally:
        here.reload(resolvers=[world.RESOLVER])
    assert tunnel(here, "api.example.org:443") == (200, "ok")
