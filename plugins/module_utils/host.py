# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a host is fit for sandboxes: :func:`gather` looks, :func:`unmet` judges without looking.

Sources: cgroups(7), proc_filesystems(5), mount_setattr(2), seccomp(2), Docker Engine API 1.41.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import fcntl
import glob
import json
import os
import platform
import shutil
import sys
import tempfile
import time
import typing as t
from pathlib import Path

from ansible_collections.dockersandbox.guardrails.plugins.module_utils import atomic, gvisor, lock, mounts
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.docker_api import SOCKET, Docker, DockerError

ENGINE_CONFIG = "/etc/docker/daemon.json"
SUPERVISOR_LOCK = "/run/dockerd-supervised.lock"

TESTED = {"debian": ("12", "13")}
MACHINES = ("x86_64", "aarch64")
KERNEL = (5, 12)
PYTHON = (3, 11)
ENGINE = (20, 10)
CONTROLLERS = ("cpu", "memory", "pids")
WANTED_CONFIG: dict[str, t.Any] = {"live-restore": True}
# Only for who has not chosen a log driver: the engine's own default keeps everything for ever.
WANTED_LOGS: dict[str, t.Any] = {"log-driver": "local", "log-opts": {"max-size": "10m", "max-file": "3"}}

_TRIAL = ".guardrails-trial-"  # and the process whose it is
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_CLONE_NEWNS, _MS_REC, _MS_PRIVATE, _MS_NODEV, _MS_NOSUID = 0x00020000, 0x4000, 0x40000, 4, 2


@dataclasses.dataclass(frozen=True)
class Engine:
    """What is known of a Docker engine. *error* is why it does not answer, None when it does."""

    error: str | None
    version: str = ""
    live_restore: bool = False
    seccomp: bool = False
    runtimes: t.Mapping[str, t.Any] = dataclasses.field(default_factory=dict)
    root: str = "/var/lib/docker"


@dataclasses.dataclass(frozen=True)
class Space:
    """Free bytes where *path* is or will be."""

    path: str
    variable: str
    free: int


@dataclasses.dataclass(frozen=True)
class Facts:
    """A host as found. *overlay* and *idmap* are why a trial mount failed: None when it worked or was not tried."""

    system: str
    version: str
    title: str
    kernel: str
    machine: str
    python: tuple[int, int]
    uid: int
    cgroups: int
    controllers: frozenset[str]
    seccomp: frozenset[str]
    overlay: str | None
    idmap: str | None
    spaces: tuple[Space, ...]
    engine: Engine | None
    service_manager: str
    managed: bool
    packaged: bool
    config_problem: str | None


@dataclasses.dataclass(frozen=True)
class Wishes:
    """What the operator decided: the role's variables."""

    allow_untested_os: bool = False
    manage_engine: bool = False
    min_free_disk: int = 2 << 30
    engine_must_answer: bool = False
    gvisor: bool = False


def unmet(facts: Facts, wishes: Wishes) -> list[str]:
    """Return every need that *facts* does not meet: one line each, what, what was found, what to do. [] when fit."""
    return [*_system(facts, wishes), *_kernel(facts), *_spaces(facts, wishes), *_engine(facts, wishes)]


def _system(facts: Facts, wishes: Wishes) -> t.Iterator[str]:
    if facts.version not in TESTED.get(facts.system, ()) and not wishes.allow_untested_os:
        yield (
            f"operating system: this is {facts.title}, tested are Debian 12 and 13; use one of these, or set "
            "bootstrap_allow_untested_os: true"
        )
    if facts.uid != 0:
        yield f"user: the play runs as uid {facts.uid} on this host, it needs root; set ansible_become: true"
    if facts.python < PYTHON:
        yield (
            f"python: {facts.python[0]}.{facts.python[1]} runs the modules, 3.11 or later is needed; point "
            "ansible_python_interpreter at one"
        )


