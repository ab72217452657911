# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A commit names its ticket: the hook that says so, and the history that was made under it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def hook(message: str, folder: Path) -> subprocess.CompletedProcess[str]:
    file = folder / "message"
    file.write_text(message, encoding="utf-8")
    return subprocess.run([ROOT / ".githooks" / "commit-msg", file], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("message", "accepted"),
    [
        ("#2 env: seccomp profile\n", True),
        ("#12 human_intervention: pause\n\nWhy.\n", True),
        ("# Please enter a message\n\n#2 fs: a\n", True),
        ("Merge branch 'x'\n", True),
        ('Revert "#2 env: x"\n', True),
        ("fixup! #2 env: x\n", True),
        ("seccomp profile\n", False),
        ("#2 seccomp profile\n", False),
        ("#2 env:\n", False),
        ("2 env: x\n", False),
        ("why\n\n#2 env: x\n", False),
        ("", False),
        ("# only a comment\n", False),
    ],
)
def test_hook(tmp_path: Path, message: str, accepted: bool) -> None:
    done = hook(message, tmp_path)
    assert (done.returncode == 0) is accepted
    assert accepted or (done.stderr.startswith("commit-msg: ") and done.stderr.count("\n") == 1)


def test_history_names_tickets(tmp_path: Path) -> None:
    log = subprocess.run(
        ["git", "log", "-z", "--max-count=300", "--format=%B"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    messages = [message for message in log.stdout.split("\0") if message.strip()]
    assert messages
    assert [message for message in messages if hook(message, tmp_path).returncode] == []
