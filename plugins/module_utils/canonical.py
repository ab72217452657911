# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one form in which records are written, so that equal content has equal bytes and an equal sha256."""

from __future__ import annotations

import base64
import hashlib
import json
import stat
import typing as t

# What records call the types of directory entries.
TYPES = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "dir",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "char",
    stat.S_IFBLK: "block",
}


def dumps(value: t.Any) -> bytes:
    """Return *value* as canonical JSON: sorted keys, no blanks, UTF-8, no floats (after RFC 8785).

    Raises ValueError for a float, because its text form differs between writers, and UnicodeEncodeError for a lone
    surrogate: bytes that are not UTF-8 go through :func:`path_fields`.
    """
    _refuse_floats(value)
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def _refuse_floats(value: t.Any) -> None:
    if isinstance(value, float):
        raise ValueError(f"canonical JSON has no floats: {value!r}")
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise ValueError(f"canonical JSON has only text keys: {key!r}")
            _refuse_floats(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _refuse_floats(item)


def sha256_hex(data: bytes) -> str:
    """Return the sha256 of *data* as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def path_fields(path: bytes, key: str = "path") -> dict[str, str]:
    """Return the JSON field that holds *path*: ``{key: text}``, or ``{key_b64: …}`` for a name that is not UTF-8."""
    try:
        return {key: path.decode("utf-8")}
    except UnicodeDecodeError:
        return {f"{key}_b64": base64.b64encode(path).decode("ascii")}


def path_of(record: t.Mapping[str, t.Any], key: str = "path") -> bytes:
    """Return the bytes that :func:`path_fields` put into *record*; KeyError when neither field is there."""
    if key in record:
        return str(record[key]).encode("utf-8")
    return base64.b64decode(record[f"{key}_b64"], validate=True)


def printable(path: bytes) -> str:
    """Return *path* for a message: one line, no control characters, whatever the bytes are."""
    text = path.decode("utf-8", "backslashreplace")
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
