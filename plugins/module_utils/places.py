# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where things are on a host."""

from __future__ import annotations

import dataclasses
import os

HOME = "/opt/DockerSandboxApp"
DATA = "/var/lib/dockersandbox"
RUN = "/run/dockersandbox"


@dataclasses.dataclass(frozen=True)
class Places:
    """The three folders of a host, and what lies where in them: *home* (small, backed up), *data* (large), *run*."""

    home: str = HOME
    data: str = DATA
    run: str = RUN

    @property
    def stack_parts(self) -> str:
        """The folder of the stack's parts, one file a phase."""
        return os.path.join(self.home, "configs", "stack.d")

    @property
    def rollback(self) -> str:
        """What snapshots are kept and how often they are made: there once phase ``rollback`` was run."""
        return os.path.join(self.home, "configs", "rollback.json")

    @property
    def seccomp(self) -> str:
        """The seccomp profile that sandboxes get."""
        return os.path.join(self.home, "configs", "seccomp.json")

    @property
    def host_key(self) -> str:
        """The host's private key (Ed25519, PEM)."""
        return os.path.join(self.home, ".state", "keys", "host.key")

    @property
    def public_key(self) -> str:
        """The host's public key (PEM)."""
        return os.path.join(self.home, ".state", "keys", "host.pub")

    @property
    def logs(self) -> str:
        """The folder of the log, which the recorder alone writes: ``ct.jsonl``, sealed segments, heads."""
        return os.path.join(self.home, "observability", "claude-sandbox", "logs")

    @property
    def log_key(self) -> str:
        """The log's private key. Its folder is the recorder's own: what a rotation leaves lies beside the key."""
        return os.path.join(self.home, ".state", "keys", "log", "log.key")

    @property
    def log_public(self) -> str:
        """The log's public key (PEM)."""
        return os.path.join(self.home, ".state", "keys", "log", "log.pub")

    @property
    def down(self) -> str:
        """The mark of a teardown: while it is there, no sandbox is started by the machine's own start."""
        return os.path.join(self.home, ".state", "down")

    @property
    def empty(self) -> str:
        """A folder that stays empty: the second layer that a read-only overlay asks for."""
        return os.path.join(self.data, "empty")

    @property
    def uids(self) -> str:
        """The table of which sandbox has which uid."""
        return os.path.join(self.data, "uids.json")

    @property
    def sandboxes(self) -> str:
        """The folder that holds a folder for each sandbox."""
        return os.path.join(self.data, "sandboxes")

    def sandbox(self, name: str) -> str:
        """The folder of one sandbox."""
        return os.path.join(self.sandboxes, name)

    def delta(self, name: str) -> str:
        """The folder that holds a sandbox's changes: ``upper`` and ``work`` of its overlay."""
        return os.path.join(self.sandbox(name), "delta")

    def snapshots(self, name: str) -> str:
        """The folder of a sandbox's snapshots, beside its layers so that they can share blocks with them."""
        return os.path.join(self.delta(name), "snapshots")

    def image(self, name: str) -> str:
        """The image of the file system that is mounted at a sandbox's delta, where there are loop devices."""
        return os.path.join(self.sandbox(name), "delta.img")

    def baseline(self, name: str) -> str:
        """The folder of a sandbox's baseline: ``manifest.jsonl`` and ``seal.json``."""
        return os.path.join(self.sandbox(name), "baseline")

    def stat_cache(self, originals: str) -> str:
        """The file that remembers what was hashed of *originals*, shared by all sandboxes over that path."""
        return os.path.join(self.data, "cache", originals.strip("/").replace("/", "%")[-200:] + ".stat")

    def lower(self, name: str) -> str:
        """Where a sandbox's originals are mounted, idmapped and read-only."""
        return os.path.join(self.run, "lower", name)

    def lock(self, name: str) -> str:
        """The lock that whoever works in or on a sandbox holds."""
        return os.path.join(self.run, "lock", name)

    def exports(self, name: str) -> str:
        """The folder of a sandbox's bundles."""
        return os.path.join(self.home, "exports", name)

    def foreign(self, folder: str) -> bool:
        """Whether sandboxes wrote what is in *folder*: a layer, or the files of a bundle. A lock or a seal there proves nothing."""
        above, name = os.path.split(folder)
        if name == "delta":
            return os.path.dirname(above) == self.sandboxes
        return name == "files" and os.path.dirname(os.path.dirname(above)) == os.path.join(self.home, "exports")
