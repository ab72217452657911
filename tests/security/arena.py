# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the battery takes place: real sandboxes that the core makes on this machine's engine, apart from the host's own.

What an attack may reach is laid out around them: a program, files, sockets and a neighbour, each with a secret of its own.
"""

from __future__ import annotations

import collections.abc
import contextlib
import ctypes
import dataclasses
import fcntl
import glob
import hashlib
import json
import os
import pathlib
import secrets
import shutil
import socket
import subprocess
import sys
import threading
import time
import types
import typing as t

from ansible_collections.dockersandbox.guardrails.plugins.module_utils import manifest, mounts, network, run, sandboxes, seal, services, spec, stack, workset
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.docker_api import SOCKET, Docker, DockerError, Stream
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.places import DATA, Places
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.sandboxes import Host
from security.outside import Outside

ROOT = pathlib.Path(__file__).resolve().parents[2]
PREFIX = "sec-"
# Another label than the host's own sandboxes have: a play or a run beside the battery must not take ours for strays.
LABEL = "dockersandbox.security"
FIRST_UID = 993000
SHAPE = {"memory": "256m", "pids": 128, "open_files": 1024, "file_size": "256m", "tmp_size": "16m", "home_size": "16m", "working_set": "300m"}

Body = dict[str, t.Any]


@dataclasses.dataclass(frozen=True)
class Weakening:
    """One protection taken away: from the *body* of the engine's create call, the *shape*, or once the sandbox is there.

    Or it is in what the *host* does: a module of the core, a name in it, and what stands there instead. Those without
    any of them are known by name to the case that asks for them.
    """

    name: str
    body: t.Callable[[Body, Arena], None] | None = None
    shape: t.Mapping[str, t.Any] | None = None
    after: t.Callable[[Box], None] | None = None
    host: tuple[types.ModuleType, str, t.Any] | None = None
    neighbour: t.Callable[[Body, Arena], None] | None = None  # what the other sandbox must lack for it


class Engine(Docker):
    """The engine, which makes sandboxes with a label of ours and without the protections that *change* takes away."""

    def __init__(self, change: t.Callable[[Body], None] = lambda _body: None, label: str = LABEL) -> None:
        super().__init__(os.environ.get("DOCKER_HOST", f"unix://{SOCKET}").removeprefix("unix://"))
        self._change = change
        self._label = label

    def create(self, name: str, config: Body) -> str:
        """Create a container as told, but for what it is to lack; the container of a tool lacks nothing."""
        sandbox = config["Labels"][stack.LABEL] == "sandbox"
        config["Labels"] = {key.replace(stack.LABEL, self._label): value for key, value in config["Labels"].items()}
        if sandbox:
            self._change(config)
        return super().create(name, config)

    def containers(self, *labels: str) -> list[dict[str, t.Any]]:
        """Return containers as they were asked for: what is the host's own is no stray of ours."""
        found = super().containers(*(label.replace(stack.LABEL, self._label) for label in labels))
        for item in found:
            item["Labels"] = {key.replace(self._label, stack.LABEL): value for key, value in item["Labels"].items()}
        return found


