# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts and addresses in the one form in which they are compared, and what kind of address may be a destination.

Sources: RFC 1123, RFC 3986, RFC 5890 (names); WHATWG URL (what a client may take for an IPv4 address); the IANA special-purpose
address registries of IPv4 and IPv6 and RFC 6052, 3056, 4380 (addresses).
"""

from __future__ import annotations

import functools
import ipaddress
import re
import typing as t

Address: t.TypeAlias = "ipaddress.IPv4Address | ipaddress.IPv6Address"

# The kinds that a rule's ``allow_private`` opens. All others are no destination for anybody.
PRIVATE = "private"

_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
# Some client would read such a last label as a number, and the whole as an IPv4 address.
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")

_KINDS = (
    # Addresses at which clouds tell an instance its credentials; the first is in a public range.
    ("168.63.129.16/32", "metadata"),
    ("169.254.169.254/32", "metadata"),
    ("100.100.100.200/32", "metadata"),
    ("192.0.0.192/32", "metadata"),
    ("fd00:ec2::/32", "metadata"),
    ("fd20:ce::/32", "metadata"),
    ("0.0.0.0/8", "unspecified"),
    ("10.0.0.0/8", PRIVATE),
    ("100.64.0.0/10", PRIVATE),
    ("127.0.0.0/8", "loopback"),
    ("169.254.0.0/16", "link-local"),
    ("172.16.0.0/12", PRIVATE),
    ("192.0.0.0/24", "reserved"),
    ("192.0.2.0/24", PRIVATE),
    ("192.88.99.0/24", "translated"),
    ("192.168.0.0/16", PRIVATE),
    ("198.18.0.0/15", PRIVATE),
    ("198.51.100.0/24", PRIVATE),
    ("203.0.113.0/24", PRIVATE),
    ("224.0.0.0/4", "multicast"),
    ("240.0.0.0/4", "reserved"),
    ("::/128", "unspecified"),
    ("::1/128", "loopback"),
    ("::ffff:0:0/96", "mapped"),
    ("::/96", "translated"),
    ("64:ff9b::/96", "translated"),
    ("64:ff9b:1::/48", "translated"),
    ("2001::/32", "translated"),
    ("2001::/23", "reserved"),
    ("2001:db8::/32", PRIVATE),
    ("2002::/16", "translated"),
    ("3fff::/20", PRIVATE),
    ("fc00::/7", PRIVATE),
    ("fe80::/10", "link-local"),
    ("fec0::/10", "link-local"),
    ("ff00::/8", "multicast"),
)
# Every network that is no public destination, the narrower ones first, and its kind.
NETWORKS = tuple((ipaddress.ip_network(network), kind) for network, kind in _KINDS)
_GLOBAL_V6 = ipaddress.IPv6Network("2000::/3")


class Host(t.NamedTuple):
    """A name in its canonical form, or a literal address: *address* is None for a name."""

    text: str
    address: Address | None = None

    def authority(self, port: int) -> str:
        """Return ``host:port`` as a URL has it."""
        return f"[{self.text}]:{port}" if isinstance(self.address, ipaddress.IPv6Address) else f"{self.text}:{port}"


@functools.lru_cache(maxsize=4096)
def parse(text: str) -> Host:
    """Return the host that *text* is, an IPv6 address in brackets; ValueError in a few words that can follow it.

    Whatever two programs could read as two hosts is no host: names in other letters (their ``xn--`` form is taken),
    percent signs, addresses in any but the plain form.
    """
    if not text.isascii():
        raise ValueError("is not ASCII: write a name in other letters in its xn-- form")
    if not text.isprintable() or " " in text:
        raise ValueError("has a blank or a control character")
    if text.startswith("[") and text.endswith("]"):
        if "%" in text:
            raise ValueError("has a zone, which means something on one machine only")
        try:
            address: Address = ipaddress.IPv6Address(text[1:-1])
        except ValueError:
            raise ValueError("is no IPv6 address") from None
        return Host(str(address), address)
    name = text.lower().removesuffix(".")
    if not name:
        raise ValueError("is empty")
    labels = name.split(".")
    if _NUMBER.fullmatch(labels[-1]):
        try:
            address = ipaddress.IPv4Address(text)
        except ValueError:
            raise ValueError("is no IPv4 address in its plain form") from None
        return Host(str(address), address)
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError("is no host name: 1 to 63 of a-z, 0-9, - and _ between dots, no - at either end, 253 in all")
    return Host(name)


def authority(text: str, default: int | None = None) -> tuple[Host, int]:
    """Return the host and port of ``host:port``; *default* stands in for a port that is not given. ValueError as above."""
    host, colon, port = text.rpartition(":") if re.search(r":[^\]]*\Z", text) else (text, "", "")
    if not colon:
        if default is None:
            raise ValueError("has no port")
        return parse(text), default
    if not re.fullmatch(r"[1-9][0-9]{0,4}", port, re.ASCII) or int(port) > 65535:
        raise ValueError("has no port from 1 to 65535")
    return parse(host), int(port)


@functools.lru_cache(maxsize=4096)
def kind(address: Address) -> str | None:
    """Return what keeps *address* from being a public destination, such as ``loopback``; None when nothing does."""
    for network, word in NETWORKS:
        if address.version == network.version and address in network:
            return word
    if isinstance(address, ipaddress.IPv6Address) and address not in _GLOBAL_V6:
        return "reserved"
    return None
