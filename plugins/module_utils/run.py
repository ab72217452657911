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

from ansible_collections.dockersandbox.guardrails.plugins.module_utils import (
    acts,
    bundle,
    canonical,
    changes,
    llm,
    recorder,
    rollback,
    sandboxes,
    seal,
    spec,
    stack,
    workset,
)
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.docker_api import KILLED, DockerError, Late, Stream
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.sandboxes import Host, SandboxError
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.workset import OriginalsChanged, WorkingSet, WorkingSetError

PREDICATE = "bundle"
_PARTIAL = ".partial"
_LOOK = 0.2  # seconds between two looks at what has no hard cap
_BEGIN = 60  # seconds in which a command must have begun
_GRACE = 10  # seconds that a command whose time is up has between TERM and KILL
_DIED = "the sandbox died of the command, which went over a cap on memory or processes, or somebody stopped it"
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
# Two are left when all have gone: the first process and this one. What is killed may take a moment to go.
_KILL = r"""
exec 2>/dev/null
for try in 1 2 3 4 5 6 7 8 9 10; do
  kill -KILL -1
  set -- /proc/[0-9]*
  [ $# -le 2 ] && exit 0
  sleep 0.05
done
exit 1
"""


@dataclasses.dataclass
class Result:
    """What came of a run. *seconds* are wall times by step; *flagged* and *not_carried* are path → reason.

    *ended* is why the command was ended from outside, empty when it ended by itself; *timed_out* that its time was up;
    *snapshots* are the ids of the working set's ``before`` and ``after``, empty where phase ``rollback`` was not run;
    *output* is how many bytes the command wrote.
    """

    run: str
    sandbox: str
    exit_code: int
    ended: str
    timed_out: bool
    bundle: str
    changes: dict[str, int]
    snapshots: dict[str, str]
    originals: list[str]
    flagged: dict[str, str]
    not_carried: dict[str, str]
    seconds: dict[str, float]
    output: int


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


def run(
    host: Host,
    name: str,
    argv: t.Sequence[str],
    terminal: Terminal,
    originals: str | None = None,
    progress: workset.Progress | None = None,
    timeout: int = 0,
) -> Result:
    """Run *argv* in the sandbox *name* and make its bundle. After *timeout* seconds, if that is not 0, the command is ended.

    With *originals* it runs in a throw-away sandbox of the same shape over that folder. Raises Busy, SandboxError,
    WorkingSetError, RecorderError or DockerError, each before the command has begun, or one of the last two when the recorder or the
    engine is lost later.
    """
    argv = spec.argv(argv)
    description = described(host, name)
    this = acts.run_id()
    reap(host)
    with (
        acts.traced(this),
        acts.recorded(
            host.places, "run.start", "process_activity", "run.end", sandbox=name, resource=originals or description["originals"], argv=argv
        ) as came,
        contextlib.ExitStack() as held,
    ):
        if originals is None:
            crashed = held.enter_context(sandboxes.held(host.places, name, f"run {this}"))
            one = _Run(host, name, name, description, this, terminal, progress, timeout)
        else:
            other, reshaped = held.enter_context(throwaway(host, name, description, originals, progress))
            crashed, one = False, _Run(host, other, name, reshaped, this, terminal, progress, timeout)
        held.enter_context(llm.counted(host.places, name, description, this))
        result = one.go(argv, crashed)
        came.outcome = "failure" if result.exit_code or result.originals else "success"
        came.reason = "; ".join([result.ended, *result.originals]).strip("; ") or None
        came.detail = {"exit_code": result.exit_code, "bytes": result.output, "bundle": result.bundle, **result.changes}
        return result


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
        working_set = WorkingSet(host.places, other, path, uid, gid, sandboxes.size_of(shape))
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
    # To services it is the sandbox *name*, and may no more than that.
    binds += [mount for mount in kept if mount["bind"].startswith(host.places.run + "/")]
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
        timeout: int,
    ) -> None:
        self.host = host
        self.name = name
        self.of = of
        self.container = stack.container_name(name)
        self.description = description
        self.id = this
        self.terminal = terminal
        self.progress = progress
        self.timeout = timeout
        self.timed_out = False
        self.seconds: dict[str, float] = {}
        self.ended = ""
        self.output = 0
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
            sweep(self.host, self.name, self.description)
        self._drop_partial()
        baseline = self.working_set.prove(self.progress)
        before = self._snapshot("before")
        self._step("ready")
        started = seal.now()
        sandboxes.ended(self.host.places, self.name)  # what was meant for another run
        with self._monitored():
            code = self._execute(argv)
        self.ended = sandboxes.ended(self.host.places, self.name) or self.ended
        finished = seal.now()
        self._step("command")
        sweep(self.host, self.name, self.description)
        changed = self._proof()
        snapshots, unsaved = {"before": before, "after": ""}, ""
        try:
            snapshots["after"] = self._snapshot("after")
        except (WorkingSetError, sandboxes.Busy, seal.SealError, recorder.RecorderError, OSError) as error:
            # What the command did is not lost with it.
            unsaved = str(error)
        facts = {
            "sandbox": self.of,
            "run": self.id,
            "baseline": baseline,
            "argv": argv,
            "image": self.description["image"],
            "runtime": stack.runtime(self.description),
            "timeout": self.timeout,
            "exit_code": code,
            "cap": self.working_set.cap(),
            "ended": self.ended,
            "started": started,
            "finished": finished,
            "originals": changed or ["unchanged"],
            "snapshots": snapshots,
        }
        self._step("proof")
        folder, counts, summary = self._bundle(facts)
        self._step("bundle")
        if unsaved:
            raise SandboxError(f"{unsaved}; the run's bundle is {folder}")
        told = (summary["flagged"], summary["not_carried"])
        return Result(self.id, self.of, code, self.ended, self.timed_out, folder, counts, snapshots, changed, *told, self.seconds, self.output)

    def _snapshot(self, word: str) -> str:
        # A throw-away sandbox has nothing that somebody would want back.
        return rollback.around_run(self.host, self.working_set, self.id, word) if self.name == self.of else ""

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
                "Cmd": self.host.command(self.description, argv),
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
                code, _said = self.host.execute(self.name, self.description, ["/bin/sh", "-c", script], timeout=5)
            except DockerError:
                code = 1
            if code:
                # A sandbox that is too full to take a signal is stopped as a whole.
                docker.kill(self.container)

        self.terminal.start(stream, resize, send_signal)
        try:
            try:
                docker.exec_begun(exec_id, stream, _BEGIN)
            except Late as error:
                docker.kill(self.container)
                raise SandboxError(f"sandbox {self.of}: {error}: it was stopped, and comes up again with the next run") from error
            with self._limited(send_signal), self._survived(stream) as died:
                while chunk := stream.read():
                    self.output += len(chunk[1])
                    self.terminal.write(*chunk)
                return self._exit_code(exec_id, died)
        finally:
            self.terminal.stop()
            stream.close()

    @contextlib.contextmanager
    def _limited(self, send_signal: t.Callable[[str], None]) -> t.Iterator[None]:
        """End the command when its time is up: by TERM, and after a grace by KILL, with all that it has started."""
        done = threading.Event()

        def watch() -> None:
            if done.wait(self.timeout):
                return
            self.ended = f"the command was ended: its {self.timeout} s were up"
            self.timed_out = True
            send_signal("TERM")
            if not done.wait(_GRACE) and not _killed(self.host, self.name, self.description):
                self.host.docker.kill(self.container)

        watcher = threading.Thread(target=watch, daemon=True)
        if self.timeout:
            watcher.start()
        try:
            yield
        finally:
            done.set()
            if self.timeout:
                watcher.join()

    @contextlib.contextmanager
    def _survived(self, stream: Stream) -> t.Iterator[threading.Event]:
        """Yield what is set when the sandbox dies, and say so at the end."""
        with self.host.docker.survived(self.container, stream) as died:
            yield died
        with contextlib.suppress(DockerError):
            if self.host.docker.running(self.container) is None:
                self.ended = self.ended or _DIED

    @contextlib.contextmanager
    def _monitored(self) -> t.Iterator[None]:
        """End the command when it outgrows a cap that is not a hard one. What was too much before may be cleared away."""
        if self.working_set.hard:
            yield
            return
        done = threading.Event()
        before = self.working_set.used()

        def watch() -> None:
            pause = _LOOK
            while not done.wait(pause):
                start = time.monotonic()
                try:
                    over = self.working_set.over(before)
                except changes.ChangesError as error:
                    over = str(error)
                if over:
                    self.ended = f"the command was ended: {over}"
                    self.host.docker.kill(self.container)
                    return
                # A large set takes long to measure: that must not take the machine.
                pause = max(_LOOK, 4 * (time.monotonic() - start))

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()

    def _exit_code(self, exec_id: str, died: threading.Event) -> int:
        # The stream may end a little before the engine has noted the exit, and long before when the command closed it.
        pause = 0.002
        while (code := self.host.docker.exec_code(exec_id)) is None:
            if died.is_set():
                return KILLED
            time.sleep(pause)
            pause = min(pause * 2, 0.25)
        return code

    def _drop_partial(self) -> None:
        """Clear what a run that was killed at its bundle has left."""
        self.host.remove(stack.tool_name(self.name))
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
        return run_tool(self.host, self.description, stack.tool_name(self.name), argv, stdin, stdout)


