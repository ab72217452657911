# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bombs: what one sandbox can take of what all share. The neighbour must answer within two seconds while it goes on."""

from __future__ import annotations

import os
import pathlib
import time
import typing as t

from security.cases import Scene, case
from security.weakenings import tcp_limit

PATIENCE = 2.0
MIB = 1 << 20


def _neighbour(scene: Scene, seconds: float = 3, script: str = "") -> str:
    """Return the evidence that the neighbour suffers: it answers late within *seconds*, or *script* fails in it."""
    end = time.monotonic() + seconds
    slowest = 0.0
    while time.monotonic() < end:
        slowest = max(slowest, scene.neighbour.answers())
        time.sleep(0.1)
    if slowest >= PATIENCE:
        return f"its neighbour took {slowest:.1f} s to answer"
    if script and scene.neighbour.answers(["python3", "-c", script]) >= 10:
        return "its neighbour gets none of it"
    return ""


def _bomb(scene: Scene, script: str, more: t.Callable[[Scene], str] = lambda _scene: "", neighbour: str = "", seconds: float = 3) -> str:
    with scene.attack(script, seconds=8):
        return more(scene) or _neighbour(scene, seconds, neighbour)


def _memory_of(scene: Scene) -> int:
    return sum(_resident(pid) for pid in scene.box.processes())


