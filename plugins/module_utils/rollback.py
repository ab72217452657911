# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The acts of rolling back: a snapshot is made, restored or removed, and whatever is due by the clock is done; all of it on record."""

from __future__ import annotations

import base64
import concurrent.futures
import contextlib
import dataclasses
import errno
import fcntl
import json
import os
import time
import typing as t

from ansible_collections.dockersandbox.guardrails.plugins.module_utils import (
    acts,
    freezer,
    history,
    layers,
    manifest,
    recorder,
    sandboxes,
    seal,
    stack,
    workset,
)
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.docker_api import DockerError
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.freezer import Freezer
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.history import Draft, History, HistoryError, Policy, Snapshot
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.layers import Difference, LayersError, Tree
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.places import Places
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.sandboxes import Busy, Host, SandboxError
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.workset import WorkingSet

_PATIENCE = 60  # seconds for another snapshot of the same sandbox
_STOPPED = 180  # seconds in which a run that was stopped has made its bundle
_LOOK = 0.02
_SHOWN = 5

_T = t.TypeVar("_T")


@dataclasses.dataclass(frozen=True)
class Made:
    """What came of a snapshot; *paused*: the seconds for which the sandbox stood; *used*: the bytes of its layers.

    *new* is false when the last one is the same still. *snapshot* is None for a new one that was only to be foreseen.
    """

    snapshot: Snapshot | None
    new: bool
    paused: float
    used: int = 0


@dataclasses.dataclass(frozen=True)
class Restored:
    """What came of a restore, or would: *saved* is the snapshot of what was there before, none when nothing differs."""

    snapshot: Snapshot
    saved: Snapshot | None
    differences: list[Difference]

    @property
    def changed(self) -> bool:
        """Whether anything differs."""
        return bool(self.differences)


def policy(places: Places) -> Policy | None:
    """Return what is kept on this host, None where phase ``rollback`` was not run. Raises HistoryError for a file that is none."""
    try:
        with open(places.rollback, encoding="utf-8") as file:
            return Policy(**json.load(file))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise HistoryError(f"{places.rollback}: is not what phase rollback has written ({error}): run it again (--tags rollback)") from error


@contextlib.contextmanager
def locked(places: Places, name: str) -> t.Iterator[None]:
    """Hold the snapshots of a sandbox while the block runs, also beside a run; Busy when somebody else does for long."""
    path = os.path.join(places.run, "history", name)
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    deadline = time.monotonic() + _PATIENCE
    with open(path, "a", encoding="ascii") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise Busy(f"sandbox {name}: another snapshot or restore goes on: wait until it ends") from error
            time.sleep(_LOOK)
        yield


@contextlib.contextmanager
def frozen(host: Host, name: str) -> t.Iterator[Freezer | None]:
    """Freeze a sandbox, if it runs, while the block reads its layers. One that somebody else has paused stays so."""
    container = stack.container_name(name)
    found = host.docker.inspect(container)
    group = freezer.of(found["State"]["Pid"]) if found and found["State"]["Pid"] else None
    with sandboxes.still(host.places, name) as mark:
        if group is None:
            mark.truncate(0)
            yield None
            return
        theirs = group.wanted and not mark.read()
        try:
            if not theirs:
                mark.truncate(0)
                mark.write("frozen")
                mark.flush()
                group.freeze()
            yield group
        except freezer.FreezeError as error:
            raise SandboxError(f"sandbox {name}: {error}") from error
        finally:
            if not theirs:
                group.thaw()
                mark.truncate(0)


def of(host: Host, name: str) -> History:
    """Return the snapshots of a declared sandbox. Raises SandboxError or HistoryError when it has no layers to read."""
    known = sandboxes.read_stack(host.places)
    if name not in known:
        raise SandboxError(f"{name}: is not a sandbox of this host: there is {', '.join(sorted(known)) or 'none: run site.yml'}")
    working_set = host.working_set(name, known[name])
    if working_set is None:
        raise SandboxError(f"sandbox {name}: has no working set: run phase fs (--tags fs) first")
    return mounted(working_set)


def mounted(working_set: WorkingSet) -> History:
    """Return the snapshots of a working set whose layers are there; else HistoryError."""
    problem = workset.delta_mount_problem(working_set)
    if problem:
        raise HistoryError(f"sandbox {working_set.name}: {working_set.delta} {problem}: run bin/sandbox up first")
    return History(working_set)


# --- making one


