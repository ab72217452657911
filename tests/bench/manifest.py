# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Manifest against hashdeep on a tree of 20,000 files and 700 MB that this script makes itself; prints JSON lines.

Run it as ``python tests/bench/manifest.py [rounds]``, on a machine with hashdeep. Each measured run is a process of its
own, from the start of Python to its end, and the two programs take turns.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FILES = 20_000
BYTES = 700_000_000
SEED = 20261124
CHECKOUT = Path(__file__).resolve().parents[2]
SCRIPT = """
import sys
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import manifest
print(manifest.build(sys.argv[1], cache=sys.argv[2] or None, full=len(sys.argv) > 3).digest)
"""


def make(root: Path) -> None:
    """Make the tree: sizes as in source trees (many small, few large), the same on every machine."""
    rng = random.Random(SEED)
    weights = [rng.paretovariate(1.1) for _round in range(FILES)]
    scale = BYTES / sum(min(weight, 2000) for weight in weights)
    noise = rng.randbytes(1 << 22)
    for number, weight in enumerate(weights):
        folder = root / f"{number % 40:02d}" / f"{number // 40 % 25:02d}"
        folder.mkdir(parents=True, exist_ok=True)
        left = int(min(weight, 2000) * scale)
        with (folder / f"file-{number:05d}").open("wb") as file:
            while left > 0:
                start = rng.randrange(len(noise) // 2)
                left -= file.write(noise[start : start + left])


def say(**figures: object) -> None:
    """Print one line of figures."""
    sys.stdout.write(json.dumps(figures) + "\n")
    sys.stdout.flush()


def timed(argv: list[str]) -> tuple[float, str]:
    """Return how long *argv* takes, in seconds, and what it prints."""
    environment = os.environ | {"PYTHONPATH": str(CHECKOUT / ".collections"), "PYTHONDONTWRITEBYTECODE": ""}
    start = time.perf_counter()
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=True)
    return time.perf_counter() - start, done.stdout.strip()


def main() -> None:
    """Measure, print, clean up."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    work = Path(tempfile.mkdtemp(prefix="bench-manifest-"))
    try:
        tree, cache = work / "tree", work / "cache"
        make(tree)
        os.sync()
        files = [path for path in tree.rglob("*") if path.is_file()]
        say(files=len(files), bytes=sum(path.stat().st_size for path in files))
        ours = [sys.executable, "-c", SCRIPT, str(tree), ""]
        theirs = ["hashdeep", "-r", "-c", "sha256", "-j2", str(tree)]
        times: dict[str, list[float]] = {"build": [], "hashdeep": []}
        timed(theirs)
        for _round in range(rounds):
            times["build"].append(timed(ours)[0])
            times["hashdeep"].append(timed(theirs)[0])
        medians = {name: statistics.median(taken) for name, taken in times.items()}
        say(
            build_s=round(medians["build"], 3),
            hashdeep_s=round(medians["hashdeep"], 3),
            ratio=round(medians["build"] / medians["hashdeep"], 3),
            rounds={name: [round(one, 3) for one in taken] for name, taken in times.items()},
        )
        cached = [*ours[:-1], str(cache)]
        digest = timed(cached)[1]
        again = [timed(cached) for _round in range(rounds * 2 + 1)]
        say(
            unchanged_s=round(statistics.median(taken for taken, _found in again), 3),
            slowest_s=round(max(taken for taken, _found in again), 3),
            same_digest=all(found == digest for _taken, found in again),
        )
        victim = files[len(files) // 2]
        before = victim.stat()
        content = bytearray(victim.read_bytes())
        content[0] ^= 1
        victim.write_bytes(content)
        os.utime(victim, ns=(before.st_atime_ns, before.st_mtime_ns))
        after = victim.stat()
        taken, found = timed(cached)
        say(
            changed_with_size_and_mtime_put_back=(after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns),
            detected=found != digest,
            as_full_build=found == timed([*cached, "full"])[1],
            detect_s=round(taken, 3),
        )
    finally:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
