# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Snapshots beside restic and cp, in a process of its own; the plot is in tests/output."""

from __future__ import annotations

import pathlib
import subprocess
import sys


def test_rollback() -> None:
    output = pathlib.Path(__file__).resolve().parents[1] / "output"
    output.mkdir(exist_ok=True)
    script = pathlib.Path(__file__).with_name("rollback.py")
    printed = subprocess.run([sys.executable, script, output / "rollback.png"], stdout=subprocess.PIPE, text=True, check=True).stdout
    sys.stdout.write("\n" + printed)
    assert printed.count("restore_ratio_to_restic") >= 6
