# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Services on a host: small processes in containers of their own, each with a user, a configuration and a folder of sockets.

A service is *described* in ``configs/services.d/NAME.json``, by what differs between services; all else, its walls above all,
is the same for each and made here. Its *configuration* is ``configs/services/NAME.json``, which it reads at its start and
again on SIGHUP. Descriptions and configurations have locks, and nothing is started from what disagrees with its own.

Unlike a sandbox, a service is started again by the engine whenever it ends. What it needs from ``/run`` is not there after a
start of the machine, so that the engine fails then, and :func:`boot.up` brings it up.
"""

from __future__ import annotations

import contextlib
import dataclasses
import grp
import json
import os
import pathlib
import pwd
import signal
import subprocess
import time
import typing as t

from ansible_collections.dockersandbox.guardrails.plugins.module_utils import (
    acts,
    canonical,
    llm_ways,
    lock,
    recorder,
    service_images,
    stack,
    wall,
    workset,
)
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.docker_api import Docker
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.places import Places

RECORDER = "recorder"
# In the order in which they start, so that whoever records finds the recorder; they end in the reverse one.
NAMES = (RECORDER, "tracer", "egress", "simulator", "llm", "control", "warden", "monitor")
NETWORKS = ("none", "own")
SOCKETS = "/run/guardrails"  # in a service's container
CONFIGS = "/etc/guardrails"
READY = 30  # seconds that a service may take to answer
_GRACE = 15  # seconds that it may take to end
_REFUSED = 2  # seconds in which it takes a configuration, or not
_PAUSE = 0.05
_TMP = 16 << 20
# Whoever has a network of his own asks the resolvers that his configuration names. The engine's own resolver is there in any case,
# past the wall: it is given one that does not exist (RFC 5737).
_NO_RESOLVER = "192.0.2.1"
_WALL = "its wall"
# What the configuration of each service with a network of its own opens.
_OPENINGS: dict[str, t.Callable[[dict[str, t.Any]], wall.Openings]] = {"egress": wall.openings, "llm": llm_ways.openings}

Description = dict[str, t.Any]


class ServiceError(Exception):
    """A service is not as it must be; the text is one line for the operator."""


class Mount(t.NamedTuple):
    """A folder or file of the host in a service's container.

    With *write* it is a folder of the service's own: it is made when it is not there, with *mode* and *group*.
    """

    source: str
    target: str
    write: bool = False
    mode: int = 0o700
    group: str = ""


def account(name: str) -> str:
    """Return the user, and the group, that a service runs as; the container is called so too."""
    return f"guardrails-{name}"


def part_path(places: Places, name: str) -> pathlib.Path:
    """Return the file that describes a service."""
    return pathlib.Path(places.home, "configs", "services.d", f"{name}.json")


def config_path(places: Places, name: str) -> pathlib.Path:
    """Return the file that a service reads as its configuration."""
    return pathlib.Path(places.home, "configs", "services", f"{name}.json")


def run_folder(places: Places, name: str) -> str:
    """Return the folder of a service's sockets, which it alone may enter, and root."""
    return os.path.join(places.run, name)


def sender_folder(places: Places, name: str) -> str:
    """Return the folder of the one socket through which *name* records."""
    return os.path.join(run_folder(places, RECORDER), name)


def sandboxes_folder(places: Places, name: str) -> str:
    """Return the folder that holds a folder for each sandbox with the one socket through which that reaches the service."""
    return os.path.join(run_folder(places, name), "sandboxes")


def make_sandbox_folder(places: Places, name: str, sandbox: str) -> None:
    """Make the folder of a sandbox's socket. ServiceError when its owner has no account and gets none, OSError when a link is in its way.

    The service may replace what is in its own folder: a link there would have the engine mount another place in the sandbox.
    """
    # A home that was restored on another machine has the sandbox described before the service is there.
    owner = ids(name) or make_account(name)
    workset.ensure_run(places)
    _folder(run_folder(places, name), 0o700, *owner)
    _folder(sandboxes_folder(places, name), 0o755, *owner)
    _folder(os.path.join(sandboxes_folder(places, name), sandbox), 0o755, *owner)


