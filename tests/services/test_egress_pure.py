# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What egress decides without I/O: rations, tokens, pins, requests. Tables."""

from __future__ import annotations

import base64
import ipaddress
import typing as t

import pytest
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import allowlist, hosts
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.allowlist import Limits, Request

from dockersandbox.common.config import ConfigError
from dockersandbox.egress import pins, service, wire
from dockersandbox.egress.rations import Names, Ration
from dockersandbox.egress.tokens import Tokens

DAY = 86400.0

# -- rations


@pytest.mark.parametrize(
    ("limits", "opened", "used", "due"),
    [
        (Limits(), 10_000, 1 << 40, ""),
        (Limits(connections=2), 1, 0, ""),
        (Limits(connections=2), 2, 0, "2 connections are open, and no more are allowed at one time"),
        (Limits(bytes=100), 1, 99, ""),
        (Limits(bytes=100), 1, 100, "the 100 bytes of today are used up"),
        (Limits(rate=60), 9, 0, ""),
        (Limits(rate=60), 10, 0, "60 new connections a minute are allowed, and no more"),
    ],
)
def test_rations(limits: Limits, opened: int, used: int, due: str) -> None:
    ration = Ration(limits, 10 * DAY)
    for _time in range(opened):
        ration.take(10 * DAY)
    ration.used = used
    assert ration.refused(10 * DAY) == due


def test_a_rate_refills() -> None:
    ration = Ration(Limits(rate=60), 0)
    for _time in range(10):
        ration.take(0)
    assert ration.wait(0) == pytest.approx(1)
    assert ration.wait(1) == 0
    # Years without a connection are no leave for a flood.
    for _time in range(10):
        assert ration.wait(1000 * DAY) == 0
        ration.take(1000 * DAY)
    assert ration.wait(1000 * DAY) > 0


def test_bytes_are_of_a_day() -> None:
    ration = Ration(Limits(bytes=100), 10 * DAY)
    ration.used = 100
    assert ration.over(11 * DAY - 1)
    assert not ration.over(11 * DAY)
    assert ration.today(11 * DAY) == 0


def test_names_are_limited() -> None:
    names = Names()
    assert [names.take(name, 2, 0) for name in ("a", "b", "a", "c", "b")] == [True, True, True, False, True]
    assert not names.take("c", 2, DAY - 1)
    assert names.take("c", 2, 2 * DAY)


# -- tokens

REQUEST = Request(hosts.parse("api.example.org"), 443, "https")
RULE = {"host": "api.example.org"}


def _minted(tokens: Tokens, **more: t.Any) -> str:
    arguments = {"sandbox": "box", "rule": RULE, "seconds": 60, "uses": None, "bytes_": None, "reason": "a test", "now": 1000.0}
    secret, _token = tokens.mint(**{**arguments, **more})
    return secret


@pytest.mark.parametrize(
    ("change", "now", "sandbox", "request_", "due"),
    [
        ({}, 1000, "box", REQUEST, "allowed"),
        ({}, 1059.9, "box", REQUEST, "allowed"),
        ({}, 1060, "box", REQUEST, "the token has expired"),
        ({}, 1000, "other", REQUEST, "the token is another sandbox's"),
        ({}, 1000, "box", Request(hosts.parse("evil.example"), 443, "https"), "the token is for another host"),
        ({}, 1000, "box", Request(REQUEST.host, 22, "https"), "port 22 is not allowed: 443 is"),
        ({}, 1000, "box", Request(REQUEST.host, 443, "http", "GET", "/"), "api.example.org is allowed by https, not by http"),
        (
            {"rule": {**RULE, "scheme": "http", "methods": ["GET"]}},
            1000,
            "box",
            Request(REQUEST.host, 80, "http", "POST", "/"),
            "method POST is not allowed: GET is",
        ),
    ],
)
def test_tokens(change: dict[str, t.Any], now: float, sandbox: str, request_: Request, due: str) -> None:
    tokens = Tokens()
    decision, token = tokens.decide(_minted(tokens, **change), sandbox, request_, now)
    assert decision.reason == due
    assert (token is not None) == (decision.rule is not None) == (due == "allowed")


