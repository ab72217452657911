# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The addresses of a provider's name, asked of the resolvers that the configuration has: the container knows no others."""

from __future__ import annotations

import ipaddress
import socket

from aiohttp.abc import AbstractResolver, ResolveResult
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import hosts

from dockersandbox.common import service
from dockersandbox.common.resolver import ResolveError, Resolver


class Names(AbstractResolver):
    """Asks *resolver*; *private*: whether an address of a private network is one of a provider's."""

    def __init__(self, resolver: Resolver, private: bool) -> None:
        self._resolver = resolver
        self._kinds = (None, hosts.PRIVATE) if private else (None,)

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[ResolveResult]:
        """Return where to connect to for *host*. Raises OSError, and says why where the operator looks."""
        try:
            known = await self._resolver.ask(host)
        except ResolveError as error:
            raise self._none(str(error)) from None
        found = [address for address in known if isinstance(address, ipaddress.IPv4Address) and hosts.kind(address) in self._kinds]
        if not found:
            raise self._none(f"{host} has only addresses that no provider may have: {', '.join(map(str, known))}; see allow_private in docs/cost.md")
        return [ResolveResult(hostname=host, host=str(address), port=port, family=family, proto=0, flags=socket.AI_NUMERICHOST) for address in found]

    def _none(self, why: str) -> OSError:
        service.say("llm", why)
        return OSError(why)

    async def close(self) -> None:
        """Stop asking."""
        self._resolver.close()
