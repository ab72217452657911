# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Manifests of trees: every entry with type, mode, owner, size, link target and sha256, as canonical JSON lines.

Nothing that is hashed can lead outside the tree: each folder is opened from the root, component by component, and no
link is followed. A cache remembers what was hashed by everything a stat tells. The kernel sets the change time (ctime)
at each write and nobody can set it back, so a file whose stat is the same has the same content, with three exceptions
for which a full build exists: a clock that was set back, a file system without change times (FAT), and a store through
a shared memory mapping, which the kernel notes only when it writes the page back.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import hashlib
import json
import os
import select
import signal
import stat
import struct
import threading
import time
import typing as t
from pathlib import Path

from ansible_collections.dockersandbox.guardrails.plugins.module_utils import atomic, canonical

Progress = t.Callable[[int, int], None]

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FOLDER = _READ | os.O_DIRECTORY
_BLOCK = 1 << 20
# What opening, two stats and a line cost, in bytes hashed meanwhile: it balances the work of many small files.
_FILE_COST = 1 << 14
# Below this many bytes (costs included) starting processes takes longer than it saves.
_FORK_FROM = 1 << 23
# How much older than the hashing a change time must be to prove anything. File systems stamp with a coarse clock
# (10 ms, some 1 or 2 s): within one tick a second write leaves the same time.
_SETTLED_NS = 2_100_000_000

_CACHE = struct.Struct("<16sQQ")
_MAGIC = b"guardrails stat1"
_RECORD = struct.Struct("<QQIIIqqq")
_NO_RECORD = bytes(_RECORD.size)


class ManifestError(Exception):
    """A tree that cannot be taken stock of, or a text that is no manifest; one line that says where and why."""


class Entry(t.NamedTuple):
    """One entry: *path* relative to the root (b"" is the root itself), *mode* without the type bits.

    *size* (bytes) and *sha256* are those of a file; *target* is a link's, or a device's numbers as b"major:minor".
    """

    path: bytes
    type: str
    mode: int
    uid: int
    gid: int
    size: int | None = None
    target: bytes | None = None
    sha256: str | None = None


class Survey(t.NamedTuple):
    """What one walk without reading tells: owners with counts, special files, what cannot be read, files and bytes."""

    owners: collections.Counter[tuple[int, int]]
    special: list[tuple[bytes, str]]
    unreadable: list[bytes]
    files: int
    bytes: int


class Difference(t.NamedTuple):
    """One entry in which two manifests differ; as text, one line."""

    path: bytes
    kind: t.Literal["added", "removed", "changed"]
    what: str

    def __str__(self) -> str:
        return f"{self.kind} {shown(self.path)} ({self.what})"


def shown(path: bytes) -> str:
    """Return an entry's *path* for a message, on one line whatever its bytes are."""
    return canonical.printable(path) or "."


class Manifest:
    """The state of a tree. Equal trees have equal bytes, so :attr:`digest` is the tree's id."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._digest = ""
        self._entries: dict[bytes, Entry] | None = None

    @classmethod
    def from_bytes(cls, content: bytes) -> Manifest:
        """Return the manifest whose file holds *content*. Raises ManifestError, with the line, for anything else."""
        if content and not content.endswith(b"\n"):
            raise ManifestError("the last line is cut short: restore the file")
        found = cls(content)
        previous: bytes | None = None
        for number, text in enumerate(found.lines(), 1):
            try:
                entry = _entry(text)
            except (ValueError, KeyError, TypeError):
                raise ManifestError(f"line {number} is not an entry of a manifest: restore the file") from None
            if (previous is not None and entry.path <= previous) or line(entry) != text:
                raise ManifestError(f"line {number} is not in the one form and order a manifest has: restore the file")
            previous = entry.path
        return found

    def to_bytes(self) -> bytes:
        """Return the content of ``manifest.jsonl``: a line for each entry, sorted by the bytes of the path."""
        return self._content

    def lines(self) -> list[bytes]:
        """Return the lines, without their ends."""
        return self._content.split(b"\n")[:-1]

    def write(self, path: str | Path, mode: int = 0o600) -> None:
        """Write the manifest to *path*, durable and whole or not at all. Raises OSError."""
        atomic.write(Path(path), self._content, mode)

    @property
    def digest(self) -> str:
        """The sha256 of the manifest's bytes."""
        self._digest = self._digest or canonical.sha256_hex(self._content)
        return self._digest

    @property
    def entries(self) -> dict[bytes, Entry]:
        """All entries by path, in order."""
        if self._entries is None:
            self._entries = {entry.path: entry for entry in map(_entry, self.lines())}
        return self._entries

    @property
    def files(self) -> int:
        """How many regular files there are."""
        return sum(entry.type == "file" for entry in self.entries.values())

    @property
    def bytes(self) -> int:
        """The size of all regular files together."""
        return sum(entry.size or 0 for entry in self.entries.values())


