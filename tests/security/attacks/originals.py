# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The originals: they must be bit-identical whatever is tried, and nothing of the host be reached through them."""

from __future__ import annotations

import contextlib
import os
import pathlib
import select
import socket
import subprocess

from ansible_collections.dockersandbox.guardrails.plugins.module_utils import manifest, run
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.sandboxes import SandboxError
from security.arena import Terminal, locked
from security.cases import Scene, case


def _changed(scene: Scene, script: str) -> str:
    """Return the evidence that *script* changed the originals, which are put back then."""
    arena = scene.arena
    scene.said(script, 30)
    if manifest.build(arena.tree).digest == arena.digest:
        return ""
    arena.restore_tree()
    return "the originals are changed"


@case("write, truncate, chmod, chown, rename, unlink, link, map and label originals", "originals behind overlays + user")
def every_write(scene: Scene) -> str:
    return _changed(
        scene,
        """
for top in ("/originals", "/proc/self/root/originals", "/workspace/../originals"):
    f, d = top + "/README.md", top + "/data"
    def mapped():
        with open(f, "rb") as file:
            mmap.mmap(file.fileno(), 0, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)[0] = 88
    for act in (lambda: open(f, "ab").write(b"x"), lambda: os.truncate(f, 0), lambda: os.chmod(f, 0o777), lambda: os.chmod(d, 0o700),
                lambda: os.chown(f, 12, 12), lambda: os.utime(f, (1, 1)), lambda: os.rename(f, f + "x"), lambda: os.rename(top + "/tool", f),
                lambda: os.link(f, f + "x"), lambda: os.symlink("x", f + "y"), lambda: os.mkdir(d + "/x"), lambda: os.mkfifo(f + "z"),
                lambda: os.setxattr(f, "user.x", b"x"), mapped, lambda: os.unlink(f),
                lambda: os.posix_fallocate(os.open(f, os.O_RDWR), 0, 9999)):
        attempt(act)
""",
    )


@case("write through a descriptor that was opened for reading, and through a map of it", "originals behind overlays + user")
def reopened(scene: Scene) -> str:
    return _changed(
        scene,
        """
fd = os.open("/originals/README.md", os.O_RDONLY)
attempt(lambda: os.write(os.open(f"/proc/self/fd/{fd}", os.O_RDWR), b"x"))
attempt(lambda: os.truncate(f"/proc/self/fd/{fd}", 1))
attempt(lambda: os.chmod(f"/proc/self/fd/{fd}", 0o777))
page = libc.mmap(None, 4096, 1, 1, fd, 0)
attempt(lambda: libc.mprotect(ctypes.c_void_p(page), 4096, 3) == 0 and ctypes.memset(ctypes.c_void_p(page), 88, 1))
with contextlib.suppress(OSError):
    memory = os.open("/proc/self/mem", os.O_RDWR)
    where = int(next(line for line in open("/proc/self/maps") if "README" in line).split("-")[0], 16)
    os.pwrite(memory, b"X", where)
""",
    )


@case("change an original by its copy: hard links, clones, ranges, exchanges between the two")
def through_copies(scene: Scene) -> str:
    return _changed(
        scene,
        """
w, o = "/workspace/", "/originals/"
attempt(lambda: os.link(o + "README.md", w + T))
attempt(lambda: open(w + "twin", "a").write("changed"))
attempt(lambda: call('renameat2', -100, (w + "tool").encode(), -100, (o + "tool").encode(), 2))
attempt(lambda: os.copy_file_range(os.open(w + "twin", os.O_RDONLY), os.open(o + "README.md", os.O_RDWR), 9))
def clone():
    with open(o + "README.md", "rb") as source, open(w + "clone" + T, "wb") as target:
        fcntl.ioctl(target, 0x40049409, source.fileno())
attempt(clone)
for request in (0x40086602, 0x401c5820, 0x40086604, 0xc0502104):
    for place in (o, w):
        attempt(lambda: fcntl.ioctl(os.open(place + "README.md", os.O_RDONLY), request, struct.pack("<7I", 0x10, 0, 0, 77, 0, 0, 0)))
attempt(lambda: os.unlink(w + "link"), lambda: os.rename(w + "data", w + "moved"))
""",
    )


