# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long it takes until a sandbox is ready, beside a bare container of the same image.

Needs a converged host with the sandbox ``default``. *Ready* is when a first command in it has been answered. The two take
turns; figures are medians of wall seconds. The bare container is started twice: by ``docker run``, as people do, and by
the same two calls of the engine that ours are made with, which leaves out the start of the docker client.
"""

from __future__ import annotations

import collections
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
import typing as t
import uuid

from ansible_collections.dockersandbox.guardrails.plugins.module_utils import places, run, sandboxes
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.docker_api import Docker

ROUNDS = 15
TARGET = 1.3
SANDBOX = pathlib.Path(__file__).resolve().parents[2] / "bin" / "sandbox"
HOST = sandboxes.Host(Docker(), places.Places())
NAME = "default"
TRUE = ["/bin/true"]


def command(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True)


def ours(tree: str) -> t.Iterator[None]:
    """A throw-away sandbox over *tree*: baseline, working set, mounts, container."""
    with run.throwaway(HOST, NAME, run.described(HOST, NAME), tree) as (name, _description):
        HOST.docker.execute(f"sandbox-{name}", TRUE)
        yield


def by_client(image: str) -> t.Iterator[None]:
    """``docker run``."""
    name = f"bench-{uuid.uuid4().hex[:8]}"
    command("docker", "run", "-d", "--name", name, image)
    command("docker", "exec", name, *TRUE)
    yield
    HOST.docker.remove(name)


def by_calls(image: str) -> t.Iterator[None]:
    """The engine's calls for a container that is given nothing but its image."""
    name = f"bench-{uuid.uuid4().hex[:8]}"
    HOST.docker.create(name, {"Image": image})
    HOST.docker.start(name)
    HOST.docker.execute(name, TRUE)
    yield
    HOST.docker.remove(name)


def timed(made: t.Iterator[None]) -> float:
    """Return the seconds until *made* is ready; what follows is clearing away."""
    start = time.perf_counter()
    next(made)
    taken = time.perf_counter() - start
    next(made, None)
    return taken


def test_a_sandbox_is_ready_nearly_as_fast_as_a_bare_container() -> None:
    image = run.described(HOST, NAME)["image"]
    taken: dict[str, list[float]] = collections.defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="bench-start-", dir="/var/tmp") as tree:
        for number in range(20):
            pathlib.Path(tree, f"file-{number}").write_text("x" * number)
        ways: dict[str, t.Callable[[], t.Iterator[None]]] = {
            "sandbox": lambda: ours(tree),
            "docker_run": lambda: by_client(image),
            "engine_calls": lambda: by_calls(image),
        }
        for number in range(ROUNDS + 1):
            for word, way in ways.items():
                seconds = timed(way())
                if number:  # the first warms up
                    taken[word].append(seconds)
    for _round in range(ROUNDS):
        for word, argv in {
            "whole_run": (str(SANDBOX), "run", NAME, "--", *TRUE),
            "whole_docker_run": ("docker", "run", "--rm", "--entrypoint", "/bin/true", image),
        }.items():
            start = time.perf_counter()
            command(*argv)
            taken[word].append(time.perf_counter() - start)
    medians = {word: statistics.median(seconds) for word, seconds in taken.items()}
    figures = {f"{word}_s": round(median, 3) for word, median in medians.items()}
    ratios = {f"ratio_to_{word}": round(medians["sandbox"] / medians[word], 2) for word in ("docker_run", "engine_calls")}
    sys.stdout.write("\nstart: " + json.dumps({**figures, **ratios, "target_ratio_to_docker_run": TARGET, "rounds": ROUNDS}) + "\n")
    assert all(len(seconds) == ROUNDS for seconds in taken.values())
