# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The kernel's freezer, on a control group of the test's own: what is in it stands, goes on, or dies standing.

Needs root and a freezer: a test that has not fails and says so.
"""

from __future__ import annotations

import collections.abc
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import freezer

COUNT = "import sys\nwhile True:\n    sys.stdout.write('x')\n    sys.stdout.flush()\n"


@pytest.fixture
def counting(tmp_path: pathlib.Path) -> collections.abc.Iterator[tuple[freezer.Freezer, subprocess.Popen[bytes], pathlib.Path]]:
    """A program in a group of its own that makes a file longer for as long as it runs."""
    first = freezer.folder_of(os.getpid(), "freezer")
    above = first if first is not None else freezer.folder_of(os.getpid(), "")
    assert above is not None
    group = pathlib.Path(above, "guardrails-unit")
    group.mkdir(exist_ok=True)
    with open(tmp_path / "out", "wb") as out, subprocess.Popen([sys.executable, "-c", COUNT], stdout=out) as program:
        (group / "cgroup.procs").write_text(str(program.pid), encoding="ascii")
        found = freezer.of(program.pid)
        assert found == freezer.Freezer(str(group), first is not None)
        yield found, program, tmp_path / "out"
        found.kill()
        found.thaw()
    deadline = time.monotonic() + 5
    while True:
        try:
            group.rmdir()
            break
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def grows(path: pathlib.Path) -> bool:
    before = path.stat().st_size
    time.sleep(0.2)
    return path.stat().st_size > before


def test_what_is_frozen_stands_and_goes_on(counting: tuple[freezer.Freezer, subprocess.Popen[bytes], pathlib.Path]) -> None:
    group, _program, out = counting
    assert (group.wanted, group.frozen, grows(out)) == (False, False, True)
    group.freeze()
    assert (group.wanted, group.frozen, grows(out)) == (True, True, False)
    group.freeze()
    group.thaw()
    assert (group.wanted, group.frozen, grows(out)) == (False, False, True)


def test_what_is_killed_while_it_stands_does_no_more(counting: tuple[freezer.Freezer, subprocess.Popen[bytes], pathlib.Path]) -> None:
    group, program, out = counting
    group.freeze()
    size = out.stat().st_size
    assert not group.doomed
    group.kill()
    # Version 2 lets them end at once.
    assert group.doomed or not group.first
    group.thaw()
    assert program.wait(10) == -signal.SIGKILL
    assert out.stat().st_size == size


def test_a_group_that_is_gone_is_none() -> None:
    with subprocess.Popen(["true"]) as program:
        program.wait()
    assert freezer.of(program.pid) is None
    freezer.Freezer("/sys/fs/cgroup/guardrails-none", True).thaw()