# What each attack can lean on. `T` is what it may plant, the rest is in its environment.
PRELUDE = """
import base64, contextlib, ctypes, errno, fcntl, glob, mmap, os, signal, socket, stat, struct, subprocess, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)
E = os.environ
T = E["T"]
N = NUMBERS
def call(name, *given):
    made = [ctypes.c_long(one) if isinstance(one, int) else one for one in given]
    result = libc.syscall(ctypes.c_long(N[name]), *made)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
def attempt(*acts):
    for act in acts:
        try:
            return act()
        except Exception as error:
            print(type(error).__name__, error, flush=True)
def hold():
    print("HOLD", flush=True)
    sys.stdin.read()
"""
# x86-64, then aarch64; one number where both have the same.
_NUMBERS: dict[str, int | tuple[int, int]] = {
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "unshare": (272, 97), "setns": (308, 268),
    "clone": (56, 220), "clone3": 435, "open_tree": 428, "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432,
    "mount_setattr": 442, "io_uring_setup": 425, "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    "add_key": (248, 217), "keyctl": (250, 219), "ptrace": (101, 117), "fanotify_init": (300, 262), "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265), "personality": (135, 92), "syslog": (103, 116), "mknodat": (259, 33), "renameat2": (316, 276),
    "io_setup": (206, 0), "memfd_create": (319, 279), "clock_settime": (227, 112), "sethostname": (170, 161), "socket": (41, 198),
    "setresuid": (117, 147), "capset": (126, 91), "sync": (162, 81), "prlimit64": (302, 261), "mmap": (9, 222), "shmget": (29, 194),
    "pidfd_open": 434, "openat2": 437, "ioctl": (16, 29), "timer_create": (222, 107), "timer_settime": (223, 110), "kill": (62, 129),
}  # fmt: skip
_ARCHITECTURE = 0 if os.uname().machine == "x86_64" else 1
NUMBERS = {name: number[_ARCHITECTURE] if isinstance(number, tuple) else number for name, number in _NUMBERS.items()}


class Attack:
    """A program that goes on inside a sandbox: what it has said, and a way to let it end."""

    def __init__(self, box: Box, script: str, environment: t.Mapping[str, str]) -> None:
        code = PRELUDE.replace("NUMBERS", repr(NUMBERS)) + script
        config: Body = {
            "Cmd": box.host.command(box.description, ["python3", "-c", code]),
            "AttachStdin": True,
            "AttachStdout": True,
            "AttachStderr": True,
            "Env": [f"{key}={value}" for key, value in environment.items()],
        }
        self._engine = box.host.docker
        self.id = self._engine.exec_create(box.container, config)
        self._stream: Stream = self._engine.exec_start(self.id, False)
        self.said = b""
        self.total = 0
        self._news = threading.Condition()
        self.ended = False
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            while chunk := self._stream.read():
                with self._news:
                    self.total += len(chunk[1])
                    self.said += chunk[1][: max(0, (1 << 22) - len(self.said))]
                    self._news.notify_all()
        with self._news:
            self.ended = True
            self._news.notify_all()

    def wait(self, seconds: float, until: bytes = b"HOLD\n") -> bool:
        """Wait until it has said *until* or ended; return whether it did either in time."""
        with self._news:
            return self._news.wait_for(lambda: self.ended or until in self.said, seconds)

    def let_go(self) -> None:
        """End its input, on which it waits while it holds what it has got."""
        self._stream.close_write()

    def close(self) -> None:
        """Listen no more."""
        # First: whoever is reading holds the stream's own lock.
        self._stream.cut()
        self._stream.close()


