# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stack: one description of every sandbox, from which both the engine's calls and the compose file are made.

Each phase adds a *part*: ``{"sandboxes": {name: {…}}}`` in a file of its own under ``configs/stack.d/``. The keys:

- ``image``, ``uid``, ``gid``, ``memory`` ``file_size`` ``shm_size`` (bytes), ``nano_cpus``, ``pids``, ``open_files``,
  ``originals``, ``working_dir``: one phase alone may set each;
- ``tmpfs`` (path → bytes), ``environment`` (name → text), ``labels``: united;
- ``mounts``: joined, in the order of the phases. A *bind* is ``{"bind": source, "target": path}``, read-only always; an
  *overlay* is ``{"overlay": volume name, "target": path, "options": mount options}``.
"""

from __future__ import annotations

import typing as t

from ansible_collections.dockersandbox.guardrails.plugins.module_utils import canonical

LABEL = "dockersandbox.guardrails"
ENTRYPOINT = ["/usr/bin/catatonit", "-P"]
HOME = "/home/agent"
_UNITED = ("tmpfs", "environment", "labels")

Description = dict[str, t.Any]


def container_name(name: str) -> str:
    """Return the name of a sandbox's container."""
    return f"sandbox-{name}"


def tool_name(name: str) -> str:
    """Return the name of the container that makes a patch of a sandbox's changes, while a run needs it."""
    return f"{container_name(name)}.diff"


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
        "Entrypoint": ENTRYPOINT,
        "Cmd": [],
        "HostConfig": {
            "NetworkMode": "none",
            "ReadonlyRootfs": True,
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges", f"seccomp={seccomp}"],
            "Memory": description["memory"],
            "MemorySwap": description["memory"],
            "NanoCpus": description["nano_cpus"],
            "PidsLimit": description["pids"],
            "ShmSize": description["shm_size"],
            "Ulimits": [{"Name": key, "Soft": value, "Hard": value} for key, value in _ulimits(description).items()],
            "Tmpfs": {path: _tmpfs_options(description, path) for path in sorted(description["tmpfs"])},
            "Mounts": [_mount(mount) for mount in description["mounts"]],
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


def compose(stack: dict[str, Description], seccomp_path: str) -> dict[str, t.Any]:
    """Return the same stack as a Compose file (Compose Specification): what the engine is told, for people to read."""
    services = {}
    named: dict[str, t.Any] = {}
    for name, description in sorted(stack.items()):
        services[container_name(name)] = {
            "container_name": container_name(name),
            "image": description["image"],
            "hostname": name,
            "user": f"{description['uid']}:{description['gid']}",
            "working_dir": description.get("working_dir", HOME),
            "environment": dict(sorted(_environment(description).items())),
            "entrypoint": ENTRYPOINT,
            "network_mode": "none",
            "read_only": True,
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges", f"seccomp:{seccomp_path}"],
            "mem_limit": description["memory"],
            "memswap_limit": description["memory"],
            "cpus": description["nano_cpus"] / 1_000_000_000,
            "pids_limit": description["pids"],
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
    keys = ("NetworkMode", "ReadonlyRootfs", "CapDrop", "Memory", "MemorySwap", "NanoCpus", "PidsLimit", "RestartPolicy")
    found = []
    for key in keys:
        due = wanted["HostConfig"][key]
        value = {"Name": real[key]["Name"]} if key == "RestartPolicy" else real[key]
        if value != due:
            found.append(f"{key} is {value}, not {due}")
    return found


def _environment(description: Description) -> dict[str, str]:
    return {"HOME": HOME, "USER": "agent", "LANG": "C.UTF-8", **description["environment"]}


def _ulimits(description: Description) -> dict[str, int]:
    return {"core": 0, "fsize": description["file_size"], "nofile": description["open_files"]}


def _tmpfs_options(description: Description, path: str) -> str:
    options = f"rw,nosuid,nodev,size={description['tmpfs'][path]}"
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
