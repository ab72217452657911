# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a TLS client says in the clear: hellos of a real client, and what one makes of them who wants to get by."""

from __future__ import annotations

import pathlib
import ssl
import typing as t

import pytest
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import hosts
from services import world

from dockersandbox.egress import hello

NAME = "api.example.org"
HOST = hosts.parse(NAME)
GREASE = bytes.fromhex("0a0a0000")
ECH = bytes.fromhex("fe0d00050000000000")


def real(name: str | None = NAME, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> bytes:
    """Return the first flight of Python's own client."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = version
    out = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), out, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return out.read()


def extension(kind: int, content: bytes) -> bytes:
    return kind.to_bytes(2, "big") + len(content).to_bytes(2, "big") + content


def sni(*names: bytes, kind: int = 0) -> bytes:
    entries = b"".join(bytes([kind]) + len(name).to_bytes(2, "big") + name for name in names)
    return extension(0, len(entries).to_bytes(2, "big") + entries)


def body(*extensions: bytes) -> bytes:
    joined = b"".join(extensions)
    fields = b"\x03\x03" + bytes(32) + b"\x00" + b"\x00\x02\x13\x01" + b"\x01\x00"
    return fields + len(joined).to_bytes(2, "big") + joined


def message(content: bytes, kind: int = 1) -> bytes:
    return bytes([kind]) + len(content).to_bytes(3, "big") + content


def record(content: bytes, kind: int = 22) -> bytes:
    return bytes([kind]) + b"\x03\x01" + len(content).to_bytes(2, "big") + content


def made(*extensions: bytes) -> bytes:
    return record(message(body(*extensions)))


def records(content: bytes, size: int) -> bytes:
    return b"".join(record(content[at : at + size]) for at in range(0, len(content), size))


RETRY = record(message(b"\x03\x03" + bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c") + bytes(6), kind=2))
SERVER = record(message(b"\x03\x03" + bytes(38), kind=2))
GOOD = made(sni(NAME.encode()))
EVIL = made(sni(b"evil.example"))


@pytest.mark.parametrize(
    "data",
    [
        real(),
        real(version=ssl.TLSVersion.TLSv1_2),
        GOOD,
        made(GREASE, sni(NAME.encode()), extension(0xEAEA, b"\x00")),
        made(sni(b"API.Example.org")),
        made(sni(b"api.example.org.")),
        made(extension(0xFF01, b"\x00"), sni(NAME.encode()), extension(51, bytes(1216))),
        records(message(body(sni(NAME.encode()))), 7),
        records(message(body(sni(NAME.encode()))), 1),
        records(message(body(sni(NAME.encode()), extension(21, bytes(20000)))), 16384),
    ],
)
def test_agreed(data: bytes) -> None:
    opening = hello.Opening(HOST)
    assert opening.client(data) == data
    assert opening.begun
    pieces = hello.Opening(HOST)
    assert b"".join(pieces.client(data[at : at + 1]) for at in range(len(data))) == data
    assert pieces.begun


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (EVIL, "names evil.example, the tunnel is for api.example.org"),
        (real("evil.example"), "names evil.example"),
        (made(sni(b"api.example.org.evil.example")), "names api.example.org.evil.example"),
        (made(sni(b"xapi.example.org")), "names xapi.example.org"),
        (made(sni(b"192.0.2.1")), "names 192.0.2.1"),
        (real(None), "names no server"),
        (made(), "names no server"),
        (record(message(body()[:-2])), "names no server"),
        (made(sni(NAME.encode(), b"evil.example")), "more than one server"),
        (made(sni(NAME.encode()), sni(b"evil.example")), "the same extension twice"),
        (made(sni(NAME.encode()), extension(43, b"a"), extension(43, b"b")), "the same extension twice"),
        (made(sni(NAME.encode(), kind=1)), "something else than a host name"),
        (made(extension(0, b"\x00\x00")), "malformed"),
        (made(extension(0, b"")), "malformed"),
        (made(extension(0, sni(NAME.encode())[4:] + b"x")), "more than one server"),
        (made(sni(b"")), "the server name '' is empty"),
        (made(sni(b"api.example.org\x00.evil.example")), "has a blank or a control character"),
        (made(sni("bücher.example".encode())), "in other letters"),
        (made(sni(b"a" * 300)), "is no host name"),
        (made(sni(NAME.encode()), ECH), "an encrypted ClientHello is not allowed"),
        (made(ECH), "an encrypted ClientHello is not allowed"),
        (made(extension(0xFFCE, bytes(8))), "an encrypted server name is not allowed"),
        (record(message(body(sni(NAME.encode())) + b"x")), "malformed"),
        (record(message(body(sni(NAME.encode()))[:-1])), "malformed"),
        (record(message(b"\x03\x03")), "malformed"),
        (record(message(body(sni(NAME.encode()))) + b"x"), "holds more than that"),
        (record(message(body(sni(NAME.encode()))) + message(body(sni(b"evil.example")))), "holds more than that"),
        (record(message(bytes(40), kind=2)), "does not begin with a ClientHello"),
        (record(b"\x00"), "does not begin with a ClientHello"),
        (record(message(body(sni(NAME.encode())))[:20]) + record(b"\x01", 20), "interrupted by something else"),
        (record(b""), "is empty or too long"),
        (record(b"\x01" + bytes(16384)), "is empty or too long"),
        (record(b"\x01\x00\x80\x00"), "is longer than 32768 bytes"),
        (record(b"\x01\xff\xff\xff"), "is longer than 32768 bytes"),
        (record(b"\x01", 23), "is not TLS"),
        (b"GET / HTTP/1.1\r\n", "is not TLS"),
        (b"SSH-2.0-OpenSSH", "is not TLS"),
        (b"\x80\x2e\x01\x03\x01", "is not TLS"),
        (b"\x16\x02\x00\x00\x05", "is not TLS"),
        (b"\x15", "is not TLS"),
    ],
)
def test_refused(data: bytes, said: str) -> None:
    with pytest.raises(hello.Refused) as caught:
        hello.Opening(HOST).client(data)
    assert said in str(caught.value)
    pieces = hello.Opening(HOST)
    with pytest.raises(hello.Refused):
        for at in range(len(data)):
            assert pieces.client(data[at : at + 1]) == b""


def test_tiny_records_do_not_fill_memory() -> None:
    opening = hello.Opening(HOST)
    with pytest.raises(hello.Refused, match="is longer than 32768 bytes"):
        for _time in range(1 << 16):
            opening.client(record(b"\x01" if not opening.held else b"\x00" if opening.held < 10 else b"\x7d"))
            assert opening.held <= 1 << 16


def test_an_address_has_no_name() -> None:
    address = hosts.parse("10.0.0.1")
    assert hello.Opening(address).client(real(None))
    with pytest.raises(hello.Refused, match="names 'api.example.org', the tunnel is for 10.0.0.1"):
        hello.Opening(address).client(GOOD)


@pytest.mark.parametrize("answer", [SERVER, record(b"\x02\x28", 21), b"HTTP/1.1 400", SERVER[:1]])
def test_after_the_answer_all_passes(answer: bytes) -> None:
    opening = hello.Opening(HOST)
    assert opening.client(GOOD + b"early") == GOOD
    assert opening.client(b"data") == b""
    held = opening.server(answer)
    if answer == SERVER[:1]:
        assert (held, opening.done) == (b"", False)
        held = opening.server(SERVER[1:])
    assert held == b"earlydata"
    assert opening.done
    assert opening.client(EVIL) == EVIL
    assert opening.server(b"x") == b""


@pytest.mark.parametrize("before", [b"", record(b"\x01", 20), record(bytes(16384 + 256), 23)])
@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize("size", [1, 1 << 20])
def test_a_second_hello_must_agree(before: bytes, early: bool, size: int) -> None:
    for second, agrees in ((GOOD, True), (EVIL, False), (made(sni(NAME.encode()), ECH), False)):
        opening = hello.Opening(HOST)
        assert opening.client(GOOD) == GOOD
        flight = before + second

        def conversation(opening: hello.Opening = opening, flight: bytes = flight) -> t.Iterator[bytes]:
            # The client need not wait for the server to say that it wants a second one.
            if early:
                yield opening.client(flight)
            for at in range(0, len(RETRY), size):
                yield opening.server(RETRY[at : at + size])
            if not early:
                for at in range(0, len(flight), size):
                    yield opening.client(flight[at : at + size])

        if agrees:
            assert b"".join(conversation()) == flight
            assert opening.done
        else:
            with pytest.raises(hello.Refused):
                b"".join(conversation())


def test_real_retry(tmp_path: pathlib.Path) -> None:
    """OpenSSL on both sides, of which the server wants another group than the client offered a key for."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(*world.certificate(tmp_path))
    server.set_ecdh_curve("secp384r1")
    to_server, from_server, to_client, from_client = (ssl.MemoryBIO() for _end in range(4))
    server_side = server.wrap_bio(to_server, from_server, server_side=True)
    client_side = ssl.create_default_context().wrap_bio(to_client, from_client, server_hostname=NAME)
    opening = hello.Opening(HOST)
    with pytest.raises(ssl.SSLWantReadError):
        client_side.do_handshake()
    to_server.write(opening.client(from_client.read()))
    with pytest.raises(ssl.SSLWantReadError):
        server_side.do_handshake()
    answer = from_server.read()
    assert opening.server(answer) == b""
    assert not opening.done
    to_client.write(answer)
    with pytest.raises(ssl.SSLWantReadError):
        client_side.do_handshake()
    second = from_client.read()
    assert opening.client(second) == second
    assert opening.done
    to_server.write(second)
    with pytest.raises(ssl.SSLWantReadError):
        server_side.do_handshake()
    assert len(from_server.read()) > 500  # the server goes on with its certificate
