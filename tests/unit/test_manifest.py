# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Manifests of real trees: every type of entry, odd names, and trees that change under the reader's hands."""

from __future__ import annotations

import hashlib
import json
import os
import select
import signal
import socket
import stat
import tempfile
import threading
import time
import typing as t
from pathlib import Path

import pytest
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import canonical, manifest
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.manifest import Entry, Manifest, ManifestError

ME = (os.geteuid(), os.getegid())
NAMES = [b"plain", b"two words", b'quo"te', b"new\nline", b"back\\slash", b"-x", b"na\xc3\xafve", b"\xff\xfe", b"\x01\x7f"]
MB = 1 << 20


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def file(name: bytes, content: bytes = b"", mode: int = 0o644) -> Entry:
    return Entry(name, "file", mode, *ME, len(content), None, sha(content))


def fill(root: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(0o644)


def settled() -> None:
    """Wait until what was just written is old enough to be trusted from a cache."""
    time.sleep(manifest._SETTLED_NS / 1e9 + 0.1)


# --- what is in a manifest


def test_every_type_of_entry(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "folder").mkdir(parents=True)
    fill(root, {"folder/file": b"one", "empty": b""})
    (root / "folder/file").chmod(0o4750)
    (root / "link").symlink_to("folder/../nowhere")
    (root / "away").symlink_to(b"/etc")
    os.mkfifo(root / "fifo", 0o600)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(root / "socket"))
    root.chmod(0o700)
    found = manifest.build(root)
    assert found.entries[b"folder/file"] == file(b"folder/file", b"one", 0o4750)
    assert found.entries[b"empty"] == file(b"empty")
    assert found.entries[b"link"] == Entry(b"link", "symlink", 0o777, *ME, target=b"folder/../nowhere")
    assert [(path, entry.type) for path, entry in found.entries.items()] == [
        (b"", "dir"),
        (b"away", "symlink"),
        (b"empty", "file"),
        (b"fifo", "fifo"),
        (b"folder", "dir"),
        (b"folder/file", "file"),
        (b"link", "symlink"),
        (b"socket", "socket"),
    ]
    assert (found.files, found.bytes) == (2, 3)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes devices")
def test_devices_differ_by_their_numbers(tmp_path: Path) -> None:
    os.mknod(tmp_path / "dev", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    assert manifest.build(tmp_path).entries[b"dev"].target == b"1:3"


@pytest.mark.parametrize("name", NAMES)
def test_odd_names_come_back_from_the_file(tmp_path: Path, name: bytes) -> None:
    (tmp_path / os.fsdecode(name)).write_bytes(b"one")
    (tmp_path / "link").symlink_to(os.fsdecode(name))
    found = manifest.build(tmp_path)
    again = Manifest.from_bytes(found.to_bytes())
    assert again.entries[name].sha256 == sha(b"one") and again.entries[b"link"].target == name
    assert again.digest == found.digest == sha(found.to_bytes())
    for line in found.to_bytes().splitlines():
        assert canonical.dumps(json.loads(line)) == line


def test_lines_are_sorted_by_the_bytes_of_the_path(tmp_path: Path) -> None:
    fill(tmp_path, {name: b"" for name in ["a/b", "a-b", "a.b", "a", "\U0001f600", "\uffee", "\udcff"] if name != "a"})
    paths = list(manifest.build(tmp_path).entries)
    assert paths == sorted(paths) and len(paths) == 8


def test_write_and_read(tmp_path: Path) -> None:
    fill(tmp_path / "root", {"x": b"one"})
    found = manifest.build(str(tmp_path / "root"))
    found.write(tmp_path / "manifest.jsonl")
    assert Manifest.from_bytes((tmp_path / "manifest.jsonl").read_bytes()).entries == found.entries
    assert sorted(path.name for path in tmp_path.iterdir()) == ["manifest.jsonl", "root"]


GOOD = b'{"gid":0,"mode":"0644","path":"%b","sha256":"' + b"0" * 64 + b'","size":1,"type":"file","uid":0}\n'


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"x\n", "line 1 is not an entry"),
        (b"[]\n", "line 1 is not an entry"),
        (b'{"path":"a"}\n', "line 1 is not an entry"),
        (GOOD % b"a" + b"\xff\n", "line 2 is not an entry"),
        (GOOD % b"b" + GOOD % b"a", "line 2 is not in the one form and order"),
        (GOOD % b"a" + GOOD % b"a", "line 2 is not in the one form and order"),
        (GOOD.replace(b",", b", ") % b"a", "line 1 is not in the one form and order"),
        (GOOD.replace(b'"uid":0', b'"uid":0,"x":1') % b"a", "line 1 is not in the one form and order"),
        ((GOOD % b"a")[:-1], "the last line is cut short"),
        ((GOOD % b"a")[:-1] + b"\r\n", "line 1 is not in the one form"),
    ],
)
def test_what_is_no_manifest(content: bytes, text: str) -> None:
    with pytest.raises(ManifestError, match=text):
        Manifest.from_bytes(content)