@case("write to the host through links that lead out of the working set")
def links_out(scene: Scene) -> str:
    # Seen by the look at the secret file after every case.
    scene.said(
        """
for target in (E["HOST_FILE"], "/.." * 9 + E["HOST_FILE"], "../" * 9 + E["HOST_FILE"][1:], "/proc/1/root" + E["HOST_FILE"]):
    os.symlink(target, "/workspace/" + T)
    attempt(lambda: open("/workspace/" + T, "w").write(T))
    os.unlink("/workspace/" + T)
"""
    )
    return ""


@case("reach the host's end of a socket, a FIFO and a lock that lie in the originals", "originals behind overlays + user")
def doors(scene: Scene) -> str:
    tree = scene.arena.tree
    door, pipe, file = tree / "door", tree / "pipe", tree / "README.md"
    script = """
for top in ("/originals/", "/workspace/"):
    def knock():
        with socket.socket(socket.AF_UNIX) as one:
            one.connect(top + "door")
    attempt(knock)
    attempt(lambda: os.write(os.open(top + "pipe", os.O_WRONLY | os.O_NONBLOCK), b"x"))
    attempt(lambda: fcntl.flock(os.open(top + "README.md", os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB))
    attempt(lambda: fcntl.fcntl(os.open(top + "README.md", os.O_RDONLY), 1024, 0))
hold()
"""
    with socket.socket(socket.AF_UNIX) as listener, contextlib.ExitStack() as stack:
        listener.bind(str(door))
        listener.listen()
        door.chmod(0o777)
        stack.callback(door.unlink)
        os.mkfifo(pipe, 0o666)
        stack.callback(pipe.unlink)
        end = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
        stack.callback(os.close, end)
        with scene.attack(script):
            if select.select([listener.fileno(), end], [], [], 0.2)[0]:
                return "the host's end was reached"
            return "the host's file is locked" if locked(file) else ""


@case("have a change of the originals during a run pass unseen", source="b")
def changed_meanwhile(scene: Scene) -> str:
    arena = scene.arena
    terminal = Terminal()
    terminal.act = lambda: (arena.tree / "README.md").write_text("not by the sandbox\n", encoding="ascii")
    try:
        done = scene.run(["sh", "-c", "echo ready; sleep 1"], terminal)
    finally:
        arena.restore_tree()
    return "" if any("README.md" in line for line in done.originals) else "the run says that they are as they were"


def _colon(tree: pathlib.Path) -> pathlib.Path:
    return tree.rename(tree.with_name(f"{tree.name}:x,y"))


def _owners(tree: pathlib.Path) -> pathlib.Path:
    os.lchown(tree / "README.md", 4711, 4711)
    return tree


def _mounted(tree: pathlib.Path) -> pathlib.Path:
    subprocess.run(["mount", "-t", "tmpfs", "inside", str(tree / "data")], check=True)
    return tree


@case("stand on originals that cannot be proven: a colon, several owners, a mount inside", "preflight of originals", source="b")
def unfit(scene: Scene) -> str:
    for number, spoil in enumerate((_colon, _owners, _mounted)):
        tree = spoil(scene.arena.copy(f"unfit-{scene.mark}-{number}"))
        try:
            with scene.weak_host(), run.throwaway(scene.box.host, scene.box.of, scene.box.description, str(tree)):
                return f"a sandbox stands on {tree.name}"
        except (SandboxError, ValueError) as error:
            if str(tree) not in str(error):
                return f"refused without a name: {error}"
        finally:
            subprocess.run(["umount", "-q", str(tree / "data")], check=False)
    return ""


@case("keep the host from its own accounts file, which is mounted into the sandbox")
def accounts(scene: Scene) -> str:
    file = scene.box.folder / "passwd"
    before = file.read_bytes()
    script = """
keep = [open(path, "rb") for path in ("/etc/passwd", "/etc/group")]
for one in keep:
    attempt(lambda: fcntl.flock(one, fcntl.LOCK_EX | fcntl.LOCK_NB))
for path in ("/etc/passwd", "/etc/group", "/etc/hosts", "/etc/resolv.conf", "/etc/hostname"):
    attempt(lambda: open(path, "a").write(T))
    attempt(lambda: os.rename(path, path + T), lambda: os.unlink(path), lambda: os.chmod(path, 0o666))
hold()
"""
    with scene.attack(script):
        if file.read_bytes() != before:
            return "the accounts are changed"
        spare = file.with_name(".passwd.spare")
        spare.write_bytes(before)
        spare.replace(file)
    return ""
