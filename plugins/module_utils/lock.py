# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Locks: ``NAME.sha256`` beside an authored file, in the format that ``sha256sum -c`` reads.

A write announces itself first: ``NAME.sha256.new`` holds the coming digest, then the content is replaced, then the
announcement becomes the lock. Whatever a kill leaves behind is told apart from tampering by what the file's own digest
is: the old lock's or the announced one.
"""

from __future__ import annotations

import hashlib
import os
import re
import typing as t
from pathlib import Path

from ansible_collections.dockersandbox.guardrails.plugins.module_utils import atomic
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.canonical import printable, sha256_hex

SUFFIX = ".sha256"
INTENT = ".sha256.new"
TEMPORARY = ".sha256.tmp"

_LINE = re.compile(rb"(\\?)([0-9a-f]{64}) [ *]([^\n]+)\n?")
_ESCAPES = {b"\\": b"\\\\", b"\n": b"\\n", b"\r": b"\\r"}


class LockError(Exception):
    """A file that must not be touched, or a lock that cannot be written; the text is one line for the operator."""


class Problem(t.NamedTuple):
    """What is wrong with one locked file; as text, one line that says what to do."""

    path: Path
    kind: t.Literal["changed", "missing", "unlocked", "broken", "absent", "interrupted"]
    text: str

    def __str__(self) -> str:
        return f"{show(self.path)}: {self.text}"

    @property
    def tampering(self) -> bool:
        """Whether a later write must stop here."""
        return self.kind not in {"absent", "interrupted"}


def show(path: Path) -> str:
    """Return *path* for a message, on one line whatever its bytes are."""
    return printable(os.fsencode(path))


def lock_of(path: Path) -> Path:
    """Return where the lock of *path* is."""
    return path.with_name(path.name + SUFFIX)


def line(name: bytes, digest: str) -> bytes:
    """Return the lock's content for a file called *name* (no folder), as ``sha256sum`` would print it."""
    escaped = re.sub(rb"[\\\n\r]", lambda found: _ESCAPES[found[0]], name)
    return (b"\\" if escaped != name else b"") + digest.encode() + b"  " + escaped + b"\n"


def digest_of(path: Path) -> str | None:
    """Return the sha256 of the regular file *path*, or None when nothing is there. Raises OSError, links included."""
    opened = atomic.open_regular(path)
    if opened is None:
        return None
    with opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _recorded(path: Path, suffix: str) -> str | None:
    """Return the digest in the lock or announcement of *path*: None when there is none, "" for an unreadable one."""
    content = atomic.read(path.with_name(path.name + suffix), limit=4096)
    if content is None:
        return None
    found = _LINE.fullmatch(content)
    if not found or content != line(os.fsencode(path.name), found[2].decode()):
        return ""
    return found[2].decode()


def check(path: Path) -> Problem | None:
    """Compare *path* with its lock: None when they agree, else the one problem there is.

    A problem of kind ``interrupted`` is what a killed write leaves; the next write repairs it.
    """
    try:
        locked, announced, actual = _recorded(path, SUFFIX), _recorded(path, INTENT), digest_of(path)
    except OSError as error:
        return Problem(path, "broken", f"it or its lock cannot be read: {atomic.reason(error)}")
    if "" in {locked, announced}:
        name = path.name + (SUFFIX if locked == "" else INTENT)
        return Problem(
            path,
            "broken",
            f"{show(path.with_name(name))} is not a line of sha256sum for this name; restore it, or delete it and the file to have both written again",
        )
    if announced is not None and (actual in {locked, announced} or actual is locked is None):
        return Problem(path, "interrupted", "writing it was interrupted; run the same play again to complete it")
    if actual is None:
        if locked is None:
            return Problem(path, "absent", "there is no such file")
        return Problem(path, "missing", "the file is gone, its lock is there; restore the file, or delete the lock too")
    if locked is None:
        return Problem(path, "unlocked", "the file is there without a lock; move it away to have it written again, or lock it")
    if actual != locked:
        return Problem(
            path,
            "changed",
            f"its sha256 is {actual[:12]}…, its lock says {locked[:12]}…; restore the file, or delete both it and its lock to have it written again",
        )
    return None


def write_locked(path: Path, content: bytes, mode: int = 0o644, uid: int = -1, gid: int = -1) -> None:
    """Write *path* and its lock, replacing what was there; durable, and safe against a kill at any moment.

    Raises LockError when the file or its lock was tampered with (nothing is changed then) and OSError when the disk
    refuses; after that the file is either as it was or interrupted.
    """
    problem = check(path)
    if not (problem and problem.kind == "unlocked" and digest_of(path) == sha256_hex(content)):
        _refuse(path)
    _complete(path)
    _announce(path, sha256_hex(content), mode, uid, gid)
    atomic.write(path, content, mode, uid, gid, temporary=path.name + TEMPORARY)
    _settle(path)


def lock(path: Path) -> bool:
    """Write the lock of an existing file that has none; return whether one was written.

    Raises LockError when there is no such file, or its lock disagrees with it.
    """
    problem = check(path)
    if problem is None:
        return False
    if problem.kind == "interrupted" and _complete(path):
        return True
    if problem.kind != "unlocked":
        raise LockError(str(problem))
    actual, found = digest_of(path), atomic.owner(path)
    if actual is None or found is None:
        raise LockError(f"{show(path)}: vanished while it was locked; run again")
    _announce(path, actual, *found)
    _settle(path)
    return True


