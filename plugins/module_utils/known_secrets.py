# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host's own secrets, found in any text by who does not have them.

Of each secret the file holds keyed hashes: one of its longest run of letters and digits, one of the whole. In a text only
runs of a length that occurs are hashed, so that the search takes microseconds; a window that slides over every character
would take a hash a character and length. A run is an anchor: from it the whole is measured off and hashed as well.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import typing as t
from pathlib import Path

from ansible_collections.dockersandbox.guardrails.plugins.module_utils import atomic, canonical
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.pseudonyms import keyed

NAME = "known.json"
LEAST_RUN = 8
_RUN = re.compile(r"[A-Za-z0-9]{8,}", re.ASCII)


class KnownSecretsError(ValueError):
    """A secret cannot be looked for, or the file of hashes is not one; one line."""


class KnownSecrets:
    """What :func:`remember` put into *folder*; nothing when there is no file. Raises KnownSecretsError, OSError.

    :meth:`changed` before each text that is looked at makes what changes in the file known at once in every process.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME
        self._read(self._marked())

    def changed(self) -> bool:
        """Return whether the file is another than before, and go by what it says now. Raises KnownSecretsError, OSError."""
        mark = self._marked()
        if mark == self._mark:
            return False
        self._read(mark)
        return True

    def _read(self, mark: tuple[int, int] | None) -> None:
        self._key, entries = _load(self._path)
        self._by_run: dict[str, list[dict[str, t.Any]]] = {}
        for entry in entries.values():
            self._by_run.setdefault(entry["run"], []).append(entry)
        sizes = sorted({entry["size"] for entry in entries.values()}, reverse=True)
        runs = "|".join(f"[A-Za-z0-9]{{{size}}}" for size in sizes)
        self._runs = re.compile(rf"(?<![A-Za-z0-9])(?:{runs})(?![A-Za-z0-9])", re.ASCII) if sizes else None
        self._mark = mark

    def _marked(self) -> tuple[int, int] | None:
        try:
            found = os.lstat(self._path)
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_mtime_ns

    def find(self, text: str) -> t.Iterator[tuple[int, int]]:
        """Yield the places (start, end) of known secrets in *text*: the whole secret, or its run where the rest differs."""
        if self._runs is None:
            return
        for match in self._runs.finditer(text):
            for entry in self._by_run.get(keyed(self._key, match[0]), ()):
                start = match.start() - entry["start"]
                end = start + entry["length"]
                whole = start >= 0 and keyed(self._key, text[start:end]) == entry["whole"]
                yield (start, end) if whole else match.span()


def remember(folder: Path, values: t.Mapping[str, str]) -> None:
    """Have each of *values* (name of the secret: the secret) looked for; a name that is there is replaced.

    Raises KnownSecretsError, and nothing is changed, for a secret without a run of 8 letters or digits; OSError.
    """
    key, entries = _load(folder / NAME)
    key = key or secrets.token_bytes(32)
    _save(folder / NAME, key, {**entries, **{name: _entry(key, name, value) for name, value in values.items()}})


def _entry(key: bytes, name: str, value: str) -> dict[str, t.Any]:
    run = max(_RUN.finditer(value), key=lambda match: len(match[0]), default=None)
    if run is None:
        raise KnownSecretsError(f"{name}: a secret without a run of {LEAST_RUN} letters or digits cannot be looked for: choose another")
    return {
        "length": len(value),
        "run": keyed(key, run[0]),
        "size": len(run[0]),
        "start": run.start(),
        "whole": keyed(key, value),
    }


def differences(folder: Path, group: str, values: t.Mapping[str, str]) -> list[str]:
    """Return the names, ``group/NAME``, of what :func:`declare` would change. Raises as :func:`remember`."""
    key, entries = _load(folder / NAME)
    wanted = {f"{group}/{name}": _entry(key, name, value) for name, value in values.items()}
    there = {name: entry for name, entry in entries.items() if name.startswith(f"{group}/")}
    return sorted(name for name in wanted.keys() | there.keys() if wanted.get(name) != there.get(name))


def declare(folder: Path, group: str, values: t.Mapping[str, str]) -> None:
    """Have of the secrets named ``group/NAME`` exactly *values* looked for. Raises as :func:`remember`."""
    changed = differences(folder, group, values)
    if new := {name: values[name.partition("/")[2]] for name in changed if name.partition("/")[2] in values}:
        remember(folder, new)
    unlearn(folder, set(changed) - set(new))


def unlearn(folder: Path, names: t.Iterable[str]) -> None:
    """No longer look for the secrets of these *names*; unknown names are nothing to do. Raises as :func:`remember`."""
    key, entries = _load(folder / NAME)
    gone = set(names) & set(entries)
    if gone:
        _save(folder / NAME, key, {name: entry for name, entry in entries.items() if name not in gone})


def _save(path: Path, key: bytes, entries: dict[str, dict[str, t.Any]]) -> None:
    found = atomic.owner(path.parent)
    # The folder's owner is who reads it: the recorder's account.
    _mode, uid, gid = found or (0, -1, -1)
    atomic.write(path, canonical.dumps({"v": 1, "key": key.hex(), "secrets": entries}) + b"\n", 0o600, uid, gid)


def _load(path: Path) -> tuple[bytes, dict[str, dict[str, t.Any]]]:
    content = atomic.read(path)
    if content is None:
        return b"", {}
    try:
        found = json.loads(content)
        key, entries = bytes.fromhex(found["key"]), found["secrets"]
        sound = found["v"] == 1 and len(key) == 32
        for entry in entries.values():
            sound = sound and {name: type(value) for name, value in entry.items()} == _FIELDS
    except (ValueError, KeyError, TypeError, AttributeError):
        sound = False
    if not sound:
        raise KnownSecretsError(f"{path} is not a file of known secrets: remove it, and have the phases write it again")
    return key, entries


_FIELDS = {"length": int, "run": str, "size": int, "start": int, "whole": str}
