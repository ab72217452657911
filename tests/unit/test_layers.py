# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Layers as data: what is told of them is all of them, and a part of one state goes into another or is refused."""

from __future__ import annotations

import mmap
import os
import random
import socket
import subprocess
import typing as t
from pathlib import Path

import overlays
import pytest
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import layers
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.layers import Entry, Facts, Tree

OPAQUE = ("trusted.overlay.opaque", b"y")
ORIGIN = ("trusted.overlay.origin", b"\0\1\2")


def folder(*xattrs: tuple[str, bytes], mode: int = 0o755, mtime: int = 5) -> Facts:
    return Facts("dir", mode, 1500, 1500, mtime, xattrs=xattrs)


def file(text: str, inode: int = 0, mtime: int = 5, mode: int = 0o644) -> Facts:
    return Facts("file", mode, 1500, 1500, mtime, len(text), 1 + len(text), f"sha256:{text}", inode=inode)


GONE = Facts("char", 0, 0, 0, 9, inode=77)


def tree(shape: dict[str, t.Any], index: dict[str, Facts] | None = None) -> Tree:
    """Return the tree of nested folders: a name leads to facts, or to a dict whose own facts are at the empty name."""
    made: Tree = []

    def add(above: int, name: str, inside: t.Any) -> None:
        if isinstance(inside, Facts):
            made.append(Entry(above, name, inside))
            return
        made.append(Entry(above, name, inside.get("", folder())))
        place = len(made) - 1
        for below in sorted(key for key in inside if key):
            add(place, below, inside[below])

    add(-1, layers.UPPER, shape)
    if index is not None:
        add(-1, layers.INDEX, index)
    return made


ODD: list[tuple[str, Facts]] = [
    ("plain", file("a")),
    ("\udcff\udcfe", file("not UTF-8")),
    ("new\nline", Facts("symlink", 0o777, 1, 2, -3, target=b"\xff\n../x")),
    ("pipe", Facts("fifo", 0o4711, 0, 0, 1 << 62)),
    ("end", Facts("socket", 0o600, 5, 6, 7)),
    ("gone", GONE),
    ("disk", Facts("block", 0o600, 0, 0, 0, rdev=os.makedev(259, 70000))),
    ("folder", folder(OPAQUE, ORIGIN, ("user.x", bytes(range(256))))),
    ("hole", Facts("file", 0o600, 1, 1, 1, 1 << 40, 9, "data:00")),
]


@pytest.mark.parametrize(("name", "facts"), ODD)
def test_a_manifest_tells_all_of_an_entry(name: str, facts: Facts) -> None:
    made = tree({name: facts})
    assert layers.from_bytes(layers.to_bytes(made)) == [made[0], made[1]._replace(facts=facts._replace(xattrs=tuple(sorted(facts.xattrs))))]


@pytest.mark.parametrize("content", [b"x\n", b"{}\n", b'{"in":0,"name":"x"}\n', b'{"in":-1,"name":"upper","type":"dir","mode":"x"}\n'])
def test_what_is_no_manifest_is_refused(content: bytes) -> None:
    with pytest.raises(layers.LayersError, match="its manifest is not one"):
        layers.from_bytes(content)


BELOW = {b"keep", b"src", b"src/old.py", b"src/lib", b"src/lib/x"}
BEFORE: dict[str, t.Any] = {"a": file("a"), "d": {"x": file("x"), "y": file("y")}}


