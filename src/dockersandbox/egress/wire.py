# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a proxy is asked in HTTP/1.1, read once and written anew. Pure: bytes in, bytes out.

A server gets what was understood here, never the bytes that were sent, so that nobody can mean two things by them. One
connection carries one request: there is no second that could hide behind the first.

Sources: RFC 9110, RFC 9112 (messages, request targets), RFC 7617 and 6750 (credentials), RFC 9209 (Proxy-Status), h11.
"""

from __future__ import annotations

import base64
import binascii
import functools
import re
import typing as t

import h11
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import hosts
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.allowlist import Request

LONGEST = 16384  # bytes of a request without its body
_MOST = 100  # fields
_ABSOLUTE = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?#]*)(?P<path>[^#]*)")
_FRAMING = {b"host", b"content-length", b"transfer-encoding"}
_HOP = {b"connection", b"keep-alive", b"proxy-authorization", b"proxy-connection", b"te", b"trailer", b"upgrade"}
_WORDS = {
    400: "Bad Request",
    403: "Forbidden",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    501: "Not Implemented",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}
# RFC 9209, 2.3
_ERRORS = {
    403: "http_request_denied",
    429: "connection_limit_reached",
    502: "destination_unavailable",
    503: "proxy_internal_error",
    504: "connection_timeout",
}
_END = b"\r\n\r\n"
_REMEMBERED = 1024  # bytes of the longest head that is
_SECRET = b"proxy-authorization"
ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"


class Malformed(Exception):
    """What was sent is no request that a proxy can mean; :attr:`status` and one line."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Exchange:
    """One request. After :meth:`head` gave it, :attr:`request` and :attr:`secret` (a token, or empty) stand."""

    def __init__(self) -> None:
        self._in: h11.Connection | None = None
        self._out: h11.Connection | None = None
        self._event: h11.Request | None = None
        self._length = 0
        self._behind = b""
        self.request: Request | None = None
        self.secret = ""
        self.complete = False  # the whole request was passed on

    def head(self, data: bytes) -> Request | None:
        """Return the request once its head is whole, None before. Raises Malformed."""
        if self._in is None:
            head, end, behind = data.partition(_END)
            if end and len(head) <= _REMEMBERED and head.startswith(b"CONNECT ") and _SECRET not in head.lower() and (known := _connect(head + end)):
                self.request, self._behind = known, behind
                return known
            self._in = h11.Connection(h11.SERVER, max_incomplete_event_size=LONGEST)
        event = _event(self._in, data)
        self._length += len(data)
        if event is h11.NEED_DATA:
            return None
        self._behind = self._in.trailing_data[0]
        if self._length - len(self._behind) > LONGEST:
            raise Malformed(431, f"the head of the request is longer than {LONGEST} bytes")
        self._event = _request(event)
        self.request, self.secret = _read(self._event)
        return self.request

    def tunnelled(self) -> bytes:
        """Return what came behind the head of a CONNECT."""
        return self._behind

    def forward(self) -> bytes:
        """Return the head of a plain request as the server gets it."""
        assert self._event is not None and self.request is not None
        request = self.request
        host = request.host.authority(request.port).removesuffix(":80")
        named = {part.strip().lower() for name, value in self._event.headers if name == b"connection" for part in value.split(b",")}
        kept = [(name, value) for name, value in self._event.headers if name not in _HOP | named | {b"host"}]
        headers = [(b"host", host.encode()), *kept, (b"connection", b"close")]
        return self._send(h11.Request(method=self._event.method, target=request.path.encode(), headers=headers))

    def body(self, data: bytes) -> bytes:
        """Return what of the request's body goes to the server after *data* came. What follows the request goes nowhere.

        Raises Malformed.
        """
        passed = b""
        if self.complete:
            return passed
        assert self._in is not None
        try:
            if data:
                self._in.receive_data(data)
            while (event := self._in.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
                if isinstance(event, h11.Data):
                    passed += self._send(event)
                elif isinstance(event, h11.EndOfMessage):
                    self.complete = True
                    return passed + self._send(h11.EndOfMessage())
        except h11.RemoteProtocolError as error:
            raise Malformed(400, f"this is no HTTP request: {error}") from None
        return passed

    def _send(self, event: h11.Event) -> bytes:
        if self._out is None:
            self._out = h11.Connection(h11.CLIENT)
        return self._out.send(event) or b""


@functools.lru_cache(maxsize=256)
def _connect(head: bytes) -> Request | None:
    """Return the request of a CONNECT without a token whose whole *head* came at once, None for what is more. Raises Malformed.

    A client asks for the same host in the same words again and again.
    """
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=LONGEST)
    event = _event(connection, head)
    if event is h11.NEED_DATA or connection.trailing_data[0]:
        return None
    return _read(_request(event))[0]


