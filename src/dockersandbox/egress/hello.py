# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a TLS client says before anything is encrypted: the server's name. Pure: bytes in, bytes out.

Sources: RFC 8446 (records, ClientHello, HelloRetryRequest), RFC 6066 (server_name), RFC 9849 (Encrypted Client Hello).
"""

from __future__ import annotations

from ansible_collections.dockersandbox.guardrails.plugins.module_utils import hosts
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.hosts import Host

LONGEST = 32768  # bytes of a ClientHello, keys of post-quantum exchanges included
_RECORD = 16384  # bytes of an unencrypted record
_HANDSHAKE, _CHANGE_CIPHER, _APPLICATION = 22, 20, 23
_CLIENT_HELLO, _SERVER_HELLO = 1, 2
_SERVER_NAME = 0
_ENCRYPTED = {0xFE0D: "an encrypted ClientHello", 0xFFCE: "an encrypted server name"}
# The "random" of a ServerHello that is a HelloRetryRequest (RFC 8446, 4.1.3).
_RETRY = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")
# A fatal alert, access_denied (RFC 8446, 6): what a client whose hello is refused is told.
ALERT = bytes.fromhex("15030300020231")
_SEEN = 5 + 4 + 2 + 32  # bytes up to the end of a ServerHello's random


class Refused(Exception):
    """What the client said is not what was agreed; the text is one line."""


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, count: int) -> bytes:
        end = self._at + count
        if end > len(self._data):
            raise Refused("the ClientHello is malformed")
        part = self._data[self._at : end]
        self._at = end
        return part

    def number(self, width: int) -> int:
        return int.from_bytes(self.take(width), "big")

    def vector(self, width: int) -> bytes:
        return self.take(self.number(width))

    def left(self) -> bool:
        return self._at < len(self._data)


def server_name(body: bytes) -> str | None:
    """Return the name that the ClientHello *body* (without its header) asks for, None when it asks for none.

    Refused for one that is malformed or encrypts its name.
    """
    reader = _Reader(body)
    reader.take(2 + 32)  # version, random
    reader.vector(1)  # session
    reader.vector(2)  # ciphers
    reader.vector(1)  # compressions
    if not reader.left():
        return None
    extensions = _Reader(reader.vector(2))
    if reader.left():
        raise Refused("the ClientHello is malformed")
    found: dict[int, bytes] = {}
    while extensions.left():
        kind, content = extensions.number(2), extensions.vector(2)
        if kind in found:
            raise Refused("the ClientHello has the same extension twice")
        found[kind] = content
    for kind, words in _ENCRYPTED.items():
        if kind in found:
            raise Refused(f"{words} is not allowed: nobody could tell which server is meant")
    if _SERVER_NAME not in found:
        return None
    outer = _Reader(found[_SERVER_NAME])
    names = _Reader(outer.vector(2))
    if names.number(1) != 0:
        raise Refused("the ClientHello names its server by something else than a host name")
    name = names.vector(2)
    if outer.left() or names.left():
        raise Refused("the ClientHello names more than one server")
    try:
        return name.decode("ascii")
    except UnicodeDecodeError:
        raise Refused("the ClientHello names a server in other letters") from None


def agree(host: Host, name: str | None) -> None:
    """Refused unless *name*, from a ClientHello, is the *host* that the tunnel was asked for."""
    if host.address is not None:
        # RFC 6066 has no names that are addresses: a client that connects to one sends none.
        if name is not None:
            raise Refused(f"the ClientHello names {_shown(name)}, the tunnel is for {host.text}")
        return
    if name is None:
        raise Refused("the ClientHello names no server")
    try:
        named = hosts.parse(name)
    except ValueError as error:
        raise Refused(f"the server name {_shown(name)} {error}") from None
    if named != host:
        raise Refused(f"the ClientHello names {named.text}, the tunnel is for {host.text}")


def _shown(name: str) -> str:
    return repr(name[:80])


class Opening:
    """The beginning of a TLS connection to *host*, watched until nothing more is said in the clear.

    Feed it what either side sends; it returns what may be passed on to the other. What the client sends after its
    ClientHello waits until the server has answered: the server may ask for a second one (a HelloRetryRequest), and that
    must name the same host.
    """

    def __init__(self, host: Host) -> None:
        self.host = host
        self.begun = False  # the first ClientHello was passed on
        self.done = False
        self._held = bytearray()
        self._at = 0  # where in it the next record begins
        self._body = bytearray()  # of the handshake message that is being put together
        self._answer = b""
        self._answered = False

    @property
    def held(self) -> int:
        """The bytes of the client that wait."""
        return len(self._held)

    def client(self, data: bytes) -> bytes:
        """Return what of the client's may go to the server now. Raises Refused."""
        if self.done:
            return data
        self._held += data
        return self._hello() if not self.begun or self._answered else b""

    def server(self, data: bytes) -> bytes:
        """Take what the server sent; return what of the client's may go to the server now. Raises Refused."""
        if self.done or self._answered:
            return b""
        self._answer += data[: _SEEN - len(self._answer)]
        answer = self._answer
        if answer[0] == _HANDSHAKE and len(answer) < _SEEN:
            return b""
        self._answered = True
        if answer[0] == _HANDSHAKE and answer[5] == _SERVER_HELLO and answer[11:] == _RETRY:
            return self._hello()
        return self._finish()

    def _hello(self) -> bytes:
        """Return the client's bytes up to the end of its next ClientHello, once that is whole and agrees."""
        held = self._held
        if not self.begun and held and (held[0] != _HANDSHAKE or (len(held) > 1 and held[1] != 3)):
            raise Refused("what the tunnel begins with is not TLS")
        while len(held) - self._at >= 5:
            kind, length = held[self._at], int.from_bytes(held[self._at + 3 : self._at + 5], "big")
            # Only what waits for the answer to a first ClientHello may be encrypted, and so a little longer.
            if not 0 < length <= _RECORD + (256 if kind == _APPLICATION else 0):
                raise Refused("a TLS record is empty or too long")
            end = self._at + 5 + length
            if len(held) < end:
                break
            if kind == _HANDSHAKE:
                self._body += held[self._at + 5 : end]
            elif self._body or not self.begun or kind not in (_CHANGE_CIPHER, _APPLICATION):
                raise Refused("the TLS handshake is interrupted by something else")
            self._at = end
            if self._whole():
                agree(self.host, server_name(bytes(self._body[4:])))
                return self._pass()
        if len(held) > 2 * LONGEST:
            raise Refused(f"the ClientHello is longer than {LONGEST} bytes")
        return b""

    def _whole(self) -> bool:
        body = self._body
        if body and body[0] != _CLIENT_HELLO:
            raise Refused("the TLS handshake does not begin with a ClientHello")
        if len(body) < 4:
            return False
        length = 4 + int.from_bytes(body[1:4], "big")
        if length > LONGEST:
            raise Refused(f"the ClientHello is longer than {LONGEST} bytes")
        if len(body) > length:
            raise Refused("the record of the ClientHello holds more than that")
        return len(body) == length

    def _pass(self) -> bytes:
        if self.begun:
            return self._finish()
        self.begun = True
        passed = bytes(self._held[: self._at])
        del self._held[: self._at]
        self._at = 0
        self._body.clear()
        return passed

    def _finish(self) -> bytes:
        self.done = True
        passed = bytes(self._held)
        self._held.clear()
        return passed
