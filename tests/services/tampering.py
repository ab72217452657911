# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ways to tamper with a log, each with the place where it must be found."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
import shutil
import typing as t
import zlib
from pathlib import Path

from ansible_collections.dockersandbox.guardrails.plugins.module_utils import canonical, chain, chain_verify, events, seal

PUBLIC = "log.pub"


@dataclasses.dataclass
class Base:
    """A log that a recorder wrote and ended: its folder, its keys, and heads that were kept elsewhere, oldest first."""

    folder: Path
    keys: Path
    shipped: list[chain_verify.Shipped]


class Place(t.NamedTuple):
    """Where a change must be found: one of these files, and there one of these lines (None: any)."""

    files: frozenset[str]
    lines: range | None = None


class Log:
    """A copy of a log that may be changed. Files of records are read and written as lists of lines."""

    def __init__(self, base: Base, folder: Path, chance: random.Random) -> None:
        self.base, self.folder, self.chance = base, folder, chance
        shutil.copytree(base.folder, folder)
        shutil.copy(base.keys / PUBLIC, folder.parent / PUBLIC)
        shutil.copy(base.keys / "log.rotations.jsonl", folder.parent)
        self.shipped = base.shipped

    @property
    def key(self) -> seal.PrivateKey:
        """The log's own key, which a thief would have."""
        return seal.load_private(self.base.keys / "log.key")

    def names(self, kind: str = "") -> list[str]:
        """Return the files of records: the sealed ones, and the live one; or those that end with *kind*."""
        if kind:
            return sorted(path.name for path in self.folder.iterdir() if path.name.endswith(kind))
        return [*self.names(chain.PACKED), chain.LIVE]

    def any(self, least: int = 1) -> tuple[str, list[bytes]]:
        """Return one of the files of records with *least* records, and its lines."""
        while True:
            name = self.chance.choice(self.names())
            lines = self.lines(name)
            if len(lines) >= least:
                return name, lines

    def lines(self, name: str) -> list[bytes]:
        """Return the records of a file."""
        return b"".join(chain.chunks(self.folder / name)).split(b"\n")[:-1]

    def put(self, name: str, lines: t.Sequence[bytes]) -> None:
        """Write the records of a file."""
        content = b"".join(line + b"\n" for line in lines)
        if name.endswith(chain.PACKED):
            stream = zlib.compressobj(6, zlib.DEFLATED, 31)
            content = stream.compress(content) + stream.flush()
        (self.folder / name).write_bytes(content)

    def place(self, name: str, line: int = 0, around: int = 0) -> Place:
        """Return the place at *line* of a file, or *around* lines beside it; 0: anywhere in it, its seal included."""
        if line:
            return Place(frozenset({name}), range(line - around, line + around + 1))
        return Place(frozenset({name, name + seal.SUFFIX, name + chain.TOMBSTONE}))

    def after(self, name: str) -> Place:
        """Return the place that is a file, or the start of the one after it."""
        names = self.names()
        following = names[names.index(name) + 1] if name in names[:-1] else chain.HEAD
        return Place(frozenset({name, name + seal.SUFFIX, following, following + seal.SUFFIX}))

    def heads(self) -> Place:
        """Return the place that a head shows: the whole before it."""
        return Place(frozenset({chain.HEAD, "heads"}))

    def chained(self, lines: list[bytes], start: int) -> list[bytes]:
        """Return *lines* with those from *start* (0 is the first) on linked anew to what is before them."""
        made = lines[:start]
        for line in lines[start:]:
            record = json.loads(line)
            if made:
                before = json.loads(made[-1])
                record |= {"prev_sha256": hashlib.sha256(made[-1]).hexdigest(), "seq": before["seq"] + 1}
            made.append(events.line(record))
        return made

    def sealed_anew(self, name: str, private: seal.PrivateKey, **said: t.Any) -> None:
        """Write the seal of a segment again, over what is in it now."""
        path = self.folder / (name + seal.SUFFIX)
        predicate = json.loads(seal.payload(seal.read(path)))["predicate"]
        scanned = chain.scan_file(self.folder / name, None)
        predicate |= {
            "records": scanned.records,
            "first_seq": scanned.first,
            "prev_sha256": scanned.first_prev,
            "first_time": scanned.first_time,
            "last_seq": scanned.last.seq,
            "last_sha256": scanned.last.sha256,
            "last_time": scanned.last.time,
            "root": scanned.root,
            **said,
        }
        digest = canonical.sha256_hex((self.folder / name).read_bytes())
        seal.write(path, seal.sign(seal.statement({name: digest}, chain.SEGMENT_KIND, predicate), private))

    def headed_anew(self, private: seal.PrivateKey) -> None:
        """Write the head again, over the last record there is now."""
        link = self.end()
        uid = json.loads(self.lines(chain.LIVE)[0])["chain_uid"]
        seal.write(self.folder / chain.HEAD, chain.head(private, link, uid))

    def end(self) -> chain.Link:
        """Return the last record."""
        line = self.lines(chain.LIVE)[-1]
        record = json.loads(line)
        return chain.Link(record["seq"], hashlib.sha256(line).hexdigest(), record["time"])


