# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The working set: originals below, read-only and never handed out themselves; a sandbox's changes above them.

``originals`` → idmapped read-only mount (*lower*) → two overlays: ``/workspace`` with the sandbox's *delta* on top, and
``/originals`` without one. Through an overlay no socket, FIFO or lock of the originals can be reached, which through a
bind mount they can. The *baseline* is the sealed manifest of the originals that the working set started from.
"""

from __future__ import annotations

import collections
import dataclasses
import os
import stat
import typing as t

from ansible_collections.dockersandbox.guardrails.plugins.module_utils import manifest, mounts, seal, stack
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.places import Places
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.spec import Sandbox

# redirect_dir and metacopy would let an upper layer name content elsewhere in the lower one; index keeps hard links whole.
OVERLAY_OPTIONS = "index=on,redirect_dir=nofollow,metacopy=off,nosuid,nodev"
PREDICATE = "baseline"
_SHOWN = 5

Progress = t.Callable[[int, int], None]


class WorkingSetError(Exception):
    """A working set cannot be used; each of *problems* is one line."""

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))
        self.problems = list(problems)


class OriginalsChanged(WorkingSetError):
    """The originals are not what the baseline says; *problems* name the first differences."""


@dataclasses.dataclass(frozen=True)
class WorkingSet:
    """The working set of one sandbox: *originals* of one owner, seen inside as *uid* and *gid*."""

    places: Places
    name: str
    originals: str
    uid: int
    gid: int

    @property
    def lower(self) -> str:
        """The mount that both overlays stand on."""
        return self.places.lower(self.name)

    @property
    def upper(self) -> str:
        """The overlay's upper layer: all that the sandbox changed."""
        return os.path.join(self.places.delta(self.name), "upper")

    def part(self) -> dict[str, t.Any]:
        """Return what this phase adds to the sandbox's description in the stack."""
        work = os.path.join(self.places.delta(self.name), "work")
        workspace = f"lowerdir={self.lower},upperdir={self.upper},workdir={work},{OVERLAY_OPTIONS}"
        originals = f"ro,lowerdir={self.lower}:{self.places.empty},nosuid,nodev"
        container = stack.container_name(self.name)
        return {
            "working_dir": "/workspace",
            "mounts": [
                {"overlay": f"{container}-workspace", "target": "/workspace", "options": workspace},
                {"overlay": f"{container}-originals", "target": "/originals", "options": originals},
            ],
        }

    # -- the lower mount

    def lower_problem(self) -> str | None:
        """Return why the lower mount is not as it must be, or None when it is."""
        found = mounts.mounted(self.lower)
        if len(found) != 1:
            return "is not mounted" if not found else f"is mounted {len(found)} times"
        missing = {"ro", "nosuid", "nodev"} - found[0].options
        if missing:
            return f"is mounted without {', '.join(sorted(missing))}"
        here, there = os.lstat(self.lower), os.lstat(self.originals)
        if (here.st_dev, here.st_ino) != (there.st_dev, there.st_ino):
            return "is a mount of another folder"
        if (here.st_uid, here.st_gid) != (self.uid, self.gid):
            return f"shows the owner {here.st_uid}:{here.st_gid}, not {self.uid}:{self.gid}"
        return None

    def mount_lower(self) -> None:
        """Mount the originals for this sandbox, in place of whatever wrong mount is there."""
        while mounts.mounted(self.lower):
            mounts.unmount(self.lower)
        os.makedirs(self.lower, mode=0o755, exist_ok=True)
        owner = os.lstat(self.originals)
        same = (owner.st_uid, owner.st_gid) == (self.uid, self.gid)
        mounts.bind_readonly(
            self.originals,
            self.lower,
            None if same else (owner.st_uid, self.uid),
            None if same else (owner.st_gid, self.gid),
        )

    # -- the delta

    def delta_problem(self) -> str | None:
        """Return why the delta is not as it must be, or None when it is."""
        try:
            upper = os.lstat(self.upper)
            work = os.lstat(os.path.join(self.places.delta(self.name), "work"))
        except FileNotFoundError:
            return "has no upper or work layer"
        if not stat.S_ISDIR(upper.st_mode) or not stat.S_ISDIR(work.st_mode):
            return "has a layer that is not a folder"
        return None

    def make_delta(self) -> None:
        """Make an empty delta: what the sandbox sees is then the originals themselves."""
        delta = self.places.delta(self.name)
        os.makedirs(delta, mode=0o700, exist_ok=True)
        # The engine mounts with the host's root; nobody else has a way through to another sandbox's changes.
        os.chmod(self.places.sandbox(self.name), 0o700)
        os.makedirs(os.path.join(delta, "work"), mode=0o700, exist_ok=True)
        os.makedirs(os.path.dirname(self.places.stat_cache(self.originals)), mode=0o700, exist_ok=True)
        root = os.lstat(self.originals)
        staged = f"{self.upper}.new"
        if not os.path.isdir(self.upper):
            os.makedirs(staged, exist_ok=True)
            os.chown(staged, self.uid, self.gid)
            os.chmod(staged, stat.S_IMODE(root.st_mode))
            os.rename(staged, self.upper)

    # -- the baseline

    @property
    def _seal_path(self) -> str:
        return os.path.join(self.places.baseline(self.name), "seal.json")

    def scan(self, progress: Progress | None = None, full: bool = False) -> manifest.Manifest:
        """Return the manifest of the originals now; *full* reads every byte, else what a stat proves unchanged is not."""
        cache = self.places.stat_cache(self.originals)
        # A check that changes nothing may come before there is a place for the cache.
        known = cache if os.path.isdir(os.path.dirname(cache)) else None
        return manifest.build(self.originals, cache=known, progress=progress, full=full)

    def baseline(self) -> tuple[str, dict[str, t.Any]] | None:
        """Return the sealed baseline's ``(id, predicate)``; None when there is none yet.

        Raises WorkingSetError when the manifest or its seal was tampered with.
        """
        if not os.path.exists(self._seal_path):
            return None
        try:
            statement = seal.verify_file(self._seal_path, self.places.public_key, PREDICATE)
        except seal.SealError as error:
            raise WorkingSetError(f"sandbox {self.name}: baseline: {error}") from error
        predicate = statement["predicate"]
        if predicate["sandbox"] != self.name or predicate["originals"] != self.originals:
            raise WorkingSetError(
                f"{self._seal_path}: is the seal of sandbox {predicate['sandbox']} over {predicate['originals']},"
                f" not of {self.name} over {self.originals}"
            )
        (digest,) = seal.subjects(statement).values()
        return digest, predicate

    def sealed(self) -> manifest.Manifest:
        """Return the manifest that the baseline's seal covers; WorkingSetError when it is not the one that was sealed."""
        known = self.baseline()
        if known is None:
            raise WorkingSetError(f"sandbox {self.name}: has no baseline: run phase fs (--tags fs) first")
        with open(os.path.join(self.places.baseline(self.name), _manifest_name(known[0])), "rb") as file:
            return manifest.Manifest.from_bytes(file.read())

    def seal_baseline(self, now: manifest.Manifest, reason: str) -> None:
        """Make *now* the baseline, sealed with the *reason*. Earlier manifests stay: bundles name them."""
        name = _manifest_name(now.digest)
        path = os.path.join(self.places.baseline(self.name), name)
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        now.write(path)
        predicate = {
            "sandbox": self.name,
            "originals": self.originals,
            "entries": len(now.entries),
            "reason": reason,
            "time": seal.now(),
        }
        statement = seal.statement({name: now.digest}, PREDICATE, predicate)
        # The seal is the switch: a kill before it leaves the old baseline in force, whole.
        seal.write(self._seal_path, seal.sign(statement, seal.load_private(self.places.host_key)))

    def prove(self, progress: Progress | None = None, full: bool = False) -> str:
        """Return the baseline's id after proving that the originals are bit-identical to it; OriginalsChanged if not."""
        known = self.baseline()
        if known is None:
            raise WorkingSetError(f"sandbox {self.name}: has no baseline: run phase fs (--tags fs) first")
        now = self.scan(progress, full)
        if now.digest != known[0]:
            raise self.changed(now)
        return known[0]

    def changed(self, now: manifest.Manifest) -> OriginalsChanged:
        """Return the error that names in what *now* differs from the baseline."""
        differences = [str(difference) for difference in manifest.diff(self.sealed(), now)]
        more = f" and {len(differences) - _SHOWN} more" if len(differences) > _SHOWN else ""
        return OriginalsChanged(
            f"sandbox {self.name}: the originals {self.originals} are not what was sealed:"
            f" {', '.join(differences[:_SHOWN])}{more}; put them back, or seal anew with -e fs_reseal_reason='why'"
        )