def line(entry: Entry) -> bytes:
    """Return the one line that a manifest has for *entry*, without its end."""
    record: dict[str, t.Any] = {
        **canonical.path_fields(entry.path),
        "type": entry.type,
        "mode": f"{entry.mode:04o}",
        "uid": entry.uid,
        "gid": entry.gid,
    }
    if entry.size is not None:
        record["size"] = entry.size
    if entry.sha256 is not None:
        record["sha256"] = entry.sha256
    if entry.target is not None:
        record |= canonical.path_fields(entry.target, "target")
    return canonical.dumps(record)


def _entry(text: bytes) -> Entry:
    record = json.loads(text)
    has_target = "target" in record or "target_b64" in record
    return Entry(
        canonical.path_of(record),
        record["type"],
        int(record["mode"], 8),
        record["uid"],
        record["gid"],
        record.get("size"),
        canonical.path_of(record, "target") if has_target else None,
        record.get("sha256"),
    )


def diff(old: Manifest, new: Manifest) -> list[Difference]:
    """Return in which entries the two differ, sorted by path; the empty list means that the trees are the same."""
    if old.to_bytes() == new.to_bytes():
        return []
    before, after = set(old.lines()), set(new.lines())
    gone = {entry.path: entry for entry in map(_entry, before - after)}
    come = {entry.path: entry for entry in map(_entry, after - before)}
    found = []
    for path in sorted(gone.keys() | come.keys()):
        one, other = gone.get(path), come.get(path)
        if one and other:
            found.append(Difference(path, "changed", _changes(one, other)))
        elif one:
            found.append(Difference(path, "removed", one.type))
        elif other:
            found.append(Difference(path, "added", other.type))
    return found


def _changes(one: Entry, other: Entry) -> str:
    parts = []
    for name, before, after in zip(Entry._fields, one, other, strict=True):
        if before != after:
            parts.append(f"{name} {_short(name, before)} → {_short(name, after)}")
    return ", ".join(parts)


def _short(name: str, value: t.Any) -> str:
    if value is None:
        return "none"
    if name == "mode":
        return f"{value:04o}"
    if name == "target":
        return canonical.printable(value)
    return f"{value[:12]}…" if name == "sha256" else str(value)


# --- walking


def _open(name: str | bytes, flags: int, folder: int | None = None) -> int:
    # Reading must not even touch the access times of originals; only their owner and root may ask for that.
    with contextlib.suppress(PermissionError):
        return os.open(name, flags | os.O_NOATIME, dir_fd=folder)
    return os.open(name, flags, dir_fd=folder)


def _open_root(root: str | Path) -> int:
    try:
        return _open(os.fspath(root), _FOLDER)
    except OSError as error:
        raise ManifestError(f"{os.fspath(root)}: {atomic.reason(error)}") from None


def _open_folder(root: int, path: bytes) -> int:
    """Open the folder *path* below the open folder *root*, no component of it being a link."""
    here = os.dup(root) if not path else root
    for name in path.split(b"/") if path else ():
        below = _open(name, _FOLDER, here)
        if here != root:
            os.close(here)
        here = below
    return here


def _readable(name: str, status: os.stat_result, folder: int) -> bool:
    return not stat.S_ISREG(status.st_mode) or os.access(name, os.R_OK, dir_fd=folder)


def _failure(path: bytes, error: OSError) -> ManifestError:
    if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO}:
        return _changed(path)
    return ManifestError(f"{shown(path)}: {atomic.reason(error)}")


def _changed(path: bytes) -> ManifestError:
    return ManifestError(f"{shown(path)} changed while it was read: stop what writes there, then run again")


