# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is told of a sandbox whose start was killed."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import freezer, sandboxes, stack
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.docker_api import Docker

MEMORY = 64 << 20


class Engine(Docker):
    """One that has started what it was asked to."""

    def start(self, name: str) -> None:
        pass

    def inspect(self, name: str) -> dict[str, t.Any] | None:
        return {"Name": name, "State": {"Pid": 1}, "HostConfig": {"Memory": MEMORY}}


def test_a_start_that_was_killed_before_the_last_cap_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freezer, "folder_of", lambda _pid, _controller: str(tmp_path))
    limit = tmp_path / "memory.kmem.tcp.limit_in_bytes"
    inspected = Engine().inspect("box")
    assert inspected is not None
    # Nothing of its control group is left: it has ended.
    assert sandboxes._capped(inspected)
    limit.write_text("9223372036854771712\n", encoding="ascii")
    assert not sandboxes._capped(inspected)
    sandboxes.start(Engine(), "box")
    assert limit.read_text(encoding="ascii") == str(stack.sockets(MEMORY))
    assert sandboxes._capped(inspected)
    # Version 2 counts it as memory.
    monkeypatch.setattr(freezer, "folder_of", lambda _pid, _controller: None)
    assert sandboxes._capped(inspected)
