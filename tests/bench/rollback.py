# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Snapshots and restores beside restic and ``cp -a``, on originals of 20,000 and 200,000 files; prints JSON lines, draws a plot.

Run it as ``python tests/bench/rollback.py [PNG]`` on a host with sandboxes and restic. For each runtime that the engine has:
a sandbox with so many changed files changes them all again, and each of the three saves that. restic and ``cp -a`` save what
the sandbox sees, which is all there is for them to save. *pause* is the longest that a program in the sandbox has not run for
around a snapshot. A restore of ours ends with the restarted sandbox's first answer; the restart alone is told too, for
the others need one as well. Figures are medians of wall seconds, and *load* is what else the machine had to do when they were begun.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import random
import shutil
import statistics
import subprocess
import sys
import time
import typing as t

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parents[2] / ".collections"), str(pathlib.Path(__file__).resolve().parents[1])]

from ansible_collections.dockersandbox.guardrails.plugins.module_utils import rollback, run, sandboxes, stack
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.sandboxes import Host
from bench import plot
from security.arena import Arena, Engine

ORIGINALS = (20_000, 200_000)
CHANGES = (10, 1_000, 10_000)
BYTES = 700_000_000
ROUNDS = 3
SEED = 20261124
CHANGE = """
import sys
count, step, mark = map(int, sys.argv[1:])
for number in range(0, count * step, step):
    with open(f"/workspace/{number % 50:02d}/{number // 50 % 50:02d}/{number}", "ab") as file:
        file.write(b"%d" % mark)
"""
TICK = """
import time
last = time.monotonic()
with open("/tmp/gaps", "w", buffering=1) as file:
    while True:
        time.sleep(0.0005)
        now = time.monotonic()
        if now - last > 0.005:
            print(int(1000 * (now - last)), file=file)
        last = now
"""


