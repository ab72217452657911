# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Locks, checked by the real sha256sum and by real kills."""

from __future__ import annotations

import os
import subprocess
import typing as t
from pathlib import Path

import pytest
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import lock
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.lock import LockError
from kills import killed

ME = (os.geteuid(), os.getegid())
ODD = [
    "plain",
    "two words",
    " lead",
    "back\\slash",
    "new\nline",
    "carriage\rreturn",
    "both\\\n",
    "naïve",
    b"\xff\xfe",
    "*",
]


def put(path: Path, content: bytes = b"one") -> Path:
    lock.write_locked(path, content, 0o640, *ME)
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def sha256sum_accepts(path: Path) -> bool:
    done = subprocess.run(
        ["sha256sum", "--strict", "--status", "-c", os.fsencode(path.name) + b".sha256"], cwd=path.parent, check=False
    )
    return done.returncode == 0


@pytest.mark.parametrize("name", ODD)
def test_sha256sum_reads_the_lock(tmp_path: Path, name: str | bytes) -> None:
    path = put(tmp_path / os.fsdecode(name))
    assert sha256sum_accepts(path)
    assert lock.check(path) is None
    printed = subprocess.run(["sha256sum", path.name], cwd=tmp_path, capture_output=True, check=True).stdout
    assert lock.lock_of(path).read_bytes() == printed
    path.write_bytes(b"two")
    assert not sha256sum_accepts(path)


def test_mode_owner_and_nothing_else_left(tmp_path: Path) -> None:
    path = put(tmp_path / "tool")
    lock.write_locked(path, b"two", 0o751, *ME)
    assert path.stat().st_mode & 0o7777 == 0o751
    assert lock.lock_of(path).stat().st_mode & 0o7777 == 0o640
    assert names(tmp_path) == ["tool", "tool.sha256"]


def tamper_content(path: Path) -> None:
    path.write_bytes(b"evil")


def tamper_file_gone(path: Path) -> None:
    path.unlink()


def tamper_lock_gone(path: Path) -> None:
    lock.lock_of(path).unlink()


def tamper_lock_text(path: Path) -> None:
    lock.lock_of(path).write_text("evil\n")


def tamper_lock_names_another(path: Path) -> None:
    lock.lock_of(path).write_bytes(lock.line(b"other", lock.digest_of(path) or ""))


def tamper_link(path: Path) -> None:
    path.rename(path.with_name("moved"))
    path.symlink_to("moved")


def tamper_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def tamper_with_false_announcement(path: Path) -> None:
    path.write_bytes(b"evil")
    path.with_name(path.name + lock.INTENT).write_bytes(lock.line(path.name.encode(), "0" * 64))


def tamper_file_gone_with_false_announcement(path: Path) -> None:
    path.unlink()
    path.with_name(path.name + lock.INTENT).write_bytes(lock.line(path.name.encode(), "0" * 64))


def statuses(folder: Path) -> dict[str, tuple[int, ...]]:
    """Return what a write would change of each file in *folder*: all but the access time, which reading a link moves."""
    found = {name: (folder / name).lstat() for name in names(folder)}
    return {name: (item.st_ino, item.st_mode, item.st_uid, item.st_gid, item.st_size, item.st_mtime_ns, item.st_ctime_ns) for name, item in found.items()}