@pytest.mark.parametrize(
    ("change", "due"),
    [
        ({"uses": 0}, "the uses of the token are used up"),
        ({"bytes": 0}, "the bytes of the token are used up"),
        ({"revoked": True}, "the token was revoked"),
    ],
)
def test_used_up(change: dict[str, t.Any], due: str) -> None:
    tokens = Tokens()
    secret, token = tokens.mint("box", RULE, 60, 1, 1, "a test", 1000)
    for key, value in change.items():
        setattr(token, key, value)
    assert tokens.decide(secret, "box", REQUEST, 1000) == (allowlist.Decision(None, token.rule.id, due), None)


@pytest.mark.parametrize("secret", ["", "egt_", "egt_guess", "\ud800"])
def test_unknown_tokens(secret: str) -> None:
    tokens = Tokens()
    _minted(tokens)
    assert tokens.decide(secret, "box", REQUEST, 1000)[1] is None


def test_tokens_are_kept_hashed() -> None:
    tokens = Tokens()
    secret = _minted(tokens)
    assert secret not in repr(vars(tokens))
    assert "secret" not in repr(tokens.living(1000)[0].status())


def test_revoked_at_once() -> None:
    tokens = Tokens()
    secret, token = tokens.mint("box", RULE, 60, None, None, "a test", 1000)
    assert tokens.revoke("another") is None
    assert tokens.revoke(token.id) is token
    assert tokens.decide(secret, "box", REQUEST, 1000)[1] is None
    assert tokens.living(1000) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seconds": 0}, "seconds: 0 is not from 1 to 86400"),
        ({"seconds": 86401}, "seconds: 86401 is not from 1 to 86400"),
        ({"uses": 0}, "uses: 0 is less than 1"),
        ({"bytes_": -1}, "bytes: -1 is less than 1"),
        ({"reason": " "}, "reason: is empty"),
        ({"rule": {"host": "*.example.org"}}, "host: is a wildcard: a token is for one host"),
        ({"rule": {"host": "127.0.0.1", "allow_private": True}}, "is a loopback address"),
        ({"rule": {}}, "a mapping with a host is due"),
    ],
)
def test_tokens_refused(change: dict[str, t.Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        _minted(Tokens(), **change)


def test_tokens_do_not_fill_memory() -> None:
    tokens = Tokens()
    for _time in range(1000):
        _minted(tokens)
    with pytest.raises(ValueError, match="1000 tokens live: revoke some"):
        _minted(tokens)
    _minted(tokens, now=2000.0)


# -- pins


@pytest.mark.parametrize(
    ("rule", "answers", "pinned", "addresses", "fresh", "denied"),
    [
        ({}, ["1.1.1.1", "1.0.0.1"], [], ["1.1.1.1", "1.0.0.1"], ["1.1.1.1", "1.0.0.1"], ""),
        ({}, ["1.1.1.1"], ["1.1.1.1"], ["1.1.1.1"], [], ""),
        ({}, ["1.1.1.1", "1.1.1.1"], [], ["1.1.1.1"], ["1.1.1.1"], ""),
        ({}, [], [], [], [], "has no address"),
        ({}, ["10.0.0.1"], [], [], [], "resolves to 10.0.0.1, a private address"),
        ({}, ["1.1.1.1", "127.0.0.1"], [], [], [], "resolves to 127.0.0.1, a loopback address"),
        ({}, ["::ffff:1.1.1.1"], [], [], [], "a mapped address"),
        ({}, ["169.254.169.254"], ["169.254.169.254"], [], [], "a metadata address"),
        ({"allow_private": True}, ["10.0.0.1"], [], ["10.0.0.1"], ["10.0.0.1"], ""),
        ({"allow_private": True}, ["127.0.0.1"], [], [], [], "a loopback address"),
        ({"allow_private": True}, ["169.254.169.254"], [], [], [], "a metadata address"),
        ({"allow_private": True}, ["fe80::1"], [], [], [], "a link-local address"),
        ({"allow_private": True}, ["64:ff9b::a00:1"], [], [], [], "a translated address"),
        ({"pins": "strict"}, ["1.1.1.1"], [], [], ["1.1.1.1"], "resolves to 1.1.1.1, which is not pinned"),
        ({"pins": "strict"}, ["1.1.1.1"], ["1.1.1.1"], ["1.1.1.1"], [], ""),
        ({"pins": "strict"}, ["8.8.8.8", "1.1.1.1"], ["1.1.1.1"], ["1.1.1.1"], ["8.8.8.8"], ""),
        ({"pins": "strict"}, ["10.0.0.1"], ["10.0.0.1"], [], [], "a private address"),
    ],
)
def test_pins(rule: dict[str, t.Any], answers: list[str], pinned: list[str], addresses: list[str], fresh: list[str], denied: str) -> None:
    (made,) = allowlist.rules("some", "some", [{**RULE, **rule}], (), [])
    choice = pins.choose(made, "api.example.org", map(ipaddress.ip_address, answers), [ipaddress.ip_address(one) for one in pinned])
    assert ([*map(str, choice.addresses)], [*map(str, choice.fresh)]) == (addresses, fresh)
    assert denied in choice.denied
    assert bool(choice.denied) == bool(denied)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([], "pins: is not a mapping"),
        ({"a.example": "1.1.1.1"}, "pins: a.example: is not a list"),
        ({"a.example": ["1.1.1"]}, "pins: a.example: '1.1.1' does not appear"),
        ({"A.example": []}, "pins: A.example: is not in its plain form"),
        ({"a b": []}, "pins: a b: has a blank"),
    ],
)
def test_bad_pins(content: t.Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        pins.parse(content)


# -- requests

GET = b"GET http://a.example/x HTTP/1.1\r\nHost: a.example\r\n\r\n"


def _read(data: bytes) -> tuple[wire.Exchange, Request | None]:
    exchange = wire.Exchange()
    return exchange, exchange.head(data)


@pytest.mark.parametrize(
    ("data", "due"),
    [
        (b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n", Request(hosts.parse("a.example"), 443, "https")),
        (b"CONNECT A.Example.:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n", Request(hosts.parse("a.example"), 443, "https")),
        (b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example\r\n\r\n", Request(hosts.parse("a.example"), 443, "https")),
        (b"CONNECT a.example:443 HTTP/1.1\r\nHost: 127.0.0.1:3128\r\n\r\n", Request(hosts.parse("a.example"), 443, "https")),
        (b"CONNECT a.example:443 HTTP/1.0\r\n\r\n", Request(hosts.parse("a.example"), 443, "https")),
        (b"CONNECT [2001:db8::1]:443 HTTP/1.1\r\nHost: [2001:db8::1]:443\r\n\r\n", Request(hosts.parse("[2001:db8::1]"), 443, "https")),
        (GET, Request(hosts.parse("a.example"), 80, "http", "GET", "/x")),
        (b"GET HTTP://A.example. HTTP/1.1\r\nHost: a.example\r\n\r\n", Request(hosts.parse("a.example"), 80, "http", "GET", "/")),
        (b"GET http://a.example?q HTTP/1.1\r\nHost: a.example\r\n\r\n", Request(hosts.parse("a.example"), 80, "http", "GET", "/?q")),
        (b"GET http://a.example:81/ HTTP/1.1\r\nHost: a.example:81\r\n\r\n", Request(hosts.parse("a.example"), 81, "http", "GET", "/")),
    ],
)
def test_requests(data: bytes, due: Request) -> None:
    assert _read(data)[1] == due


@pytest.mark.parametrize(
    ("data", "status", "said"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400, "this is no HTTP request"),
        (b"HELO there\r\n\r\n", 400, "this is no HTTP request"),
        (b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n", 400, "this is a proxy"),
        (b"OPTIONS * HTTP/1.1\r\nHost: a.example\r\n\r\n", 400, "this is a proxy"),
        (b"GET https://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n", 400, "https:// is asked for by CONNECT"),
        (b"GET ftp://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n", 400, "ftp:// is asked for by CONNECT"),
        (b"GET http://a.example/x HTTP/2.0\r\nHost: a.example\r\n\r\n", 400, "this is no HTTP request"),
        (b"GET http://a.example/x\r\n\r\n", 400, "this is no HTTP request"),
        (b"GET http://a.example/x y HTTP/1.1\r\nHost: a.example\r\n\r\n", 400, "this is no HTTP request"),
        (b"GET http://a.example/\xc3\xa9 HTTP/1.1\r\nHost: a.example\r\n\r\n", 400, "this is no HTTP request"),
        (b"GET http://a.example/x HTTP/1.1\r\n\r\n", 400, "this is no HTTP request"),
        (b"GET http://a.example/x HTTP/1.1\r\nHost: b.example\r\n\r\n", 400, "the Host field names another host"),
        (b"GET http://a.example/x HTTP/1.1\r\nHost: a.example:81\r\n\r\n", 400, "the Host field names another host"),
        (b"GET http://a.example/x HTTP/1.1\r\nHost: a.example\r\nHost: b.example\r\n\r\n", 400, "this is no HTTP request"),
        (b"GET http://a.example/x HTTP/1.1\r\nHost: a.example\r\nHost: a.example\r\n\r\n", 400, "this is no HTTP request"),
        (b"GET http://a.example/x HTTP/1.1\r\nHost:\r\n\r\n", 400, "the host '' is empty"),
        (b"GET http://u:p@a.example/x HTTP/1.1\r\nHost: a.example\r\n\r\n", 400, "the host 'u:p@a.example' has no port"),
        (b"GET http://a.example\\@evil.example/x HTTP/1.1\r\nHost: a.example\r\n\r\n", 400, "is no host name"),
        (b"GET http://a.example/x#y HTTP/1.1\r\nHost: a.example\r\n\r\n", 400, "this is a proxy"),
        (b"GET http:///x HTTP/1.1\r\nHost: a.example\r\n\r\n", 400, "the host '' is empty"),
        (b"CONNECT a.example HTTP/1.1\r\nHost: a.example\r\n\r\n", 400, "has no port"),
        (b"CONNECT a.example:443/x HTTP/1.1\r\nHost: a.example\r\n\r\n", 400, "has no port from 1 to 65535"),
        (b"CONNECT http://a.example:443 HTTP/1.1\r\nHost: a.example\r\n\r\n", 400, "is no host name"),
        (b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\n\r\n", 400, "a CONNECT has no body"),
        (b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "a CONNECT has no body"),
        (b"CONNECT 0x7f.1:443 HTTP/1.1\r\nHost: 0x7f.1\r\n\r\n", 400, "is no IPv4 address in its plain form"),
        # Where a message ends, told in two ways, or in one that two programs read differently.
        (GET[:-2] + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "told in more than one way"),
        (GET[:-2] + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", 400, "this is no HTTP request"),
        (GET[:-2] + b"Content-Length: 1, 2\r\n\r\n", 400, "this is no HTTP request"),
        (GET[:-2] + b"Content-Length: +1\r\n\r\n", 400, "this is no HTTP request"),
        (GET[:-2] + b"Content-Length: 0x1\r\n\r\n", 400, "this is no HTTP request"),
        (GET[:-2] + b"Content-Length : 1\r\n\r\n", 400, "this is no HTTP request"),
        (GET[:-2] + b"Content-Length\x0b: 1\r\n\r\n", 400, "this is no HTTP request"),
        (GET[:-2] + b"Transfer-Encoding: identity\r\n\r\n", 501, "this is no HTTP request"),
        (GET[:-2] + b"Transfer-Encoding: chunked, chunked\r\n\r\n", 501, "this is no HTTP request"),
        (GET[:-2] + b"Transfer-Encoding: xchunked\r\n\r\n", 501, "this is no HTTP request"),
        (GET[:-2] + b"Transfer-Encoding:\x0bchunked\r\n\r\n", 400, "this is no HTTP request"),
        (GET.replace(b"HTTP/1.1", b"HTTP/1.0")[:-2] + b"Transfer-Encoding: chunked\r\n\r\n", 400, "told in more than one way"),
        (GET[:-2] + b"Connection: close, Content-Length\r\n\r\n", 400, "Connection names a field"),
        (GET[:-2] + b"Connection: host\r\n\r\n", 400, "Connection names a field"),
        (GET[:-2] + b"X: a\x00b\r\n\r\n", 400, "this is no HTTP request"),
        (GET[:-2] + b"X: a\rb\r\n\r\n", 400, "this is no HTTP request"),
        (GET[:-2] + b" X: folded first\r\n\r\n", 400, "the host 'a.example X: folded first' has no port"),
        (GET[:-2] + b"no colon\r\n\r\n", 400, "this is no HTTP request"),
        (GET[:-2] + b"Proxy-Authorization: Basic !\r\n\r\n", 400, "are not Base64"),
        (GET[:-2] + b"Proxy-Authorization: Digest x\r\n\r\n", 400, "neither Basic nor Bearer"),
        (GET[:-2] + b"Proxy-Authorization: Bearer a\r\nProxy-Authorization: Bearer b\r\n\r\n", 400, "more than one Proxy-Authorization"),
        (GET[:-2] + b"X: y\r\n" * 101 + b"\r\n", 431, "more than 100 header fields"),
        (GET[:-2] + b"X: " + b"y" * 16384 + b"\r\n\r\n", 431, "is longer than 16384 bytes"),
        (GET[:-2] + b"X: " + b"y" * 16384, 431, "this is no HTTP request"),
    ],
)
def test_malformed(data: bytes, status: int, said: str) -> None:
    with pytest.raises(wire.Malformed) as caught:
        _read(data)
    assert said in str(caught.value)
    assert caught.value.status == status


@pytest.mark.parametrize(
    ("field", "due"),
    [
        (b"", ""),
        (b"Proxy-Authorization: Bearer egt_x\r\n", "egt_x"),
        (b"Proxy-Authorization: Basic " + base64.b64encode(b"token:egt_x") + b"\r\n", "egt_x"),
        (b"Proxy-Authorization: Basic " + base64.b64encode(b"egt_x:") + b"\r\n", "egt_x"),
        (b"proxy-authorization:   bearer   egt_x  \r\n", "egt_x"),
    ],
)
def test_secrets(field: bytes, due: str) -> None:
    exchange, request = _read(GET[:-2] + field + b"\r\n")
    assert request
    assert exchange.secret == due
    assert b"egt_x" not in exchange.forward()


def test_a_head_in_pieces() -> None:
    exchange = wire.Exchange()
    for at in range(len(GET) - 1):
        assert exchange.head(GET[at : at + 1]) is None
    assert exchange.head(GET[-1:]) == Request(hosts.parse("a.example"), 80, "http", "GET", "/x")


def _outcome(*pieces: bytes) -> tuple[t.Any, ...]:
    exchange = wire.Exchange()
    try:
        requests = [exchange.head(piece) for piece in pieces]
    except wire.Malformed as error:
        return error.status, str(error)
    return requests[-1], exchange.secret, exchange.tunnelled()


@pytest.mark.parametrize(
    "data",
    [
        b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example\r\n\r\n",
        b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example\r\n\r\n\x16\x03\x01 a hello\r\n\r\n",
        b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example\r\nProxy-Authorization: Bearer egt_x\r\n\r\nbehind",
        b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example\r\nPROXY-AUTHORIZATION: Bearer egt_x\r\n\r\n",
        b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example\r\nProxy-Authorization: Digest x\r\n\r\n",
        b"CONNECT a.example:443 HTTP/1.1\nHost: a.example\n\nbehind\r\n\r\nmore",
        b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example\r\n X: folded\r\n\r\n",
        b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example\r\nContent-Length: 3\r\n\r\nabc",
        b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example\r\nX : 1\r\n\r\n",
        b"CONNECT a.example:443 HTTP/2.0\r\n\r\n",
        b"CONNECT a.example HTTP/1.1\r\nHost: a.example\r\n\r\n",
        b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example\r\nX: " + b"x" * 2000 + b"\r\n\r\n",
        b"CONNECT \x00:443 HTTP/1.1\r\n\r\n",
    ],
)
def test_a_connect_is_the_same_whether_it_comes_whole_again_or_in_pieces(data: bytes) -> None:
    due = _outcome(data[:9], data[9:])
    assert _outcome(data) == due
    assert _outcome(data) == due


def test_a_token_is_not_kept_with_the_request_that_it_came_with() -> None:
    wire._connect.cache_clear()
    assert _outcome(b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example\r\nProxy-Authorization: Bearer egt_x\r\n\r\n")[1] == "egt_x"
    assert wire._connect.cache_info().currsize == 0


def test_what_is_forwarded() -> None:
    fields = b"Proxy-Connection: keep-alive\r\nConnection: X-Drop, keep-alive\r\nX-Drop: 1\r\nX-Keep: 2\r\nUpgrade: h2c\r\nTE: trailers\r\n"
    exchange, _request = _read(b"GET HTTP://A.EXAMPLE.:80/x?y HTTP/1.1\r\nhost: A.example\r\n" + fields + b"\r\n")
    assert exchange.forward() == b"GET /x?y HTTP/1.1\r\nhost: a.example\r\nx-keep: 2\r\nconnection: close\r\n\r\n"


@pytest.mark.parametrize(
    ("fields", "body", "due"),
    [
        (b"", b"", b""),
        (b"Content-Length: 3\r\n", b"abc", b"abc"),
        (b"Content-Length: 3\r\n", b"abcGET http://evil.example/ HTTP/1.1\r\n\r\n", b"abc"),
        (b"", b"GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n", b""),
        (b"Transfer-Encoding: chunked\r\n", b"3\r\nabc\r\n0\r\n\r\n", b"3\r\nabc\r\n0\r\n\r\n"),
        (b"Transfer-Encoding: chunked\r\n", b"3;x=y\r\nabc\r\n0\r\nTrailer: z\r\n\r\nGET /evil", b"3\r\nabc\r\n0\r\n\r\n"),
    ],
)
def test_bodies(fields: bytes, body: bytes, due: bytes) -> None:
    head = b"POST http://a.example/ HTTP/1.1\r\nHost: a.example\r\n" + fields + b"\r\n"
    whole, _request = _read(head + body)
    assert whole.forward()
    assert whole.body(b"") == due
    assert whole.complete
    assert whole.body(b"more") == b""
    pieces, _request = _read(head)
    assert pieces.forward()
    passed = pieces.body(b"") + b"".join(pieces.body(body[at : at + 1]) for at in range(len(body)))
    assert passed.replace(b"\r\n", b"").replace(b"1abc", b"") or due == b""
    assert pieces.complete


@pytest.mark.parametrize(
    "body",
    [b"x\r\nabc\r\n0\r\n\r\n", b"-3\r\nabc", b"3\r\nabcd\r\n0\r\n\r\n", b"+3\r\nabc\r\n", b"0x3\r\nabc\r\n", b"3 \x0b\r\nabc\r\n", b"F" * 30 + b"\r\n"],
)
def test_malformed_chunks(body: bytes) -> None:
    exchange, _request = _read(b"POST http://a.example/ HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n")
    exchange.forward()
    with pytest.raises(wire.Malformed):
        exchange.body(body)


def test_what_is_pipelined_behind_connect() -> None:
    exchange, _request = _read(b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example\r\n\r\n\x16\x03\x01")
    assert exchange.tunnelled() == b"\x16\x03\x01"


def test_refusals_are_whole_answers() -> None:
    head, _blank, body = wire.refusal(403, "no rule").partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 403 Forbidden\r\n")
    assert b"Content-Length: 8" in head
    assert body == b"no rule\n"


# -- the configuration


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "Expecting value"),
        (b"[]", "a mapping with groups, pins, resolvers, sandboxes, token_ports is due"),
        (b'{"rules": []}', "a mapping with groups, pins, resolvers, sandboxes, token_ports is due"),
        (b'{"resolvers": ["dns.example"]}', "resolvers: 'dns.example' is not an address"),
        (b'{"pins": {"a.example": ["x"]}}', "pins: a.example"),
        (b'{"groups": {"some": [{"host": "*.github.io"}]}}', "is a wildcard over github.io"),
        (b'{"groups": {"some": [{"host": "*.s3.amazonaws.com"}]}}', "is a wildcard over s3.amazonaws.com"),
        (b'{"groups": {"some": [{"host": "*.herokuapp.com"}]}}', "is a wildcard over herokuapp.com"),
    ],
)
def test_bad_configurations(content: bytes, said: str) -> None:
    with pytest.raises(ConfigError, match=said.replace("*", r"\*")):
        service.parse(content)
