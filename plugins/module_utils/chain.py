# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The log on disk: a live file, sealed segments before it, and the head that says how far it goes.

In the log's folder lie

- ``ct.jsonl``: the live file, a record a line; ``ct.head.json``: the signed number and sha256 of a recent record;
- ``ct-FIRST.jsonl``: a segment that was rotated and is not sealed yet (FIRST: the number of its first record, 16 digits);
- ``ct-FIRST.jsonl.gz`` and its seal ``….seal.json``: a sealed segment, for good;
- ``ct-FIRST.jsonl.gz.removed.json`` in its place: the tombstone that retention left. The seal stays.

Seals, heads and tombstones are signed with the log key. Each record holds the sha256 of the one before, each seal the root
(:mod:`merkle`) over its records' sha256, and the sha256 of the seal before.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import re
import typing as t
import zlib
from pathlib import Path

from ansible_collections.dockersandbox.guardrails.plugins.module_utils import atomic, canonical, events, lock, merkle, seal

LIVE = "ct.jsonl"
HEAD = "ct.head.json"
PACKED = ".gz"
TOMBSTONE = ".removed.json"
ARCHIVE = "chain-"  # the folder that reset-chain moves a chain's files to, with that chain's name behind it
SEGMENT_KIND, HEAD_KIND, TOMBSTONE_KIND, CHAIN_KIND = "log-segment", "log-head", "log-removed", "log-chain"
RECORDER = "recorder"  # the sender of the recorder's own records
CLOCK = "clock.change"  # the recorder's record that explains why the time goes back

_NAME = re.compile(r"ct-(\d{16})\.jsonl(?:(\.gz)(\.seal\.json|\.removed\.json)?)?")
_CHUNK = 1 << 20
_LINK, _PLACE = b',"prev_sha256":"%b"', b',"seq":%d,"time":"'
_TIME = len("2026-11-24T10:00:00.000000Z")
_MOST = 20  # breaks of one file that are told
# A gzip stream of zlib; its level 6 makes 10 bytes of 105, at a quarter of the speed at which it is read again.
_GZIP = 31
_LEVEL = 6


class ChainError(Exception):
    """A log that is not as it was written, or cannot be sealed; the text is one line that says where."""


class Problem(t.NamedTuple):
    """One thing that is wrong with a log. *line* counts from 1, 0 for a whole file; *seq* is 0 where no record is known."""

    path: str
    line: int
    seq: int
    text: str

    def __str__(self) -> str:
        place = f" line {self.line}" if self.line else ""
        record = f" (record {self.seq})" if self.seq else ""
        return f"{self.path}{place}{record}: {self.text}"


def segment_name(first: int) -> str:
    """Return the name of the segment whose first record has the number *first*, before it is sealed."""
    return f"ct-{first:016d}.jsonl"


class Contents(t.NamedTuple):
    """What lies in a log's folder, by the number of the first record; *strange* are names that belong to nothing."""

    raw: dict[int, Path]
    packed: dict[int, Path]
    seals: dict[int, Path]
    tombstones: dict[int, Path]
    live: bool
    head: bool
    strange: list[str]

    @property
    def firsts(self) -> list[int]:
        """The segments that there are, or were."""
        return sorted({*self.raw, *self.packed, *self.seals, *self.tombstones})

    @property
    def empty(self) -> bool:
        """Whether there is no log at all."""
        return not (self.live or self.head or self.firsts)


def contents(folder: Path) -> Contents:
    """Return what lies in *folder*. Raises OSError."""
    found = Contents({}, {}, {}, {}, (folder / LIVE).exists(), (folder / HEAD).exists(), [])
    for name in sorted(os.listdir(folder)):
        match = _NAME.fullmatch(name)
        if match:
            kind = {".gz": found.packed, ".gz.seal.json": found.seals, ".gz.removed.json": found.tombstones}
            kind.get((match[2] or "") + (match[3] or ""), found.raw)[int(match[1])] = folder / name
        elif name.startswith("ct") and name not in {LIVE, HEAD}:
            found.strange.append(name)
    return found


# --- reading


class Link(t.NamedTuple):
    """Where a chain stands: the number and sha256 (hexadecimal) of a record, and its time."""

    seq: int
    sha256: str
    time: str = ""

    def __str__(self) -> str:
        return f"record {self.seq} ({self.sha256[:12]}…)"


