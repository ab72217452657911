# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The log as the recorder writes it: what is stamped, appended and made durable, and what is found at the start."""

from __future__ import annotations

import collections
import errno
import fcntl
import hashlib
import itertools
import json
import os
import time
import typing as t
import uuid
from pathlib import Path

import msgspec
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import atomic, canonical, chain, events, seal
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.chain import Link
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.recorder import Ack, new_id

from dockersandbox.recorder import sealer

KEY = "log.key"
ANCHOR = "log.chain.json"  # beside the key: which chain the log must be
REMEMBERED = 1 << 15  # ids of the last records, by which one that is sent again is known
LIFE = "application_lifecycle"
_HELD = 1_000_000_000  # nanoseconds that the clock may step back, or jump ahead of the machine's own time, without a word
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_encode = msgspec.json.Encoder(order="sorted").encode


class LogError(Exception):
    """The recorder cannot go on; the text is one line that says what to do."""


class Full(Exception):
    """There is no room for a record; the text is one line."""


class Entry(t.NamedTuple):
    """An event on its way into the log: checked, redacted (*redactions*: how many of each kind), with its id and sender."""

    event: dict[str, t.Any]
    sender: str
    redactions: dict[str, int]


class Batch(t.NamedTuple):
    """Records that are written and made durable together. *own* is how many of the recorder's own stand before the rest."""

    data: bytes
    acks: list[Ack]
    own: int
    last: Link
    clock: int


def own(action: str, kind: str = LIFE, **fields: t.Any) -> Entry:
    """Return an event of the recorder itself."""
    return Entry({"action": action, "class": kind, "id": new_id(), **fields}, chain.RECORDER, {})