def make(top: pathlib.Path, files: int) -> None:
    """Make originals: sizes as in source trees (many small, few large), the same on every machine."""
    rng = random.Random(SEED)
    weights = [min(rng.paretovariate(1.1), 2000) for _file in range(files)]
    scale = BYTES / sum(weights)
    noise = rng.randbytes(1 << 22)
    for number, weight in enumerate(weights):
        folder = top / f"{number % 50:02d}" / f"{number // 50 % 50:02d}"
        folder.mkdir(parents=True, exist_ok=True)
        left = int(weight * scale)
        with (folder / str(number)).open("wb") as file:
            while left > 0:
                start = rng.randrange(len(noise) // 2)
                left -= file.write(noise[start : start + left])


def say(**figures: object) -> None:
    """Print one line of figures."""
    sys.stdout.write(json.dumps(figures) + "\n")
    sys.stdout.flush()


def timed(act: t.Callable[[], object]) -> float:
    """Return the seconds that *act* takes."""
    start = time.perf_counter()
    act()
    return time.perf_counter() - start


class Restic:
    """A repository of restic's, and the tree that it saves."""

    def __init__(self, folder: pathlib.Path, tree: str) -> None:
        self.folder, self.tree = folder, tree
        self.call("init")

    def call(self, *words: str) -> None:
        """Run restic."""
        environment = {**os.environ, "RESTIC_PASSWORD": "x", "RESTIC_REPOSITORY": str(self.folder / "restic"), "HOME": str(self.folder)}
        subprocess.run(["restic", "-q", *words], env=environment, capture_output=True, check=True)

    def size(self) -> int:
        """Return the bytes that it takes."""
        return int(subprocess.run(["du", "-sk", self.folder / "restic"], capture_output=True, text=True, check=True).stdout.split()[0]) << 10


def measure(host: Host, name: str, shape: stack.Description, tree: pathlib.Path, files: int, changes: int, folder: pathlib.Path) -> dict[str, float]:
    """Return the figures of one sandbox."""
    taken: dict[str, list[float]] = {}

    def note(word: str, value: float) -> None:
        taken.setdefault(word, []).append(value)

    with contextlib.ExitStack() as gone:
        box, description = gone.enter_context(run.throwaway(host, name, shape, str(tree)))
        container = stack.container_name(box)
        working_set = host.working_set(box, description)
        assert working_set is not None
        kept = rollback.mounted(working_set)
        volume = host.docker.volume(f"{container}-workspace")
        assert volume is not None
        restic = Restic(folder, volume["Mountpoint"])

        def inside(script: str, *words: str) -> bytes:
            code, output = host.execute(box, description, ["python3", "-c", script, *words], timeout=300)
            assert code == 0, output
            return output

        def change(mark: int) -> None:
            inside(CHANGE, str(changes), str(files // changes), str(mark))

        change(0)
        note("restic_first_s", timed(lambda: restic.call("backup", restic.tree)))
        rollback.snapshot(host, kept, "the first")
        exec_id = host.docker.exec_create(container, {"Cmd": host.command(description, ["python3", "-c", TICK])})
        host.docker.call("POST", f"/exec/{exec_id}/start", {"Detach": True})
        saved: list[str] = []
        for mark in range(1, ROUNDS + 1):
            free, before = os.statvfs(working_set.delta).f_bfree, restic.size()
            change(mark)
            time.sleep(0.2)
            inside("open('/tmp/gaps', 'r+').truncate(0)")
            started = time.perf_counter()
            made = rollback.snapshot(host, kept, "a round")
            note("ours_s", time.perf_counter() - started)
            assert made.snapshot is not None
            saved.append(made.snapshot.id)
            note("frozen_s", made.paused)
            gaps = inside("print(open('/tmp/gaps').read().replace(chr(0), ''))").split()
            note("pause_s", max(map(int, gaps), default=0) / 1000)
            note("ours_bytes", (free - os.statvfs(working_set.delta).f_bfree) * 4096)
            note("restic_s", timed(lambda: restic.call("backup", restic.tree)))
            note("restic_bytes", restic.size() - before)
        copy = folder / "copy"
        note("cp_s", timed(lambda: subprocess.run(["cp", "-a", restic.tree, copy], check=True)))
        shutil.rmtree(copy)
        # As it is after runs: the last state is a snapshot, and an earlier one, in which all those files are others, is wanted.
        for last in (saved[-2], saved[-3], saved[-2]):

            def back(which: str = last) -> None:
                rollback.restore(host, kept, which, description=description)
                inside("")

            note("ours_restore_s", timed(back))
            assert not rollback.restore(host, kept, last, description=description, check=True).changed

        def restart() -> None:
            host.docker.kill(container)
            host.docker.stop(container)
            sandboxes.start(host.docker, container)
            inside("")

        note("restart_s", timed(restart))
        note("restic_restore_s", timed(lambda: restic.call("restore", "latest", "--target", str(copy))))
        assert kept.problems() == []
    subprocess.run(["rm", "-rf", folder], check=True)
    return {word: round(statistics.median(values), 3) for word, values in taken.items()}


def main(path: str) -> None:
    """Measure, print, draw."""
    arena = Arena("bench", "bench-", 998000)
    lines: dict[str, plot.Points] = {}
    try:
        host = Host(Engine(label=arena.label), arena.places)
        for files in ORIGINALS:
            tree = arena.folder / f"originals-{files}"
            make(tree, files)
            for runtime in [one for one, there in arena.runtimes().items() if there]:
                name = arena.prefix + runtime
                shape = {**sandboxes.read_stack(arena.places)[name], "working_set": 3 << 30, "memory": 1 << 30}
                for changes in CHANGES:
                    folder = arena.folder / "peers"
                    folder.mkdir()
                    load = round(os.getloadavg()[0], 1)
                    found = measure(host, name, shape, tree, files, changes, folder)
                    ratio = round(found["restic_restore_s"] / found["ours_restore_s"], 1)
                    say(runtime=runtime, originals=files, changes=changes, load=load, **found, restore_ratio_to_restic=ratio)
                    size = f"{files // 1000}k"
                    lines.setdefault(f"ours {runtime} {size}", []).append((changes, found["ours_s"]))
                    lines.setdefault(f"frozen {runtime} {size}", []).append((changes, max(found["frozen_s"], 0.001)))
                    if runtime == "runc":
                        lines.setdefault(f"restic {size}", []).append((changes, found["restic_s"]))
                        lines.setdefault(f"cp -a {size}", []).append((changes, found["cp_s"]))
    finally:
        arena.close()
    plot.draw(pathlib.Path(path), "A snapshot: seconds against changed files", "changed files", "seconds", lines)
    say(plot=path)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "rollback.png")
