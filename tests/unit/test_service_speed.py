# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What services ask of the kernel so that they take less of the processor: they have it where it can be had, and go on without."""

from __future__ import annotations

import asyncio
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dockersandbox.llm import ledger

TOP = Path(__file__).resolve().parents[2]
# Much memory of the kind that the interpreter has, and what of it lies on large pages before and after, in KiB.
LARGE = """
import pathlib
from dockersandbox.common import service
held = [str(number) * 9 for number in range(300_000)]
def large():
    return sum(int(line.split()[1]) for line in pathlib.Path("/proc/self/smaps").read_text().splitlines() if line.startswith("AnonHugePages:"))
before = large()
service.large_pages()
assert held == [str(number) * 9 for number in range(300_000)]
print(before, large())
"""


def large_pages_are_made() -> bool:
    """Whether the kernel makes large pages when it is told to."""
    release = tuple(map(int, re.findall(r"\d+", platform.release())[:2]))
    switch = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    return release >= (6, 1) and switch.exists() and "[never]" not in switch.read_text(encoding="ascii")


def test_memory_lies_on_large_pages_where_the_kernel_makes_them() -> None:
    environment = {**os.environ, "PYTHONPATH": f"{TOP / '.collections'}:{TOP / 'src'}"}
    told = subprocess.run([sys.executable, "-c", LARGE], env=environment, capture_output=True, text=True, check=True, timeout=60)
    before, after = map(int, told.stdout.split())
    assert after > before + 8192 if large_pages_are_made() else after >= before


@pytest.mark.parametrize("refused", [False, True])
def test_the_ledgers_thread_does_not_interrupt_the_loops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: bool) -> None:
    def refuse(*_arguments: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    if refused:
        monkeypatch.setattr(os, "sched_setscheduler", refuse)

    async def policy() -> int:
        made = ledger.SqliteLedger(tmp_path / "ledger.db")
        # It answers, so it has begun.
        await made.budgets()
        found = os.sched_getscheduler(made._thread.native_id or 0)
        await made.close()
        return found

    assert asyncio.run(policy()) == (os.SCHED_OTHER if refused else os.SCHED_BATCH)
    assert os.sched_getscheduler(0) == os.SCHED_OTHER