def edited(line: bytes, chance: random.Random) -> bytes:
    """Return a record that says something else."""
    record = json.loads(line)
    record["reason"] = f"nothing of note {chance.random()}"
    return events.line(record)


# --- the classes; each changes a log and returns where that must be found


def flip_record(log: Log) -> Place:
    """One bit of a record in the live file."""
    content = bytearray((log.folder / chain.LIVE).read_bytes())
    at = log.chance.randrange(len(content))
    line = content.count(b"\n", 0, at) + 1
    content[at] ^= 1 << log.chance.randrange(8)
    (log.folder / chain.LIVE).write_bytes(content)
    return log.place(chain.LIVE, line, 1)


def flip_packed(log: Log) -> Place:
    """One bit of a compressed segment."""
    name = log.chance.choice(log.names(chain.PACKED))
    before = log.lines(name)
    content = bytearray((log.folder / name).read_bytes())
    content[log.chance.randrange(len(content))] ^= 1 << log.chance.randrange(8)
    (log.folder / name).write_bytes(content)
    stream, after = zlib.decompressobj(31), b""
    try:
        for byte in content:
            after += stream.decompress(bytes([byte]))
    except zlib.error:
        pass
    whole = after.split(b"\n")
    same = next((number for number, (one, two) in enumerate(zip(before, whole, strict=False)) if one != two), min(len(before), len(whole)))
    if whole[:-1] == before:
        return log.place(name)
    # What the library has not handed out yet when it fails may be some lines more than one byte at a time.
    return Place(frozenset({name}), range(max(0, same - 400), same + 3))


def flip_proof(log: Log) -> Place:
    """One bit of a seal, a tombstone or the head."""
    name = log.chance.choice([*log.names(seal.SUFFIX), *log.names(chain.TOMBSTONE), chain.HEAD])
    content = bytearray((log.folder / name).read_bytes())
    content[log.chance.randrange(len(content))] ^= 1 << log.chance.randrange(8)
    (log.folder / name).write_bytes(content)
    return Place(frozenset({name}))


def edit_record(log: Log) -> Place:
    """One record says something else."""
    name, lines = log.any()
    at = log.chance.randrange(len(lines))
    lines[at] = edited(lines[at], log.chance)
    log.put(name, lines)
    return log.place(name, at + 1)


def edit_and_chain(log: Log) -> Place:
    """One record says something else, and all after it in the file are linked anew."""
    name, lines = log.any()
    at = log.chance.randrange(len(lines))
    lines[at] = edited(lines[at], log.chance)
    log.put(name, log.chained(lines, at + 1))
    return log.heads() if name == chain.LIVE else log.place(name, len(lines))


def delete_record(log: Log) -> Place:
    """One record, or some, are not there any more."""
    name, lines = log.any(5)
    at = log.chance.randrange(len(lines) - 1)
    gone = log.chance.randint(1, min(3, len(lines) - 1 - at))
    del lines[at : at + gone]
    log.put(name, lines)
    return log.place(name, at + 1)


def delete_and_chain(log: Log) -> Place:
    """One record is not there any more, and all after it in the file are numbered and linked anew."""
    name, lines = log.any(5)
    at = log.chance.randrange(1, len(lines) - 1)
    del lines[at]
    log.put(name, log.chained(lines, at))
    return log.heads() if name == chain.LIVE else log.place(name, len(lines))


def insert_record(log: Log) -> Place:
    """A forged record, as it would stand there; or one of another place, or no record at all."""
    name, lines = log.any(5)
    at = log.chance.randrange(1, len(lines))
    forged = log.chained([lines[at - 1], edited(lines[at], log.chance)], 1)[1]
    line = log.chance.choice([forged, log.chance.choice(lines), b"{}", b"", b"not a record"])
    lines.insert(at, line)
    log.put(name, lines)
    return log.place(name, at + 1, 1)


