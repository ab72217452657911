# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the kernel shows and takes below /proc and /sys, and by its control groups."""

from __future__ import annotations

import contextlib
import os
import pathlib
import subprocess
import time

from security.arena import Box
from security.cases import NotHere, Scene, case


def _shown(scene: Scene, path: str, size: int = 400) -> str:
    """Return the evidence that the sandbox reads in *path* what the host reads there."""
    if not pathlib.Path(path).exists():
        raise NotHere(f"no {path}")
    with open(path, "rb") as file:
        real = file.read(size)
    said = scene.said(f"attempt(lambda: print(open({path!r}, 'rb').read({size}).hex()))")
    return f"{path} reads as it does on the host" if real and real.hex() in said else ""


@case("read the machine's memory by /proc/kcore", "masks + capabilities")
def kcore(scene: Scene) -> str:
    return _shown(scene, "/proc/kcore", 64)


@case("read the kernel's command line, which may hold secrets", "masks")
def command_line(scene: Scene) -> str:
    return _shown(scene, "/proc/cmdline")


@case("read the kernel's symbols with their addresses", "masks + capabilities")
def symbols(scene: Scene) -> str:
    with open("/proc/kallsyms", encoding="ascii") as file:
        line = next((line.strip() for line in file if " T " in line and not line.startswith("0000000000000000")), "")
    if not line:
        raise NotHere("kallsyms shows no address to anybody")
    return "an address was printed" if line in scene.said("attempt(lambda: print(open('/proc/kallsyms').read()))") else ""


@case("read which users have how many keys", "masks")
def key_users(scene: Scene) -> str:
    return _shown(scene, "/proc/key-users", 20)


@case("read the kernel's notes, slabs and counters below /sys/kernel", "masks", source="CVE-2024-26816")
def sys_kernel(scene: Scene) -> str:
    return _shown(scene, "/sys/kernel/notes")


@case("read timers and the scheduler, which name programs of the host", "masks + capabilities")
def timers(scene: Scene) -> str:
    return _shown(scene, "/proc/timer_list", 60)


@case("write the path of what the kernel runs on a crash (core_pattern)", "masks + user")
def core_pattern(scene: Scene) -> str:
    path = pathlib.Path("/proc/sys/kernel/core_pattern")
    before = path.read_text(encoding="utf-8")
    script = """
for place in glob.glob("/proc/sys/kernel/core_pattern") + glob.glob("/proc/*/root/proc/sys/kernel/core_pattern"):
    attempt(lambda: open(place, "w").write("|/" + T))
"""
    try:
        scene.said(script)
        return "core_pattern is the attack's" if scene.mark in path.read_text(encoding="utf-8") else ""
    finally:
        path.write_text(before, encoding="utf-8")


@case("write other paths that the kernel runs: modprobe, uevent_helper, binfmt_misc, release_agent", source="CVE-2022-0492")
def helpers(scene: Scene) -> str:
    # Seen by the look at the host after every case.
    scene.said(
        """
for place in ("/proc/sys/kernel/modprobe", "/sys/kernel/uevent_helper", *glob.glob("/sys/fs/cgroup/*/release_agent")):
    attempt(lambda: open(place, "w").write("/" + T))
attempt(lambda: open("/proc/sys/fs/binfmt_misc/register", "w").write(":" + T + ":E::xyz::/tmp/x:"))
for controller in ("rdma", "memory", "cpuset", "misc"):
    os.makedirs("/tmp/" + controller, exist_ok=True)
    attempt(lambda: call('mount', b"cgroup", ("/tmp/" + controller).encode(), b"cgroup", 0, controller.encode()))
    attempt(lambda: open("/tmp/" + controller + "/release_agent", "w").write("/" + T))
"""
    )
    return ""


@case("change settings of the kernel below /proc/sys and /sys")
def settings(scene: Scene) -> str:
    # Seen by the look at the host after every case.
    scene.said(
        """
for place, value in {"kernel/hostname": T, "vm/overcommit_memory": "1", "fs/suid_dumpable": "2", "kernel/sysrq": "1", "vm/drop_caches": "3"}.items():
    attempt(lambda: open("/proc/sys/" + place, "w").write(value))
attempt(lambda: open("/proc/sysrq-trigger", "w").write("h"))
"""
    )
    return ""


