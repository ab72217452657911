# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The protections of a sandbox, each as what is left when it is taken away: without it an attack must be seen to succeed."""

from __future__ import annotations

import os
import pathlib
import typing as t

from ansible_collections.dockersandbox.guardrails.plugins.module_utils import canonical, network, run, services, stack, workset
from security.arena import Arena, Body, Box, Weakening

Change = t.Callable[[Body, Arena], None]

# Not all: no test machine has every one (SYS_RESOURCE), and none of these alone stops the machine.
_CAPABILITIES = [
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "IPC_LOCK", "KILL", "LINUX_IMMUTABLE", "MKNOD", "NET_ADMIN",
    "NET_RAW", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYSLOG", "SYS_ADMIN", "SYS_CHROOT", "SYS_PTRACE", "SYS_RAWIO",
]  # fmt: skip


def _host(**values: t.Any) -> Change:
    return lambda body, _arena: body["HostConfig"].update(values)


def _neighbours(key: str) -> Change:
    def change(body: Body, arena: Arena) -> None:
        body.pop("Hostname")  # it is the other's then
        body["HostConfig"][key] = f"container:{arena.neighbour.container}"
        if key == "NetworkMode":
            # Where it would listen the other does.
            body["Entrypoint"] = [stack.INIT, "-P"]

    return change


def _security(drop: str, add: str = "") -> Change:
    def change(body: Body, _arena: Arena) -> None:
        options = [option for option in body["HostConfig"]["SecurityOpt"] if not option.startswith(drop)]
        body["HostConfig"]["SecurityOpt"] = [*options, *([add] if add else [])]

    return change


def _user(body: Body, _arena: Arena) -> None:
    body["User"] = "0:0"


def _capabilities(body: Body, arena: Arena) -> None:
    _user(body, arena)
    body["HostConfig"].update(CapDrop=[], CapAdd=_CAPABILITIES)


def _mount(body: Body, source: str, target: str) -> None:
    host = body["HostConfig"]
    # In place of what is mounted there by the sandbox's own description.
    host["Mounts"] = [mount for mount in host["Mounts"] if mount["Target"] != target]
    host["Mounts"].append({"Type": "bind", "Source": source, "Target": target, "ReadOnly": False})


def _bind(path: str) -> Change:
    return lambda body, _arena: _mount(body, path, path)


def _led_out(body: Body, arena: Arena) -> None:
    """A network that leads to the world beyond egress, and to nowhere else."""
    _neighbours("NetworkMode")(body, arena)
    arena.outside.lead_out(arena.neighbour.first)


def _undecided(body: Body, arena: Arena) -> None:
    """A proxy that decides nothing, in place of egress."""
    _mount(body, arena.outside.open_door(), os.path.dirname(network.SOCKET))


def _all_doors(body: Body, arena: Arena) -> None:
    """The folder with every sandbox's socket."""
    folder = services.sandboxes_folder(arena.places, network.SERVICE)
    _mount(body, folder, folder)


def _readable(body: Body, _arena: Arena) -> None:
    """A first process whose program its user may read."""
    body["Entrypoint"][0] = "/usr/bin/python3"


def _originals(body: Body, arena: Arena) -> None:
    """The tree as it lies on the host, where its overlay was."""
    _mount(body, str(arena.tree), "/originals")


def _working_set(body: Body, arena: Arena) -> None:
    """A folder of the host's own disk, where the one of a hard cap was."""
    _mount(body, str(arena.plain), "/workspace")


def _disks(body: Body, arena: Arena) -> None:
    major = os.major(os.stat(arena.neighbour.working_set.delta).st_dev)
    body["HostConfig"]["DeviceCgroupRules"] = [f"b {major}:* rwm"]


def _ulimit(name: str, value: int) -> Change:
    def change(body: Body, _arena: Arena) -> None:
        limits = body["HostConfig"]["Ulimits"]
        body["HostConfig"]["Ulimits"] = [one for one in limits if one["Name"] != name] + [{"Name": name, "Soft": value, "Hard": value}]

    return change


def _open_folder(box: Box) -> None:
    for folder in (box.working_set.delta, box.arena.places.sandbox(box.name), box.arena.places.sandboxes, box.arena.places.data):
        os.chmod(folder, 0o755)


def _terminals(body: Body, _arena: Arena) -> None:
    host = body["HostConfig"]
    host["Mounts"] = [mount for mount in host["Mounts"] if mount["Target"] != "/dev/pts"]
    # As many as four thousand descriptors need.
    host["PidsLimit"] = 128


def tcp_limit(box: Box) -> pathlib.Path:
    """Return the file that caps what the TCP connections of a sandbox hold; only a machine with cgroup v1 has it."""
    return box.cgroups().get("memory", pathlib.Path("/nowhere")) / "memory.kmem.tcp.limit_in_bytes"


def _uncapped_sockets(box: Box) -> None:
    if tcp_limit(box).exists():
        tcp_limit(box).write_text("-1", encoding="ascii")


_ALL = (
    Weakening("seccomp", _security("seccomp=", "seccomp=unconfined")),
    Weakening("no new privileges", _security("no-new-privileges")),
    Weakening("user", _user),
    Weakening("capabilities", _capabilities),
    Weakening("masks", _host(MaskedPaths=[], ReadonlyPaths=[])),
    Weakening("read-only root", _host(ReadonlyRootfs=False)),
    Weakening("network", _host(NetworkMode="host")),
    Weakening("processes", _host(PidMode="host")),
    Weakening("devices", _disks),
    Weakening("originals behind overlays", _originals),
    Weakening("cap on the working set", _working_set),
    Weakening("engine outside", _bind("/var/run/docker.sock")),
    Weakening("read-only cgroups", _bind("/sys/fs/cgroup")),
    Weakening("cap on processes", _host(PidsLimit=0)),
    Weakening("cap on memory", _host(Memory=0, MemorySwap=0)),
    Weakening("first process", _readable),
    Weakening("limit on core dumps", _ulimit("core", 0)),
    Weakening("closed folders", after=_open_folder),
    Weakening("cap on sockets", after=_uncapped_sockets),
    Weakening("terminals of its own", _terminals),
    Weakening("environment", shape={"environment": {"PATH": "/workspace:/usr/local/bin:/usr/bin:/bin"}}),
    Weakening("uid of its own", lambda body, arena: body.update(User=f"{arena.neighbour.uid}:{arena.neighbour.uid}")),
    Weakening("ipc of its own", _neighbours("IpcMode"), neighbour=_host(IpcMode="shareable")),
    Weakening("network of its own", _neighbours("NetworkMode")),
    # With a neighbour of its own, which goes with what it got.
    Weakening("interface", _led_out, neighbour=lambda _body, _arena: None),
    Weakening("decisions", _undecided),
    Weakening("one socket each", _all_doors),
    Weakening("processes of its own", _neighbours("PidMode")),
    Weakening("sweep", host=(run, "sweep", lambda *_given: None)),
    Weakening("names made printable", host=(canonical, "printable", lambda path: path.decode("utf-8", "replace"))),
    Weakening("preflight of originals", host=(workset, "originals_problems", lambda *_given: [])),
    Weakening("reader that does not follow"),
    Weakening("git kept away"),
)
WEAKENINGS = {one.name: one for one in _ALL}
