# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stack: one description of every sandbox, from which both the engine's calls and the compose file are made.

Each phase adds a *part*: ``{"sandboxes": {name: {…}}}`` in a file of its own under ``configs/stack.d/``. The keys:

- ``image``, ``uid``, ``gid``, ``memory`` ``file_size`` ``shm_size`` (bytes), ``nano_cpus``, ``pids``, ``open_files``,
  ``originals``, ``working_dir``, ``runtime`` (``runc``, unless it is given, or ``gvisor``): one phase alone may set each;
- ``tmpfs`` (path → bytes), ``environment`` (name → text), ``labels``, ``forwards`` (a port of the sandbox's own 127.0.0.1 → the
  unix socket that it leads to): united;
- ``mounts``: joined, in the order of the phases. A *bind* is ``{"bind": source, "target": path}``, read-only always; an
  *overlay* is ``{"overlay": volume name, "target": path, "options": mount options}``.
"""

from __future__ import annotations

import typing as t

from ansible_collections.dockersandbox.guardrails.plugins.module_utils import canonical

LABEL = "dockersandbox.guardrails"
# A copy that its user may run and not read: the kernel then keeps /proc/1 from him. Else he could write his own code into
# the one process that outlives a run.
INIT = "/usr/local/libexec/catatonit"
# The same for a first process that forwards: a copy of the interpreter, and the program that it runs (module_utils/forward.py).
INTERPRETER = "/usr/local/libexec/guardrails-python"
FORWARDER = "/usr/local/libexec/guardrails-forward.py"
HOME = "/home/agent"
OOM_SCORE = 500  # of 1000
# What the newest engines keep from a container, said here because Debian's know of less (energy counters tell what others
# compute), and besides: the kernel's addresses, symbols and command line, and all it tells of itself below /sys.
MASKED = (
    *(f"/proc/{name}" for name in ("acpi", "asound", "cmdline", "interrupts", "kallsyms", "kcore", "key-users", "keys", "latency_stats")),
    *(f"/proc/{name}" for name in ("modules", "sched_debug", "scsi", "timer_list", "timer_stats")),
    *(f"/sys/{name}" for name in ("devices/virtual/powercap", "firmware", "kernel", "module")),
)
READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
# What a sandbox declares → the engine's name for it.
RUNTIMES = {"runc": "runc", "gvisor": "runsc"}
# The kernel counts pseudo-terminals for all containers together: each sandbox has some of its own.
_TERMINALS = {
    "Type": "volume",
    "Target": "/dev/pts",
    "VolumeOptions": {
        "NoCopy": True,
        "DriverConfig": {
            "Name": "local",
            "Options": {"type": "devpts", "device": "devpts", "o": "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5,max=64"},
        },
    },
}
_UNITED = ("tmpfs", "environment", "labels", "forwards")

Description = dict[str, t.Any]


def container_name(name: str) -> str:
    """Return the name of a sandbox's container."""
    return f"sandbox-{name}"


def tool_name(name: str) -> str:
    """Return the name of the container that makes a patch of a sandbox's changes, while a run needs it."""
    return f"{container_name(name)}.diff"


def runtime(description: Description) -> str:
    """Return what a sandbox runs under, a key of :data:`RUNTIMES`."""
    return str(description.get("runtime", "runc"))


def merge(parts: t.Iterable[dict[str, t.Any]]) -> dict[str, Description]:
    """Return every sandbox's whole description from the phases' *parts*, in phase order.

    Only sandboxes that the first part knows count: a later phase adds to a sandbox, it does not make one. ValueError
    when two phases set the same thing.
    """
    merged: dict[str, Description] = {}
    for index, part in enumerate(parts):
        for name, addition in part["sandboxes"].items():
            if index == 0:
                merged[name] = {"mounts": [], **{key: {} for key in _UNITED}}
            elif name not in merged:
                continue
            whole = merged[name]
            for key, value in addition.items():
                if key == "mounts":
                    whole["mounts"] = [*whole["mounts"], *value]
                elif key in _UNITED:
                    if clash := sorted(set(whole[key]) & set(value)):
                        raise ValueError(f"sandbox {name}: two phases set {key} {clash[0]}")
                    whole[key] = {**whole[key], **value}
                elif key in whole:
                    raise ValueError(f"sandbox {name}: two phases set {key}")
                else:
                    whole[key] = value
    return merged


