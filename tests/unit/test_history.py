# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Snapshots on a real image: whole or not there, whatever is killed, full, tampered with, or copied away in the middle.

Needs root, loop devices and xfsprogs: a test that has not fails and says so.
"""

from __future__ import annotations

import collections.abc
import contextlib
import errno
import gzip
import os
import pathlib
import random
import shutil
import subprocess
import tempfile
import time
import typing as t

import kills
import overlays
import pytest
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import changes, history, layers, loops, mounts, places, rollback, seal, workset
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.history import History, HistoryError, Policy, Snapshot

SIZE = 300 << 20


class Box(t.NamedTuple):
    """A working set, its snapshots, and the folder at which its overlay is mounted."""

    working_set: workset.WorkingSet
    kept: History
    merged: pathlib.Path

    @contextlib.contextmanager
    def mounted(self) -> collections.abc.Iterator[pathlib.Path]:
        """Mount what a sandbox sees."""
        item = self.working_set
        item.release()
        options = f"{workset.OVERLAY_OPTIONS},lowerdir={item.originals},upperdir={item.upper},workdir={item.delta}/work"
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, self.merged], check=True)
        try:
            yield self.merged
        finally:
            mounts.unmount(str(self.merged))

    def picture(self) -> dict[bytes, overlays.Seen]:
        with self.mounted() as merged:
            return overlays.picture(merged)

    def take(self, reason: str = "a test", **named: t.Any) -> Snapshot:
        with self.kept.draft() as draft:
            draft.read(at_rest=True)
            draft.hash()
            return draft.commit(self.working_set.baseline_id(), reason, **named)

    def restore(self, which: str) -> None:
        self.kept.open()
        tree = self.kept.verified(self.kept.find(which))
        self.kept.lay_out(tree)
        self.kept.exchange()


@pytest.fixture
def box() -> collections.abc.Iterator[Box]:
    """A working set on an image of its own, over a few originals."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="guardrails-history-", dir="/var/tmp"))
    try:
        yield made(folder, SIZE)
    finally:
        for mount in reversed([mount.point for mount in mounts.mounted() if mount.point.startswith(f"{folder}/")]):
            mounts.unmount(mount)
        subprocess.run(["rm", "-rf", folder], check=True)


def made(folder: pathlib.Path, size: int) -> Box:
    originals = folder / "originals"
    (originals / "src").mkdir(parents=True)
    for name in ("one", "src/two", "src/three"):
        (originals / name).write_text(f"{name}\n", encoding="ascii")
    (originals / "twin").hardlink_to(originals / "one")
    at = places.Places(str(folder / "home"), str(folder / "data"), str(folder / "run"))
    os.makedirs(os.path.dirname(at.host_key))
    seal.ensure_key(at.host_key)
    item = workset.WorkingSet(at, "box", str(originals), 0, 0, size)
    item.make_delta()
    item.seal_baseline(item.scan(), "first seal")
    (folder / "merged").mkdir()
    return Box(item, History(item), folder / "merged")


def test_what_was_changed_and_destroyed_comes_back(box: Box) -> None:
    chance = random.Random(7)
    pictures = {}
    for number in range(4):
        with box.mounted() as merged:
            overlays.scramble(chance, merged, 60)
        pictures[f"s{number}"] = box.picture()
        box.take(name=f"s{number}")
    for name in ("s1", "s3", "s0", "s2"):
        box.restore(name)
        assert box.picture() == pictures[name], name
    assert box.kept.problems() == []


def test_what_a_mount_does_to_a_root_is_no_change_and_what_is_done_in_it_is(box: Box) -> None:
    upper = pathlib.Path(box.working_set.upper)

    def swap() -> None:
        (upper / "a").rename(upper / "c")
        (upper / "b").rename(upper / "a")
        (upper / "c").rename(upper / "b")

    def another() -> None:
        (upper / "a").unlink()
        (upper / "c").write_text("a\n", encoding="ascii")

    def learnt() -> tuple[int, bool]:
        with box.kept.draft() as draft:
            draft.read(at_rest=True)
            draft.hash()
            return draft.reader.learnt, draft.same_as(kept)

    for act in (None, swap, another, lambda: (upper / "a").chmod(0o600), lambda: upper.chmod(0o700)):
        for name in ("a", "b"):
            (upper / name).write_text(f"{name}\n", encoding="ascii")
            (upper / name).chmod(0o644)
        # Older than what a second change could hide in.
        time.sleep(2 * layers.SETTLED_NS / 1e9)
        kept = box.take()
        os.utime(upper)
        assert learnt() == (0, True)
        if act is not None:
            act()
            changed, same = learnt()
            assert changed and not same
        for path in upper.iterdir():
            path.unlink()
        upper.chmod(0o755)


