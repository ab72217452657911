# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""P1: the sandbox as the engine and the kernel see it."""

from __future__ import annotations

import json
import typing as t

import pytest

Host = t.Any
SANDBOX = "sandbox-default"


@pytest.fixture
def inspected(host: Host) -> t.Any:
    """What the engine says of the sandbox."""
    return json.loads(host.check_output(f"docker inspect {SANDBOX}"))[0]


def inside(host: Host, script: str) -> str:
    """Run *script* in the sandbox and return what it printed."""
    return t.cast("str", host.check_output("docker exec %s sh -c %s", SANDBOX, script))


def test_engine_was_told_every_cap(inspected: t.Any) -> None:
    config = inspected["HostConfig"]
    assert inspected["State"]["Running"]
    assert config["NetworkMode"] == "none"
    assert config["ReadonlyRootfs"] is True
    assert config["CapDrop"] == ["ALL"]
    assert not config["CapAdd"]
    assert not config["Privileged"]
    assert {"no-new-privileges"} < set(config["SecurityOpt"])
    assert (config["Memory"], config["MemorySwap"], config["PidsLimit"], config["NanoCpus"]) == (2 << 30, 2 << 30, 256, 10**9)


def test_kernel_holds_them(host: Host) -> None:
    status = dict(line.split(":\t", 1) for line in inside(host, "cat /proc/self/status").splitlines())
    assert status["Uid"].split()[0] != "0"
    assert {status[key] for key in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")


def test_there_is_no_way_out(host: Host) -> None:
    assert inside(host, "ls /sys/class/net").split() == ["lo"]


@pytest.mark.parametrize("path", ["/proof", "/etc/proof", "/usr/bin/proof"])
def test_root_is_read_only(host: Host, path: str) -> None:
    assert host.run("docker exec %s touch %s", SANDBOX, path).rc != 0


def test_compose_file_describes_the_same(host: Host) -> None:
    services = json.loads(host.check_output("docker compose -f /opt/DockerSandboxApp/configs/compose.yml config --format json"))["services"]
    assert services[SANDBOX]["network_mode"] == "none"
