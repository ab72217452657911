# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The promises about manifests: as fast as hashdeep, 0.25 s for an unchanged tree, and no change goes unseen."""

from __future__ import annotations

import json
import subprocess
import sys
import typing as t
from pathlib import Path


def test_manifest() -> None:
    script = Path(__file__).with_name("manifest.py")
    printed = subprocess.run([sys.executable, script], stdout=subprocess.PIPE, text=True, check=True).stdout
    sys.stdout.write(printed)
    figures: dict[str, t.Any] = {}
    for line in printed.splitlines():
        figures |= json.loads(line)
    assert figures["ratio"] <= 1
    assert figures["unchanged_s"] <= 0.25 and figures["same_digest"]
    assert figures["changed_with_size_and_mtime_put_back"] and figures["detected"] and figures["as_full_build"]
