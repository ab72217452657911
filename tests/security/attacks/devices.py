# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Device nodes: the disk, the memory, and the one that is an overlay's whiteout."""

from __future__ import annotations

import os
import pathlib
import stat

from security.cases import NotHere, Scene, case

PLACES = '("/workspace", "/tmp", "/dev", "/dev/shm", "/home/agent", "/dev/mqueue")'


@case("make a node of the disk that a neighbour's files lie on, and read it", "seccomp + capabilities + devices")
def disk(scene: Scene) -> str:
    device = os.stat(scene.neighbour.working_set.delta).st_dev
    name = f"/sys/dev/block/{os.major(device)}:{os.minor(device)}"
    if not os.path.exists(name):
        raise NotHere("no disk of its own")
    with open(f"/dev/{os.path.basename(os.path.realpath(name))}", "rb") as file:
        real = file.read(4096)
    assert real.strip(b"\0")
    script = f"""
for place in {PLACES}:
    node = place + "/" + T
    attempt(lambda: call('mknodat', -100, node.encode(), 0o60666, os.makedev({os.major(device)}, {os.minor(device)})))
    attempt(lambda: print(open(node, "rb").read(4096).hex()))
"""
    return "the disk was read" if real.hex() in scene.said(script) else ""


@case("make nodes of memory, loop control, FUSE and the console", "seccomp + capabilities")
def nodes(scene: Scene) -> str:
    script = f"""
for major, minor in ((1, 1), (1, 4), (10, 237), (10, 229), (5, 1), (7, 0), (10, 232)):
    for place in {PLACES}:
        attempt(lambda: call('mknodat', -100, (place + "/" + T + str(minor)).encode(), 0o20666, os.makedev(major, minor)))
hold()
"""
    with scene.attack(script):
        root = f"/proc/{scene.box.first}/root"
        for folder in ("workspace", "tmp", "dev", "dev/shm"):
            for path in pathlib.Path(root, folder).glob(f"{scene.mark}*"):
                if stat.S_ISCHR(path.lstat().st_mode):
                    return f"a device at {path}"
    return ""


@case("make a 0/0 device in the working set, which hides an original, also by renameat2", "seccomp")
def whiteout(scene: Scene) -> str:
    script = """
for place in ("/workspace", "/tmp"):
    attempt(lambda: call('mknodat', -100, (place + "/" + T).encode(), 0o20000, 0))
open("/workspace/r" + T, "w").close()
attempt(lambda: call('renameat2', -100, ("/workspace/r" + T).encode(), -100, ("/workspace/s" + T).encode(), 4))
hold()
"""
    with scene.attack(script):
        root = pathlib.Path(f"/proc/{scene.box.first}/root")
        layers = [scene.box.upper, *(root / folder for folder in ("tmp", "workspace"))]
        for path in [found for layer in layers if layer.is_dir() for found in layer.glob(f"*{scene.mark}")]:
            if stat.S_ISCHR(path.lstat().st_mode):
                return f"a whiteout at {path}"
    return ""


@case("use every device that is there as more than what it is for")
def present(scene: Scene) -> str:
    said = scene.said(
        """
for folder, _folders, names in os.walk("/dev"):
    for name in names:
        with contextlib.suppress(OSError):
            found = os.stat(os.path.join(folder, name))
            if stat.S_ISBLK(found.st_mode) or stat.S_ISCHR(found.st_mode):
                print("device", os.major(found.st_rdev), os.minor(found.st_rdev))
""",
    )
    # null, zero, full, random, urandom; tty, ptmx; terminals of its own
    harmless = {(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2)}
    there = {tuple(map(int, line.split()[1:])) for line in said.splitlines() if line.startswith("device")}
    more = {device for device in there - harmless if device[0] not in range(136, 144)}
    return f"devices {sorted(more)}" if more and scene.box.runtime == "runc" else ""
