# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which addresses of a provider's name the gateway connects to."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import typing as t

import pytest

from dockersandbox.llm.names import Names


class Known:
    """A resolver that knows *addresses*."""

    def __init__(self, *addresses: str) -> None:
        self._addresses = tuple(map(ipaddress.ip_address, addresses))

    async def ask(self, _name: str) -> tuple[t.Any, ...]:
        return self._addresses

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("addresses", "private", "found"),
    [
        (["192.0.9.1", "2600::1", "10.1.2.3"], False, ["192.0.9.1"]),
        (["192.0.9.1", "10.1.2.3"], True, ["192.0.9.1", "10.1.2.3"]),
        (["10.1.2.3"], False, None),
        (["127.0.0.1", "169.254.169.254"], True, None),
    ],
)
def test_a_name_s_addresses(addresses: list[str], private: bool, found: list[str] | None, capsys: pytest.CaptureFixture[str]) -> None:
    names = Names(t.cast("t.Any", Known(*addresses)), private)
    if found is None:
        with pytest.raises(OSError, match="a.example has only addresses that no provider may have"):
            asyncio.run(names.resolve("a.example", 443))
        assert "a.example has only" in "".join(capsys.readouterr())
        return
    got = asyncio.run(names.resolve("a.example", 443))
    assert [(one["host"], one["port"], one["family"]) for one in got] == [(address, 443, socket.AF_INET) for address in found]
