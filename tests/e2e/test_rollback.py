# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Snapshots and restores of real sandboxes, under each runtime of the engine: beside a hostile agent, a run, and kills."""

from __future__ import annotations

import collections.abc
import contextlib
import importlib
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
import typing as t
from unittest import mock

import pytest
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import docker_api, history, layers, mounts, rollback, run, sandboxes, stack, workset
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.freezer import Freezer
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.history import History, HistoryError
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.sandboxes import Busy, Host
from security.arena import Arena, Attack, Box, Engine, Terminal
from security.cases import CASES, Case, NotHere, Scene
from unit import overlays

# It counts in two files, one after the other, and does whatever makes a tree hard to read meanwhile.
HOSTILE = r"""
import contextlib, mmap, os, random, socket, sys, threading
os.chdir("/workspace")
def counting():
    number = 0
    with open("first", "wb") as file:
        file.write(bytes(4096))
    with open("first", "r+b") as file, mmap.mmap(file.fileno(), 4096) as pages:
        while True:
            number += 1
            pages[:12] = b"%012d" % number
            with open("second.new", "wb") as other:
                other.write(b"%012d" % number)
            os.rename("second.new", "second")
def renaming():
    os.makedirs("a/b/c/d", exist_ok=True)
    while True:
        with contextlib.suppress(OSError):
            os.rename("a", "z"); os.rename("z/b", "y"); os.rename("y", "z/b"); os.rename("z", "a")
def odd():
    names = [b"\xff\xfe", b"new\nline", b"x" * 255, b"'\"\\", b"-rf", b".git", b"\x1b[2J"]
    while True:
        for name in names:
            with contextlib.suppress(OSError):
                os.mkdir(name); os.symlink(b"/etc/shadow", name + b"/l"[:1] + b"l"); os.mkfifo(b"p")
            with contextlib.suppress(OSError):
                os.link("first", b"h" + name[:200]); os.link("data/numbers.csv", b"n" + name[:200])
            with contextlib.suppress(OSError):
                with open("sparse%d" % random.randrange(5), "wb") as file:
                    file.truncate(random.randrange(1 << 27)); file.seek(random.randrange(1 << 27)); file.write(b"end")
            with contextlib.suppress(OSError):
                os.unlink(b"h" + name[:200]); os.rmdir(name); os.unlink(b"p")
            with contextlib.suppress(OSError):
                os.chmod("data/deep", random.choice((0, 0o777)))
            with contextlib.suppress(OSError):
                os.unlink("twin" if random.random() < .5 else "tool")
def deep():
    while True:
        here = os.open("/workspace", os.O_RDONLY)
        with contextlib.suppress(OSError):
            for level in range(300):
                os.mkdir("d" * 100, dir_fd=here)
                below = os.open("d" * 100, os.O_RDONLY, dir_fd=here); os.close(here); here = below
        os.close(here)
        import subprocess
        subprocess.run(["rm", "-rf", "d" * 100])
def full():
    number = 0
    while True:
        with contextlib.suppress(OSError):
            with open("fill%d" % (number % 40), "wb") as file:
                file.write(os.urandom(1 << 20) * 8)
        number += 1
for act in (counting, renaming, odd, deep, full):
    threading.Thread(target=act).start()
"""
FULL = """
import contextlib
for name in "xyz":
    with contextlib.suppress(OSError), open(f"/workspace/{name}", "wb", 0) as file:
        while file.write(bytes(65536)):
            pass
"""
RUNTIMES = list(stack.RUNTIMES)
# The battery's classes that are about files.
FILES = ("layers", "originals")
for _word in FILES:
    importlib.import_module(f"security.attacks.{_word}")


Picture = dict[bytes, overlays.Seen]


class Known(Engine):
    """The arena's engine, which shows a sandbox with the labels that it was asked for: it runs as described then."""

    def inspect(self, name: str) -> dict[str, t.Any] | None:
        """Return what the engine knows of a container."""
        found = super().inspect(name)
        if found:
            labels = found["Config"]["Labels"] or {}
            found["Config"]["Labels"] = {key.replace(self._label, stack.LABEL): value for key, value in labels.items()}
        return found


@pytest.fixture(scope="module")
def arena() -> collections.abc.Iterator[Arena]:
    """A host of its own for these sandboxes, with the phase's policy."""
    made = Arena("rollback", "roll-", 996000)
    try:
        path = pathlib.Path(made.places.rollback)
        path.write_text(json.dumps({"every": 15, "last": 20, "hourly": 0, "daily": 0}), encoding="ascii")
        yield made
    finally:
        made.close()