@case("open anything below /proc/sys and /sys for writing", "masks + user")
def writable_settings(scene: Scene) -> str:
    def open_for_writing(box: Box) -> set[str]:
        found = set()
        for pid in box.processes():
            for link in pathlib.Path(f"/proc/{pid}/fd").glob("*"):
                with contextlib.suppress(OSError):
                    path = os.readlink(link)
                    flags = int(pathlib.Path(f"/proc/{pid}/fdinfo/{link.name}").read_text(encoding="ascii").split()[3], 8)
                    if path.startswith(("/proc/sys", "/sys/")) and flags & os.O_ACCMODE:
                        found.add(path)
        return found

    # Opened and never written: without its protection this is the host's own kernel.
    script = """
keep = []
for top in ("/proc/sys", "/sys"):
    for folder, folders, names in os.walk(top):
        for name in names:
            if len(keep) < 50 and os.access(os.path.join(folder, name), os.W_OK):
                with contextlib.suppress(OSError):
                    keep.append(os.open(os.path.join(folder, name), os.O_WRONLY | os.O_NONBLOCK))
hold()
"""
    return scene.kept(script, "open for writing", open_for_writing)


@case("raise its own caps in its control groups", "read-only cgroups + user")
def cgroups(scene: Scene) -> str:
    def caps() -> dict[str, str]:
        names = ("memory.limit_in_bytes", "memory.max", "pids.max", "cpu.cfs_quota_us", "cpu.max")
        files = [folder / name for folder in scene.box.cgroups().values() for name in names]
        return {str(file): file.read_text(encoding="ascii").strip() for file in files if file.exists()}

    before = caps()
    assert before, "no control group was found"
    scene.said(
        """
for name, value in (("pids.max", "max"), ("memory.limit_in_bytes", "1g"), ("memory.max", "max"), ("cpu.cfs_quota_us", "-1"), ("cpu.max", "max")):
    for place in glob.glob("/sys/fs/cgroup/**/" + name, recursive=True):
        if len(glob.glob("/sys/fs/cgroup/*")) < 3 or E["MINE"] in place or place.count("/") < 6:
            with contextlib.suppress(OSError):
                open(place, "w").write(value)
""",
        more={"MINE": scene.box.inspected["Id"]},
    )
    changed = [path for path, value in caps().items() if value != before[path]]
    return f"changed: {changed[0]}" if changed else ""


@case("have the host's crash handler run by a crash", "limit on core dumps", source="CVE-2022-28657")
def crash_handler(scene: Scene) -> str:
    pattern, handler = pathlib.Path("/proc/sys/kernel/core_pattern"), scene.arena.folder / "handler"
    ran = scene.arena.folder / "handler-ran"
    handler.write_text(f"#!/bin/sh\necho \"$1\" >> {ran}\n", encoding="ascii")
    handler.chmod(0o755)
    before = pattern.read_text(encoding="utf-8")
    script = """
import resource
for limit in (0, 1, -1):
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (limit, limit))
    for number in (signal.SIGSEGV, signal.SIGABRT, signal.SIGSYS):
        child = os.fork()
        if child == 0:
            os.kill(os.getpid(), number)
            time.sleep(5)
        os.waitpid(child, 0)
"""
    pattern.write_text(f"|{handler} %u", encoding="ascii")
    try:
        # A machine that is a container itself: the kernel looks for the handler elsewhere.
        subprocess.run(["sh", "-c", "kill -SEGV $$"], check=False)
        time.sleep(0.3)
        if not ran.exists():
            raise NotHere("a crash here runs no handler of this machine")
        ran.unlink()
        scene.said(script)
        time.sleep(0.3)
        uids = ran.read_text(encoding="ascii").split() if ran.exists() else []
    finally:
        pattern.write_text(before, encoding="utf-8")
    ran.unlink(missing_ok=True)
    return f"the handler was run {uids.count(str(scene.box.uid))} times" if str(scene.box.uid) in uids or "0" in uids else ""