def test_where_there_is_no_reflink_files_are_copied(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loops, "unavailable", lambda: "there is no loop device")
    folder = pathlib.Path(box.working_set.places.data).parent / "plain"
    plain = made(folder, SIZE)
    assert not plain.working_set.hard
    upper = pathlib.Path(plain.working_set.upper)
    (upper / "f").write_bytes(b"first")
    with open(upper / "hole", "wb") as sparse:
        sparse.truncate(1 << 36)
        sparse.seek(1 << 35)
        sparse.write(b"end")
    before = (upper / "f").stat()
    plain.take(name="one")
    assert before.st_ctime_ns == (upper / "f").stat().st_ctime_ns
    (upper / "f").write_bytes(b"later")
    (upper / "hole").unlink()
    plain.restore("one")
    assert (upper / "f").read_bytes() == b"first"
    assert ((upper / "hole").stat().st_size, (upper / "hole").stat().st_blocks < 100) == (1 << 36, True)
    assert plain.kept.problems() == []


@pytest.fixture
def plain(box: Box, monkeypatch: pytest.MonkeyPatch) -> Box:
    """A working set that was made where there are no loop devices, which come later, with snapshots and no changes any more."""
    with monkeypatch.context() as nothing:
        nothing.setattr(loops, "unavailable", lambda: "there is no loop device")
        made_there = made(pathlib.Path(box.working_set.places.data).parent / "plain", SIZE)
    upper = pathlib.Path(made_there.working_set.upper)
    (upper / "f").write_bytes(b"first")
    with open(upper / "hole", "wb") as sparse:
        sparse.seek(1 << 35)
        sparse.write(b"end")
    made_there.take(name="one")
    (upper / "f").unlink()
    (upper / "hole").unlink()
    made_there.take(name="two")
    return made_there


def test_snapshots_come_along_when_a_plain_set_becomes_a_hard_one_whatever_is_killed(plain: Box) -> None:
    item = plain.working_set
    assert item.untouched()
    subprocess.run(["cp", "-a", item.places.data, f"{item.places.data}.before"], check=True)
    step = 1
    while kills.killed(step, item.make_delta):
        if step % 5 == 0:
            # What a killed one left does not hinder the next, nor does it lose anything.
            item.make_delta()
            assert (item.cap(), plain.kept.problems()) == ("hard", []), step
            again(plain)
        else:
            assert item.hard or item.untouched(), step
        step += 1
    assert step > 20
    assert sorted(os.listdir(item.places.sandbox("box"))) == ["baseline", "delta", "delta.img"]
    assert [snapshot.name for snapshot, _digest in plain.kept.register().snapshots.values()] == ["one", "two"]
    plain.restore("one")
    upper = pathlib.Path(item.upper)
    assert (upper / "f").read_bytes() == b"first"
    assert ((upper / "hole").stat().st_size, (upper / "hole").stat().st_blocks < 100) == ((1 << 35) + 3, True)
    mounts.unmount(item.delta)
    assert os.listdir(item.delta) == []


def again(plain: Box) -> None:
    """Put the plain set back as it was before it became a hard one."""
    data = plain.working_set.places.data
    mounts.unmount(plain.working_set.delta)
    subprocess.run(["rm", "-rf", data], check=True)
    subprocess.run(["cp", "-a", f"{data}.before", data], check=True)


