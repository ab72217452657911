# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs a module of the collection as Ansible does: a process of its own, arguments in, JSON out."""

from __future__ import annotations

import json
import subprocess
import sys
import typing as t

# Places of a host that has nothing of ours. The machine that tests run on may have a recorder, and one that does not answer.
NOWHERE = {"home": "/nonexistent", "run": "/nonexistent"}


def run(module: str, check: bool = False, **arguments: t.Any) -> dict[str, t.Any]:
    """Return what *module* answers to *arguments*; ``failed`` is always there."""
    arguments |= {"_ansible_check_mode": check, "_ansible_diff": True}
    done = subprocess.run(
        [sys.executable, "-m", f"ansible_collections.dockersandbox.guardrails.plugins.modules.{module}"],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}),
        env={"PYTHONPATH": ":".join(path for path in sys.path if path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout, done.stderr
    answer: dict[str, t.Any] = json.loads(done.stdout)
    return {"failed": False} | answer
