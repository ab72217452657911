# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Egress is killed, and its recorder goes away, at any moment under load: nothing arrives that is not on record, or not allowed."""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time
import typing as t

import pytest
from services import world
from services.world import World, tunnel

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces")

CONFIG: dict[str, t.Any] = {"sandboxes": {name: {"rules": [{"host": "api.example.org"}], "limits": {"rate": 100_000}} for name in ("one", "two")}}
ASKED = ("api.example.org:443", "evil.example:443", f"{world.EVIL}:443", "api.example.org:22")


@pytest.fixture
def here(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[World]:
    made = World(tmp_path_factory.mktemp("world"), CONFIG)
    made.sinks.names = {"api.example.org": [world.GOOD], "evil.example": [world.EVIL]}
    try:
        made.start()
        yield made
    finally:
        made.stop()


def _egress(here: World, _pause: float) -> None:
    here.kill()
    here.start()


def _recorder(here: World, pause: float) -> None:
    here.recorder.stop()
    time.sleep(pause)
    here.recorder.start()


@pytest.mark.parametrize("end", [_egress, _recorder])
def test_nothing_arrives_unrecorded_or_disallowed(here: World, end: t.Callable[[World, float], None], request: pytest.FixtureRequest) -> None:
    seed = request.config.getoption("--seed") or random.randrange(1 << 32)
    chance, over = random.Random(seed), threading.Event()
    answered: list[tuple[int, str]] = []

    def work(sandbox: str, asked: str) -> None:
        while not over.is_set():
            with contextlib.suppress(OSError):
                answered.append(tunnel(here, asked, sandbox=sandbox))

    workers = [threading.Thread(target=work, args=(sandbox, asked)) for sandbox in CONFIG["sandboxes"] for asked in ASKED]
    for worker in workers:
        worker.start()
    try:
        for _round in range(request.config.getoption("--rounds")):
            time.sleep(chance.uniform(0.02, 0.4))
            end(here, chance.uniform(0, 0.2))
        # It goes on by itself.
        before = answered.count((200, "ok"))
        here.wait(lambda: answered.count((200, "ok")) > before, f"tunnels are opened again (seed {seed})", 30)
    finally:
        over.set()
        for worker in workers:
            worker.join(30)
    arrived = here.sinks.of("tcp")
    allowed = [event for event in here.recorder.of("network.connect") if event["decision"] == "allow"]
    assert {(arrival.address, arrival.port) for arrival in arrived} == {(world.GOOD, 443)}, f"seed {seed}"
    assert {event["resource"] for event in allowed} == {"api.example.org:443"}, f"seed {seed}"
    assert len(arrived) <= len(allowed), f"seed {seed}"
    assert {arrival.what.split()[0] for arrival in here.sinks.of("dns")} == {"api.example.org"}, f"seed {seed}"
