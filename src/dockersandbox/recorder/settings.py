# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the recorder can be told."""

from __future__ import annotations

import typing as t

import msgspec

Positive = t.Annotated[int, msgspec.Meta(ge=1)]
Natural = t.Annotated[int, msgspec.Meta(ge=0)]
Absolute = t.Annotated[str, msgspec.Meta(pattern="^/")]
Sender = t.Annotated[str, msgspec.Meta(pattern="^[a-z][a-z0-9-]*$", max_length=32)]


class Rotation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When the live file becomes a segment: at a size in bytes, or an age in seconds."""

    bytes: t.Annotated[int, msgspec.Meta(ge=1 << 16)] = 64 << 20
    seconds: Positive = 86400


class Retention(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When sealed segments are removed: older than *seconds*, or above *bytes* (compressed) in all. 0: never."""

    seconds: Natural = 0
    bytes: Natural = 0


class Ration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one sandbox may have recorded: events and bytes a second, and *burst* seconds of that at once."""

    events: Positive = 500
    bytes: Positive = 1 << 20
    burst: Positive = 10


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """For one sender: its connections at a time, and the seconds in which a frame that has begun must be complete."""

    connections: Positive = 64
    stall: Positive = 10


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All of it. *head*: seconds between signed heads; *reserve*: bytes of the disk below which nothing is recorded."""

    logs: Absolute
    keys: Absolute
    sockets: Absolute = "/run/guardrails/recorder"
    senders: t.Annotated[list[Sender], msgspec.Meta(min_length=1)]
    redaction: dict[str, t.Any]
    rotation: Rotation = Rotation()
    retention: Retention = Retention()
    ration: Ration = Ration()
    limits: Limits = Limits()
    head: Positive = 1
    reserve: Natural = 32 << 20

    def fixed(self) -> tuple[str, str, str]:
        """Return what only a new start can change."""
        return self.logs, self.keys, self.sockets