@pytest.mark.parametrize(
    ("now", "then", "said"),
    [
        (BEFORE, BEFORE, []),
        (BEFORE, {**BEFORE, "": folder(mtime=6)}, []),
        (BEFORE, {**BEFORE, "a": file("a", mtime=6)}, ["changed a (mtime)"]),
        (BEFORE, {**BEFORE, "a": file("b", mode=0o600)}, ["changed a (mode, content)"]),
        (BEFORE, {"a": file("a")}, ["removed d (dir)", "removed d/x (file)", "removed d/y (file)"]),
        ({"a": file("a")}, BEFORE, ["added d (dir)", "added d/x (file)", "added d/y (file)"]),
        # Where a layer has nothing, the originals show.
        ({"keep": file("new")}, {}, ["changed keep (as in the originals)"]),
        ({}, {"keep": file("new")}, ["changed keep (file)"]),
        ({"keep": GONE}, {}, ["added keep (as in the originals)"]),
        ({}, {"keep": GONE}, ["removed keep (hidden)"]),
        ({"keep": GONE}, {"keep": file("x")}, ["added keep (file)"]),
        ({"keep": file("x")}, {"keep": GONE}, ["removed keep (file)"]),
        ({"src": {"": folder(ORIGIN)}}, {}, []),
        ({"src": {}}, {"src": {"": folder(OPAQUE)}}, ["changed src (attributes)"]),
        ({"src": {"": folder(ORIGIN)}}, {"src": folder(("trusted.overlay.impure", b"y"))}, []),
        ({"a": folder()}, {"a": file("a")}, ["changed a (type, mode, mtime, size, content)"]),
        ({"odd\n\x1b[31m": file("x")}, {}, ["removed odd\\n\\x1b[31m (file)"]),
    ],
)
def test_what_differs_is_told_by_path(now: dict[str, t.Any], then: dict[str, t.Any], said: list[str]) -> None:
    assert [str(one) for one in layers.differences(tree(now), tree(then), BELOW.__contains__)] == said


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({"a": file("x", 7), "b": file("x", 7)}, {"a": file("x", 8), "b": file("x", 8)}, True),
        ({"a": file("x", 7), "b": file("x", 7)}, {"a": file("x"), "b": file("x")}, False),
        ({"a": file("x", 7), "b": file("x", 7), "c": file("x")}, {"a": file("x", 7), "b": file("x"), "c": file("x", 7)}, False),
        ({"a": GONE}, {"a": GONE._replace(inode=0, mtime=1)}, True),
    ],
)
def test_which_names_are_one_file_counts(one: dict[str, t.Any], other: dict[str, t.Any], same: bool) -> None:
    assert layers.same(tree(one), tree(other)) is same


NOW: dict[str, t.Any] = {"a": file("new"), "d": {"x": file("new"), "z": file("z")}, "e": GONE, "l": file("l", 3), "m": {"n": file("l", 3)}}
THEN: dict[str, t.Any] = {"a": file("old"), "d": {"x": file("old"), "y": file("y")}, "f": {"g": {"h": file("h")}}, "l": file("old")}


@pytest.mark.parametrize(
    ("path", "made"),
    [
        ("a", {**NOW, "a": file("old")}),
        ("d", {**NOW, "d": THEN["d"]}),
        ("d/x", {**NOW, "d": {"x": file("old"), "z": file("z")}}),
        ("d/y", {**NOW, "d": {"x": file("new"), "y": file("y"), "z": file("z")}}),
        ("d/z", {**NOW, "d": {"x": file("new")}}),
        ("e", {key: value for key, value in NOW.items() if key != "e"}),
        ("f/g/h", {**NOW, "f": {"g": {"h": file("h")}}}),
        ("f/none", NOW),
        ("none", NOW),
    ],
)
def test_a_part_is_put_in_place(path: str, made: dict[str, t.Any]) -> None:
    grafted = layers.graft(tree(NOW), tree(THEN), path.encode())
    assert layers.differences(grafted, tree(made), lambda _path: False) == []
    assert layers.differences(tree(made), grafted, lambda _path: False) == []


@pytest.mark.parametrize(
    ("now", "then", "path", "said"),
    [
        (NOW, THEN, "l", "path: l has a file with another name outside of it, m/n: restore what has all its names, or everything"),
        (NOW, THEN, "m", "path: m has a file with another name outside of it, l: restore"),
        ({"d": {"": folder(OPAQUE)}}, {"d": {"x": file("x")}}, "d/x", "path: d/x lies in d, which was made, removed or replaced in between: restore that"),
        ({"d": GONE}, {"d": {"x": file("x")}}, "d/x", "path: d/x lies in d, which was"),
        ({"d": file("x")}, {}, "d/x/y", "path: d/x/y lies in d, which was"),
        (NOW, THEN, "../x", "path: ../x is not a path below /workspace, such as src/main.py"),
        (NOW, THEN, "d//x", "path: d//x is not a path"),
        (NOW, THEN, "d/./x", "path: d/./x is not a path"),
    ],
)
def test_a_part_that_cannot_be_told_apart_is_refused(now: dict[str, t.Any], then: dict[str, t.Any], path: str, said: str) -> None:
    with pytest.raises(layers.LayersError) as caught:
        layers.graft(tree(now), tree(then), path.encode())
    assert str(caught.value).startswith(said)


def test_a_second_name_in_the_index_is_another_name() -> None:
    now = tree({"a": file("x", 3)}, {"": folder(), "00fb": file("x", 3)})
    with pytest.raises(layers.LayersError, match="has a file with another name outside of it"):
        layers.graft(now, tree({}), b"a")


