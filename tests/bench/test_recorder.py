# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How many events a second the recorder takes, and how soon each is durable, beside structlog writing plain JSON.

Events have 1 KiB and come from another process through the socket; every acknowledgement follows an fdatasync. structlog, in
the same run, writes the same events to a file with neither socket, chain, sync nor rules: that is the ceiling. Then the log
that came of it is verified, with one process and with one for each processor.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import typing as t
from pathlib import Path

import structlog
import yaml
from bench import load
from services.recorders import TOP, Recorder, running

EVENTS = {"with_rules": 15_000, "without_rules": 60_000}
AT_ONCE = 512
RATE, SECONDS = 500, 4
TARGETS = {"with_rules_per_s": 5000, "without_rules_per_s": 15_000, "p99_ms": 10, "verified_per_s": 100_000}
AMPLE = {"ration": {"events": 10**7, "bytes": 10**10, "burst": 10}, "rotation": {"bytes": 16 << 20, "seconds": 86_400}}


def rules() -> dict[str, t.Any]:
    """Return all rules as they come, the switched-off ones too."""
    found = yaml.safe_load((TOP / "configs" / "logging.yml").read_text(encoding="utf-8"))
    kept = {name: value for name, value in found.items() if name in {"logging_rules", "logging_allowlist"}}
    return {**kept, "logging_rules_enabled": {rule["id"]: True for rule in found["logging_rules"]}}


def sent(made: Recorder, *arguments: int) -> dict[str, t.Any]:
    """Return what the sender's process tells."""
    environment = {**os.environ, "PYTHONPATH": f"{TOP / '.collections'}:{TOP / 'src'}"}
    command = [sys.executable, load.__file__, made.path("egress"), *map(str, arguments)]
    return t.cast("dict[str, t.Any]", json.loads(subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True).stdout))


def plain(folder: Path) -> float:
    """Return how many events a second structlog writes."""
    events = [load.event(number) for number in range(20_000)]
    with (folder / "plain.jsonl").open("w", encoding="utf-8") as file:
        processors: list[t.Any] = [structlog.processors.TimeStamper(fmt="iso", utc=True), structlog.processors.JSONRenderer(sort_keys=True)]
        log = structlog.wrap_logger(structlog.WriteLogger(file), processors=processors)
        start = time.perf_counter()
        for event in events:
            log.info("event", **event)
        return len(events) / (time.perf_counter() - start)


def verified(made: Recorder, jobs: int) -> float:
    """Return how many events a second are verified."""
    start = time.perf_counter()
    report = made.verify(jobs=jobs)
    assert report.problems == []
    return report.records / (time.perf_counter() - start)


def test_recorder() -> None:
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="bench-recorder-", dir="/var/tmp") as folder:
        figures["structlog_per_s"] = plain(Path(folder))
        with running(Path(folder, "with"), redaction=rules(), **AMPLE) as made:
            figures["with_rules_per_s"] = sent(made, EVENTS["with_rules"], AT_ONCE, 0)["per_s"]
            paced = sent(made, RATE * SECONDS, 0, RATE)
            figures |= {name: paced[name] for name in ("p50_ms", "p99_ms")}
        with running(Path(folder, "without"), program=(str(TOP / "tests/services/unruled.py"),), **AMPLE) as made:
            figures["without_rules_per_s"] = sent(made, EVENTS["without_rules"], AT_ONCE, 0)["per_s"]
        figures["verified_by_one_per_s"] = verified(made, 1)
        figures["verified_per_s"] = verified(made, os.cpu_count() or 1)
    ratios = {f"ratio_{word}": round(figures[f"{word}_per_s"] / figures["structlog_per_s"], 2) for word in EVENTS}
    shown = {name: round(value, 2) if name.endswith("ms") else round(value) for name, value in figures.items()}
    sys.stdout.write("\nrecorder: " + json.dumps({**shown, **ratios, "targets": TARGETS}) + "\n")
    assert all(figures.values())