def test_a_set_with_more_snapshots_than_its_image_has_room_for_stays_plain(plain: Box) -> None:
    pathlib.Path(plain.kept.objects, "1000").write_bytes(bytes(SIZE // 4))
    assert not plain.working_set.untouched()
    assert plain.working_set.cap() == "monitored: it was made without a cap, and holds changes or too many snapshots"


def test_a_killed_restore_is_finished_before_a_plain_set_becomes_a_hard_one(plain: Box) -> None:
    def restored() -> None:
        plain.restore("one")

    step, seen = 1, 0
    while kills.killed(step, restored):
        left = {"journal.json", "stage"} & set(os.listdir(plain.kept.folder))
        assert not (left and plain.working_set.untouched()), step
        seen += bool(left)
        step += 1
    assert seen


def test_snapshots_that_the_image_has_not_are_not_lost(plain: Box) -> None:
    item = plain.working_set
    subprocess.run(["cp", "-a", item.snapshots, f"{item.places.data}.snapshots"], check=True)
    item.make_delta()
    mounts.unmount(item.delta)
    for layer in ("upper", "work"):
        os.mkdir(f"{item.delta}/{layer}")
    os.rename(f"{item.places.data}.snapshots", item.snapshots)
    plain.take(name="three")
    with pytest.raises(workset.WorkingSetError, match="holds files of its own where .* is mounted: move them away"):
        item.mount_delta()
    assert [snapshot.name for snapshot, _digest in plain.kept.register().snapshots.values()] == ["one", "two", "three"]


def test_hard_links_of_originals_come_back_with_their_index(box: Box) -> None:
    with box.mounted() as merged:
        (merged / "twin").write_text("changed\n", encoding="ascii")
        assert (merged / "one").read_text(encoding="ascii") == "changed\n"
    box.take(name="changed")
    with box.mounted() as merged:
        (merged / "one").write_text("again\n", encoding="ascii")
        (merged / "twin").unlink()
    box.restore("changed")
    with box.mounted() as merged:
        assert [(merged / name).read_text(encoding="ascii") for name in ("one", "twin")] == ["changed\n", "changed\n"]
        assert os.path.samefile(merged / "one", merged / "twin")
        (merged / "twin").write_text("third\n", encoding="ascii")
        assert (merged / "one").read_text(encoding="ascii") == "third\n"
    assert b"one" in {change.path for change in changes.read(box.working_set.upper, box.working_set.originals)}


def test_what_is_the_same_is_kept_once(box: Box) -> None:
    upper = pathlib.Path(box.working_set.upper)
    for number in range(50):
        (upper / f"f{number}").write_bytes(os.urandom(9000))
    time.sleep(0.1)
    box.take()
    before = set(os.listdir(box.kept.objects))
    assert len(before) == 50
    free = os.statvfs(upper).f_bfree
    (upper / "f7").write_bytes(b"other")
    time.sleep(0.1)
    box.take()
    assert len(set(os.listdir(box.kept.objects)) - before) == 1
    # A manifest, a seal and the register; no content twice.
    assert free - os.statvfs(upper).f_bfree < 40
    box.take()
    assert len(os.listdir(box.kept.objects)) == 51


def test_nobody_but_root_has_a_way_in(box: Box) -> None:
    (pathlib.Path(box.working_set.upper) / "f").write_text("x", encoding="ascii")
    one = box.take()
    assert os.stat(box.kept.folder).st_mode & 0o777 == 0o700
    found = pathlib.Path(box.kept.folder, one.id)
    assert {path.name for path in found.iterdir()} == {"manifest.jsonl.gz", "objects", "seal.json"}
    with box.mounted() as merged:
        assert sorted(os.listdir(merged)) == ["f", "one", "src", "twin"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "is not one"),
        ("Upper", "is not one"),
        ("20261124T101010Z-0000", "is not one"),
        ("../x", "is not one"),
        ("a" * 65, "is not one"),
        ("there", "name: there is that of snapshot"),
    ],
)
def test_names_that_cannot_be_given(box: Box, name: str, said: str) -> None:
    box.take(name="there")
    with pytest.raises(HistoryError, match=said):
        box.kept.check_name(name)


@pytest.mark.parametrize("which", ["", "none", "20261124T101010Z-0000", "register.json"])
def test_a_snapshot_that_is_not_there(box: Box, which: str) -> None:
    with pytest.raises(HistoryError, match="sandbox box: has no snapshots yet"):
        box.kept.find(which)
    box.take(name="there")
    with pytest.raises(HistoryError, match=r"sandbox box: has no snapshot .*: the last are .* \(there\)"):
        box.kept.find(which)


# --- tampering


