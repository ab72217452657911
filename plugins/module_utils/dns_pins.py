# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pins: the addresses that names were found to have and a person, or a first look, took for right. Sealed by the host's key.

``.state/pins.json`` is one DSSE envelope whose predicate holds them, so that they change as a whole or not at all. The
configuration of egress has a copy of them; this is what that is compared with.
"""

from __future__ import annotations

import ipaddress
import typing as t
from pathlib import Path

from ansible_collections.dockersandbox.guardrails.plugins.module_utils import hosts, seal
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.places import Places

KIND = "pins"

Pins = dict[str, list[str]]


def path(places: Places) -> Path:
    """Return the file of a host's pins."""
    return Path(places.home, ".state", "pins.json")


def read(places: Places) -> Pins:
    """Return the pins of a host, name → addresses; none when none were ever sealed. Raises SealError when they were tampered with."""
    if not path(places).exists():
        return {}
    made = seal.verify_file(path(places), places.public_key, KIND)
    return {str(name): [str(address) for address in addresses] for name, addresses in made["predicate"]["pins"].items()}


def write(places: Places, pins: Pins, reason: str) -> None:
    """Seal *pins* in the place of those that there are. Raises SealError."""
    predicate = {"pins": {name: pins[name] for name in sorted(pins)}, "reason": reason, "time": seal.now()}
    seal.write(path(places), seal.sign(seal.statement({}, KIND, predicate), seal.load_private(places.host_key)))


def name_of(value: str) -> str:
    """Return a name in the form in which it is pinned; ValueError in one line for what is none."""
    try:
        host = hosts.parse(value)
    except ValueError as error:
        raise ValueError(f"name: {value!r} {error}") from None
    if host.address is not None:
        raise ValueError(f"name: {value!r} is an address, which has no need of a pin")
    return host.text


def addresses_of(values: t.Iterable[str]) -> list[str]:
    """Return addresses in the form in which they are pinned, sorted; ValueError in one line for what no rule can lead to."""
    found = set()
    for value in values:
        try:
            address = ipaddress.ip_address(value)
        except ValueError:
            raise ValueError(f"addresses: {value!r} is not an address in its plain form") from None
        if (kind := hosts.kind(address)) not in (None, hosts.PRIVATE):
            raise ValueError(f"addresses: {value} is a {kind} address, which is no destination")
        found.add(address)
    if not found:
        raise ValueError("addresses: there is none")
    return [str(address) for address in sorted(found, key=lambda address: (address.version, int(address)))]
