# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long it takes until a run's command begins, on a machine with twenty busy sandboxes beside an idle one.

Needs a converged host with the sandbox ``default``, and 6 GiB of disk. The twenty are throw-away ones of its shape with a
quarter of a processor each, and each keeps that busy. Figures are medians of wall seconds of ``bin/sandbox run``: until
the first output of its command, and of the whole.
"""

from __future__ import annotations

import contextlib
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

from ansible_collections.dockersandbox.guardrails.plugins.module_utils import places, run, sandboxes, stack
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.docker_api import Docker

ROUNDS = 15
BOXES = 20
SANDBOX = pathlib.Path(__file__).resolve().parents[2] / "bin" / "sandbox"
HOST = sandboxes.Host(Docker(), places.Places())
NAME = "default"
SMALL = {"nano_cpus": 250_000_000, "memory": 64 << 20, "pids": 32, "working_set": 300 << 20}
BUSY = ["/bin/sh", "-c", "while :; do echo x > /workspace/x; rm /workspace/x; done"]


def timed() -> tuple[float, float]:
    """Return the seconds until a run's command has begun, and until the run has ended."""
    start = time.perf_counter()
    with subprocess.Popen([SANDBOX, "run", NAME, "--", "echo", "begun"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        begun = time.perf_counter() - start
        assert process.wait() == 0
    return begun, time.perf_counter() - start


def medians() -> list[float]:
    """Return the medians of some runs, after one that warms up."""
    timed()
    return [round(statistics.median(column), 3) for column in zip(*(timed() for _round in range(ROUNDS)), strict=True)]


def test_a_run_begins_under_load_as_on_an_idle_machine() -> None:
    idle = medians()
    with tempfile.TemporaryDirectory(prefix="bench-load-", dir="/var/tmp") as tree, contextlib.ExitStack() as held:
        pathlib.Path(tree, "file").write_text("x", encoding="ascii")
        shape = {**run.described(HOST, NAME), **SMALL}
        for _box in range(BOXES):
            name, _description = held.enter_context(run.throwaway(HOST, NAME, shape, tree))
            exec_id = HOST.docker.exec_create(stack.container_name(name), {"Cmd": BUSY})
            HOST.docker.call("POST", f"/exec/{exec_id}/start", {"Detach": True})
        loaded = medians()
    figures = {
        "idle_begun_s": idle[0],
        "idle_whole_s": idle[1],
        "loaded_begun_s": loaded[0],
        "loaded_whole_s": loaded[1],
        "ratio_begun": round(loaded[0] / idle[0], 2),
        "sandboxes": BOXES,
        "rounds": ROUNDS,
    }
    sys.stdout.write("\nload: " + json.dumps(figures) + "\n")
    assert all(figures.values())