def _manifest_name(digest: str) -> str:
    return f"{digest}/manifest.jsonl"


def originals_problems(sandboxes: t.Sequence[Sandbox], places: Places, absent_ok: t.Collection[str] = ()) -> list[str]:
    """Return every reason why the originals of *sandboxes* cannot be used, a line each; reads, changes nothing.

    A path in *absent_ok* may be missing: the same run will make it.
    """
    problems: list[str] = []
    surveyed: dict[str, list[str]] = {}
    owners: dict[int, str] = {}
    for sandbox in sandboxes:
        path = sandbox.originals
        if path not in surveyed:
            missing_ok = path in absent_ok and not os.path.lexists(path)
            surveyed[path] = [] if missing_ok else _path_problems(path, places) or _tree_problems(path)
        problems += [f"sandbox {sandbox.name}: originals {problem}" for problem in surveyed[path]]
        if sandbox.run_as == "owner" and not surveyed[path] and os.path.isdir(path):
            uid = os.lstat(path).st_uid
            if uid == 0:
                problems.append(f"sandbox {sandbox.name}: run_as: owner: {path} belongs to root: give it another owner")
            elif uid in owners:
                problems.append(
                    f"sandbox {sandbox.name}: run_as: owner: uid {uid} is that of sandbox {owners[uid]} already: no two alike"
                )
            owners[uid] = sandbox.name
    return problems


