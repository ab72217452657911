# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What root may ask of egress on its ``admin.sock``: its status, addresses of names, and egress tokens."""

from __future__ import annotations

import time
import typing as t

from ansible_collections.dockersandbox.guardrails.plugins.module_utils import hosts
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.recorder import RecorderError

from dockersandbox.common.admin import Refused
from dockersandbox.common.resolver import ResolveError
from dockersandbox.egress.gate import Egress

_ROOT = {"type": "host", "name": "root"}


class Admin:
    """The commands. *told* is what the service itself has to say of its configuration, *token_ports* what tokens may be for."""

    def __init__(self, egress: Egress, told: t.Callable[[], dict[str, t.Any]], token_ports: t.Callable[[], t.Collection[int]]) -> None:
        self._egress = egress
        self._told = told
        self._token_ports = token_ports
        self._commands = {"status": self._status, "tokens": self._tokens, "mint": self._mint, "revoke": self._revoke, "resolve": self._resolve}

    async def answer(self, message: dict[str, t.Any]) -> dict[str, t.Any]:
        """Return the answer to one command. Raises Refused."""
        command = self._commands.get(str(message.get("command")))
        if command is None:
            raise Refused(f"command: {message.get('command')!r} is not one of {', '.join(self._commands)}")
        try:
            return await command({key: value for key, value in message.items() if key != "command"})
        except (ValueError, TypeError, ResolveError) as error:
            raise Refused(str(error)) from None
        except RecorderError as error:
            raise Refused(f"nothing was done: {error}") from None

    async def _status(self, _message: dict[str, t.Any]) -> dict[str, t.Any]:
        egress = self._egress
        sandboxes = {}
        for name in egress.policy.sandboxes:
            ration = egress.ration(name)
            sandboxes[name] = {"connections": ration.open, "bytes_today": ration.today(time.time())}
        observed = {name: sorted(map(str, addresses)) for name, addresses in sorted(egress.observed.items())}
        return {**self._told(), "policy_sha256": egress.policy.sha256, "sandboxes": sandboxes, "unpinned": observed}

    async def _tokens(self, _message: dict[str, t.Any]) -> dict[str, t.Any]:
        return {"tokens": [token.status() for token in self._egress.tokens.living(time.time())]}

    async def _mint(self, message: dict[str, t.Any]) -> dict[str, t.Any]:
        egress = self._egress
        sandbox, reason = message.get("sandbox"), message.get("reason")
        if sandbox not in egress.policy.sandboxes:
            raise Refused(f"sandbox: {sandbox!r} is not one of {', '.join(egress.policy.sandboxes) or 'none'}")
        rule, seconds = message.get("rule"), message.get("seconds")
        uses, size = message.get("uses"), message.get("bytes")
        whole = isinstance(seconds, int) and all(value is None or isinstance(value, int) for value in (uses, size))
        if not isinstance(rule, dict) or not isinstance(reason, str) or not isinstance(seconds, int) or not whole:
            raise Refused("mint: takes sandbox, rule (a mapping), seconds, reason, and may take uses and bytes (whole numbers)")
        secret, token = egress.tokens.mint(sandbox, rule, seconds, uses, size, reason, time.time())
        # More the wall around this process would not let through.
        closed = sorted(set(token.rule.ports) - set(self._token_ports()))
        if closed or token.rule.allow_private:
            egress.tokens.revoke(token.id)
            what = f"ports: {closed[0]} is not in network_token_ports" if closed else "allow_private: is for rules alone"
            raise Refused(f"{what}: no token may be for that")
        try:
            await self._record("network.mint", token.status(), reason)
        except RecorderError:
            egress.tokens.revoke(token.id)
            raise
        return {**token.status(), "secret": secret}

    async def _revoke(self, message: dict[str, t.Any]) -> dict[str, t.Any]:
        # What takes leave away is done first, whether or not it can be recorded.
        token = self._egress.revoke(str(message.get("id")))
        if token is None:
            raise Refused(f"id: there is no token {message.get('id')!r}")
        await self._record("network.revoke", token.status(), str(message.get("reason", "")))
        return token.status()

    async def _resolve(self, message: dict[str, t.Any]) -> dict[str, t.Any]:
        name = message.get("name")
        host = hosts.parse(name) if isinstance(name, str) else None
        if host is None or host.address is not None:
            raise Refused(f"name: {name!r} is not a name")
        if not any(rule.covers(host) for permitted in self._egress.policy.sandboxes.values() for rule in permitted.rules):
            raise Refused(f"name: no rule allows {host.text}, so it is not asked for")
        event = {"action": "network.resolve", "class": "dns_activity", "actor": _ROOT, "resource": host.text, "decision": "allow", "outcome": "unknown"}
        await self._egress.record(event)
        return {"name": host.text, "addresses": sorted(map(str, await self._egress.resolver.ask(host.text)))}

    async def _record(self, action: str, token: dict[str, t.Any], reason: str) -> None:
        detail = {key: value for key, value in token.items() if key in ("id", "until", "uses", "bytes") and value is not None}
        event = {
            "action": action,
            "class": "authorize_session",
            "actor": _ROOT,
            "sandbox": token["sandbox"],
            "resource": token["rule"],
            "reason": reason,
            "outcome": "success",
            "detail": detail,
        }
        await self._egress.record(event)
