# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The start of a machine, as far as no engine is needed: what keeps everything down, and who waits for it."""

from __future__ import annotations

import contextlib
import os
import threading
import typing as t
from pathlib import Path

import pytest
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import boot, gate, lock, sandboxes, seal, services
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.docker_api import Docker
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.places import Places

PART = {"env": {"sandboxes": {"box": {"image": "sha256:1", "uid": 990000}}}}


@pytest.fixture
def host(tmp_path: Path) -> sandboxes.Host:
    """A host with one sandbox in its stack, the phase sealed, and no engine."""
    at = Places(str(tmp_path / "home"), str(tmp_path / "data"), str(tmp_path / "run"))
    seal.ensure_key(Path(at.host_key))
    for phase, part in PART.items():
        wanted = sandboxes.part_file(at, phase, part)
        wanted.path.parent.mkdir(parents=True, exist_ok=True)
        assert wanted.content is not None
        lock.write_locked(wanted.path, wanted.content)
        gate.close_gate(at.home, phase, [], [str(wanted.path)], {})
    return sandboxes.Host(Docker(str(tmp_path / "no-engine"), timeout=1), at)


def _no_engine(_host: sandboxes.Host) -> None:
    pass


def _changed(host: sandboxes.Host) -> None:
    Path(sandboxes.part_path(host.places, "env")).write_text('{"sandboxes": {}}', encoding="ascii")


def _not_sealed(host: sandboxes.Host) -> None:
    gate.seal_path(host.places.home, "env").unlink()


def _another_phase(host: sandboxes.Host) -> None:
    Path(sandboxes.part_path(host.places, "fs")).write_text('{"sandboxes": {}}', encoding="ascii")


def _changed_service(host: sandboxes.Host) -> None:
    path = services.part_path(host.places, "recorder")
    path.parent.mkdir(parents=True)
    lock.write_locked(path, b"{}\n")
    path.write_bytes(b'{"network": "host"}\n')


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_no_engine, "nothing is started: Docker does not answer on "),
        (_changed, "nothing is started: env: "),
        (_not_sealed, "nothing is started: env: "),
        (_another_phase, "nothing is started: fs: "),
        (_changed_service, "nothing is started: /"),
    ],
)
def test_nothing_is_started_from_what_is_not_as_it_was_sealed(host: sandboxes.Host, spoil: t.Callable[[sandboxes.Host], None], said: str) -> None:
    spoil(host)
    came = boot.up(host, 0.1)
    assert came.up == []
    (problem,) = came.problems
    assert problem.startswith(said)
    assert "\n" not in problem


def test_nothing_comes_back_after_a_teardown(host: sandboxes.Host) -> None:
    Path(host.places.down).touch()
    assert boot.up(host, 0).problems == []


def test_a_host_without_sandboxes_needs_no_engine(host: sandboxes.Host) -> None:
    os.unlink(sandboxes.part_path(host.places, "env"))
    assert boot.up(host, 0) == ([], [])


@contextlib.contextmanager
def holder(host: sandboxes.Host, who: str) -> t.Iterator[threading.Event]:
    """Somebody who holds the sandbox until the yielded event is set."""
    begun, end = threading.Event(), threading.Event()

    def hold() -> None:
        with sandboxes.held(host.places, "box", who):
            begun.set()
            end.wait(90)

    thread = threading.Thread(target=hold)
    thread.start()
    begun.wait()
    try:
        yield end
    finally:
        end.set()
        thread.join()


@pytest.mark.parametrize("who", [sandboxes.START, ""])
def test_the_start_of_the_machine_and_who_is_just_letting_go_are_waited_for(host: sandboxes.Host, who: str) -> None:
    with holder(host, who) as end:
        threading.Timer(0.3, end.set).start()
        with sandboxes.held(host.places, "box", "a play") as crashed:
            assert end.is_set()
            assert not crashed


@pytest.mark.parametrize("who", ["run 1", ""])
def test_whoever_else_holds_a_sandbox_is_not_waited_for(host: sandboxes.Host, who: str) -> None:
    named = f"sandbox box is busy with {who or 'another command'}: wait until it ends"
    with holder(host, who), pytest.raises(sandboxes.Busy, match=named), sandboxes.held(host.places, "box", "a play"):
        pass


def test_between_two_holders_nobody_is_refused_who_waits_for_the_start(host: sandboxes.Host) -> None:
    """The name in the lock is written after it is taken and removed before it is let go: neither moment is somebody else."""
    ends: list[BaseException | None] = []

    def one() -> None:
        try:
            for _round in range(100):
                with sandboxes.held(host.places, "box", sandboxes.START):
                    pass
        except sandboxes.Busy as error:
            ends.append(error)

    threads = [threading.Thread(target=one) for _thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not ends