@contextlib.contextmanager
def declared(arena: Arena, runtime: str) -> collections.abc.Iterator[Box]:
    """Yield the sandbox that the arena declares for a runtime, as a converge makes it."""
    if not arena.runtimes()[runtime]:
        pytest.skip(f"this engine has no {runtime}")
    host = Host(Known(label=arena.label), arena.places)
    name = arena.prefix + runtime
    description = sandboxes.read_stack(arena.places)[name]
    item = host.working_set(name, description)
    assert item is not None
    workset.ensure_run(arena.places)
    sandboxes.author(sandboxes.accounts_files(arena.places, name, item.uid, item.gid))
    item.seal_baseline(item.scan(), "first seal")
    item.make_delta()
    arena.boxes.add(name)
    try:
        host.bring_up(name, description, ["has no container"])
        yield Box(arena, host, name, description)
    finally:
        host.forget(name)
        shutil.rmtree(arena.places.exports(name), ignore_errors=True)
        arena.boxes.discard(name)


@pytest.fixture(params=RUNTIMES)
def box(arena: Arena, request: pytest.FixtureRequest) -> collections.abc.Iterator[Box]:
    """A declared sandbox under each runtime."""
    with declared(arena, request.param) as made:
        yield made


def begun(box: Box, script: str) -> None:
    """Begin a program in a sandbox that goes on."""
    argv = box.host.command(box.description, ["python3", "-c", script])
    exec_id = box.host.docker.exec_create(box.container, {"Cmd": argv})
    box.host.docker.call("POST", f"/exec/{exec_id}/start", {"Detach": True})


def content(kept: History, tree: layers.Tree, name: str) -> bytes:
    """Return what a file at the top of the working set held in a snapshot."""
    (facts,) = (entry.facts for entry in tree if entry.above == 0 and entry.name == name)
    return pathlib.Path(kept.objects, str(facts.object)).read_bytes()


def inside(box: Box, script: str) -> str:
    code, output = box.host.execute(box.name, box.description, ["/bin/sh", "-c", script], timeout=60)
    assert code == 0, output
    return output.decode()


def state(box: Box) -> str:
    return str(box.inspected["State"]["Status"])


def test_a_hostile_agent_at_work_breaks_no_snapshot(box: Box) -> None:
    kept = rollback.of(box.host, box.name)
    begun(box, HOSTILE)
    time.sleep(3)
    made = []
    for number in range(6):
        one = rollback.snapshot(box.host, kept, "a test", name=f"s{number}").snapshot
        assert one is not None
        made.append(one)
        assert state(box) == "running"
        time.sleep(0.3)
    assert kept.problems() == []
    counts = []
    for one in made:
        tree = kept.verified(one)
        first, second = (int(content(kept, tree, name)[:12]) for name in ("first", "second"))
        # All of one moment: the second number is the first, or comes next.
        assert first - second in (0, 1), one
        counts.append(second)
    assert counts == sorted(set(counts))
    box.host.docker.kill(box.container)
    done = rollback.restore(box.host, kept, "s2")
    assert done.changed
    assert not rollback.restore(box.host, kept, "s2").changed
    assert int((box.upper / "second").read_bytes()) == counts[2]
    assert kept.problems() == []


