# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the gateway of LLM calls goes: the addresses behind the URLs of providers, and what the wall around it opens for them."""

from __future__ import annotations

import ipaddress
import typing as t
import urllib.parse

from ansible_collections.dockersandbox.guardrails.plugins.module_utils import hosts
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.hosts import Host
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.wall import Openings

FAMILIES = ("anthropic", "openai")
_PORTS = {"http": 80, "https": 443}


class WayError(ValueError):
    """A provider that cannot be reached; the text is one line for the operator."""


def destination(url: str) -> tuple[Host, int]:
    """Return the host and the port that *url* leads to. Raises ValueError in a few words that can follow it."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in _PORTS or not parts.netloc or "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("is not the http or https URL of a server, without a user, a query or a fragment")
    return hosts.authority(parts.netloc, _PORTS[parts.scheme])


def check(upstreams: t.Mapping[str, t.Mapping[str, t.Any]], real: t.Collection[str], resolvers: t.Sequence[str]) -> None:
    """Check that the gateway can get to *upstreams*, and to the names among the *real* ones by *resolvers*. Raises WayError."""
    for family in FAMILIES:
        where = f"cost_upstreams.{family}.url"
        url = upstreams[family]["url"]
        try:
            host, _port = destination(url)
            if problem := _unreachable(host):
                raise ValueError(problem)
        except ValueError as error:
            raise WayError(f"{where}: {url!r} {error}") from None
        if host.address is None and family in real and not resolvers:
            raise WayError(f"{where}: {url!r} has a name, and this machine has no resolver but its own loopback's: name some in network_resolvers")


def _unreachable(host: Host) -> str:
    if host.text == "localhost" or (host.address is not None and hosts.kind(host.address) == "loopback"):
        return "is the gateway's own loopback: let the provider listen at another address of this host, and name that one"
    if host.address is None:
        return ""
    if host.address.version != 4:
        return "is an IPv6 address: the gateway's network has IPv4 alone"
    kind = hosts.kind(host.address)
    return f"is a {kind} address" if kind not in (None, hosts.PRIVATE) else ""


def openings(document: t.Mapping[str, t.Any]) -> Openings:
    """Return what the configuration of the gateway opens: an address that it has as it is, and the port of a name everywhere."""
    own: set[tuple[ipaddress.IPv4Address, int]] = set()
    public, private = set(), set()
    for family in FAMILIES:
        upstream = document[family]
        if upstream.get("socket"):
            continue
        host, port = destination(upstream["url"])
        if isinstance(host.address, ipaddress.IPv4Address):
            own.add((host.address, port))
        elif host.address is None:
            public.add(port)
            private |= {port} if upstream.get("allow_private") else set()
    servers = [hosts.authority(text, 53) for text in document.get("resolvers", [])] if public else []
    resolvers = {(host.address, port) for host, port in servers if isinstance(host.address, ipaddress.IPv4Address)}
    return Openings(frozenset(), frozenset(public), frozenset(private), frozenset(resolvers), frozenset(own))
