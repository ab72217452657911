# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images on real loop devices: their size is a wall, their whole life is safe, and a bad one is named and left alone.

Needs root, loop devices and xfsprogs: a test that has not fails and says so.
"""

from __future__ import annotations

import collections.abc
import errno
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import typing as t

import kills
import pytest
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import changes, loops, mounts, places, spec, workset

SIZE = 300 << 20
MIB = 1 << 20


@pytest.fixture
def folder() -> collections.abc.Iterator[pathlib.Path]:
    """A folder on a disk, whose mounts are taken away at the end; a tmpfs has no preallocated blocks to count."""
    made = pathlib.Path(tempfile.mkdtemp(prefix="guardrails-loops-", dir="/var/tmp"))
    yield made
    for mount in reversed([mount.point for mount in mounts.mounted() if mount.point.startswith(f"{made}/")]):
        mounts.unmount(mount)
    left = [image for image in made.rglob("*.img*") if loops.devices(str(image))]
    shutil.rmtree(made)
    assert left == []


@pytest.fixture
def image(folder: pathlib.Path) -> str:
    """An image of the least size, mounted at the folder ``at`` beside it."""
    made = folder / "image.img"
    loops.make(str(made), SIZE)
    (folder / "at").mkdir()
    loops.mount(str(made), str(folder / "at"))
    return str(made)


def at(image: str) -> str:
    return os.path.join(os.path.dirname(image), "at")


def fill(path: str) -> int:
    """Write to *path* until there is no room, and return how many bytes went in."""
    count = 0
    with open(path, "wb", buffering=0) as file:
        for block in (b"x" * MIB, b"x" * 4096):
            try:
                while True:
                    count += file.write(block)
            except OSError as error:
                assert error.errno == errno.ENOSPC
    return count


def test_an_image_is_allocated_whole(image: str) -> None:
    assert os.stat(image).st_blocks * 512 >= SIZE == os.path.getsize(image)
    assert loops.problem(image, at(image)) is None
    assert not loops.short(image, at(image), SIZE)
    assert sorted(os.listdir(at(image))) == [loops.FRESH, "work"]


def test_bytes_stop_at_the_size_and_leave_the_disk_alone(image: str) -> None:
    before = os.stat(image).st_blocks
    assert 200 * MIB < fill(f"{at(image)}/full") < SIZE
    # The image's own records of where its blocks are may take a few more.
    assert before <= os.stat(image).st_blocks < before + 64


def test_files_stop_at_their_share(image: str) -> None:
    share = SIZE * loops.INODES // 100 // 512
    folder = ""
    with pytest.raises(OSError, match="No space left"):
        for number in range(2 * share):
            if number % 4096 == 0:
                folder = f"{at(image)}/{number}"
                os.mkdir(folder)
            os.symlink("x", f"{folder}/{number}")
    assert share * 0.98 < os.statvfs(at(image)).f_files <= share
    assert os.statvfs(at(image)).f_bavail * 4096 > 100 * MIB


def test_the_device_goes_with_the_last_mount(image: str) -> None:
    assert len(loops.devices(image)) == 1
    mounts.unmount(at(image))
    assert loops.devices(image) == []


def test_a_second_mount_shares_the_device(image: str) -> None:
    second = os.path.join(os.path.dirname(image), "second")
    os.mkdir(second)
    loops.mount(image, second)
    assert len(loops.devices(image)) == 1
    subprocess.run(["mount", "--bind", second, second], check=True)
    assert loops.problem(image, second) == "is mounted 2 times"


def _not_mounted(image: str) -> None:
    mounts.unmount(at(image))


def _writable_options(image: str) -> None:
    subprocess.run(["mount", "-o", "remount,dev,suid", at(image)], check=True)


def _read_only(image: str) -> None:
    subprocess.run(["mount", "-o", "remount,ro", at(image)], check=True)


def _another(image: str) -> None:
    mounts.unmount(at(image))
    mounts.tmpfs(at(image), "1m")


def _replaced(image: str) -> None:
    os.rename(image, f"{image}.old")
    loops.make(image, SIZE)


def _attached_twice(image: str) -> None:
    subprocess.run(["losetup", "--find", image], check=True)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_not_mounted, "is not mounted"),
        (_writable_options, "is mounted without nodev, nosuid"),
        (_read_only, "is mounted without rw"),
        (_another, "is not a mount of"),
        (_replaced, "is not a mount of"),
        (_attached_twice, "is not a mount of"),
    ],
)
def test_a_wrong_mount_is_seen(image: str, spoil: t.Callable[[str], None], said: str) -> None:
    spoil(image)
    try:
        assert said in (loops.problem(image, at(image)) or "")
    finally:
        for mount in mounts.mounted(at(image)):
            mounts.unmount(mount.point)
        for device in [*loops.devices(image), *loops.devices(f"{image}.old")]:
            subprocess.run(["losetup", "--detach", device], check=True)


def test_an_image_that_is_attached_twice_is_not_mounted(image: str) -> None:
    mounts.unmount(at(image))
    taken = [subprocess.run(["losetup", "--find", "--show", image], capture_output=True, text=True, check=True).stdout.strip() for _time in range(2)]
    try:
        with pytest.raises(loops.LoopError, match=r"image.img: is attached twice \(/dev/loop"):
            loops.mount(image, at(image))
    finally:
        for device in taken:
            subprocess.run(["losetup", "--detach", device], check=True)


def _cut(path: str) -> None:
    os.truncate(path, SIZE - MIB)


def _no_head(path: str) -> None:
    with open(path, "r+b") as file:
        file.write(bytes(4096))


def _bad_head(path: str) -> None:
    with open(path, "r+b") as file:
        file.seek(40)
        file.write(b"\xff" * 200)


def _empty(path: str) -> None:
    os.truncate(path, 0)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_cut, "is too small, 313524224 bytes of the 314572800 that its file system has: it was cut short; restore it"),
        (_no_head, "holds no XFS: it was overwritten; restore it"),
        (_empty, "holds no XFS"),
        (_bad_head, "see dmesg, mend the image with xfs_repair or restore it"),
        (os.unlink, "cannot be read: No such file"),
    ],
)
def test_a_bad_image_is_named_and_left_as_it_is(image: str, spoil: t.Callable[[str], None], said: str) -> None:
    mounts.unmount(at(image))
    spoil(image)
    before = pathlib.Path(image).read_bytes() if os.path.exists(image) else b""
    with pytest.raises(loops.LoopError) as caught:
        loops.mount(image, at(image))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert mounts.mounted(at(image)) == []
    assert (pathlib.Path(image).read_bytes() if os.path.exists(image) else b"") == before


def test_holes_are_filled_and_the_size_grows_in_use(image: str) -> None:
    pathlib.Path(at(image), "kept").write_text("kept", encoding="ascii")
    assert b"not supported" in subprocess.run(["fstrim", at(image)], capture_output=True, check=False).stderr
    assert not loops.short(image, at(image), SIZE)
    # As a trim does where nobody may forbid it.
    subprocess.run(["fallocate", "--punch-hole", "--offset", "250m", "--length", "20m", image], check=True)
    assert loops.short(image, at(image), SIZE)
    loops.fill_up(image, at(image), SIZE)
    assert not loops.short(image, at(image), SIZE)
    assert loops.short(image, at(image), 2 * SIZE)
    loops.fill_up(image, at(image), 2 * SIZE)
    assert not loops.short(image, at(image), 2 * SIZE)
    assert os.statvfs(at(image)).f_blocks * 4096 > 500 * MIB
    assert pathlib.Path(at(image), "kept").read_text(encoding="ascii") == "kept"


def test_there_is_no_half_an_image_where_the_disk_is_full(folder: pathlib.Path) -> None:
    mounts.tmpfs(str(folder), "64m")
    try:
        with pytest.raises(loops.LoopError, match=r"image.img: cannot be made: No space left on device"):
            loops.make(str(folder / "image.img"), SIZE)
        assert os.listdir(folder) == []
    finally:
        mounts.unmount(str(folder))


@pytest.mark.parametrize("size", [1 << 20, 200 << 20])
def test_what_mkfs_refuses_is_said_in_its_words(folder: pathlib.Path, size: int) -> None:
    with pytest.raises(loops.LoopError, match=r"^mkfs.xfs: .+") as caught:
        loops.make(str(folder / "image.img"), size)
    assert "\n" not in str(caught.value)
    assert os.listdir(folder) == []


# -- the delta of a working set


@pytest.fixture
def working_set(folder: pathlib.Path) -> workset.WorkingSet:
    """The working set of a sandbox over an empty folder of another owner, with nothing made of it yet."""
    originals = folder / "originals"
    originals.mkdir()
    originals.chmod(0o1750)
    at = places.Places(str(folder / "home"), str(folder / "data"), str(folder / "run"))
    return workset.WorkingSet(at, "box", str(originals), 4711, 4712, SIZE)


def layers(item: workset.WorkingSet) -> tuple[int, int, int]:
    info = os.lstat(item.upper)
    return info.st_mode & 0o7777, info.st_uid, info.st_gid


def test_a_delta_is_made_with_a_hard_cap(working_set: workset.WorkingSet) -> None:
    assert working_set.cap() == "monitored: it was made without a cap, and holds changes or too many snapshots"
    working_set.make_delta()
    assert (working_set.cap(), working_set.delta_problem(), working_set.short()) == ("hard", None, None)
    assert layers(working_set) == (0o1750, 4711, 4712)
    assert os.stat(f"{working_set.delta}/reserve").st_blocks * 512 == (SIZE // 20 + SIZE // 4) // 4096 * 4096
    assert os.stat(working_set.image).st_mode & 0o777 == 0o600


def test_a_delta_whose_making_is_killed_is_made_by_the_next(working_set: workset.WorkingSet) -> None:
    step = 1
    while kills.killed(step, working_set.make_delta):
        working_set.make_delta()
        assert working_set.delta_problem() is None, step
        assert loops.problem(working_set.image, working_set.delta) is None, step
        assert layers(working_set) == (0o1750, 4711, 4712)
        assert sorted(os.listdir(working_set.places.sandbox("box"))) == ["delta", "delta.img"]
        mounts.unmount(working_set.delta)
        shutil.rmtree(working_set.places.data)
        step += 1
    assert step > 10


def test_what_was_changed_comes_back_with_the_mount(working_set: workset.WorkingSet) -> None:
    working_set.make_delta()
    pathlib.Path(working_set.upper, "kept").write_text("kept", encoding="ascii")
    os.chmod(working_set.upper, 0o700)
    mounts.unmount(working_set.delta)
    assert working_set.mount_problems()[-1:] == [f"{working_set.delta} is not mounted"]
    assert working_set.delta_problem() == "has no upper or work layer"
    working_set.mount_delta()
    working_set.mount_delta()
    assert pathlib.Path(working_set.upper, "kept").read_text(encoding="ascii") == "kept"
    assert len(mounts.mounted(working_set.delta)) == 1
    assert layers(working_set)[0] == 0o700


def test_layers_that_are_lost_are_not_made_anew(working_set: workset.WorkingSet) -> None:
    working_set.make_delta()
    os.rmdir(working_set.upper)
    working_set.mount_delta()
    assert working_set.delta_problem() == "has no upper or work layer"


def test_an_image_that_is_gone_is_seen_while_it_is_mounted(working_set: workset.WorkingSet) -> None:
    working_set.make_delta()
    os.unlink(working_set.image)
    assert working_set.mount_problems()[-1] == f"{working_set.delta} is mounted from an image that is gone ({working_set.image})"


def plain(item: workset.WorkingSet) -> None:
    """Make a delta as the release before hard caps did."""
    for layer in ("upper", "work"):
        os.makedirs(f"{item.delta}/{layer}/work" if layer == "work" else item.upper)
    os.chown(item.upper, item.uid, item.gid)
    os.chmod(item.upper, 0o1750)


def test_a_plain_delta_without_changes_gets_a_hard_cap(working_set: workset.WorkingSet) -> None:
    plain(working_set)
    assert working_set.untouched()
    step = 1
    while kills.killed(step, working_set.make_delta):
        assert working_set.hard or working_set.untouched(), step
        step += 1
    assert (working_set.cap(), working_set.delta_problem()) == ("hard", None)
    mounts.unmount(working_set.delta)
    # Where the image is not mounted there is nothing that could pass for an empty working set.
    assert os.listdir(working_set.delta) == []


def _file(item: workset.WorkingSet) -> None:
    pathlib.Path(item.upper, "work").write_text("work", encoding="ascii")


def _mode(item: workset.WorkingSet) -> None:
    os.chmod(item.upper, 0o700)


@pytest.mark.parametrize("change", [_file, _mode])
def test_a_plain_delta_with_changes_stays(working_set: workset.WorkingSet, change: t.Callable[[workset.WorkingSet], None]) -> None:
    plain(working_set)
    change(working_set)
    assert not working_set.untouched()
    assert working_set.cap() == "monitored: it was made without a cap, and holds changes or too many snapshots"


def test_an_image_is_not_mounted_over_files(working_set: workset.WorkingSet) -> None:
    working_set.make_delta()
    mounts.unmount(working_set.delta)
    plain(working_set)
    _file(working_set)
    with pytest.raises(workset.WorkingSetError, match="holds files of its own where .* is mounted: move them away"):
        working_set.mount_delta()


def test_a_full_set_lends_its_reserve(working_set: workset.WorkingSet) -> None:
    working_set.make_delta()
    fill(f"{working_set.upper}/full")
    reserve = f"{working_set.delta}/reserve"
    with pytest.raises(OSError, match="No space left"):
        os.mkdir(f"{working_set.delta}/work/work")
    before = os.stat(reserve).st_blocks
    with working_set.lent():
        assert os.stat(reserve).st_blocks < before
        os.mkdir(f"{working_set.delta}/work/work")
    os.unlink(f"{working_set.upper}/full")
    working_set.mount_delta()
    assert os.stat(reserve).st_blocks == before


def test_a_set_full_of_files_lends_some(working_set: workset.WorkingSet) -> None:
    working_set.make_delta()
    with pytest.raises(OSError, match="No space left"):
        for number in range(100_000):
            os.symlink("x", f"{working_set.upper}/{number}")
    with working_set.lent():
        os.mkdir(f"{working_set.delta}/work/work")
    # What the kernel made beside it, it makes by 64.
    with pytest.raises(OSError, match="No space left"):
        for number in range(100):
            os.symlink("x", f"{working_set.delta}/work/{number}")


def test_originals_that_were_restored_are_taken_and_what_was_changed_above_them_stays(working_set: workset.WorkingSet) -> None:
    working_set.make_delta()
    originals, merged = pathlib.Path(working_set.originals), pathlib.Path(working_set.places.data, "merged")
    (originals / "file").write_text("original", encoding="ascii")
    (originals / "second").hardlink_to(originals / "file")
    merged.mkdir()
    options = f"{workset.OVERLAY_OPTIONS},lowerdir={originals},upperdir={working_set.upper},workdir={working_set.delta}/work"
    command = ["mount", "-t", "overlay", "overlay", "-o", options, str(merged)]
    subprocess.run(command, check=True)
    (merged / "file").write_text("changed", encoding="ascii")
    mounts.unmount(str(merged))
    subprocess.run(["cp", "-a", originals, f"{originals}.new"], check=True)
    shutil.rmtree(originals)
    os.rename(f"{originals}.new", originals)
    assert b"Stale" in subprocess.run(command, capture_output=True, check=False).stderr
    working_set.release()
    subprocess.run(command, check=True)
    assert (merged / "file").read_text(encoding="ascii") == "changed"
    mounts.unmount(str(merged))


@pytest.mark.parametrize(
    ("size", "keep", "said"),
    [
        (SIZE, 0, []),
        (1 << 50, 0, ["working sets of box: 1342177280m are still to be allocated in", "m are free for it: make room, or declare a smaller working_set"]),
        (SIZE, 1 << 50, ["0m are free for it"]),
    ],
)
def test_room_is_asked_for_before(working_set: workset.WorkingSet, size: int, keep: int, said: list[str]) -> None:
    item = workset.WorkingSet(working_set.places, "box", working_set.originals, 4711, 4712, size)
    if not said:
        workset.refuse_space([item], keep)
        return
    with pytest.raises(workset.WorkingSetError) as caught:
        workset.refuse_space([item], keep)
    assert len(caught.value.problems) == 1
    assert [words for words in said if words not in caught.value.problems[0]] == []


def test_a_smaller_size_is_refused_and_a_larger_one_asks_for_the_rest(working_set: workset.WorkingSet) -> None:
    working_set.make_delta()
    workset.refuse_space([working_set], 0)
    smaller, larger = (workset.WorkingSet(working_set.places, "box", working_set.originals, 4711, 4712, size) for size in (SIZE - 1, 2 * SIZE))
    with pytest.raises(workset.WorkingSetError, match="sandbox box: working_set: 314572799 is less than the 300m that it has: it only grows"):
        workset.refuse_space([smaller], 0)
    assert larger.short() == f"{larger.image} has not its whole 600m yet"
    larger.mount_delta()
    assert larger.short() is None


# -- monitored


@pytest.mark.parametrize(
    ("bytes_", "files", "said"),
    [(0, 10, None), (8 * MIB, 0, "takes .* bytes, its cap is 4m"), (0, 900, "entries, one for each 10 KiB of its cap is the limit")],
)
def test_what_has_no_hard_cap_is_measured(working_set: workset.WorkingSet, bytes_: int, files: int, said: str | None) -> None:
    plain(working_set)
    item = workset.WorkingSet(working_set.places, "box", working_set.originals, 4711, 4712, 4 * MIB)
    before = item.used()
    pathlib.Path(item.upper, "bytes").write_bytes(b"x" * bytes_)
    for number in range(files):
        pathlib.Path(item.upper, f"{number}").touch()
    over = item.over(before)
    assert over is None if said is None else re.search(said, over or "")
    # What was there when the command began is none of its doing.
    assert item.over(item.used()) is None


def test_usage_counts_blocks_once_and_follows_nothing(folder: pathlib.Path) -> None:
    (folder / "one").write_bytes(b"x" * MIB)
    (folder / "two").hardlink_to(folder / "one")
    (folder / "out").symlink_to("/usr")
    (folder / "sparse").touch()
    os.truncate(folder / "sparse", 1 << 40)
    taken, entries = changes.usage(str(folder))
    assert MIB <= taken < 2 * MIB
    assert entries == 4


def test_folders_that_are_too_deep_are_said_to_be(folder: pathlib.Path) -> None:
    place = os.open(folder, os.O_RDONLY)
    for _level in range(changes.DEEPEST + 1):
        os.mkdir("d", dir_fd=place)
        deeper = os.open("d", os.O_RDONLY, dir_fd=place)
        os.close(place)
        place = deeper
    os.close(place)
    with pytest.raises(changes.ChangesError, match="folders more than 500 deep"):
        changes.usage(str(folder))


def test_the_least_size_is_what_mkfs_takes(folder: pathlib.Path) -> None:
    loops.make(str(folder / "image.img"), spec.LEAST_WORKING_SET)
    with pytest.raises(loops.LoopError, match="mkfs.xfs"):
        loops.make(str(folder / "image.img"), spec.LEAST_WORKING_SET - MIB)