@pytest.mark.parametrize(
    ("path", "is_folder", "shows"),
    [
        (b"", True, False),
        (b"other", False, True),
        (b"a", False, False),
        (b"gone", False, False),
        (b"gone/below", False, False),
        (b"d", True, False),
        (b"d/other", False, True),
        (b"o/other", False, False),
        (b"o/p/other", False, False),
    ],
)
def test_where_the_originals_show(path: bytes, is_folder: bool, shows: bool) -> None:
    made = tree({"a": file("a"), "gone": GONE, "d": {"x": file("x")}, "o": {"": folder(OPAQUE), "p": {}}})
    assert layers.showing(made, [(path, is_folder)]) == ([path] if shows else [])


# --- on disks


@pytest.fixture
def store(tmp_path: Path) -> t.Iterator[int]:
    """The folder of objects."""
    (tmp_path / "objects").mkdir()
    fd = os.open(tmp_path / "objects", os.O_RDONLY)
    yield fd
    os.close(fd)


def read(store: int, *folders: Path, known: layers.Known | None = None, number: int = 1) -> tuple[Tree, layers.Known, list[int]]:
    reader = layers.Reader(store, number, {} if known is None else known)
    reader.hashes = True
    found, seen = reader.tree([(path.name, str(path)) for path in folders])
    return found, seen, reader.made


def odd(top: Path) -> None:
    """Fill a folder with what a sandbox can make, and some more."""
    (top / "a").mkdir(mode=0o2755)
    (top / "a" / "f").write_bytes(b"content")
    (top / "a" / "f").chmod(0o6755)
    os.utime(top / "a" / "f", ns=(1, -1_234_567_891))
    os.setxattr(top / "a" / "f", "user.x", b"\0\xff")
    os.setxattr(top / "a", "trusted.overlay.opaque", b"y")
    (top / "a" / "twin").hardlink_to(top / "a" / "f")
    os.symlink(b"\xff\n", top / "link")
    os.link(top / "link", top / "link2", follow_symlinks=False)
    os.mkfifo(top / "pipe", 0o611)
    os.mknod(top / "gone", 0o020000)
    os.mknod(os.fsencode(top) + b"/\xff'\"\n", 0o100600)
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(str(top / "end"))
    with open(top / "hole", "wb") as sparse:
        sparse.seek(1 << 25)
        sparse.write(b"end")
    for path in (top / "a" / "f", top / "pipe", top / "link"):
        os.chown(path, 1500, 1501, follow_symlinks=False)


def test_what_was_read_is_built_again(tmp_path: Path, store: int) -> None:
    upper = tmp_path / "from" / "upper"
    upper.mkdir(parents=True)
    odd(upper)
    first, _seen, made = read(store, upper)
    (tmp_path / "to").mkdir()
    layers.build(first, str(tmp_path / "to"), str(tmp_path / "objects"))
    second, _seen, _made = read(store, tmp_path / "to" / "upper", number=100)
    assert layers.differences(first, second, lambda _path: False) == []
    assert layers.same(first, second)
    assert len(made) == 2  # one for both names of a file, one for the file with the hole, none for an empty one
    assert os.stat(tmp_path / "to" / "upper" / "hole").st_blocks < 100
    assert overlays.picture(upper) == overlays.picture(tmp_path / "to" / "upper")
    assert os.listdir(tmp_path / "to") == ["upper"]