START = Link(0, events.GENESIS)


@dataclasses.dataclass
class Scan:
    """What the records of one file are, and where they break. *size*: bytes of whole lines; *torn*: bytes after them."""

    path: str
    records: int = 0
    first: int = 0
    first_prev: str = ""
    first_time: str = ""
    chain_uid: str = ""
    last: Link = START
    size: int = 0
    torn: bytes = b""
    digests: list[bytes] = dataclasses.field(default_factory=list)
    at: dict[int, Link] = dataclasses.field(default_factory=dict)
    breaks: list[Problem] = dataclasses.field(default_factory=list)

    @property
    def root(self) -> str:
        """The root over the records (hexadecimal)."""
        return merkle.root(self.digests).hex()


def scan(
    path: str,
    chunks: t.Iterable[bytes],
    before: Link | None,
    end: Link | None = None,
    wanted: t.Container[int] = (),
    chain_uid: str = "",
) -> Scan:
    """Read the records in *chunks* and return what they are and where the chain breaks, each break at the line it is in.

    *before* is the record before the first (None: not known, the first line says it), *end* what the last one must be
    (None: not known), *wanted* the numbers of records whose :class:`Link` is to be kept.
    """
    found = Scan(path, chain_uid=chain_uid)
    judge = _Judge(found, before, wanted)
    sha256, digests, rest, text = hashlib.sha256, found.digests, b"", b""
    expected, last_time = judge.expected, judge.last_time.encode()
    link = _LINK % judge.start.encode()
    for chunk in chunks:
        lines = (rest + chunk).split(b"\n") if rest else chunk.split(b"\n")
        rest = lines.pop()
        found.size += sum(map(len, lines)) + len(lines)
        for text in lines:
            digest = sha256(text).digest()
            digests.append(digest)
            # Nearly every line is as it must be. Its bytes tell that at a fifth of the cost of reading it as JSON: within a
            # text every quote has a backslash before it, and behind seq come only time, trace_id and v.
            place = _PLACE % expected
            at = text.rfind(place)
            when = text[at + len(place) : at + len(place) + _TIME]
            if at > 0 and link in text and when >= last_time and not judge.doubt and expected not in wanted:
                expected += 1
                last_time = when
            else:
                judge.expected, judge.last_time = expected, last_time.decode("utf-8", "replace")
                judge.look(text)
                expected, last_time = judge.expected, judge.last_time.encode("utf-8", "replace")
            link = _LINK % digest.hex().encode()
    judge.expected = expected
    found.records, found.torn = len(digests), rest
    found.last = Link(expected - 1, judge.sha256(len(digests)), last_time.decode("utf-8", "replace"))
    judge.finish(text, end)
    found.breaks.sort(key=lambda item: item.line)
    return found


