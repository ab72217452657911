# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a log is what was written, and if not, where its first break is.

What lies on the machine proves everything but two things: that whoever has the log key did not write all of it anew, and
that its end was not cut off together with the head. Both are found by heads that were shipped off the machine.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import datetime
import json
import os
import time
import typing as t
from pathlib import Path

from ansible_collections.dockersandbox.guardrails.plugins.module_utils import atomic, chain, events, lock, seal
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.chain import Link, Problem

TAIL_SECONDS = 120  # how long a running recorder may leave records without a head
_ATTEMPTS = 20
_PAUSE = 0.1  # seconds in which a line that is being written becomes whole


class Report(t.NamedTuple):
    """What was verified. *problems* are in the order of the log; there are none when it is what was written."""

    records: int
    segments: int
    removed: int
    heads: int
    chain_uid: str
    last: Link
    problems: list[Problem]


class Shipped(t.NamedTuple):
    """A head that was kept off the machine, and where it was read."""

    path: str
    line: int
    envelope: seal.Envelope


def read_heads(path: Path) -> list[Shipped]:
    """Return the heads in a file that the shipper, or a syslog server, wrote: one a line, whatever stands before it.

    Raises ChainError for a line without one, and when the file cannot be read.
    """
    try:
        content = atomic.read(path, limit=1 << 30)
    except OSError as error:
        raise chain.ChainError(f"{path}: cannot be read: {atomic.reason(error)}") from None
    if content is None:
        raise chain.ChainError(f"{path}: there is no such file")
    found = []
    for number, line in enumerate(content.splitlines(), 1):
        try:
            found.append(Shipped(str(path), number, json.loads(line[line.index(b"{") :])))
        except ValueError:
            raise chain.ChainError(f"{path}:{number}: this is no head; restore the file") from None
    return found


def verify(
    folder: Path,
    public: Path,
    shipped: t.Sequence[Shipped] = (),
    now: float | None = None,
    jobs: int = 0,
    tail: float = TAIL_SECONDS,
) -> Report:
    """Prove the log in *folder* with the log's public key; nothing is changed, and a recorder may go on writing.

    With *now* (seconds since the epoch) it must be the log of a running recorder: no record is without a head for longer than
    *tail* seconds. *jobs* is how many processes read sealed segments (0: one a processor). Raises SealError when the key
    cannot be read, ChainError and OSError when the folder cannot.
    """
    if not folder.is_dir():
        raise chain.ChainError(f"{lock.show(folder)}: there is no such folder of a log")
    # What is no key is refused here; in the loop it may be another one each time.
    chain.signer(public)
    torn, told = False, list[Problem]()
    for _attempt in range(_ATTEMPTS):
        before, torn_before = (_listing(folder), public.lstat().st_ino), torn
        found = _Verification(folder, chain.signer(public), shipped, now, jobs or os.cpu_count() or 1, tail)
        report, torn = found.report(), found.torn
        # A recorder that writes, seals or takes a new key meanwhile makes a log look broken, another way each time; one that is broken
        # stays so.
        still = torn == torn_before and before == (_listing(folder), public.lstat().st_ino)
        if not report.problems or still or report.problems == told:
            break
        told = report.problems
        time.sleep(_PAUSE)
    return report


def _listing(folder: Path) -> dict[str, tuple[int, int, int]]:
    found = {}
    for entry in os.scandir(folder):
        with contextlib.suppress(FileNotFoundError):
            if entry.name.startswith("ct"):
                found[entry.name] = (entry.stat().st_size, entry.stat().st_mtime_ns, entry.inode())
    return found


class _Segment(t.NamedTuple):
    """What a process found in one sealed segment."""

    content_sha256: str | None
    records: int
    first: int
    prev_sha256: str
    first_time: str
    last: Link
    root: str
    chain_uid: str
    at: dict[int, Link]
    breaks: list[Problem]


def _read(path: Path, made: chain.Seal | None, wanted: frozenset[int]) -> _Segment:
    start = Link(made.first - 1, made.prev_sha256) if made else None
    found = chain.scan_file(path, start, made.last if made else None, wanted, made.chain_uid if made else "")
    try:
        digest = lock.digest_of(path)
    except OSError:
        digest = None
    return _Segment(
        digest, found.records, found.first, found.first_prev, found.first_time, found.last, found.root, found.chain_uid, found.at, found.breaks
    )


