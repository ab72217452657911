# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sandboxes on a host: the stack as its parts tell it, and the containers that stand for it."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import pathlib
import subprocess
import time
import typing as t

from ansible_collections.dockersandbox.guardrails.plugins.module_utils import (
    acts,
    atomic,
    canonical,
    freezer,
    gate,
    history,
    lock,
    mounts,
    seccomp,
    services,
    spec,
    stack,
    workset,
)
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.docker_api import Docker, DockerError, Late
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.places import Places
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.spec import Sandbox
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.workset import WorkingSet

FIRST_UID = 990000  # far from accounts, from what useradd hands out and from subordinate ranges
START = "the start of this machine"
_PATIENCE = 60  # seconds in which a machine has brought its sandboxes up
_NAMELESS = 2  # seconds in which whoever takes a sandbox has written who it is, and whoever lets it go has let go
_LISTENS = 10  # seconds in which the first process of a sandbox listens
STANDS = "was left frozen by somebody who was killed"
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
    # In check mode on a bare host, phase env has made none yet that a later phase could add to.
    return {name: described for name, described in stack.merge(parts).items() if "image" in described}


def part_file(places: Places, phase: str, part: dict[str, t.Any]) -> lock.Wanted:
    """Return a phase's part as the file to author: indented, because people read it too."""
    content = (json.dumps(part, indent=2, sort_keys=True) + "\n").encode()
    return lock.Wanted(pathlib.Path(part_path(places, phase)), content, 0o644, 0, 0)


def env_part(
    sandboxes: t.Sequence[Sandbox],
    images: dict[str, str],
    uids: dict[str, tuple[int, int]],
    places: Places,
    environments: t.Mapping[str, t.Mapping[str, str]],
) -> dict[str, t.Any]:
    """Return what phase ``env`` says of the declared sandboxes.

    *images*: preset → image id; *uids*: name → uid, gid; *environments*: preset → name → text.
    """
    part = {}
    for sandbox in sandboxes:
        part[sandbox.name] = _env_description(sandbox, images[sandbox.preset], *uids[sandbox.name], places)
        if environment := environments.get(sandbox.preset):
            part[sandbox.name]["environment"] = dict(environment)
    return {"sandboxes": part}