def _event(connection: h11.Connection, data: bytes) -> t.Any:
    try:
        connection.receive_data(data)
        return connection.next_event()
    except h11.RemoteProtocolError as error:
        raise Malformed(error.error_status_hint, f"this is no HTTP request: {error}") from None


def _request(event: t.Any) -> h11.Request:
    if not isinstance(event, h11.Request) or event.http_version not in (b"1.0", b"1.1"):
        raise Malformed(400, "this is no HTTP request")
    return event


def _read(event: h11.Request) -> tuple[Request, str]:
    """Return what is asked, and the token that came with it."""
    fields: dict[bytes, list[bytes]] = {}
    for name, value in event.headers:
        fields.setdefault(name, []).append(value)
    if len(event.headers) > _MOST:
        raise Malformed(431, f"more than {_MOST} header fields")
    if b"transfer-encoding" in fields and (b"content-length" in fields or event.http_version != b"1.1"):
        raise Malformed(400, "the length of the request's body is told in more than one way")
    if any(part.strip().lower() in _FRAMING for value in fields.get(b"connection", ()) for part in value.split(b",")):
        raise Malformed(400, "Connection names a field that a request cannot do without")
    secret = _secret(fields.get(_SECRET, []))
    method, target = event.method.decode("ascii"), event.target.decode("ascii")
    if method == "CONNECT":
        if b"transfer-encoding" in fields or fields.get(b"content-length", [b"0"]) != [b"0"]:
            raise Malformed(400, "a CONNECT has no body")
        # Its Host goes nowhere; Node's own client names the proxy there.
        return Request(*_authority(target, None), scheme="https"), secret
    request = _absolute(method, target)
    for value in fields.get(b"host", ()):
        host, port = _authority(value.decode("latin-1"), request.port)
        if (host, port) != (request.host, request.port):
            raise Malformed(400, "the Host field names another host than the request")
    return request, secret


def _absolute(method: str, target: str) -> Request:
    match = _ABSOLUTE.fullmatch(target)
    if match is None:
        raise Malformed(400, "this is a proxy: ask with CONNECT host:port or an absolute http:// URL")
    if match["scheme"].lower() != "http":
        raise Malformed(400, f"{match['scheme'][:20].lower()}:// is asked for by CONNECT, not by an absolute URL")
    host, port = _authority(match["authority"], 80)
    path = match["path"] if match["path"].startswith("/") else "/" + match["path"]
    return Request(host, port, "http", method, path)


def _authority(text: str, default: int | None) -> tuple[hosts.Host, int]:
    try:
        return hosts.authority(text, default)
    except ValueError as error:
        raise Malformed(400, f"the host {text[:80]!r} {error}") from None


def _secret(values: list[bytes]) -> str:
    if len(values) > 1:
        raise Malformed(400, "more than one Proxy-Authorization field")
    if not values:
        return ""
    scheme, _blank, content = values[0].decode("latin-1").partition(" ")
    if scheme.lower() == "bearer":
        return content.strip()
    if scheme.lower() == "basic":
        try:
            user, _colon, password = base64.b64decode(content.strip(), validate=True).decode("utf-8").partition(":")
        except (binascii.Error, UnicodeDecodeError):
            raise Malformed(400, "the credentials of Proxy-Authorization are not Base64") from None
        # A proxy's URL may have the token in either place.
        return password or user
    raise Malformed(400, "Proxy-Authorization is neither Basic nor Bearer")


def refusal(status: int, reason: str) -> bytes:
    """Return the whole answer that tells a client why it gets nothing; *reason* is one line."""
    body = f"{reason}\n".encode()
    told = f"; error={_ERRORS[status]}" if status in _ERRORS else ""
    return (
        f"HTTP/1.1 {status} {_WORDS[status]}\r\n"
        f"Proxy-Status: guardrails-egress{told}\r\n"
        "Content-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\n"
        "Connection: close\r\n"
        "\r\n"
    ).encode() + body