class _Verification:
    def __init__(
        self, folder: Path, by: chain.Signer, shipped: t.Sequence[Shipped], now: float | None, jobs: int, tail: float
    ) -> None:
        self.folder, self.by, self.now, self.jobs, self.tail = folder, by, now, jobs, tail
        self.problems: list[Problem] = []
        self.at: dict[int, Link] = {}
        self.records = self.segments = self.removed = self.heads = 0
        self.chain_uid = ""
        self.end: Link | None = chain.START
        self.torn = False
        self.gone_to = 0  # records up to this number were removed by retention
        self.of_heads: list[Problem] = []  # told last: what they say is about the whole
        # The head first: whatever is written after it only makes the log longer.
        self.own = self._head()
        self.shipped = self._opened(shipped)
        after = {self.own[1].seq + 1} if self.own else set()
        self.wanted = frozenset({link.seq for _where, _uid, link in self.shipped} | ({self.own[1].seq} if self.own else set()) | after)

    def tell(self, path: object, text: str, seq: int = 0, line: int = 0) -> None:
        self.problems.append(Problem(str(path), line, seq, text))

    def report(self) -> Report:
        here = chain.contents(self.folder)
        if here.empty:
            self.tell(self.folder, "there is no log")
        for name in here.strange:
            self.tell(lock.show(self.folder / name), "this file belongs to no log; move it away")
        self._segments(here)
        self._unsealed(here)
        self._heads()
        return Report(
            self.records, self.segments, self.removed, self.heads, self.chain_uid, self.end or chain.START, self.problems
        )

    # -- sealed segments

    def _segments(self, here: chain.Contents) -> None:
        seals = {first: self._seal(path) for first, path in here.seals.items()}
        sealed = [first for first in here.firsts if first in here.seals or (first in here.packed and first not in here.raw)]
        found = self._read_all({first: here.packed[first] for first in sealed if first in here.packed}, seals)
        previous_seal = events.GENESIS
        for first in sealed:
            made = seals.get(first)
            path = self.folder / (chain.segment_name(first) + chain.PACKED)
            if first not in here.seals:
                self.tell(lock.show(path), "its seal is gone")
            if made:
                self._follows(here.seals[first], made, previous_seal)
                previous_seal = made.sha256
            if first in found:
                self._compare(path, made, found[first])
            else:
                self._missing(path, made, here.tombstones.get(first))
        for first in here.tombstones.keys() - here.seals.keys():
            self.tell(lock.show(here.tombstones[first]), "the seal of the removed segment is gone")

    def _seal(self, path: Path) -> chain.Seal | None:
        try:
            return chain.read_seal(path, self.by)
        except (seal.SealError, OSError) as error:
            self.tell(lock.show(path), str(error).removeprefix(f"{path}: "))
            return None

    def _read_all(self, paths: dict[int, Path], seals: dict[int, chain.Seal | None]) -> dict[int, _Segment]:
        tasks = [(path, seals.get(first), self.wanted) for first, path in paths.items()]
        if min(self.jobs, len(tasks)) < 2:
            return {first: _read(*task) for first, task in zip(paths, tasks, strict=True)}
        with concurrent.futures.ProcessPoolExecutor(min(self.jobs, len(tasks))) as pool:
            return dict(zip(paths, pool.map(_read, *zip(*tasks, strict=True)), strict=True))

    def _follows(self, path: Path, made: chain.Seal, previous_seal: str) -> None:
        """Compare a seal with what came before it."""
        where = lock.show(path)
        if made.first != int(path.name[3:19]):
            self.tell(where, f"it is the seal of the segment from record {made.first}")
        self.chain_uid = self.chain_uid or made.chain_uid
        if made.chain_uid != self.chain_uid:
            self.tell(where, "it is of another chain", made.first)
        if self.end is not None:
            if made.first != self.end.seq + 1:
                self.tell(where, f"records {self.end.seq + 1} to {made.first - 1} are missing before it: a segment and its seal are gone", made.first)
            elif made.prev_sha256 != self.end.sha256:
                self.tell(where, f"its segment does not follow {self.end}", made.first)
            if made.previous_seal != previous_seal and made.first == self.end.seq + 1:
                self.tell(where, "the seal before it is another one now: it was made anew, or changed", made.first)
        self.end = made.last

    def _compare(self, path: Path, made: chain.Seal | None, found: _Segment) -> None:
        where = lock.show(path)
        self.segments += 1
        self.records += found.records
        self.problems += found.breaks
        self.at |= found.at
        if made is None:
            # Its own records still say where it stands.
            if self.end is not None and (found.first, found.prev_sha256) != (self.end.seq + 1, self.end.sha256):
                self.tell(where, f"it does not follow {self.end}", found.first)
            self.end = found.last
            return
        if found.breaks:
            return
        said = (made.records, made.first, made.prev_sha256, made.first_time, made.last, made.root, made.chain_uid)
        if said != (found.records, found.first, found.prev_sha256, found.first_time, found.last, found.root, found.chain_uid):
            self.tell(where, f"its records {made.first} to {made.last.seq} are not those that were sealed: they were written anew", made.first)
        elif found.content_sha256 != made.content_sha256:
            self.tell(where, "its compressed form is not the one that was sealed, its records are", made.first)

    def _missing(self, path: Path, made: chain.Seal | None, tombstone: Path | None) -> None:
        where = lock.show(path)
        what = f"records {made.first} to {made.last.seq} are gone" if made else "it is gone"
        if tombstone is None:
            self.tell(where, f"{what}, and there is no tombstone: nothing here removed it", made.first if made else 0)
            return
        self.removed += 1
        if made is None:
            return
        try:
            chain.entombed(tombstone, made, self.by)
            self.gone_to = made.last.seq
            self.at[made.last.seq] = made.last
        except (seal.SealError, OSError) as error:
            self.tell(lock.show(tombstone), str(error).removeprefix(f"{tombstone}: "), made.first)

    # -- what is not sealed yet

    def _unsealed(self, here: chain.Contents) -> None:
        paths = [path for first, path in sorted(here.raw.items()) if first not in here.seals or first not in here.packed]
        if here.live:
            paths.append(self.folder / chain.LIVE)
        elif not here.empty:
            self.tell(lock.show(self.folder / chain.LIVE), "it is gone", self.end.seq + 1 if self.end else 0)
        for path in paths:
            found = chain.scan_file(path, self.end, None, self.wanted, self.chain_uid)
            self.records += found.records
            self.problems += found.breaks
            self.at |= found.at
            self.chain_uid = found.chain_uid
            self.torn = self.torn or bool(found.torn)
            if found.torn:
                self.tell(found.path, f"its last line is not whole: {len(found.torn)} bytes without an end", found.last.seq + 1, found.records + 1)
            if found.records:
                self.end = found.last

    # -- heads

    def _head(self) -> tuple[str, Link] | None:
        path = self.folder / chain.HEAD
        try:
            return chain.read_head(self.folder, self.by)
        except (seal.SealError, OSError) as error:
            if not chain.contents(self.folder).empty:
                self.of_heads.append(Problem(lock.show(path), 0, 0, str(error).removeprefix(f"{path}: ")))
            return None

    def _opened(self, shipped: t.Sequence[Shipped]) -> list[tuple[Shipped, str, Link]]:
        found = []
        for item in shipped:
            try:
                found.append((item, *chain.opened_head(item.envelope, self.by)))
            except seal.SealError as error:
                self.of_heads.append(Problem(item.path, item.line, 0, str(error)))
        return found

    def _heads(self) -> None:
        self.problems += self.of_heads
        if self.own:
            self._agrees(lock.show(self.folder / chain.HEAD), 0, *self.own)
            self._late(self.own[1])
        for item, uid, link in self.shipped:
            self.heads += 1
            self._agrees(item.path, item.line, uid, link)

    def _agrees(self, path: str, line: int, uid: str, link: Link) -> None:
        if uid != self.chain_uid:
            text = f"it is of the chain {uid}, the log is {self.chain_uid or 'none'}: either that was written anew, or reset-chain began a new one; then verify"
            self.tell(path, f"{text} {chain.ARCHIVE}{uid} with its heads, and this log with its own", line=line)
            return
        found = self.at.get(link.seq)
        if found is None and link.seq <= self.gone_to:
            return
        if found is None and self.end and link.seq > self.end.seq:
            self.tell(path, f"the end of the log is gone: it goes to record {self.end.seq}, the head to {link.seq}", self.end.seq + 1, line)
        elif found is None or found.sha256 != link.sha256:
            self.tell(path, f"record {link.seq} is not the one that this head was made of: it, or what is before it, was written anew", link.seq, line)

    def _late(self, head: Link) -> None:
        first = self.at.get(head.seq + 1)
        if first is None or self.now is None:
            return
        written = datetime.datetime.fromisoformat(first.time).timestamp()
        if self.now - written > self.tail:
            self.tell(
                lock.show(self.folder / chain.LIVE),
                f"it is not covered by a head, {self.now - written:.0f} s after it was written: is the recorder running?",
                first.seq,
            )
