# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The promises about redaction: an event with nothing costs less than half of a plain loop, and few lines look like secrets."""

from __future__ import annotations

import json
import subprocess
import sys
import typing as t
from pathlib import Path


def test_redaction() -> None:
    script = Path(__file__).with_name("redaction.py")
    checkout = script.parents[2]
    environment = {"PYTHONPATH": str(checkout / ".collections")}
    argv = [sys.executable, str(script), "--lines", "100000", str(checkout), "/usr/share/doc"]
    printed = subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True, env=environment).stdout
    sys.stdout.write(printed)
    lines: list[dict[str, t.Any]] = [json.loads(line) for line in printed.splitlines()]
    ratios = next(line["ratio_to_clean"] for line in lines if "ratio_to_clean" in line)
    assert ratios["loop_with_keywords"] > 2
    assert all(line["secrets_in_1000_lines"] < 2 for line in lines if "folder" in line)
