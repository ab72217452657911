# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The snapshots of one working set: what is stored of each, and which may go.

They lie beside the layers, on the same file system, in a folder that only root can enter:

- ``objects/N``: the content of one file as it was at one time. Every snapshot in which the file is the same names it.
- ``ID/manifest.jsonl.gz``: a line for each entry of the layers, which names its folder by the number of that one's line.
  Whole paths would grow with the square of a tree's depth, which is the sandbox's to choose.
- ``ID/objects``: for each object that the manifest names its number, inode and change time, eight bytes each, the least
  significant first. An object is never written, and its change time cannot be put back: one that has both still is not
  read again before a restore. Verifying reads all.
- ``ID/seal.json``: binds both to the sandbox, its baseline, and the reason.
- ``register.json``: sealed too. What it names is there and nothing else is: writing it makes or removes a snapshot.
- ``known``: what was last seen, by inode. It proves nothing to anybody, and may be lost.
- ``stage/`` and ``journal.json``: layers that are being put in place of those that are there, see :meth:`History.exchange`.
"""

from __future__ import annotations

import array
import concurrent.futures
import contextlib
import dataclasses
import errno
import gzip
import hashlib
import json
import marshal
import os
import pathlib
import re
import subprocess
import sys
import time
import typing as t

from ansible_collections.dockersandbox.guardrails.plugins.module_utils import acts, atomic, canonical, changes, layers, mounts, seal
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.layers import Known, LayersError, Tree
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.workset import WorkingSet, WorkingSetError

KIND, REGISTER = "snapshot", "snapshots"
NAME = re.compile(r"[a-z][a-z0-9]*(?:[._-][a-z0-9]+)*")
LONGEST_NAME = 64
MANIFEST, OBJECTS, SEAL = "manifest.jsonl.gz", "objects", "seal.json"

_ID = re.compile(r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{4}")
_THREADS = 2
_SHOWN = 5
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


class HistoryError(WorkingSetError):
    """A snapshot cannot be made, found or used; each of *problems* is one line."""


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """One snapshot as its seal tells it; *id* begins with its time, so that ids sort by time. *run* is what it was made for."""

    id: str
    name: str
    reason: str
    run: str
    checkpoint: bool
    baseline: str
    time: str
    entries: int
    files: int
    bytes: int

    def __str__(self) -> str:
        return f"{self.id} ({self.name})" if self.name else self.id


@dataclasses.dataclass(frozen=True)
class Register:
    """Which snapshots there are, in the order in which they were made: id → snapshot and the sha256 of its seal.

    *removed* are those that somebody removed, with why; *next* is the number of the next object.
    """

    snapshots: dict[str, tuple[Snapshot, str]]
    removed: list[dict[str, t.Any]]
    next: int = 1

    @property
    def newest(self) -> Snapshot | None:
        """The last one that was made."""
        return next(reversed(self.snapshots.values()))[0] if self.snapshots else None


# --- which may go


class Policy(t.NamedTuple):
    """What is kept: the newest *last*, and the newest of each of so many hours and days; *every*: minutes between two."""

    every: int
    last: int
    hourly: int
    daily: int


def dispensable(snapshots: t.Iterable[Snapshot], policy: Policy, pinned: t.Container[str], running: str = "") -> list[Snapshot]:
    """Return which of *snapshots*, given oldest first, may go: never a checkpoint, one of *pinned*, or the newest.

    *running* is the id of a run that goes on: what it began with, and all since, stays.
    """
    newest = list(snapshots)[::-1]
    kept = {one.id for one in newest[: max(1, policy.last)]}
    for length, most in ((len("20261124T11"), policy.hourly), (len("20261124"), policy.daily)):
        seen: set[str] = set()
        for one in newest:
            if one.id[:length] not in seen and len(seen) < most:
                seen.add(one.id[:length])
                kept.add(one.id)
    if running:
        kept |= {one.id for one in newest if one.id >= running}
        kept |= {next((one.id for one in newest if one.id < running), "")}
    return [one for one in reversed(newest) if one.id not in kept and not one.checkpoint and one.id not in pinned]


# --- what a killed restore needs


def unfinished(journal: t.Mapping[str, t.Mapping[str, int]], there: t.Mapping[str, int]) -> list[str]:
    """Return the layers that are still to be exchanged; *there* is the inode of each layer where it is used.

    With a journal the staged layers are whole and sealed as such: each that is still the old one is exchanged.
    """
    return sorted(word for word, inode in journal["old"].items() if there.get(word) == inode)


class History:
    """The snapshots of a working set. Whoever changes them holds the lock of :func:`rollback.locked`."""

    def __init__(self, working_set: WorkingSet) -> None:
        self.working_set = working_set
        self.folder = working_set.snapshots
        self.objects = os.path.join(self.folder, OBJECTS)
        self.stage = os.path.join(self.folder, "stage")
        self.journal = os.path.join(self.folder, "journal.json")

    def refuse(self, text: str) -> HistoryError:
        """Return the error that says *text* of this sandbox."""
        return HistoryError(f"sandbox {self.working_set.name}: {text}")

    @property
    def layers(self) -> list[tuple[str, str]]:
        """The layers that a snapshot is of: name and folder."""
        return [(layers.UPPER, self.working_set.upper), (layers.INDEX, changes.index_folder(self.working_set.upper))]

    # -- the register

    @property
    def _register(self) -> str:
        return os.path.join(self.folder, "register.json")

    def register(self) -> Register:
        """Return the register once its seal holds. Raises HistoryError when it does not, or is gone."""
        path = self._register
        if not os.path.exists(path):
            if any(_ID.fullmatch(name) for name in self._names()):
                raise self.refuse(f"the register of its snapshots, {path}, is gone: restore it from a backup")
            return Register({}, [])
        public = self.working_set.places.public_key
        try:
            made = seal.verify(seal.read(path), seal.load_public(public), seal.rotations(public))
        except seal.SealError as error:
            text = str(error)
            raise self.refuse(text if path in text else f"{path}: {text}") from error
        predicate = made["predicate"]
        if made["predicateType"] != seal.predicate_type(REGISTER) or predicate["sandbox"] != self.working_set.name:
            raise self.refuse(f"{path} is the register of {predicate.get('sandbox')}, not of this sandbox: restore its own")
        digests = seal.subjects(made)
        found = {fields["id"]: (Snapshot(**fields), digests[f"{fields['id']}/{SEAL}"]) for fields in predicate["snapshots"]}
        return Register(found, predicate["removed"], predicate["next"])

    def _write_register(self, register: Register) -> None:
        subjects = {f"{name}/{SEAL}": digest for name, (_snapshot, digest) in register.snapshots.items()}
        predicate = {
            "sandbox": self.working_set.name,
            "snapshots": [dataclasses.asdict(snapshot) for snapshot, _digest in register.snapshots.values()],
            "removed": register.removed,
            "next": register.next,
        }
        private = seal.load_private(self.working_set.places.host_key)
        seal.write(self._register, seal.sign(seal.statement(subjects, REGISTER, predicate), private))

    def _names(self) -> list[str]:
        try:
            return os.listdir(self.folder)
        except FileNotFoundError:
            return []

    def find(self, which: str) -> Snapshot:
        """Return the snapshot of that id or name. Raises HistoryError when there is none."""
        snapshots = self.register().snapshots
        for snapshot, _digest in snapshots.values():
            if which in (snapshot.id, snapshot.name) and which:
                return snapshot
        last = ", ".join(str(snapshot) for snapshot, _digest in list(snapshots.values())[-_SHOWN:])
        raise self.refuse(f"has no snapshot {canonical.printable(os.fsencode(which))}: the last are {last}" if last else "has no snapshots yet")

    def check_name(self, name: str) -> None:
        """Raise HistoryError when a snapshot cannot be given *name*."""
        if not NAME.fullmatch(name) or len(name) > LONGEST_NAME:
            raise self.refuse(f"name: {name!r} is not one: a letter, then a-z, 0-9, and single . _ or - between them, {LONGEST_NAME} at the most")
        for snapshot, _digest in self.register().snapshots.values():
            if snapshot.name == name:
                raise self.refuse(f"name: {name} is that of snapshot {snapshot.id}: take another")

    # -- clearing up

    def open(self) -> Register:
        """Return the register, after whatever was killed last is finished or undone."""
        os.makedirs(self.objects, mode=0o700, exist_ok=True)
        os.chmod(self.folder, 0o700)
        self.finish()
        self.clear()
        register = self.register()
        if not os.path.exists(self._register):
            self._write_register(register)
        left = [name for name in self._names() if _ID.fullmatch(name) and name not in register.snapshots]
        if left:
            self._sweep(register, left)
        return register

    def _sweep(self, register: Register, left: t.Iterable[str]) -> None:
        used: set[int] = set()
        for name in register.snapshots:
            used.update(self._stamps(name))
        for name in os.listdir(self.objects):
            if int(name) not in used:
                os.unlink(os.path.join(self.objects, name))
        # Last, because it is by these that the next one sees that something is left.
        for name in left:
            remove_tree(os.path.join(self.folder, name))

    def _stamps(self, name: str) -> dict[int, tuple[int, int]]:
        """Return the objects of a snapshot: number → inode and change time (nanoseconds)."""
        words = array.array("Q", (atomic.read(pathlib.Path(self.folder, name, OBJECTS), limit=1 << 34) or b""))
        if sys.byteorder == "big":
            words.byteswap()
        return {number: (inode, changed) for number, inode, changed in zip(words[0::3], words[1::3], words[2::3], strict=True)}

    def remove(self, gone: t.Collection[Snapshot], why: str = "") -> None:
        """Remove snapshots; with *why*, that is told in the register for as long as there is one."""
        register = self.open()
        told = [
            {"id": one.id, "name": one.name, "checkpoint": one.checkpoint, "reason": why, "time": seal.now()} for one in gone if why
        ]
        names = {one.id for one in gone}
        kept = {name: pair for name, pair in register.snapshots.items() if name not in names}
        rest = Register(kept, [*register.removed, *told], register.next)
        self._write_register(rest)
        self._sweep(rest, names)

    # -- making one

    @contextlib.contextmanager
    def draft(self) -> t.Iterator[Draft]:
        """Yield a snapshot that is being made; unless it is committed in the block, nothing of it is left."""
        register = self.open()
        made = Draft(self, register)
        folder = os.path.join(self.folder, made.id)
        os.mkdir(folder, 0o700)
        try:
            yield made
        finally:
            made.close()
            if not made.committed:
                made.drop(made.reader.made)
                remove_tree(folder)

    def known(self, register: Register) -> tuple[Known, list[str]]:
        """Return what is known of the layers, and of which snapshots that is: nothing, when one of them is gone."""
        try:
            with open(os.path.join(self.folder, "known"), "rb") as file:
                digest, content = file.read(32), file.read()
            if hashlib.sha256(content).digest() != digest:
                return {}, []
            with layers.uncollected():
                of, rows = marshal.loads(content)  # noqa: S302 - what root alone has written, and whole
                known = {key[0]: (key, layers.Facts._make(facts)) for key, facts in rows}
        except (OSError, ValueError, EOFError, TypeError):
            return {}, []
        return (known, list(of)) if set(of) <= register.snapshots.keys() else ({}, [])

    def remember(self, known: Known, of: t.Iterable[str]) -> None:
        """Keep what is *known* for the next snapshot; its objects are those of the snapshots *of*: of one, if that is what it shows."""
        content = marshal.dumps((tuple(of), [(key, tuple(facts)) for key, facts in known.values()]))
        path = os.path.join(self.folder, "known")
        # It need not last, and a full set can do without.
        with contextlib.suppress(OSError):
            with open(f"{path}.new", "wb") as file:
                file.write(hashlib.sha256(content).digest() + content)
            os.rename(f"{path}.new", path)
            return
        for name in (path, f"{path}.new"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)

    # -- using one

    def tree(self, snapshot: Snapshot) -> Tree:
        """Return what a snapshot tells of the layers, once its seal holds. Raises HistoryError."""
        path = os.path.join(self.folder, snapshot.id, SEAL)
        try:
            made = seal.verify_file(path, self.working_set.places.public_key, KIND)
        except seal.SealError as error:
            raise self.refuse(f"snapshot {snapshot}: {error}") from error
        sealed = {key: value for key, value in made["predicate"].items() if key not in ("sandbox", "originals")}
        if made["predicate"]["sandbox"] != self.working_set.name:
            raise self.refuse(f"snapshot {snapshot}: {path} is the seal of a snapshot of sandbox {made['predicate']['sandbox']}")
        if sealed != dataclasses.asdict(snapshot):
            raise self.refuse(f"snapshot {snapshot}: {path} is not the seal that the register names: restore it from a backup")
        content = atomic.read(pathlib.Path(self.folder, snapshot.id, MANIFEST), limit=1 << 34) or b""
        try:
            return layers.from_bytes(gzip.decompress(content))
        except (LayersError, OSError, EOFError) as error:
            raise self.refuse(f"snapshot {snapshot}: {error}") from error

    def verified(self, snapshot: Snapshot) -> Tree:
        """Return what a snapshot tells of the layers, once all of it is proven to be as it was sealed. Raises HistoryError."""
        tree = self.tree(snapshot)
        store = os.open(self.objects, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            due = [number for number, stamp in self._stamps(snapshot.id).items() if _stamp(number, store) != stamp]
        finally:
            os.close(store)
        if problem := self._spoilt(snapshot, tree, self.digests(due)):
            raise HistoryError(problem)
        return tree

    def _spoilt(self, snapshot: Snapshot, tree: Tree, found: t.Mapping[int, str]) -> str:
        """Return a line that names what of a snapshot is not as it was sealed, "" when all is; *found* is what the objects are that were read."""
        wrong = [place for place, entry in enumerate(tree) if found.get(entry.facts.object, entry.facts.digest) != entry.facts.digest]
        if not wrong:
            return ""
        named = ", ".join(
            f"{canonical.printable(layers.path_of(tree, place))} ({self.objects}/{tree[place].facts.object})" for place in wrong[:_SHOWN]
        )
        more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        return f"sandbox {self.working_set.name}: snapshot {snapshot} is not as it was sealed: {named}{more}: restore it from a backup"

    def digests(self, numbers: t.Iterable[int]) -> dict[int, str]:
        """Return by what the content of each object is known, empty for one that cannot be read."""
        store = os.open(self.objects, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

        def some(part: list[int]) -> list[tuple[int, str]]:
            return [(number, _digest(number, store)) for number in part]

        listed = list(numbers)
        try:
            with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
                parts = [listed[start : start + 64] for start in range(0, len(listed), 64)]
                return dict(pair for part in pool.map(some, parts) for pair in part)
        finally:
            os.close(store)

    def problems(self) -> list[str]:
        """Return what of all snapshots is not as it was sealed, a line each."""
        try:
            register = self.register()
        except HistoryError as error:
            return error.problems
        found = []
        objects: dict[int, str] = {}
        for snapshot, _digest_of_seal in register.snapshots.values():
            try:
                tree = self.tree(snapshot)
            except HistoryError as error:
                found += error.problems
                continue
            objects |= self.digests(set(layers.objects_of(tree)) - objects.keys())
            found += [problem] if (problem := self._spoilt(snapshot, tree, objects)) else []
        return found

    # -- putting layers in the place of those that are there

    def lay_out(self, tree: Tree) -> Known:
        """Make the layers that *tree* tells of beside those that are there; nothing of these is touched."""
        remove_tree(self.stage)
        os.makedirs(os.path.join(self.stage, "work"), mode=0o700)
        known = layers.build(tree, self.stage, self.objects)
        # The index lies in the work layer.
        index = os.path.join(self.stage, layers.INDEX)
        if os.path.exists(index):
            os.rename(index, os.path.join(self.stage, "work", layers.INDEX))
        return known

    @property
    def _pairs(self) -> dict[str, tuple[str, str]]:
        return {word: (os.path.join(self.stage, word), os.path.join(self.working_set.delta, word)) for word in ("upper", "work")}

    def exchange(self) -> None:
        """Put the layers that were laid out in the place of those that are there. The sandbox must not run.

        Two folders cannot be exchanged at once: the journal says that both are to be, before the first is.
        """
        mounts.sync(self.stage)
        old = {word: os.stat(place).st_ino for word, (_staged, place) in self._pairs.items()}
        atomic.write(pathlib.Path(self.journal), canonical.dumps({"old": old}), 0o600)
        self._finish()

    def finish(self) -> None:
        """Finish an exchange that was killed, if there is one, on record."""
        if not os.path.exists(self.journal):
            return
        item = self.working_set
        with acts.recorded(item.places, "snapshot.finish", "file_activity", sandbox=item.name, resource=item.delta, reason="a restore was killed"):
            self._finish()

    def _finish(self) -> None:
        with open(self.journal, "rb") as file:
            journal = json.load(file)
        there = {word: os.stat(place).st_ino for word, (_staged, place) in self._pairs.items() if os.path.exists(place)}
        for word in unfinished(journal, there):
            mounts.exchange(*self._pairs[word])
        atomic.sync_folder(pathlib.Path(self.working_set.delta))
        os.unlink(self.journal)
        atomic.sync_folder(pathlib.Path(self.folder))

    def clear(self) -> None:
        """Remove layers that were never put in place, or that others were put in the place of."""
        if not os.path.exists(self.journal):
            remove_tree(self.stage)


class Draft:
    """A snapshot that is being made of a history's layers."""

    def __init__(self, history: History, register: Register) -> None:
        self.history = history
        self.register = register
        self.id = new_id()
        self.committed = False
        self.tree: Tree = []
        self._store = os.open(history.objects, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        known, self._of = history.known(register)
        self.reader = layers.Reader(self._store, register.next, known)
        self._seen: Known = {}

    def close(self) -> None:
        """Let go of the folder of objects."""
        os.close(self._store)

    def drop(self, numbers: t.Iterable[int]) -> None:
        """Remove objects that this draft has made."""
        for number in numbers:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(self.history.objects, str(number)))

    def warm(self) -> None:
        """Clone beforehand what changed, while the sandbox goes on: what stays as it is need not be read when it is still.

        Raises OSError when there is no room; whatever else goes wrong is for :meth:`read` to tell.
        """
        start = time.time_ns()
        self.reader.hashes = True
        try:
            # All at once: cloning would write back file by file.
            mounts.sync(self.history.working_set.delta)
            self.reader.tree(self.history.layers)
        except (LayersError, changes.ChangesError):
            pass
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise
        self.reader.hashes = False
        self.reader.known = _settled(self.reader.known, start)

    def read(self, at_rest: bool = False) -> None:
        """Read the layers, which must not change meanwhile; *at_rest*: for as long as it takes. Raises HistoryError when they do."""
        start = time.time_ns()
        try:
            if at_rest:
                self.reader.hashes = True
                mounts.sync(self.history.working_set.delta)
            self.tree, seen = self.reader.tree(self.history.layers)
        except (LayersError, changes.ChangesError) as error:
            raise self.history.refuse(str(error)) from error
        except (FileNotFoundError, NotADirectoryError) as error:
            raise self.history.refuse(f"its layers changed while they were read ({error.strerror})") from error
        self._seen = _settled(seen, start)

    def hash(self) -> None:
        """Say of each new object by what its content is known."""
        found = self.history.digests({entry.facts.object for entry in self.tree if entry.facts.object and not entry.facts.digest})
        self.tree = [
            entry._replace(facts=entry.facts._replace(digest=found[entry.facts.object])) if entry.facts.object in found else entry for entry in self.tree
        ]
        for inode, (key, facts) in self._seen.items():
            if facts.object in found:
                self._seen[inode] = key, facts._replace(digest=found[facts.object])

    @property
    def _sizes(self) -> tuple[int, int, int]:
        """How many entries and files there are, and the bytes of these."""
        sizes = [entry.facts.size for entry in self.tree if entry.facts.type == "file"]
        return len(self.tree), len(sizes), sum(sizes)

    def same_as(self, one: Snapshot) -> bool:
        """Tell whether a snapshot shows a sandbox the same as this draft."""
        if (one.entries, one.files, one.bytes) != self._sizes:
            return False
        # A name that is new, gone or another changes its folder, and a root of the layers by an entry more or less, or one with
        # another time: where as many are there and nothing was learnt, all is as it was seen then.
        return (self._of == [one.id] and not self.reader.learnt) or layers.same(self.tree, self.history.tree(one))

    def twin(self, baseline: str) -> Snapshot | None:
        """Return a snapshot of *baseline* that is the same as this draft: the one that was restored last, or the newest."""
        newest = self.register.newest
        for name in dict.fromkeys([*self._of, *([newest.id] if newest else [])]):
            one = self.register.snapshots[name][0]
            if one.baseline == baseline and self.same_as(one):
                return one
        return None

    def commit(self, baseline: str, reason: str, name: str = "", run: str = "", checkpoint: bool = False) -> Snapshot:
        """Seal the snapshot and enter it in the register."""
        history, tree = self.history, self.tree
        made = Snapshot(self.id, name, reason, run, checkpoint, baseline, seal.now(), *self._sizes)
        folder = pathlib.Path(history.folder, self.id)
        used = layers.objects_of(tree)
        stamps = array.array("Q", [word for number in used for word in (number, *_stamp(number, self._store))])
        if sys.byteorder == "big":
            stamps.byteswap()
        if self.reader.copied:
            mounts.sync(history.objects)
        content = {MANIFEST: gzip.compress(layers.to_bytes(tree), 1, mtime=0), OBJECTS: stamps.tobytes()}
        for word, data in content.items():
            atomic.write(folder / word, data, 0o400)
        predicate = {"sandbox": history.working_set.name, "originals": history.working_set.originals, **dataclasses.asdict(made)}
        statement = seal.statement({word: canonical.sha256_hex(data) for word, data in content.items()}, KIND, predicate)
        digest = seal.write(folder / SEAL, seal.sign(statement, seal.load_private(history.working_set.places.host_key)))
        # What makes this durable makes all before it durable too: the file system writes its changes in their order.
        history._write_register(Register({**self.register.snapshots, self.id: (made, digest)}, self.register.removed, self.reader.number))
        self.committed = True
        self.drop(set(self.reader.made).difference(used))
        history.remember(self._seen, [self.id])
        return made


def _settled(known: Known, start: int) -> Known:
    """Return what of *known*, read from *start* on (nanoseconds), a change would have given another time."""
    return {inode: (key, facts) for inode, (key, facts) in known.items() if key[-1] < start - layers.SETTLED_NS}


def _stamp(number: int, store: int) -> tuple[int, int]:
    try:
        info = os.stat(str(number), dir_fd=store, follow_symlinks=False)
    except FileNotFoundError:
        return 0, 0
    return info.st_ino, info.st_ctime_ns


def _digest(number: int, store: int) -> str:
    try:
        fd = os.open(str(number), _READ, dir_fd=store)
    except OSError:
        return ""
    try:
        return layers.content_digest(fd)
    except OSError:
        return ""
    finally:
        os.close(fd)


def new_id() -> str:
    """Return a new snapshot's id: its time in UTC, to 15 µs."""
    now = time.time_ns()
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now // 10**9)) + f"-{now % 10**9 * 65536 // 10**9:04x}"


def remove_tree(path: str) -> None:
    """Remove whatever is at *path*: not by Python's own, which recurses."""
    if os.path.lexists(path):
        subprocess.run(["rm", "-rf", "--one-file-system", "--", path], capture_output=True, check=True)
