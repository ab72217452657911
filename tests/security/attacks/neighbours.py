# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Another sandbox on the same host: its files, memory, sockets and processes."""

from __future__ import annotations

from security.cases import Scene, case

PATHS = "/workspace/secret /home/agent/secret /tmp/secret /dev/shm/secret"


def _theirs(scene: Scene, script: str) -> str:
    other = scene.neighbour
    paths = [f"{other.upper}/secret", f"/var/lib/docker/volumes/{other.container}-workspace/_data/secret", *PATHS.split()]
    # What the other keeps: files, shared memory, sockets, a program's environment.
    with scene.attack(KEEP.replace("SECRET", repr(scene.mark)), box=other) as keeper:
        assert b"HOLD" in keeper.said, keeper.said
        said = scene.said(script, more={"SECRET_PATHS": " ".join(paths), "T": "none"})
    return "the neighbour's secret was printed" if scene.mark in said else ""


KEEP = """
secret = SECRET.encode()
for path in ("/workspace/secret", "/home/agent/secret", "/tmp/secret", "/dev/shm/secret"):
    with open(path, "wb") as file:
        file.write(secret)
    os.chmod(path, 0o666)
libc.shmat.restype = ctypes.c_void_p
number = libc.shmget(4242, 4096, 0o1666)
if number >= 0:
    ctypes.memmove(libc.shmat(number, None, 0), secret, len(secret))
def serve(one):
    one.listen()
    while True:
        one.accept()[0].sendall(secret)
ends = [socket.socket(socket.AF_UNIX), socket.socket()]
ends[0].bind("\\0neighbour")
ends[1].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
ends[1].bind(("127.0.0.1", 4242))
for one in ends:
    threading.Thread(target=serve, args=(one,), daemon=True).start()
keep = subprocess.Popen(["sleep", "60"], env={"SECRET": SECRET})
hold()
if number >= 0:
    libc.shmctl(number, 0, None)
"""


@case("read the other's working set, home and memory by path", "ipc of its own")
def files(scene: Scene) -> str:
    return _theirs(
        scene,
        """
for path in (*E["SECRET_PATHS"].split(), *glob.glob("/dev/shm/*"), *glob.glob("/dev/mqueue/*"), *glob.glob("/tmp/*")):
    with contextlib.suppress(OSError):
        print(open(path).read(), flush=True)
""",
    )


@case("attach the other's shared memory and queues of System V", "ipc of its own")
def system_v(scene: Scene) -> str:
    return _theirs(
        scene,
        """
libc.shmat.restype = ctypes.c_void_p
for key in range(4242, 4246):
    number = libc.shmget(key, 0, 0)
    if number >= 0:
        where = libc.shmat(number, None, 0o10000)
        if where not in (None, ctypes.c_void_p(-1).value):
            print(ctypes.string_at(where, 64))
""",
    )


@case("connect to the other's abstract sockets and loopback", "network of its own")
def sockets(scene: Scene) -> str:
    return _theirs(
        scene,
        """
def ask(kind, where):
    with socket.socket(kind) as one:
        one.settimeout(2)
        one.connect(where)
        print(one.recv(99), flush=True)
attempt(lambda: ask(socket.AF_UNIX, "\\0neighbour"))
attempt(lambda: ask(socket.AF_INET, ("127.0.0.1", 4242)))
""",
    )


@case("read the other's processes", "processes of its own + uid of its own + seccomp")
def processes(scene: Scene) -> str:
    return _theirs(
        scene,
        """
for path in glob.glob("/proc/[0-9]*/environ") + glob.glob("/proc/[0-9]*/cmdline"):
    with contextlib.suppress(OSError):
        print(open(path, "rb").read(), flush=True)
""",
    )


@case("see what the other opens, by inotify on what both have")
def watches(scene: Scene) -> str:
    script = """
import select
watch = libc.inotify_init()
for path in (b"/usr/bin", b"/etc", b"/etc/passwd", b"/originals", b"/usr/bin/true"):
    libc.inotify_add_watch(watch, path, 0xfff)
print("HOLD", flush=True)
sys.stdin.read()
if select.select([watch], [], [], 0)[0]:
    print("event", os.read(watch, 4096))
"""
    with scene.attack(script) as attack:
        for _round in range(3):
            scene.neighbour.answers(["cat", "/etc/passwd", "/originals/README.md", "/usr/bin/true"])
        attack.let_go()
        attack.wait(5, b"\0never\0")
        return "it sees the other's reads" if b"event" in attack.said else ""


@case("take the lock that the other waits for, on what both have")
def locks(scene: Scene) -> str:
    script = """
keep = [os.open(path, os.O_RDONLY) for path in ("/etc/passwd", "/usr/bin/true", "/originals/README.md", "/workspace/tool")]
for one in keep:
    attempt(lambda: fcntl.flock(one, fcntl.LOCK_EX | fcntl.LOCK_NB))
hold()
"""
    code = "import fcntl\nfor path in ('/etc/passwd', '/usr/bin/true', '/originals/README.md'): fcntl.flock(open(path), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    with scene.attack(script):
        return "" if scene.neighbour.answers(["python3", "-c", code]) < 10 else "the other cannot lock"
