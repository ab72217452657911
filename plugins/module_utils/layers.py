# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The layers of a working set as data: read from the disk, told in a manifest, compared, joined, and made again.

They were filled by an untrusted process: no name is trusted, no link is followed, every step goes through a folder
descriptor, and nothing recurses. The content of files is kept in *objects*, each a file of its own that shares its blocks
with the layer it was taken from (reflink) and is never written again.

An entry whose stat is as it was known is not looked at again. The kernel sets the change time of an inode at each write,
and at a store through a shared mapping when the page was clean before; cloning a file cleans its pages.
Source: ioctl_ficlone(2), lseek(2), sync_file_range(2), the kernel's Documentation/filesystems/overlayfs.rst.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import ctypes
import errno
import fcntl
import gc
import hashlib
import json
import os
import stat
import typing as t

from ansible_collections.dockersandbox.guardrails.plugins.module_utils import canonical, changes

UPPER, INDEX = "upper", "index"
# The kernel stamps change times by its tick, of at most 10 ms: within one, a second write may leave the same time.
SETTLED_NS = 50_000_000
# Held in memory, about 1 KiB each, as changes are.
MOST_ENTRIES = 2 * changes.MOST_CHANGES

_FICLONE = 0x40049409
_NO_CLONE = (errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL)
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY | os.O_NOATIME
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_BLOCK = 1 << 20
_PIECE = 1 << 16  # in which the content of a sparse file is told
_SPARE, _INODE, _PAGE = 1 << 20, 768, 4096
_SPARSE = 1 << 20  # below this many bytes zeros are read like anything else
# What the overlay keeps for itself in a layer: it differs between two that show the same.
_BOOKKEEPING = frozenset(f"trusted.overlay.{word}" for word in ("origin", "impure", "nlink", "upper", "uuid"))
_WRITE_AND_WAIT = 7  # SYNC_FILE_RANGE_WAIT_BEFORE, _WRITE and _WAIT_AFTER

_libc = ctypes.CDLL(None, use_errno=True)
_FORMATS = {word: number for number, word in canonical.TYPES.items()}
_EMPTY = f"sha256:{hashlib.sha256().hexdigest()}"


class LayersError(Exception):
    """Layers cannot be read, told or joined as asked; the text is one line."""


class Facts(t.NamedTuple):
    """What an inode tells of itself.

    *mode* is the permission bits, *mtime* nanoseconds, *size* and *object* (its number, 0 for none) those of a file.
    *digest* is ``sha256:…``, or for a file with holes ``data:…``, and empty until it is hashed; *inode* is the number by
    which its other names are told, 0 when it has none.
    """

    type: str
    mode: int
    uid: int
    gid: int
    mtime: int
    size: int = 0
    object: int = 0
    digest: str = ""
    target: bytes = b""
    rdev: int = 0
    xattrs: tuple[tuple[str, bytes], ...] = ()
    inode: int = 0

    @property
    def whiteout(self) -> bool:
        """Whether it hides what lies below it in the overlay."""
        return self.type == "char" and self.rdev == 0

    @property
    def opaque(self) -> bool:
        """Whether nothing of the originals shows through this folder."""
        return ("trusted.overlay.opaque", b"y") in self.xattrs

    def seen(self) -> tuple[t.Any, ...]:
        """Return what of it a sandbox can see, or depends on."""
        kept = tuple([pair for pair in self.xattrs if pair[0] not in _BOOKKEEPING])
        # The time of a folder tells no more than that something was in it.
        mtime = 0 if self.type == "dir" or self.whiteout else self.mtime
        return (self.type, self.mode, self.uid, self.gid, mtime, self.size, self.digest, self.target, self.rdev, kept)


class Entry(t.NamedTuple):
    """One name in the layers: *above* is the place of its folder in the list, -1 for the two roots."""

    above: int
    name: str
    facts: Facts


Tree = list[Entry]
Key = tuple[int, ...]
Known = dict[int, tuple[Key, Facts]]


