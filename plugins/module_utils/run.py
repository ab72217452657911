# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A run: one command in a sandbox, from the proof that the originals are untouched to the sealed bundle."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import secrets
import shutil
import threading
import time
import typing as t

from ansible_collections.dockersandbox.guardrails.plugins.module_utils import bundle, changes, sandboxes, seal, spec, stack, workset
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.docker_api import Docker, DockerError, Stream
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.sandboxes import Host, SandboxError
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.workset import OriginalsChanged, WorkingSet

PREDICATE = "bundle"
_PARTIAL = ".partial"
# In a sandbox only its first process and what an exec started have no parent: the latter is the run's command.
# Nothing here forks: a sandbox that is full of processes must take a signal most of all.
_SIGNAL = r"""
exec 2>/dev/null
for stat in /proc/[0-9]*/stat; do
  line=
  while IFS= read -r part || [ -n "$part" ]; do line="$line$part"; done < "$stat" || continue
  pid=${line%% *}
  set -- ${line##*) }
  [ "$2" = 0 ] && [ "$pid" != 1 ] && [ "$pid" != $$ ] && kill -SIGNAL "$pid"
done
exit 0
"""


@dataclasses.dataclass
class Result:
    """What came of a run. *seconds* are wall times by step; *flagged* and *not_carried* are path → reason."""

    run: str
    sandbox: str
    exit_code: int
    bundle: str
    changes: dict[str, int]
    originals: list[str]
    flagged: dict[str, str]
    not_carried: dict[str, str]
    seconds: dict[str, float]


class Terminal(t.Protocol):
    """The caller's side of a command's streams."""

    tty: bool
    stdin: bool

    def start(self, stream: Stream, resize: t.Callable[[int, int], None], send_signal: t.Callable[[str], None]) -> None:
        """Begin to feed *stream* with input, and to pass on sizes (rows, columns) and signals (names without SIG)."""

    def write(self, kind: int, data: bytes) -> None:
        """Take what the command wrote: kind 1 to its output, 2 to its errors."""

    def stop(self) -> None:
        """The command has ended."""


def run_id() -> str:
    """Return a new run's id: its start in UTC and four random digits, so that ids sort by time."""
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()) + "-" + secrets.token_hex(2)


def run(
    host: Host,
    name: str,
    argv: t.Sequence[str],
    terminal: Terminal,
    originals: str | None = None,
    progress: workset.Progress | None = None,
) -> Result:
    """Run *argv* in the sandbox *name* and make its bundle.

    With *originals* it runs in a throw-away sandbox of the same shape over that folder. Raises Busy, SandboxError,
    WorkingSetError or DockerError, each before the command has begun, or DockerError when the engine is lost later.
    """
    argv = spec.argv(argv)
    description = described(host, name)
    this = run_id()
    reap(host)
    if originals is None:
        with sandboxes.held(host.places, name, f"run {this}") as crashed:
            return _Run(host, name, name, description, this, terminal, progress).go(argv, crashed)
    with throwaway(host, name, description, originals, progress) as (other, reshaped):
        return _Run(host, other, name, reshaped, this, terminal, progress).go(argv, False)


def described(host: Host, name: str) -> stack.Description:
    """Return the description of a sandbox that commands can run in; SandboxError when there is none of that name."""
    known = sandboxes.read_stack(host.places)
    if name not in known:
        raise SandboxError(f"{name}: is not a sandbox of this host: there is {', '.join(sorted(known)) or 'none: run site.yml'}")
    if host.working_set(name, known[name]) is None:
        raise SandboxError(f"sandbox {name}: has no working set: run phase fs (--tags fs) first")
    return known[name]


@contextlib.contextmanager
def throwaway(
    host: Host, name: str, shape: stack.Description, originals: str, progress: workset.Progress | None = None
) -> t.Iterator[tuple[str, stack.Description]]:
    """Yield a sandbox of the *shape* of *name* over *originals* that is gone afterwards: its name and description."""
    path = spec.originals_path(originals)
    other = f"{name}.{secrets.token_hex(3)}"
    with contextlib.ExitStack() as gone:
        gone.enter_context(sandboxes.held(host.places, other, f"the throw-away sandbox {other}"))
        gone.callback(_forget, host, other)
        declared = spec.parse([{"name": name, "originals": path}], ["generic"])
        if problems := workset.originals_problems(declared, host.places):
            raise SandboxError("; ".join(problems))
        uid, gid = _uid(host, dataclasses.replace(declared[0], name=other))
        workset.ensure_run(host.places)
        working_set = WorkingSet(host.places, other, path, uid, gid)
        sandboxes.author(sandboxes.accounts_files(host.places, other, uid, gid))
        working_set.seal_baseline(working_set.scan(progress), f"throw-away sandbox {other}")
        working_set.make_delta()
        description = _reshaped(host, name, shape, working_set)
        host.bring_up(other, description, ["has no container"])
        yield other, description