class _Judge:
    """The slow part of :func:`scan`: what a line tells that does not follow from the one before.

    *expected* is the number that the next line must have; *doubt* is whether it must be looked at whatever it is.
    """

    def __init__(self, found: Scan, before: Link | None, wanted: t.Container[int]) -> None:
        self.found = found
        self.wanted = wanted
        self.known = before is not None
        self.expected, self.start, self.last_time = (before.seq + 1, before.sha256, before.time) if before else (1, "", "")
        self.doubt = True
        self._suspect = 0  # a line whose prev_sha256 does not fit: it was changed, or the one before it
        self._explained = False  # a break was told that explains why the next line does not fit

    def sha256(self, line: int) -> str:
        """Return the sha256 of a line that was read, or of the record before the first one."""
        return self.found.digests[line - 1].hex() if line > 0 else self.start

    def look(self, text: bytes) -> None:
        """Judge the line that was read last, and set what the next one must be."""
        line, record = len(self.found.digests), _record(text)
        explained, self._explained = self._explained, False
        if record is None:
            self._settle(self._suspect)
            self.tell(line, self.expected, "it is no record: it was changed or put in")
            self._explained = self.doubt = True
            return
        seq, prev, when = record["seq"], record["prev_sha256"], record["time"]
        if not self.found.first_prev:
            self._begin(record)
        self._place(line, seq, prev, explained)
        if record["chain_uid"] != self.found.chain_uid:
            self.tell(line, seq, f"it is of another chain, {canonical.printable(record['chain_uid'][:36].encode('utf-8', 'replace'))}")
        if when < self.last_time and not _explains(record, self.last_time):
            self.tell(line, seq, f"its time {when[:27]!r} is before that of the record before it, {self.last_time}, and the recorder does not explain that")
        if seq in self.wanted:
            self.found.at[seq] = Link(seq, self.sha256(line), when)
        self.last_time = when
        self.doubt = bool(self._suspect) or self._explained

    def _begin(self, record: dict[str, t.Any]) -> None:
        self.found.first, self.found.first_prev, self.found.first_time = record["seq"], record["prev_sha256"], record["time"]
        self.found.chain_uid = self.found.chain_uid or record["chain_uid"]
        if not self.known:
            self.expected, self.start = record["seq"], record["prev_sha256"]

    def _place(self, line: int, seq: int, prev: str, explained: bool) -> None:
        """Compare the number and the link of *line* with what they must be."""
        expected, follows = self.expected, prev == self.sha256(line - 1)
        if line > 1 and seq == expected - 1 and prev == self.sha256(line - 2):
            self._suspect = 0
            self.tell(line - 1, seq, "it was put in, or stands here twice: the record after it follows the one before it")
            self.expected = expected
            return
        if self._suspect:
            self._settle(self._suspect - follows)
            explained = True
        self.expected = max(seq, expected - 1) + 1
        if seq == expected:
            if not follows and not explained:
                self._suspect = line
        elif explained and seq == expected + 1:
            pass
        elif follows:
            self.tell(line, expected, f"its number was changed to {seq}")
            self.expected, self._explained = expected + 1, True
        elif seq > expected:
            gone = f"record {expected} is" if seq == expected + 1 else f"records {expected} to {seq - 1} are"
            self.tell(line, expected, f"{gone} missing before it")
        else:
            self.tell(line, seq, f"it stands in the wrong place, or twice: record {expected} comes here")
            self._explained = True

    def _settle(self, changed: int) -> None:
        """Tell that of a suspect line and the one before it, if there is such a pair, line *changed* was changed."""
        suspect, self._suspect = self._suspect, 0
        if suspect and not changed:
            self.tell(1, self.found.first, "it does not follow the last record before this file")
        elif suspect:
            self.tell(changed, self.expected - 1 - (suspect - changed), "it was changed after it was written")

    def tell(self, line: int, seq: int, text: str) -> None:
        """Add a break, unless there are many already, or the line has one."""
        if len(self.found.breaks) < _MOST and line not in {item.line for item in self.found.breaks}:
            self.found.breaks.append(Problem(self.found.path, line, max(seq, 0), text))

    def finish(self, text: bytes, end: Link | None) -> None:
        """Judge the last line, *text*, by what it must be."""
        line, last = len(self.found.digests), self.found.last
        if line and not self._explained and _record(text) is None:
            self.tell(line, last.seq, "it is no record: it was changed")
        if self._suspect and end is not None:
            self._settle(line - (end[:2] == last[:2]))
        elif self._suspect:
            self.tell(line, last.seq, "it, or the record before it, was changed after it was written")
        elif end is not None and end.seq > last.seq:
            self.tell(line, last.seq, f"the file ends here; it was sealed with the records to {end.seq}")
        elif end is not None and end[:2] != last[:2] and not self.found.breaks:
            self.tell(line, last.seq, "it is not the last record that was sealed: it was changed, or put in")


def _record(text: bytes) -> dict[str, t.Any] | None:
    """Return the record that *text* is, when it has what a chain is made of."""
    try:
        record = json.loads(text)
        texts = all(isinstance(record[name], str) for name in ("time", "prev_sha256", "chain_uid"))
        return record if texts and isinstance(record["seq"], int) and not isinstance(record["seq"], bool) else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _explains(record: dict[str, t.Any], last_time: str) -> bool:
    detail = record.get("detail")
    own = record.get("sender") == RECORDER and record.get("action") == CLOCK
    return own and isinstance(detail, dict) and detail.get("before") == last_time