def _path_problems(path: str, places: Places) -> list[str]:
    try:
        kind = os.lstat(path).st_mode
    except OSError as error:
        return [f"{path}: {error.strerror}: make the folder or correct the path"]
    real = os.path.realpath(path)
    if real != path:
        return [f"{path}: is or passes through a symbolic link to {real}: name the real path"]
    if not stat.S_ISDIR(kind):
        return [f"{path}: is not a folder: name the folder that holds the data"]
    own = os.path.join(places.data, "originals")
    for word, folder in (("home", places.home), ("data folder", places.data), ("run folder", places.run)):
        inside = path == folder or path.startswith(folder + "/")
        if inside and not path.startswith(own + "/"):
            return [f"{path}: is the {word} of this project or inside it: keep originals elsewhere, or below {own}"]
        if folder.startswith(path.rstrip("/") + "/"):
            return [f"{path}: holds the {word} of this project ({folder}): name a folder beside it"]
    within = [mount.point for mount in mounts.mounted() if mount.point.startswith(path + "/")]
    if within:
        return [f"{path}: {_some(sorted(within))} is mounted inside: what lies there would be missing; declare it by itself"]
    return []


def _tree_problems(path: str) -> list[str]:
    survey = manifest.survey(path)
    problems = []
    if survey.unreadable:
        problems.append(f"{path}: cannot be read at {_some([manifest.shown(name) for name in survey.unreadable])}")
    if len(survey.owners) > 1:
        counts = ", ".join(f"{count} of {uid}:{gid}" for (uid, gid), count in collections.Counter(survey.owners).most_common())
        problems.append(f"{path}: has several owners ({counts}): a sandbox sees one; chown the tree to one uid and gid")
    if survey.special:
        listed = _some([f"{manifest.shown(name)} ({kind})" for name, kind in survey.special])
        problems.append(f"{path}: has what is no file, folder or link: {listed}: remove it")
    return problems


def _some(items: list[str]) -> str:
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return ", ".join(items[:_SHOWN]) + more


def ensure_run(places: Places) -> bool:
    """Make sure the run folder lies in memory and return whether it had to be made.

    What it holds must not outlive a reboot: an empty folder where a lower mount was would look like empty originals.
    """
    here = ""
    kind = ""
    for mount in mounts.mounted():
        inside = places.run == mount.point or places.run.startswith(mount.point.rstrip("/") + "/")
        if inside and len(mount.point) >= len(here):
            here, kind = mount.point, mount.kind
    made = not os.path.isdir(places.run)
    os.makedirs(places.run, mode=0o755, exist_ok=True)
    if kind != "tmpfs":
        mounts.tmpfs(places.run, "16m")
        made = True
    for folder in ("lower", "lock"):
        os.makedirs(os.path.join(places.run, folder), mode=0o755, exist_ok=True)
    return made
