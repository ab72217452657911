# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole: a run in the sandbox becomes a bundle, and its exit code comes through."""

from __future__ import annotations

import json
import typing as t

Host = t.Any
HOME = "/opt/DockerSandboxApp"


def test_a_run_becomes_a_bundle(host: Host) -> None:
    done = host.run(f"{HOME}/bin/sandbox run default -- sh -c 'echo work >/workspace/made; echo seen; exit 3'")
    assert (done.rc, done.stdout.split()) == (3, ["seen"]), done.stderr
    newest = host.check_output(f"ls -td {HOME}/exports/default/*/").split()[0]
    assert "+work" in host.file(f"{newest}changes.patch").content_string
    names = set(host.check_output(f"ls {newest}").split())
    assert {"changes.patch", "metadata.jsonl"} < names


def test_status_knows_the_sandbox(host: Host) -> None:
    assert "default" in json.dumps(json.loads(host.check_output(f"{HOME}/bin/sandbox status --json")))


def test_every_phase_is_in_the_progress_file(host: Host) -> None:
    progress = host.file(f"{HOME}/.state/docker_sandbox_progress.md").content_string
    assert [word for word in ("bootstrap", "env", "network", "fs", "logging", "rollback", "cost") if word not in progress] == []