def snapshot(
    host: Host,
    kept: History,
    reason: str,
    *,
    name: str = "",
    checkpoint: bool = False,
    run: str = "",
    at_rest: bool = False,
    reuse: bool = False,
    check: bool = False,
) -> Made:
    """Make a snapshot; with *reuse*, only if the last one is not the same; with *check*, none.

    *name* is one by which it can be called; a *checkpoint* has one, and stays until somebody removes it. *at_rest*:
    nobody works in the sandbox, so that it need not be paused. Raises Busy, HistoryError, RecorderError or DockerError: nothing is
    left then.
    """
    box = kept.working_set.name
    with locked(host.places, box):
        if name:
            kept.check_name(name)
        elif checkpoint:
            raise kept.refuse("a checkpoint needs a name")
        if check and not reuse:
            return Made(None, True, 0.0)
        facts = {"baseline": kept.working_set.baseline_id(), "reason": reason, "name": name, "run": run, "checkpoint": checkpoint}
        made = _with_reserve(kept, "a snapshot", lambda full: _made(host, kept, facts, at_rest, reuse, check, full))
        if made.snapshot and made.new:
            prune(host, kept)
        if at_rest:
            kept.working_set.balance(made.used)
        return made


def _with_reserve(kept: History, what: str, act: t.Callable[[bool], _T]) -> _T:
    """Return what *act* returns; where there is no room for it, it is called again and told to use the reserve."""
    for full in (False, True):
        try:
            return act(full)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
    raise kept.refuse(f"there is no room for {what}, not even in the reserve: remove snapshots, or declare a larger working_set")


def _made(host: Host, kept: History, facts: dict[str, t.Any], at_rest: bool, reuse: bool, check: bool, full: bool) -> Made:
    """Make a snapshot; *full*: with the reserve, which nobody else may get at, so that all is done before the sandbox goes on."""
    box = kept.working_set.name
    stands: contextlib.AbstractContextManager[t.Any] = contextlib.nullcontext() if at_rest else frozen(host, box)
    start = time.monotonic()
    with contextlib.ExitStack() as whole:
        if full:
            whole.enter_context(stands)
            whole.enter_context(kept.working_set.spent())
        with kept.draft() as draft:
            if full or at_rest:
                draft.read(at_rest=True)
            else:
                draft.warm()
                start = time.monotonic()
                with stands:
                    draft.read()
            paused = 0.0 if at_rest else time.monotonic() - start
            draft.hash()
            last = draft.register.newest
            if reuse and last is not None and last.baseline == facts["baseline"] and draft.same_as(last):
                return Made(last, False, paused, draft.reader.used)
            return Made(None if check else _committed(draft, **facts), True, paused, draft.reader.used)


def _committed(draft: Draft, baseline: str, reason: str, name: str = "", run: str = "", checkpoint: bool = False) -> Snapshot:
    item = draft.history.working_set
    what = {"snapshot": draft.id, "name": name, "checkpoint": checkpoint}
    with acts.recorded(item.places, "snapshot.make", "file_activity", sandbox=item.name, resource=what, reason=reason) as came:
        made = draft.commit(baseline, reason, name, run, checkpoint)
        came.detail = {"entries": made.entries, "files": made.files, "bytes": made.bytes}
        return made


def around_run(host: Host, working_set: WorkingSet, run: str, word: str) -> str:
    """Make a snapshot *word* (before or after) a run, and return its id; "" where phase ``rollback`` was not run."""
    if policy(host.places) is None:
        return ""
    made = snapshot(host, mounted(working_set), f"{word} run {run}", run=run, at_rest=True, reuse=True).snapshot
    return made.id if made else ""


# --- what is kept


def pinned(places: Places, name: str) -> set[str]:
    """Return the snapshots that the bundles of a sandbox refer to. Raises SealError or ValueError when one cannot be read."""
    found: set[str] = set()
    folder = places.exports(name)
    for entry in os.listdir(folder) if os.path.isdir(folder) else ():
        path = os.path.join(folder, entry, "seal.json")
        if not entry.startswith(".") and os.path.exists(path):
            statement = json.loads(base64.b64decode(seal.read(path)["payload"]))
            found |= {one for one in statement["predicate"].get("snapshots", {}).values() if one}
    return found


def prune(host: Host, kept: History) -> list[Snapshot]:
    """Remove what the policy of this host does not keep, and return it. The caller holds the lock."""
    rules = policy(host.places)
    box = kept.working_set.name
    if rules is None:
        return []
    try:
        refers = pinned(host.places, box)
    except (seal.SealError, ValueError, KeyError, TypeError):
        # A bundle that cannot be read may refer to anything.
        return []
    busy = sandboxes.holder(host.places, box) or ""
    run = busy.removeprefix("run ") if busy.startswith("run ") else ""
    gone = history.dispensable([one for one, _digest in kept.register().snapshots.values()], rules, refers, run)
    if gone:
        with _removal(kept, gone, "the policy does not keep it"):
            kept.remove(gone)
    return gone


def _removal(kept: History, gone: t.Iterable[Snapshot], reason: str) -> contextlib.AbstractContextManager[acts.Came]:
    item, what = kept.working_set, {"snapshots": [str(one) for one in gone]}
    return acts.recorded(item.places, "snapshot.remove", "file_activity", sandbox=item.name, resource=what, reason=reason)