def _key(info: os.stat_result) -> Key:
    return (info.st_ino, info.st_mode, info.st_uid, info.st_gid, info.st_nlink, info.st_size, info.st_mtime_ns, info.st_ctime_ns)


# --- the manifest


def _record(entry: Entry) -> dict[str, t.Any]:
    facts = entry.facts
    record: dict[str, t.Any] = {
        "in": entry.above,
        **canonical.path_fields(os.fsencode(entry.name), "name"),
        "type": facts.type,
        "mode": f"{facts.mode:04o}",
        "uid": facts.uid,
        "gid": facts.gid,
        # Text, because many readers of JSON lose the last digits of so large a number.
        "mtime": str(facts.mtime),
    }
    if facts.type == "file":
        record |= {"size": facts.size, "object": facts.object, "digest": facts.digest}
    if facts.type == "symlink":
        record |= canonical.path_fields(facts.target, "target")
    if facts.type in ("char", "block"):
        record["rdev"] = f"{os.major(facts.rdev)}:{os.minor(facts.rdev)}"
    if facts.xattrs:
        record["xattrs"] = {name: base64.b64encode(value).decode() for name, value in facts.xattrs}
    if facts.inode:
        record["inode"] = facts.inode
    return record


def _entry(record: dict[str, t.Any]) -> Entry:
    # The plain cases apart: there are ten thousands of them, and a restore waits for all.
    name: str | None = record.get("name")
    xattrs: tuple[tuple[str, bytes], ...] = ()
    device = 0
    if name is None or not name.isascii():
        name = os.fsdecode(canonical.path_of(record, "name"))
    if "xattrs" in record:
        xattrs = tuple([(key, binascii.a2b_base64(value)) for key, value in sorted(record["xattrs"].items())])
    if "rdev" in record:
        major, _colon, minor = record["rdev"].partition(":")
        device = os.makedev(int(major), int(minor))
    facts = Facts(
        record["type"],
        int(record["mode"], 8),
        record["uid"],
        record["gid"],
        int(record["mtime"]),
        record.get("size", 0),
        record.get("object", 0),
        record.get("digest", ""),
        canonical.path_of(record, "target") if record["type"] == "symlink" else b"",
        device,
        xattrs,
        record.get("inode", 0),
    )
    return Entry(record["in"], name, facts)


def to_bytes(tree: Tree) -> bytes:
    """Return the lines of a manifest; equal trees have equal bytes."""
    return b"".join(canonical.dumps(_record(entry)) + b"\n" for entry in tree)


def from_bytes(content: bytes) -> Tree:
    """Return the tree that a manifest tells of. Raises LayersError for what is none."""
    try:
        with uncollected():
            # To parse all at once takes half the time of a line after the other.
            return [_entry(record) for record in json.loads(b"[%b]" % b",".join(content.splitlines()))]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise LayersError("its manifest is not one: restore it from a backup") from None