class Rolled(Scene):
    """A scene that is rolled back: what an attack has in hand is snapshotted, put back after it, and then undone.

    A run is one in the sandbox itself, and is undone, had back, and undone again.
    """

    def __init__(self, arena: Arena, box: Box) -> None:
        super().__init__(arena, box)
        self.snapshots = rollback.of(box.host, box.name)
        self.first = self._snapshot()
        self.was = overlays.picture(box.upper)

    def _snapshot(self) -> str:
        made = rollback.snapshot(self.box.host, self.snapshots, "a case").snapshot
        assert made is not None
        return made.id

    def _picture(self) -> Picture | None:
        try:
            return overlays.picture(self.box.upper)
        except OSError:
            return None  # an attack is at work

    def _times(self) -> bytes:
        """Return when each file and folder was changed last: two that are swapped all the time may look the same before and after."""
        # By their numbers: paths may be so long that they fill the memory.
        return subprocess.run(["find", self.box.upper, "-printf", "%i %T@ "], stdout=subprocess.PIPE, check=False).stdout

    def _put_back(self, snapshot: str, picture: Picture | None) -> None:
        rollback.restore(self.box.host, self.snapshots, snapshot)
        assert not rollback.restore(self.box.host, self.snapshots, snapshot, check=True).changed
        assert picture in (None, overlays.picture(self.box.upper))

    @contextlib.contextmanager
    def attack(self, script: str, *, seconds: float = 15, box: Box | None = None, more: t.Mapping[str, str] | None = None) -> collections.abc.Iterator[Attack]:
        """Run a script as every scene does, and roll back what it does to this sandbox."""
        with super().attack(script, seconds=seconds, box=box, more=more) as attack:
            times, held = self._times(), self._picture()
            during = self._snapshot()
            stands = (held, times) == (self._picture(), self._times())
            yield attack
        self._put_back(during, held if stands else None)
        self._put_back(self.first, self.was)

    def run(self, argv: t.Sequence[str], terminal: Terminal | None = None) -> run.Result:
        """Run a command as an operator does, in this sandbox."""
        try:
            return run.run(self.box.host, self.box.name, argv, terminal or Terminal())
        finally:
            made, after = overlays.picture(self.box.upper), self._snapshot()
            self._put_back(self.first, self.was)
            self._put_back(after, made)
            self._put_back(self.first, self.was)


@pytest.mark.parametrize("case", [pytest.param(case, id=f"{case.group}/{case.name}") for case in CASES if case.group in FILES])
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_no_attack_on_files_succeeds_by_a_snapshot_or_a_restore(arena: Arena, runtime: str, case: Case) -> None:
    with declared(arena, runtime) as box:
        arena.harm()
        arena.neighbour = box  # these attacks are on nobody else
        scene = Rolled(arena, box)
        try:
            evidence = case.judge(scene)
        except NotHere as error:
            pytest.skip(str(error))
        assert (evidence or arena.harm()) == ""
        assert scene.snapshots.problems() == []
        # Nothing of the host came into a snapshot.
        assert subprocess.run(["grep", "-rqaF", arena.secret, scene.snapshots.folder], check=False).returncode == 1


class Ends:
    """Gives a command no input and drops its output."""

    tty = False
    stdin = False

    def __init__(self) -> None:
        self.began = threading.Event()

    def start(self, *_arguments: object) -> None:
        pass

    def write(self, _kind: int, _data: bytes) -> None:
        self.began.set()

    def stop(self) -> None:
        pass


@contextlib.contextmanager
def merged(box: Box) -> collections.abc.Iterator[pathlib.Path]:
    """Yield what the sandbox sees at /workspace; runc shows it to the host."""
    (mount,) = (volume for volume in box.inspected["Mounts"] if volume["Destination"] == "/workspace")
    yield pathlib.Path(mount["Source"])


def test_a_run_is_undone(box: Box) -> None:
    kept = rollback.of(box.host, box.name)
    with merged(box) as top:
        before = overlays.picture(top)
    script = "rm -rf data; echo evil > README.md; mkdir -p x/y; echo z > x/y/z; chmod 777 tool; ln -s / out; cat twin > twin2; echo > twin"
    result = run.run(box.host, box.name, ["sh", "-c", script], Ends())
    assert result.exit_code == 0
    assert set(result.snapshots) == {"before", "after"}
    assert all(result.snapshots.values())
    with merged(box) as top:
        after = overlays.picture(top)
    assert after != before
    done = rollback.restore(box.host, kept, result.snapshots["before"])
    assert done.changed
    with merged(box) as top:
        assert overlays.picture(top) == before
    # What the run did is there still, and a bundle refers to it.
    assert rollback.restore(box.host, kept, result.snapshots["after"]).changed
    with merged(box) as top:
        assert overlays.picture(top) == after
    assert rollback.pinned(box.host.places, box.name) == set(result.snapshots.values())


