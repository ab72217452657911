# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the service can be told."""

from __future__ import annotations

import typing as t

import msgspec

from dockersandbox.llm.calls import ServerTool

Positive = t.Annotated[int, msgspec.Meta(ge=1)]
Natural = t.Annotated[int, msgspec.Meta(ge=0)]
Absolute = t.Annotated[str, msgspec.Meta(pattern="^/")]
Name = t.Annotated[str, msgspec.Meta(pattern="^[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?$")]
Digest = t.Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class Upstream(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where calls go: *url* with the version of the interface in its path, or without one; *provider* by whose prices; *key_file* holds
    the key, *socket* is a unix socket to it. *allow_private*: a name may have addresses of private networks.

    *key_sha256* is that of the file: so a new key is another configuration, and one that is not meant is refused.
    """

    url: t.Annotated[str, msgspec.Meta(pattern="^https?://[^/?#@]+(/[^?#@]*)?$")]
    provider: t.Annotated[str, msgspec.Meta(pattern="^[a-z0-9][a-z0-9-]*$")]
    key_file: str = ""
    key_sha256: Digest | None = None
    socket: str = ""
    allow_private: bool = False


class Sandbox(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who calls: the sha256 of its token, and whose it is."""

    token_sha256: Digest
    team: Name | None = None


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """For one sandbox: requests and tokens a minute, calls and bytes of bodies at a time, connections."""

    requests: Positive = 600
    tokens: Positive = 20_000_000
    streams: Positive = 32
    bodies: Positive = 64 << 20
    connections: Positive = 128


class Breaker(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When a breaker opens: *failures* within *period* seconds; for *pause* seconds, and up to *longest*."""

    failures: Positive = 10
    period: Positive = 60
    pause: Positive = 15
    longest: Positive = 240


class Breakers(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The breakers; *velocity* is micro-dollars a minute of one sandbox (0: any), *repeats* how often it may send the same in one."""

    upstream: Breaker = Breaker()
    sandbox: Breaker = Breaker(failures=30)
    velocity: Natural = 0
    repeats: Positive = 20


class Rules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What may be asked: see :class:`calls.Rules`."""

    most_body: Positive = 32 << 20
    most_output: Positive = 128_000
    most_choices: Positive = 8
    clamp_least: Natural = 1024
    server_tools: dict[ServerTool, Positive] = {}


class Times(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Seconds: how long a call waits for others to settle, an answer is read whose client is gone, an upstream may take to
    connect, between two pieces and in all, a body to come in, and until a lost call counts as spent."""

    hold: t.Annotated[float, msgspec.Meta(ge=0, le=60)] = 5.0
    drain: Natural = 60
    connect: Positive = 10
    idle: Positive = 300
    whole: Positive = 1800
    body: Positive = 60
    lost: Positive = 3600


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All of it. *host* is the name by which budgets know this host; *metrics* a folder, *recorder* a socket;
    *resolvers* (addresses, with ``:port`` where it is not 53) know the addresses of upstreams' names."""

    host: Name
    ledger: Absolute
    sockets: Absolute = "/run/guardrails/llm"
    recorder: Absolute = "/run/guardrails/recorder/event.sock"
    metrics: str = ""
    anthropic: Upstream
    openai: Upstream
    resolvers: list[str] = []
    sandboxes: dict[Name, Sandbox]
    prices: list[dict[str, t.Any]] = []
    ceiling: dict[str, t.Any] | None = None
    rules: Rules = Rules()
    limits: Limits = Limits()
    breakers: Breakers = Breakers()
    times: Times = Times()

    def fixed(self) -> tuple[str, ...]:
        """Return what only a new start can change."""
        return self.host, self.ledger, self.sockets, self.recorder, self.metrics