def remove(host: Host, kept: History, which: str, reason: str) -> Snapshot:
    """Remove a snapshot, be it a checkpoint, and keep the *reason* in the register. Raises HistoryError."""
    if not reason.strip():
        raise kept.refuse("a snapshot is removed for a reason: say which")
    with locked(host.places, kept.working_set.name):
        kept.open()
        gone = kept.find(which)
        with _removal(kept, [gone], reason):
            kept.remove([gone], reason)
        return gone


# --- restoring one


def restore(
    host: Host,
    kept: History,
    which: str,
    *,
    path: str = "",
    force: bool = False,
    check: bool = False,
    description: stack.Description | None = None,
) -> Restored:
    """Put the whole working set, or what is at *path* in it, back as it was in the snapshot *which* (an id or name).

    *description* is that of a sandbox that is not in the stack, and that the caller holds. With *check* nothing is changed.
    With *force* a run that goes on is stopped first; its bundle says so. Nothing moves before all of the snapshot is
    verified and there is room. Raises Busy, HistoryError, SandboxError, RecorderError or DockerError.
    """
    box = kept.working_set.name
    container = stack.container_name(box)
    held = contextlib.nullcontext() if description else _taken(host, box, f"a restore of {which}", force and not check)
    with held, locked(host.places, box):
        before = kept.open().snapshots
        target = kept.find(which)
        then = kept.verified(target)
        _on_its_originals(kept, target, then)
        runs = host.docker.running(container) is not None
        act, wanted, found, saved = _with_reserve(kept, "a restore", lambda full: _prepared(host, kept, target, then, path, check, full))
        with act:
            if saved is None:
                return Restored(target, None, found)
            # The engine may take a moment to see that it has ended.
            with _beside(lambda: host.docker.stop(container, grace=0)), _with_room(kept, wanted):
                known = kept.lay_out(wanted)
            kept.exchange()
            description = description or sandboxes.read_stack(host.places)[box]

            def clear_up() -> None:
                kept.remember(known, [target.id, saved.id] if path else [target.id])
                kept.clear()

            with _beside(clear_up):
                if runs and (reasons := host.differences(box, description)):
                    host.bring_up(box, description, reasons)
        if saved.id not in before:
            prune(host, kept)
        return Restored(target, saved, found)


@contextlib.contextmanager
def _beside(act: t.Callable[[], object]) -> t.Iterator[None]:
    """Do *act* in a thread while the block runs: the block ends after both, and with what either raised."""
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        done = thread.submit(act)
        yield
        done.result()


@contextlib.contextmanager
def _taken(host: Host, name: str, who: str, force: bool) -> t.Iterator[None]:
    with contextlib.ExitStack() as held:
        deadline, stopped = time.monotonic() + _STOPPED, False
        while True:
            try:
                held.enter_context(sandboxes.held(host.places, name, who))
                break
            except Busy as error:
                runs = (sandboxes.holder(host.places, name) or "").startswith("run ")
                if runs and not force:
                    raise Busy(f"{error}, or stop it first (force)") from error
                if not force or not (runs or stopped) or time.monotonic() > deadline:
                    raise
            if not stopped:
                sandboxes.end_run(host, name, f"the command was ended for {who}")
                stopped = True
            time.sleep(_LOOK)
        yield


def _prepared(
    host: Host, kept: History, target: Snapshot, then: Tree, path: str, check: bool, full: bool
) -> tuple[contextlib.ExitStack, Tree, list[Difference], Snapshot | None]:
    """Return the layers as they are to be, in what that differs from what is there, and the snapshot of that.

    The sandbox is killed while it stands: what is in the snapshot is the last that it did. First comes the act, which went on
    record when it was clear that something differs, and which the caller ends.
    """
    box = kept.working_set.name
    with contextlib.ExitStack() as act, frozen(host, box) as group, contextlib.ExitStack() as opened:
        if full:
            opened.enter_context(kept.working_set.spent())
        draft = opened.enter_context(kept.draft())
        draft.read(at_rest=True)
        draft.hash()
        try:
            wanted = layers.graft(draft.tree, then, os.fsencode(path).strip(b"/")) if path else then
        except LayersError as error:
            raise kept.refuse(str(error)) from error
        found = layers.differences(draft.tree, wanted, _shown_by(kept.working_set.lower))
        if not found and not path and not layers.same(draft.tree, then):
            found = [Difference(b"", "changed", "which names are one file, or what hides the originals")]
        if not found or check:
            return act.pop_all(), wanted, found, None
        _room(kept, wanted)
        what = {"snapshot": str(target), "path": path}
        came = act.enter_context(acts.recorded(host.places, "snapshot.restore", "file_activity", sandbox=box, resource=what))
        baseline = kept.working_set.baseline_id()
        saved = draft.twin(baseline) or _committed(draft, baseline, f"before the restore of {target}")
        came.detail = {"saved": saved.id, "differences": len(found)}
        if group:
            group.kill()
        return act.pop_all(), wanted, found, saved