def _uid(host: Host, sandbox: spec.Sandbox) -> tuple[int, int]:
    with sandboxes.uid_table(host.places) as table:
        return sandboxes.assign_uids([sandbox], table)[sandbox.name]


def _forget(host: Host, name: str) -> None:
    host.forget(name)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(host.places.lock(name))


def _reshaped(host: Host, name: str, shape: stack.Description, working_set: WorkingSet) -> stack.Description:
    """Return *shape* moved to another working set: what belongs to the sandbox *name* alone is replaced."""
    folder, other = host.places.sandbox(name), host.places.sandbox(working_set.name)
    part = working_set.part()
    kept = [mount for mount in shape["mounts"] if "bind" in mount]
    binds = [{**mount, "bind": other + mount["bind"].removeprefix(folder)} for mount in kept if mount["bind"].startswith(folder + "/")]
    return {
        **shape,
        "originals": working_set.originals,
        "uid": working_set.uid,
        "gid": working_set.gid,
        "mounts": [*binds, *part["mounts"]],
    }


def reap(host: Host) -> list[str]:
    """Remove what a killed run left of throw-away sandboxes, and return their names."""
    found = {*host.strays(()), *sandboxes.read_uids(host.places)}
    with contextlib.suppress(FileNotFoundError):
        found |= set(os.listdir(host.places.sandboxes))
    with contextlib.suppress(FileNotFoundError), os.scandir(os.path.dirname(host.places.lock(""))) as locks:
        # One that is empty may be somebody's who is just about to take it.
        found |= {lock.name for lock in locks if lock.stat().st_size}
    gone = []
    for name in sorted(name for name in found if "." in name and sandboxes.holder(host.places, name) is None):
        _forget(host, name)
        gone.append(name)
    return gone


class _Run:
    """The steps of one run; *name* is the sandbox it runs in, *of* the one that it is accounted to."""

    def __init__(
        self,
        host: Host,
        name: str,
        of: str,
        description: stack.Description,
        this: str,
        terminal: Terminal,
        progress: workset.Progress | None,
    ) -> None:
        self.host = host
        self.name = name
        self.of = of
        self.container = stack.container_name(name)
        self.description = description
        self.id = this
        self.terminal = terminal
        self.progress = progress
        self.seconds: dict[str, float] = {}
        self._mark = time.monotonic()
        self.working_set = t.cast(WorkingSet, host.working_set(name, description))

    def _step(self, word: str) -> None:
        now = time.monotonic()
        self.seconds[word] = round(now - self._mark, 3)
        self._mark = now

    def go(self, argv: list[str], crashed: bool) -> Result:
        """Run and bundle."""
        if differences := self.host.differences(self.name, self.description):
            self.host.bring_up(self.name, self.description, differences)
        elif crashed:
            sweep(self.host.docker, self.container)
        self._drop_partial()
        baseline = self.working_set.prove(self.progress)
        self._step("ready")
        started = seal.now()
        code = self._execute(argv)
        finished = seal.now()
        self._step("command")
        sweep(self.host.docker, self.container)
        changed = self._proof()
        facts = {
            "sandbox": self.of,
            "run": self.id,
            "baseline": baseline,
            "argv": argv,
            "image": self.description["image"],
            "exit_code": code,
            "started": started,
            "finished": finished,
            "originals": changed or ["unchanged"],
        }
        self._step("proof")
        folder, counts, summary = self._bundle(facts)
        self._step("bundle")
        told = (summary["flagged"], summary["not_carried"])
        return Result(self.id, self.of, code, folder, counts, changed, *told, self.seconds)

    def _proof(self) -> list[str]:
        try:
            self.working_set.prove(self.progress)
        except OriginalsChanged as error:
            return error.problems
        return []

    def _execute(self, argv: list[str]) -> int:
        docker = self.host.docker
        exec_id = docker.exec_create(
            self.container,
            {
                "Cmd": argv,
                "AttachStdin": self.terminal.stdin,
                "AttachStdout": True,
                "AttachStderr": True,
                "Tty": self.terminal.tty,
                "WorkingDir": "/workspace",
                "Env": [f"GUARDRAILS_RUN={self.id}", *([f"TERM={os.environ.get('TERM', 'xterm')}"] if self.terminal.tty else [])],
            },
        )
        stream = docker.exec_start(exec_id, self.terminal.tty)

        def resize(rows: int, columns: int) -> None:
            docker.exec_resize(exec_id, rows, columns)

        def send_signal(word: str) -> None:
            script = _SIGNAL.replace("SIGNAL", word)
            try:
                code, _said = docker.execute(self.container, ["/bin/sh", "-c", script], timeout=5)
            except DockerError:
                code = 1
            if code:
                # A sandbox that is too full to take a signal is stopped as a whole.
                docker.kill(self.container)

        self.terminal.start(stream, resize, send_signal)
        try:
            while chunk := stream.read():
                self.terminal.write(*chunk)
        finally:
            self.terminal.stop()
            stream.close()
        return self._exit_code(exec_id)

    def _exit_code(self, exec_id: str) -> int:
        # The stream may end a little before the engine has noted the exit, and long before when the command closed it.
        pause = 0.002
        while (code := self.host.docker.exec_code(exec_id)) is None:
            time.sleep(pause)
            pause = min(pause * 2, 0.25)
        return code

    def _drop_partial(self) -> None:
        folder = self.host.places.exports(self.of)
        with contextlib.suppress(FileNotFoundError):
            for entry in os.listdir(folder):
                if entry.startswith(".") and entry.endswith(_PARTIAL) and self.name == self.of:
                    shutil.rmtree(os.path.join(folder, entry))

    def _bundle(self, facts: dict[str, t.Any]) -> tuple[str, dict[str, int], dict[str, t.Any]]:
        folder = os.path.join(self.host.places.exports(self.of), self.id)
        os.makedirs(os.path.dirname(folder), mode=0o700, exist_ok=True)
        private = seal.load_private(self.host.places.host_key)

        def sign(subjects: dict[str, str], predicate: dict[str, t.Any]) -> dict[str, t.Any]:
            return seal.sign(seal.statement(subjects, PREDICATE, predicate), private)

        found = changes.read(self.working_set.upper, self.working_set.lower)
        summary = bundle.write(folder, found, self.working_set.upper, self.working_set.lower, self._tool, facts, sign)
        return folder, changes.counts(found), summary

    def _tool(self, argv: list[str], stdin: t.Iterable[bytes], stdout: t.BinaryIO) -> int:
        return run_tool(self.host, self.description["image"], stack.tool_name(self.name), argv, stdin, stdout)