def _walk(root: int, unreadable: list[bytes] | None = None) -> list[tuple[bytes, os.stat_result]]:
    """Return path and stat of everything below *root* and of itself, sorted by path.

    With *unreadable*, paths that cannot be read are put there; without, they raise ManifestError.
    """
    found = [(b"", os.fstat(root))]
    pending = [b""]
    is_folder, encode = stat.S_ISDIR, os.fsencode
    while pending:
        folder = pending.pop()
        prefix = folder + b"/" if folder else b""
        handle = -1
        try:
            handle = _open_folder(root, folder)
            with os.scandir(handle) as names:
                for name in names:
                    path = prefix + encode(name.name)
                    status = name.stat(follow_symlinks=False)
                    found.append((path, status))
                    if is_folder(status.st_mode):
                        pending.append(path)
                    elif unreadable is not None and not _readable(name.name, status, handle):
                        unreadable.append(path)
        except OSError as error:
            if unreadable is None:
                raise _failure(folder, error) from None
            unreadable.append(folder)
        finally:
            if handle >= 0:
                os.close(handle)
    found.sort()
    return found


def survey(root: str | Path) -> Survey:
    """Return what one walk over the tree at *root* tells without reading a file. Raises ManifestError for the root."""
    unreadable: list[bytes] = []
    handle = _open_root(root)
    try:
        found = _walk(handle, unreadable)
    finally:
        os.close(handle)
    sizes = [status.st_size for _path, status in found if stat.S_ISREG(status.st_mode)]
    special = [(path, canonical.TYPES[stat.S_IFMT(status.st_mode)]) for path, status in found]
    return Survey(
        collections.Counter((status.st_uid, status.st_gid) for _path, status in found),
        [(path, kind) for path, kind in special if kind not in {"file", "dir", "symlink"}],
        sorted(unreadable),
        len(sizes),
        sum(sizes),
    )


# --- building

_Found = tuple[bytes, os.stat_result]
# Work for one process at a time: folders, each with the places in the list of all entries of what to read in it.
_Chunk = list[tuple[bytes, list[int]]]


def build(
    root: str | Path,
    cache: str | Path | None = None,
    jobs: int = 2,
    progress: Progress | None = None,
    full: bool = False,
) -> Manifest:
    """Return the manifest of the tree at *root*.

    *cache* is a file that only root can write: what it proves unchanged is not read again, unless *full*. *jobs* is the
    number of processes that hash. *progress* is told the bytes done and to do. Raises ManifestError for what cannot be
    read, and for a tree that changes meanwhile: its manifest would be of a state that never was.
    """
    started = time.time_ns()
    handle = _open_root(root)
    try:
        found = _walk(handle)
        records = [_record(status) for _path, status in found]
        known = _Cache.load(cache) if cache and not full else None
        if known and known.same(found, records):
            return Manifest(known.content)
        lines = known.lines(found, records) if known else [b""] * len(found)
        unproven = [place for place, text in enumerate(lines) if not text]
        _read_all(handle, found, lines, jobs, progress)
        _expect_same_folders(handle, found)
    except ManifestError as error:
        raise ManifestError(f"{os.fspath(root)}: {error}") from None
    finally:
        os.close(handle)
    content = b"\n".join(lines) + b"\n"
    if cache:
        for place in unproven:
            status = found[place][1]
            if status.st_ctime_ns > started - _SETTLED_NS and not stat.S_ISDIR(status.st_mode):
                records[place] = _NO_RECORD
        _Cache.save(cache, found, records, content)
    return Manifest(content)


def _record(status: os.stat_result) -> bytes:
    return _RECORD.pack(
        status.st_dev,
        status.st_ino,
        status.st_mode,
        status.st_uid,
        status.st_gid,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


def _read_all(root: int, found: list[_Found], lines: list[bytes], jobs: int, progress: Progress | None) -> None:
    """Fill in the lines that are still empty: from the stat alone, or by reading the link or file."""
    folders: dict[bytes, list[int]] = {}
    total = 0
    for place, (path, status) in enumerate(found):
        if lines[place]:
            continue
        kind = stat.S_IFMT(status.st_mode)
        if kind in {stat.S_IFREG, stat.S_IFLNK}:
            folders.setdefault(path.rpartition(b"/")[0], []).append(place)
            total += status.st_size
        else:
            device = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}".encode()
            target = device if kind in {stat.S_IFCHR, stat.S_IFBLK} else None
            lines[place] = line(_entry_of(path, status)._replace(target=target))
    done = 0
    with contextlib.closing(_results(root, found, _chunks(folders, found, jobs), jobs)) as results:
        for chunk, texts in results:
            places = [place for _folder, inside in chunk for place in inside]
            for place, text in zip(places, texts, strict=True):
                lines[place] = text
                done += found[place][1].st_size
            if progress:
                progress(done, total)


