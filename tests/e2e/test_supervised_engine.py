# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""dockerd-supervised on a machine without a service manager: whatever is killed, one engine runs and containers go on."""

from __future__ import annotations

import pathlib
import subprocess
import sys
import time
import typing as t

import pytest

TESTS = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(TESTS))
import machine

SCRIPT = TESTS.parent / "roles" / "bootstrap" / "files" / "dockerd-supervised"
MACHINE = "guardrails-ci-supervised"
PACKAGES = ["docker.io", "iptables", "procps", "python3"]
SUPERVISOR = "dockerd-supervised start"
ONCE_A_MINUTE = ["minutely", "on-schedule"]


def sh(command: str) -> str:
    """Return what *command* prints in the machine."""
    argv = ["/usr/bin/docker", "exec", MACHINE, "sh", "-c", command]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


def pids(pattern: str) -> list[str]:
    """Return the processes of the machine whose command line matches *pattern*."""
    return sh(f"pgrep -f '^[^ ]*{pattern}$' || true").split()


def supervisor() -> list[str]:
    """Return the supervisors that run."""
    return pids(f"python3 .*{SUPERVISOR}")


def until(holds: t.Callable[[], bool], seconds: int = 30) -> None:
    """Wait until *holds*, for so many *seconds*."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, sh("tail -n 20 /var/log/dockerd-supervised.log")
        time.sleep(0.3)


def answers() -> bool:
    """Tell whether the engine lists the container that must go on."""
    return sh("docker ps --format '{{.Names}}' 2>/dev/null || true") == "goes-on"


@pytest.fixture(scope="module")
def container() -> t.Iterator[str]:
    """Yield the process id of a container's command, in a machine whose engine was just started."""
    machine.down(MACHINE, images=True)
    machine.up(MACHINE, "bookworm", PACKAGES)
    subprocess.run(["/usr/bin/docker", "cp", str(SCRIPT), f"{MACHINE}:/usr/local/bin/dockerd-supervised"], check=True)
    sh("mkdir -p /etc/docker && echo '{\"live-restore\": true}' >/etc/docker/daemon.json")
    sh("printf '#!/bin/sh\\necho ran >>/run/at-start\\n' >/usr/local/bin/at-start && chmod 755 /usr/local/bin/at-start")
    for name in ONCE_A_MINUTE:
        sh(f"printf '#!/bin/sh\\necho ran >>/run/{name}\\nexit 3\\n' >/usr/local/bin/{name} && chmod 755 /usr/local/bin/{name}")
    # A number from before a restart, of a process that is alive.
    sh("echo 1 >/run/docker.pid")
    sh(SUPERVISOR)
    until(lambda: sh("docker info >/dev/null 2>&1 && echo yes || true") == "yes")
    sh("tar -C / -c bin lib lib64 usr/bin/sleep usr/lib64 usr/lib/*/libc.so.6 usr/lib/*/ld-* | docker import - tiny")
    sh("docker run -d --name goes-on --network none tiny sleep 12345")
    assert answers()
    yield pids("sleep 12345")[0]
    machine.down(MACHINE, images=True)


def test_a_second_start_does_nothing(container: str) -> None:
    before = supervisor(), pids("dockerd")
    assert list(map(len, before)) == [1, 1]
    sh(SUPERVISOR)
    time.sleep(1)
    assert (supervisor(), pids("dockerd")) == before


def test_what_is_to_be_done_at_a_start_is_done_at_each(container: str) -> None:
    assert sh("cat /run/at-start") == "ran"
    sh(f"kill -9 {pids('dockerd')[0]}")
    until(lambda: sh("cat /run/at-start") == "ran\nran")
    until(answers)


def test_a_killed_engine_comes_back_and_its_containers_were_never_gone(container: str) -> None:
    before = pids("dockerd")
    sh(f"kill -9 {before[0]}")
    until(answers)
    assert pids("dockerd") != before
    assert pids("sleep 12345") == [container]


def test_an_engine_whose_supervisor_was_killed_is_taken_over_and_not_doubled(container: str) -> None:
    engine = pids("dockerd")
    sh(f"kill -9 {supervisor()[0]}")
    sh(SUPERVISOR)
    time.sleep(3)
    assert pids("dockerd") == engine
    sh(f"kill -9 {engine[0]}")
    until(answers)
    assert len(pids("dockerd")) == 1
    assert pids("sleep 12345") == [container]


def test_a_large_log_is_moved_aside(container: str) -> None:
    sh("yes 0123456789 | head -c 11000000 >>/var/log/dockerd-supervised.log")
    until(lambda: int(sh("stat -c %s /var/log/dockerd-supervised.log")) < 1000000)
    assert int(sh("stat -c %s /var/log/dockerd-supervised.log.1")) > 11000000


@pytest.mark.parametrize("name", ONCE_A_MINUTE)
def test_what_is_to_be_done_once_a_minute_is_done_and_its_failure_told(container: str, name: str) -> None:
    sh(f"rm -f /run/{name}")
    until(lambda: sh(f"cat /run/{name} 2>/dev/null || true") == "ran", 70)
    until(lambda: sh(f"grep -c '{name} ended with 3' /var/log/dockerd-supervised.log || true") != "0")


def test_reload_reaches_the_engine(container: str) -> None:
    sh('echo \'{"live-restore": true, "debug": true}\' >/etc/docker/daemon.json; dockerd-supervised reload')
    until(lambda: sh("docker info --format '{{.Debug}}'") == "true")


def test_term_ends_the_engine_and_containers_go_on(container: str) -> None:
    sh(f"kill {supervisor()[0]}")
    until(lambda: not pids("dockerd") and not supervisor())
    assert pids("sleep 12345") == [container]
    assert "no dockerd runs" in sh("dockerd-supervised reload 2>&1 || true")
    sh(SUPERVISOR)
    until(answers)
    assert pids("sleep 12345") == [container]


def test_stop_waits_until_both_have_ended(container: str) -> None:
    assert sh("dockerd-supervised stop") == "dockerd-supervised: stopped"
    assert (pids("dockerd"), supervisor()) == ([], [])
    assert sh("dockerd-supervised stop") == "dockerd-supervised: not running"
    assert pids("sleep 12345") == [container]