def _shown_by(lower: str) -> t.Callable[[bytes], bool]:
    root = os.fsencode(lower)
    return lambda path: os.path.lexists(os.path.join(root, path))


def _on_its_originals(kept: History, target: Snapshot, then: Tree) -> None:
    """Refuse a snapshot of another baseline, unless nothing that differs between the two would show through its layers."""
    working_set = kept.working_set
    now = working_set.baseline_id()
    if target.baseline == now:
        return
    changed = manifest.diff(working_set.manifest_of(target.baseline), working_set.manifest_of(now))
    folders = {path for tree in (target.baseline, now) for path, entry in working_set.manifest_of(tree).entries.items() if entry.type == "dir"}
    shown = set(layers.showing(then, [(difference.path, difference.path in folders) for difference in changed]))
    lines = [str(difference) for difference in changed if difference.path in shown]
    if lines:
        more = f" and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
        raise kept.refuse(
            f"snapshot {target} stands on the originals as they were sealed before ({target.baseline[:12]}…), since when these"
            f" differ: {', '.join(lines[:_SHOWN])}{more}: put them back and seal them anew (-e fs_reseal_reason='why'), then restore"
        )


def _needs(kept: History, tree: Tree) -> tuple[bool, bool]:
    """Return whether layers as *tree* find room as it is, and whether with the reserve."""
    working_set = kept.working_set
    free = os.statvfs(working_set.delta)
    size, files = layers.room(tree, shared=working_set.hard), len(tree)
    room, inodes = free.f_bavail * free.f_frsize, free.f_favail
    as_it_is = size <= room and files <= inodes
    if not working_set.hard:
        return as_it_is, as_it_is
    reserve, more = working_set.reserve
    return as_it_is, size <= room + reserve and files <= inodes + more


def _room(kept: History, tree: Tree) -> None:
    if not _needs(kept, tree)[1]:
        raise kept.refuse(
            f"a restore takes {layers.room(tree, shared=kept.working_set.hard) >> 20} MiB and {len(tree)} files more than there is"
            " room for: remove snapshots, or declare a larger working_set"
        )


def _with_room(kept: History, tree: Tree) -> contextlib.AbstractContextManager[None]:
    return contextlib.nullcontext() if _needs(kept, tree)[0] else kept.working_set.spent()


# --- by the clock


class Done(t.NamedTuple):
    """What was done by the clock, and what is wrong, a line each."""

    lines: list[str]
    problems: list[str]


def scheduled(host: Host) -> Done:
    """Make the snapshots that are due, remove what is not kept, and look whether originals were changed from outside."""
    done = Done([], [])
    rules = policy(host.places)
    if rules is None or os.path.exists(host.places.down):
        return done
    for name, description in sorted(sandboxes.read_stack(host.places).items()):
        working_set = host.working_set(name, description)
        if working_set is None:
            continue
        try:
            if sandboxes.stands(host.places, name):
                host.bring_up(name, description, [sandboxes.STANDS])
            if not _due(host.places, name, rules.every * 60):
                continue
            made = snapshot(host, mounted(working_set), "by the clock", reuse=True)
            if made.new:
                done.lines.append(f"sandbox {name}: snapshot {made.snapshot}")
            working_set.prove()
        except workset.OriginalsChanged as error:
            done.problems.extend([*error.problems, *_told(host.places, name, error.problems)])
        except workset.WorkingSetError as error:
            done.problems.extend(error.problems)
        except (Busy, DockerError, SandboxError, recorder.RecorderError, seal.SealError, OSError) as error:
            done.problems.append(f"sandbox {name}: {error}")
    return done


def _told(places: Places, name: str, found: t.Sequence[str]) -> list[str]:
    """Record that originals were changed from outside; return why they are not on record, if they are not."""
    event = {"action": "baseline.differ", "class": "detection_finding", "actor": {"type": "system", "name": "clock"}, "sandbox": name}
    try:
        if acts.required(places):
            recorder.record(places.run, {**event, "outcome": "failure", "reason": acts.encodable(acts.reasons(found))})
    except recorder.RecorderError as error:
        return [f"sandbox {name}: {error}"]
    return []


def _due(places: Places, name: str, seconds: int) -> bool:
    """Tell whether *seconds* have passed since this last said so of a sandbox, or the machine has started since."""
    path = os.path.join(places.run, "due", name)
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        # A clock that was set back must not keep it waiting.
        if 0 <= time.time() - os.stat(path).st_mtime < seconds:
            return False
    with open(path, "w", encoding="ascii"):
        os.utime(path)
    return True