def chunks(path: Path) -> t.Iterator[bytes]:
    """Yield the bytes of the log file *path*, decompressed when it is a sealed segment.

    Raises OSError when it cannot be read, and ChainError in the place from which on it cannot be decompressed.
    """
    opened = atomic.open_regular(path)
    if opened is None:
        raise FileNotFoundError(2, "there is no such file", str(path))
    with opened:
        yield from _unpacked(opened) if path.suffix == PACKED else _pieces(opened)


def _pieces(opened: t.BinaryIO) -> t.Iterator[bytes]:
    while chunk := opened.read(_CHUNK):
        yield chunk


def _unpacked(opened: t.BinaryIO) -> t.Iterator[bytes]:
    stream = zlib.decompressobj(_GZIP)
    try:
        for piece in _pieces(opened):
            rest = piece
            while rest:
                yield stream.decompress(rest, _CHUNK)
                rest = stream.unconsumed_tail
            if stream.unused_data:
                raise ChainError("there are bytes behind its end")
        yield stream.flush()
    except zlib.error as error:
        raise ChainError(f"it cannot be decompressed from here on: {error}") from None
    if not stream.eof:
        raise ChainError("it ends before its compressed data does")


def scan_file(path: Path, before: Link | None, end: Link | None = None, wanted: t.Container[int] = (), chain_uid: str = "") -> Scan:
    """Do :func:`scan` on a log file; what cannot be read is a break too."""
    ended: list[str] = []

    def guarded() -> t.Iterator[bytes]:
        try:
            yield from chunks(path)
        except ChainError as error:
            ended.append(str(error))
        except OSError as error:
            ended.append(f"it cannot be read: {atomic.reason(error)}")

    found = scan(lock.show(path), guarded(), before, end, wanted, chain_uid)
    for why in ended:
        # What is told of the last line read so far would only be a consequence.
        found.breaks = [item for item in found.breaks if item.line < found.records]
        found.breaks.append(Problem(found.path, found.records + 1, found.last.seq + 1, why))
    return found


def lines(folder: Path, since: int = 1) -> t.Iterator[bytes]:
    """Yield the records of a log, oldest first, a line each and as they stand there; sealed segments included.

    Files that end before record *since* are left out, and so is what is being written. The recorder may go on meanwhile.
    Raises OSError and ChainError; nothing is verified.
    """
    # The live file first: when it is rotated now, it is still the one that is open here.
    live = atomic.open_regular(folder / LIVE)
    with live or io.BytesIO() as opened:
        newest = _whole(_pieces(opened))
        first = next(newest, b"")
        begin = _seq(first)
        here = contents(folder)
        firsts = [number for number in sorted({*here.raw, *here.packed}) if not begin or number < begin]
        for number, following in zip(firsts, [*firsts[1:], since + 1], strict=False):
            if following > since:
                yield from _segment(folder / segment_name(number))
        if first:
            yield first
        yield from newest


def _segment(raw: Path) -> t.Iterator[bytes]:
    """Yield the records of a segment, sealed or not, or while it is."""
    try:
        opened = open(raw, "rb")  # noqa: SIM115 - closed below, in whichever form it was found
    except FileNotFoundError:
        yield from _whole(chunks(raw.with_name(raw.name + PACKED)))
        return
    with opened:
        yield from _whole(_pieces(opened))


def _whole(pieces: t.Iterable[bytes]) -> t.Iterator[bytes]:
    """Yield the whole lines in *pieces*."""
    rest = b""
    for piece in pieces:
        found = (rest + piece).split(b"\n")
        rest = found.pop()
        yield from found


def _seq(line: bytes) -> int:
    record = _record(line)
    return int(record["seq"]) if record else 0


# --- sealing


class Seal(t.NamedTuple):
    """What the seal of a segment says, and the sha256 (hexadecimal) of the seal's own file."""

    first: int
    last: Link
    records: int
    prev_sha256: str
    root: str
    chain_uid: str
    previous_seal: str
    content_sha256: str
    first_time: str
    sha256: str


