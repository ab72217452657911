# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sandboxes on a host: the stack as its parts tell it, and the containers that stand for it."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import json
import os
import pathlib
import shutil
import typing as t

from ansible_collections.dockersandbox.guardrails.plugins.module_utils import atomic, canonical, gate, lock, mounts, stack, workset
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.docker_api import Docker, DockerError
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.places import Places
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.spec import Sandbox
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.workset import WorkingSet

FIRST_UID = 990000  # far from accounts, from what useradd hands out and from subordinate ranges
RUN_LABEL = f"{stack.LABEL}.run"


class Busy(Exception):
    """Somebody works in the sandbox now; the text says who."""


class SandboxError(Exception):
    """A sandbox is not as it must be; the text is one line for the operator."""


# -- parts of the stack


def part_path(places: Places, phase: str) -> str:
    """Return the file that holds a phase's part of the stack."""
    return os.path.join(places.stack_parts, f"{phase}.json")


def read_stack(places: Places, changed: dict[str, t.Any] | None = None, phase: str = "") -> dict[str, stack.Description]:
    """Return the merged stack of this host; *changed* stands in for the part of *phase* as it will be."""
    parts = []
    for word in gate.PHASES:
        if word == phase and changed is not None:
            parts.append(changed)
        elif os.path.exists(part_path(places, word)):
            with open(part_path(places, word), encoding="utf-8") as file:
                parts.append(json.load(file))
    return stack.merge(parts)


def part_file(places: Places, phase: str, part: dict[str, t.Any]) -> lock.Wanted:
    """Return a phase's part as the file to author: indented, because people read it too."""
    content = (json.dumps(part, indent=2, sort_keys=True) + "\n").encode()
    return lock.Wanted(pathlib.Path(part_path(places, phase)), content, 0o644, 0, 0)


def env_part(sandboxes: t.Sequence[Sandbox], images: dict[str, str], uids: dict[str, tuple[int, int]], places: Places) -> dict[str, t.Any]:
    """Return what phase ``env`` says of the declared sandboxes. *images*: preset → image id; *uids*: name → uid, gid."""
    return {"sandboxes": {sandbox.name: _env_description(sandbox, images[sandbox.preset], *uids[sandbox.name], places) for sandbox in sandboxes}}