def _resident(pid: int) -> int:
    try:
        return int(pathlib.Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


@case("fork without end", "cap on processes")
def fork(scene: Scene) -> str:
    def count(scene: Scene) -> str:
        tasks = sum(len(os.listdir(f"/proc/{pid}/task")) for pid in scene.box.processes() if os.path.exists(f"/proc/{pid}/task"))
        # gVisor's own threads stand for the sandbox's processes, and have the same cap.
        return f"{tasks} tasks, its cap is {scene.box.description['pids']}" if tasks > scene.box.description["pids"] + 8 else ""

    # No more than shows what it is about, should nothing stop it.
    return _bomb(
        scene,
        """
made = 0
while made < 400:
    try:
        if os.fork() == 0:
            time.sleep(30)
            os._exit(0)
        made += 1
    except OSError:
        time.sleep(0.01)
        break
hold()
""",
        count,
    )


@case("fork and end without end, as fast as it goes", long=True)
def fork_storm(scene: Scene) -> str:
    script = "for _ in range(8):\n with contextlib.suppress(OSError):\n  if os.fork() == 0: break\nprint('HOLD', flush=True)\nwhile True:\n"
    return _bomb(scene, script + " with contextlib.suppress(OSError):\n  if os.fork() == 0: os._exit(0)\n  os.wait()\n")


@case("fill memory", "cap on memory")
def memory(scene: Scene) -> str:
    def over(scene: Scene) -> str:
        taken = _memory_of(scene)
        return f"{taken // MIB} MiB taken" if taken > scene.box.description["memory"] + 64 * MIB else ""

    return _bomb(scene, "keep = []\nfor _ in range(60):\n keep.append(bytearray(os.urandom(1 << 20) * 10))\nhold()\n", over)


@case("fill memory with files: /tmp, home, /dev/shm, memfd")
def memory_files(scene: Scene) -> str:
    script = """
for place in ("/tmp", "/home/agent", "/dev/shm", "/dev/mqueue"):
    with contextlib.suppress(OSError):
        for number in range(200):
            with open(f"{place}/{T}{number}", "wb") as file:
                for _ in range(16):
                    file.write(bytes(1 << 20))
hold()
"""

    def over(scene: Scene) -> str:
        kept = [_size(pathlib.Path(f"/proc/{scene.box.first}/root{place}"), scene.mark) for place in ("/tmp", "/home/agent", "/dev/shm", "/dev/mqueue")]
        taken = _memory_of(scene) + sum(kept)
        return f"{taken // MIB} MiB taken" if taken > scene.box.description["memory"] + 64 * MIB else ""

    return _bomb(scene, script, over)


def _size(folder: pathlib.Path, mark: str) -> int:
    """Return the bytes that the files in *folder* with the *mark* take."""
    return sum(path.lstat().st_blocks * 512 for path in folder.glob(f"{mark}*")) if folder.is_dir() else 0


@case("fill the disk by the working set, in files of every kind", "cap on the working set")
def disk(scene: Scene) -> str:
    image = pathlib.Path(scene.box.working_set.image)
    before = image.stat().st_blocks * 512
    script = """
os.chdir("/workspace")
for number in range(6):
    with contextlib.suppress(OSError):
        file = os.open(f"{T}{number}", os.O_CREAT | os.O_WRONLY, 0o600)
        os.posix_fallocate(file, 0, 100 << 20)
with contextlib.suppress(OSError):
    with open(T + "w", "wb") as file:
        for _ in range(100):
            file.write(bytes(1 << 20))
hold()
"""

    def over(scene: Scene) -> str:
        # Its files, and what the image that should hold them has grown by: a thing of the host's own disk.
        taken = _size(scene.lies, scene.mark)
        grown = image.stat().st_blocks * 512 - before
        cap = scene.box.description["working_set"]
        return f"it has {taken // MIB} MiB of {cap // MIB}, its image grew by {grown // MIB}" if taken > cap or grown > 16 * MIB else ""

    try:
        return _bomb(scene, script, over)
    finally:
        scene.box.emptied(scene.mark)


@case("fill the disk's table of files with empty ones", "cap on the working set")
def inodes(scene: Scene) -> str:
    script = """
os.makedirs("/workspace/" + T)
os.chdir("/workspace/" + T)
end = time.monotonic() + 3
with contextlib.suppress(OSError):
    number = 0
    while time.monotonic() < end:
        os.close(os.open(str(number), os.O_CREAT | os.O_WRONLY, 0o600))
        number += 1
hold()
"""

    def over(scene: Scene) -> str:
        folder = scene.lies / scene.mark
        made = len(os.listdir(folder)) if folder.exists() and folder.stat().st_dev == scene.arena.folder.stat().st_dev else 0
        return f"{made} files on the host's own disk" if made > 500 else ""

    try:
        return _bomb(scene, script, over)
    finally:
        scene.box.emptied(scene.mark)


@case("write and synchronise without end", long=True)
def synchronise(scene: Scene) -> str:
    script = """
for number in range(4):
    if os.fork() == 0:
        with open(f"/workspace/{T}{number}", "wb", buffering=0) as file:
            while True:
                file.seek(0)
                file.write(os.urandom(1 << 20) * 8)
                call('sync')
                os.fsync(file.fileno())
hold()
"""
    try:
        return _bomb(scene, script, seconds=5)
    finally:
        scene.box.emptied(scene.mark)


@case("take all inotify instances and watches of its user", "uid of its own")
def inotify(scene: Scene) -> str:
    script = """
keep = []
with contextlib.suppress(OSError):
    while True:
        keep.append(libc.inotify_init())
        if keep[-1] < 0:
            break
hold()
"""
    return _bomb(scene, script, neighbour="import ctypes; assert ctypes.CDLL(None).inotify_init() >= 0")


@case("take all timers and pending signals of its user", "uid of its own")
def timers(scene: Scene) -> str:
    script = """
timer = ctypes.c_void_p()
for _ in range(200000):
    if libc.timer_create(1, None, ctypes.byref(timer)) != 0:
        break
hold()
"""
    return _bomb(scene, script, neighbour="import ctypes; assert ctypes.CDLL(None).timer_create(1, None, ctypes.byref(ctypes.c_void_p())) == 0")


@case("take all pages of pipes, watches of epoll and message queues of its user")
def kernel_objects(scene: Scene) -> str:
    script = """
import select
keep = []
for _ in range(400):
    with contextlib.suppress(OSError):
        keep += os.pipe()
        fcntl.fcntl(keep[-1], 1031, 1 << 20)
ends = [select.epoll() for _ in range(40)]
for end in ends:
    for fd in keep:
        with contextlib.suppress(OSError):
            end.register(fd)
for number in range(300):
    if libc.mq_open(b"/%d" % number, os.O_CREAT | os.O_RDWR, 0o600, None) < 0:
        break
hold()
"""
    code = """
import ctypes, fcntl, os
assert fcntl.fcntl(os.pipe()[1], 1031, 1 << 20) == 1 << 20
assert ctypes.CDLL(None).mq_open(b"/theirs", os.O_CREAT | os.O_RDWR, 0o600, None) >= 0
"""
    return _bomb(scene, script, neighbour=code)


@case("open every file that the kernel lets it")
def open_files(scene: Scene) -> str:
    script = """
for _ in range(100):
    with contextlib.suppress(OSError):
        if os.fork() == 0:
            with contextlib.suppress(OSError):
                while True:
                    os.open("/dev/null", os.O_RDONLY)
            time.sleep(30)
            os._exit(0)
time.sleep(2)
hold()
"""
    return _bomb(scene, script, neighbour="keep = [open('/dev/null') for _ in range(500)]")


@case("take all pseudo-terminals", "terminals of its own")
def terminals(scene: Scene) -> str:
    script = """
full, mine = os.pipe()
for _ in range(8):
    if os.fork() == 0:
        os.close(full)
        with contextlib.suppress(OSError):
            while True:
                os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY)
        os.close(mine)
        time.sleep(30)
        os._exit(0)
os.close(mine)
os.read(full, 1)
hold()
"""
    return _bomb(scene, script, neighbour="import os; os.openpty()")


@case("have loopback connections hold memory that no cap counts", "cap on sockets")
def sockets(scene: Scene) -> str:
    def pages() -> int:
        words = pathlib.Path("/proc/net/sockstat").read_text(encoding="ascii").split()
        return int(words[words.index("mem") + 1]) * os.sysconf("SC_PAGE_SIZE")

    before = pages()
    script = """
server = socket.create_server(("127.0.0.1", 0), backlog=600)
keep = []
with contextlib.suppress(OSError):
    for _ in range(300):
        one = socket.create_connection(server.getsockname())
        keep += [one, server.accept()[0]]
        one.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                one.send(bytes(1 << 18))
hold()
"""

    def over(scene: Scene) -> str:
        taken = pages() - before
        return f"{taken // MIB} MiB beside its memory" if taken > scene.box.description["memory"] // 2 else ""

    return _bomb(scene, script, over if tcp_limit(scene.box).exists() else lambda _scene: "")


@case("send descriptors in circles, which the kernel clears up for all")
def descriptors_in_flight(scene: Scene) -> str:
    script = """
import array
end = time.monotonic() + 3
while time.monotonic() < end:
    keep = []
    with contextlib.suppress(OSError):
        for _ in range(200):
            one, other = socket.socketpair()
            keep += [one, other]
            one.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [one.fileno(), other.fileno()] * 20))])
print("HOLD", flush=True)
time.sleep(20)
"""
    return _bomb(scene, script)


@case("look for names that are not there, without end", long=True)
def names(scene: Scene) -> str:
    script = "print('HOLD', flush=True)\nnumber = 0\nwhile True:\n number += 1\n with contextlib.suppress(OSError): os.stat(f'/tmp/{number:0200}')\n"
    return _bomb(scene, script)


@case("burn all processors")
def processors(scene: Scene) -> str:
    return _bomb(scene, "for _ in range(16):\n if os.fork() == 0: break\nprint('HOLD', flush=True)\nwhile True: pass\n")


@case("write without end to its output and to that of its first process")
def output(scene: Scene) -> str:
    script = """
print("HOLD", flush=True)
with contextlib.suppress(OSError):
    if os.fork() == 0:
        with open("/proc/1/fd/1", "wb", buffering=0) as file:
            while True:
                file.write(b"y" * 65536)
while True:
    os.write(1, b"x\\n" * 32768)
"""
    with scene.attack(script) as attack:
        found = _neighbour(scene, 4)
        attack.close()
    return found
