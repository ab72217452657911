# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The kernel's freezer: everything in a container's control group stands, and goes on as if nothing had been.

The engine's own pause gives up on a sandbox that is busy with its disk: it lets all go on again and starts over. The
kernel freezes each process as it comes out of its call, and what is frozen starts no other.
Source: the kernel's Documentation/admin-guide/cgroup-v1/freezer-subsystem.rst and cgroup-v2.rst.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import time

from ansible_collections.dockersandbox.guardrails.plugins.module_utils import mounts

PATIENCE = 30  # seconds for processes that are in the middle of writing
_LOOK = 0.0005


class FreezeError(Exception):
    """What should stand does not; the text is one line."""


def folder_of(pid: int, controller: str) -> str | None:
    """Return the folder of a process's control group for a controller of version 1, or "" for version 2; None without it."""
    try:
        with open(f"/proc/{pid}/cgroup", encoding="utf-8") as file:
            lines = [line.rstrip("\n").split(":", 2) for line in file]
    except OSError:
        return None
    for _number, controllers, path in lines:
        if controller not in controllers.split(","):
            continue
        for mount in mounts.mounted():
            if mount.kind == ("cgroup" if controller else "cgroup2") and (not controller or controller in mount.shared):
                # The mount may show a part of the hierarchy alone, as it does on a machine that is a container itself.
                return mount.point + path.removeprefix(mount.root.rstrip("/"))
    return None


@dataclasses.dataclass(frozen=True)
class Freezer:
    """The freezer of one control group; *folder* is where the kernel shows it, *first* whether that is version 1."""

    folder: str
    first: bool

    def _read(self, name: str) -> str:
        with open(os.path.join(self.folder, name), encoding="ascii") as file:
            return file.read()

    @property
    def frozen(self) -> bool:
        """Whether everything in it stands."""
        return self._read("freezer.state") == "FROZEN\n" if self.first else "frozen 1\n" in self._read("cgroup.events")

    @property
    def wanted(self) -> bool:
        """Whether somebody has asked for that."""
        return self._read("freezer.state") != "THAWED\n" if self.first else self._read("cgroup.freeze") == "1\n"

    def _write(self, stand: bool) -> None:
        name, word = ("freezer.state", "FROZEN" if stand else "THAWED") if self.first else ("cgroup.freeze", "1" if stand else "0")
        with open(os.path.join(self.folder, name), "w", encoding="ascii") as file:
            file.write(word)

    def freeze(self) -> None:
        """Let everything stand. Raises FreezeError, with all going on again, when something does not in time."""
        deadline = time.monotonic() + PATIENCE
        self._write(True)
        while not self.frozen:
            if time.monotonic() > deadline:
                self._write(False)
                raise FreezeError(f"its processes do not stand within {PATIENCE} s: they wait for a disk; see dmesg")
            time.sleep(_LOOK)
            # What was started in the meantime is told as well.
            self._write(True)

    def thaw(self) -> None:
        """Let everything go on; one that is gone is fine."""
        with contextlib.suppress(FileNotFoundError, OSError):
            self._write(False)

    @property
    def doomed(self) -> bool:
        """Whether any of it was killed while it stood, and ends as it is let go."""
        for pid in self._read("cgroup.procs").split():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError), open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
                pending = next(line for line in file if line.startswith("ShdPnd:"))
                if int(pending.split()[1], 16) >> signal.SIGKILL - 1 & 1:
                    return True
        return False

    def kill(self) -> None:
        """Kill all that is in it; what stands ends as it is let go."""
        for pid in self._read("cgroup.procs").split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)


def of(pid: int) -> Freezer | None:
    """Return the freezer of a container by its first process; None when that has ended. Raises FreezeError on a host without."""
    first = folder_of(pid, "freezer")
    if first is not None:
        return Freezer(first, True) if os.path.exists(os.path.join(first, "freezer.state")) else None
    second = folder_of(pid, "")
    if second is not None and os.path.exists(os.path.join(second, "cgroup.freeze")):
        return Freezer(second, False)
    if not os.path.exists(f"/proc/{pid}"):
        return None
    raise FreezeError("its control group has no freezer: mount /sys/fs/cgroup as the engine needs it")
