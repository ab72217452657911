# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The working set: originals below, read-only and never handed out themselves; a sandbox's changes above them.

``originals`` → idmapped read-only mount (*lower*) → two overlays: ``/workspace`` with the sandbox's *delta* on top, and
``/originals`` without one. Through an overlay no socket, FIFO or lock of the originals can be reached, which through a
bind mount they can. The *baseline* is the sealed manifest of the originals that the working set started from.

The delta has a cap. Where there are loop devices it is *hard*: a file system of its own size, in an image that is mounted
at the delta. Elsewhere it is *monitored*: measured while a command runs, which is ended when it outgrows it.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import os
import pathlib
import shutil
import stat
import subprocess
import typing as t

from ansible_collections.dockersandbox.guardrails.plugins.module_utils import acts, changes, host, loops, manifest, mounts, seal, spec, stack
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.places import Places
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.spec import Sandbox

# redirect_dir and metacopy would let an upper layer name content elsewhere in the lower one; index keeps hard links whole.
OVERLAY_OPTIONS = "index=on,redirect_dir=nofollow,metacopy=off,nosuid,nodev"
PREDICATE = "baseline"
_SHOWN = 5
_RESERVE = 20  # one part in so many is root's alone, for what must be done with a set that is full
_HISTORY = 4  # one part in so many is there besides, for snapshots
_INODES = loops.INODES * _HISTORY // (_HISTORY + 1)  # as many files as without that
_LENT, _LENT_FILES = 4 << 20, 16  # more than the folders that an overlay makes when it is mounted
_HOST_ROOM = 1 << 30  # a command without a hard cap leaves the host's disk at least this

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
    """The working set of one sandbox: *originals* of one owner, seen inside as *uid* and *gid*; *size* caps its bytes."""

    places: Places
    name: str
    originals: str
    uid: int
    gid: int
    size: int

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

    # -- mounts

    def mount_problems(self) -> list[str]:
        """Return what of its mounts and layers is not as it must be, a line each."""
        lower, delta = self.lower_problem(), delta_mount_problem(self)
        return [f"{path} {problem}" for path, problem in ((self.lower, lower), (self.delta, delta)) if problem]

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

    def release(self) -> None:
        """Take from the layers what binds them to one root folder, before an overlay is mounted anew.

        With index=on the kernel refuses originals whose root was restored or replaced, as stale. Whether they are the
        right ones is for the baseline to say.
        """
        index = changes.index_folder(self.upper)
        for folder, attribute in ((self.upper, "trusted.overlay.origin"), (index, "trusted.overlay.upper")):
            with contextlib.suppress(OSError):
                os.removexattr(folder, attribute, follow_symlinks=False)

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

    # -- the delta and its cap

    @property
    def delta(self) -> str:
        """The folder of the layers; the mount of the image where the cap is hard."""
        return self.places.delta(self.name)

    @property
    def image(self) -> str:
        """The image that the delta lies in where the cap is hard."""
        return self.places.image(self.name)

    @property
    def snapshots(self) -> str:
        """The folder of its snapshots."""
        return self.places.snapshots(self.name)

    @property
    def hard(self) -> bool:
        """Whether the delta cannot outgrow its cap."""
        return os.path.exists(self.image)

    def cap(self) -> str:
        """Return the kind of its cap, with the reason where it is not the hard one."""
        if self.hard:
            return "hard"
        return f"monitored: {loops.unavailable() or 'it was made without a cap, and holds changes or too many snapshots'}"

    def delta_problem(self) -> str | None:
        """Return why the layers are not as they must be, or None when they are."""
        try:
            upper = os.lstat(self.upper)
            work = os.lstat(os.path.join(self.delta, "work"))
        except FileNotFoundError:
            return "has no upper or work layer"
        except OSError as error:
            return f"cannot be read ({error.strerror})"
        if not stat.S_ISDIR(upper.st_mode) or not stat.S_ISDIR(work.st_mode):
            return "has a layer that is not a folder"
        if not self.hard and mounts.mounted(self.delta):
            return f"is mounted from an image that is gone ({self.image})"
        return None

    def untouched(self) -> bool:
        """Tell whether the delta is a plain folder that holds no changes, and no more snapshots than its image has room for."""
        if self.hard or self.delta_problem() or os.listdir(self.upper):
            return False
        upper, root = os.lstat(self.upper), os.lstat(self.originals)
        if (upper.st_mode, upper.st_uid, upper.st_gid) != (root.st_mode, self.uid, self.gid):
            return False
        if not os.path.exists(self.snapshots):
            return True
        # A restore that was killed is finished first, where it began: its journal tells layers by their inodes.
        if {"journal.json", "stage"} & set(os.listdir(self.snapshots)):
            return False
        taken, entries = changes.usage(self.snapshots)
        return taken < self.disk - self.size and entries < self.disk // 100 * _INODES // 512 // _HISTORY

    def make_delta(self) -> None:
        """Make an empty delta: what the sandbox sees is then the originals themselves.

        One that is a plain folder without changes is given a hard cap, where there are loop devices; its snapshots come
        along. Nobody may use it or them meanwhile.
        """
        with acts.recorded(self.places, "working_set.make", "file_activity", sandbox=self.name, resource=self.delta):
            self._make_delta()

    def _make_delta(self) -> None:
        os.makedirs(self.delta, mode=0o700, exist_ok=True)
        # The engine mounts with the host's root; nobody else has a way through to another sandbox's changes.
        os.chmod(self.places.sandbox(self.name), 0o700)
        os.makedirs(os.path.dirname(self.places.stat_cache(self.originals)), mode=0o700, exist_ok=True)
        if loops.unavailable() is None:
            if not self.hard:
                refuse_space([self], 0)
                loops.make(self.image, self.disk, _INODES, self._carry if os.path.exists(self.snapshots) else None)
            self.mount_delta()
        else:
            for layer in (loops.FRESH, "work"):
                os.makedirs(os.path.join(self.delta, layer), mode=0o700, exist_ok=True)
            self._finish()

    def _carry(self, folder: str) -> None:
        """Copy the snapshots of a plain delta into the *folder* that becomes the hard one."""
        # Holes stay holes. What was seen of layers, by inode, is of the old ones.
        done = subprocess.run(["cp", "-a", "--", self.snapshots, folder], capture_output=True, text=True, check=False)
        if done.returncode:
            raise WorkingSetError(f"sandbox {self.name}: its snapshots cannot be copied: {' '.join(done.stderr.split())}")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(folder, os.path.basename(self.snapshots), "known"))

    def _finish(self) -> None:
        """Give a delta that nobody has used yet its upper layer."""
        fresh = os.path.join(self.delta, loops.FRESH)
        if os.path.isdir(fresh) and not os.path.isdir(self.upper):
            root = os.lstat(self.originals)
            os.chown(fresh, self.uid, self.gid)
            os.chmod(fresh, stat.S_IMODE(root.st_mode))
            os.rename(fresh, self.upper)

    def mount_delta(self) -> None:
        """Mount the image, in place of whatever wrong mount is there, and see that it has its whole size."""
        if not self.hard:
            return
        if loops.problem(self.image, self.delta):
            while mounts.mounted(self.delta):
                mounts.unmount(self.delta)
            self._clear_mount_point()
            loops.mount(self.image, self.delta)
        if loops.short(self.image, self.delta, self.disk):
            loops.fill_up(self.image, self.delta, self.disk)
        self._finish()
        self._reserve()

    def _clear_mount_point(self) -> None:
        os.makedirs(self.delta, mode=0o700, exist_ok=True)
        below = set(os.listdir(self.delta))
        changed = "upper" in below and os.listdir(self.upper)
        if changed or below - {"upper", "work", os.path.basename(self.snapshots)} or not self._carried():
            raise WorkingSetError(f"sandbox {self.name}: {self.delta} holds files of its own where {self.image} is mounted: move them away")
        for layer in below:
            shutil.rmtree(os.path.join(self.delta, layer))

    def _carried(self) -> bool:
        """Tell whether no snapshot of a plain delta is missing in the image, which is not mounted there yet."""
        here = pathlib.Path(self.snapshots, "register.json")
        if not here.exists():
            return not os.path.exists(self.snapshots)
        with loops.opened(self.image) as folder:
            there = pathlib.Path(folder, here.relative_to(self.delta))
            return there.exists() and there.read_bytes() == here.read_bytes()

    def short(self) -> str | None:
        """Return that a hard cap is not what was declared, None when it is or when the image is not mounted."""
        if self.hard and not loops.problem(self.image, self.delta) and loops.short(self.image, self.delta, self.disk):
            return f"{self.image} has not its whole {spec.human(self.size)} yet"
        return None

    # -- the reserve, and the room of snapshots

    @property
    def disk(self) -> int:
        """The bytes that its image takes: its size, and a quarter of that for what snapshots hold and it has no more."""
        return self.size + self.size // _HISTORY

    @property
    def _ballast(self) -> int:
        return self.disk - self.size + self.size // _RESERVE

    def _reserve(self, wanted: int = 0) -> None:
        """See that the reserve is as large as it was, or *wanted*."""
        fd = os.open(self._reserved, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            size = wanted or os.fstat(fd).st_size or self._ballast
            os.ftruncate(fd, size)
            # A set that is full has no room for what was lent: it is asked for again each time it is mounted or lent.
            with contextlib.suppress(OSError):
                os.posix_fallocate(fd, 0, size)
        finally:
            os.close(fd)

    @property
    def _reserved(self) -> str:
        return os.path.join(self.delta, "reserve")

    def balance(self, used: int) -> None:
        """Leave to the sandbox what it may still change when its layers take *used* bytes, and the rest to snapshots.

        Nobody may work in it meanwhile. Of a set that is full because snapshots hold what it has no more, a part of the
        reserve is left to the sandbox, so that it can go on.
        """
        if not self.hard:
            return
        info, least = os.statvfs(self.delta), self.size // _RESERVE
        free = info.f_bavail * info.f_frsize + self.reserve[0]
        left = max(info.f_blocks * info.f_frsize - self._ballast - used, least)
        self._reserve(max(least, min(self._ballast, free - left)) // 4096 * 4096)

    @property
    def reserve(self) -> tuple[int, int]:
        """The bytes and the files that :meth:`spent` gives."""
        return os.stat(self._reserved).st_blocks * 512, self.disk // 100 * (_INODES + 1) // 512

    @contextlib.contextmanager
    def spent(self) -> t.Iterator[None]:
        """Give all of the reserve, and as many files again, while the block makes a snapshot of a full set that is still."""
        if not self.hard:
            yield
            return
        size = os.path.getsize(self._reserved)
        os.truncate(self._reserved, 0)
        loops.share(self.delta, 2 * _INODES + 1)
        try:
            yield
        finally:
            loops.share(self.delta, _INODES)
            self._reserve(size)

    @contextlib.contextmanager
    def lent(self) -> t.Iterator[None]:
        """Lend a full working set some of its reserve, and some files, while the block starts its sandbox.

        The kernel makes folders when it mounts an overlay, and mounts one in which it cannot read-only.
        """
        room = os.statvfs(self.delta)
        no_bytes = self.hard and room.f_bavail * room.f_frsize < _LENT
        no_files = self.hard and room.f_favail < _LENT_FILES
        size = os.path.getsize(self._reserved) if no_bytes else 0
        if no_bytes:
            os.truncate(self._reserved, max(0, size - _LENT))
        if no_files:
            loops.share(self.delta, _INODES + 1)
        try:
            yield
        finally:
            if no_files:
                loops.share(self.delta, _INODES)
            if no_bytes:
                self._reserve(size)

    # -- what stands for a hard cap where there is none

    def used(self) -> tuple[int, int]:
        """Return the bytes and the entries that the layers take on the disk; snapshots are beside them, and nothing that a command adds."""
        found = [changes.usage(os.path.join(self.delta, layer)) for layer in ("upper", "work")]
        return sum(taken for taken, _entries in found), sum(entries for _taken, entries in found)

    def over(self, used: tuple[int, int]) -> str | None:
        """Return why a command must be ended now, None when it may go on; *used* is what there was when it began."""
        taken, entries = self.used()
        if taken > max(self.size, used[0]):
            return f"the working set of sandbox {self.name} takes {taken} bytes, its cap is {spec.human(self.size)}"
        if entries > max(self.size // 100 * loops.INODES // 512, used[1]):
            return f"the working set of sandbox {self.name} has {entries} entries, one for each 10 KiB of its cap is the limit"
        if host.free(self.delta) < _HOST_ROOM:
            return f"the disk of {self.delta} has less than {spec.human(_HOST_ROOM)} free"
        return None

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

    def baseline_id(self) -> str:
        """Return the id of the baseline by its seal alone, whose cost does not grow with the originals."""
        public = self.places.public_key
        try:
            made = seal.verify(seal.read(self._seal_path), seal.load_public(public), seal.rotations(public))
        except seal.SealError as error:
            raise WorkingSetError(f"sandbox {self.name}: baseline: {self._seal_path}: {error}") from error
        if made["predicateType"] != seal.predicate_type(PREDICATE) or made["predicate"]["sandbox"] != self.name:
            raise WorkingSetError(f"sandbox {self.name}: {self._seal_path} is the seal of something else: restore it")
        (digest,) = seal.subjects(made).values()
        return digest

    def manifest_of(self, baseline: str) -> manifest.Manifest:
        """Return the manifest of an earlier baseline. Raises WorkingSetError when it is gone or was changed."""
        path = os.path.join(self.places.baseline(self.name), _manifest_name(baseline))
        try:
            with open(path, "rb") as file:
                found = manifest.Manifest.from_bytes(file.read())
        except (OSError, manifest.ManifestError) as error:
            raise WorkingSetError(f"sandbox {self.name}: the manifest of baseline {baseline[:12]}… cannot be read: {error}") from error
        if found.digest != baseline:
            raise WorkingSetError(f"sandbox {self.name}: {path} is not what was sealed: restore it from a backup")
        return found

    def sealed(self) -> manifest.Manifest:
        """Return the manifest that the baseline's seal covers; WorkingSetError when it is not the one that was sealed."""
        known = self.baseline()
        if known is None:
            raise WorkingSetError(f"sandbox {self.name}: has no baseline: run phase fs (--tags fs) first")
        with open(os.path.join(self.places.baseline(self.name), _manifest_name(known[0])), "rb") as file:
            return manifest.Manifest.from_bytes(file.read())

    def seal_baseline(self, now: manifest.Manifest, reason: str) -> None:
        """Make *now* the baseline, sealed with the *reason*. Earlier manifests stay: bundles and snapshots name them."""
        with acts.recorded(self.places, "baseline.seal", "file_activity", sandbox=self.name, resource=self.originals, reason=reason) as came:
            self._seal_baseline(now, reason)
            came.detail = {"baseline": now.digest, "entries": len(now.entries)}

    def _seal_baseline(self, now: manifest.Manifest, reason: str) -> None:
        name = _manifest_name(now.digest)
        path = os.path.join(self.places.baseline(self.name), name)
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        now.write(path)
        predicate = {
            "sandbox": self.name,
            "originals": self.originals,
            "entries": len(now.entries),
            "reason": reason,
            "previous": self.baseline_id() if os.path.exists(self._seal_path) else "",
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


def delta_mount_problem(working_set: WorkingSet) -> str | None:
    """Return why the layers of a working set cannot be read as they are, None when they can."""
    problem = loops.problem(working_set.image, working_set.delta) if working_set.hard else None
    return problem or working_set.delta_problem()


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


def refuse_space(sets: t.Sequence[WorkingSet], keep: int) -> None:
    """Raise WorkingSetError when the disk has no room for the images of *sets* and *keep* bytes besides; reads only.

    An image is never made smaller: that is refused too.
    """
    problems = []
    due = 0
    for item in sets:
        there = os.stat(item.image) if item.hard else None
        if there and there.st_size > item.disk:
            problems.append(
                f"sandbox {item.name}: working_set: {spec.human(item.size)} is less than the {spec.human(there.st_size * _HISTORY // (_HISTORY + 1))} that"
                " it has: it only grows; declare that again, or start over with teardown.yml -e teardown_purge=true"
            )
        if there or item.delta_problem() or item.untouched():
            due += max(0, item.disk - (there.st_blocks * 512 if there else 0))
    if due and loops.unavailable() is None:
        folder = sets[0].places.sandboxes
        free = host.free(host.nearest(folder)) - keep
        if due > free:
            names = ", ".join(item.name for item in sets)
            problems.append(
                f"working sets of {names}: {due >> 20}m are still to be allocated in {folder}, {max(0, free) >> 20}m are"
                " free for it: make room, or declare a smaller working_set"
            )
    if problems:
        raise WorkingSetError(*problems)


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