def sweep(docker: Docker, container: str) -> None:
    """End every process of a sandbox but its first one; a sandbox that does not let go of them is started anew."""
    try:
        docker.execute(container, ["/bin/sh", "-c", "kill -KILL -1"], timeout=5)
        left = docker.call("GET", f"/containers/{container}/top", query={"ps_args": "-eo pid,comm"})["Processes"]
    except DockerError:
        left = None
    if left is None or len(left) > 1:
        docker.kill(container)
        docker.stop(container)
        docker.start(container)


def run_tool(host: Host, image: str, name: str, argv: list[str], stdin: t.Iterable[bytes], stdout: t.BinaryIO) -> int:
    """Run a tool over hostile content in a container of its own: no network, nothing mounted, no rights.

    *stdin* is fed to it, its output goes to *stdout*; returns its exit code. What it says of errors is raised as
    SandboxError when it fails.
    """
    docker = host.docker
    host.remove(name)
    body = {
        "Image": image,
        "Entrypoint": [],
        "Cmd": argv,
        "User": "65534:65534",
        "WorkingDir": "/tmp",
        "Env": ["HOME=/nonexistent", "LANG=C.UTF-8"],
        "OpenStdin": True,
        "StdinOnce": True,
        "AttachStdin": True,
        "AttachStdout": True,
        "AttachStderr": True,
        "Labels": {stack.LABEL: "tool"},
        "HostConfig": {
            "NetworkMode": "none",
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges", f"seccomp={host.seccomp()}"],
            "Memory": 1 << 30,
            "MemorySwap": 1 << 30,
            "PidsLimit": 64,
            # Memory is where a patch is made and proven fastest; it counts towards the cap above.
            "ShmSize": 512 << 20,
            "LogConfig": {"Type": "none"},
        },
    }
    docker.create(name, body)
    try:
        stream = docker.attach(name)
        docker.start(name)

        def feed() -> None:
            # A tool that ends early breaks the pipe; its exit code tells why.
            with contextlib.suppress(OSError):
                for chunk in stdin:
                    stream.write(chunk)
            stream.close_write()

        feeder = threading.Thread(target=feed, daemon=True)
        feeder.start()
        said = bytearray()
        while chunk := stream.read():
            if chunk[0] == 1:
                stdout.write(chunk[1])
            else:
                said += chunk[1][: max(0, 4096 - len(said))]
        feeder.join()
        stream.close()
        code = docker.wait(name)
        if code and said:
            raise SandboxError(f"the tool container failed ({code}): {said.decode('utf-8', 'replace').strip()}")
        return code
    finally:
        docker.remove(name)