@contextlib.contextmanager
def uncollected() -> t.Iterator[None]:
    """Let nobody look for garbage meanwhile: where much is made and none of it is, that takes up to a third of the time.

    The more so, the more the process holds already: each look goes through that as well.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def path_of(tree: Tree, place: int) -> bytes:
    """Return the path of an entry below its root, cut in the middle when it is very long."""
    parts: list[bytes] = []
    while tree[place].above >= 0:
        parts.append(os.fsencode(tree[place].name))
        place = tree[place].above
    path = b"/".join(reversed(parts)) if len(parts) <= 200 else b"/".join([*reversed(parts[-100:]), b"...", *reversed(parts[:10])])
    return path if tree[place].name == UPPER else b"(second name of a file) " + path


def objects_of(tree: Tree) -> list[int]:
    """Return the numbers of the objects that a tree names, each once, in order."""
    return sorted({entry.facts.object for entry in tree if entry.facts.object})


# --- what differs


class Difference(t.NamedTuple):
    """What a path is in one tree and not in another; as text, one line."""

    path: bytes
    word: t.Literal["added", "changed", "removed"]
    what: str

    def __str__(self) -> str:
        return f"{self.word} {canonical.printable(self.path) or '.'} ({self.what})"


def _children(tree: Tree) -> dict[int, dict[str, int]]:
    found: dict[int, dict[str, int]] = {}
    for place, entry in enumerate(tree):
        found.setdefault(entry.above, {})[entry.name] = place
    return found


_FIELDS = ("type", "mode", "uid", "gid", "mtime", "size", "content", "target", "device", "attributes")


def differences(now: Tree, then: Tree, below: t.Callable[[bytes], bool]) -> list[Difference]:
    """Return what is not as in *now* once the layers are as in *then*, sorted by path.

    *below* tells whether the originals have a path: there they show through where a layer has nothing.
    """
    found: list[Difference] = []
    ours, theirs = _children(now), _children(then)

    def alone(tree: Tree, inside: dict[int, dict[str, int]], place: int, word: t.Literal["added", "removed"]) -> None:
        todo = [place]
        while todo:
            here = todo.pop()
            facts = tree[here].facts
            path = path_of(tree, here)
            shows = below(path)
            if facts.whiteout:
                # The layer's word is that nothing is there.
                if shows:
                    back: t.Literal["added", "removed"] = "removed" if word == "added" else "added"
                    found.append(Difference(path, back, "as in the originals" if back == "added" else "hidden"))
            elif not (facts.type == "dir" and shows):
                found.append(Difference(path, "changed" if shows else word, "as in the originals" if shows and word == "removed" else facts.type))
            todo += inside.get(here, {}).values()

    pairs = [(place, theirs.get(-1, {}).get(name)) for name, place in ours.get(-1, {}).items()]
    for name, place in theirs.get(-1, {}).items():
        if name not in ours.get(-1, {}):
            alone(then, theirs, place, "added")
    while pairs:
        one, other = pairs.pop()
        if other is None:
            alone(now, ours, one, "removed")
            continue
        before, after = now[one].facts.seen(), then[other].facts.seen()
        if before != after:
            what = ", ".join(field for field, x, y in zip(_FIELDS, before, after, strict=True) if x != y)
            path = path_of(now, one)
            if now[one].facts.whiteout:
                found.append(Difference(path, "added", then[other].facts.type))
            elif then[other].facts.whiteout:
                found.append(Difference(path, "removed", now[one].facts.type))
            else:
                found.append(Difference(path, "changed", what))
        mine, its = ours.get(one, {}), theirs.get(other, {})
        pairs += [(place, its.get(name)) for name, place in mine.items()]
        for name, place in its.items():
            if name not in mine:
                alone(then, theirs, place, "added")
    found.sort()
    return found


def _links(tree: Tree) -> list[int]:
    first: dict[int, int] = {}
    # The overlay makes its whiteouts as names of one file, which nobody sees.
    linked = (entry.facts.inode if entry.facts.inode and not entry.facts.whiteout else 0 for entry in tree)
    return [first.setdefault(inode, place) if inode else place for place, inode in enumerate(linked)]


def same(now: Tree, then: Tree) -> bool:
    """Tell whether two trees show a sandbox the same, names of one file included."""
    if [(entry.above, entry.name, entry.facts.seen()) for entry in now] != [(entry.above, entry.name, entry.facts.seen()) for entry in then]:
        return False
    return _links(now) == _links(then)


# --- a part of a tree


def graft(now: Tree, then: Tree, path: bytes) -> Tree:
    """Return *now* with what is at *path* as in *then*. Raises LayersError, one line, where that cannot be said apart.

    A folder on the way that is new, gone, or replaced in one of the two decides what is below it: then it must be
    restored itself. So must whatever has all the names of a file that has several.
    """
    names = [os.fsdecode(name) for name in path.split(b"/")]
    if any(name in ("", ".", "..") for name in names):
        raise LayersError(f"path: {canonical.printable(path)} is not a path below /workspace, such as src/main.py")
    ours, theirs = _children(now), _children(then)
    place: int | None = ours[-1][UPPER]
    other: int | None = theirs[-1][UPPER]
    added: list[Entry] = []
    for depth, name in enumerate(names[:-1]):
        mine = None if place is None else ours.get(place, {}).get(name)
        its = None if other is None else theirs.get(other, {}).get(name)
        if _way(now, mine) != _way(then, its):
            above = canonical.printable(b"/".join(os.fsencode(part) for part in names[: depth + 1]))
            raise LayersError(f"path: {canonical.printable(path)} lies in {above}, which was made, removed or replaced in between: restore that")
        if mine is None and its is not None:
            added.append(then[its])
        place, other = mine, its
    old = None if place is None else ours.get(place, {}).get(names[-1])
    new = None if other is None else theirs.get(other, {}).get(names[-1])
    dropped = _below(now, old)
    taken = _below(then, new)
    _whole_files(now, dropped, path)
    _whole_files(then, taken, path)
    return _joined(now, then, dropped, taken, added if taken else [], _last(ours, names))


def _way(tree: Tree, place: int | None) -> str:
    """Tell what a layer does to what lies below a folder: nothing shows through, or all that the layer has not."""
    if place is None or (tree[place].facts.type == "dir" and not tree[place].facts.opaque):
        return "open"
    return "opaque" if tree[place].facts.type == "dir" else "shut"


def _below(tree: Tree, top: int | None) -> set[int]:
    found: set[int] = set()
    if top is not None:
        found.add(top)
        for place in range(top + 1, len(tree)):
            # A folder comes before what is in it, and all of that before the next.
            if tree[place].above not in found:
                break
            found.add(place)
    return found


def _whole_files(tree: Tree, inside: set[int], path: bytes) -> None:
    linked = {tree[place].facts.inode for place in inside if not tree[place].facts.whiteout} - {0}
    for place, entry in enumerate(tree):
        if entry.facts.inode in linked and place not in inside:
            raise LayersError(
                f"path: {canonical.printable(path)} has a file with another name outside of it,"
                f" {canonical.printable(path_of(tree, place))}: restore what has all its names, or everything"
            )


def _last(inside: dict[int, dict[str, int]], names: list[str]) -> list[int]:
    places = [inside[-1][UPPER]]
    for name in names[:-1]:
        if name not in inside.get(places[-1], {}):
            break
        places.append(inside[places[-1]][name])
    return places


def _joined(now: Tree, then: Tree, dropped: set[int], taken: set[int], added: list[Entry], way: list[int]) -> Tree:
    """Return the tree of *now* without *dropped*, with *taken* of *then* at the end of the last folder of *way*."""
    made: Tree = []
    moved: dict[int, int] = {-1: -1}
    put = False

    def put_in(above: int) -> None:
        for entry in added:
            made.append(entry._replace(above=above))
            above = len(made) - 1
        fresh: dict[int, int] = {}
        for place in sorted(taken):
            entry = then[place]
            facts = entry.facts
            # Two trees may have used the same number for different files.
            facts = facts._replace(inode=facts.inode and -facts.inode)
            made.append(Entry(fresh.get(entry.above, above), entry.name, facts))
            fresh[place] = len(made) - 1

    inside = _below(now, way[-1])
    for place, entry in enumerate(now):
        if not put and place not in inside and place > way[-1]:
            put_in(moved[way[-1]])
            put = True
        if place not in dropped:
            made.append(entry._replace(above=moved[entry.above]))
            moved[place] = len(made) - 1
    if not put:
        put_in(moved[way[-1]])
    return made


def showing(tree: Tree, paths: t.Iterable[tuple[bytes, bool]]) -> list[bytes]:
    """Return those of *paths* (path, whether it is a folder) at which the originals show through the layer."""
    inside = _children(tree)
    return [path for path, folder in paths if _shows(tree, inside, path, folder)]


def _shows(tree: Tree, inside: dict[int, dict[str, int]], path: bytes, folder: bool) -> bool:
    place = inside[-1][UPPER]
    if not path:
        return False  # the root is the layer's own
    for name in path.split(b"/"):
        if tree[place].facts.opaque:
            return False
        below = inside.get(place, {}).get(os.fsdecode(name))
        if below is None:
            return True
        place = below
        if tree[place].facts.type != "dir":
            return False
    # What a folder holds shows through it, but not what it is itself.
    return not folder


# --- reading layers


def content_digest(fd: int) -> str:
    """Return what the content of an open file is known by.

    ``sha256:`` of all bytes; for a large file with holes ``data:``, the sha256 of its pieces of 64 KiB that are not all
    zeros, each behind its offset, and its size (eight bytes each, most significant first): holes cost nothing to make.
    """
    info = os.fstat(fd)
    digest = hashlib.sha256()
    if info.st_size < _SPARSE or info.st_blocks * 512 >= info.st_size:
        place = 0
        # No more is asked for than there is: one call less for each of many small files.
        while place < info.st_size and (block := os.pread(fd, min(info.st_size - place, _BLOCK), place)):
            digest.update(block)
            place += len(block)
        return f"sha256:{digest.hexdigest()}"
    zeros, done = bytes(_PIECE), 0
    while done < info.st_size:
        try:
            start = os.lseek(fd, done, os.SEEK_DATA)
        except OSError:
            break  # only a hole is left
        start = max(done, start // _PIECE * _PIECE)
        end = os.lseek(fd, max(start, done), os.SEEK_DATA)
        end = os.lseek(fd, end, os.SEEK_HOLE)
        while start < end:
            piece = os.pread(fd, _PIECE, start)
            if piece != zeros[: len(piece)]:
                digest.update(start.to_bytes(8, "big") + piece)
            start += _PIECE
        done = start
    digest.update(info.st_size.to_bytes(8, "big"))
    return f"data:{digest.hexdigest()}"


def clone(source: int, target: int, size: int) -> bool:
    """Make the empty file *target* hold what *source* holds, by sharing its blocks; return False where it had to be copied.

    A copy is not durable yet.
    """
    try:
        fcntl.ioctl(target, _FICLONE, source)
        return True
    except OSError as error:
        if error.errno not in _NO_CLONE:
            raise
    # As cloning does: a page that is clean lets the next store through a mapping be noticed.
    _libc.sync_file_range(source, ctypes.c_int64(0), ctypes.c_int64(0), _WRITE_AND_WAIT)
    os.ftruncate(target, size)
    done = 0
    while done < size:
        try:
            start = os.lseek(source, done, os.SEEK_DATA)
        except OSError:
            break
        end = min(size, os.lseek(source, start, os.SEEK_HOLE))
        while start < end:
            copied = os.copy_file_range(source, target, end - start, start, start)
            if copied == 0:
                return False
            start += copied
        done = start
    return False


def _xattrs(where: int | str) -> tuple[tuple[str, bytes], ...]:
    follow = isinstance(where, int)
    return tuple((name, os.getxattr(where, name, follow_symlinks=follow)) for name in sorted(os.listxattr(where, follow_symlinks=follow)))


class Reader:
    """Reads the layers into a tree, and clones each file that is not known as it is."""

    def __init__(self, objects: int, number: int, known: Known) -> None:
        self.objects = objects
        self.number = number  # of the next object
        self.known = known  # by inode; what it says holds for an entry whose key is the same
        self.made: list[int] = []
        # Whether to hash while the pages of what was cloned are still at hand. What changes meanwhile has another key.
        self.hashes = False
        self.copied = False
        self.learnt = 0  # entries that were not as they were known
        self.used = 0  # bytes that what was read takes on its disk

    def tree(self, layers: t.Sequence[tuple[str, str]]) -> tuple[Tree, Known]:
        """Return what the folders (name, path) of *layers* hold, and what is known of it from now on."""
        found: Tree = []
        seen: Known = {}
        self.used = 0
        for name, path in layers:
            try:
                with changes.Cursor(path) as cursor:
                    self._root(name, cursor, found, seen)
            except FileNotFoundError:
                if name == UPPER:
                    raise
        return found, seen

    def _root(self, name: str, cursor: changes.Cursor, found: Tree, seen: Known) -> None:
        info = os.fstat(cursor.fd)
        known, learnt = self.known.get(info.st_ino), self.learnt
        facts = self._folder(info, cursor.fd, seen)
        if known is not None and known[1].seen() == facts.seen():
            # Mounting changes the times of a root. What came into it, left it or has another name there has other times itself.
            self.learnt = learnt
        found.append(Entry(-1, name, facts))
        open_folders = [(iter(cursor.names()), len(found) - 1)]
        while open_folders:
            names, above = open_folders[-1]
            entry = next(names, None)
            if entry is None:
                open_folders.pop()
                if open_folders:
                    cursor.up()
                continue
            if len(found) >= MOST_ENTRIES:
                raise LayersError(f"more than {MOST_ENTRIES} changed entries, which is more than can be told: remove some in the sandbox")
            info = os.stat(entry, dir_fd=cursor.fd, follow_symlinks=False)
            if stat.S_ISDIR(info.st_mode):
                cursor.down(entry)
                found.append(Entry(above, entry, self._folder(os.fstat(cursor.fd), cursor.fd, seen)))
                open_folders.append((iter(cursor.names()), len(found) - 1))
                continue
            key = _key(info)
            known = self.known.get(info.st_ino)
            if known is None or known[0] != key:
                known = self._learn(entry, info, cursor.fd)
            self.used += 0 if info.st_ino in seen else info.st_blocks * 512
            seen[info.st_ino] = known
            found.append(Entry(above, entry, known[1]))

    def _folder(self, info: os.stat_result, fd: int, seen: Known) -> Facts:
        key = _key(info)
        known = self.known.get(info.st_ino)
        if known is None or known[0] != key:
            known = self._keep(key, _facts(info, xattrs=_xattrs(fd)))
        self.used += info.st_blocks * 512
        seen[info.st_ino] = known
        return known[1]

    def _learn(self, name: str, info: os.stat_result, folder: int) -> tuple[Key, Facts]:
        if not stat.S_ISREG(info.st_mode):
            target = os.fsencode(os.readlink(name, dir_fd=folder)) if stat.S_ISLNK(info.st_mode) else b""
            xattrs = () if stat.S_ISCHR(info.st_mode) and info.st_rdev == 0 else _xattrs(f"/proc/self/fd/{folder}/{name}")
            return self._keep(_key(info), _facts(info, target=target, xattrs=xattrs))
        source = os.open(name, _READ, dir_fd=folder)
        try:
            info = os.fstat(source)
            if not stat.S_ISREG(info.st_mode):
                raise LayersError(f"{canonical.printable(os.fsencode(name))} changed while it was read")
            number = self._object(source, info.st_size) if info.st_size else 0
            facts = _facts(info, xattrs=_xattrs(source))._replace(size=info.st_size, object=number, digest="" if number else _EMPTY)
            if number and self.hashes:
                digest = content_digest(source)
                facts = facts._replace(digest=digest if _key(os.fstat(source)) == _key(info) else "")
            return self._keep(_key(info), facts)
        finally:
            os.close(source)

    def _keep(self, key: Key, facts: Facts) -> tuple[Key, Facts]:
        self.learnt += 1
        self.known[key[0]] = key, facts
        return key, facts

    def _object(self, source: int, size: int) -> int:
        number = self.number
        self.number += 1
        self.made.append(number)
        target = os.open(str(number), _NEW, 0o400, dir_fd=self.objects)
        try:
            self.copied |= not clone(source, target, size)
        finally:
            os.close(target)
        return number


def _facts(info: os.stat_result, target: bytes = b"", xattrs: tuple[tuple[str, bytes], ...] = ()) -> Facts:
    kind = canonical.TYPES[stat.S_IFMT(info.st_mode)]
    device = info.st_rdev if kind in ("char", "block") else 0
    linked = info.st_ino if info.st_nlink > 1 and kind != "dir" else 0
    return Facts(kind, stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid, info.st_mtime_ns, 0, 0, "", target, device, xattrs, linked)


# --- writing layers


def build(tree: Tree, top: str, objects: str) -> Known:
    """Make the layers that *tree* tells of below the empty folder *top*; return what is known of them.

    Raises OSError. Nobody else may reach *top* meanwhile.
    """
    known: Known = {}
    first: dict[int, str] = {}
    store = os.open(objects, _FOLDER)
    here = os.open(top, _FOLDER)
    depth = [-1]

    def leave() -> None:
        nonlocal here
        facts = tree[depth.pop()].facts
        _dress(here, facts)
        info = os.fstat(here)
        known[info.st_ino] = _key(info), facts
        above = os.open("..", _FOLDER, dir_fd=here)
        os.close(here)
        here = above

    try:
        for place, (above, name, facts) in enumerate(tree):
            while depth[-1] != above:
                leave()
            if facts.type == "dir":
                os.mkdir(name, 0o700, dir_fd=here)
                inside = os.open(name, _FOLDER, dir_fd=here)
                os.close(here)
                here = inside
                depth.append(place)
            elif facts.inode and facts.inode in first:
                os.link(first[facts.inode], name, dst_dir_fd=here, follow_symlinks=False)
            else:
                info = _make(name, facts, here, store)
                if not facts.inode:
                    known[info.st_ino] = _key(info), facts
                else:
                    # Another name of it may come in a folder that is far from this one: a short name lasts.
                    first[facts.inode] = os.path.join(top, f".{len(first)}")
                    os.link(name, first[facts.inode], src_dir_fd=here, follow_symlinks=False)
        while len(depth) > 1:
            leave()
    finally:
        os.close(here)
        os.close(store)
    for short in first.values():
        os.unlink(short)
    return known


def _make(name: str, facts: Facts, folder: int, store: int) -> os.stat_result:
    if facts.type == "file":
        fd = os.open(name, _NEW, 0o600, dir_fd=folder)
        try:
            if facts.object:
                source = os.open(str(facts.object), _READ, dir_fd=store)
                try:
                    clone(source, fd, facts.size)
                finally:
                    os.close(source)
            _dress(fd, facts)
            return os.fstat(fd)
        finally:
            os.close(fd)
    if facts.type == "symlink":
        os.symlink(facts.target, name, dir_fd=folder)
    else:
        os.mknod(name, _FORMATS[facts.type] | facts.mode, facts.rdev, dir_fd=folder)
    where = f"/proc/self/fd/{folder}/{name}"
    os.chown(where, facts.uid, facts.gid, follow_symlinks=False)
    if facts.type != "symlink" and not facts.whiteout:
        os.chmod(where, facts.mode)
    for key, value in facts.xattrs:
        os.setxattr(where, key, value, follow_symlinks=False)
    os.utime(where, ns=(facts.mtime, facts.mtime), follow_symlinks=False)
    return os.stat(name, dir_fd=folder, follow_symlinks=False)


def _dress(fd: int, facts: Facts) -> None:
    # The mode after the owner, whose change clears the set-id bits; lists of rights after the mode, which is a part of them.
    os.fchown(fd, facts.uid, facts.gid)
    os.fchmod(fd, facts.mode)
    for key, value in facts.xattrs:
        os.setxattr(fd, key, value)
    os.utime(fd, ns=(facts.mtime, facts.mtime))


def room(tree: Tree, shared: bool) -> int:
    """Return the bytes that making the layers of *tree* takes at the most; *shared*: their content needs none."""
    # An inode and its name; a folder has a block besides.
    total = _SPARE + sum(_INODE + (_PAGE if entry.facts.type == "dir" else 0) for entry in tree)
    return total if shared else total + sum(entry.facts.size for entry in tree)