def test_a_part_is_restored_and_a_dry_run_changes_nothing(box: Box) -> None:
    kept = rollback.of(box.host, box.name)
    inside(box, "cd /workspace; echo one > README.md; mkdir new; echo one > new/file; echo one > data/numbers")
    rollback.snapshot(box.host, kept, "a test", name="one")
    inside(box, "cd /workspace; echo two > README.md; rm -r new; echo two > data/numbers")
    started = box.inspected["State"]["StartedAt"]
    dry = rollback.restore(box.host, kept, "one", path="data", check=True)
    assert [str(one) for one in dry.differences] == ["changed data/numbers (mtime, content)"]
    assert inside(box, "cat /workspace/data/numbers") == "two\n"
    assert box.inspected["State"]["StartedAt"] == started
    rollback.restore(box.host, kept, "one", path="data/numbers")
    assert inside(box, "cd /workspace; cat data/numbers README.md; ls -d new 2>&1 || true").startswith("one\ntwo\nls:")
    rollback.restore(box.host, kept, "one", path="new")
    assert inside(box, "cd /workspace; cat new/file README.md") == "one\ntwo\n"


def test_a_restore_during_a_run_is_refused_or_stops_it(box: Box) -> None:
    kept = rollback.of(box.host, box.name)
    rollback.snapshot(box.host, kept, "a test", name="one")
    ends, results = Ends(), []
    runner = threading.Thread(
        target=lambda: results.append(run.run(box.host, box.name, ["sh", "-c", "echo x > made; echo begun; sleep 600"], ends))
    )
    runner.start()
    assert ends.began.wait(60)
    with pytest.raises(Busy, match=r"is busy with run .*: wait until it ends, or stop it first \(force\)"):
        rollback.restore(box.host, kept, "one")
    # A snapshot may be made beside it.
    assert rollback.snapshot(box.host, kept, "a test").new
    assert rollback.restore(box.host, kept, "one", force=True).changed
    runner.join(60)
    (result,) = results
    assert result.exit_code == 137
    assert result.ended == "the command was ended for a restore of one"
    assert result.changes["added"] == 1
    assert inside(box, "ls /workspace/made 2>&1 || true").startswith("ls:")


def test_of_two_restores_at_once_one_is_told_so(box: Box) -> None:
    kept = rollback.of(box.host, box.name)
    rollback.snapshot(box.host, kept, "a test", name="one")
    inside(box, "echo x > /workspace/made")
    with sandboxes.held(box.host.places, box.name, "a restore of one"), pytest.raises(Busy, match="is busy with a restore of one: wait until it ends"):
        rollback.restore(box.host, kept, "one")


def test_what_a_killed_snapshot_left_frozen_goes_on(box: Box) -> None:
    child = os.fork()
    if child == 0:
        with rollback.frozen(box.host, box.name):
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert box.host.differences(box.name, box.description) == ["was left frozen by somebody who was killed"]
    box.host.bring_up(box.name, box.description, box.host.differences(box.name, box.description))
    assert inside(box, "echo goes on") == "goes on\n"
    assert box.host.differences(box.name, box.description) == []


def test_whoever_was_paused_by_somebody_else_stays_so(box: Box) -> None:
    kept = rollback.of(box.host, box.name)
    box.host.docker.pause(box.container)
    inside_before = box.inspected["State"]["StartedAt"]
    assert rollback.snapshot(box.host, kept, "a test").new
    assert state(box) == "paused"
    box.host.docker.unpause(box.container)
    assert box.inspected["State"]["StartedAt"] == inside_before


def test_a_sandbox_that_does_not_run_is_snapshotted_and_restored_and_stays_down(box: Box) -> None:
    kept = rollback.of(box.host, box.name)
    inside(box, "echo x > /workspace/made")
    rollback.snapshot(box.host, kept, "a test", name="one")
    box.host.docker.kill(box.container)
    box.host.docker.stop(box.container)
    (box.upper / "made").unlink()
    assert rollback.snapshot(box.host, kept, "a test").new
    assert rollback.restore(box.host, kept, "one").changed
    assert state(box) == "exited"
    assert (box.upper / "made").read_text(encoding="ascii") == "x\n"


