# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The chain: where a changed line is found, how a segment is sealed, and what a kill leaves of that."""

from __future__ import annotations

import gzip
import hashlib
import typing as t
from pathlib import Path

import pytest
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import atomic, canonical, chain, chain_verify, events, lock, merkle, seal
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.chain import Link
from kills import killed

COUNT = 12


def records(count: int = COUNT, before: Link = chain.START, uid: str = "uid", **fields: t.Any) -> list[bytes]:
    """Return *count* records that follow *before*."""
    made: list[bytes] = []
    prev = before.sha256
    for number in range(before.seq + 1, before.seq + 1 + count):
        event = {"action": "run.start", "class": "process_activity", "id": f"{number:032x}", **fields}
        made.append(events.line(events.stamped(event, {}, "host", number, f"2026-11-24T10:00:00.{number:06d}Z", uid, prev)))
        prev = hashlib.sha256(made[-1]).hexdigest()
    return made


def link(lines: t.Sequence[bytes], number: int = -1) -> Link:
    """Return where the chain stands after one of *lines*, which begin a chain."""
    at = number % len(lines)
    return Link(at + 1, hashlib.sha256(lines[at]).hexdigest(), f"2026-11-24T10:00:00.{at + 1:06d}Z")


def joined(lines: t.Iterable[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in lines)


def without(number: int) -> t.Callable[[list[bytes]], object]:
    return lambda lines: lines.pop(number)


def replaced(number: int, old: bytes, new: bytes) -> t.Callable[[list[bytes]], object]:
    def change(lines: list[bytes]) -> None:
        assert old in lines[number]
        lines[number] = lines[number].replace(old, new)

    return change


def nothing(lines: list[bytes]) -> None:
    """Change nothing."""


# What is done to twelve records, the lines at which that is found, and the first thing told.
CHANGES: list[tuple[t.Callable[[list[bytes]], object], list[int], str]] = [
    (nothing, [], ""),
    (replaced(4, b"run.start", b"run.stop1"), [5], "it was changed after it was written"),
    (replaced(0, b"run.start", b"run.stop1"), [1], "it was changed after it was written"),
    (replaced(11, b"run.start", b"run.stop1"), [12], "it is not the last record that was sealed"),
    (replaced(4, b'"prev_sha256":"', b'"prev_sha256":"f'), [5], "it was changed after it was written"),
    (replaced(0, b'"prev_sha256":"', b'"prev_sha256":"f'), [1], "it was changed after it was written"),
    (replaced(11, b'"prev_sha256":"', b'"prev_sha256":"f'), [12], "it was changed after it was written"),
    (replaced(4, b'"seq":5,', b'"seq":6,'), [5], "its number was changed to 6"),
    (replaced(4, b'"seq":5,', b'"seq":"5",'), [5], "it is no record"),
    (replaced(4, b'{"action"', b'{"action'), [5], "it was changed after it was written"),
    (replaced(11, b'{"action"', b'{"action'), [12], "it is no record: it was changed"),
    (replaced(4, b'"uid"', b'"oid"'), [5], "it was changed after it was written"),
    (replaced(4, b"2026", b"2025"), [5], "its time '2025-11-24T10:00:00.000005Z' is before that of the record before it"),
    (without(4), [5], "record 5 is missing before it"),
    (without(0), [1], "record 1 is missing before it"),
    (without(11), [11], "the file ends here; it was sealed with the records to 12"),
    (lambda lines: lines.__delitem__(slice(3, 7)), [4], "records 4 to 7 are missing before it"),
    (lambda lines: lines.insert(5, lines[4]), [5], "it was put in, or stands here twice"),
    (lambda lines: lines.insert(8, lines[2]), [9], "it stands in the wrong place, or twice: record 9 comes here"),
    (lambda lines: lines.insert(5, b"{}"), [6], "it is no record: it was changed or put in"),
    (lambda lines: lines.insert(5, records(1, link(lines, 4), reason="forged")[0]), [6], "it was put in, or stands here twice"),
    (lambda lines: lines.insert(0, b""), [1], "it is no record"),
    (lambda lines: lines.append(records(1, link(lines))[0]), [13], "it is not the last record that was sealed"),
    (lambda lines: lines.insert(3, lines.pop(4)), [4, 5], "record 4 is missing before it"),
]


@pytest.mark.parametrize("size", [1, 100, 1 << 20])
@pytest.mark.parametrize(("change", "where", "told"), CHANGES)
def test_a_change_is_found_in_its_line(change: t.Callable[[list[bytes]], object], where: list[int], told: str, size: int) -> None:
    lines = records()
    end = link(lines)
    change(lines)
    content = joined(lines)
    pieces = (content[at : at + size] for at in range(0, len(content), size))
    found = chain.scan("log", pieces, chain.START, end)
    assert [item.line for item in found.breaks] == where
    assert not where or found.breaks[0].text.startswith(told), found.breaks[0]
    assert all("\n" not in str(item) for item in found.breaks)


def test_a_scan_tells_what_the_records_are() -> None:
    lines = records()
    found = chain.scan("log", [joined(lines), b"torn"], chain.START, link(lines), wanted={3, 12, 99})
    assert (found.records, found.first, found.first_prev, found.last) == (COUNT, 1, events.GENESIS, link(lines))
    assert found.chain_uid == "uid" and found.torn == b"torn" and found.size == len(joined(lines))
    assert found.at == {3: link(lines, 2), 12: link(lines, 11)}
    assert found.root == merkle.root([hashlib.sha256(line).digest() for line in lines]).hex()


def test_a_scan_that_is_not_told_what_came_before_believes_the_first_line() -> None:
    lines = records()
    assert chain.scan("log", [joined(lines[5:])], None).breaks == []
    assert [item.line for item in chain.scan("log", [joined(lines[5:])], chain.START).breaks] == [1]
    other = records(5, Link(5, "0" * 64))
    told = chain.scan("log", [joined(other)], link(lines, 4)).breaks
    assert [(item.line, item.text) for item in told] == [(1, "it does not follow the last record before this file")]


@pytest.mark.parametrize(("sender", "before", "fine"), [("recorder", "right", True), ("host", "right", False), ("recorder", "wrong", False)])
def test_time_goes_back_only_where_the_recorder_says_so(sender: str, before: str, fine: bool) -> None:
    first = records(1)[0]
    detail = {"before": link([first]).time if before == "right" else "2026-11-24T11:00:00.000000Z", "after": "2026-11-24T09:00:00.000000Z"}
    event = {"action": chain.CLOCK, "class": "application_lifecycle", "detail": detail}
    second = events.line(events.stamped(event, {}, sender, 2, "2026-11-24T09:00:00.000000Z", "uid", link([first]).sha256))
    third = records(1, Link(2, hashlib.sha256(second).hexdigest(), "2026-11-24T09:00:00.000000Z"))[0]
    assert (chain.scan("log", [joined([first, second, third])], chain.START).breaks == []) == fine


class Folder:
    """A log's folder with a key."""

    def __init__(self, path: Path) -> None:
        self.path, self.key = path / "logs", path / "log.key"
        self.path.mkdir()
        seal.ensure_key(self.key)
        self.lines: list[bytes] = []

    @property
    def by(self) -> chain.Signer:
        return chain.signer(seal.public_of(self.key))

    @property
    def private(self) -> seal.PrivateKey:
        return seal.load_private(self.key)

    def rotated(self, count: int = COUNT) -> int:
        """Add a segment that waits for its seal; return its first record's number."""
        first = len(self.lines) + 1
        made = records(count, link(self.lines) if self.lines else chain.START)
        self.lines += made
        (self.path / chain.segment_name(first)).write_bytes(joined(made))
        return first

    def finish(self) -> None:
        """Write an empty live file and the head."""
        (self.path / chain.LIVE).touch()
        seal.write(self.path / chain.HEAD, chain.head(self.private, link(self.lines), "uid"))

    def pack(self, first: int) -> chain.Seal:
        return chain.pack(self.path, first, self.private, self.by)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_a_segment_is_sealed(folder: Folder) -> None:
    assert seal.ensure_key(folder.key) is None
    first = folder.pack(folder.rotated())
    second = folder.pack(folder.rotated())
    packed = folder.path / "ct-0000000000000013.jsonl.gz"
    assert gzip.decompress(packed.read_bytes()) == joined(folder.lines[12:])
    assert second.previous_seal == first.sha256 == lock.digest_of(folder.path / "ct-0000000000000001.jsonl.gz.seal.json")
    assert second.content_sha256 == lock.digest_of(packed) and second.last == link(folder.lines) and second.records == COUNT
    assert seal.verify_file(packed.with_name(packed.name + ".seal.json"), seal.public_of(folder.key), chain.SEGMENT_KIND)
    assert sorted(path.suffix for path in folder.path.iterdir()) == [".gz", ".gz", ".json", ".json"]
    folder.finish()
    report = chain_verify.verify(folder.path, seal.public_of(folder.key))
    assert report.problems == [] and report.records == 24 and report.segments == 2


@pytest.mark.parametrize(("change", "where", "told"), CHANGES[1:3])
def test_what_is_broken_is_not_sealed(folder: Folder, change: t.Callable[[list[bytes]], object], where: list[int], told: str) -> None:
    first = folder.rotated()
    raw = folder.path / chain.segment_name(first)
    lines = raw.read_bytes().splitlines()
    change(lines)
    raw.write_bytes(joined(lines))
    with pytest.raises(chain.ChainError, match=f"{raw} line {where[0]} .*{told}"):
        folder.pack(first)
    raw.write_bytes(joined(folder.lines)[:-5])
    with pytest.raises(chain.ChainError, match="its last line is not whole"):
        folder.pack(first)
    assert [path.name for path in folder.path.iterdir()] == [raw.name]


def test_sealing_that_is_killed_is_completed_by_the_next(tmp_path: Path) -> None:
    step = 0
    while True:
        step += 1
        (tmp_path / str(step)).mkdir()
        folder = Folder(tmp_path / str(step))
        folder.pack(folder.rotated())
        first = folder.rotated()
        folder.finish()
        there = killed(step, lambda folder=folder, first=first: folder.pack(first))
        # Whatever is left is a whole log.
        assert chain_verify.verify(folder.path, seal.public_of(folder.key), jobs=1).problems == []
        folder.pack(first)
        assert chain_verify.verify(folder.path, seal.public_of(folder.key), jobs=1).problems == []
        assert list(chain.lines(folder.path)) == folder.lines
        assert not list(folder.path.glob("*.jsonl")) or [path.name for path in folder.path.glob("*.jsonl")] == [chain.LIVE]
        if not there:
            break
    assert step > 5


def test_a_removed_segment_leaves_its_seal_and_a_tombstone(folder: Folder) -> None:
    made = [folder.pack(folder.rotated()) for _segment in range(3)]
    folder.finish()
    chain.entomb(folder.path, made[0], folder.private, "its time was over")
    here = chain.contents(folder.path)
    assert (list(here.packed), list(here.seals), list(here.tombstones)) == ([13, 25], [1, 13, 25], [1])
    assert chain.sealed_end(folder.path, here, folder.by, "uid") == made[2].last
    report = chain_verify.verify(folder.path, seal.public_of(folder.key))
    assert report.problems == [] and report.removed == 1 and report.records == 24
    assert list(chain.lines(folder.path, 30)) == folder.lines[24:]
    # The tombstone of one segment is none for another.
    (folder.path / "ct-0000000000000013.jsonl.gz").unlink()
    (folder.path / "ct-0000000000000001.jsonl.gz.removed.json").rename(folder.path / "ct-0000000000000013.jsonl.gz.removed.json")
    told = [item.text for item in chain_verify.verify(folder.path, seal.public_of(folder.key)).problems]
    assert told == [
        "records 1 to 12 are gone, and there is no tombstone: nothing here removed it",
        "it is the tombstone of another segment, or its seal was made anew",
    ]


def test_heads_from_elsewhere_are_read_whatever_stands_before_them(folder: Folder, tmp_path: Path) -> None:
    folder.rotated()
    folder.finish()
    head = canonical.dumps(chain.head(folder.private, link(folder.lines, 6), "uid"))
    path = tmp_path / "heads"
    path.write_bytes(head + b"\nNov 24 10:00:00 host ct-head[1]: " + head + b"\n")
    shipped = chain_verify.read_heads(path)
    report = chain_verify.verify(folder.path, seal.public_of(folder.key), shipped)
    assert report.heads == 2 and report.problems == []
    path.write_bytes(head + b"\nno head\n")
    with pytest.raises(chain.ChainError, match=f"{path}:2: this is no head"):
        chain_verify.read_heads(path)
    with pytest.raises(chain.ChainError, match="there is no such file"):
        chain_verify.read_heads(tmp_path / "none")


@pytest.mark.parametrize(
    ("uid", "seq", "told"),
    [
        ("uid", 99, "the end of the log is gone: it goes to record 12, the head to 99"),
        ("uid", 5, "record 5 is not the one that this head was made of"),
        ("another", 5, "it is of the chain another, the log is uid: either that was written anew"),
    ],
)
def test_a_head_that_does_not_agree_is_told(folder: Folder, uid: str, seq: int, told: str) -> None:
    folder.rotated()
    folder.finish()
    envelope = chain.head(folder.private, Link(seq, "e" * 64, "2026-11-24T10:00:00.000005Z"), uid)
    shipped = [chain_verify.Shipped("heads", 3, envelope)]
    (problem,) = chain_verify.verify(folder.path, seal.public_of(folder.key), shipped).problems
    assert (problem.path, problem.line) == ("heads", 3) and problem.text.startswith(told)


def test_a_head_by_another_key_is_told(folder: Folder) -> None:
    folder.rotated()
    folder.finish()
    shipped = [chain_verify.Shipped("heads", 1, chain.head(seal.generate("log"), link(folder.lines), "uid"))]
    (problem,) = chain_verify.verify(folder.path, seal.public_of(folder.key), shipped).problems
    assert "it is not signed with this log's key" in problem.text


def test_the_log_key_is_rotated_and_lost_like_the_host_key(folder: Folder) -> None:
    folder.pack(folder.rotated())
    old = folder.private.public.keyid
    seal.rotate(folder.key)
    folder.pack(folder.rotated())
    folder.finish()
    assert folder.private.public.keyid != old
    assert chain_verify.verify(folder.path, seal.public_of(folder.key)).problems == []
    folder.key.unlink()
    with pytest.raises(seal.SealError, match="restore the key, or go on with a new chain: reset-chain on the recorder's admin.sock"):
        seal.ensure_key(folder.key)
    with pytest.raises(seal.SealError, match="log.key: the log key is missing; the recorder makes it"):
        seal.load_private(folder.key)


def test_no_log_is_a_problem(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    assert [str(item) for item in chain_verify.verify(folder.path, seal.public_of(folder.key)).problems] == [f"{folder.path}: there is no log"]
    with pytest.raises(chain.ChainError, match="there is no such folder of a log"):
        chain_verify.verify(tmp_path / "none", seal.public_of(folder.key))


def test_an_envelope_has_one_form_only(folder: Folder) -> None:
    folder.pack(folder.rotated())
    folder.finish()
    path = folder.path / "ct-0000000000000001.jsonl.gz.seal.json"
    content = atomic.read(path) or b""
    for other in (content.replace(b'","', b'", "', 1), content + b"\n", content.replace(b'=="', b'"', 1)):
        assert other != content
        path.write_bytes(other)
        assert Path(chain_verify.verify(folder.path, seal.public_of(folder.key)).problems[0].path) == path
