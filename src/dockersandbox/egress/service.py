# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The process: configuration, doors, admin socket and signals, around a gate that knows none of them."""

from __future__ import annotations

import asyncio
import gc
import importlib.resources
import json
import os
import typing as t
from pathlib import Path

from ansible_collections.dockersandbox.guardrails.plugins.module_utils import allowlist, canonical, hosts
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.allowlist import Policy
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.hosts import Address
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.recorder import RecorderError

from dockersandbox.common.admin import serve
from dockersandbox.common.config import ConfigError
from dockersandbox.common.resolver import Resolver
from dockersandbox.common.service import say, signals
from dockersandbox.egress import pins
from dockersandbox.egress.admin import Admin
from dockersandbox.egress.doors import Doors
from dockersandbox.egress.gate import Egress, Record

_KEYS = {"groups", "sandboxes", "resolvers", "pins", "token_ports"}
# A tunnel's objects refer to each other. Looked for as often as by default, they cost more than they hold.
_GARBAGE = 10_000
_STOP = 5.0  # seconds to record the ends of what is cut when the process is stopped


class Config(t.NamedTuple):
    """A configuration that was read: *sha256* is that of the file, *token_ports* are what tokens may be for."""

    policy: Policy
    pinned: dict[str, frozenset[Address]]
    resolvers: tuple[str, ...]
    token_ports: frozenset[int]
    sha256: str


def suffixes() -> tuple[str, ...]:
    """Return the lines of the Public Suffix List, its section of private domains included."""
    text = importlib.resources.files("publicsuffixlist").joinpath("public_suffix_list.dat").read_text(encoding="utf-8")
    return tuple(text.splitlines())


def parse(content: bytes) -> Config:
    """Return the configuration in *content*. Raises ConfigError."""
    try:
        document = json.loads(content)
        if not isinstance(document, dict) or not set(document) <= _KEYS:
            raise ConfigError(f"a mapping with {', '.join(sorted(_KEYS))} is due, and nothing else")
        resolvers = tuple(_resolver(server) for server in document.get("resolvers", []))
        policy, pinned = allowlist.parse(document, suffixes()), pins.parse(document.get("pins", {}))
        return Config(policy, pinned, resolvers, frozenset(map(int, document.get("token_ports", []))), canonical.sha256_hex(content))
    except (ValueError, TypeError, allowlist.RulesError) as error:
        raise ConfigError(str(error)) from None


def _resolver(server: t.Any) -> str:
    host, port = hosts.authority(str(server), 53)
    if host.address is None:
        raise ConfigError(f"resolvers: {server!r} is not an address")
    return host.authority(port)


class Service:
    """The process. *folder* is that of its sockets, *config* the file that it reads."""

    def __init__(self, folder: str, config: str, record: Record) -> None:
        self._folder = folder
        self._path = config
        self._config = parse(self._read())
        self._problem = ""
        self._egress = Egress(record, Resolver(self._config.resolvers), self._config.policy, self._config.pinned)
        self._admin = Admin(self._egress, self._told, lambda: self._config.token_ports)
        self._doors = Doors(self._egress, os.path.join(folder, "sandboxes"))

    def _read(self) -> bytes:
        with open(self._path, "rb") as file:
            return file.read()

    def _told(self) -> dict[str, t.Any]:
        return {"config_sha256": self._config.sha256, "problem": self._problem}

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT."""
        gc.freeze()
        gc.set_threshold(_GARBAGE)
        loop, told = asyncio.get_running_loop(), signals()
        admin = await serve(Path(self._folder, "admin.sock"), self._admin.answer)
        tasks = [loop.create_task(work) for work in (self._reloading(told.reload), self._every(1, self._egress.sweep), self._every(10, self._egress.coalesced))]
        # Until the start is on record nobody gets in.
        opening = loop.create_task(self._begin())
        await told.end.wait()
        for task in (*tasks, opening):
            task.cancel()
        self._doors.close()
        admin.close()
        self._egress.coalesced()
        self._egress.insist(self._event("network.stop"))
        await self._egress.close(_STOP)

    async def _begin(self) -> None:
        while True:
            try:
                await self._egress.record(self._event("network.start"))
                break
            except RecorderError as error:
                say("egress", str(error))
        self._doors.converge(self._config.policy.sandboxes)

    async def _reloading(self, reload: asyncio.Event) -> None:
        while True:
            await reload.wait()
            reload.clear()
            await self._reload()

    async def _reload(self) -> None:
        try:
            config = parse(self._read())
        except (ConfigError, OSError) as error:
            self._problem = str(error)
            self._egress.insist(self._event("network.configure", outcome="failure", reason=self._problem))
            return
        narrowed = config.policy.sha256 != self._config.policy.sha256 or config.pinned != self._config.pinned
        if config.resolvers != self._config.resolvers:
            # Whoever waits for an answer of the others gets it still.
            self._egress.resolver = Resolver(config.resolvers)
        self._config, self._problem = config, ""
        if narrowed:
            self._egress.apply(config.policy, config.pinned)
            self._doors.converge(config.policy.sandboxes)
        self._egress.insist(self._event("network.configure"))

    def _event(self, action: str, *, outcome: str = "success", reason: str = "") -> dict[str, t.Any]:
        event: dict[str, t.Any] = {
            "action": action,
            "class": "device_config_state_change",
            "actor": {"type": "service", "name": "egress"},
            "policy_sha256": self._config.policy.sha256,
            "outcome": outcome,
        }
        return {**event, "reason": reason} if reason else event

    async def _every(self, seconds: float, work: t.Callable[[], None]) -> None:
        while True:
            await asyncio.sleep(seconds)
            work()