class Log:
    """The log in *folder*, signed with the key in *keys*; nobody else writes either.

    While *alarm* says something, nothing is written. *link* is the last durable record. One thread at a time, except that
    :meth:`stamp` and :meth:`write_head` may run beside another call.
    """

    def __init__(self, folder: Path, keys: Path, reserve: int) -> None:
        self.folder, self.key, self.anchor = folder, keys / KEY, keys / ANCHOR
        self.reserve = reserve
        self.alarm = ""
        self.chain_uid = ""
        self.link = chain.START
        self.head = chain.START
        self.first = 1  # number of the live file's first record
        self.begun = ""  # and its time
        self.size = 0
        self.recent: dict[str, int] = {}
        self._file = -1
        self._clock = time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        self._private: seal.PrivateKey | None = None
        self._lock = os.open(folder / ".recorder", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise LogError(f"{folder}: another recorder writes this log; end that one first") from None

    # -- the start

    def open(self) -> list[Entry]:
        """Make the log ready to be written to; return what the recorder has to say of that.

        A last line that is not whole was never acknowledged, and is cut off. Whatever else is wrong sets *alarm*.
        """
        said: list[Entry] = []
        held = sealer.alone(self.folder)
        try:
            anchored, here = self.anchor.exists(), chain.contents(self.folder)
            if not anchored and (here.empty or self._blank(here)):
                (self.folder / chain.LIVE).unlink(missing_ok=True)
                self._begin(own("log.begin", outcome="success"))
                return said
            if not anchored and (here.firsts or not here.live):
                raise chain.ChainError(f"{self.anchor}: it is gone")
            if anchored and here.empty:
                raise chain.ChainError(f"{self.folder}: the log is gone")
            done = seal.ensure_key(self.key)
            if done:
                said.append(own("log.key", reason=done, outcome="success"))
            self._private = seal.load_private(self.key)
            said += self._continue(here, anchored)
        except (chain.ChainError, seal.SealError) as error:
            self.alarm = str(error)
        finally:
            os.close(held)
        return said

    def _blank(self, here: chain.Contents) -> bool:
        """Return whether there is only what a beginning leaves that was interrupted before the first record."""
        return not (here.firsts or here.head) and b"\n" not in (atomic.read(self.folder / chain.LIVE) or b"")

    def _begin(self, entry: Entry) -> None:
        """Begin a chain with *entry*. Its anchor comes last: a log without one, or that is not the one it names, was interrupted here."""
        seal.ensure_key(self.key)
        self._private = seal.load_private(self.key)
        self.chain_uid, self.link, self.head = str(uuid.uuid4()), chain.START, chain.START
        self._create(self.folder / chain.LIVE)
        self.first, self.begun, self.size, self.recent = 1, "", 0, {}
        self.commit(self.stamp([entry]), urgent=True)
        self.write_head()
        self._write_anchor()

    def _write_anchor(self) -> None:
        assert self._private is not None
        predicate = {"chain_uid": self.chain_uid, "time": seal.now()}
        subjects = {"chain": canonical.sha256_hex(self.chain_uid.encode())}
        seal.write(self.anchor, seal.sign(seal.statement(subjects, chain.CHAIN_KIND, predicate), self._private))

    def _continue(self, here: chain.Contents, anchored: bool) -> list[Entry]:
        by = chain.signer(seal.public_of(self.key))
        where = self.anchor
        try:
            if anchored:
                said = by.statement(self.anchor, chain.CHAIN_KIND)["predicate"]
                self.chain_uid = str(said["chain_uid"])
            where = self.folder / chain.HEAD
            uid, self.head = chain.read_head(self.folder, by) if here.head or anchored else ("", chain.START)
        except (seal.SealError, KeyError) as error:
            raise chain.ChainError(f"{where}: {str(error).removeprefix(f'{where}: ')}") from None
        if anchored and uid != self.chain_uid:
            raise chain.ChainError(f"{where}: it is of the chain {uid}, the log must be {self.chain_uid}")
        before = chain.sealed_end(self.folder, here, by, self.chain_uid)
        wanted = {self.head.seq}
        at = {before.seq: before}
        live = self.folder / chain.LIVE
        raw = [path for first, path in sorted(here.raw.items()) if first > before.seq]
        for path in [*raw, *([live] if here.live else [])]:
            scanned = chain.scan_file(path, before, None, wanted, self.chain_uid)
            if scanned.breaks:
                raise chain.ChainError(str(scanned.breaks[0]))
            if scanned.torn and path != live:
                raise chain.ChainError(f"{path}: its last line is not whole")
            if scanned.records:
                before, self.chain_uid = scanned.last, scanned.chain_uid
            at |= scanned.at
        if before.seq < self.head.seq:
            raise chain.ChainError(f"{live}: it ends with record {before.seq}, the head says that record {self.head.seq} was written: records are gone")
        if self.head.seq in at and at[self.head.seq].sha256 != self.head.sha256:
            raise chain.ChainError(f"{live}: record {self.head.seq} is not the one that the head was made of")
        self.link = before
        said = []
        if here.live:
            self.first, self.begun, self.size = scanned.first or before.seq + 1, scanned.first_time, scanned.size
            self._file = os.open(live, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW)
            if scanned.torn:
                os.ftruncate(self._file, self.size)
                os.fsync(self._file)
                detail = {"bytes": len(scanned.torn), "sha256": canonical.sha256_hex(scanned.torn)}
                said.append(own("log.repair", reason="the last line was not whole, and so not acknowledged", outcome="success", detail=detail))
        else:
            # A rotation was interrupted: the head proves that nothing is gone with the live file.
            self._create(live)
            self.first, self.begun, self.size = before.seq + 1, "", 0
        self._remember()
        if not anchored:
            self.write_head()
            self._write_anchor()
        return said

    def _create(self, path: Path) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        atomic.sync_folder(self.folder)

    def _remember(self) -> None:
        """Learn the ids of the last records: what was written but not acknowledged may come again."""
        records = map(msgspec.json.decode, chain.lines(self.folder, self.link.seq - REMEMBERED))
        self.recent = dict(collections.deque(((record["id"], record["seq"]) for record in records), maxlen=REMEMBERED))

    # -- writing

    def stamp(self, entries: t.Sequence[Entry]) -> Batch:
        """Return the records of *entries*, which follow the last durable one, and what will be so once they are written."""
        wall, machine = time.time_ns(), time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        when, clock, count = events.text_time(wall), wall - machine, 0
        seq, prev, uid = self.link.seq, self.link.sha256, self.chain_uid
        behind = self.link.seq and when < self.link.time
        if behind and self.link.time <= events.text_time(wall + _HELD):
            when = self.link.time
        elif behind or (self.link.seq and abs(clock - self._clock) > _HELD):
            entries = [own(chain.CLOCK, reason="the clock was set", detail={"before": self.link.time, "after": when}), *entries]
            count = 1
        sha256, lines, acks = hashlib.sha256, [], []
        for event, sender, redactions in entries:
            seq += 1
            line = _encode(events.stamped(event, redactions, sender, seq, when, uid, prev))
            prev = sha256(line).hexdigest()
            lines.append(line)
            acks.append(Ack(seq, event["id"]))
        lines.append(b"")
        return Batch(b"\n".join(lines), acks, count, Link(seq, prev, when), clock)

    def commit(self, batch: Batch, urgent: bool = False) -> None:
        """Make *batch* durable, or leave the log as it was. *urgent*: also out of the reserve.

        Raises Full when there is no room, and LogError when the disk cannot be trusted any more.
        """
        if not urgent and not self.room():
            raise Full(f"{self.folder}: less than {self.reserve >> 20} MiB are free: nothing is recorded, so nothing may be done; make room")
        try:
            view = memoryview(batch.data)
            while view:
                view = view[os.write(self._file, view) :]
            os.fdatasync(self._file)
        except OSError as error:
            self._undo(error)
            raise Full(f"{self.folder}: {atomic.reason(error)}: nothing is recorded, so nothing may be done; make room") from None
        self.size += len(batch.data)
        if not self.begun:
            self.begun = batch.last.time
        self.link, self._clock = batch.last, batch.clock
        for seq, name in batch.acks:
            self.recent[name] = seq
        if len(self.recent) > 2 * REMEMBERED:
            self.recent = dict(list(self.recent.items())[-REMEMBERED:])

    def _undo(self, error: OSError) -> None:
        try:
            os.ftruncate(self._file, self.size)
            # After an error that is not about room the kernel may hold as written what is not.
            if error.errno not in _FULL:
                raise error
            os.fdatasync(self._file)
        except OSError as other:
            raise LogError(f"{self.folder / chain.LIVE}: {atomic.reason(other)}: the disk failed; see to it, then start the recorder again") from None

    def room(self, again: bool = False) -> bool:
        """Return whether there is more room than the reserve; *again*: after there was none, by a quarter of it or 1 MiB."""
        return self.free() >= self.reserve + (max(self.reserve // 4, 1 << 20) if again else 0)

    def free(self) -> int:
        """Return how many bytes of the log's file system are free."""
        found = os.fstatvfs(self._lock)
        return found.f_bavail * found.f_frsize

    @property
    def keyid(self) -> str:
        """The id of the key that seals, "" when there is none."""
        return self._private.public.keyid if self._private else ""

    # -- rotation, heads, keys

    def due(self, size: int, seconds: int) -> bool:
        """Return whether the live file is to become a segment: it has *size* bytes, or its first record *seconds* of age."""
        if not self.size:
            return False
        return self.size >= size or self.begun < events.text_time(time.time_ns() - seconds * 1_000_000_000)

    def rotate(self) -> bool:
        """Make the live file a segment that waits for its seal; return whether there was anything in it. Raises OSError."""
        if not self.size:
            return False
        live, spare = self.folder / chain.LIVE, self.folder / f".{chain.LIVE}.new"
        # The next file first: when there is no room for it, all stays as it was.
        spare.unlink(missing_ok=True)
        handle = os.open(spare, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        try:
            live.rename(self.folder / chain.segment_name(self.first))
            spare.rename(live)
        except OSError:
            os.close(handle)
            raise
        os.close(self._file)
        self._file, self.first, self.begun, self.size = handle, self.link.seq + 1, "", 0
        atomic.sync_folder(self.folder)
        return True

    def write_head(self) -> bool:
        """Sign and write how far the log goes; return whether that is further than before. Raises OSError."""
        link = self.link
        if link == self.head or self._private is None:
            return False
        seal.write(self.folder / chain.HEAD, chain.head(self._private, link, self.chain_uid))
        self.head = link
        return True

    def rotate_key(self) -> str:
        """Put a new key in the place of the log key, signed by the old one; return its id. Raises SealError and OSError."""
        seal.rotate(self.key)
        self._private = seal.load_private(self.key)
        return self._private.public.keyid

    def retained(self, seconds: int, size: int) -> list[chain.Seal]:
        """Return the oldest segments that are to go: older than *seconds*, or above *size* bytes in all (0: never)."""
        here, by = chain.contents(self.folder), chain.signer(seal.public_of(self.key))
        sealed = [(first, here.packed[first]) for first in sorted(here.packed) if first in here.seals]
        total = sum(path.stat().st_size for _first, path in sealed)
        oldest = events.text_time(time.time_ns() - seconds * 1_000_000_000)
        found = []
        for first, path in sealed:
            made = chain.read_seal(here.seals[first], by)
            interrupted = first in here.tombstones
            if not (interrupted or (seconds and made.last.time < oldest) or (size and total > size)):
                break
            total -= path.stat().st_size
            found.append(made)
        return found

    def remove(self, made: chain.Seal, why: str) -> None:
        """Remove a sealed segment; its seal and a tombstone stay. Raises SealError and OSError."""
        assert self._private is not None
        chain.entomb(self.folder, made, self._private, why)

    def reset(self, why: str) -> Entry:
        """Move what is there to a folder of its own and begin a new chain, whose first record says *why*; return that.

        The key stays unless it is gone. A call that was killed leaves the alarm, and is completed by the next.
        """
        here = chain.contents(self.folder)
        uid = self._anchored()
        archive = next(path for path in self._archives(uid) if not path.exists())
        archive.mkdir(mode=0o750)
        public = seal.public_of(self.key)
        for path in (public, seal.rotations_of(public)):
            if (content := atomic.read(path)) is not None:
                atomic.write(archive / path.name, content)
        if not self.key.exists():
            for path in (public, seal.rotations_of(public)):
                path.unlink(missing_ok=True)
        live = [name for name in (chain.HEAD, chain.LIVE) if (self.folder / name).exists()]
        segments = [path.name for kind in (here.raw, here.packed, here.seals, here.tombstones) for path in kind.values()]
        for name in [*here.strange, *segments, *live]:
            (self.folder / name).rename(archive / name)
        atomic.sync_folder(archive)
        detail = {"previous_chain": uid, "previous_seq": self.head.seq, "previous_sha256": self.head.sha256, "folder": archive.name}
        entry = own("log.reset", "detection_finding", reason=why, actor={"type": "user", "name": "root"}, outcome="success", detail=detail)
        self._begin(entry)
        self.alarm = ""
        return entry

    def _archives(self, uid: str) -> t.Iterator[Path]:
        yield self.folder / f"{chain.ARCHIVE}{uid}"
        for number in itertools.count(2):
            yield self.folder / f"{chain.ARCHIVE}{uid}.{number}"

    def _anchored(self) -> str:
        """Return the name of the chain that must be here, as far as it can be told without its key."""
        try:
            return str(uuid.UUID(str(json.loads(seal.payload(seal.read(self.anchor)))["predicate"]["chain_uid"])))
        except (seal.SealError, ValueError, KeyError, TypeError, OSError):
            return f"unknown-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"

    def close(self) -> None:
        """Write the last head and let the log go. Raises OSError."""
        if not self.alarm:
            self.write_head()
        if self._file >= 0:
            os.close(self._file)
        os.close(self._lock)