def swap_records(log: Log) -> Place:
    """Two records have changed places."""
    name, lines = log.any(5)
    one, two = sorted(log.chance.sample(range(len(lines)), 2))
    lines[one], lines[two] = lines[two], lines[one]
    log.put(name, lines)
    return log.place(name, one + 1, 1)


def duplicate_record(log: Log) -> Place:
    """One record stands there twice, side by side or not."""
    name, lines = log.any(5)
    at = log.chance.randrange(len(lines))
    to = log.chance.choice([at + 1, log.chance.randrange(len(lines) + 1)])
    lines.insert(to, lines[at])
    log.put(name, lines)
    return log.place(name, to + 1, 1)


def truncate_bytes(log: Log) -> Place:
    """A file of records ends within a record, or within its compressed form."""
    name = log.chance.choice(log.names())
    content = (log.folder / name).read_bytes()
    cut = content[: log.chance.randrange(len(content))]
    (log.folder / name).write_bytes(cut)
    if name == chain.LIVE:
        return Place(frozenset({chain.LIVE, chain.HEAD}))
    return log.place(name)


def truncate_lines(log: Log) -> Place:
    """A file of records ends early."""
    name, lines = log.any(5)
    left = log.chance.randrange(1, len(lines))
    log.put(name, lines[:left])
    return log.heads() if name == chain.LIVE else log.place(name, left)


def cut_tail(log: Log) -> Place:
    """The live file ends early, and the head is an older one that was right then; only what was shipped knows better."""
    lines = log.lines(chain.LIVE)
    heads = [item for item in log.shipped[:-1] if json.loads(seal.payload(item.envelope))["predicate"]["seq"] >= json.loads(lines[0])["seq"]]
    head = log.chance.choice(heads)
    upto = json.loads(seal.payload(head.envelope))["predicate"]["seq"]
    log.put(chain.LIVE, [line for line in lines if json.loads(line)["seq"] <= upto])
    seal.write(log.folder / chain.HEAD, head.envelope)
    return Place(frozenset({"heads"}))


def cut_segments(log: Log) -> Place:
    """The last segments and the live file are gone, and an older head is in place: only what was shipped knows better."""
    sealed = log.names(chain.PACKED)
    kept = log.chance.randrange(1, len(sealed))
    for name in sealed[kept:]:
        (log.folder / name).unlink()
        (log.folder / (name + seal.SUFFIX)).unlink()
    log.put(chain.LIVE, [])
    made = json.loads(seal.payload(seal.read(log.folder / (sealed[kept - 1] + seal.SUFFIX))))["predicate"]
    heads = [item for item in log.shipped if json.loads(seal.payload(item.envelope))["predicate"]["seq"] <= made["last_seq"]]
    seal.write(log.folder / chain.HEAD, heads[-1].envelope)
    return Place(frozenset({"heads"}))


def remove_segment(log: Log) -> Place:
    """A segment is gone, its seal, or both; or the tombstone of one that was removed."""
    name = log.chance.choice(log.names(chain.PACKED))
    what = log.chance.choice([(name,), (name + seal.SUFFIX,), (name, name + seal.SUFFIX), tuple(log.names(chain.TOMBSTONE))])
    place = log.after(name)
    for item in what:
        (log.folder / item).unlink()
    if what[0].endswith(chain.TOMBSTONE):
        return log.place(what[0].removesuffix(chain.TOMBSTONE))
    return place


def remove_live(log: Log) -> Place:
    """The live file, or the head, is gone, or empty."""
    name = log.chance.choice([chain.LIVE, chain.HEAD])
    (log.folder / name).unlink()
    if log.chance.random() < 0.5:
        (log.folder / name).touch()
    return Place(frozenset({chain.LIVE, chain.HEAD}))


def reseal(log: Log) -> Place:
    """A segment is written anew and sealed with a key of the forger's."""
    name = log.chance.choice(log.names(chain.PACKED))
    lines = log.lines(name)
    at = log.chance.randrange(len(lines))
    lines[at] = edited(lines[at], log.chance)
    log.put(name, log.chained(lines, at + 1))
    log.sealed_anew(name, seal.generate("log"))
    return log.place(name)


