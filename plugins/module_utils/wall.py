# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The second wall: nftables around a service that is a way out, in a table of its own, rendered from the service's own rules.

However broken the service is, it reaches what its rules could allow and nothing else: never this host, and no address that is no
destination. Packets are looked at before any of them is translated or tracked, so what a rule no longer allows ends at once. All
other tables are left alone. Source: nft(8).
"""

from __future__ import annotations

import ipaddress
import json
import subprocess
import typing as t

from ansible_collections.dockersandbox.guardrails.plugins.module_utils import allowlist, hosts
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.allowlist import Rule
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.hosts import Address

_NOT_THERE = "nft is not installed: run phase network (--tags network)"


class WallError(Exception):
    """The wall is not up; the text is one line."""


class Openings(t.NamedTuple):
    """What may be reached: addresses with their ports, ports at every public address and at every private one, and resolvers.

    *own* are addresses with their ports that may be this host's as well, because the operator has said so.
    """

    exact: frozenset[tuple[ipaddress.IPv4Address, int]]
    public: frozenset[int]
    private: frozenset[int]
    resolvers: frozenset[tuple[ipaddress.IPv4Address, int]]
    own: frozenset[tuple[ipaddress.IPv4Address, int]] = frozenset()


def table(service: str) -> str:
    """Return the name of a service's table, in the family ``inet``."""
    return f"dockersandbox_{service}"


def bridge(service: str) -> str:
    """Return the interface behind which a service is."""
    return f"gr-{service}"


def openings(document: dict[str, t.Any]) -> Openings:
    """Return what the configuration of egress opens. Raises WallError, ValueError for one that cannot be meant."""
    try:
        # Whether a wildcard is over a shared suffix is for the service to say, which has the list of them.
        policy = allowlist.parse(document, ())
    except allowlist.RulesError as error:
        raise WallError(str(error)) from None
    pins = {name: [ipaddress.ip_address(address) for address in addresses] for name, addresses in document.get("pins", {}).items()}
    exact: set[tuple[ipaddress.IPv4Address, int]] = set()
    public, private = set(document.get("token_ports", [])), set()
    for rule in {rule for permitted in policy.sandboxes.values() for rule in permitted.rules}:
        if rule.host.address is None and rule.pins == "floating":
            public |= set(rule.ports)
            private |= set(rule.ports) if rule.allow_private else set()
            continue
        exact |= {(address, port) for address in _known(rule, pins) if isinstance(address, ipaddress.IPv4Address) for port in rule.ports}
    resolvers = set()
    for text in document.get("resolvers", []):
        host, port = hosts.authority(text, 53)
        if isinstance(host.address, ipaddress.IPv4Address):
            resolvers.add((host.address, port))
    return Openings(frozenset(exact), frozenset(public), frozenset(private), frozenset(resolvers))


def _known(rule: Rule, pins: dict[str, list[Address]]) -> list[Address]:
    if rule.host.address is not None:
        return [rule.host.address]
    return [address for name, addresses in pins.items() if rule.covers(hosts.parse(name)) for address in addresses]


def render(service: str, opened: Openings) -> str:
    """Return the table as ``nft -f`` reads it: what is there of that name is replaced in one step."""
    never = [network for network, _kind in hosts.NETWORKS if network.version == 4]
    private = [network for network, kind in hosts.NETWORKS if network.version == 4 and kind == hosts.PRIVATE]
    metadata = [network for network, kind in hosts.NETWORKS if network.version == 4 and kind == "metadata"]
    lines = [
        f"type filter hook prerouting priority raw; policy accept;\n        iifname != {json.dumps(bridge(service))} return",
        "meta nfproto != ipv4 drop",
        *([f"ip daddr . tcp dport {_pairs(opened.own)} accept"] if opened.own else []),
        # Whatever is this host's own, by any of its addresses, and what is nobody's alone.
        "fib daddr type != unicast drop",
    ]
    if opened.resolvers:
        lines.append(f"meta l4proto {{ tcp, udp }} ip daddr . th dport {_pairs(opened.resolvers)} accept")
    if opened.exact:
        lines.append(f"ip daddr . tcp dport {_pairs(opened.exact)} accept")
    lines.append(f"ip daddr {_set(metadata)} drop")
    if opened.private:
        lines.append(f"ip daddr {_set(private)} tcp dport {_set(opened.private)} accept")
    lines.append("ip daddr @never drop")
    if opened.public:
        lines.append(f"tcp dport {_set(opened.public)} accept")
    lines.append("drop")
    name = f"table inet {table(service)}"
    leave = "".join(f"        {line}\n" for line in lines)
    return f"""\
{name}
delete {name}
{name} {{
    set never {{
        type ipv4_addr
        flags interval
        auto-merge
        elements = {_set(never)}
    }}
    chain leave {{
{leave}    }}
    chain enter {{
        type filter hook forward priority filter; policy accept;
        oifname {json.dumps(bridge(service))} ct state new drop
    }}
}}
"""


def _set(items: t.Iterable[t.Any]) -> str:
    return "{ " + ", ".join(map(str, sorted(items))) + " }"


def _pairs(pairs: t.Iterable[tuple[ipaddress.IPv4Address, int]]) -> str:
    return "{ " + ", ".join(f"{address} . {port}" for address, port in sorted(pairs)) + " }"


def problem(service: str, text: str) -> str:
    """Return in a few words why the table *text* is not in force as it is meant; empty when it is.

    What nft makes of the text is found out in a network namespace of its own.
    """
    name = f"inet {table(service)}"
    try:
        there = _nft("-s", "list", "table", *name.split())
    except WallError as error:
        return str(error) if str(error) == _NOT_THERE else "is not there"
    wanted = subprocess.run(
        ["unshare", "--net", "sh", "-c", f"nft -f - && nft -s list table {name}"], input=text, capture_output=True, text=True, check=False
    )
    if wanted.returncode:
        raise WallError(_said(wanted.stderr))
    return "" if wanted.stdout == there else "is not as the rules say"


def raise_(text: str) -> None:
    """Put the table *text* in force in one step. Raises WallError."""
    _nft("-f", "-", text=text)


def remove(service: str) -> None:
    """Take a service's table away; a missing one is fine."""
    name = f"table inet {table(service)}"
    try:
        _nft("-f", "-", text=f"{name}\ndelete {name}\n")
    except WallError as error:
        if str(error) != _NOT_THERE:
            raise


def _nft(*arguments: str, text: str = "") -> str:
    try:
        done = subprocess.run(["nft", *arguments], input=text, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise WallError(_NOT_THERE) from None
    if done.returncode:
        raise WallError(_said(done.stderr))
    return done.stdout


def _said(text: str) -> str:
    return f"nft: {' '.join(text.split())[:400]}"