def _kernel(facts: Facts) -> t.Iterator[str]:
    old = numbers(facts.kernel) < KERNEL
    if facts.machine not in MACHINES:
        yield f"processor: this is {facts.machine}; the seccomp profile knows {' and '.join(MACHINES)} only"
    if old:
        yield f"kernel: {facts.kernel}, but idmapped mounts came with 5.12; install a newer kernel"
    if not facts.cgroups:
        yield "cgroups: no hierarchy is mounted at /sys/fs/cgroup; mount it (cgroup2, or package cgroupfs-mount)"
    else:
        # Version 2 freezes without a controller.
        wanted = {*CONTROLLERS, *(["freezer"] if facts.cgroups == 1 else [])}
        if missing := sorted(wanted - facts.controllers):
            yield (
                f"cgroups: version {facts.cgroups} without {', '.join(missing)}; enable the controller on the kernel's "
                "command line (cgroup_enable=), or mount it"
            )
    if facts.overlay is not None:
        yield (
            f"overlayfs: a trial mount at bootstrap_data failed ({facts.overlay}); load the module overlay, and point "
            "bootstrap_data at ext4 or XFS"
        )
    if facts.idmap is not None and not old:
        yield (
            f"idmapped mounts: a trial mount at bootstrap_data failed ({facts.idmap}); point bootstrap_data at ext4 or "
            "XFS"
        )
    if "errno" not in facts.seccomp:
        yield "seccomp: the kernel does not filter system calls; use one built with CONFIG_SECCOMP_FILTER"


def _spaces(facts: Facts, wishes: Wishes) -> t.Iterator[str]:
    for space in facts.spaces:
        if space.free < wishes.min_free_disk:
            yield (
                f"disk: {_mebibytes(space.free)} free at {space.path}, {_mebibytes(wishes.min_free_disk)} are wanted; "
                f"make room, or change bootstrap_min_free_disk or {space.variable}"
            )


def _engine(facts: Facts, wishes: Wishes) -> t.Iterator[str]:
    if facts.config_problem:
        yield facts.config_problem
    engine = facts.engine
    if engine is None:
        return
    if engine.error is not None:
        # An engine that is ours is started by the role.
        if wishes.engine_must_answer:
            yield engine.error
        elif not facts.managed:
            yield f"{engine.error}, or set bootstrap_manage_engine: true to have it started"
        return
    if numbers(engine.version) < ENGINE:
        yield f"Docker: the engine is {engine.version}; install 20.10 or later"
    if not engine.seccomp:
        yield "Docker: the engine was built without seccomp; install your distribution's package"
    if not engine.live_restore and (wishes.engine_must_answer or not facts.managed):
        yield (
            f"Docker: live-restore is off, so sandboxes would outlive an engine that cannot find them again; add "
            f'"live-restore": true to {ENGINE_CONFIG} and reload the engine, or set bootstrap_manage_engine: true'
        )
    problem = gvisor.runtime_problem(engine.runtimes) if wishes.gvisor else None
    if problem and (wishes.engine_must_answer or not facts.managed):
        yield (
            f"gVisor: a sandbox asks for it, but {problem}; add one with the arguments {' '.join(gvisor.ARGUMENTS)} to "
            f"{ENGINE_CONFIG} and reload the engine, or set bootstrap_manage_engine: true"
        )


def numbers(version: str) -> tuple[int, int]:
    """Return the first two numbers of a version such as ``6.18.44-fc`` or ``20.10.24+dfsg1``; (0, 0) without any."""
    found = []
    for part in version.split(".")[:2]:
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        found.append(int(digits or 0))
    return (found[0], found[1]) if len(found) == 2 else (found[0], 0)


def engine_config(existing: t.Mapping[str, t.Any], with_gvisor: bool) -> dict[str, t.Any]:
    """Return the engine's configuration with what sandboxes need; what the operator has set besides stays."""
    logs = {} if "log-driver" in existing or "log-opts" in existing else WANTED_LOGS
    runtimes = {"runtimes": {**existing.get("runtimes", {}), gvisor.PACKAGE: gvisor.RUNTIME}} if with_gvisor else {}
    return {**existing, **logs, **runtimes, **WANTED_CONFIG}


def configured(engine: Engine, wishes: Wishes) -> bool:
    """Tell whether an engine works with what its configuration should hold."""
    return engine.live_restore and not (wishes.gvisor and gvisor.runtime_problem(engine.runtimes))


def _mebibytes(count: int) -> str:
    return f"{count >> 20} MiB"


# -- looking