def test_what_a_policy_does_not_keep_goes_and_what_a_bundle_needs_stays(box: Box) -> None:
    kept = rollback.of(box.host, box.name)
    pathlib.Path(box.host.places.rollback).write_text(json.dumps({"every": 15, "last": 2, "hourly": 0, "daily": 0}), encoding="ascii")
    result = run.run(box.host, box.name, ["sh", "-c", "echo x > made"], Ends())
    rollback.snapshot(box.host, kept, "a test", name="stays", checkpoint=True)
    for number in range(4):
        inside(box, f"echo {number} > /workspace/made")
        rollback.snapshot(box.host, kept, "a test", name=f"s{number}")
    names = [one.name or one.id for one, _digest in kept.register().snapshots.values()]
    assert names == [result.snapshots["before"], result.snapshots["after"], "stays", "s2", "s3"]
    with pytest.raises(HistoryError, match="is removed for a reason"):
        rollback.remove(box.host, kept, "stays", " ")
    rollback.remove(box.host, kept, "stays", "no longer needed")
    assert [told["name"] for told in kept.register().removed] == ["stays"]
    assert kept.problems() == []
    pathlib.Path(box.host.places.rollback).write_text(json.dumps({"every": 15, "last": 20, "hourly": 0, "daily": 0}), encoding="ascii")


class Prepared(t.NamedTuple):
    """A sandbox with a checkpoint ``old``: what its layers were then, and are now."""

    box: Box
    kept: History
    old: Picture
    now: Picture

    @classmethod
    def of(cls, box: Box) -> Prepared:
        """Make the checkpoint."""
        kept = rollback.of(box.host, box.name)
        inside(box, "cd /workspace; for i in 1 2 3 4 5 6 7 8 9; do echo one > f$i; done; rm tool")
        rollback.snapshot(box.host, kept, "a test", name="old", checkpoint=True)
        picture = overlays.picture(box.upper)
        return cls(box, kept, picture, picture)

    def changed(self, turn: int) -> Prepared:
        """Change something."""
        inside(self.box, f"cd /workspace; echo {turn} > f1; echo {turn} > new{turn}; rm -f f2")
        return self._replace(now=overlays.picture(self.box.upper))

    def act(self, word: str) -> None:
        """Do what is to be killed."""
        if word == "snapshot":
            rollback.snapshot(self.box.host, self.kept, "a test")
        else:
            rollback.restore(self.box.host, self.kept, "old")

    def recovers(self) -> None:
        """Whatever comes next to the sandbox, be it a run, finds one state or the other, and all snapshots whole."""
        result = run.run(self.box.host, self.box.name, ["true"], Ends())
        assert result.exit_code == 0
        assert state(self.box) == "running"
        assert overlays.picture(self.box.upper) in (self.old, self.now)
        assert self.kept.problems() == []
        assert not set(os.listdir(self.kept.folder)) - self.kept.register().snapshots.keys() - {"objects", "register.json", "known"}
        rollback.restore(self.box.host, self.kept, "old")
        assert overlays.picture(self.box.upper) == self.old


def test_whatever_is_killed_the_next_finishes(box: Box, request: pytest.FixtureRequest) -> None:
    seed = request.config.getoption("--seed")
    seed = random.randrange(10**6) if seed is None else seed
    chance = random.Random(seed)
    ready = Prepared.of(box)
    longest = {}
    for act in ("snapshot", "restore"):
        now = ready.changed(0)
        start = time.monotonic()
        assert not killed(lambda: now.act(act))  # noqa: B023 - it is called at once
        longest[act] = time.monotonic() - start
        now.recovers()
    for turn in range(request.config.getoption("--rounds") * 2):
        act = ("snapshot", "restore")[turn % 2]
        now = ready.changed(turn)
        moment = chance.uniform(0, longest[act])
        running = killed(lambda: now.act(act), moment)  # noqa: B023 - it is called at once
        sys.stdout.write(f"seed {seed}, {box.runtime}, turn {turn}: {act} killed after {moment:.2f} s ({'running' if running else 'done by then'})\n")
        now.recovers()


def killed(act: t.Callable[[], object], seconds: float = 60) -> bool:
    """Do *act* in a child that is killed after so long, if it does not do so itself; return whether it was at work then."""
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            act()
        os._exit(0)
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0 and os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
        time.sleep(min(left, 0.01))
    os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


# What each comes down to: where the step is, and the how manieth of its name it is.
STEPS: dict[str, list[tuple[t.Any, str, int]]] = {
    "snapshot": [
        (history.Draft, "warm", 1),
        (Freezer, "freeze", 1),
        (history.Draft, "read", 1),
        (Freezer, "thaw", 1),
        (history.Draft, "hash", 1),
        (history.Draft, "commit", 1),
        (History, "_write_register", 1),
        (History, "remember", 1),
    ],
    "restore": [
        (History, "verified", 1),
        (Freezer, "freeze", 1),
        (history.Draft, "commit", 1),
        (Freezer, "kill", 1),
        (Freezer, "thaw", 1),
        (docker_api.Docker, "stop", 1),
        (History, "lay_out", 1),
        (History, "exchange", 1),
        (mounts, "exchange", 1),
        (mounts, "exchange", 2),
        (History, "remember", 2),
        (Host, "bring_up", 1),
        (History, "clear", 2),
    ],
}