def remove_locked(path: Path) -> bool:
    """Delete *path* and its lock; return whether anything was there. Raises LockError when it was tampered with."""
    problem = check(path)
    if problem is not None and problem.kind == "absent":
        return False
    _refuse(path)
    _complete(path)
    # The lock turns back into an announcement, so that a kill before the end is not taken for tampering.
    if lock_of(path).exists():
        lock_of(path).replace(path.with_name(path.name + INTENT))
        atomic.sync_folder(path.parent)
    for name in (path.name, path.name + TEMPORARY, path.name + INTENT):
        path.with_name(name).unlink(missing_ok=True)
    atomic.sync_folder(path.parent)
    return True


def locked(folder: Path, without: t.Callable[[str], bool]) -> list[Path]:
    """Return, sorted, the files below *folder* that have a lock or the announcement of one; links are not followed.

    Folders for which *without* is true are left out. Raises OSError for one that cannot be read: what was not looked at
    must not count as whole.
    """
    found = set()
    for parent, folders, names in os.walk(folder, onerror=_raise):
        folders[:] = [name for name in folders if not without(os.path.join(parent, name))]
        for name in names:
            for suffix in (SUFFIX, INTENT):
                if name.endswith(suffix) and name != suffix:
                    found.add(Path(parent, name.removesuffix(suffix)))
    return sorted(found)


def _raise(error: OSError) -> None:
    raise error


def _refuse(path: Path) -> None:
    problem = check(path)
    if problem is not None and problem.tampering:
        raise LockError(str(problem))


def _complete(path: Path) -> bool:
    """End an interrupted write by what the file holds; return whether the file has its lock now."""
    announced, actual = _recorded(path, INTENT), digest_of(path)
    if announced is None or actual is None:
        return False
    # The announcement is the only proof of a content already in place; of one that never came it is in the way.
    if actual == announced:
        _settle(path)
    else:
        path.with_name(path.name + INTENT).unlink()
    return True


def _announce(path: Path, digest: str, mode: int, uid: int, gid: int) -> None:
    intent = path.with_name(path.name + INTENT)
    atomic.write(intent, line(os.fsencode(path.name), digest), mode & 0o666, uid, gid, temporary=path.name + TEMPORARY)


def _settle(path: Path) -> None:
    path.with_name(path.name + INTENT).replace(lock_of(path))
    atomic.sync_folder(path.parent)


class Wanted(t.NamedTuple):
    """How one authored file must be; *content* None means: neither it nor its lock."""

    path: Path
    content: bytes | None
    mode: int
    uid: int
    gid: int


class Step(t.NamedTuple):
    """One file that is not as wanted: what will be done and why, and its content before (None: no file)."""

    wanted: Wanted
    does: t.Literal["write", "own", "remove"]
    text: str
    before: bytes | None


def plan(files: t.Iterable[Wanted]) -> list[Step]:
    """Return what must be done so that every file is as wanted; nothing is changed.

    Raises LockError naming all the files that were tampered with or cannot be written.
    """
    steps, problems = [], []
    for wanted in files:
        try:
            step = _step(wanted)
        except LockError as error:
            problems.append(str(error))
        except OSError as error:
            problems.append(f"{show(wanted.path)}: {atomic.reason(error)}")
        else:
            if step:
                steps.append(step)
    if problems:
        raise LockError("; ".join(problems))
    return steps


def apply(step: Step) -> None:
    """Do one step of :func:`plan`, and make the folders it needs (0755, of the file's owner)."""
    path, content, mode, uid, gid = step.wanted
    if step.does == "own":
        atomic.set_owner(path, mode, uid, gid)
        atomic.set_owner(lock_of(path), mode & 0o666, uid, gid)
    elif content is None:
        remove_locked(path)
    else:
        for folder in atomic.missing_folders(path):
            folder.mkdir()
            folder.chmod(0o755)
            os.chown(folder, uid, gid)
        write_locked(path, content, mode, uid, gid)


def _step(wanted: Wanted) -> Step | None:
    path, content, mode, uid, gid = wanted
    problem = check(path)
    before = None if problem and problem.kind == "broken" else atomic.read(path)
    if problem and problem.kind == "unlocked" and content == before:
        return Step(wanted, "write", f"Locked {show(path)}: it was as wanted, without a lock", before)
    if problem and problem.tampering:
        raise LockError(str(problem))
    if content is None:
        if problem and problem.kind == "absent":
            return None
        return Step(wanted, "remove", f"Removed {show(path)} and its lock", before)
    if problem and problem.kind == "interrupted":
        return Step(wanted, "write", f"Wrote {show(path)}: an earlier write was interrupted", before)
    if problem:
        tuple(atomic.missing_folders(path))
        return Step(wanted, "write", f"Wrote {show(path)}: it was not there", before)
    if before != content:
        return Step(wanted, "write", f"Wrote {show(path)}: its content differed", before)
    for name, expected in ((path, mode), (lock_of(path), mode & 0o666)):
        found = atomic.owner(name)
        if found != (expected, uid, gid):
            was = "gone" if found is None else f"{found[0]:04o} {found[1]}:{found[2]}"
            text = f"Set {show(name)} to {expected:04o} {uid}:{gid}: it was {was}"
            return Step(wanted, "own", text, before)
    return None