def gather(data: str, wishes: Wishes, engine_wait: float = 0) -> Facts:
    """Look at this host; nothing is changed on it. An engine that does not answer gets *engine_wait* seconds."""
    release: dict[str, str] = {}
    with contextlib.suppress(OSError):
        release = platform.freedesktop_os_release()
    version, controllers = cgroups(Path("/proc/self/mounts").read_text(encoding="utf-8"), _unified_controllers())
    parent = nearest(data)
    overlay, idmap = _try_mounts(parent) if os.geteuid() == 0 else (None, None)
    engine = find_engine(wishes, engine_wait)
    managed = wishes.manage_engine or engine is None or lock.lock_of(Path(ENGINE_CONFIG)).exists()
    root = nearest(engine.root if engine else Engine.root)
    # One line for one file system, also where both folders lie on it.
    places = ((root, "Docker's data-root"), (parent, "bootstrap_data"))
    spaces = {Path(place).stat().st_dev: (place, name) for place, name in places}
    return Facts(
        system=release.get("ID", "unknown"),
        version=release.get("VERSION_ID", ""),
        title=release.get("PRETTY_NAME", "a system without /etc/os-release"),
        kernel=os.uname().release,
        machine=os.uname().machine,
        python=(sys.version_info.major, sys.version_info.minor),
        uid=os.geteuid(),
        cgroups=version,
        controllers=controllers,
        seccomp=_seccomp_actions(),
        overlay=overlay,
        idmap=idmap,
        spaces=tuple(Space(place, variable, free(place)) for place, variable in spaces.values()),
        engine=engine,
        service_manager="systemd" if Path("/run/systemd/system").is_dir() else "none",
        managed=managed,
        # Docker's own packages and static builds put it elsewhere.
        packaged=_dockerd() in (None, "/usr/sbin/dockerd"),
        config_problem=_config()[1] if managed else None,
    )


def cgroups(proc_mounts: str, unified: t.Iterable[str]) -> tuple[int, frozenset[str]]:
    """Return the version of the cgroup hierarchy (0 when none is mounted) and its controllers.

    Where both are mounted it is version 1 that has the controllers, and that the engine uses.
    """
    lines = [line.split(" ") for line in proc_mounts.splitlines()]
    first = {option for fields in lines if fields[2] == "cgroup" for option in fields[3].split(",")}
    if "memory" in first or "pids" in first:
        return 1, frozenset(first & {*CONTROLLERS, "freezer"})
    if any(fields[2] == "cgroup2" for fields in lines):
        return 2, frozenset(unified)
    return 0, frozenset()


def nearest(path: str) -> str:
    """Return *path*, or its nearest parent that exists."""
    place = Path(path)
    while not place.exists():
        place = place.parent
    return str(place)


def find_engine(wishes: Wishes, wait: float = 0) -> Engine | None:
    """Return the engine of this host, None when none is installed; *wait* seconds are given to one that starts."""
    deadline = time.monotonic() + wait
    while True:
        try:
            info = Docker(SOCKET, timeout=5).call("GET", "/info")
        except DockerError as error:
            problem = str(error)
            if error.status == 400:
                problem += "; install Docker 20.10 or later"
            found = Engine(error=problem, root=str(_config()[0].get("data-root", Engine.root)))
        else:
            found = Engine(
                error=None,
                version=info["ServerVersion"],
                live_restore=bool(info["LiveRestoreEnabled"]),
                seccomp=any(option.startswith("name=seccomp") for option in info["SecurityOptions"] or ()),
                runtimes=info["Runtimes"],
                root=info["DockerRootDir"],
            )
        # A reload is done only when its effect shows.
        if configured(found, wishes) or time.monotonic() >= deadline:
            break
        time.sleep(0.2)
    return found if found.error is None or wait or _dockerd() else None


def _dockerd() -> str | None:
    return shutil.which("dockerd", path=_PATH)


def wanted_config(with_gvisor: bool) -> str:
    """Return the text that the engine's configuration file should have, made from what is in it."""
    return json.dumps(engine_config(_config()[0], with_gvisor), indent=2, sort_keys=True) + "\n"