def container(name: str, description: Description, seccomp: str) -> dict[str, t.Any]:
    """Return the body of the engine's create call for a sandbox; *seccomp* is the profile's JSON text.

    The label ``…spec`` is the sha256 of all the rest: a container that carries another one is made anew.
    """
    user = f"{description['uid']}:{description['gid']}"
    body: dict[str, t.Any] = {
        "Image": description["image"],
        "Hostname": name,
        "User": user,
        "WorkingDir": description.get("working_dir", HOME),
        "Env": [f"{key}={value}" for key, value in sorted(_environment(description).items())],
        "Entrypoint": _entrypoint(description),
        "Cmd": [],
        "HostConfig": {
            "Runtime": RUNTIMES[runtime(description)],
            "NetworkMode": "none",
            "ReadonlyRootfs": True,
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges", f"seccomp={seccomp}"],
            # Compose has no word for these, nor for the terminals: its file leaves them to the engine.
            "MaskedPaths": list(MASKED),
            "ReadonlyPaths": list(READ_ONLY),
            "Memory": description["memory"],
            "MemorySwap": description["memory"],
            "NanoCpus": description["nano_cpus"],
            "PidsLimit": description["pids"],
            # Should the host itself run out of memory, a sandbox goes before anything of the host's.
            "OomScoreAdj": OOM_SCORE,
            "ShmSize": description["shm_size"],
            "Ulimits": [{"Name": key, "Soft": value, "Hard": value} for key, value in _ulimits(description).items()],
            "Tmpfs": {path: _tmpfs_options(description, path) for path in sorted(description["tmpfs"])},
            "Mounts": [*map(_mount, description["mounts"]), *([_TERMINALS] if runtime(description) == "runc" else [])],
            "IpcMode": "private",
            "CgroupnsMode": "private",
            "Init": False,
            # Mounts and forwarders must be right before a sandbox starts, so the engine never starts one by itself.
            "RestartPolicy": {"Name": "no"},
            "LogConfig": {"Type": "none"},
        },
    }
    labels = {**description["labels"], LABEL: "sandbox", f"{LABEL}.sandbox": name}
    body["Labels"] = {**labels, f"{LABEL}.spec": canonical.sha256_hex(canonical.dumps({**body, "Labels": labels}))}
    return body


def volumes(description: Description) -> dict[str, dict[str, str]]:
    """Return the volumes of a sandbox: name → options of the local driver."""
    return {
        mount["overlay"]: {"type": "overlay", "device": "overlay", "o": mount["options"]}
        for mount in description["mounts"]
        if "overlay" in mount
    }


def listening(table: str) -> set[int]:
    """Return the ports of 127.0.0.1 at which something listens, from *table*, the text of a ``/proc/…/net/tcp``."""
    rows = [line.split() for line in table.splitlines()]
    return {int(row[1][9:], 16) for row in rows if len(row) > 3 and row[1].startswith("0100007F:") and row[3] == "0A"}


def sockets(memory: int) -> int:
    """Return how many bytes the TCP connections of a sandbox with *memory* bytes may hold, in whole pages."""
    return memory // 8 // 4096 * 4096


