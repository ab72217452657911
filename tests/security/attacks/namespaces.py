# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Namespaces and mounts: what would hand out capabilities or change what the sandbox's own walls mean."""

from __future__ import annotations

import os

from security.arena import Box
from security.cases import Scene, case


def _namespaces(box: Box) -> set[str]:
    return box.links("ns/*")


def _mounts(scene: Scene) -> str:
    return next((line for line in scene.box.mounts() if scene.mark in line), "")


def _new_namespace(scene: Scene, script: str) -> str:
    return scene.kept(script + "\nhold()\n", "another namespace", _namespaces)


@case("unshare a user namespace", "seccomp")
def unshare_user(scene: Scene) -> str:
    return _new_namespace(scene, "attempt(lambda: call('unshare', 0x10000000))")


@case("unshare every kind of namespace, one by one", "seccomp + capabilities")
def unshare_others(scene: Scene) -> str:
    return _new_namespace(scene, "for flag in (0x80, 0x20000, 0x2000000, 0x4000000, 0x8000000, 0x40000000): attempt(lambda: call('unshare', flag))")


@case("clone into a user namespace", "seccomp")
def clone_user(scene: Scene) -> str:
    return _new_namespace(
        scene,
        """
def clone():
    if call('clone', 0x10000000 | 17, 0, 0, 0, 0) == 0:
        time.sleep(20)
        os._exit(0)
attempt(clone)
""",
    )


@case("the same by clone3, whose flags a filter cannot see", "seccomp")
def clone3_user(scene: Scene) -> str:
    return _new_namespace(
        scene,
        """
def clone():
    given = ctypes.create_string_buffer(struct.pack("<11Q", 0x10000000, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0))
    if call('clone3', given, 88) == 0:
        time.sleep(20)
        os._exit(0)
attempt(clone)
""",
    )


@case("unshare by the 32-bit system calls of int 0x80", "seccomp")
def unshare_32_bit(scene: Scene) -> str:
    if os.uname().machine != "x86_64":
        return ""
    return _new_namespace(
        scene,
        """
page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
page.write(b"\\x53\\xbb\\0\\0\\0\\x10\\xb8\\x36\\x01\\0\\0\\xcd\\x80\\x5b\\xc3")
print(ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))())
""",
    )


@case("setns into the namespaces of its first process and of every other that it sees", "processes + seccomp + capabilities")
def setns(scene: Scene) -> str:
    return _new_namespace(
        scene,
        """
for link in glob.glob("/proc/[0-9]*/ns/*"):
    with contextlib.suppress(OSError):
        with open(link) as one:
            call('setns', one.fileno(), 0)
for pid in range(1, 60):
    with contextlib.suppress(OSError):
        call('setns', call('pidfd_open', pid, 0), 0x20000)
""",
    )


MOUNT = """
os.makedirs("/tmp/" + T, exist_ok=True)
where = ("/tmp/" + T).encode()
def old():
    call('mount', T.encode(), where, b"tmpfs", 0, b"")
def new():
    fs = call('fsopen', b"tmpfs", 0)
    call('fsconfig', fs, 6, 0, 0, 0)
    call('move_mount', call('fsmount', fs, 0, 0), b"", -100, where, 4)
def tree():
    call('move_mount', call('open_tree', -100, b"/usr", 1), b"", -100, where, 4)
def program():
    subprocess.run(["mount", "-t", "tmpfs", T, where], check=True)
"""


@case("mount a tmpfs, by every way to mount", "seccomp + capabilities")
def mount(scene: Scene) -> str:
    with scene.attack(MOUNT + "attempt(old, new, tree, program)\nhold()\n"):
        return _mounts(scene)


@case("mount in a user namespace of its own", "seccomp")
def mount_in_namespace(scene: Scene) -> str:
    with scene.attack(MOUNT + "attempt(lambda: call('unshare', 0x10020000))\nattempt(old, new, tree)\nhold()\n"):
        return _mounts(scene)


@case("make read-only mounts writable again: /, /originals, /etc/passwd", "seccomp + capabilities")
def remount(scene: Scene) -> str:
    def writable(box: Box) -> set[str]:
        return {line for line in box.mounts() if line.split()[4] in ("/", "/originals", "/etc/passwd") and line.split()[5].startswith("rw")}

    return scene.kept(
        """
for where in (b"/", b"/originals", b"/etc/passwd"):
    attempt(lambda: call('mount', b"", where, b"", 0x1020, b""), lambda: call('mount_setattr', -100, where, 0,
            ctypes.create_string_buffer(struct.pack("<4Q", 0, 1, 0, 0)), 32))
hold()
""",
        "a mount that is writable",
        writable,
    )


@case("take away the masks of /proc", "seccomp + capabilities")
def unmask(scene: Scene) -> str:
    before = scene.box.mounts()
    paths = (b"/proc/kcore", b"/proc/keys", b"/proc/sys", b"/sys/firmware", b"/proc")
    with scene.attack(f"for path in {paths}: attempt(lambda: call('umount2', path, 2))\nhold()\n"):
        gone = before - scene.box.mounts()
    return f"unmounted: {min(gone)}" if gone else ""


@case("chroot and pivot_root to a folder of its own", "seccomp + capabilities")
def chroot(scene: Scene) -> str:
    script = """
os.makedirs("/tmp/" + T)
attempt(lambda: call('chroot', ("/tmp/" + T).encode()))
attempt(lambda: call('pivot_root', b"/tmp", b"/tmp"))
hold()
"""
    with scene.attack(script):
        return next((f"another root: {link}" for link in scene.box.links("root") if scene.mark in link), "")