class Signer(t.NamedTuple):
    """Whose signatures count: a public key and, by their ids, the keys that rotations tie to it."""

    public: seal.PublicKey
    keys: t.Mapping[str, seal.PublicKey]

    def statement(self, path: Path, kind: str) -> seal.Statement:
        """Return the statement of *kind* in the envelope at *path*. Raises SealError."""
        envelope = seal.read(path)
        if atomic.read(path) != canonical.dumps(envelope) + b"\n":
            raise seal.SealError("it is not as it was written, though it says the same")
        return self.opened(envelope, kind)

    def opened(self, envelope: seal.Envelope, kind: str) -> seal.Statement:
        """Return the statement of *kind* in *envelope*. Raises SealError."""
        made = seal.verify_by(envelope, self.keys, self.public)
        if made["predicateType"] != seal.predicate_type(kind):
            raise seal.SealError(f"it is a seal of {made['predicateType']}, not of {seal.predicate_type(kind)}")
        return made


def signer(public: seal.Where) -> Signer:
    """Return whose signatures count under the public key at *public*. Raises SealError."""
    key = seal.load_public(public)
    return Signer(key, seal.trusted(key, seal.rotations(public)))


def read_seal(path: Path, by: Signer) -> Seal:
    """Return what the seal at *path* says once its signature holds and it is of the segment beside it. Raises SealError."""
    made = by.statement(path, SEGMENT_KIND)
    name = path.name.removesuffix(seal.SUFFIX)
    said, sealed = made["predicate"], seal.subjects(made)
    if set(sealed) != {name}:
        raise seal.SealError(f"it is the seal of {', '.join(sealed) or 'nothing'}")
    try:
        return Seal(
            said["first_seq"],
            Link(said["last_seq"], said["last_sha256"], said["last_time"]),
            said["records"],
            said["prev_sha256"],
            said["root"],
            said["chain_uid"],
            said["previous_seal"],
            sealed[name],
            said["first_time"],
            canonical.sha256_hex(atomic.read(path) or b""),
        )
    except KeyError as error:
        raise seal.SealError(f"it does not say {error}") from None


def sealed_end(folder: Path, here: Contents, by: Signer, chain_uid: str) -> Link:
    """Return the last sealed record once every seal holds, follows the one before and has its segment or a tombstone.

    The segments themselves are not read. Raises ChainError for the first that does not, and OSError.
    """
    last, previous_seal = START, events.GENESIS
    for first in here.firsts:
        packed = folder / (segment_name(first) + PACKED)
        if first not in here.seals:
            if first in here.raw:
                continue
            raise ChainError(f"{lock.show(packed)}: its seal is gone")
        path = here.seals[first]
        try:
            made = read_seal(path, by)
        except seal.SealError as error:
            raise ChainError(f"{lock.show(path)}: {str(error).removeprefix(f'{path}: ')}") from None
        if (made.first, made.prev_sha256, made.previous_seal) != (last.seq + 1, last.sha256, previous_seal):
            raise ChainError(f"{lock.show(path)}: it does not follow {last}: a segment is gone, or one of the seals is another one now")
        if chain_uid not in ("", made.chain_uid):
            raise ChainError(f"{lock.show(path)}: it is of the chain {made.chain_uid}, the log must be {chain_uid}")
        if not {first} & (here.packed.keys() | here.tombstones.keys()):
            raise ChainError(f"{lock.show(packed)}: records {made.first} to {made.last.seq} are gone, and there is no tombstone")
        last, previous_seal = made.last, made.sha256
    return last


def pack(folder: Path, first: int, private: seal.PrivateKey, by: Signer) -> Seal:
    """Compress and seal the rotated segment that begins with record *first*; return its seal.

    It is read back and proven first: what is broken is never sealed. A call that was killed is completed by the next.
    Raises ChainError, SealError and OSError.
    """
    raw = folder / segment_name(first)
    packed = raw.with_name(raw.name + PACKED)
    sealed = packed.with_name(packed.name + seal.SUFFIX)
    if sealed.exists() and packed.exists():
        made = read_seal(sealed, by)
        if lock.digest_of(packed) == made.content_sha256:
            raw.unlink(missing_ok=True)
            return made
    seals = contents(folder).seals
    nearest = max((number for number in seals if number < first), default=None)
    earlier = None if nearest is None else read_seal(seals[nearest], by)
    before = earlier.last if earlier else START
    scanned = scan_file(raw, before)
    if scanned.breaks:
        raise ChainError(str(scanned.breaks[0]))
    if scanned.torn or not scanned.records:
        raise ChainError(f"{scanned.path}: its last line is not whole")
    digest = _compress(raw, packed)
    said = predicate(scanned, earlier.sha256 if earlier else events.GENESIS)
    seal.write(sealed, seal.sign(seal.statement({packed.name: digest}, SEGMENT_KIND, said), private))
    raw.unlink()
    return read_seal(sealed, by)