# --- differences


def chmod(root: Path) -> None:
    (root / "a/b").chmod(0o600)


def rewrite(root: Path) -> None:
    (root / "a/b").write_bytes(b"two")


def truncate(root: Path) -> None:
    (root / "a/b").write_bytes(b"")


def add(root: Path) -> None:
    fill(root, {"a/new\nline": b""})


def remove(root: Path) -> None:
    (root / "a/b").unlink()


def retarget(root: Path) -> None:
    (root / "link").unlink()
    (root / "link").symlink_to("there")


def retype(root: Path) -> None:
    (root / "link").unlink()
    (root / "link").mkdir(mode=0o755)


def touch(root: Path) -> None:
    os.utime(root / "a/b", (1, 1))


def own_mode(root: Path) -> None:
    root.chmod(0o750)


@pytest.mark.parametrize(
    ("change", "texts"),
    [
        (chmod, ["changed a/b (mode 0644 → 0600)"]),
        (rewrite, ["changed a/b (sha256 7692c3ad3540… → 3fc4ccfe7458…)"]),
        (truncate, ["changed a/b (size 3 → 0, sha256 7692c3ad3540… → e3b0c44298fc…)"]),
        (add, [r"added a/new\nline (file)"]),
        (remove, ["removed a/b (file)"]),
        (retarget, ["changed link (target here → there)"]),
        (retype, ["changed link (type symlink → dir, mode 0777 → 0755, target here → none)"]),
        (touch, []),
        (own_mode, ["changed . (mode 0755 → 0750)"]),
    ],
)
def test_differences_name_what_differs(tmp_path: Path, change: t.Callable[[Path], None], texts: list[str]) -> None:
    fill(tmp_path, {"a/b": b"one", "c": b"one"})
    (tmp_path / "link").symlink_to("here")
    tmp_path.chmod(0o755)
    before = manifest.build(tmp_path)
    change(tmp_path)
    after = manifest.build(tmp_path)
    assert [str(item) for item in manifest.diff(before, after)] == texts
    assert (before.digest == after.digest) == (texts == [])


# --- the cache


class Told:
    """A progress callback that remembers how many bytes were to do."""

    def __init__(self) -> None:
        self.total = 0

    def __call__(self, done: int, total: int) -> None:
        assert done <= total
        self.total = total


def built(root: Path, cache: Path, **more: t.Any) -> tuple[Manifest, int]:
    """Return the manifest, and how many bytes were read for it."""
    told = Told()
    return manifest.build(root, cache=cache, progress=told, **more), told.total


def test_only_what_changed_is_read_again(tmp_path: Path) -> None:
    root, cache = tmp_path / "root", tmp_path / "cache"
    fill(root, {"a/b": b"12345", "c": b"123", "d": b"1"})
    (root / "link").symlink_to("c")
    plain = manifest.build(root)
    # Just written, so nothing is trusted yet; a settled build is.
    for _round in range(2):
        assert built(root, cache)[1] == 10
    settled()
    assert built(root, cache)[1] == 10
    for _round in range(2):
        assert built(root, cache)[1] == 0
        assert built(root, cache)[0].to_bytes() == plain.to_bytes()
    assert built(root, cache, full=True)[1] == 10
    fill(root, {"c": b"456", "new": b"12"})
    (root / "d").unlink()
    found, read = built(root, cache)
    assert read == 5
    assert found.to_bytes() == manifest.build(root).to_bytes() != plain.to_bytes()


