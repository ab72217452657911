# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""P2: egress runs behind its walls, and a sandbox has a proxy that denies."""

from __future__ import annotations

import json
import typing as t

Host = t.Any
HOME = "/opt/DockerSandboxApp"
CONTAINER = "guardrails-egress"
TABLE = "inet dockersandbox_egress"


def inspected(host: Host, name: str) -> dict[str, t.Any]:
    return t.cast("dict[str, t.Any]", json.loads(host.check_output(f"docker inspect {name}"))[0])


def test_it_runs_behind_its_walls(host: Host) -> None:
    found = inspected(host, CONTAINER)
    assert found["State"]["Running"]
    config = found["HostConfig"]
    assert (config["NetworkMode"], config["ReadonlyRootfs"], config["CapDrop"]) == (CONTAINER, True, ["ALL"])
    fields = dict(line.split(":\t", 1) for line in host.file(f"/proc/{found['State']['Pid']}/status").content_string.splitlines() if ":\t" in line)
    assert fields["Uid"].split() == [str(host.user(CONTAINER).uid)] * 4
    assert (int(fields["CapEff"], 16), int(fields["CapBnd"], 16), fields["NoNewPrivs"], fields["Seccomp"]) == (0, 0, "1", "2")


def test_a_sandbox_has_no_interface_and_a_proxy(host: Host) -> None:
    found = inspected(host, "sandbox-default")
    assert found["HostConfig"]["NetworkMode"] == "none"
    assert "https_proxy=http://127.0.0.1:3128" in found["Config"]["Env"]
    assert "egress.sock" in host.check_output("docker exec sandbox-default ls /run/guardrails/egress")


def test_what_no_rule_allows_is_denied_and_on_record(host: Host) -> None:
    script = "import urllib.request as u; u.urlopen('http://molecule.example.org/')"
    done = host.run(f'docker exec sandbox-default python3 -c "{script}"')
    assert done.rc != 0
    assert "403" in done.stderr
    said = host.check_output(f"{HOME}/bin/sandbox log --json --action network --decision deny --limit 50")
    assert any("molecule.example.org" in json.loads(line).get("resource", "") for line in said.splitlines())


def test_the_wall_lets_nothing_through_that_no_rule_opens(host: Host) -> None:
    table = host.check_output(f"nft -s list table {TABLE}")
    assert 'iifname != "gr-egress" return' in table
    assert "tcp dport" not in table


def test_a_wall_that_was_torn_down_is_seen_and_put_back(host: Host) -> None:
    before = host.check_output(f"nft -s list table {TABLE}")
    host.check_output(f"nft delete table {TABLE}")
    status = host.run(f"{HOME}/bin/sandbox status")
    assert status.rc == 1
    assert "its wall is not there" in status.stdout
    started = inspected(host, CONTAINER)["State"]["StartedAt"]
    host.check_output(f"{HOME}/bin/sandbox up")
    assert host.check_output(f"nft -s list table {TABLE}") == before
    assert inspected(host, CONTAINER)["State"]["StartedAt"] == started


def test_a_killed_egress_is_back_and_the_sandbox_was_not_touched(host: Host) -> None:
    before, sandbox = inspected(host, CONTAINER), inspected(host, "sandbox-default")["State"]["Pid"]
    host.check_output(f"kill -9 {before['State']['Pid']}")
    request = r"b'CONNECT a.invalid:443 HTTP/1.1\r\n\r\n'"
    ask = f"import socket, time; time.sleep(3); s = socket.create_connection(('127.0.0.1', 3128)); s.sendall({request}); print(s.recv(99))"
    assert "HTTP/1.1 4" in host.check_output(f'docker exec sandbox-default python3 -c "{ask}"')
    assert inspected(host, CONTAINER)["State"]["Pid"] != before["State"]["Pid"]
    assert inspected(host, "sandbox-default")["State"]["Pid"] == sandbox