def compose(stack: dict[str, Description], seccomp_path: str) -> dict[str, t.Any]:
    """Return the same stack as a Compose file (Compose Specification): what the engine is told, for people to read."""
    services = {}
    named: dict[str, t.Any] = {}
    for name, description in sorted(stack.items()):
        services[container_name(name)] = {
            "container_name": container_name(name),
            "image": description["image"],
            "runtime": RUNTIMES[runtime(description)],
            "hostname": name,
            "user": f"{description['uid']}:{description['gid']}",
            "working_dir": description.get("working_dir", HOME),
            # Compose would put its own variables in.
            "environment": {key: value.replace("$", "$$") for key, value in sorted(_environment(description).items())},
            "entrypoint": _entrypoint(description),
            "network_mode": "none",
            "read_only": True,
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges", f"seccomp:{seccomp_path}"],
            "mem_limit": description["memory"],
            "memswap_limit": description["memory"],
            "cpus": description["nano_cpus"] / 1_000_000_000,
            "pids_limit": description["pids"],
            "oom_score_adj": OOM_SCORE,
            "shm_size": description["shm_size"],
            "ulimits": {key: {"soft": value, "hard": value} for key, value in _ulimits(description).items()},
            "tmpfs": [f"{path}:{_tmpfs_options(description, path)}" for path in sorted(description["tmpfs"])],
            "volumes": [_compose_mount(mount) for mount in description["mounts"]],
            "ipc": "private",
            "cgroup": "private",
            "init": False,
            "restart": "no",
            "logging": {"driver": "none"},
            "labels": {**description["labels"], LABEL: "sandbox", f"{LABEL}.sandbox": name},
        }
        for volume, options in sorted(volumes(description).items()):
            named[volume] = {"name": volume, "driver": "local", "driver_opts": options}
    document: dict[str, t.Any] = {"name": "dockersandbox", "services": services}
    if named:
        document["volumes"] = named
    return document


def drift(wanted: dict[str, t.Any], inspected: dict[str, t.Any]) -> list[str]:
    """Return in what an existing container is not the *wanted* one, a reason each; empty when it is the same.

    The label tells what it was made from; the host part is compared too, because ``docker update`` changes it in place.
    """
    label = f"{LABEL}.spec"
    if (inspected["Config"].get("Labels") or {}).get(label) != wanted["Labels"][label]:
        return ["made from another description"]
    real = inspected["HostConfig"]
    keys = ("Runtime", "NetworkMode", "ReadonlyRootfs", "CapDrop", "Memory", "MemorySwap", "NanoCpus", "PidsLimit", "OomScoreAdj", "RestartPolicy")
    found = []
    for key in keys:
        due = wanted["HostConfig"][key]
        value = {"Name": real[key]["Name"]} if key == "RestartPolicy" else real[key]
        if value != due:
            found.append(f"{key} is {value}, not {due}")
    return found


def _environment(description: Description) -> dict[str, str]:
    return {"HOME": HOME, "USER": "agent", "LANG": "C.UTF-8", **description["environment"]}


def _entrypoint(description: Description) -> list[str]:
    # gVisor starts nothing that cannot be read, and lets nobody write into another process.
    closed = runtime(description) == "runc"
    if forwards := description.get("forwards"):
        ports = [f"{port}={path}" for port, path in sorted(forwards.items())]
        return [INTERPRETER if closed else "/usr/bin/python3", "-I", "-S", FORWARDER, *ports]
    return [INIT if closed else "/usr/bin/catatonit", "-P"]


def _ulimits(description: Description) -> dict[str, int]:
    # One byte and not none: see the rules for prlimit64 in configs/seccomp.json.
    return {"core": 1, "fsize": description["file_size"], "nofile": description["open_files"]}


def _tmpfs_options(description: Description, path: str) -> str:
    # The engine's own default is noexec, which keeps compilers and package managers from working, and nobody from running code.
    options = f"rw,exec,nosuid,nodev,size={description['tmpfs'][path]}"
    if path == HOME:
        return f"{options},mode=0700,uid={description['uid']},gid={description['gid']}"
    return f"{options},mode=1777"


def _mount(mount: dict[str, str]) -> dict[str, t.Any]:
    if "bind" in mount:
        return {"Type": "bind", "Source": mount["bind"], "Target": mount["target"], "ReadOnly": True}
    # NoCopy: the engine would else copy the image's own folder into the fresh volume and change its owner. Read-only is
    # said by the overlay's own options: said here, the engine mounts once more and loses nosuid and nodev.
    return {
        "Type": "volume",
        "Source": mount["overlay"],
        "Target": mount["target"],
        "ReadOnly": False,
        "VolumeOptions": {"NoCopy": True},
    }


def _compose_mount(mount: dict[str, str]) -> dict[str, t.Any]:
    if "bind" in mount:
        return {"type": "bind", "source": mount["bind"], "target": mount["target"], "read_only": True}
    return {
        "type": "volume",
        "source": mount["overlay"],
        "target": mount["target"],
        "read_only": False,
        "volume": {"nocopy": True},
    }