def _object(box: Box, _one: Snapshot) -> None:
    path = pathlib.Path(box.kept.objects, min(os.listdir(box.kept.objects)))
    path.chmod(0o600)
    path.write_bytes(b"evil")


def _put_back(box: Box, _one: Snapshot) -> None:
    path = pathlib.Path(box.kept.objects, min(os.listdir(box.kept.objects)))
    before = path.stat()
    path.chmod(0o600)
    path.write_bytes(b"f9")
    path.chmod(0o400)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _no_object(box: Box, _one: Snapshot) -> None:
    pathlib.Path(box.kept.objects, min(os.listdir(box.kept.objects))).unlink()


def _manifest(box: Box, one: Snapshot) -> None:
    path = pathlib.Path(box.kept.folder, one.id, history.MANIFEST)
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()).replace(b'"0644"', b'"4777"')))


def _no_seal(box: Box, one: Snapshot) -> None:
    pathlib.Path(box.kept.folder, one.id, "seal.json").unlink()


def _another_key(box: Box, one: Snapshot) -> None:
    path = pathlib.Path(box.kept.folder, one.id, "seal.json")
    statement = seal.verify_file(path, box.working_set.places.public_key)
    seal.write(path, seal.sign(statement, seal.generate()))


def _another_fact(box: Box, one: Snapshot) -> None:
    path = pathlib.Path(box.kept.folder, one.id, "seal.json")
    statement = seal.verify_file(path, box.working_set.places.public_key)
    statement["predicate"]["baseline"] = "0" * 64
    seal.write(path, seal.sign(statement, seal.load_private(box.working_set.places.host_key)))


def _no_folder(box: Box, one: Snapshot) -> None:
    shutil.rmtree(pathlib.Path(box.kept.folder, one.id))


def _no_register(box: Box, _one: Snapshot) -> None:
    pathlib.Path(box.kept.folder, "register.json").unlink()


def _anothers_register(box: Box, _one: Snapshot) -> None:
    path = pathlib.Path(box.kept.folder, "register.json")
    statement = seal.verify(seal.read(path), seal.load_public(box.working_set.places.public_key))
    statement["predicate"]["sandbox"] = "other"
    seal.write(path, seal.sign(statement, seal.load_private(box.working_set.places.host_key)))


def _register(box: Box, _one: Snapshot) -> None:
    path = pathlib.Path(box.kept.folder, "register.json")
    path.write_bytes(path.read_bytes().replace(b"payload", b"payl0ad", 1))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_object, "is not as it was sealed: f1 ("),
        (_put_back, "is not as it was sealed: f1 ("),
        (_no_object, "is not as it was sealed: f1 ("),
        (_manifest, "manifest.jsonl.gz changed after it was sealed"),
        (_no_seal, "seal.json: there is no such seal"),
        (_another_key, "it is not signed with this host's key"),
        (_another_fact, "seal.json is not the seal that the register names: restore it from a backup"),
        (_no_folder, "seal.json: there is no such seal"),
        (_no_register, "register.json, is gone: restore it from a backup"),
        (_anothers_register, "is the register of other, not of this sandbox: restore its own"),
        (_register, "is not a DSSE envelope"),
    ],
)
def test_what_was_tampered_with_is_named_and_not_used(box: Box, spoil: t.Callable[[Box, Snapshot], None], said: str) -> None:
    upper = pathlib.Path(box.working_set.upper)
    for name in ("f1", "f2"):
        (upper / name).write_text(name, encoding="ascii")
    one = box.take(name="one")
    (upper / "f1").write_text("later", encoding="ascii")
    assert box.kept.problems() == []
    spoil(box, one)
    (problem,) = box.kept.problems()
    assert problem.startswith("sandbox box: ")
    assert said in problem
    assert "\n" not in problem
    before = overlays.picture(upper)
    with pytest.raises(HistoryError) as caught:
        box.restore("one")
    assert caught.value.problems == [problem]
    assert overlays.picture(upper) == before


def test_a_restore_reads_no_object_that_is_proven_unchanged(box: Box) -> None:
    upper = pathlib.Path(box.working_set.upper)
    for name in ("f1", "f2"):
        (upper / name).write_text(name, encoding="ascii")
    one = box.take(name="one")
    box.restore("one")
    box.take()
    read: list[int] = []
    box.kept.digests = lambda numbers: read.extend(numbers) or {}  # type: ignore[method-assign,func-returns-value]
    box.kept.verified(one)
    assert read == []
    path = pathlib.Path(box.kept.objects, min(os.listdir(box.kept.objects)))
    path.chmod(0o600)
    box.kept.verified(one)
    assert read == [int(path.name)]