@pytest.mark.parametrize("how", ["written", "replaced", "exchanged"])
def test_a_content_change_with_size_and_mtime_put_back_is_found(tmp_path: Path, how: str) -> None:
    root, cache = tmp_path / "root", tmp_path / "cache"
    fill(root, {"x": b"good", "y": b"evil"})
    for name in "xy":
        os.utime(root / name, ns=(10**18, 10**18))
    settled()
    before = built(root, cache)[0]
    assert built(root, cache)[1] == 0
    if how == "written":
        (root / "x").write_bytes(b"evil")
    elif how == "replaced":
        fill(root, {"z": b"evil"})
        (root / "z").replace(root / "x")
    else:
        (root / "x").rename(root / "z")
        (root / "y").rename(root / "x")
        (root / "z").rename(root / "y")
    os.utime(root / "x", ns=(10**18, 10**18))
    assert ((root / "x").stat().st_size, (root / "x").stat().st_mtime_ns) == (4, 10**18)
    after = built(root, cache)[0]
    assert after.entries[b"x"].sha256 == sha(b"evil")
    assert before.digest != after.digest == manifest.build(root).digest


@pytest.mark.parametrize("content", [b"", b"x" * 10, b"guardrails stat1" + b"\xff" * 100])
def test_a_useless_cache_is_ignored(tmp_path: Path, content: bytes) -> None:
    root, cache = tmp_path / "root", tmp_path / "cache"
    fill(root, {"x": b"one"})
    cache.write_bytes(content)
    assert manifest.build(root, cache=cache).digest == manifest.build(root).digest
    assert cache.stat().st_mode & 0o7777 == 0o600


# --- trees that change meanwhile


def big(root: Path, count: int = 24) -> Path:
    fill(root, {f"{number:02d}/file": bytes([number]) * MB for number in range(count)})
    return root


@pytest.mark.parametrize("jobs", [1, 2, 3])
def test_any_number_of_processes_gives_the_same(tmp_path: Path, jobs: int) -> None:
    fill(big(tmp_path), {f"small/{number}": b"%d" % number for number in range(500)})
    steps = []
    found = manifest.build(tmp_path, jobs=jobs, progress=lambda done, total: steps.append((done, total)))
    for number in range(24):
        assert found.entries[b"%02d/file" % number].sha256 == sha(bytes([number]) * MB)
    assert found.entries[b"small/77"].sha256 == sha(b"77")
    assert len(steps) > 10 and steps == sorted(steps) and steps[-1] == (found.bytes, found.bytes)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def once(action: t.Callable[[], object]) -> manifest.Progress:
    pending = [action]

    def progress(_done: int, _total: int) -> None:
        while pending:
            pending.pop()()

    return progress


def append_to_all(root: Path) -> None:
    for path in root.rglob("file"):
        with path.open("ab") as opened:
            opened.write(b"x")


def rewrite_all(root: Path) -> None:
    for path in root.rglob("file"):
        path.write_bytes(bytes(MB))


def delete_all(root: Path) -> None:
    for path in root.rglob("file"):
        path.unlink()


def links_for_all(root: Path) -> None:
    for path in root.rglob("file"):
        path.unlink()
        path.symlink_to("/etc/passwd")


def fifos_for_all(root: Path) -> None:
    for path in root.rglob("file"):
        path.unlink()
        os.mkfifo(path)


def folders_to_links(root: Path) -> None:
    for path in sorted(root.iterdir()):
        path.rename(root.parent / path.name)
        path.symlink_to(root.parent / path.name)


def add_a_file(root: Path) -> None:
    fill(root, {"00/extra": b""})


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize(
    "change",
    [append_to_all, rewrite_all, delete_all, links_for_all, fifos_for_all, folders_to_links, add_a_file],
)
def test_a_change_while_reading_is_noticed(tmp_path: Path, change: t.Callable[[Path], None], jobs: int) -> None:
    root, cache = big(tmp_path / "root"), tmp_path / "cache"
    with pytest.raises(ManifestError, match=r"root: \S+ changed while it was read: stop what writes there") as refused:
        manifest.build(root, cache=cache, jobs=jobs, progress=once(lambda: change(root)))
    assert "\n" not in str(refused.value) and not cache.exists()
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_a_file_that_is_written_all_the_time_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "busy"
    path.write_bytes(bytes(64 * MB))
    stop = threading.Event()

    def write() -> None:
        with path.open("r+b") as opened:
            while not stop.is_set():
                opened.seek(0)
                opened.write(b"x")
                opened.flush()
                time.sleep(0.001)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        # With a second thread around it hashes in this one.
        with pytest.raises(ManifestError, match="busy changed while it was read"):
            manifest.build(tmp_path)
    finally:
        stop.set()
        writer.join()


