# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""P5: the recorder runs behind its walls, and what happens is in its log, redacted and chained."""

from __future__ import annotations

import hashlib
import json
import typing as t

Host = t.Any
HOME = "/opt/DockerSandboxApp"
LOG = f"{HOME}/observability/claude-sandbox/logs/ct.jsonl"
CONTAINER = "guardrails-recorder"
# Made up, and of the form that the rule private-key has.
SECRET = "MC4CAQAwBQYDK2VwBCIEIFo0mADEuPf0sRzsnTkMolecule"


def inspected(host: Host) -> dict[str, t.Any]:
    return t.cast("dict[str, t.Any]", json.loads(host.check_output(f"docker inspect {CONTAINER}"))[0])


def records(host: Host) -> list[bytes]:
    return [line.encode() for line in host.file(LOG).content_string.splitlines()]


def test_it_runs_behind_its_walls(host: Host) -> None:
    found = inspected(host)
    assert found["State"]["Running"]
    config = found["HostConfig"]
    assert (config["NetworkMode"], config["ReadonlyRootfs"], config["CapDrop"]) == ("none", True, ["ALL"])
    assert config["SecurityOpt"][0] == "no-new-privileges"
    status = host.file(f"/proc/{found['State']['Pid']}/status").content_string
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert fields["Uid"].split() == [str(host.user(CONTAINER).uid)] * 4
    assert (int(fields["CapEff"], 16), int(fields["CapBnd"], 16), fields["NoNewPrivs"], fields["Seccomp"]) == (0, 0, "1", "2")


def test_nobody_but_root_reaches_it(host: Host) -> None:
    folder = host.file("/run/dockersandbox/recorder")
    assert (folder.user, folder.mode) == (CONTAINER, 0o700)
    # From inside a sandbox there is nothing of it.
    assert host.run("docker exec sandbox-default ls /run/guardrails/recorder").rc != 0


def test_the_log_is_its_own_and_the_group_may_read_it(host: Host) -> None:
    folder, live = host.file(LOG.rpartition("/")[0]), host.file(LOG)
    assert (folder.user, folder.group, folder.mode) == (CONTAINER, "dockersandbox", 0o2750)
    assert (live.user, live.group, live.mode) == (CONTAINER, "dockersandbox", 0o640)


def test_each_record_holds_the_hash_of_the_one_before(host: Host) -> None:
    lines = records(host)
    parsed = [json.loads(line) for line in lines]
    assert len(lines) > 3
    assert [record["seq"] for record in parsed] == list(range(parsed[0]["seq"], parsed[0]["seq"] + len(parsed)))
    assert [record["prev_sha256"] for record in parsed[1:]] == [hashlib.sha256(line).hexdigest() for line in lines[:-1]]


def test_a_run_is_on_record_without_the_secret_in_its_arguments(host: Host) -> None:
    argument = f"-----BEGIN PRIVATE KEY-----\n{SECRET}\n-----END PRIVATE KEY-----"
    done = host.run(f"{HOME}/bin/sandbox run default -- printf %%s %s", argument)
    assert done.rc == 0, done.stderr
    assert SECRET in done.stdout
    about = [json.loads(line) for line in records(host) if b'"sandbox":"default"' in line and b"printf" in line]
    assert about
    assert "[REDACTED:private-key:" in json.dumps(about[-1])
    assert SECRET not in host.file(LOG).content_string


def test_a_killed_recorder_is_back_at_once(host: Host) -> None:
    before = inspected(host)
    host.check_output(f"kill -9 {before['State']['Pid']}")
    done = host.run(f"{HOME}/bin/sandbox run default -- true")
    assert done.rc == 0, done.stderr
    after = inspected(host)
    assert after["State"]["Pid"] != before["State"]["Pid"]
    assert after["Id"] == before["Id"]
