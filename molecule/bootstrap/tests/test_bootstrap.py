# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""P0: the host's layout, key, engine and records."""

from __future__ import annotations

import json
import typing as t

import pytest

HOME = "/opt/DockerSandboxApp"

Host = t.Any


@pytest.mark.parametrize(
    ("path", "mode"),
    [
        (HOME, 0o755),
        (f"{HOME}/phases", 0o755),
        (f"{HOME}/configs", 0o755),
        (f"{HOME}/rules", 0o755),
        (f"{HOME}/docs", 0o755),
        (f"{HOME}/observability/logs", 0o2750),
        (f"{HOME}/observability/metrics", 0o2750),
        (f"{HOME}/observability/reports", 0o2750),
        (f"{HOME}/.state/keys", 0o700),
        ("/var/lib/dockersandbox/sandboxes", 0o700),
    ],
)
def test_layout(host: Host, path: str, mode: int) -> None:
    folder = host.file(path)
    assert folder.is_directory
    assert folder.mode == mode
    assert folder.user == "root"


def test_key_is_root_alone(host: Host) -> None:
    assert host.file(f"{HOME}/.state/keys/host.key").mode == 0o600
    assert host.file(f"{HOME}/.state/keys/host.pub").mode == 0o644


def test_service_account_cannot_log_in(host: Host) -> None:
    assert host.user("dockersandbox").shell == "/usr/sbin/nologin"


def test_engine_outlives_its_daemon(host: Host) -> None:
    assert json.loads(host.check_output("docker info --format '{{json .LiveRestoreEnabled}}'")) is True


def test_every_lock_holds(host: Host) -> None:
    locks = host.check_output(f"find {HOME} -name '*.sha256'").splitlines()
    assert locks
    for lock in locks:
        folder, name = lock.rsplit("/", 1)
        assert host.run(f"cd {folder} && sha256sum --status -c {name}").rc == 0, lock


def test_phases_have_scripts_and_progress(host: Host) -> None:
    assert host.file(f"{HOME}/phases/phase0_bootstrap.sh").mode == 0o755
    assert "bootstrap" in host.file(f"{HOME}/.state/docker_sandbox_progress.md").content_string
