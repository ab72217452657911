# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sealed trees, and the proof that nothing below a folder differs from its locks and seals."""

from __future__ import annotations

import os
import typing as t
from pathlib import Path

from ansible_collections.dockersandbox.guardrails.plugins.module_utils import atomic, gate, lock, manifest, places, seal

KIND = "tree"

_SHOWN = 20


class ProofError(Exception):
    """A tree that is not what was sealed; the text is one line."""


class Proof(t.NamedTuple):
    """How many locks and seals hold, and a line for each one that does not."""

    locks: int
    seals: int
    problems: list[str]


def seal_of(manifest_path: Path) -> Path:
    """Return where the seal of the manifest at *manifest_path* is."""
    return manifest_path.with_name(manifest_path.name + seal.SUFFIX)


def seal_tree(tree: Path, manifest_path: Path, home: str, check: bool = False) -> str | None:
    """Write the manifest of *tree* and its seal, if there is none; return what was (with *check*: would be) done.

    None says that the tree still is what was sealed. Raises ProofError when it is not, and SealError or ManifestError
    when that cannot be told.
    """
    sealed = seal_of(manifest_path)
    if sealed.exists():
        _compare(seal.verify_file(sealed, places.Places(home).public_key, KIND), sealed, tree)
        return None
    found = manifest.build(tree)
    if not check:
        private = seal.load_private(places.Places(home).host_key)
        counts = {"entries": len(found.entries), "files": found.files, "bytes": found.bytes}
        predicate = {"tree": str(tree), **counts, "time": seal.now()}
        envelope = seal.sign(seal.statement({manifest_path.name: found.digest}, KIND, predicate), private)
        manifest_path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        # The seal comes last: a manifest without one was interrupted, vouches for nothing, and is written again.
        found.write(manifest_path, 0o644)
        seal.write(sealed, envelope)
    return f"Sealed {lock.show(tree)} as {found.digest}: {len(found.entries)} entries, {found.bytes} bytes"


def _compare(made: seal.Statement, sealed: Path, tree: Path) -> None:
    if made["predicate"].get("tree") != str(tree):
        raise ProofError(f"{lock.show(sealed)}: is the seal of {made['predicate'].get('tree')}, not of {lock.show(tree)}")
    (name,) = seal.subjects(made)
    content = atomic.read(sealed.with_name(name), limit=1 << 34) or b""
    differences = manifest.diff(manifest.Manifest.from_bytes(content), manifest.build(tree))
    if differences:
        more = f" and {len(differences) - _SHOWN} more" if len(differences) > _SHOWN else ""
        listed = ", ".join(map(str, differences[:_SHOWN]))
        raise ProofError(f"{lock.show(tree)} is not what was sealed: {listed}{more}; put it back, or delete {lock.show(sealed)} to have it sealed anew")


def verify(folder: Path, home: str) -> Proof:
    """Check every lock, seal and sealed tree below *folder* with the host's public key; nothing is changed.

    Seals are the files ``*.seal.json`` and ``seal.json``, and those of the gates. What a sandbox wrote is left out, and so is
    the log: it has a key of its own, and :mod:`chain_verify` proves it. Raises OSError for a folder that cannot be read.
    """
    host = places.Places(home)

    def left_out(folder: str) -> bool:
        return folder == host.logs or host.foreign(folder)

    locked = lock.locked(folder, left_out)
    problems = [str(problem) for problem in map(lock.check, locked) if problem]
    locks, seals = len(locked) - len(problems), 0
    for path in _seals(folder, left_out):
        try:
            if path.parent == Path(home, ".state", "seals"):
                gate.verified(home, path.stem)
            else:
                made = seal.verify_file(path, host.public_key)
                if made["predicateType"] == seal.predicate_type(KIND):
                    _compare(made, path, Path(made["predicate"]["tree"]))
            seals += 1
        except (seal.SealError, gate.GateError, manifest.ManifestError, ProofError) as error:
            problems.append(str(error))
    return Proof(locks, seals, problems)


def _seals(folder: Path, left_out: t.Callable[[str], bool]) -> t.Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not left_out(os.path.join(parent, name)))
        for name in sorted(names):
            gates = parent.endswith("/.state/seals") and name.endswith(".json")
            if gates or name == seal.SUFFIX[1:] or name.endswith(seal.SUFFIX):
                yield Path(parent, name)