# --- kills


def _take(box: Box) -> None:
    box.take()


def _restore(box: Box) -> None:
    box.restore("old")


def _remove(box: Box) -> None:
    box.kept.remove([box.kept.find("old")], "a test")


def _whole(box: Box, now: dict[bytes, overlays.Seen], old: dict[bytes, overlays.Seen], step: int) -> None:
    """Whatever was killed, the next finishes or undoes it: all is the one state or the other."""
    box.kept.open()
    assert overlays.picture(pathlib.Path(box.working_set.upper)) in (now, old), step
    assert box.kept.problems() == [], step
    kept = box.kept.register().snapshots
    used = {number for one, _digest in kept.values() for number in layers.objects_of(box.kept.tree(one))}
    assert {int(name) for name in os.listdir(box.kept.objects)} == used, step
    left = set(os.listdir(box.kept.folder)) - kept.keys()
    assert left <= {"objects", "register.json", "known", "known.new", ".register.json.tmp", ".journal.json.tmp"}, step


@pytest.mark.parametrize("act", [_take, _restore, _remove])
def test_a_kill_at_any_step_leaves_one_state_or_the_other(box: Box, monkeypatch: pytest.MonkeyPatch, act: t.Callable[[Box], None]) -> None:
    # So that a kill comes between the two exchanges too, which are no file operation that Python tells of.
    exchange = mounts.exchange

    def told(one: str, other: str) -> None:
        os.close(os.open(os.devnull, os.O_RDONLY))
        exchange(one, other)

    monkeypatch.setattr(mounts, "exchange", told)
    upper = pathlib.Path(box.working_set.upper)
    for name in ("a", "b"):
        (upper / name).write_text(name, encoding="ascii")
    old = overlays.picture(upper)
    box.take(name="old")
    step = 1
    while True:
        if "old" not in {one.name for one, _digest in box.kept.register().snapshots.values()}:
            (upper / "a").write_text("a", encoding="ascii")
            box.take(name="old")
        (upper / "a").write_text(f"step {step}", encoding="ascii")
        now = overlays.picture(upper)
        if not kills.killed(step, lambda: act(box)):
            break
        _whole(box, now, old, step)
        step += 1
    _whole(box, now, old, step)
    assert step > 15


