# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A service's configuration: one JSON file, checked as a whole before any of it counts."""

from __future__ import annotations

import typing as t
from pathlib import Path

import msgspec
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import atomic, canonical

T = t.TypeVar("T")


class ConfigError(Exception):
    """A configuration that cannot be used; the text is one line: the file, the path in it, and the reason."""


class Loaded(t.NamedTuple, t.Generic[T]):
    """A configuration, and the sha256 (hexadecimal) of the file it came from."""

    value: T
    sha256: str


def load(path: Path, kind: type[T]) -> Loaded[T]:
    """Return what the file at *path* says; *kind* is a frozen msgspec structure that names and bounds its fields."""
    try:
        content = atomic.read(path, limit=1 << 24)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {atomic.reason(error)}") from None
    if content is None:
        raise ConfigError(f"{path}: there is no such file")
    try:
        return Loaded(msgspec.json.decode(content, type=kind), canonical.sha256_hex(content))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: {error}") from None
