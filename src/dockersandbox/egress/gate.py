# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What stands between a request and the outside: decide, resolve, record, connect, in that order, and each only after the last.

Nothing leaves that is not on record: a DNS query for a name, then a connection, each after its event is durable.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import secrets
import time
import typing as t

from ansible_collections.dockersandbox.guardrails.plugins.module_utils.allowlist import DEFAULT, Limits, Permitted, Policy, Request, Rule
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.hosts import Address
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.recorder import Ack, RecorderError

from dockersandbox.common.resolver import ResolveError, Resolver
from dockersandbox.egress import pins
from dockersandbox.egress.rations import Names, Ration
from dockersandbox.egress.relay import Denied, Tunnel
from dockersandbox.egress.tokens import Token, Tokens

Record = t.Callable[[dict[str, t.Any]], t.Awaitable[Ack]]
_PATIENCE = 10  # seconds for a destination to accept a connection
_AGAIN = 0.5  # seconds between two tries to record an end
_COALESCED = 10  # seconds for which the same denial is counted, not recorded
_WAITING = 10_000  # events that wait for a recorder before denials no longer do
_CHOICES = 1000  # names for which it is kept which of their addresses may be connected to
_NOBODY, _UNLIMITED = Permitted(), Limits()
_KINDS = 100  # different denials of one sandbox that are told apart in that time


@dataclasses.dataclass
class _Repeated:
    event: dict[str, t.Any]
    count: int = 0