def reseal_with_stolen_key(log: Log) -> Place:
    """A segment is written anew and sealed with the log's own key."""
    name = log.chance.choice(log.names(chain.PACKED))
    lines = log.lines(name)
    at = log.chance.randrange(len(lines))
    lines[at] = edited(lines[at], log.chance)
    log.put(name, log.chained(lines, at + 1))
    log.sealed_anew(name, log.key)
    return log.after(name)


def other_key(log: Log) -> Place:
    """All seals are right under another key, which has taken the place of the log's."""
    private = seal.generate("log")
    for name in log.names(seal.SUFFIX):
        made = json.loads(seal.payload(seal.read(log.folder / name)))
        seal.write(log.folder / name, seal.sign(made, private))
    log.headed_anew(private)
    if log.chance.random() < 0.5:
        (log.folder.parent / PUBLIC).write_bytes(private.public.pem)
        # The tombstone is the first that only the log's own key can have signed; heads that were shipped are the last.
        return Place(frozenset({*log.names(seal.SUFFIX), *log.names(chain.TOMBSTONE), "heads"}))
    return Place(frozenset(log.names(seal.SUFFIX)[:1]))


def swap_seals(log: Log) -> Place:
    """Two seals have changed places."""
    one, two = log.chance.sample([*log.names(seal.SUFFIX), *log.names(chain.TOMBSTONE), chain.HEAD], 2)
    content = (log.folder / one).read_bytes()
    (log.folder / one).write_bytes((log.folder / two).read_bytes())
    (log.folder / two).write_bytes(content)
    return Place(frozenset({one, two}))


def change_clock(log: Log) -> Place:
    """The clock goes back: whoever has the key wrote it so, chained and headed as it should be."""
    lines = log.lines(chain.LIVE)
    at = log.chance.randrange(2, len(lines))
    record = json.loads(lines[at])
    record["time"] = "2026-01-01T00:00:00.000000Z"
    lines[at] = events.line(record)
    log.put(chain.LIVE, log.chained(lines, at))
    log.headed_anew(log.key)
    log.shipped = []
    return log.place(chain.LIVE, at + 1)


def rewrite_all(log: Log) -> Place:
    """Root has written the whole log anew, from some record on, with the log's own key: only what was shipped knows better."""
    previous: dict[str, t.Any] = {}
    started, edit_from = False, log.chance.randrange(2, len(log.names(chain.PACKED)) + 1)
    for number, name in enumerate(log.names(), 1):
        lines = log.lines(name)
        if number >= edit_from and not started:
            at, started = log.chance.randrange(1, len(lines) // 2), True
            lines[at] = edited(lines[at], log.chance)
            lines = log.chained(lines, at + 1)
        elif started:
            first = json.loads(lines[0]) | {"prev_sha256": previous["last_sha256"]}
            lines = log.chained([events.line(first), *lines[1:]], 1)
        log.put(name, lines)
        if name != chain.LIVE:
            path = log.folder / (name + seal.SUFFIX)
            if started:
                log.sealed_anew(name, log.key, **({"previous_seal": previous["seal"]} if "seal" in previous else {}))
            previous = {"last_sha256": hashlib.sha256(lines[-1]).hexdigest(), "seal": canonical.sha256_hex(path.read_bytes())}
    log.headed_anew(log.key)
    return Place(frozenset({"heads"}))


def strange_file(log: Log) -> Place:
    """A segment or a seal lies there that nobody wrote: one of another log, or a copy under another name."""
    name = log.chance.choice(log.names(chain.PACKED))
    copy = log.chance.choice([f"{name[:-9]}.copy", f"{chain.segment_name(99_999)}{chain.PACKED}", f"{chain.segment_name(99_999)}"])
    shutil.copy(log.folder / name, log.folder / copy)
    return log.place(copy)


CLASSES: dict[str, tuple[t.Callable[[Log], Place], ...]] = {
    "bit flip": (flip_record, flip_packed, flip_proof),
    "edit": (edit_record, edit_and_chain),
    "deletion": (delete_record, delete_and_chain),
    "insertion": (insert_record,),
    "swap": (swap_records,),
    "duplication": (duplicate_record,),
    "truncation": (truncate_bytes, truncate_lines),
    "tail cut": (cut_tail, cut_segments),
    "removal": (remove_segment, remove_live),
    "re-seal": (reseal, reseal_with_stolen_key),
    "other key": (other_key,),
    "seal swap": (swap_seals,),
    "clock change": (change_clock,),
    "whole rewrite": (rewrite_all,),
    "strange file": (strange_file,),
}
