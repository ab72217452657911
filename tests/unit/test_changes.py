# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""changes: what the upper layer tells is what a look through the overlay tells. Needs root: the overlays are real."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import stat
import subprocess
import typing as t
from pathlib import Path

import pytest
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import changes
from ansible_collections.dockersandbox.guardrails.tests.unit import overlays

SEEDS = int(os.environ.get("SOAK_SEEDS", "12"))


def fill(root: Path) -> None:
    """A small tree with every kind of entry that originals may have."""
    for name in ("d/deep/er", "empty", "keep"):
        (root / name).mkdir(parents=True)
    for name in ("a", "d/one", "d/two", "d/deep/er/three", "keep/x"):
        (root / name).write_bytes(f"{name}\n".encode())
    (root / "link").symlink_to("a")
    (root / "keep/twin1").write_bytes(b"twins\n")
    os.link(root / "keep/twin1", root / "d/twin2")
    (root / "a").chmod(0o644)


def expected(before: dict[bytes, overlays.Seen], after: dict[bytes, overlays.Seen]) -> list[tuple[t.Any, ...]]:
    def told(seen: overlays.Seen | None) -> t.Any:
        return None if seen is None else (seen.type, seen.mode, seen.uid, seen.gid)

    found = []
    for path in sorted(before.keys() | after.keys()):
        old, new = before.get(path), after.get(path)
        if old != new:
            content = old is None or new is None or (old.type, old.content) != (new.type, new.content)
            found.append((path, told(old), told(new), content))
    return found


def actual(found: list[changes.Change]) -> list[tuple[t.Any, ...]]:
    kinds = {
        "file": stat.S_IFREG,
        "dir": stat.S_IFDIR,
        "symlink": stat.S_IFLNK,
        "fifo": stat.S_IFIFO,
        "socket": stat.S_IFSOCK,
    }

    def told(state: changes.State | None) -> t.Any:
        return None if state is None else (kinds[state.type], state.mode, state.uid, state.gid)

    return [(change.path, told(change.old), told(change.new), change.content) for change in found]


def check(root: Path, act: t.Callable[[Path], None]) -> list[changes.Change]:
    lower = root / "lower"
    before = overlays.picture(lower)
    with overlays.overlay(root) as mounted:
        act(mounted.merged)
        after = overlays.picture(mounted.merged)
    found = changes.read(str(root / "upper"), str(lower))
    assert actual(found) == expected(before, after)
    assert overlays.picture(lower) == before
    return found


def shell(script: str) -> t.Callable[[Path], None]:
    def act(root: Path) -> None:
        subprocess.run(["bash", "-euc", script], cwd=root, check=True)

    return act


CASES = {
    "nothing": "true",
    "edit": "echo more >> d/one",
    "touched alone": "touch a; chmod 0644 a; cat a >/dev/null; : >> d/one",
    "written back": "cp a /dev/shm/$$; echo x > a; cat /dev/shm/$$ > a; rm /dev/shm/$$",
    "same size, other bytes": "printf 'b\\n' > a",
    "mode": "chmod 0600 a; chmod 0711 d; chmod 2770 keep",
    "owner": "chown 1500:1500 a; chown -h 1500 link; chgrp 1500 d",
    "root": "chmod 0711 .; chown 1500 .",
    "delete": "rm a link; rm -r d",
    "whiteout, then back": "rm a; echo a > a",
    "replaced folder": "rm -r d; mkdir d",
    "replaced folder with the same in it": "cp -a d /dev/shm/$$; rm -r d; cp -a /dev/shm/$$ d; rm -r /dev/shm/$$",
    "replaced folder with folders in it": "rm -r d; mkdir -p d/deep/er; echo x > d/deep/er/new; echo d/one > d/one",
    "folder to file": "rm -r d; echo x > d",
    "file to folder": "rm a; mkdir a; echo x > a/in",
    "link to folder": "rm link; mkdir link; echo x > link/in",
    "folder to link": "rm -r d; ln -s keep d",
    "link elsewhere": "ln -sfn d/one link",
    "empty folders": "mkdir -p n/o/p; rmdir empty",
    "folder renamed": "mv d e",
    "folder inside a replaced one, deleted": "rm -r d; mkdir -p d/deep; rmdir d/deep",
    "special files": "mkfifo pipe; rm a; mkfifo a",
    "twin edited": "echo more >> keep/twin1",
    "twin edited, then deleted": "echo more >> keep/twin1; rm keep/twin1",
    "twin edited and deleted in a replaced folder": "echo more >> keep/twin1; rm -r keep; mkdir keep",
    "other twin hidden": "echo more >> keep/twin1; rm -r d; mkdir d",
    "twin's mode": "chmod 0600 keep/twin1",
    "twin replaced": "rm keep/twin1; echo new > keep/twin1",
    "twin touched": "touch keep/twin1",
    "twin linked again": "ln d/twin2 third; echo x >> third",
    "all gone": "rm -rf ./* ; mkdir empty",
    "odd names": "touch $'new\\nline' 'q\"uote' \"it's\" $'\\xff\\xfe' -- -dash $'\\x01' 'back\\slash' ' ' ; printf x > $(printf 'x%.0s' {1..255})",
}


@pytest.mark.parametrize("script", CASES.values(), ids=CASES.keys())
def test_tells_what_the_overlay_shows(tmp_path: Path, script: str) -> None:
    (tmp_path / "lower").mkdir()
    fill(tmp_path / "lower")
    check(tmp_path, shell(script))


@pytest.mark.parametrize("name", ["nothing", "touched alone", "written back", "whiteout, then back", "twin touched"])
def test_what_only_looks_changed_is_none(tmp_path: Path, name: str) -> None:
    (tmp_path / "lower").mkdir()
    fill(tmp_path / "lower")
    assert check(tmp_path, shell(CASES[name])) == []