class Listener:
    """Ends of the host that an attack must not reach, TCP and an abstract socket; *hits* is what arrived."""

    def __init__(self) -> None:
        self.hits: list[str] = []
        self._tcp = socket.create_server(("127.0.0.1", 0))
        self.port = self._tcp.getsockname()[1]
        self.abstract = f"security-{secrets.token_hex(6)}"
        self._abstract = socket.socket(socket.AF_UNIX)
        self._abstract.bind(f"\0{self.abstract}")
        self._abstract.listen()
        for word, end in (("TCP", self._tcp), ("abstract socket", self._abstract)):
            threading.Thread(target=self._accept, args=(word, end), daemon=True).start()

    def _accept(self, word: str, end: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                end.accept()[0].close()
                self.hits.append(word)

    def close(self) -> None:
        """Listen no more."""
        for end in (self._tcp, self._abstract):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


class Box:
    """One sandbox: where it is on the host, and what the host sees of it."""

    def __init__(self, arena: Arena, host: Host, name: str, description: stack.Description) -> None:
        self.arena = arena
        self.host = host
        self.name = name
        self.of = name.partition(".")[0]
        self.description = description
        self.runtime = stack.runtime(description)
        self.container = stack.container_name(name)
        self.working_set = t.cast(workset.WorkingSet, host.working_set(name, description))
        self.lacking = self.differences()  # what was taken away on purpose

    @property
    def uid(self) -> int:
        """Its uid, inside and on the host."""
        return int(self.description["uid"])

    @property
    def upper(self) -> pathlib.Path:
        """Its changes, as they lie on the host."""
        return pathlib.Path(self.working_set.upper)

    @property
    def folder(self) -> pathlib.Path:
        """What the host keeps of it."""
        return pathlib.Path(self.arena.places.sandbox(self.name))

    @property
    def inspected(self) -> Body:
        """What the engine knows of it."""
        found = self.host.docker.inspect(self.container)
        assert found is not None
        return found

    @property
    def first(self) -> int:
        """The pid on the host of its first process."""
        return int(self.inspected["State"]["Pid"])

    def cgroups(self) -> dict[str, pathlib.Path]:
        """Return where its control groups are on the host: controller → folder, "" for the one of version 2."""
        mounted = [mount for mount in mounts.mounted() if mount.kind in ("cgroup", "cgroup2")]
        found = {}
        with open(f"/proc/{self.first}/cgroup", encoding="ascii") as file:
            lines = [line.rstrip("\n").split(":", 2) for line in file]
        for _number, controllers, path in lines:
            for mount in mounted:
                if mount.shared >= set(controllers.split(",")) if controllers else mount.kind == "cgroup2":
                    # The mount may show a part of the hierarchy alone, as it does on a machine that is a container itself.
                    folder = pathlib.Path(mount.point + path.removeprefix(mount.root.rstrip("/")))
                    found.update(dict.fromkeys(controllers.split(","), folder))
        return {word: folder for word, folder in found.items() if folder.is_dir()}

    def processes(self) -> list[int]:
        """Return the pids on the host of everything in its cgroup, the runtime's own processes too."""
        mark = self.inspected["Id"]
        found = []
        for folder in glob.glob("/proc/[0-9]*"):
            with contextlib.suppress(OSError):
                if mark in pathlib.Path(folder, "cgroup").read_text(encoding="utf-8"):
                    found.append(int(folder.rpartition("/")[2]))
        return sorted(found)

    def links(self, what: str) -> set[str]:
        """Return where the links ``fd/*``, ``ns/*``, ``root`` or ``exe`` of its processes lead."""
        found = set()
        for pid in self.processes():
            for link in glob.glob(f"/proc/{pid}/{what}"):
                with contextlib.suppress(OSError):
                    found.add(os.readlink(link))
        return found

    def mounts(self) -> set[str]:
        """Return the lines of all the mount tables of its processes."""
        found = set()
        for pid in self.processes():
            with contextlib.suppress(OSError):
                found |= set(pathlib.Path(f"/proc/{pid}/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines())
        return found

    def status(self, key: str) -> set[str]:
        """Return the values of *key* in ``/proc/PID/status`` of all its processes."""
        found = set()
        for pid in self.processes():
            with contextlib.suppress(OSError):
                lines = pathlib.Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
                found |= {line.partition(":")[2].strip() for line in lines if line.startswith(f"{key}:")}
        return found

    def sockets(self) -> set[tuple[int, int]]:
        """Return family and protocol of every socket that its processes have open, taken by descriptor and not by their word."""
        found = set()
        libc = ctypes.CDLL(None, use_errno=True)
        for pid in self.processes():
            handle = libc.syscall(ctypes.c_long(434), pid, 0)
            for link in glob.glob(f"/proc/{pid}/fd/*"):
                with contextlib.suppress(OSError):
                    if os.readlink(link).startswith("socket:"):
                        fd = libc.syscall(ctypes.c_long(438), handle, int(link.rpartition("/")[2]), 0)
                        if fd >= 0:
                            with socket.socket(fileno=fd) as one:
                                found.add((one.getsockopt(socket.SOL_SOCKET, 39), one.getsockopt(socket.SOL_SOCKET, 38)))
            if handle >= 0:
                os.close(handle)
        return found

    def sweep(self) -> None:
        """End all that goes on in it, as the end of a run does."""
        if self.inspected["HostConfig"]["PidMode"]:
            # Ending "all that it sees" would end the host.
            self.host.docker.kill(self.container)
            self.host.docker.stop(self.container)
            self.restart()
        else:
            run.sweep(self.host, self.name, self.description)

    def differences(self) -> list[str]:
        """Return what keeps it from running as described, a reason each."""
        return self.host.differences(self.name, self.description)

    def restart(self) -> None:
        """Make it run again as it was made, as the beginning of a run does."""
        if [reason for reason in self.differences() if reason not in self.lacking]:
            self.host.bring_up(self.name, self.description, self.differences())

    def emptied(self, mark: str) -> None:
        """Remove what an attack has left in the working set under names that begin with *mark*."""
        code = f"import glob, subprocess; subprocess.run(['rm', '-rf', *glob.glob('/workspace/{mark}*')])"
        self.host.execute(self.name, self.description, ["python3", "-c", code], timeout=60)

    def answers(self, argv: t.Sequence[str] = ("true",), seconds: float = 20) -> float:
        """Return how many seconds a command takes in it; *seconds* when it does not come back or fails."""
        start = time.monotonic()
        try:
            code, _said = self.host.execute(self.name, self.description, argv, timeout=seconds)
        except DockerError:
            return seconds
        return time.monotonic() - start if code == 0 else seconds


class Terminal:
    """The caller's side of a run: keeps what was said, sends signals when asked, and acts once it is *ready*."""

    tty = False
    stdin = False

    def __init__(self) -> None:
        self.said = b""
        self.send_signal: t.Callable[[str], None] = lambda _word: None
        self.act: t.Callable[[], t.Any] = lambda: None
        self.stopped = False

    def start(self, stream: Stream, resize: t.Callable[[int, int], None], send_signal: t.Callable[[str], None]) -> None:
        """Take the way to send signals."""
        self.send_signal = send_signal

    def write(self, kind: int, data: bytes) -> None:
        """Keep some of what was said."""
        if b"ready" in data:
            self.act()
        self.said += data[: max(0, (1 << 20) - len(self.said))]

    def stop(self) -> None:
        """From here on no signal is passed on."""
        self.stopped = True


class Arena:
    """The host of the battery's sandboxes, and what lies on the machine to be stolen or broken."""

    neighbour: Box

    def __init__(self, word: str = "security", prefix: str = PREFIX, first_uid: int = FIRST_UID) -> None:
        """Lay it out; *word*, *prefix* and *first_uid* keep two of them apart that are there at once."""
        self.label, self.prefix, self.first_uid, self.run = f"dockersandbox.{word}", prefix, first_uid, f"/run/dockersandbox-{word}"
        # On the disk where working sets lie: a test machine may have its temporary folder on an overlay.
        above = DATA if os.path.isdir(DATA) else "/var/lib"
        self.folder = pathlib.Path(above, f".{word}-battery")
        self.secret = secrets.token_hex(12)
        self.clear()
        self.folder.mkdir(mode=0o755, parents=True)
        self.places = Places(str(self.folder / "home"), str(self.folder / "data"), self.run)
        self.engine = Engine(label=self.label)
        # In a folder of its own: a reader that follows links takes all that is there.
        self.file = self.folder / "kept" / "secret.txt"
        self.file.parent.mkdir()
        self.file.write_text(f"{self.secret}\n", encoding="ascii")
        self.tree = self._tree(self.folder / "tree")
        subprocess.run(["cp", "-a", str(self.tree), str(self.folder / "pristine")], check=True)
        self.digest = manifest.build(self.tree).digest
        self.plain = self.folder / "plain"  # a folder that no cap holds
        self.plain.mkdir()
        self.plain.chmod(0o777)
        self.boxes: set[str] = set()
        self.listener = Listener()
        self.new_canary()
        self._prepare()
        self.outside = Outside(pathlib.Path(services.run_folder(self.places, network.SERVICE)), [PREFIX + runtime for runtime in stack.RUNTIMES])
        self.before = self.state()

    # -- what is there to be attacked

    def restore_tree(self) -> None:
        """Put the originals back, each file in its place: sandboxes stand on them."""
        pristine = self.folder / "pristine"
        for folder, folders, names in os.walk(self.tree, topdown=False):
            for name in (*names, *folders):
                path = pathlib.Path(folder, name)
                if not os.path.lexists(pristine / path.relative_to(self.tree)):
                    path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
        subprocess.run(["cp", "-a", f"{pristine}/.", str(self.tree)], check=True)
        assert manifest.build(self.tree).digest == self.digest

    def copy(self, name: str) -> pathlib.Path:
        """Return a copy of the originals, as they were at first, in a folder of this name."""
        subprocess.run(["cp", "-a", str(self.folder / "pristine"), str(self.folder / name)], check=True)
        return self.folder / name

    @staticmethod
    def _tree(folder: pathlib.Path) -> pathlib.Path:
        (folder / "data" / "deep").mkdir(parents=True)
        (folder / "README.md").write_text("One.\nTwo.\nThree.\n", encoding="ascii")
        (folder / "data" / "numbers.csv").write_text("".join(f"{number}\n" for number in range(500)), encoding="ascii")
        (folder / "data" / "deep" / "blob").write_bytes(bytes(range(256)) * 64)
        (folder / "tool").write_text("#!/bin/sh\necho tool\n", encoding="ascii")
        (folder / "tool").chmod(0o755)
        (folder / "twin").hardlink_to(folder / "data" / "numbers.csv")
        (folder / "link").symlink_to("data/numbers.csv")
        # Set-id for root, and for all to run: what it is in a sandbox must be no more than its user.
        shutil.copy("/bin/dash" if os.path.exists("/bin/dash") else "/bin/sh", folder / "root-shell")
        (folder / "root-shell").chmod(0o6755)
        return folder

    def new_canary(self) -> None:
        """Start the program of the host whose environment and arguments are secrets, and which must go on."""
        code = "import sys; sys.stdin.read()"
        environment = {"PATH": os.environ["PATH"], "CANARY": self.secret}
        self.canary = subprocess.Popen([sys.executable, "-c", code, f"canary-{self.secret}"], env=environment, stdin=subprocess.PIPE)

    def _prepare(self) -> None:
        home = pathlib.Path(self.places.home)
        for folder in (home / "configs" / "stack.d", home / ".state" / "keys", pathlib.Path(self.places.empty)):
            folder.mkdir(parents=True)
        shutil.copy(ROOT / "configs" / "seccomp.json", self.places.seccomp)
        seal.ensure_key(self.places.host_key)
        workset.ensure_run(self.places)
        # No uid that the host's own sandboxes have: the table seems to have given all below ours.
        taken = {f"host-{uid}": uid for uid in range(sandboxes.FIRST_UID, self.first_uid)}
        pathlib.Path(self.places.uids).write_text(json.dumps(taken), encoding="ascii")
        # One is declared for each runtime and never made: what is attacked are throw-away sandboxes of its shape.
        boxes = [{"name": self.prefix + runtime, "runtime": runtime, "originals": str(self.tree), **SHAPE} for runtime in stack.RUNTIMES]
        declared = spec.parse(boxes, ["generic"])
        uids = {one.name: (self.first_uid, self.first_uid) for one in declared}
        sets = {one.name: workset.WorkingSet(self.places, one.name, str(self.tree), self.first_uid, self.first_uid, one.working_set) for one in declared}
        part = sandboxes.env_part(declared, {"generic": self._image()}, uids, self.places, {})
        parts = {"env": part, "network": network.part(sets, self.places, {}), "fs": {"sandboxes": {name: one.part() for name, one in sets.items()}}}
        for phase, content in parts.items():
            sandboxes.author([sandboxes.part_file(self.places, phase, content)])

    def _image(self) -> str:
        """Return the image of the host's own sandboxes; else the newest that a play has built on this engine."""
        own = [description["image"] for description in sandboxes.read_stack(Places()).values()]
        images = self.engine.call("GET", "/images/json")
        made = [image["Id"] for image in sorted(images, key=lambda one: -one["Created"]) if any("/generic:" in tag for tag in image["RepoTags"] or ())]
        there = [image for image in [*own, *made] if self.engine.image(image)]
        assert there, "there is no image of a sandbox on this engine: run `make site` first"
        return str(there[0])

    # -- sandboxes

    def runtimes(self) -> dict[str, bool]:
        """Return the runtimes that sandboxes may have, and whether this engine has each."""
        known = self.engine.call("GET", "/info")["Runtimes"]
        return {name: word in known for name, word in stack.RUNTIMES.items()}

    @contextlib.contextmanager
    def sandbox(self, runtime: str = "runc", without: t.Sequence[Weakening] = ()) -> collections.abc.Iterator[Box]:
        """Yield a sandbox that the core has made over the tree, *without* some of its protections."""

        def change(body: Body) -> None:
            for one in without:
                if one.body:
                    one.body(body, self)

        host = Host(Engine(change, self.label), self.places)
        shape = sandboxes.read_stack(self.places)[self.prefix + runtime]
        for one in without:
            shape = {**shape, **(one.shape or {})}
        with run.throwaway(host, self.prefix + runtime, shape, str(self.tree)) as (name, description):
            box = Box(self, host, name, description)
            self.boxes.add(name)
            for one in without:
                if one.after:
                    one.after(box)
            yield box
        self.boxes.discard(name)

    # -- what the host looks like

    def state(self) -> dict[str, str]:
        """Return what no attack may change: a word for what it is → its value now."""
        found = {"originals": manifest.build(self.tree).digest, "secret file": self.file.read_text(encoding="ascii")}
        for path in ("kernel/core_pattern", "kernel/hostname", "kernel/modprobe", "kernel/sysrq", "vm/overcommit_memory", "fs/suid_dumpable"):
            found[path] = _read(f"/proc/sys/{path}")
        for path in ("/sys/kernel/uevent_helper", *sorted(glob.glob("/sys/fs/cgroup/*/release_agent"))):
            found[path] = _read(path)
        for path in ("/usr/bin/runc", "/usr/sbin/runc", "/usr/bin/runsc", "/usr/bin/docker"):
            found[path] = hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest() if os.path.exists(path) else ""
        found["canary"] = "alive" if self.canary.poll() is None else "dead"
        found["binfmt_misc"] = " ".join(sorted(os.listdir("/proc/sys/fs/binfmt_misc")))
        found["hits"] = " ".join(self.listener.hits)
        # The difference between the clocks moves when one of them is set.
        found["clock"] = f"{(time.time() - time.monotonic()) / 2:.0f}"
        return found

    def harm(self) -> str:
        """Return what an attack changed on the host since the last look, "" when nothing."""
        now = self.state()
        changed = [word for word, value in now.items() if value != self.before[word]]
        self.before = now
        return f"changed on the host: {', '.join(changed)}" if changed else ""

    def clear(self) -> None:
        """Remove what there is of the battery, also what an earlier one left that was killed."""
        engine = Engine(label=self.label)
        for item in engine.containers(self.label):
            engine.remove(item["Id"])
        for volume in engine.call("GET", "/volumes")["Volumes"] or ():
            if volume["Name"].startswith(stack.container_name(self.prefix)):
                engine.remove_volume(volume["Name"])
        for mount in reversed(mounts.mounted()):
            if mount.point.startswith((str(self.folder), self.run)):
                mounts.unmount(mount.point)
        subprocess.run(["rm", "-rf", str(self.folder), self.run], check=True)

    def close(self) -> None:
        """End the program and sockets of the host, and remove everything."""
        self.canary.kill()
        self.canary.wait()
        self.listener.close()
        self.outside.close()
        self.clear()


def _read(path: str) -> str:
    try:
        return pathlib.Path(path).read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def locked(path: pathlib.Path) -> bool:
    """Whether somebody holds a lock on the file *path*."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False
