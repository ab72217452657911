# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real overlays for tests, complete pictures of trees, and a seeded process that changes a tree at random."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import shutil
import stat
import subprocess
import typing as t
from pathlib import Path

OPTIONS = "index=on,redirect_dir=nofollow,metacopy=off,nosuid,nodev"


class Overlay(t.NamedTuple):
    """An overlay on real folders: *merged* is what a sandbox sees as /workspace."""

    lower: Path
    upper: Path
    merged: Path


@contextlib.contextmanager
def overlay(root: Path) -> t.Iterator[Overlay]:
    """Mount an overlay over *root*/lower, which the caller has filled; unmounted at the end, layers kept.

    Mounting needs root and a file system that an overlay may lie on: a test that has neither fails and says so.
    """
    lower, upper, work, merged = (root / name for name in ("lower", "upper", "work", "merged"))
    for folder in (upper, work, merged):
        folder.mkdir()
    origin = lower.stat()
    os.chown(upper, origin.st_uid, origin.st_gid)
    upper.chmod(stat.S_IMODE(origin.st_mode))
    options = f"{OPTIONS},lowerdir={lower},upperdir={upper},workdir={work}"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, merged], check=True)
    try:
        yield Overlay(lower, upper, merged)
    finally:
        subprocess.run(["umount", merged], check=True)


class Seen(t.NamedTuple):
    """One entry as lstat and its bytes tell it."""

    type: int
    mode: int
    uid: int
    gid: int
    content: bytes


def picture(root: Path) -> dict[bytes, Seen]:
    """Return every path below *root* and the root as the empty one; content is a digest, a link's target, or empty."""
    found = {}
    # os.fwalk would recurse in old Pythons and fail on paths longer than PATH_MAX: descriptors do not.
    todo = [(os.open(root, os.O_RDONLY), b"")]
    while todo:
        fd, folder = todo.pop()
        if not folder:
            found[b""] = _seen(".", fd)
        for name in os.listdir(fd):
            path = folder + b"/" + os.fsencode(name) if folder else os.fsencode(name)
            found[path] = _seen(name, fd)
            if stat.S_ISDIR(found[path].type):
                todo.append((os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=fd), path))
        os.close(fd)
    return found


def _seen(name: str, fd: int) -> Seen:
    info = os.stat(name, dir_fd=fd, follow_symlinks=False)
    content = b""
    if stat.S_ISREG(info.st_mode):
        with os.fdopen(os.open(name, os.O_RDONLY, dir_fd=fd), "rb") as file:
            content = hashlib.file_digest(file, "sha256").digest()
    elif stat.S_ISLNK(info.st_mode):
        content = os.fsencode(os.readlink(name, dir_fd=fd))
    return Seen(stat.S_IFMT(info.st_mode), stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid, content)


_NAMES = (
    b"a", b"b", b"c", b"d", b"e.txt", b"f g", b'q"uote', b"it's", b"back\\slash", b"new\nline", b"tab\t", b"-dash",
    b"\xff\xfe", "ä€😀".encode(), b"x" * 255, b".git", b".GIT", b"git~1", b".gitmodules", b".gitattributes", b"\x01\x7f",
    b"a.", b" lead", b"trail ", b"...", b"..x", b".git. ", b"dev", b"null", b"*", b"[a]", b":(glob)b", b"b.orig",
)  # fmt: skip
_BODIES = (
    b"", b"\n", b"one\n", b"one\ntwo\nthree\n", b"no end of line", b"dos\r\nlines\r\n", b"\0binary\xff" * 9, b"mixed\r\nends\n",
    b"diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n", b"* text=auto eol=crlf\n*.txt working-tree-encoding=UTF-16\n",
    b"many\n" * 4000, bytes(range(256)) * 40,
)  # fmt: skip
_MODES = (0o644, 0o755, 0o600, 0o444, 0o000, 0o700, 0o2755, 0o1777, 0o640)


def scramble(chance: random.Random, root: Path, steps: int) -> None:
    """Change the tree at *root* by *steps* random acts, each as a process inside a sandbox could do it."""
    top = os.fsencode(root)
    known = {top: stat.S_IFDIR}
    for folder, folders, files in os.walk(top):
        known.update({os.path.join(folder, name): stat.S_IFDIR for name in folders})
        known.update({os.path.join(folder, name): stat.S_IFREG for name in files})
    for _step in range(steps):
        folders = [path for path in known if os.path.isdir(path) and not os.path.islink(path) and len(path) < 2000]
        present = [path for path in known if os.path.lexists(path)]
        new = os.path.join(chance.choice(folders), chance.choice(_NAMES))
        old = chance.choice(present)
        with contextlib.suppress(OSError, shutil.Error):
            _act(chance, top, old, new)
        known.update(dict.fromkeys((old, new), 0))


def _act(chance: random.Random, top: bytes, old: bytes, new: bytes) -> None:
    match chance.randrange(14):
        case 0 | 1 | 2:
            _remove(new, top)
            Path(os.fsdecode(new)).write_bytes(b"".join(chance.choices(_BODIES, k=chance.randint(1, 3))))
        case 3 | 4 if not os.path.isfile(old):
            os.utime(old, follow_symlinks=False)  # opening a FIFO would wait
        case 3:
            with open(old, "r+b") as file:
                file.seek(chance.randint(0, 20))
                file.write(chance.choice(_BODIES))
        case 4:
            with open(old, "ab"):
                os.utime(old)
        case 5 | 6:
            _remove(old, top)
        case 7:
            os.mkdir(new)
        case 8:
            os.rename(old, new)
        case 9:
            os.symlink(chance.choice((b"a", b"../b", b"/etc/passwd", b"\xff", b"none\nhere", b".", b"x" * 300)), new)
        case 10:
            os.link(old, new, follow_symlinks=False)
        case 11:
            if not os.path.islink(old):
                os.chmod(old, chance.choice(_MODES))
        case 12:
            os.lchown(old, chance.choice((0, 1500)), chance.choice((0, 1500)))
        case 13:
            _remove(old, top)
            chance.choice((os.mkdir, os.mkfifo, lambda path: os.symlink(b"a", path)))(old)


def _remove(path: bytes, top: bytes) -> None:
    if path == top:
        return
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)