def _env_description(sandbox: Sandbox, image: str, uid: int, gid: int, places: Places) -> stack.Description:
    folder = places.sandbox(sandbox.name)
    return {
        "image": image,
        "originals": sandbox.originals,
        "uid": uid,
        "gid": gid,
        "memory": sandbox.memory,
        "nano_cpus": sandbox.nano_cpus,
        "pids": sandbox.pids,
        "open_files": sandbox.open_files,
        "file_size": sandbox.file_size,
        "shm_size": min(64 << 20, sandbox.memory // 4),
        "tmpfs": {"/tmp": sandbox.tmp_size, stack.HOME: sandbox.home_size},
        "mounts": [
            {"bind": os.path.join(folder, "passwd"), "target": "/etc/passwd"},
            {"bind": os.path.join(folder, "group"), "target": "/etc/group"},
        ],
    }


def accounts(uid: int, gid: int) -> dict[str, bytes]:
    """Return the files by which programs in a sandbox know their user: name → content."""
    return {
        "passwd": (
            "root:x:0:0:root:/root:/usr/sbin/nologin\n"
            "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
            f"agent:x:{uid}:{gid}:agent:{stack.HOME}:/bin/bash\n"
        ).encode(),
        "group": f"root:x:0:\nnogroup:x:65534:\nagent:x:{gid}:\n".encode(),
    }


def accounts_files(places: Places, name: str, uid: int, gid: int) -> list[lock.Wanted]:
    """Return the accounts of a sandbox as files to author."""
    folder = pathlib.Path(places.sandbox(name))
    return [lock.Wanted(folder / file, content, 0o644, 0, 0) for file, content in accounts(uid, gid).items()]


def author(files: t.Iterable[lock.Wanted]) -> None:
    """Write *files* with their locks where they are not as wanted."""
    for step in lock.plan(files):
        lock.apply(step)


# -- uids


@contextlib.contextmanager
def uid_table(places: Places) -> t.Iterator[dict[str, int]]:
    """Yield the table name → uid under a lock; what the block changed in it is durable afterwards."""
    os.makedirs(places.data, mode=0o755, exist_ok=True)
    with open(places.uids + ".lock", "a", encoding="ascii") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        table = read_uids(places)
        before = dict(table)
        yield table
        if table != before:
            atomic.write(pathlib.Path(places.uids), (json.dumps(table, indent=1, sort_keys=True) + "\n").encode(), 0o644, 0, 0)


def read_uids(places: Places) -> dict[str, int]:
    """Return the table name → uid as it is."""
    if not os.path.exists(places.uids):
        return {}
    with open(places.uids, encoding="utf-8") as file:
        return t.cast("dict[str, int]", json.load(file))


def assign_uids(sandboxes: t.Sequence[Sandbox], table: dict[str, int]) -> dict[str, tuple[int, int]]:
    """Return each sandbox's uid and gid, adding to *table* those that have none yet.

    A uid is kept for as long as the table names the sandbox, so that nobody inherits another's files.
    """
    given = {}
    for sandbox in sandboxes:
        if sandbox.run_as == "owner":
            owner = os.lstat(sandbox.originals)
            given[sandbox.name] = (owner.st_uid, owner.st_gid)
            continue
        if sandbox.name not in table:
            taken = set(table.values())
            table[sandbox.name] = next(uid for uid in range(FIRST_UID, FIRST_UID + len(taken) + 1) if uid not in taken)
        given[sandbox.name] = (table[sandbox.name], table[sandbox.name])
    return given


# -- locks


@contextlib.contextmanager
def held(places: Places, name: str, who: str) -> t.Iterator[bool]:
    """Hold a sandbox while the block runs; Busy at once when somebody else does. *who* is shown to the others.

    Yields whether the last one who held it was killed before it let go.
    """
    os.makedirs(os.path.dirname(places.lock(name)), mode=0o755, exist_ok=True)
    with open(places.lock(name), "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno != errno.EWOULDBLOCK:
                raise
            file.seek(0)
            raise Busy(f"sandbox {name} is busy with {file.read().strip() or 'another command'}: wait until it ends") from error
        file.seek(0)
        crashed = bool(file.read())
        file.truncate(0)
        file.write(who)
        file.flush()
        yield crashed
        file.truncate(0)


def holder(places: Places, name: str) -> str | None:
    """Return who holds a sandbox now, or None."""
    try:
        with open(places.lock(name), encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return file.read().strip() or "another command"
    except FileNotFoundError:
        pass
    return None


# -- containers


@dataclasses.dataclass
class Converged:
    """What converging did, or would do: reasons, the whole stack, files written, and the part's text before and after."""

    actions: list[str]
    stack: dict[str, stack.Description]
    written: list[str]
    before: str = ""
    after: str = ""


@dataclasses.dataclass(frozen=True)
class Host:
    """An engine and the places of its host: what every act on sandboxes needs.

    *profile* is the seccomp profile that is about to be written to its place, when there is one.
    """

    docker: Docker
    places: Places
    profile: str = ""

    def seccomp(self) -> str:
        """Return the profile that sandboxes get, as canonical JSON text."""
        text = self.profile
        if not text:
            with open(self.places.seccomp, encoding="utf-8") as file:
                text = file.read()
        return canonical.dumps(json.loads(text)).decode()

    def working_set(self, name: str, description: stack.Description) -> WorkingSet | None:
        """Return the working set of a sandbox, None when phase ``fs`` has not given it one."""
        if not stack.volumes(description):
            return None
        return WorkingSet(self.places, name, description["originals"], description["uid"], description["gid"])

    def differences(self, name: str, description: stack.Description) -> list[str]:
        """Return what keeps a sandbox from running as described, a reason each; reads only."""
        inspected = self.docker.inspect(stack.container_name(name))
        found = []
        for volume, options in stack.volumes(description).items():
            known = self.docker.volume(volume)
            if known is None or known["Options"] != options:
                found.append(f"volume {volume} {'is missing' if known is None else 'has other options'}")
        if inspected is None:
            return [*found, "has no container"]
        found += stack.drift(stack.container(name, description, self.seccomp()), inspected)
        if not inspected["State"]["Running"]:
            found.append("does not run")
        elif inspected["State"]["Paused"]:
            found.append("is paused")
        working_set = self.working_set(name, description)
        if working_set and (problem := working_set.lower_problem()):
            found.append(f"{working_set.lower} {problem}")
        return found

    def bring_up(self, name: str, description: stack.Description, reasons: t.Sequence[str], labels: dict[str, str] | None = None) -> None:
        """Make a sandbox run as described, anew unless it only was stopped or paused. The caller holds the sandbox."""
        container = stack.container_name(name)
        if reasons == ["is paused"]:
            self.docker.unpause(container)
            return
        working_set = self.working_set(name, description)
        if reasons != ["does not run"]:
            self.remove(container)
            self._make(name, description, labels or {})
        if working_set:
            workset.ensure_run(self.places)
            if working_set.lower_problem():
                working_set.mount_lower()
            if problem := working_set.delta_problem():
                raise SandboxError(f"sandbox {name}: its working set {problem}: restore it, or run teardown and --tags fs for a new one")
        self.docker.start(container)

    def converge(self, phase: str, part: dict[str, t.Any], check: bool) -> Converged:
        """Write a phase's part of the stack and make every sandbox run as the whole stack says.

        Raises Busy when a sandbox that must be made anew is at work, with nothing of it changed. With *check* nothing
        is changed at all: what would be is returned.
        """
        steps = lock.plan([part_file(self.places, phase, part)])
        described = read_stack(self.places, part, phase)
        done = Converged([step.text for step in steps], described, [str(step.wanted.path) for step in steps])
        for step in steps:
            done.before = (step.before or b"").decode()
            done.after = (step.wanted.content or b"").decode()
            if not check:
                lock.apply(step)
        reachable = os.path.exists(self.docker.path)
        for name in self.strays(described) if reachable else []:
            done.actions.append(f"Took down sandbox {name}: it is not declared any more; its data stays")
            if not check:
                self.take_down(name)
        for name, description in described.items():
            reasons = self.differences(name, description) if reachable else ["there is no engine yet"]
            if not reasons:
                continue
            done.actions.append(f"Brought up sandbox {name}: {', '.join(reasons)}")
            if not check:
                with held(self.places, name, "a converging playbook"):
                    self.bring_up(name, description, reasons)
        return done

    def _make(self, name: str, description: stack.Description, labels: dict[str, str]) -> None:
        for volume, options in stack.volumes(description).items():
            known = self.docker.volume(volume)
            if known is not None and known["Options"] != options:
                self.docker.remove_volume(volume)
                known = None
            if known is None:
                self.docker.create_volume(volume, options, {stack.LABEL: "working-set"})
        described = {**description, "labels": {**description["labels"], **labels}}
        self.docker.create(stack.container_name(name), stack.container(name, described, self.seccomp()))

    def remove(self, container: str) -> None:
        """Remove a container, also one that the engine is removing already for somebody who was killed meanwhile."""
        try:
            self.docker.remove(container)
        except DockerError as error:
            if error.status != 409:
                raise
            self.docker.call("POST", f"/containers/{container}/wait", query={"condition": "removed"}, missing=None)

    def take_down(self, name: str) -> None:
        """Remove a sandbox's container, volumes and mount; its working set, baseline and bundles stay."""
        container = stack.container_name(name)
        self.remove(container)
        self.remove(stack.tool_name(name))
        for volume in (f"{container}-workspace", f"{container}-originals"):
            self.docker.remove_volume(volume)
        while mounts.mounted(self.places.lower(name)):
            mounts.unmount(self.places.lower(name))
        with contextlib.suppress(FileNotFoundError):
            os.rmdir(self.places.lower(name))

    def forget(self, name: str) -> None:
        """Remove everything of a sandbox, its working set too, but never a bundle."""
        self.take_down(name)
        shutil.rmtree(self.places.sandbox(name), ignore_errors=True)
        with uid_table(self.places) as table:
            table.pop(name, None)

    def strays(self, stacked: t.Collection[str]) -> list[str]:
        """Return the names of sandboxes that have a container but are not in the stack, nor a run that goes on."""
        names = {item["Labels"].get(f"{stack.LABEL}.sandbox", "") for item in self.docker.containers(f"{stack.LABEL}=sandbox")}
        return sorted(name for name in names if name and name not in stacked and holder(self.places, name) is None)