def _env_description(sandbox: Sandbox, image: str, uid: int, gid: int, places: Places) -> stack.Description:
    folder = places.sandbox(sandbox.name)
    return {
        "image": image,
        "runtime": sandbox.runtime,
        "originals": sandbox.originals,
        "uid": uid,
        "gid": gid,
        "memory": sandbox.memory,
        "nano_cpus": sandbox.nano_cpus,
        "pids": sandbox.pids,
        "open_files": sandbox.open_files,
        "file_size": sandbox.file_size,
        "working_set": sandbox.working_set,
        "shm_size": min(64 << 20, sandbox.memory // 4),
        "tmpfs": {"/tmp": sandbox.tmp_size, stack.HOME: sandbox.home_size},
        "mounts": [
            {"bind": os.path.join(folder, "passwd"), "target": "/etc/passwd"},
            {"bind": os.path.join(folder, "group"), "target": "/etc/group"},
        ],
    }


def size_of(description: stack.Description) -> int:
    """Return the bytes that a sandbox's working set may take; what an earlier release has written does not say."""
    return int(description.get("working_set", spec.size(spec.WORKING_SET)))


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

    The start of the machine is waited for: it is short, and nobody has asked for it.

    Yields whether the last one who held it was killed before it let go.
    """
    os.makedirs(os.path.dirname(places.lock(name)), mode=0o755, exist_ok=True)
    with open(places.lock(name), "a+", encoding="utf-8") as file:
        seen: str | None = None
        since = 0.0
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                file.seek(0)
                other = file.read().strip()
                if other != seen:
                    seen, since = other, time.monotonic()
                # A holder has no name yet when it has just come, and none any more when it is about to go.
                patience = {START: _PATIENCE, "": _NAMELESS}.get(other, 0)
                if time.monotonic() - since >= patience:
                    raise Busy(f"sandbox {name} is busy with {other or 'another command'}: wait until it ends") from error
            time.sleep(0.1)
        file.seek(0)
        crashed = bool(file.read())
        file.truncate(0)
        file.write(who)
        file.flush()
        yield crashed
        file.truncate(0)


@contextlib.contextmanager
def still(places: Places, name: str) -> t.Iterator[t.TextIO]:
    """Hold off whoever else would freeze or thaw a sandbox. What is in the yielded file says that a killed holder left it frozen."""
    path = os.path.join(places.run, "still", name)
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    with open(path, "a+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        yield file


def stands(places: Places, name: str) -> bool:
    """Tell whether somebody who froze a sandbox was killed before it was thawed."""
    try:
        with open(os.path.join(places.run, "still", name), encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return bool(file.read())
    except (FileNotFoundError, BlockingIOError):
        return False


def end_run(host: Host, name: str, why: str) -> None:
    """Kill what runs in a sandbox; the run that goes on there tells *why* in its bundle."""
    path = pathlib.Path(host.places.run, "ended", name)
    with acts.recorded(host.places, "run.stop", "process_activity", sandbox=name, reason=why):
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        path.write_text(why, encoding="utf-8")
        host.docker.kill(stack.container_name(name))


def ended(places: Places, name: str) -> str:
    """Return once why somebody ended the run in a sandbox, "" when nobody did."""
    path = pathlib.Path(places.run, "ended", name)
    try:
        why = path.read_text(encoding="utf-8")
        path.unlink()
    except FileNotFoundError:
        return ""
    return why


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


def _read_at(folder: int, name: str) -> str:
    with open(os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder), encoding="ascii") as file:
        return file.read()


def _write_at(folder: int, name: str, text: str) -> None:
    with open(os.open(name, os.O_WRONLY | os.O_CLOEXEC, dir_fd=folder), "w", encoding="ascii") as file:
        file.write(text)


def _remove(folder: str) -> None:
    # Not by Python's own, which recurses: a few thousand folders in each other would stop it, and every run with it.
    subprocess.run(["rm", "-rf", "--", folder], capture_output=True, check=False)


def start(docker: Docker, container: str) -> None:
    """Start the container of a sandbox, and cap what its TCP connections hold where its memory does not count that: on cgroup v1."""
    docker.start(container)
    if (inspected := docker.inspect(container)) and (path := _tcp_cap(inspected)):
        with open(path, "w", encoding="ascii") as file:
            file.write(str(stack.sockets(inspected["HostConfig"]["Memory"])))


def _tcp_cap(inspected: dict[str, t.Any]) -> str | None:
    folder = freezer.folder_of(inspected["State"]["Pid"], "memory")
    return folder and f"{folder}/memory.kmem.tcp.limit_in_bytes"


def _capped(inspected: dict[str, t.Any]) -> bool:
    """Return whether :func:`start` came to its end: one that was killed leaves a container that runs without the cap."""
    try:
        path = _tcp_cap(inspected)
        return path is None or int(pathlib.Path(path).read_text(encoding="ascii")) == stack.sockets(inspected["HostConfig"]["Memory"])
    except OSError:
        # It has ended since.
        return True


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
        return WorkingSet(self.places, name, description["originals"], description["uid"], description["gid"], size_of(description))

    def command(self, description: stack.Description, argv: t.Sequence[str]) -> list[str]:
        """Return what the engine's exec is given so that *argv* runs in a sandbox under its seccomp profile."""
        return list(argv) if stack.runtime(description) == "runc" else seccomp.under(self.seccomp(), argv)

    def execute(self, name: str, description: stack.Description, argv: t.Sequence[str], timeout: float) -> tuple[int, bytes]:
        """Run a command in a sandbox as :meth:`Docker.execute` does, and under its seccomp profile."""
        return self.docker.execute(stack.container_name(name), self.command(description, argv), timeout=timeout)

    def differences(self, name: str, description: stack.Description) -> list[str]:
        """Return what keeps a sandbox from running as described, a reason each; reads only."""
        try:
            inspected = self.docker.inspect(stack.container_name(name))
        except Late:
            return ["hangs"]
        found = []
        for volume, options in stack.volumes(description).items():
            known = self.docker.volume(volume)
            if known is None or known["Options"] != options:
                found.append(f"volume {volume} {'is missing' if known is None else 'has other options'}")
            elif "ro" not in options["o"].split(",") and any("ro" in mount.shared for mount in mounts.mounted(known["Mountpoint"])):
                # So the kernel mounts an overlay in which it has no room.
                found.append(f"volume {volume} is mounted read-only")
        if inspected is None:
            return [*found, "has no container"]
        found += stack.drift(stack.container(name, description, self.seccomp()), inspected)
        if stands(self.places, name):
            found.append(STANDS)
        if not inspected["State"]["Running"]:
            found.append("does not run")
        elif inspected["State"]["Paused"]:
            found.append("is paused")
        elif not _capped(inspected):
            found.append("has no cap on the memory of its TCP connections")
        if working_set := self.working_set(name, description):
            found += working_set.mount_problems()
            if short := working_set.short():
                found.append(short)
            if os.path.exists(os.path.join(working_set.snapshots, "journal.json")):
                found.append("has a restore that is not finished")
        return found

    def bring_up(self, name: str, description: stack.Description, reasons: t.Sequence[str], labels: dict[str, str] | None = None) -> None:
        """Make a sandbox run as described, anew unless it only was stopped or paused. The caller holds the sandbox."""
        with acts.recorded(self.places, "sandbox.up", "application_lifecycle", sandbox=name, reason=acts.reasons(reasons)):
            self._bring_up(name, description, reasons, labels or {})

    def _bring_up(self, name: str, description: stack.Description, reasons: t.Sequence[str], labels: dict[str, str]) -> None:
        container = stack.container_name(name)
        if STANDS in reasons:
            ended = self.thaw(name)
            reasons = [reason for reason in reasons if reason != STANDS] or ["does not run"] * ended
            if not reasons:
                return
        if reasons == ["is paused"]:
            self.docker.unpause(container)
            return
        working_set = self.working_set(name, description)
        if working_set and reasons == [working_set.short()]:
            working_set.mount_delta()
            return
        # First: the engine makes no container whose mounts are not there.
        self._sockets(description)
        if reasons != ["does not run"]:
            self.remove(container)
            self._make(name, description, labels)
        if working_set is None:
            self.start(name, description)
            return
        workset.ensure_run(self.places)
        try:
            working_set.mount_delta()
            if working_set.lower_problem():
                working_set.mount_lower()
        except mounts.MountError as error:
            raise SandboxError(f"sandbox {name}: {error}") from error
        if problem := working_set.delta_problem():
            raise SandboxError(f"sandbox {name}: its working set {problem}: restore it, or run teardown and --tags fs for a new one")
        history.History(working_set).finish()
        working_set.release()
        with working_set.lent():
            self.start(name, description)

    def start(self, name: str, description: stack.Description) -> None:
        """Start the container of a sandbox and wait until its first process listens. SandboxError when it does not."""
        start(self.docker, stack.container_name(name))
        wanted = set(map(int, description["forwards"]))
        deadline = time.monotonic() + _LISTENS
        while not wanted <= self._listening(name, description):
            if time.monotonic() > deadline:
                raise SandboxError(f"sandbox {name}: its first process does not listen at {', '.join(map(str, sorted(wanted)))}: build its image anew")
            time.sleep(0.02)

    def _listening(self, name: str, description: stack.Description) -> set[int]:
        if not description["forwards"]:
            return set()
        if stack.runtime(description) != "runc":
            # The host sees nothing of gVisor's network.
            _code, said = self.execute(name, description, ["/bin/cat", "/proc/net/tcp"], timeout=_LISTENS)
            return stack.listening(said.decode("ascii", "replace"))
        inspected = self.docker.inspect(stack.container_name(name))
        try:
            first = os.open(f"/proc/{inspected['State']['Pid'] if inspected else 0}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return set()
        try:
            found = stack.listening(_read_at(first, "net/tcp"))
            # Among many that are smaller it would be the first to go when the sandbox's memory is full, and the sandbox with it.
            # By its cgroup: the number may be another's by now.
            if found and inspected and inspected["Id"] in _read_at(first, "cgroup"):
                _write_at(first, "oom_score_adj", "0")
        except OSError:
            return set()
        finally:
            os.close(first)
        return found

    def _sockets(self, description: stack.Description) -> None:
        """Make the folders of sockets that a sandbox mounts: after a start of the machine they are gone."""
        of = {services.sandboxes_folder(self.places, service): service for service in services.NAMES}
        for mount in description["mounts"]:
            folder, name = os.path.split(mount.get("bind", ""))
            if folder in of:
                try:
                    services.make_sandbox_folder(self.places, of[folder], name)
                except services.ServiceError as error:
                    raise SandboxError(str(error)) from error

    def thaw(self, name: str) -> bool:
        """Let a sandbox go on that somebody froze who was killed. Returns whether it ended: one that was killed as it stood does."""
        container = stack.container_name(name)
        with still(self.places, name) as mark:
            found = self.docker.inspect(container)
            frozen = freezer.of(found["State"]["Pid"]) if found and mark.read() and found["State"]["Pid"] else None
            doomed = frozen is not None and frozen.doomed
            if frozen and not (found and found["State"]["Paused"]):
                frozen.thaw()
            if doomed:
                # The engine may take a moment to see that it has ended.
                self.docker.stop(container, grace=0)
            mark.truncate(0)
        return doomed

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
            acts.write_files(self.places, steps)
            pathlib.Path(self.places.down).unlink(missing_ok=True)
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
        with acts.recorded(self.places, "sandbox.down", "application_lifecycle", sandbox=name):
            self._take_down(name)

    def _take_down(self, name: str) -> None:
        container = stack.container_name(name)
        self.remove(container)
        self.remove(stack.tool_name(name))
        for volume in (f"{container}-workspace", f"{container}-originals"):
            self.docker.remove_volume(volume)
        own = self.places.sandbox(name) + "/"
        for mount in reversed(mounts.mounted()):
            if mount.point == self.places.lower(name) or mount.point.startswith(own):
                mounts.unmount(mount.point)
        with contextlib.suppress(FileNotFoundError):
            os.rmdir(self.places.lower(name))

    def forget(self, name: str) -> None:
        """Remove everything of a sandbox, its working set too, but never a bundle."""
        with acts.recorded(self.places, "sandbox.purge", "application_lifecycle", sandbox=name):
            self._take_down(name)
            folder = self.places.sandbox(name)
            # Gone at once, whenever this is killed: half a folder would be a sandbox that has lost its changes. What is left of
            # it then goes with throw-away sandboxes, for it is called like one.
            gone = f"{folder}.gone"
            _remove(gone)
            with contextlib.suppress(FileNotFoundError):
                os.rename(folder, gone)
            _remove(gone)
            with uid_table(self.places) as table:
                table.pop(name, None)

    def strays(self, stacked: t.Collection[str]) -> list[str]:
        """Return the names of sandboxes that have a container but are not in the stack, nor a run that goes on."""
        names = {item["Labels"].get(f"{stack.LABEL}.sandbox", "") for item in self.docker.containers(f"{stack.LABEL}=sandbox")}
        return sorted(name for name in names if name and name not in stacked and holder(self.places, name) is None)
