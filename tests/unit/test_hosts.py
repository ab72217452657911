# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts: one form for each, and no text that two programs could read as two hosts."""

from __future__ import annotations

import ipaddress

import pytest
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import hosts


@pytest.mark.parametrize(
    ("text", "due"),
    [
        ("example.org", "example.org"),
        ("EXAMPLE.Org", "example.org"),
        ("example.org.", "example.org"),
        ("a.b-c.d_e.example", "a.b-c.d_e.example"),
        ("_dmarc.example.org", "_dmarc.example.org"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("1.example", "1.example"),
        ("0x7f.example", "0x7f.example"),
        ("localhost", "localhost"),
        ("a" * 63 + ".example", "a" * 63 + ".example"),
        ("192.0.2.1", "192.0.2.1"),
        ("[2001:DB8:0:0:0:0:0:1]", "2001:db8::1"),
        ("[::ffff:192.0.2.1]", str(ipaddress.IPv6Address("::ffff:192.0.2.1"))),
    ],
)
def test_parse(text: str, due: str) -> None:
    assert hosts.parse(text).text == due


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        (".", "is empty"),
        ("example.org..", "is no host name"),
        (".example.org", "is no host name"),
        ("a..b.example", "is no host name"),
        ("-a.example", "is no host name"),
        ("a-.example", "is no host name"),
        ("a" * 64 + ".example", "is no host name"),
        ((("a" * 62 + ".") * 5) + "example", "is no host name"),
        ("ex%61mple.org", "is no host name"),
        ("example.org%00.evil.example", "is no host name"),
        ("example.org@evil.example", "is no host name"),
        ("example.org/evil", "is no host name"),
        ("example.org\\evil", "is no host name"),
        ("example.org:443", "is no host name"),
        ("*.example.org", "is no host name"),
        ("exam ple.org", "has a blank or a control character"),
        ("example.org\n", "has a blank or a control character"),
        ("example.org\x00", "has a blank or a control character"),
        ("example.org\x7f", "has a blank or a control character"),
        ("bücher.example", "is not ASCII"),
        ("ｅxample.org", "is not ASCII"),
        ("example。org", "is not ASCII"),
        ("exam\u00adple.org", "is not ASCII"),
        ("①②⑦.0.0.1", "is not ASCII"),
        # What some client takes for an IPv4 address.
        ("127.1", "is no IPv4 address"),
        ("2130706433", "is no IPv4 address"),
        ("0x7f000001", "is no IPv4 address"),
        ("0x7f.0.0.1", "is no IPv4 address"),
        ("0177.0.0.1", "is no IPv4 address"),
        ("127.0.0.1.", "is no IPv4 address"),
        ("127.0.0.01", "is no IPv4 address"),
        ("127.0.0.0x1", "is no IPv4 address"),
        ("127.0.0.0x", "is no IPv4 address"),
        ("256.0.0.1", "is no IPv4 address"),
        ("1.2.3.4.5", "is no IPv4 address"),
        ("example.123", "is no IPv4 address"),
        ("[fe80::1%eth0]", "has a zone"),
        ("[fe80::1%25eth0]", "has a zone"),
        ("[::1", "is no host name"),
        ("::1", "is no host name"),
        ("[]", "is no IPv6 address"),
        ("[127.0.0.1]", "is no IPv6 address"),
        ("[::1]]", "is no IPv6 address"),
    ],
)
def test_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        hosts.parse(text)


@pytest.mark.parametrize(
    ("text", "default", "due"),
    [
        ("example.org:443", None, "example.org:443"),
        ("example.org", 80, "example.org:80"),
        ("[2001:db8::1]:8443", None, "[2001:db8::1]:8443"),
        ("[2001:db8::1]", 80, "[2001:db8::1]:80"),
        ("192.0.2.1:1", None, "192.0.2.1:1"),
    ],
)
def test_authority(text: str, default: int | None, due: str) -> None:
    host, port = hosts.authority(text, default)
    assert host.authority(port) == due


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("example.org", "has no port"),
        ("example.org:", "has no port from 1 to 65535"),
        ("example.org:0", "has no port from 1 to 65535"),
        ("example.org:65536", "has no port from 1 to 65535"),
        ("example.org:0443", "has no port from 1 to 65535"),
        ("example.org:+443", "has no port from 1 to 65535"),
        ("example.org: 443", "has no port from 1 to 65535"),
        ("example.org:443:443", "is no host name"),
        ("example.org:٤٤٣", "has no port from 1 to 65535"),
        ("2001:db8::1:443", "is no host name"),
        ("user@example.org:443", "is no host name"),
    ],
)
def test_authority_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        hosts.authority(text)


@pytest.mark.parametrize(
    ("address", "due"),
    [
        ("1.1.1.1", None),
        ("93.184.216.34", None),
        ("172.15.255.255", None),
        ("172.32.0.0", None),
        ("100.63.255.255", None),
        ("100.128.0.0", None),
        ("2606:4700:4700::1111", None),
        ("2a00::1", None),
        ("0.0.0.0", "unspecified"),
        ("0.1.2.3", "unspecified"),
        ("10.0.0.1", "private"),
        ("172.16.0.1", "private"),
        ("172.31.255.255", "private"),
        ("192.168.255.255", "private"),
        ("100.64.0.1", "private"),
        ("fd12::1", "private"),
        ("127.0.0.1", "loopback"),
        ("127.255.255.254", "loopback"),
        ("::1", "loopback"),
        ("169.254.1.1", "link-local"),
        ("fe80::1", "link-local"),
        ("fec0::1", "link-local"),
        ("169.254.169.254", "metadata"),
        ("168.63.129.16", "metadata"),
        ("100.100.100.200", "metadata"),
        ("192.0.0.192", "metadata"),
        ("fd00:ec2::254", "metadata"),
        ("224.0.0.1", "multicast"),
        ("239.255.255.255", "multicast"),
        ("ff02::1", "multicast"),
        ("240.0.0.1", "reserved"),
        ("255.255.255.255", "reserved"),
        ("192.0.0.8", "reserved"),
        ("198.18.0.1", "private"),
        ("192.0.2.1", "private"),
        ("198.51.100.1", "private"),
        ("203.0.113.1", "private"),
        ("2001:db8::1", "private"),
        ("3fff::1", "private"),
        ("::", "unspecified"),
        ("::ffff:127.0.0.1", "mapped"),
        ("::ffff:1.1.1.1", "mapped"),
        ("::127.0.0.1", "translated"),
        ("64:ff9b::7f00:1", "translated"),
        ("64:ff9b:1::1", "translated"),
        ("2002:7f00:1::", "translated"),
        ("2001:0:1::", "translated"),
        ("192.88.99.1", "translated"),
        ("2001:2::1", "reserved"),
        ("4000::1", "reserved"),
        ("100::1", "reserved"),
        ("5f00::1", "reserved"),
    ],
)
def test_kind(address: str, due: str | None) -> None:
    assert hosts.kind(ipaddress.ip_address(address)) == due