def adopts_config(with_gvisor: bool) -> bool:
    """Tell whether the engine's configuration is there, is not locked yet, and lacks something."""
    path = Path(ENGINE_CONFIG)
    if not path.exists() or lock.lock_of(path).exists():
        return False
    return path.read_text(encoding="utf-8") != wanted_config(with_gvisor)


def supervised() -> bool:
    """Tell whether a supervisor watches over the engine: it holds a lock for as long as it lives."""
    try:
        with Path(SUPERVISOR_LOCK).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        pass
    return False


def _config() -> tuple[dict[str, t.Any], str | None]:
    try:
        content = atomic.read(Path(ENGINE_CONFIG))
        config = json.loads(content or b"{}")
    except (OSError, ValueError) as error:
        return {}, f"Docker: {ENGINE_CONFIG} cannot be read ({error}); mend it"
    if not isinstance(config, dict):
        return {}, f"Docker: {ENGINE_CONFIG} is not a JSON object; mend it"
    if not isinstance(config.get("runtimes", {}), dict):
        return {}, f"Docker: runtimes in {ENGINE_CONFIG} is not a JSON object; mend it"
    return config, None


def _unified_controllers() -> list[str]:
    with contextlib.suppress(OSError):
        return Path("/sys/fs/cgroup/cgroup.controllers").read_text(encoding="utf-8").split()
    return []


def _seccomp_actions() -> frozenset[str]:
    with contextlib.suppress(OSError):
        return frozenset(Path("/proc/sys/kernel/seccomp/actions_avail").read_text(encoding="utf-8").split())
    return frozenset()


def free(path: str) -> int:
    """Return the bytes that are free where *path* is."""
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


def _try_mounts(place: str) -> tuple[str | None, str | None]:
    """Mount an overlay and an idmapped tree on the file system of *place*, seen by nobody; return why each failed.

    A child does it in a mount namespace of its own, so that nothing is left whatever happens to it. Its one trace, a
    folder, is removed; that of a killed trial by the next.
    """
    # What is nearest now was perhaps not there yet when the other one was killed.
    for above in sorted({place, os.path.dirname(place)}):
        for left in glob.glob(f"{glob.escape(above)}/{_TRIAL}*-*"):
            if not os.path.exists(f"/proc/{left.rpartition(_TRIAL)[2].partition('-')[0]}"):
                shutil.rmtree(left, ignore_errors=True)
    try:
        folder = tempfile.mkdtemp(prefix=f"{_TRIAL}{os.getpid()}-", dir=place)
    except OSError as error:
        return f"{place}: {error.strerror}", None
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        answer = ["the trial ended early", None]
        with contextlib.suppress(BaseException):
            answer = list(_mounts_in_child(folder))
        os.write(writer, json.dumps(answer).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as answers:
        text = answers.read()
    os.waitpid(child, 0)
    shutil.rmtree(folder)
    overlay, idmap = json.loads(text or b'["the trial ended early", null]')
    return overlay, idmap


def _mounts_in_child(folder: str) -> tuple[str | None, str | None]:
    libc = ctypes.CDLL(None, use_errno=True)

    def mount(source: bytes, target: str, kind: bytes | None, flags: int, options: str | None) -> str | None:
        done = libc.mount(source, target.encode(), kind, ctypes.c_ulong(flags), options.encode() if options else None)
        return None if done == 0 else os.strerror(ctypes.get_errno())

    if libc.unshare(_CLONE_NEWNS) != 0:
        return f"no mount namespace: {os.strerror(ctypes.get_errno())}", None
    if problem := mount(b"none", "/", None, _MS_REC | _MS_PRIVATE, None):
        return f"no private mounts: {problem}", None
    paths = {name: f"{folder}/{name}" for name in ("lower", "upper", "work", "seen")}
    for path in paths.values():
        Path(path).mkdir()
    options = "lowerdir={lower},upperdir={upper},workdir={work}".format(**paths)
    options += ",index=on,redirect_dir=nofollow,metacopy=off"
    overlay = mount(b"overlay", paths["seen"], b"overlay", _MS_NODEV | _MS_NOSUID, options)
    try:
        mounts.bind_readonly(paths["lower"], paths["seen"], (0, 1500), (0, 1500))
    except mounts.MountError as error:
        return overlay, error.__cause__.strerror if isinstance(error.__cause__, OSError) else str(error)
    return overlay, None