@pytest.mark.parametrize(
    ("tamper", "kind", "text"),
    [
        (tamper_content, "changed", "its sha256 is b5c1fb2efc6d…, its lock says 7692c3ad3540…; restore the file, or"),
        (tamper_file_gone, "missing", "the file is gone, its lock is there"),
        (tamper_lock_gone, "unlocked", "without a lock"),
        (tamper_lock_text, "broken", "is not a line of sha256sum for this name"),
        (tamper_lock_names_another, "broken", "is not a line of sha256sum for this name"),
        (tamper_link, "broken", "Too many levels of symbolic links"),
        (tamper_fifo, "broken", "is not a regular file"),
        (tamper_with_false_announcement, "changed", "its lock says"),
        (tamper_file_gone_with_false_announcement, "missing", "the file is gone"),
    ],
)
def test_tampering_is_named_and_stops_every_write(
    tmp_path: Path, tamper: t.Callable[[Path], None], kind: str, text: str
) -> None:
    path = put(tmp_path / "x")
    tamper(path)
    before = statuses(tmp_path)
    problem = lock.check(path)
    assert problem is not None and problem.kind == kind and problem.tampering
    assert str(problem).startswith(f"{path}: ") and text in str(problem) and "\n" not in str(problem)
    for write in (lambda: lock.write_locked(path, b"new", 0o600, *ME), lambda: lock.remove_locked(path)):
        with pytest.raises(LockError, match="x: "):
            write()
    assert statuses(tmp_path) == before


def first(path: Path) -> None:
    put(path, b"new")


def replacement(path: Path) -> None:
    put(path, b"old")


def without_lock(path: Path) -> None:
    path.write_bytes(b"old")


def after_a_kill(path: Path) -> None:
    """The state in which content two is in place and its lock is not."""
    put(path, b"two")
    lock.lock_of(path).rename(path.with_name(path.name + lock.INTENT))
    lock.lock_of(path).write_bytes(lock.line(path.name.encode(), "1" * 64))


@pytest.mark.parametrize(
    ("start", "action"),
    [
        (None, first),
        (replacement, first),
        (after_a_kill, first),
        (None, lock.remove_locked),
        (replacement, lock.remove_locked),
        (after_a_kill, lock.remove_locked),
        (without_lock, lock.lock),
        (replacement, lock.lock),
        (after_a_kill, lock.lock),
    ],
)
def test_kill_at_every_step_is_repaired_by_the_next_run(
    tmp_path: Path, start: t.Callable[[Path], None] | None, action: t.Callable[[Path], object]
) -> None:
    step, kinds = 0, set()
    while True:
        step += 1
        folder = tmp_path / str(step)
        folder.mkdir()
        path = folder / "x"
        if start:
            start(path)
        was_killed = killed(step, lambda: action(path))  # noqa: B023 - called at once
        problem = lock.check(path)
        kinds.add(problem.kind if problem else None)
        assert problem is None or not problem.tampering or (action is lock.lock and problem.kind == "unlocked")
        action(path)
        if action is lock.remove_locked:
            assert names(folder) == []
        else:
            assert names(folder) == ["x", "x.sha256"]
            assert sha256sum_accepts(path) and lock.check(path) is None
        if not was_killed:
            break
    assert step > 1
    # Where there is nothing to do, there is nothing to interrupt.
    idle = (start is None and action is lock.remove_locked) or (start is replacement and action is lock.lock)
    assert idle or "interrupted" in kinds


def test_lock_of_an_existing_file(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with pytest.raises(LockError, match="there is no such file"):
        lock.lock(path)
    path.write_bytes(b"one")
    assert lock.lock(path)
    assert not lock.lock(path)
    path.write_bytes(b"two")
    with pytest.raises(LockError, match="its lock says"):
        lock.lock(path)


def test_locked_finds_locks_and_announcements(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    put(tmp_path / "a/b/deep")
    put(tmp_path / "top")
    (tmp_path / ("lone" + lock.INTENT)).touch()
    (tmp_path / "other").touch()
    (tmp_path / "loop").symlink_to(tmp_path)
    assert lock.locked(tmp_path, lambda _folder: False) == [tmp_path / "a/b/deep", tmp_path / "lone", tmp_path / "top"]
    assert lock.locked(tmp_path, lambda folder: folder == f"{tmp_path}/a") == [tmp_path / "lone", tmp_path / "top"]
    with pytest.raises(OSError, match="nowhere"):
        lock.locked(tmp_path / "nowhere", lambda _folder: False)


def test_a_name_too_long_for_its_lock_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LockError, match="File name too long"):
        put(tmp_path / ("n" * 250))
    assert names(tmp_path) == []