def _entry_of(path: bytes, status: os.stat_result) -> Entry:
    kind = canonical.TYPES[stat.S_IFMT(status.st_mode)]
    return Entry(path, kind, stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid)


def _chunks(folders: dict[bytes, list[int]], found: list[_Found], jobs: int) -> list[_Chunk]:
    """Cut the work into pieces small enough that all processes end together, and that progress is seen."""
    costs = {folder: [found[place][1].st_size + _FILE_COST for place in places] for folder, places in folders.items()}
    whole = sum(map(sum, costs.values()))
    limit = max(whole // (jobs * 64), _BLOCK)
    chunks: list[_Chunk] = []
    space = 0
    for folder, places in folders.items():
        fresh = True
        for place, cost in zip(places, costs[folder], strict=True):
            if space <= 0:
                chunks.append([])
                space, fresh = limit, True
            if fresh:
                chunks[-1].append((folder, []))
                fresh = False
            chunks[-1][-1][1].append(place)
            space -= cost
    # The longest first, or one process would end with it alone.
    chunks.sort(key=lambda chunk: -sum(found[place][1].st_size for _folder, places in chunk for place in places))
    return chunks


def _results(root: int, found: list[_Found], chunks: list[_Chunk], jobs: int) -> t.Generator[tuple[_Chunk, list[bytes]], None, None]:
    whole = sum(found[place][1].st_size + _FILE_COST for chunk in chunks for _folder, places in chunk for place in places)
    # A fork copies only the thread that calls it: locks that others hold would stay shut for ever in the copy.
    if jobs > 1 and len(chunks) > 1 and whole >= _FORK_FROM and threading.active_count() == 1:
        yield from _forked(root, found, chunks, jobs)
        return
    for chunk in chunks:
        yield chunk, _read_chunk(root, found, chunk)


def _read_chunk(root: int, found: list[_Found], chunk: _Chunk) -> list[bytes]:
    lines = []
    for folder, places in chunk:
        here, reading = -1, folder
        try:
            here = _open_folder(root, folder)
            for place in places:
                reading, status = found[place]
                entry = _entry_of(reading, status)
                name = reading.rpartition(b"/")[2]
                if stat.S_ISLNK(status.st_mode):
                    entry = entry._replace(target=os.readlink(name, dir_fd=here))
                else:
                    entry = entry._replace(size=status.st_size, sha256=_hash(reading, name, status, here))
                lines.append(line(entry))
        except OSError as error:
            raise _failure(reading, error) from None
        finally:
            if here >= 0:
                os.close(here)
    return lines


def _same(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_ino, one.st_mode, one.st_uid, one.st_gid, one.st_size, one.st_mtime_ns, one.st_ctime_ns) == (
        other.st_ino,
        other.st_mode,
        other.st_uid,
        other.st_gid,
        other.st_size,
        other.st_mtime_ns,
        other.st_ctime_ns,
    )


def _hash(path: bytes, name: bytes, status: os.stat_result, folder: int) -> str:
    handle = _open(name, _READ, folder)
    try:
        digest = hashlib.sha256()
        size = 0
        if _same(status, os.fstat(handle)):
            # One byte more than there should be, so that growth shows.
            while block := os.read(handle, min(_BLOCK, status.st_size - size + 1)):
                digest.update(block)
                size += len(block)
        if size != status.st_size or not _same(status, os.fstat(handle)):
            raise _changed(path)
        return digest.hexdigest()
    finally:
        os.close(handle)


def _expect_same_folders(root: int, found: list[_Found]) -> None:
    for path, status in found:
        if not stat.S_ISDIR(status.st_mode):
            continue
        try:
            handle = _open_folder(root, path)
            same = _same(status, os.fstat(handle))
            os.close(handle)
        except OSError:
            same = False
        if not same:
            raise _changed(path)


# --- processes: plain fork and pipes, since multiprocessing wants /dev/shm, which a container may lack

_NUMBER = struct.Struct("<I")
_ANSWER = struct.Struct("<IBI")


def _forked(root: int, found: list[_Found], chunks: list[_Chunk], jobs: int) -> t.Generator[tuple[_Chunk, list[bytes]], None, None]:
    """Share the chunks among *jobs* processes, which take the next one whenever they are free."""
    numbers, feed = os.pipe()
    os.write(feed, b"".join(map(_NUMBER.pack, range(len(chunks)))))
    os.close(feed)
    readers: dict[int, int] = {}
    try:
        for _job in range(jobs):
            reader, writer = os.pipe()
            try:
                child = os.fork()
            except OSError:
                # No more processes allowed here: those there are, or else this one, do the work.
                os.close(reader)
                os.close(writer)
                break
            if child == 0:
                # A reader kept here would let a child outlive its parent, blocked on a pipe that nobody empties.
                for other in (reader, *readers):
                    os.close(other)
                _work(root, found, chunks, numbers, writer)
            os.close(writer)
            readers[reader] = child
        left = set(range(len(chunks)))
        for number, texts in _answers(list(readers)):
            left.discard(number)
            yield chunks[number], texts
        for number in sorted(left) if not readers else ():
            yield chunks[number], _read_chunk(root, found, chunks[number])
        if left and readers:
            raise ManifestError("a process that hashed was killed: see the kernel's log for memory shortage, run again")
    finally:
        os.close(numbers)
        for reader, child in readers.items():
            os.close(reader)
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def _answers(readers: list[int]) -> t.Iterator[tuple[int, list[bytes]]]:
    poll = select.poll()
    for reader in readers:
        poll.register(reader, select.POLLIN)
    while readers:
        for reader, _event in poll.poll():
            head = _exactly(reader, _ANSWER.size)
            if head is None:
                poll.unregister(reader)
                readers.remove(reader)
                continue
            number, failed, size = _ANSWER.unpack(head)
            text = _exactly(reader, size) or b""
            if failed:
                raise ManifestError(text.decode())
            yield number, text.split(b"\n")


def _exactly(handle: int, count: int) -> bytes | None:
    parts = []
    while count:
        part = os.read(handle, count)
        if not part:
            return None
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def _work(root: int, found: list[_Found], chunks: list[_Chunk], numbers: int, writer: int) -> t.NoReturn:
    """Hash in a child until no chunk is left. It ends without the parent's clean-up, which is not its own."""
    try:
        # An interrupt from the terminal reaches the parent too, which says what there is to say.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        while number := os.read(numbers, _NUMBER.size):
            (place,) = _NUMBER.unpack(number)
            try:
                failed, text = 0, b"\n".join(_read_chunk(root, found, chunks[place]))
            except (ManifestError, MemoryError, OSError) as error:
                failed, text = 1, (str(error) or type(error).__name__).encode()
            view = memoryview(_ANSWER.pack(place, failed, len(text)) + text)
            while view:
                view = view[os.write(writer, view) :]
    finally:
        os._exit(0)


# --- the cache


class _Cache(t.NamedTuple):
    """What an earlier build saw: a record of each entry's stat, the paths, and the manifest, all in one order."""

    stats: bytes
    paths: bytes
    content: bytes
    places: dict[bytes, int]

    @classmethod
    def load(cls, path: str | Path) -> _Cache | None:
        """Return the cache at *path*; None when there is none or it is of no use."""
        try:
            content = atomic.read(Path(path), limit=1 << 34) or b""
            magic, count, size = _CACHE.unpack_from(content)
        except (OSError, struct.error):
            return None
        stats = _CACHE.size
        paths = stats + count * _RECORD.size
        found = cls(content[stats:paths], content[paths : paths + size], content[paths + size :], {})
        return found if magic == _MAGIC and found.content.count(b"\n") == count else None

    @staticmethod
    def save(path: str | Path, found: list[_Found], records: list[bytes], content: bytes) -> None:
        """Write the cache; *records* of entries that prove nothing yet are :data:`_NO_RECORD`."""
        paths = b"\0".join([path for path, _status in found])
        head = _CACHE.pack(_MAGIC, len(found), len(paths))
        atomic.write(Path(path), head + b"".join(records) + paths + content, 0o600)

    def same(self, found: list[_Found], records: list[bytes]) -> bool:
        """Return whether nothing at all differs from what the cache saw."""
        return self.stats == b"".join(records) and self.paths == b"\0".join([path for path, _status in found])

    def holds(self, path: bytes, record: bytes) -> bool:
        """Return whether the cache saw *path* with exactly this stat."""
        if not self.places:
            self.places.update((name, place) for place, name in enumerate(self.paths.split(b"\0")))
        place = self.places.get(path)
        return place is not None and self.stats[place * _RECORD.size : (place + 1) * _RECORD.size] == record

    def lines(self, found: list[_Found], records: list[bytes]) -> list[bytes]:
        """Return the manifest's line for each entry that the cache saw just so, and b"" for the others."""
        lines = self.content.split(b"\n")
        return [lines[self.places[path]] if self.holds(path, record) else b"" for (path, _status), record in zip(found, records, strict=True)]