def predicate(scanned: Scan, previous_seal: str = events.GENESIS) -> dict[str, t.Any]:
    """Return what the seal of a segment says of it; *previous_seal* is the sha256 of the seal before."""
    return {
        "chain_uid": scanned.chain_uid,
        "records": scanned.records,
        "bytes": scanned.size,
        "first_seq": scanned.first,
        "first_time": scanned.first_time,
        "prev_sha256": scanned.first_prev,
        "last_seq": scanned.last.seq,
        "last_time": scanned.last.time,
        "last_sha256": scanned.last.sha256,
        "root": scanned.root,
        "previous_seal": previous_seal,
        "time": seal.now(),
    }


def _compress(raw: Path, packed: Path) -> str:
    """Write the gzip form of *raw* to *packed*; return its sha256."""
    stream, digest = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP), hashlib.sha256()
    spare = packed.with_name(f".{packed.name}.tmp")
    spare.unlink(missing_ok=True)
    try:
        with open(os.open(spare, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640), "wb") as file:
            for chunk in chunks(raw):
                part = stream.compress(chunk)
                digest.update(part)
                file.write(part)
            part = stream.flush()
            digest.update(part)
            file.write(part)
            file.flush()
            os.fsync(file.fileno())
        spare.replace(packed)
    except BaseException:
        spare.unlink(missing_ok=True)
        raise
    atomic.sync_folder(packed.parent)
    return digest.hexdigest()


def head(private: seal.PrivateKey, link: Link, chain_uid: str) -> seal.Envelope:
    """Return the signed head of a log: that it goes as far as *link* at least."""
    predicate = {"chain_uid": chain_uid, "seq": link.seq, "sha256": link.sha256, "record_time": link.time, "time": seal.now()}
    return seal.sign(seal.statement({f"record {link.seq}": link.sha256}, HEAD_KIND, predicate), private)


def read_head(folder: Path, by: Signer) -> tuple[str, Link]:
    """Return what the head in *folder* says, as :func:`opened_head` does."""
    return _head_of(by.statement(folder / HEAD, HEAD_KIND))


def opened_head(envelope: seal.Envelope, by: Signer) -> tuple[str, Link]:
    """Return the chain and the record that a head names once its signature holds. Raises SealError."""
    return _head_of(by.opened(envelope, HEAD_KIND))


def _head_of(made: seal.Statement) -> tuple[str, Link]:
    said = made["predicate"]
    try:
        return str(said["chain_uid"]), Link(int(said["seq"]), str(said["sha256"]), str(said["record_time"]))
    except (KeyError, ValueError, TypeError):
        raise seal.SealError("it does not say which record it is of") from None


def entomb(folder: Path, made: Seal, private: seal.PrivateKey, why: str) -> None:
    """Remove a sealed segment and leave its tombstone, which says *why*. Raises OSError and SealError."""
    packed = folder / (segment_name(made.first) + PACKED)
    predicate = {
        "chain_uid": made.chain_uid,
        "first_seq": made.first,
        "last_seq": made.last.seq,
        "records": made.records,
        "seal_sha256": made.sha256,
        "reason": why,
        "time": seal.now(),
    }
    subjects = {packed.name: made.content_sha256}
    seal.write(packed.with_name(packed.name + TOMBSTONE), seal.sign(seal.statement(subjects, TOMBSTONE_KIND, predicate), private))
    packed.unlink(missing_ok=True)
    atomic.sync_folder(folder)


def entombed(path: Path, made: Seal, by: Signer) -> None:
    """Check that the tombstone at *path* is of the segment that *made* seals. Raises SealError."""
    said = by.statement(path, TOMBSTONE_KIND)["predicate"]
    if said.get("seal_sha256") != made.sha256:
        raise seal.SealError("it is the tombstone of another segment, or its seal was made anew")
