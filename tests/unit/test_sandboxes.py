# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is told of a sandbox whose start or purge was killed."""

from __future__ import annotations

import os
import shutil
import typing as t
from pathlib import Path

import pytest
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import freezer, lock, sandboxes, stack
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.docker_api import Docker
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.places import Places
from ansible_collections.dockersandbox.guardrails.plugins.modules import sandbox

MEMORY = 64 << 20


class Engine(Docker):
    """One that has started, or removed, what it was asked to."""

    def start(self, name: str) -> None:
        pass

    def containers(self, *labels: str) -> list[dict[str, t.Any]]:
        return []

    def remove(self, name: str) -> None:
        pass

    def remove_volume(self, name: str) -> None:
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


def test_a_purge_that_is_killed_leaves_no_half_of_a_sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at = Places(*(str(tmp_path / word) for word in ("home", "data", "run")))
    for part in ("delta/upper", "delta/work", "baseline"):
        os.makedirs(os.path.join(at.sandbox("box"), part))
    host = sandboxes.Host(Engine(), at)

    def dies(folder: str) -> None:
        if os.path.exists(folder):
            shutil.rmtree(os.path.join(folder, "delta"))
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(sandboxes, "_remove", dies)
        with pytest.raises(KeyboardInterrupt):
            host.forget("box")
    # What is left has a throw-away sandbox's name, and no declared one can have that.
    assert os.listdir(at.sandboxes) == ["box.gone"]
    os.makedirs(os.path.join(at.sandbox("box"), "delta"))
    host.forget("box")
    assert os.listdir(at.sandboxes) == []


@pytest.mark.parametrize("killed", range(1, 4))
def test_a_purge_that_is_killed_leaves_no_working_set_to_those_who_come_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed: int
) -> None:
    at = Places(*(str(tmp_path / word) for word in ("home", "data", "run")))
    parts: dict[str, dict[str, t.Any]] = {
        "env": {"sandboxes": {"box": {"image": "an image"}}},
        "fs": {"sandboxes": {"box": {"originals": "/of", "mounts": [{"overlay": "box-workspace", "target": "/workspace", "options": "ro"}]}}},
    }
    for word, part in parts.items():
        lock.apply(lock.plan([sandboxes.part_file(at, word, part)])[0])
    os.makedirs(at.data)
    with sandboxes.uid_table(at) as table:
        table["box"] = 700000
    assert stack.volumes(sandboxes.read_stack(at)["box"])
    steps = 0

    def dies(*_arguments: object) -> None:
        nonlocal steps
        steps += 1
        if steps == killed:
            raise KeyboardInterrupt

    removed = lock.remove_locked

    def removes(path: Path) -> bool:
        there = removed(path)
        if there:
            dies()
        return there

    monkeypatch.setattr(lock, "remove_locked", removes)
    monkeypatch.setattr(sandboxes.Host, "forget", dies)
    with pytest.raises(KeyboardInterrupt):
        sandbox.absent(sandboxes.Host(Engine(), at), purge=True, check=False)
    # First goes what phase fs said, then what env said, then the sandbox.
    assert [word for word in parts if os.path.exists(sandboxes.part_path(at, word))] == {1: ["env"], 2: [], 3: []}[killed]
    assert not any(map(stack.volumes, sandboxes.read_stack(at).values()))
