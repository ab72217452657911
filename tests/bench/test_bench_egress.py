# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The promises about egress beside Squid: as much in bulk, nearly as many new tunnels, also with records, and little latency."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("squid"), reason="makes a network namespace, needs Debian's squid-openssl")
def test_egress() -> None:
    script = Path(__file__).with_name("egress.py")
    printed = subprocess.run([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, check=True).stdout
    sys.stdout.write(printed)
    lines: dict[str, dict[str, t.Any]] = {line["what"]: line for line in map(json.loads, printed.splitlines())}
    assert lines["bulk"]["egress_to_squid"] >= 1.0
    assert lines["tunnels"]["egress_to_squid"] >= 0.8
    assert lines["tunnels"]["egress_recorded_to_squid"] >= 0.6
    # From inside a sandbox, beside Squid behind the same forwarder.
    assert lines["bulk"]["way_egress_to_squid"] >= 0.9
    assert lines["tunnels"]["way_egress_to_squid"] >= 0.8
    assert lines["latency"]["egress_added_ms"][0] <= 1
    assert lines["crowd"]["least_mb_s"] >= lines["crowd"]["most_mb_s"] / 2
