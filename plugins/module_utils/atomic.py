# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that are there whole or not at all, also after a kill or a loss of power."""

from __future__ import annotations

import io
import os
import stat
import typing as t
from pathlib import Path


def write(path: Path, content: bytes, mode: int = 0o644, uid: int = -1, gid: int = -1, temporary: str = "") -> None:
    """Put *content* at *path* with *mode* and owner (-1: the caller's): durable on return, never half-written.

    *temporary* is the name beside *path* that is used until the content is complete; a fixed one, so that what a kill
    leaves behind is replaced by the next run and does not pile up. Raises OSError.
    """
    spare = path.with_name(temporary or f".{path.name}.tmp")
    spare.unlink(missing_ok=True)
    handle = os.open(spare, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(handle, view) :]
        # The mode last: a change of owner clears the set-id bits.
        os.fchown(handle, uid, gid)
        os.fchmod(handle, mode)
        os.fsync(handle)
        spare.replace(path)
    except BaseException:
        spare.unlink(missing_ok=True)
        raise
    finally:
        os.close(handle)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in *folder* durable: a rename is only safe once its folder is."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def open_regular(path: Path) -> io.BufferedReader | None:
    """Open the regular file *path* for reading, or return None when nothing is there.

    Raises OSError for what cannot be read, and for a link, a folder or a special file: following or opening one could
    reach another file, or wait for ever.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(f"{path} is not a regular file")
    return os.fdopen(handle, "rb")


def read(path: Path, limit: int = 1 << 26) -> bytes | None:
    """Return the bytes of the regular file *path*, or None when nothing is there.

    Raises OSError as :func:`open_regular` does, and for more than *limit* bytes.
    """
    opened = open_regular(path)
    if opened is None:
        return None
    with opened:
        content = opened.read(limit + 1)
    if len(content) > limit:
        raise OSError(f"{path} is larger than {limit} bytes")
    return content


def reason(error: OSError) -> str:
    """Return why *error* happened, without Python's number and quoted path, for a one-line message."""
    return error.strerror or str(error)


def owner(path: Path) -> tuple[int, int, int] | None:
    """Return (mode, uid, gid) of *path* itself, links not followed, or None when nothing is there."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    return stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid


def set_owner(path: Path, mode: int, uid: int, gid: int) -> None:
    """Give the existing regular file *path* this mode and owner; a link is refused with OSError."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        # The mode last: a change of owner clears the set-id bits.
        os.fchown(handle, uid, gid)
        os.fchmod(handle, mode)
    finally:
        os.close(handle)


def missing_folders(path: Path) -> t.Iterator[Path]:
    """Yield the parents of *path* that do not exist, outermost first. Raises OSError when one is not a folder."""
    lacking = []
    for folder in path.parents:
        if folder.is_dir():
            break
        if folder.is_symlink() or folder.exists():
            raise OSError(f"{folder} is not a folder")
        lacking.append(folder)
    yield from reversed(lacking)
