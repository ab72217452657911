# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which of the addresses that a resolver gave may be connected to. Pure."""

from __future__ import annotations

import dataclasses
import ipaddress
import typing as t

from ansible_collections.dockersandbox.guardrails.plugins.module_utils import hosts
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.allowlist import Rule
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.hosts import Address

MOST = 64  # addresses of one name that are looked at: a resolver may not fill memory


@dataclasses.dataclass(frozen=True)
class Choice:
    """The addresses that may be connected to, in the resolver's order; *denied* is why there is none, in one line.

    *fresh* are those that were not pinned.
    """

    addresses: tuple[Address, ...] = ()
    fresh: tuple[Address, ...] = ()
    denied: str = ""


def choose(rule: Rule, name: str, answers: t.Iterable[Address], pinned: t.Collection[Address]) -> Choice:
    """Return which of the *answers* for *name* may be connected to under *rule*, given what is *pinned* of that name.

    One answer that is no destination denies them all: whoever answers so is not to be believed in the rest.
    """
    found = tuple(dict.fromkeys(answers))[:MOST]
    if not found:
        return Choice(denied=f"{name} has no address")
    for address in found:
        kind = hosts.kind(address)
        if kind is not None and not (kind == hosts.PRIVATE and rule.allow_private):
            return Choice(denied=f"{name} resolves to {address}, a {kind} address")
    fresh = tuple(address for address in found if address not in pinned)
    if rule.pins == "floating":
        return Choice(found, fresh)
    known = tuple(address for address in found if address in pinned)
    if not known:
        return Choice((), fresh, f"{name} resolves to {fresh[0]}, which is not pinned: pin it when it is right")
    return Choice(known, fresh)


def parse(content: t.Any) -> dict[str, frozenset[Address]]:
    """Return the pins in *content*, ``{name: [address…]}``; ValueError in one line for what is no such mapping."""
    if not isinstance(content, dict):
        raise ValueError("pins: is not a mapping of names to addresses")
    found = {}
    for name, addresses in content.items():
        if not isinstance(addresses, list):
            raise ValueError(f"pins: {name}: is not a list of addresses")
        try:
            if hosts.parse(str(name)).text != name:
                raise ValueError("is not in its plain form")
            found[name] = frozenset(ipaddress.ip_address(address) for address in addresses)
        except ValueError as error:
            raise ValueError(f"pins: {name}: {error}") from None
    return found