def _killed(host: Host, name: str, description: stack.Description) -> bool:
    """Kill every process of a sandbox but its first one, and tell whether all have gone."""
    try:
        code, _said = host.execute(name, description, ["/bin/sh", "-c", _KILL], timeout=10)
        return code == 0 and _alone(host, name, description)
    except DockerError:
        return False


def _alone(host: Host, name: str, description: stack.Description) -> bool:
    # A process that is quick enough could stop the one above, and write into it that all is well. gVisor shows the host none
    # of its processes, and lets nobody write into another's memory.
    if stack.runtime(description) != "runc":
        return True
    top = host.docker.call("GET", f"/containers/{stack.container_name(name)}/top", query={"ps_args": "-eo pid,comm"})
    return len(top["Processes"]) <= 1


def sweep(host: Host, name: str, description: stack.Description) -> None:
    """End every process of a sandbox but its first one; a sandbox that does not let go of them is started anew."""
    if _killed(host, name, description):
        return
    container, working_set = stack.container_name(name), t.cast(WorkingSet, host.working_set(name, description))
    host.docker.kill(container)
    host.docker.stop(container)
    with working_set.lent():
        host.start(name, description)


def run_tool(
    host: Host, description: stack.Description, name: str, argv: list[str], stdin: t.Iterable[bytes], stdout: t.BinaryIO
) -> int:
    """Run a tool over hostile content in a container of its own: no network, nothing mounted, no rights.

    It gets the image and the processors of the sandbox. *stdin* is fed to it, its output goes to *stdout*; returns its
    exit code. What it says of errors is raised as SandboxError when it fails otherwise than in one of bundle.GIVEN_UP.
    """
    docker = host.docker
    host.remove(name)
    body = {
        "Image": description["image"],
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
            "NanoCpus": description["nano_cpus"],
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
        if code not in (0, *bundle.GIVEN_UP) and said:
            raise SandboxError(f"the tool container failed ({code}): {canonical.printable(bytes(said).strip())}")
        return code
    finally:
        docker.remove(name)