def test_a_process_that_dies_is_no_manifest(tmp_path: Path) -> None:
    def kill_children() -> None:
        for child in Path("/proc/thread-self/children").read_text().split():
            os.kill(int(child), signal.SIGKILL)

    with pytest.raises(ManifestError, match="a process that hashed was killed"):
        manifest.build(big(tmp_path, 64), progress=once(kill_children))


def test_an_interrupt_leaves_no_process_behind(tmp_path: Path) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        manifest.build(big(tmp_path), progress=once(interrupt))
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


# --- roots and surveys


@pytest.mark.parametrize("take", [manifest.build, manifest.survey])
@pytest.mark.parametrize(
    ("name", "text"),
    [("nowhere", "nowhere: No such file"), ("file", "file: Not a directory"), ("link", "link: ")],
)
def test_a_root_that_is_no_folder(tmp_path: Path, take: t.Callable[[Path], object], name: str, text: str) -> None:
    fill(tmp_path, {"file": b""})
    (tmp_path / "link").symlink_to("/")
    with pytest.raises(ManifestError, match=text):
        take(tmp_path / name)


def test_survey_counts_without_reading(tmp_path: Path) -> None:
    fill(tmp_path, {"a/b": b"12345", "c": b"1"})
    (tmp_path / "link").symlink_to("c")
    os.mkfifo(tmp_path / "a/fifo")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
    found = manifest.survey(tmp_path)
    assert found.owners == {ME: 7}
    assert found.special == [(b"a/fifo", "fifo"), (b"socket", "socket")]
    assert (found.files, found.bytes, found.unreadable) == (2, 6, [])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_survey_counts_owners(tmp_path: Path) -> None:
    fill(tmp_path, {"a": b"", "b": b"", "c": b""})
    os.chown(tmp_path / "a", 1234, 0)
    os.chown(tmp_path / "b", 0, 1234)
    assert manifest.survey(tmp_path).owners == {(0, 0): 2, (1234, 0): 1, (0, 1234): 1}


def test_what_cannot_be_read_is_listed_by_a_survey_and_refused_by_a_build() -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        fill(root, {"ok": b"", "secret": b"", "shut/x": b""})
        root.chmod(0o755)
        (root / "secret").chmod(0)
        (root / "shut").chmod(0)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            if os.geteuid() == 0:
                os.setuid(65534)
            try:
                manifest.build(root)
            except ManifestError as error:
                os.write(writer, f"{manifest.survey(root).unreadable} {error}".encode())
            os._exit(0)
        os.close(writer)
        os.waitpid(child, 0)
        answer = os.read(reader, 10_000).decode()
        os.close(reader)
        (root / "shut").chmod(0o700)
    assert answer == f"[b'secret', b'shut'] {root}: shut: Permission denied"


def test_a_tree_deeper_than_a_path_may_be_long(tmp_path: Path) -> None:
    here = os.open(tmp_path, os.O_DIRECTORY)
    for _round in range(30):
        os.mkdir("d" * 200, dir_fd=here)
        below = os.open("d" * 200, os.O_DIRECTORY, dir_fd=here)
        os.close(here)
        here = below
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=here))
    os.close(here)
    paths = list(manifest.build(tmp_path).entries)
    assert len(paths) == 32 and len(paths[-1]) > 6000


def test_reading_leaves_access_times_alone(tmp_path: Path) -> None:
    fill(tmp_path, {"a/b": b"one"})
    for name in ("a/b", "a"):
        os.utime(tmp_path / name, (1, 2))
    manifest.build(tmp_path)
    assert [(tmp_path / name).stat().st_atime for name in ("a/b", "a")] == [1, 1]


def test_children_end_with_a_killed_parent(tmp_path: Path) -> None:
    for number in range(8):
        fill(tmp_path, {f"{number}/{name}": b"x" for name in range(1500)})
    reader, writer = os.pipe()
    parent = os.fork()
    if parent == 0:
        os.close(reader)
        # Every child holds the pipe's end too, so it closes only when all of them are gone.
        manifest.build(tmp_path, jobs=2, progress=once(lambda: os.kill(os.getpid(), signal.SIGKILL)))
        os._exit(0)
    os.close(writer)
    assert os.WIFSIGNALED(os.waitpid(parent, 0)[1])
    assert select.select([reader], [], [], 20)[0] == [reader] and os.read(reader, 1) == b""
    os.close(reader)
