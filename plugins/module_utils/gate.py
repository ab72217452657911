# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The step gate: a phase opens on the seals of the phases it needs, and closes with a seal of its own.

The words of the phases and their order are here and nowhere else.
"""

from __future__ import annotations

import contextlib
import json
import typing as t
from pathlib import Path

from ansible_collections.dockersandbox.guardrails.plugins.module_utils import atomic, canonical, lock, places, seal

PHASES = {
    "bootstrap": 0,
    "env": 1,
    "network": 2,
    "fs": 3,
    "monitoring": 4,
    "logging": 5,
    "policy": 6,
    "compliance": 7,
    "rollback": 8,
    "approvals": 9,
    "validation": 10,
    "cost": 11,
    "human_intervention": 12,
}
VERSION = "0.1.0"
KIND = "gate"
_UNKNOWN = "not known yet"  # the sha256 of what check mode only predicts

_HEADER = """\
# Progress

One line for each time a phase was sealed, in UTC. The step gate writes it; the lock beside it holds its sha256.

"""


class GateError(Exception):
    """A gate that stays shut; the text is one line that says what to run or restore."""


class Closing(t.NamedTuple):
    """What closing a gate does: nothing when *actions* is empty. *before* and *after* are texts for a diff."""

    actions: list[str]
    before: str
    after: str


class Status(t.NamedTuple):
    """How one phase stands: *state* and, with ``sealed``, since when (UTC), with ``broken``, why."""

    phase: str
    number: int
    state: t.Literal["sealed", "broken", "not sealed"]
    time: str
    reason: str


def seal_path(home: str, phase: str) -> Path:
    """Return where the seal of *phase* is."""
    return Path(home, ".state", "seals", f"{phase}.json")


def progress_path(home: str) -> Path:
    """Return where the list of all sealings is."""
    return Path(home, ".state", "docker_sandbox_progress.md")


def command(phase: str) -> str:
    """Return the command that runs *phase* alone."""
    return f'"ansible-playbook playbooks/site.yml --tags {phase}"'


def verified(home: str, phase: str) -> seal.Statement:
    """Return the statement of a sealed phase once its signature and all its files hold; GateError otherwise."""
    path = seal_path(home, phase)
    try:
        made = seal.verify_file(path, places.Places(home).public_key)
    except seal.SealError as error:
        raise GateError(f"{phase}: {error}: restore it, or run {command(phase)} to have the phase sealed again") from None
    _of(phase, path, made)
    return made


def _of(phase: str, path: Path, made: seal.Statement) -> None:
    named = made["predicate"].get("phase")
    if named != phase or made["predicateType"] != seal.predicate_type(KIND):
        raise GateError(f"{phase}: {path} is a seal of something else ({named}): delete it and run {command(phase)}")


def status(home: str) -> list[Status]:
    """Return how every phase stands, in their order."""
    found = []
    for phase, number in PHASES.items():
        if not seal_path(home, phase).exists():
            found.append(Status(phase, number, "not sealed", "", ""))
            continue
        try:
            found.append(Status(phase, number, "sealed", str(verified(home, phase)["predicate"].get("time")), ""))
        except GateError as error:
            found.append(Status(phase, number, "broken", "", str(error)))
    return found


def open_gate(home: str, phase: str, needs: t.Iterable[str], files: t.Iterable[str], predicted: t.Container[str] = ()) -> list[str]:
    """Check that *phase* may start; return what was found, a line for each needed phase.

    Every phase in *needs* is sealed, or in *predicted* (what an earlier task in check mode would have sealed), and those
    of *files* and of the phase's own earlier seal that have locks agree with them. Raises GateError for the first that does not.
    """
    found = []
    for need in _in_order(phase, needs):
        if need in predicted:
            found.append(f"{need} would be sealed by now")
            continue
        if not seal_path(home, need).exists():
            raise GateError(_needs(phase, need))
        made = verified(home, need)
        found.append(f"{need} was sealed {made['predicate'].get('time')}")
    # Without the library this phase may be the one that installs it; its seal is verified when it closes.
    with contextlib.suppress(seal.CryptographyMissing):
        own = _own(home, phase)
    for path in map(Path, sorted({*files, *(seal.subjects(own) if own else ())})):
        problem = lock.check(path)
        if problem and problem.tampering and problem.kind != "unlocked":
            raise GateError(f"{phase}: {problem}")
    return found


def _needs(phase: str, need: str) -> str:
    return f"{phase} needs {need}, which is not sealed on this host: run {command(need)} first"


def _in_order(phase: str, needs: t.Iterable[str]) -> list[str]:
    needs = set(needs)
    unknown = sorted({phase, *needs} - PHASES.keys())
    if unknown:
        raise GateError(f"there is no phase {', '.join(unknown)}; the phases are: {', '.join(PHASES)}")
    if phase in needs:
        raise GateError(f"{phase} cannot need itself; take it out of its needs")
    return sorted(needs, key=PHASES.__getitem__)


def _own(home: str, phase: str) -> seal.Statement | None:
    """Return what the seal that *phase* already has says, its files aside: these may be about to change."""
    path = seal_path(home, phase)
    if not path.exists():
        return None
    public = places.Places(home).public_key
    try:
        envelope, key, chain = seal.read(path), seal.load_public(public), seal.rotations(public)
    except seal.CryptographyMissing:
        raise
    except seal.SealError as error:
        raise GateError(f"{phase}: {error}") from None
    try:
        made = seal.verify(envelope, key, chain)
    except seal.SealError as error:
        raise GateError(f"{phase}: {path}: {error}: restore it, or delete it to have the phase sealed again") from None
    _of(phase, path, made)
    return made


def close_gate(
    home: str,
    phase: str,
    needs: t.Iterable[str],
    files: t.Iterable[str],
    facts: t.Mapping[str, t.Any],
    check: bool = False,
    predicted: t.Container[str] = (),
    rewritten: t.Container[str] = (),
) -> Closing:
    """Seal *phase*, if anything but the time differs from the seal it has, and note it in the list of sealings.

    The seal binds the sha256 of *files*, the seals of *needs* as they are now, and *facts* (no floats). With *check*
    nothing is written, and what an earlier task would have made may be missing; those of *files* in *rewritten* are taken
    to differ from what is there. Raises GateError.
    """
    subjects = _subjects(phase, files, rewritten if check else None)
    chain = _needed(phase, home, needs, predicted if check else ())
    predicate = {"phase": phase, "needs": chain, "facts": dict(facts), "version": VERSION}
    try:
        canonical.dumps(predicate)
    except (ValueError, TypeError) as error:
        raise GateError(f"{phase}: its facts cannot be sealed: {error}") from None
    try:
        own = _own(home, phase)
    except seal.CryptographyMissing as error:
        if not check:
            raise GateError(f"{phase}: {error}") from None
        own = None
    noted = _progress(home)
    before = "" if own is None else _text(seal.subjects(own), own["predicate"])
    after = _text(subjects, predicate)
    actions = []
    if before != after:
        why = "it had no seal" if own is None else "its files, facts or needed phases differ from its seal"
        actions.append(f"Sealed {phase}: {why}")
        if not check:
            own = seal.statement(subjects, KIND, predicate | {"time": seal.now()})
            _write_seal(home, phase, own)
    # From the seal alone, so that a run killed before this line was written ends in the same list.
    if before != after or (own and _line(home, phase, own) not in noted.splitlines()):
        actions.append(f"Noted {phase} in {progress_path(home)}")
        if own and not check:
            _note(home, (noted or _HEADER) + _line(home, phase, own) + "\n")
    return Closing(actions, before, after)


def _subjects(phase: str, files: t.Iterable[str], rewritten: t.Container[str] | None) -> dict[str, str]:
    """Return the sha256 of *files*; *rewritten* is not None in check mode."""
    check = rewritten is not None
    found = {}
    for name in files:
        if rewritten is not None and name in rewritten:
            found[name] = _UNKNOWN
            continue
        path = Path(name)
        problem = lock.check(path)
        # In check mode the task that would complete an interrupted write has not done so.
        fine = {"unlocked", "absent"} | ({"interrupted"} if check else set())
        if problem and problem.kind not in fine:
            raise GateError(f"{phase}: {problem}")
        digest = lock.digest_of(path)
        if digest is None and not check:
            raise GateError(f"{phase} cannot be sealed: {lock.show(path)} is missing; run {command(phase)} to have it written")
        if digest:
            found[name] = digest
    return found


def _needed(phase: str, home: str, needs: t.Iterable[str], predicted: t.Container[str]) -> dict[str, str]:
    found = {}
    for need in _in_order(phase, needs):
        # A seal that would be renewed has another sha256 by then: no value that could match stands for it.
        content = None if need in predicted else atomic.read(seal_path(home, need))
        if content is None and need not in predicted:
            raise GateError(_needs(phase, need))
        found[need] = canonical.sha256_hex(content) if content else _UNKNOWN
    return found


def _text(subjects: t.Mapping[str, str], predicate: t.Mapping[str, t.Any]) -> str:
    lasting = {key: value for key, value in predicate.items() if key != "time"}
    return json.dumps(lasting | {"files": dict(subjects)}, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _write_seal(home: str, phase: str, made: seal.Statement) -> None:
    path = seal_path(home, phase)
    try:
        envelope = seal.sign(made, seal.load_private(places.Places(home).host_key))
    except seal.SealError as error:
        raise GateError(f"{phase}: {error}") from None
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    seal.write(path, envelope)


def _line(home: str, phase: str, made: seal.Statement) -> str:
    content = atomic.read(seal_path(home, phase)) or b""
    return f"- {made['predicate']['time']} P{PHASES[phase]} {phase} sealed sha256:{canonical.sha256_hex(content)}"


def _progress(home: str) -> str:
    path = progress_path(home)
    problem = lock.check(path)
    if problem and problem.tampering:
        raise GateError(str(problem))
    return (atomic.read(path) or b"").decode("utf-8", "replace")


def _note(home: str, content: str) -> None:
    lock.write_locked(progress_path(home), content.encode(), 0o644)