@pytest.mark.parametrize("act", STEPS)
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_kill_at_any_step_is_made_good_by_the_next(box: Box, when: str, act: str) -> None:
    ready = Prepared.of(box)
    for turn, (owner, word, which) in enumerate(STEPS[act]):
        done = getattr(owner, word)
        count = 0

        def step(*given: t.Any, done: t.Any = done, which: int = which, **named: t.Any) -> t.Any:
            nonlocal count
            count += 1
            if count == which and when == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            result = done(*given, **named)
            if count == which:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        now = ready.changed(turn)
        with mock.patch.object(owner, word, step):
            assert killed(lambda: now.act(act)), f"{word} {which}"  # noqa: B023 - it is called at once
        now.recovers()


@pytest.mark.parametrize(
    ("which", "path", "said"),
    [
        ("none", "", "has no snapshot none: the last are"),
        ("old", "../x", "is not a path below /workspace"),
    ],
)
def test_what_cannot_be_restored_is_said_in_one_line(arena: Arena, which: str, path: str, said: str) -> None:
    with declared(arena, "runc") as box:
        kept = rollback.of(box.host, box.name)
        rollback.snapshot(box.host, kept, "a test", name="old")
        before = box.inspected["State"]["StartedAt"], overlays.picture(box.upper)
        with pytest.raises(HistoryError) as caught:
            rollback.restore(box.host, kept, which, path=path)
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)
        assert (box.inspected["State"]["StartedAt"], overlays.picture(box.upper)) == before


def test_what_needs_more_room_than_there_is_moves_nothing(arena: Arena) -> None:
    with declared(arena, "runc") as box:
        kept = rollback.of(box.host, box.name)
        many = "import os\nfor n in range(28000):\n    os.symlink('x', f'/workspace/f{n}')"
        begun_and_ended(box, many)
        rollback.snapshot(box.host, kept, "a test", name="many")
        subprocess.run(["find", box.upper, "-name", "f*", "-delete"], check=True)
        # As it is when snapshots have the room that is theirs.
        box.working_set._reserve(15 << 20)
        begun_and_ended(box, FULL)
        before = box.inspected["State"]["StartedAt"], sorted(os.listdir(box.upper))
        with pytest.raises(HistoryError, match="a restore takes 21 MiB and 28002 files more than there is room for"):
            rollback.restore(box.host, kept, "many")
        assert (box.inspected["State"]["StartedAt"], sorted(os.listdir(box.upper))) == before
        assert state(box) == "running"
        assert kept.problems() == []


def begun_and_ended(box: Box, script: str) -> None:
    argv = box.host.command(box.description, ["python3", "-c", script])
    code, output = box.host.docker.execute(box.container, argv, timeout=120)
    assert code == 0, output


def test_the_clock_makes_what_is_due_and_finds_originals_that_changed(arena: Arena) -> None:
    with declared(arena, "runc") as box:
        due = pathlib.Path(box.host.places.run, "due", box.name)
        due.unlink(missing_ok=True)
        inside(box, "echo x > /workspace/made")
        others = [line for line in rollback.scheduled(box.host).problems if box.name in line]
        assert others == []
        kept = rollback.of(box.host, box.name)
        assert [one.reason for one, _digest in kept.register().snapshots.values()] == ["by the clock"]
        inside(box, "echo y > /workspace/made")
        rollback.scheduled(box.host)
        assert len(kept.register().snapshots) == 1
        os.utime(due, (0, 0))
        (arena.tree / "README.md").write_text("from outside\n", encoding="ascii")
        try:
            problems = [line for line in rollback.scheduled(box.host).problems if box.name in line]
            assert len(problems) == 1
            assert "changed README.md" in problems[0]
            with pytest.raises(workset.OriginalsChanged):
                run.run(box.host, box.name, ["true"], Ends())
        finally:
            arena.restore_tree()
        assert len(kept.register().snapshots) == 2
        assert history.Policy(15, 20, 0, 0) == rollback.policy(box.host.places)