@pytest.fixture
def outer(tmp_path: pathlib.Path) -> collections.abc.Iterator[pathlib.Path]:
    """A folder in which a file can be copied as it is at one moment, while it is written to: by sharing its blocks."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="guardrails-outer-", dir="/var/tmp"))
    try:
        loops.make(str(folder / "outer.img"), 3 * SIZE)
        (folder / "at").mkdir()
        loops.mount(str(folder / "outer.img"), str(folder / "at"))
        yield folder / "at"
    finally:
        for mount in reversed([mount.point for mount in mounts.mounted() if mount.point.startswith(f"{folder}/")]):
            subprocess.run(["umount", mount], check=True)
        shutil.rmtree(folder)


def test_an_image_that_was_copied_in_the_middle_recovers(outer: pathlib.Path) -> None:
    """What survives a kill may be in memory alone: what a power cut leaves is what the image holds at that moment."""
    box = made(outer / "box", SIZE)
    item = box.working_set
    upper = pathlib.Path(item.upper)
    for number in range(60):
        (upper / f"f{number}").write_bytes(os.urandom(5000))
    old = overlays.picture(upper)
    box.take(name="old")
    (upper / "f1").write_bytes(b"new")
    (upper / "f2").unlink()
    box.take(name="new")
    now = overlays.picture(upper)
    chance = random.Random(1)
    seen = set()
    for turn in range(8):
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                while True:
                    for name in ("old", "new"):
                        box.restore(name)
                        (upper / "f1").touch()
                        box.take()
            os._exit(1)
        time.sleep(chance.uniform(0.05, 0.5))
        at = places.Places(item.places.home, str(outer / f"copy{turn}"), item.places.run)
        os.makedirs(at.delta("box"))
        subprocess.run(["cp", "--reflink=always", item.image, at.image("box")], check=True)
        os.kill(child, 9)
        os.waitpid(child, 0)
        # Two file systems of one name are there at once.
        subprocess.run(["mount", "-o", "loop,nouuid", at.image("box"), at.delta("box")], check=True)
        copy = History(workset.WorkingSet(at, "box", item.originals, item.uid, item.gid, item.size))
        copy.open()
        picture = overlays.picture(pathlib.Path(copy.working_set.upper))
        assert picture in (old, now)
        assert copy.problems() == []
        seen.add((picture == old, len(copy.register().snapshots)))
        subprocess.run(["umount", at.delta("box")], check=True)
        subprocess.run(["rm", "-rf", at.data], check=True)
        box.kept.open()
    assert len(seen) > 1


# --- room


def fill(folder: pathlib.Path, block: int = 1 << 20) -> None:
    for number in range(1 << 20):
        try:
            with open(folder / f"fill{number}", "wb") as handle:
                handle.write(b"x" * block)
        except OSError as error:
            assert error.errno == errno.ENOSPC
            return


@pytest.mark.parametrize("block", [1 << 20, 300], ids=["bytes", "files"])
def test_a_full_set_can_be_snapshotted_and_undone(box: Box, block: int) -> None:
    upper = pathlib.Path(box.working_set.upper)
    (upper / "first").write_text("first", encoding="ascii")
    old = overlays.picture(upper)
    box.take(name="old")
    fill(upper, block)
    with box.working_set.spent(), box.kept.draft() as draft:
        draft.read(at_rest=True)
        draft.hash()
        full = draft.commit(box.working_set.baseline_id(), "a test")
    with pytest.raises(OSError, match="No space left"):
        fill_one(upper / "more", block)
    assert box.kept.problems() == []
    with box.working_set.spent():
        box.restore("old")
    assert overlays.picture(upper) == old
    box.kept.remove([full], "a test")
    fill_one(upper / "more", block)


def test_a_set_that_filled_itself_can_go_on(box: Box) -> None:
    """What it clears stays in a snapshot, and takes the room of snapshots first."""
    item, upper = box.working_set, pathlib.Path(box.working_set.upper)

    def run() -> int:
        """Do what is done before and after a run, and return the bytes that are free in it."""
        with item.spent(), box.kept.draft() as draft:
            draft.read(at_rest=True)
            draft.hash()
            draft.commit(item.baseline_id(), "a test")
        item.balance(draft.reader.used)
        info = os.statvfs(upper)
        return info.f_bavail * info.f_frsize

    nominal = run()
    fill(upper)
    full = sum(path.stat().st_blocks for path in upper.iterdir()) * 512
    assert nominal * 0.97 < full <= nominal
    # Nothing is free in it, but a part of the reserve, for what it overwrites.
    assert SIZE // 25 < run() <= SIZE // 20 + (1 << 20)
    (upper / "fill0").write_bytes(b"y" * (1 << 20))
    for path in upper.iterdir():
        path.unlink()
    # What the snapshots hold is more than their room: the rest is the sandbox's.
    assert SIZE // 6 < run() < nominal
    (upper / "again").write_bytes(b"z" * (40 << 20))
    box.kept.remove([one for one, _digest in box.kept.register().snapshots.values()][:-1], "a test")
    (upper / "again").unlink()
    box.kept.open()
    assert run() > nominal * 0.8


def fill_one(path: pathlib.Path, block: int) -> None:
    folder = path.with_name("more.d")
    folder.mkdir(exist_ok=True)
    # The file system makes inodes by 64, in each of its groups.
    for number in range(100 if block > 4096 else 400):
        (folder / f"{number}").write_bytes(b"x" * block)


# --- which may go


def snapshots(*times: str, checkpoint: str = "") -> list[Snapshot]:
    return [Snapshot(f"202611{at}00Z-0000", "", "", "", at == checkpoint, "", "", 0, 0, 0) for at in times]


TIMES = ("20T0900", "21T0900", "21T1000", "22T0900", "23T0810", "23T0820", "23T0910", "24T1000", "24T1010", "24T1020")


@pytest.mark.parametrize(
    ("policy", "pinned", "running", "gone"),
    [
        (Policy(15, 10, 0, 0), (), "", ()),
        (Policy(15, 3, 0, 0), (), "", TIMES[:7]),
        (Policy(15, 1, 0, 0), (), "", TIMES[:9]),
        (Policy(15, 1, 3, 0), (), "", tuple(one for one in TIMES if one not in ("24T1020", "23T0910", "23T0820"))),
        (Policy(15, 1, 0, 3), (), "", tuple(one for one in TIMES if one not in ("24T1020", "23T0910", "22T0900"))),
        (Policy(15, 1, 99, 99), (), "", ("23T0810", "24T1000", "24T1010")),
        (Policy(15, 3, 0, 0), ("21T0900",), "", ("20T0900", *TIMES[2:7])),
        # A run goes on since 23T0815: what it began with, and all since, stays.
        (Policy(15, 1, 0, 0), (), "20261123T081500Z-ffff", TIMES[:4]),
        (Policy(15, 1, 0, 0), (), "20261101T000000Z-ffff", ()),
    ],
)
def test_what_is_kept(policy: Policy, pinned: tuple[str, ...], running: str, gone: tuple[str, ...]) -> None:
    ids = [one.id for one in snapshots(*pinned)]
    assert history.dispensable(snapshots(*TIMES), policy, ids, running) == snapshots(*gone)


def test_a_checkpoint_stays() -> None:
    found = history.dispensable(snapshots(*TIMES, checkpoint="21T0900"), Policy(15, 1, 0, 0), ())
    assert [one.id for one in found] == [one.id for one in snapshots(*TIMES[:9]) if "21T0900" not in one.id]


def test_what_somebody_removed_is_told(box: Box) -> None:
    (pathlib.Path(box.working_set.upper) / "f").write_text("x", encoding="ascii")
    one = box.take(name="one", checkpoint=True)
    box.take()
    box.kept.remove([one], "not needed any more")
    known = box.kept.register()
    assert [one.name for one, _digest in known.snapshots.values()] == [""]
    (told,) = known.removed
    assert (told["name"], told["checkpoint"], told["reason"]) == ("one", True, "not needed any more")
    assert box.kept.problems() == []


@pytest.mark.parametrize(
    ("journal", "there", "due"),
    [
        ({"old": {"upper": 1, "work": 2}}, {"upper": 1, "work": 2}, ["upper", "work"]),
        ({"old": {"upper": 1, "work": 2}}, {"upper": 8, "work": 2}, ["work"]),
        ({"old": {"upper": 1, "work": 2}}, {"upper": 1, "work": 9}, ["upper"]),
        ({"old": {"upper": 1, "work": 2}}, {"upper": 8, "work": 9}, []),
    ],
)
def test_what_is_left_of_an_exchange(journal: dict[str, dict[str, int]], there: dict[str, int], due: list[str]) -> None:
    assert history.unfinished(journal, there) == due


# --- originals that were sealed anew


def _added(originals: pathlib.Path) -> None:
    (originals / "new").write_text("new", encoding="ascii")


def _changed(originals: pathlib.Path) -> None:
    (originals / "src" / "two").write_text("other", encoding="ascii")


def _hidden(originals: pathlib.Path) -> None:
    (originals / "src" / "three").write_text("other", encoding="ascii")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_added, "added new (file)"),
        (_changed, "changed src/two (size 8 → 5, sha256"),
        (_hidden, ""),
    ],
)
def test_a_snapshot_goes_onto_its_own_originals(box: Box, change: t.Callable[[pathlib.Path], None], said: str) -> None:
    item = box.working_set
    with box.mounted() as merged:
        (merged / "src" / "three").write_text("mine", encoding="ascii")
    one = box.take(name="one")
    tree = box.kept.tree(one)
    rollback._on_its_originals(box.kept, one, tree)
    change(pathlib.Path(item.originals))
    with pytest.raises(workset.OriginalsChanged):
        item.prove()
    item.seal_baseline(item.scan(), "new delivery")
    if not said:
        rollback._on_its_originals(box.kept, one, tree)
        return
    with pytest.raises(HistoryError) as caught:
        rollback._on_its_originals(box.kept, one, tree)
    (problem,) = caught.value.problems
    assert f"since when these differ: {said}" in problem
    assert "put them back and seal them anew" in problem