def test_depth_costs_neither_descriptors_nor_recursion(tmp_path: Path, store: int) -> None:
    depth = 3000
    upper = tmp_path / "upper"
    upper.mkdir()
    fd = os.open(upper, os.O_RDONLY)
    for _level in range(depth):
        os.mkdir("d" * 20, dir_fd=fd)
        below = os.open("d" * 20, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    found, _seen, _made = read(store, upper)
    assert len(found) == depth + 1
    content = layers.to_bytes(found)
    assert len(content) < 200 * depth
    (tmp_path / "to").mkdir()
    layers.build(layers.from_bytes(content), str(tmp_path / "to"), str(tmp_path / "objects"))
    assert len(read(store, tmp_path / "to" / "upper")[0]) == depth + 1
    assert len(layers.path_of(found, depth)) < 3000
    # Not left to pytest, whose own way of removing it recurses.
    subprocess.run(["rm", "-rf", upper, tmp_path / "to"], check=True)


def _written(path: Path) -> None:
    path.write_text("other", encoding="ascii")


def _put_back(path: Path) -> None:
    before = path.stat()
    path.write_bytes(b"tampered"[: before.st_size])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _replaced(path: Path) -> None:
    path.with_name("new").write_text("first", encoding="ascii")
    path.with_name("new").replace(path)


def _mode(path: Path) -> None:
    path.chmod(0o600)


def _xattr(path: Path) -> None:
    os.setxattr(path, "user.x", b"y")


def _linked(path: Path) -> None:
    path.with_name("zz").hardlink_to(path)


def _mapped(path: Path) -> None:
    with open(path, "r+b") as handle, mmap.mmap(handle.fileno(), 5) as pages:
        pages[0] = ord("X")


@pytest.mark.parametrize("change", [_written, _put_back, _replaced, _mode, _xattr, _linked, _mapped])
def test_what_changed_is_read_again_and_nothing_else(tmp_path: Path, store: int, change: t.Callable[[Path], None]) -> None:
    upper = tmp_path / "upper"
    upper.mkdir()
    for name in ("one", "two"):
        (upper / name).write_text("first", encoding="ascii")
    _found, known, _made = read(store, upper)
    assert read(store, upper, known=dict(known), number=10)[2] == []
    change(upper / "one")
    assert read(store, upper, known=dict(known), number=10)[2] == [10]


def test_a_store_through_a_mapping_that_was_there_before_is_noticed(tmp_path: Path, store: int) -> None:
    upper = tmp_path / "upper"
    upper.mkdir()
    (upper / "one").write_text("first", encoding="ascii")
    with open(upper / "one", "r+b") as handle, mmap.mmap(handle.fileno(), 5) as pages:
        pages[0] = ord("X")
        found, known, _made = read(store, upper)
        pages[1] = ord("X")
        again, _seen, made = read(store, upper, known=dict(known), number=10)
    assert made == [10]
    assert found[1].facts.digest != again[1].facts.digest


@pytest.mark.parametrize(
    ("pieces", "alike"),
    [
        ([(0, b"x")], [(0, b"x"), (1 << 22, b"\0" * 100)]),
        ([(1 << 21, b"x" * 70000)], [(1 << 20, b"\0" * (1 << 20)), (1 << 21, b"x" * 70000)]),
        ([], [(5 << 20, b"\0")]),
    ],
)
def test_zeros_that_are_written_are_holes(tmp_path: Path, pieces: list[tuple[int, bytes]], alike: list[tuple[int, bytes]]) -> None:
    digests = []
    for number, content in enumerate((pieces, alike)):
        path = tmp_path / str(number)
        with open(path, "wb") as handle:
            for offset, piece in content:
                handle.seek(offset)
                handle.write(piece)
            handle.truncate(1 << 30)
        fd = os.open(path, os.O_RDONLY)
        digests.append(layers.content_digest(fd))
        os.close(fd)
    assert digests[0] == digests[1]
    assert digests[0].startswith("data:")


def test_the_digest_of_a_hole_tells_offset_and_size(tmp_path: Path) -> None:
    digests = set()
    for number, (offset, size) in enumerate([(0, 1 << 24), (1 << 16, 1 << 24), (0, (1 << 24) + 1)]):
        path = tmp_path / str(number)
        with open(path, "wb") as handle:
            handle.seek(offset)
            handle.write(b"x")
            handle.truncate(size)
        fd = os.open(path, os.O_RDONLY)
        digests.add(layers.content_digest(fd))
        os.close(fd)
    assert len(digests) == 3


@pytest.mark.parametrize("seed", range(6))
def test_any_layer_of_an_overlay_is_told_and_built_again(tmp_path: Path, store: int, seed: int) -> None:
    chance = random.Random(seed)
    (tmp_path / "lower").mkdir()
    overlays.scramble(chance, tmp_path / "lower", 60)
    with overlays.overlay(tmp_path) as made:
        overlays.scramble(chance, made.merged, 200)
        before = overlays.picture(made.merged)
    found, _seen, _made = read(store, tmp_path / "upper", tmp_path / "work" / "index")
    found = layers.from_bytes(layers.to_bytes(found))
    stage = tmp_path / "stage"
    stage.mkdir()
    layers.build(found, str(stage), str(tmp_path / "objects"))
    for word, place in (("upper", tmp_path / "upper"), ("index", tmp_path / "work" / "index")):
        os.rename(place, tmp_path / f"old-{word}")
        os.rename(stage / word, place)
    for place, attribute in ((tmp_path / "upper", "trusted.overlay.origin"), (tmp_path / "work" / "index", "trusted.overlay.upper")):
        if attribute in os.listxattr(place):
            os.removexattr(place, attribute)
    tmp_path.joinpath("work", "work").rmdir()
    options = f"{overlays.OPTIONS},lowerdir={tmp_path}/lower,upperdir={tmp_path}/upper,workdir={tmp_path}/work"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, tmp_path / "merged"], check=True)
    try:
        assert overlays.picture(tmp_path / "merged") == before
    finally:
        subprocess.run(["umount", tmp_path / "merged"], check=True)
