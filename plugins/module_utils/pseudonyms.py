# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keyed pseudonyms that can be forgotten: equal values have equal ones as long as their key is there.

Each group of values (secrets, personal data) has a key of its own for each month. When a key file is gone, nobody can
tell any more which value a pseudonym of that month stood for, not even by trying all telephone numbers.
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
import os
import re
import secrets
import time
import typing as t
from pathlib import Path

from ansible_collections.dockersandbox.guardrails.plugins.module_utils import atomic

GROUPS = ("secret", "personal")
DIGITS = 12
KEY_BYTES = 32
_NAME = re.compile(r"(secret|personal)-(\d{4}-\d\d)\.key", re.ASCII)
_PERIOD = re.compile(r"\d{4}-(?:0[1-9]|1[0-2])", re.ASCII)


class PseudonymError(ValueError):
    """A key cannot be used, or what is asked for makes no sense; one line."""


class Pseudonyms:
    """The pseudonyms whose keys are in *folder* (0700, one file a group and month, made when first needed).

    *now* gives seconds since 1970. A key file is looked at whenever it is used, so that forgetting works at once in
    every process.
    """

    def __init__(self, folder: Path, now: t.Callable[[], float] = time.time) -> None:
        self.folder = folder
        self.now = now
        self._keys: dict[str, tuple[tuple[int, int], bytes]] = {}

    def of(self, group: str, value: str) -> str:
        """Return the pseudonym of *value*: 12 hexadecimal digits. Raises PseudonymError, OSError."""
        period = datetime.datetime.fromtimestamp(self.now(), datetime.UTC).strftime("%Y-%m")
        key = self._key(f"{group}-{period}.key")
        return hmac.digest(key, value.encode("utf-8", "surrogatepass"), "sha256").hex()[:DIGITS]

    def _key(self, name: str) -> bytes:
        path = self.folder / name
        try:
            found = path.lstat()
        except FileNotFoundError:
            self._make(path)
            found = path.lstat()
        mark = (found.st_ino, found.st_mtime_ns)
        known = self._keys.get(name)
        if known is None or known[0] != mark:
            known = (mark, _read(path))
            # Of each group only the key in use is kept in memory.
            self._keys = {other: one for other, one in self._keys.items() if other.partition("-")[0] != name.partition("-")[0]}
            self._keys[name] = known
        return known[1]

    def _make(self, path: Path) -> None:
        self.folder.mkdir(mode=0o700, exist_ok=True)
        atomic.write(path, secrets.token_bytes(KEY_BYTES), 0o600, temporary=f".{path.name}.{os.getpid()}")

    def forget(self, until: str, groups: t.Collection[str] = GROUPS) -> list[str]:
        """Forget as :func:`forget` does, in this process too."""
        gone = forget(self.folder, until, groups)
        for name in gone:
            self._keys.pop(name, None)
        return gone


def _read(path: Path) -> bytes:
    key = atomic.read(path, limit=KEY_BYTES + 1) or b""
    if len(key) != KEY_BYTES:
        raise PseudonymError(f"{path} is no key of {KEY_BYTES} bytes: restore it, or remove it to begin a new one")
    return key


def forget(folder: Path, until: str, groups: t.Collection[str] = GROUPS) -> list[str]:
    """Remove the keys of *groups* for all months up to and with *until* (``2026-11``); return the names of the files.

    What is logged of the same month afterwards has new pseudonyms. Raises PseudonymError for what is no month or group.
    """
    if not _PERIOD.fullmatch(until):
        raise PseudonymError(f"{until!r} is no month: write it like 2026-11")
    for group in groups:
        if group not in GROUPS:
            raise PseudonymError(f"there is no group {group!r} of pseudonyms; the groups are: {', '.join(GROUPS)}")
    gone = []
    for path in sorted(folder.glob("*.key")) if folder.is_dir() else ():
        match = _NAME.fullmatch(path.name)
        if match and match[1] in groups and match[2] <= until:
            path.unlink()
            gone.append(path.name)
    if gone:
        atomic.sync_folder(folder)
    return gone


def keyed(key: bytes, value: str) -> str:
    """Return the whole keyed hash of *value*, 64 hexadecimal digits (BLAKE2s, for its speed on short texts)."""
    return hashlib.blake2s(value.encode("utf-8", "surrogatepass"), key=key).hexdigest()