class Egress:
    """The gate of all sandboxes. *record* is awaited before anything leaves."""

    def __init__(self, record: Record, resolver: Resolver, policy: Policy, pinned: dict[str, frozenset[Address]]) -> None:
        self.record = record
        self.resolver = resolver
        self.policy = policy
        self.pinned = pinned
        self.tokens = Tokens()
        self.tunnels: set[Tunnel] = set()
        self.observed: dict[str, set[Address]] = {}  # addresses that were not pinned when they were seen
        self._rations: dict[tuple[str, str], Ration] = {}
        self._names: dict[tuple[str, str], Names] = {}
        self._choices: dict[str, tuple[Rule, tuple[Address, ...], pins.Choice]] = {}
        self._denials: dict[str, dict[tuple[str, str], _Repeated]] = {}
        self._instance = secrets.token_hex(4)
        self._late: set[asyncio.Task[None]] = set()

    # -- from the doors

    def ration(self, sandbox: str) -> Ration:
        """Return what counts against the limits of a sandbox."""
        return self._ration(sandbox, "", self.policy.sandboxes.get(sandbox, _NOBODY).limits)

    def _ration(self, sandbox: str, rule: str, limits: Limits) -> Ration:
        found = self._rations.get((sandbox, rule))
        if found is None:
            found = self._rations[sandbox, rule] = Ration(limits, time.time())
        found.limits = limits
        return found

    def arrived(self, tunnel: Tunnel) -> None:
        """Count a connection that a sandbox has made."""
        ration = self.ration(tunnel.sandbox)
        ration.take(time.time())
        tunnel.rations = (ration,)
        tunnel.idle = ration.limits.idle or 0
        self.tunnels.add(tunnel)

    # -- from the tunnels

    async def open(self, tunnel: Tunnel) -> None:
        """Decide over a tunnel's request, record, and connect. Raises Denied."""
        request = tunnel.request
        assert request is not None
        policy, pinned = self.policy, self.pinned
        rule, token = self._decide(tunnel, request)
        tunnel.rule, tunnel.token = rule, token
        self._admit(tunnel, rule, request)
        addresses = await self._addresses(tunnel, rule, request)
        if token is not None:
            # Others may have used it up meanwhile.
            problem = token.problem(tunnel.sandbox, time.time())
            if problem or (token.uses is not None and token.uses <= 0):
                raise Denied(403, rule.id, problem or "the uses of the token are used up")
            if token.uses is not None:
                token.uses -= 1
        tunnel.address = addresses[0]
        tunnel.recorded = True
        try:
            await self.record(self._event(tunnel, "network.connect", decision="allow", outcome="unknown"))
        except RecorderError as error:
            tunnel.recorded = False
            raise Denied(503, rule.id, "nothing leaves that cannot be recorded, and the recorder does not answer") from error
        if self.policy is not policy or self.pinned is not pinned:
            raise Denied(503, rule.id, "the rules changed while this was being opened: try again")
        await self._connect(tunnel, rule, request, addresses)

    def _decide(self, tunnel: Tunnel, request: Request) -> tuple[Rule, Token | None]:
        decision, token = self.policy.decide(tunnel.sandbox, request), None
        if decision.rule is None and tunnel.exchange.secret:
            decision, token = self.tokens.decide(tunnel.exchange.secret, tunnel.sandbox, request, time.time())
        if decision.rule is None:
            raise Denied(403, decision.id, decision.reason)
        return decision.rule, token

    def _admit(self, tunnel: Tunnel, rule: Rule, request: Request) -> None:
        now = time.time()
        if tunnel.rations[0].over(now):
            raise Denied(429, DEFAULT, tunnel.rations[0].refused(now))
        if rule.suffix:
            names = self._names.setdefault((tunnel.sandbox, rule.id), Names())
            if not names.take(request.host.text, rule.names, now):
                raise Denied(429, rule.id, f"{rule.names} names below {rule.pattern} were used in a day, and no more are allowed")
        if rule.limits != _UNLIMITED:
            ration = self._ration(tunnel.sandbox, rule.id, rule.limits)
            if refused := ration.refused(now):
                raise Denied(429, rule.id, refused)
            ration.take(now)
            tunnel.rations = (*tunnel.rations, ration)
            tunnel.idle = rule.limits.idle or tunnel.idle

    async def _addresses(self, tunnel: Tunnel, rule: Rule, request: Request) -> tuple[Address, ...]:
        if request.host.address is not None:
            return (request.host.address,)
        name = request.host.text
        answers = self.resolver.known(name)
        if answers is None:
            try:
                await self.record(self._event(tunnel, "network.resolve", decision="allow", class_="dns_activity"))
            except RecorderError as error:
                raise Denied(503, rule.id, "nothing is asked for that cannot be recorded, and the recorder does not answer") from error
            try:
                answers = await self.resolver.ask(name)
            except ResolveError as error:
                raise Denied(504 if error.late else 502, rule.id, str(error)) from None
        known = self._choices.get(name)
        if known is not None and known[0] is rule and known[1] is answers:
            choice = known[2]
        else:
            choice = pins.choose(rule, name, answers, self.pinned.get(name, frozenset()))
            if choice.fresh:
                self._fresh(tunnel, name, choice)
            if len(self._choices) >= _CHOICES:
                self._choices.clear()
            self._choices[name] = rule, answers, choice
        if choice.denied:
            raise Denied(403, rule.id, choice.denied)
        return choice.addresses

    def _fresh(self, tunnel: Tunnel, name: str, choice: pins.Choice) -> None:
        seen = self.observed.setdefault(name, set())
        new = sorted(map(str, set(choice.fresh) - seen))
        if new:
            seen |= set(choice.fresh)
            event = self._event(tunnel, "network.pin", decision="deny" if choice.denied else "allow", class_="dns_activity", reason=choice.denied)
            event["detail"]["addresses"] = " ".join(new)
            self.insist(event)

    async def _connect(self, tunnel: Tunnel, rule: Rule, request: Request, addresses: tuple[Address, ...]) -> None:
        problem = ""
        tunnel.deadline = time.monotonic() + _PATIENCE
        for address in addresses:
            tunnel.address = address
            try:
                await tunnel.connect(str(address), request.port)
            except TimeoutError:
                raise Denied(504, rule.id, f"{request.host.text} does not answer at {address}") from None
            except OSError as error:
                problem = (error.strerror or "it cannot be reached").lower()
                continue
            tunnel.deadline = None
            return
        raise Denied(502, rule.id, f"{request.host.text} cannot be connected to: {problem}")

    def refused(self, tunnel: Tunnel, reason: str, rule: str) -> None:
        """Record a denial, and its repetitions once in a while as a number."""
        known = self._denials.setdefault(tunnel.sandbox, {})
        what = tunnel.request.host.authority(tunnel.request.port) if tunnel.request else ""
        key = (rule, what or reason) if len(known) < _KINDS else ("", "")
        if key in known:
            known[key].count += 1
            return
        if len(self._late) >= _WAITING:
            return
        event = self._event(tunnel, "network.connect", decision="deny", outcome="failure", reason=reason)
        event["policy_ids"] = [rule]
        known[key] = _Repeated({**event, "detail": dict(event["detail"])})
        self.insist(event)

    def moved(self, tunnel: Tunnel, count: int) -> None:
        """Count bytes, and cut the tunnel that takes too many."""
        for ration in tunnel.rations:
            ration.used += count
            most = ration.limits.bytes
            if most is not None and ration.used >= most and ration.over(time.time()):
                tunnel.cut(f"the {most} bytes of today are used up", denied=True)
                return
        if (token := tunnel.token) is not None and token.bytes is not None:
            token.bytes -= count
            if token.bytes <= 0:
                tunnel.cut("the bytes of the token are used up", denied=True)

    def ended(self, tunnel: Tunnel) -> None:
        """Record the end of what was opened."""
        if tunnel not in self.tunnels:
            return
        self.tunnels.discard(tunnel)
        for ration in tunnel.rations:
            ration.open -= 1
        if tunnel.recorded:
            decision = "deny" if tunnel.denied else None
            outcome = "failure" if tunnel.reason else "success"
            event = self._event(tunnel, "network.close", decision=decision, outcome=outcome, reason=tunnel.reason)
            event["detail"] |= {
                "bytes_sent": tunnel.sent,
                "bytes_received": tunnel.received,
                "duration_us": int((time.monotonic() - tunnel.opened) * 1_000_000),
            }
            self.insist(event)

    # -- from the operator

    def apply(self, policy: Policy, pinned: dict[str, frozenset[Address]]) -> None:
        """Take other rules and pins: tunnels that they still allow go on, all others are cut now."""
        self.policy, self.pinned = policy, pinned
        self._choices.clear()
        for tunnel in list(self.tunnels):
            if tunnel.request is None or tunnel.over:
                continue
            if tunnel.token is None:
                decision = policy.decide(tunnel.sandbox, tunnel.request)
                if decision.rule is None:
                    tunnel.cut(f"the rules changed: {decision.reason}", denied=True)
                    continue
                tunnel.rule = decision.rule
            name = tunnel.request.host.text
            if tunnel.rule is not None and tunnel.address is not None and tunnel.request.host.address is None:
                choice = pins.choose(tunnel.rule, name, [tunnel.address], pinned.get(name, frozenset()))
                if choice.denied:
                    tunnel.cut(f"the pins changed: {choice.denied}", denied=True)
        for sandbox in {sandbox for sandbox, rule in self._rations if not rule}:
            self.ration(sandbox)

    def revoke(self, this: str) -> Token | None:
        """Revoke a token and cut what it opened; None when there is none with the id *this*."""
        token = self.tokens.revoke(this)
        if token is not None:
            for tunnel in list(self.tunnels):
                if tunnel.token is token:
                    tunnel.cut("the token was revoked", denied=True)
        return token

    def sweep(self) -> None:
        """Cut what has waited too long and what a token no longer allows; called every second."""
        now, today = time.monotonic(), time.time()
        for tunnel in list(self.tunnels):
            if tunnel.deadline is not None:
                if now >= tunnel.deadline:
                    tunnel.waited()
            elif tunnel.relaying and tunnel.idle and now - tunnel.last >= tunnel.idle:
                tunnel.cut(f"no byte passed for {tunnel.idle} s")
            if tunnel.token is not None and not tunnel.over and today >= tunnel.token.until:
                tunnel.cut("the token has expired", denied=True)

    def coalesced(self) -> None:
        """Record how often denials were repeated; called every few seconds."""
        denials, self._denials = self._denials, {}
        for known in denials.values():
            for repeated in known.values():
                if repeated.count:
                    repeated.event["detail"]["repeated"] = repeated.count
                    self.insist(repeated.event)

    # -- events

    def _event(
        self, tunnel: Tunnel, action: str, *, class_: str = "", decision: str | None = None, outcome: str = "unknown", reason: str = ""
    ) -> dict[str, t.Any]:
        request, rule = tunnel.request, tunnel.rule
        detail: dict[str, t.Any] = {"connection": f"{self._instance}-{tunnel.number}"}
        event = {
            "action": action,
            "class": class_ or ("http_activity" if request and request.scheme == "http" else "network_activity"),
            "actor": {"type": "sandbox", "name": tunnel.sandbox},
            "sandbox": tunnel.sandbox,
            "decision": decision,
            "policy_ids": [rule.id] if rule else [DEFAULT],
            "policy_sha256": self.policy.sha256,
            "outcome": outcome,
            "detail": detail,
        }
        if reason:
            event["reason"] = reason
        if request is not None:
            event["resource"] = request.host.authority(request.port)
            if request.scheme == "http":
                # What follows a question mark is the client's own business, and may be a secret.
                event["resource"] = f"{request.method} http://{event['resource']}{request.path.partition('?')[0][:1024]}"
        if tunnel.address is not None:
            detail["address"] = str(tunnel.address)
        if tunnel.token is not None:
            detail["token"] = tunnel.token.id
        return event

    def insist(self, event: dict[str, t.Any]) -> None:
        """Record *event* however long that takes: it tells of what has happened, so nothing can wait for it."""
        task = asyncio.get_running_loop().create_task(self._insist(event))
        self._late.add(task)
        task.add_done_callback(self._late.discard)

    async def _insist(self, event: dict[str, t.Any]) -> None:
        while True:
            try:
                await self.record(event)
                return
            except RecorderError:
                await asyncio.sleep(_AGAIN)

    async def close(self, patience: float) -> None:
        """Cut all tunnels, and record their ends within *patience* seconds."""
        for tunnel in list(self.tunnels):
            tunnel.cut("egress is being stopped")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                # Their ends are told by the loop's next rounds.
                while self.tunnels or self._late:
                    await asyncio.sleep(0.01)
        self.resolver.close()