def test_second_name_points_at_the_index(tmp_path: Path) -> None:
    (tmp_path / "lower").mkdir()
    fill(tmp_path / "lower")
    found = {change.path: change for change in check(tmp_path, shell(CASES["twin edited, then deleted"]))}
    entry = found[b"d/twin2"].index
    assert (Path(changes.index_folder(str(tmp_path / "upper"))) / entry).read_bytes() == b"twins\nmore\n"
    assert found[b"keep/twin1"].new is None


def test_counts() -> None:
    state = changes.State("file", 0o644, 0, 0)
    found = [changes.Change(b"a", None, state), changes.Change(b"b", state, state), changes.Change(b"c", state, None)]
    assert [change.word for change in found] == ["added", "changed", "removed"]
    assert changes.counts(found[1:]) == {"added": 0, "changed": 1, "removed": 1}


def test_socket_is_told_by_type(tmp_path: Path) -> None:
    (tmp_path / "lower").mkdir()

    def act(root: Path) -> None:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(os.path.relpath(root / "s"))

    (found,) = check(tmp_path, act)
    assert found.new is not None
    assert found.new.type == "socket"


def deep(root: Path, depth: int, name: str) -> None:
    """Make *depth* folders *name* one in the other, and a file at the bottom, by descriptors: the path is too long."""
    fd = os.open(root, os.O_RDONLY)
    for _level in range(depth):
        os.mkdir(name, dir_fd=fd)
        inner = os.open(name, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(os.open("leaf", os.O_WRONLY | os.O_CREAT, dir_fd=fd))
    os.close(fd)


def clear(root: Path) -> None:
    # Neither shutil nor rm of a test runner's clean-up manages such depths in every version.
    subprocess.run(["rm", "-rf", root], check=True)


def test_deep_and_long_paths(tmp_path: Path) -> None:
    (tmp_path / "lower").mkdir()
    deep(tmp_path / "lower", 1500, "o")
    try:
        with overlays.overlay(tmp_path) as mounted:
            deep(mounted.merged, 30, "y" * 250)
            subprocess.run(["rm", "-rf", mounted.merged / "o"], check=True)
        found = changes.read(str(tmp_path / "upper"), str(tmp_path / "lower"))
        assert len(found) == 1501 + 31
        longest = max(found, key=lambda change: len(change.path))
        assert len(longest.path) == 30 * 251 + 4
        with os.fdopen(changes.open_file(os.open(tmp_path / "upper", os.O_RDONLY), longest.path), "rb") as file:
            assert file.read() == b""
    finally:
        clear(tmp_path / "upper")
        clear(tmp_path / "lower")


def test_path_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    (tmp_path / "lower").mkdir()
    try:
        with overlays.overlay(tmp_path) as mounted:
            deep(mounted.merged, 200, "y" * 250)
        with pytest.raises(changes.ChangesError, match="at most 32768"):
            changes.read(str(tmp_path / "upper"), str(tmp_path / "lower"))
    finally:
        clear(tmp_path / "upper")


@pytest.mark.parametrize(
    ("depth", "name", "refused"),
    [(9, "d", False), (10, "d", True), (3, "y" * 250, False), (4, "y" * 250, True)],
)
def test_more_changes_than_memory_is_for_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, depth: int, name: str, refused: bool
) -> None:
    monkeypatch.setattr(changes, "MOST_CHANGES", 10)
    (tmp_path / "lower").mkdir()
    with overlays.overlay(tmp_path) as mounted:
        deep(mounted.merged, depth, name)
    with pytest.raises(changes.ChangesError, match="more changes than can be told") if refused else contextlib.nullcontext():
        assert len(changes.read(str(tmp_path / "upper"), str(tmp_path / "lower"))) == depth + 1


def test_redirected_folder_is_refused(tmp_path: Path) -> None:
    for name in ("lower", "upper/moved"):
        (tmp_path / name).mkdir(parents=True)
    os.setxattr(tmp_path / "upper/moved", "trusted.overlay.redirect", b"/d")
    with pytest.raises(changes.ChangesError, match="redirect_dir=nofollow"):
        changes.read(str(tmp_path / "upper"), str(tmp_path / "lower"))


@pytest.mark.parametrize("kind", ["missing", "file", "link"])
def test_layer_that_is_no_folder(tmp_path: Path, kind: str) -> None:
    (tmp_path / "lower").mkdir()
    if kind == "file":
        (tmp_path / "upper").touch()
    if kind == "link":
        (tmp_path / "upper").symlink_to("lower")
    with pytest.raises(changes.ChangesError):
        changes.read(str(tmp_path / "upper"), str(tmp_path / "lower"))


@pytest.mark.parametrize("path", [b"link", b"link/x", b"pipe", b"d/../a", b"none"])
def test_open_file_follows_nothing(tmp_path: Path, path: bytes) -> None:
    (tmp_path / "a").touch()
    (tmp_path / "d").mkdir()
    (tmp_path / "link").symlink_to("d")
    os.mkfifo(tmp_path / "pipe")
    root = os.open(tmp_path, os.O_RDONLY)
    if path == b"d/../a":  # not a name that a listing yields: nothing to refuse, but it stays below the root
        os.close(changes.open_file(root, path))
    else:
        with pytest.raises((OSError, changes.ChangesError)):
            changes.open_file(root, path)
    os.close(root)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_random_changes(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    lower = tmp_path / "lower"
    lower.mkdir()
    overlays.scramble(chance, lower, 60)
    check(tmp_path, lambda root: overlays.scramble(chance, root, 60))
