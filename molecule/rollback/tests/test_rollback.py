# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""P8: what a sandbox changed can be undone, and the clock is set."""

from __future__ import annotations

import json
import typing as t

Host = t.Any
SANDBOX = "/opt/DockerSandboxApp/bin/sandbox"


def inside(host: Host, script: str) -> t.Any:
    """Run *script* in the sandbox."""
    return host.run("docker exec sandbox-default sh -c %s", script)


def test_the_policy_is_what_was_declared(host: Host) -> None:
    policy = json.loads(host.file("/opt/DockerSandboxApp/configs/rollback.json").content_string)
    assert policy == {"every": 15, "last": 20, "hourly": 24, "daily": 7}


def test_the_clock_calls(host: Host) -> None:
    assert host.run("/opt/DockerSandboxApp/bin/on-schedule").rc == 0
    log = "/var/log/dockerd-supervised.log"
    assert "on-schedule" in host.file("/opt/DockerSandboxApp/bin/dockerd-supervised").content_string
    assert host.file(log).exists


def test_a_change_is_undone(host: Host) -> None:
    assert inside(host, "echo one > /workspace/molecule").rc == 0
    assert host.run(f"{SANDBOX} snapshot default --name molecule --checkpoint").rc == 0
    assert inside(host, "echo two > /workspace/molecule").rc == 0
    dry = host.run(f"{SANDBOX} restore default molecule --dry-run")
    assert dry.stdout == "changed molecule (mtime, content)\n"
    assert host.run(f"{SANDBOX} restore default molecule").rc == 0
    assert inside(host, "cat /workspace/molecule").stdout == "one\n"
    again = host.run(f"{SANDBOX} restore default molecule")
    assert "nothing differs" in again.stderr
    assert inside(host, "rm /workspace/molecule").rc == 0
    assert host.run(f"{SANDBOX} snapshot default --remove molecule --reason test").rc == 0


def test_a_run_names_its_snapshots(host: Host) -> None:
    done = host.run(f"{SANDBOX} run default --json -- true")
    snapshots = json.loads(done.stdout)["snapshots"]
    listed = json.loads(host.check_output(f"{SANDBOX} snapshots default --json"))["snapshots"]
    assert set(snapshots.values()) <= {one["id"] for one in listed}
    assert all(snapshots.values())