def text(content: t.Any) -> bytes:
    """Return *content* as the files hold it: indented, because people read it too."""
    return (json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def described(places: Places) -> dict[str, Description]:
    """Return every service of this host, in the order in which they start. LockError when a description was tampered with."""
    found = {}
    for name in NAMES:
        path = part_path(places, name)
        problem = lock.check(path)
        if problem and problem.kind == "absent":
            continue
        if problem:
            raise lock.LockError(str(problem))
        found[name] = json.loads(path.read_bytes())
    return found


def image_recipe(places: Places) -> pathlib.Path:
    """Return the Dockerfile of the image that services run from."""
    return pathlib.Path(places.home, "configs", f"Dockerfile.{service_images.NAME}")


def image(places: Places) -> str:
    """Return the tag of the image that services run from, as its Dockerfile tells it."""
    path = image_recipe(places)
    try:
        return service_images.tag(service_images.NAME, path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ServiceError(f"{path} is not there: run phase env (--tags env) first, which builds the image of the services") from None


# -- accounts


def ids(name: str) -> tuple[int, int] | None:
    """Return the uid and gid that a service runs as, None while there is no such account."""
    try:
        found = pwd.getpwnam(account(name))
    except KeyError:
        return None
    return found.pw_uid, found.pw_gid


def make_account(name: str) -> tuple[int, int]:
    """Make the account of a service: a user of the system without a shell, a password or a home."""
    command = ["useradd", "--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin"]
    done = subprocess.run([*command, "--comment", f"DockerSandboxApp {name}", account(name)], capture_output=True, text=True, check=False)
    made = ids(name)
    if made is None:
        raise ServiceError(f"service {name}: its account {account(name)} cannot be made: {' '.join(done.stderr.split())}")
    return made


# -- containers


def container(name: str, description: Description, places: Places, seccomp: str) -> dict[str, t.Any]:
    """Return the body of the engine's create call for a service; *seccomp* is the profile's JSON text.

    The label ``…spec`` is the sha256 of all the rest: a container that carries another one is made anew.
    """
    mounts = [Mount(**mount) for mount in description["mounts"]]
    mounts.append(Mount(os.path.dirname(config_path(places, name)), CONFIGS))
    mounts.append(Mount(run_folder(places, name), f"{SOCKETS}/{name}", write=True))
    if name != RECORDER:
        mounts.append(Mount(sender_folder(places, name), f"{SOCKETS}/{RECORDER}"))
    body: dict[str, t.Any] = {
        "Image": description["image"],
        "Hostname": name,
        "User": f"{description['uid']}:{description['gid']}",
        "WorkingDir": "/",
        "Env": ["HOME=/tmp", "LANG=C.UTF-8"],
        "Entrypoint": [*service_images.PROGRAM, f"dockersandbox.{name}"],
        "Cmd": [],
        "StopTimeout": _GRACE,
        "HostConfig": {
            "Runtime": "runc",
            "NetworkMode": account(name) if description["network"] == "own" else "none",
            **({"Dns": [_NO_RESOLVER]} if description["network"] == "own" else {}),
            "ReadonlyRootfs": True,
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges", f"seccomp={seccomp}"],
            "MaskedPaths": list(stack.MASKED),
            "ReadonlyPaths": list(stack.READ_ONLY),
            "Memory": description["memory"],
            "MemorySwap": description["memory"],
            "NanoCpus": description["nano_cpus"],
            "PidsLimit": description["pids"],
            # Sandboxes go first should the host run out of memory.
            "OomScoreAdj": 0,
            "Ulimits": [{"Name": key, "Soft": value, "Hard": value} for key, value in (("core", 1), ("nofile", description["open_files"]))],
            "Tmpfs": {"/tmp": f"rw,nosuid,nodev,noexec,size={_TMP},mode=1777"},
            "Mounts": [{"Type": "bind", "Source": mount.source, "Target": mount.target, "ReadOnly": not mount.write} for mount in mounts],
            "IpcMode": "private",
            "CgroupnsMode": "private",
            "Init": False,
            "RestartPolicy": {"Name": "unless-stopped"},
            "LogConfig": {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "3"}},
        },
    }
    labels = {stack.LABEL: "service", f"{stack.LABEL}.service": name}
    body["Labels"] = {**labels, f"{stack.LABEL}.spec": canonical.sha256_hex(canonical.dumps({**body, "Labels": labels}))}
    return body


@dataclasses.dataclass
class Converged:
    """What converging did, or would do: reasons, files written, and the texts of these before and after."""

    actions: list[str]
    written: list[str]
    before: str = ""
    after: str = ""


@dataclasses.dataclass(frozen=True)
class Services:
    """The services of one host: its engine and its places.

    *profile* is the seccomp profile that is about to be written to its place, when there is one.
    """

    docker: Docker
    places: Places
    profile: str = ""

    def differences(self, name: str, description: Description) -> list[str]:
        """Return what keeps a service from running as described, a reason each; reads only."""
        inspected = self.docker.inspect(account(name))
        if inspected is None:
            return ["has no container"]
        found = stack.drift(container(name, description, self.places, self._seccomp()), inspected)
        if inspected["State"]["Restarting"]:
            found.append("ends whenever it is started")
        elif not inspected["State"]["Running"]:
            found.append("does not run")
        elif inspected["State"]["Paused"]:
            found.append("is paused")
        if description["network"] == "own":
            found += self._surroundings(name)
        return found

    def _surroundings(self, name: str) -> list[str]:
        """Return what is amiss with a service's network and with the wall around it."""
        known = self.docker.network(account(name))
        if known is None or known["Options"] != _bridge_options(name):
            return ["its network is missing" if known is None else "its network has other options"]
        try:
            problem = wall.problem(name, self._wall(name))
        except wall.WallError as error:
            problem = str(error)
        return [f"{_WALL} {problem}"] if problem else []

    def _wall(self, name: str) -> str:
        return wall.render(name, _OPENINGS[name](json.loads(config_path(self.places, name).read_bytes())))

    def _surround(self, name: str) -> None:
        """Make a service's network and the wall around it, the wall first."""
        try:
            wall.raise_(self._wall(name))
        except wall.WallError as error:
            raise ServiceError(f"service {name}: {_WALL} is not up: {error}") from None
        known = self.docker.network(account(name))
        if known is not None and known["Options"] != _bridge_options(name):
            self._end(name)
            self.docker.remove_network(account(name))
            known = None
        if known is None:
            self.docker.create_network(account(name), _bridge_options(name), {stack.LABEL: "network"})

    def _clear(self, name: str) -> None:
        """Remove a service's network, and then the wall around it."""
        self.docker.remove_network(account(name))
        wall.remove(name)

    def status(self, name: str, patience: float = recorder.PATIENCE) -> dict[str, t.Any]:
        """Return what a service says of itself on its ``admin.sock``. Raises RecorderError."""
        with recorder.Client(recorder.admin_socket(self.places.run, name), patience) as client:
            return client.command({"command": "status"})

    def bring_up(self, name: str, description: Description, reasons: t.Sequence[str]) -> None:
        """Make a service run as described, anew unless it only had ended, and wait until it answers. Raises ServiceError."""
        for path in (part_path(self.places, name), config_path(self.places, name)):
            if problem := lock.check(path):
                raise ServiceError(f"service {name}: {problem}")
        with self._on_record(name, "service.start", reasons):
            self._folders(name, description)
            if description["network"] == "own":
                self._surround(name)
            # The wall is up by now.
            left = [reason for reason in reasons if not reason.startswith(_WALL)]
            if left == ["is paused"]:
                self.docker.unpause(account(name))
            elif left:
                if left != ["does not run"]:
                    self._end(name)
                    if description["network"] != "own":
                        self._clear(name)
                    self.docker.create(account(name), container(name, description, self.places, self._seccomp()))
                self.docker.start(account(name))
            self._wait(name, lambda _said: True)

    def converge(self, name: str, wanted: Description, config: dict[str, t.Any], keep: bool, check: bool) -> Converged:
        """Make a service run as *wanted* (a description without uid and gid) with *config*; with *keep* one that it has stays.

        A changed configuration alone reaches a service that runs by SIGHUP. When it refuses that, the file is put back
        and ServiceError raised. With *check* nothing is changed: what would be is returned.
        """
        done = Converged([], [])
        there = ids(name)
        if there is None:
            done.actions.append(f"Made the account {account(name)}: it was not there")
            there = (-1, -1) if check else make_account(name)
        description = {**wanted, "uid": there[0], "gid": there[1]}
        path = config_path(self.places, name)
        kept = keep and path.exists() and lock.check(path) is None
        files = [lock.Wanted(part_path(self.places, name), text(description), 0o644, 0, 0)]
        if not kept:
            # Its own group may read it: other services have their configurations in the same folder.
            files.append(lock.Wanted(path, text(config), 0o640, 0, there[1]))
        steps = lock.plan(files)
        configured = [step for step in steps if step.wanted.path == path and step.does == "write"]
        for step in steps:
            done.actions.append(step.text)
            done.written.append(str(step.wanted.path))
            done.before += (step.before or b"").decode()
            done.after += (step.wanted.content or b"").decode()
        if steps and not check:
            with self._on_record(name, "service.describe", [step.text for step in steps]):
                for step in steps:
                    lock.apply(step)
        reasons = self.differences(name, description) if os.path.exists(self.docker.path) else ["there is no engine yet"]
        if configured:
            # It follows the configuration, once the service has taken that.
            reasons = [reason for reason in reasons if not reason.startswith(_WALL)]
        if reasons:
            done.actions.append(f"Brought up service {name}: {', '.join(reasons)}")
            if not check:
                self._begin(name, description, reasons, first=any(step.wanted.path == path and step.before is None for step in steps))
        elif configured:
            done.actions.append(f"Had service {name} read its configuration again")
            if not check:
                with self._on_record(name, "service.configure", done.actions):
                    self._reconfigure(name, configured[0])
                    if description["network"] == "own":
                        self._surround(name)
        elif not check:
            self._wait(name, lambda _said: True)
        return done

    def _begin(self, name: str, description: Description, reasons: t.Sequence[str], first: bool) -> None:
        try:
            self.bring_up(name, description, reasons)
        except ServiceError:
            # A service that never ran must not count as one that only fails to answer.
            if first:
                self.forget(name)
            raise
        # Whoever brings a service up means to undo the teardown.
        pathlib.Path(self.places.down).unlink(missing_ok=True)

    def take_down(self, name: str) -> None:
        """End a service in its own time and remove its container and sockets; what it wrote stays."""
        with self._on_record(name, "service.stop", ["asked to"]):
            self._end(name)
            self._clear(name)
        subprocess.run(["rm", "-rf", "--", run_folder(self.places, name)], capture_output=True, check=False)

    def forget(self, name: str) -> None:
        """Take a service down and remove its description and its configuration; what it wrote stays, and so does its account."""
        self.take_down(name)
        for path in (part_path(self.places, name), config_path(self.places, name)):
            lock.remove_locked(path)

    def running(self) -> list[str]:
        """Return the services that have a container, in the order in which they end."""
        names = {item["Labels"].get(f"{stack.LABEL}.service", "") for item in self.docker.containers(f"{stack.LABEL}=service")}
        return [name for name in reversed(NAMES) if name in names]

    def _on_record(self, name: str, action: str, reasons: t.Iterable[str]) -> contextlib.AbstractContextManager[t.Any]:
        # The recorder tells of its own start and end. Of what else is done to it, when it can.
        if name == RECORDER and (action in ("service.start", "service.stop") or self.docker.running(account(name)) is None):
            return contextlib.nullcontext()
        return acts.recorded(self.places, action, "application_lifecycle", resource=name, reason=acts.reasons(reasons))

    def _end(self, name: str) -> None:
        """End a service in its own time, and remove its container."""
        self.docker.stop(account(name), grace=_GRACE)
        self.docker.remove(account(name))

    def _seccomp(self) -> str:
        profile = self.profile
        if not profile:
            with open(self.places.seccomp, encoding="utf-8") as file:
                profile = file.read()
        return canonical.dumps(json.loads(profile)).decode()

    def _folders(self, name: str, description: Description) -> None:
        """Make the folders that a service's container mounts, and give those that it may write to it."""
        uid, gid = description["uid"], description["gid"]
        # What is mounted there later would hide the sockets.
        workset.ensure_run(self.places)
        _folder(run_folder(self.places, name), 0o700, uid, gid)
        for mount in description["mounts"]:
            if mount["write"]:
                _folder(mount["source"], mount["mode"], uid, _group(mount["group"], gid))
        if name != RECORDER:
            recorders = ids(RECORDER)
            if recorders is None or not os.path.isdir(run_folder(self.places, RECORDER)):
                raise ServiceError(f"service {name}: there is no recorder on this host: run phase env (--tags env) first")
            _folder(sender_folder(self.places, name), 0o755, *recorders)

    def _wait(self, name: str, holds: t.Callable[[dict[str, t.Any]], bool]) -> None:
        """Wait until a service answers with what *holds*. Raises ServiceError with its last words."""
        begun = time.monotonic()
        problem = ""
        while time.monotonic() < begun + READY:
            try:
                said = self.status(name, patience=1)
            except recorder.RecorderError as error:
                problem = str(error)
            else:
                if holds(said):
                    return
                problem = str(said.get("problem") or "it goes on as before")
                # An earlier problem may be what it still tells.
                if said.get("problem") and time.monotonic() > begun + _REFUSED:
                    break
            time.sleep(_PAUSE)
        last = " ".join(self.docker.logs(account(name), 3).split())
        raise ServiceError(f"service {name}: {problem}" + (f" (its last words: {last[-400:]})" if last else ""))

    def _reconfigure(self, name: str, step: lock.Step) -> None:
        digest = canonical.sha256_hex(step.wanted.content or b"")
        try:
            self._hang_up(name)
            self._wait(name, lambda said: said.get("config_sha256") == digest)
        except ServiceError:
            if step.before is not None:
                lock.write_locked(step.wanted.path, step.before, *step.wanted[2:])
                self._hang_up(name)
            raise

    def _hang_up(self, name: str) -> None:
        """Send SIGHUP to a service's first process, and not through the engine, which would not start it again then."""
        inspected = self.docker.inspect(account(name))
        pid = inspected["State"]["Pid"] if inspected else 0
        try:
            handle = os.pidfd_open(pid)
            try:
                # Its number may be another's by now, whom the signal would end.
                cgroups = pathlib.Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8")
                if inspected and inspected["Id"] in cgroups:
                    signal.pidfd_send_signal(handle, signal.SIGHUP)
                    return
            finally:
                os.close(handle)
        except OSError:
            pass
        raise ServiceError(f"service {name}: has ended; see: docker logs {account(name)}")


def _bridge_options(name: str) -> dict[str, str]:
    return {"com.docker.network.bridge.name": wall.bridge(name), "com.docker.network.bridge.enable_icc": "false"}


def _folder(path: str, mode: int, uid: int, gid: int) -> None:
    """Make sure that a folder is there with this mode and owner; one that is a link is refused."""
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fchown(handle, uid, gid)
        os.fchmod(handle, mode)
    finally:
        os.close(handle)


def _group(name: str, default: int) -> int:
    return grp.getgrnam(name).gr_gid if name else default
