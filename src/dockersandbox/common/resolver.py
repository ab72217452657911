# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one place that asks DNS: a name's addresses, for as long as the answer says, within bounds."""

from __future__ import annotations

import asyncio
import ipaddress
import typing as t

import dns.asyncresolver
import dns.exception
import dns.nameserver
import dns.resolver
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import hosts
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.hosts import Address

_TIMEOUT = 2.0  # seconds for one try
_LIFETIME = 4.0  # seconds for all
_LEAST, _MOST = 5, 300  # seconds that an answer is kept, whatever it says
_KEPT = 4096  # names


class ResolveError(Exception):
    """A name has no addresses now; the text is one line. *late* tells that no answer came in time."""

    def __init__(self, text: str, late: bool = False) -> None:
        super().__init__(text)
        self.late = late


class Resolver:
    """Asks *servers* (addresses, with ``:port`` where it is not 53) for the addresses of names."""

    def __init__(self, servers: t.Sequence[str]) -> None:
        self._dns = dns.asyncresolver.Resolver(configure=False)
        self._dns.nameservers = [_server(server) for server in servers]
        self._dns.timeout, self._dns.lifetime = _TIMEOUT, _LIFETIME
        self._kept: dict[str, tuple[float, tuple[Address, ...]]] = {}
        self._asked: dict[str, asyncio.Task[tuple[Address, ...]]] = {}

    def known(self, name: str) -> tuple[Address, ...] | None:
        """Return the addresses of *name* from an answer that still holds, None when it must be asked for."""
        kept = self._kept.get(name)
        if kept is None or kept[0] <= asyncio.get_running_loop().time():
            return None
        return kept[1]

    async def ask(self, name: str) -> tuple[Address, ...]:
        """Return the addresses of *name*, asked for once however many wait for it. Raises ResolveError."""
        # Since somebody saw that it must be asked for, another may have had the answer.
        if known := self.known(name):
            return known
        task = self._asked.get(name)
        if task is None:
            task = self._asked[name] = asyncio.create_task(self._ask(name))
            task.add_done_callback(lambda done: self._answered(name, done))
        # Whoever waits may be cut; the others still want the answer.
        return await asyncio.shield(task)

    def _answered(self, name: str, task: asyncio.Task[tuple[Address, ...]]) -> None:
        self._asked.pop(name, None)
        if not task.cancelled():
            # Nobody may be left to hear of it.
            task.exception()

    async def _ask(self, name: str) -> tuple[Address, ...]:
        addresses, ttl = await self._query(name, "A")
        if not addresses:
            addresses, ttl = await self._query(name, "AAAA")
        if not addresses:
            raise ResolveError(f"{name} has no address")
        if len(self._kept) >= _KEPT:
            self._kept.pop(next(iter(self._kept)))
        self._kept.pop(name, None)
        self._kept[name] = (asyncio.get_running_loop().time() + min(max(ttl, _LEAST), _MOST), addresses)
        return addresses

    async def _query(self, name: str, kind: str) -> tuple[tuple[Address, ...], int]:
        try:
            answer = await self._dns.resolve(name + ".", kind, search=False, raise_on_no_answer=False)
        except dns.resolver.NXDOMAIN:
            raise ResolveError(f"{name} does not exist") from None
        except dns.exception.Timeout:
            raise ResolveError(f"no resolver answered for {name} in time", late=True) from None
        except (dns.exception.DNSException, OSError) as error:
            raise ResolveError(f"{name} cannot be resolved: {' '.join(str(error).split())[:200]}") from None
        if answer.rrset is None:
            return (), 0
        return tuple(ipaddress.ip_address(record.address) for record in answer.rrset), answer.rrset.ttl

    def close(self) -> None:
        """Stop asking."""
        for task in self._asked.values():
            task.cancel()


def _server(text: str) -> dns.nameserver.Nameserver:
    host, port = hosts.authority(text, 53)
    return dns.nameserver.Do53Nameserver(host.text, port)
