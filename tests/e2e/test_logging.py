# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The recorder on a host: it runs before anything acts, whatever ends it is undone, and what was acknowledged is there.

In a machine of its own, on what `make site` has made of it. The tests are steps of one story, in this order.
"""

from __future__ import annotations

import json
import re
import time
import typing as t

import bare
import machine
import pytest

HOME, DATA = "/opt/DockerSandboxApp", "/var/lib/dockersandbox"
LOGS = f"{HOME}/observability/claude-sandbox/logs"
HEADS = f"{DATA}/heads"
START = f"{HOME}/bin/dockerd-supervised start"
BOX = {"name": "box", "originals": f"{DATA}/originals/box", "memory": "256m", "working_set": "300m"}
SECONDS = 60
LAST_WORDS = "tail -n 30 /var/log/dockerd-supervised.log; docker logs guardrails-recorder 2>&1 | tail"

# Run inside, by the core that is on the host: proves the whole log, with the heads that were shipped when a file is named.
VERIFY = f"""
import json, sys, time
from pathlib import Path
sys.path.insert(0, "{HOME}/lib")
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import chain_verify, places
at = places.Places()
heads = [head for name in sys.argv[1:] for head in chain_verify.read_heads(Path(name))]
found = chain_verify.verify(Path(at.logs), Path(at.log_public), heads, now=time.time())
print(json.dumps([found.records, found.chain_uid, len(heads), [str(problem) for problem in found.problems]]))
"""

# Run inside: eight writers record as fast as they can until the time is up; what was acknowledged is printed.
WRITE = f"""
import json, sys, threading, time
sys.path.insert(0, "{HOME}/lib")
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import places, recorder
end, acknowledged, failed = time.monotonic() + float(sys.argv[1]), [], []
def write(number):
    with recorder.Client(recorder.event_socket(places.RUN), 30) as client:
        while time.monotonic() < end:
            try:
                acknowledged.append(client.record({{"action": "test.write", "class": "base_event", "detail": {{"writer": number}}}}).id)
            except recorder.RecorderError as error:
                failed.append(str(error))
threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(json.dumps([acknowledged, failed]))
"""


@pytest.fixture(scope="module")
def host(bare_machine: bare.Bare) -> bare.Bare:
    """A converged machine with one sandbox."""
    bare_machine.make_once()
    assert bare_machine.run(f"mkdir -p {BOX['originals']}; echo one > {BOX['originals']}/file", folder="/").code == 0
    done = site(bare_machine)
    assert done.code == 0, done.text
    return bare_machine


def site(host: bare.Bare, arguments: str = "", **variables: t.Any) -> bare.Done:
    """Run ``make site`` with the sandbox of this story and extra *variables*."""
    declared = host.declare(BOX)
    machine.run("docker", "exec", "-i", host.name, "tee", "/root/variables.json", text=json.dumps(variables))
    return host.site(f"{declared} -e @/root/variables.json {arguments}")


def python(host: bare.Bare, script: str, *arguments: str) -> t.Any:
    """Return what *script*, run inside, prints as JSON."""
    return json.loads(machine.run("docker", "exec", "-i", host.name, "python3", "-", *arguments, text=script))


def verified(host: bare.Bare, *heads: str) -> tuple[int, str]:
    """Prove the whole log, and return its records and its chain."""
    records, chain_uid, count, problems = python(host, VERIFY, *heads)
    assert problems == []
    assert bool(count) is bool(heads)
    return records, chain_uid


def recorder(host: bare.Bare) -> dict[str, t.Any]:
    """Return what the engine knows of the recorder's container."""
    return t.cast("dict[str, t.Any]", json.loads(host.run("docker inspect guardrails-recorder", folder="/").text)[0])


def records(host: bare.Bare) -> list[dict[str, t.Any]]:
    """Return what is in the live file."""
    return [json.loads(line) for line in host.run(f"cat {LOGS}/ct.jsonl", folder="/").text.splitlines()]


def until(host: bare.Bare, script: str) -> float:
    """Wait until *script* exits 0 inside, and return the seconds that it took."""
    start = time.monotonic()
    while host.run(script, folder="/").code != 0:
        assert time.monotonic() - start < SECONDS, host.run(LAST_WORDS, folder="/").text
        time.sleep(0.2)
    return time.monotonic() - start


def all_runs(host: bare.Bare) -> float:
    return until(host, f"{HOME}/bin/sandbox status >/dev/null")


def test_what_happens_is_on_record_and_the_log_verifies(host: bare.Bare) -> None:
    done = host.sandbox("run box -- sh -c 'echo two >> file'")
    assert done.code == 0, done.text
    about = [record for record in records(host) if record.get("sandbox") == "box"]
    assert {"run.start", "run.end"} <= {record["action"] for record in about}
    verified(host)


def test_a_second_run_changes_nothing_and_leaves_the_recorder_alone(host: bare.Bare) -> None:
    before = recorder(host)
    for arguments in ("", "--check --diff"):
        done = site(host, arguments)
        assert (done.code, done.changed) == (0, 0), done.text
    assert recorder(host)["State"] == before["State"]


def test_a_killed_recorder_is_back_and_nothing_is_lost(host: bare.Bare) -> None:
    before = recorder(host)
    machine.run("docker", "exec", "-i", host.name, "tee", "/root/write.py", text=WRITE)
    host.run("setsid python3 /root/write.py 12 >/root/written.json 2>&1 </dev/null & echo", folder="/")
    kills = 0
    for _time in range(4):
        time.sleep(1.5)
        pid = recorder(host)["State"]["Pid"]
        kills += host.run(f"[ {pid} -gt 1 ] && kill -9 {pid}", folder="/").code == 0
    until(host, "! pgrep -f /root/[w]rite.py")
    acknowledged, failed = json.loads(host.run("cat /root/written.json", folder="/").text)
    assert kills >= 2
    assert failed == []
    written = [record["id"] for record in records(host) if record["action"] == "test.write"]
    assert len(set(written)) == len(written)
    assert set(acknowledged) - set(written) == set()
    after = recorder(host)
    assert after["Id"] == before["Id"]
    assert after["RestartCount"] >= before["RestartCount"] + kills
    print(f"{kills} kills: {len(acknowledged)} events acknowledged, none lost, none twice")
    verified(host)


def test_a_recorder_that_dies_while_the_engine_does_is_back_with_it(host: bare.Bare) -> None:
    before = recorder(host)["State"]
    host.run("pkill -KILL -x dockerd", folder="/")
    assert host.run(f"kill -0 {before['Pid']}", folder="/").code == 0
    all_runs(host)
    assert recorder(host)["State"]["Pid"] == before["Pid"]
    host.run(f"pkill -KILL -x dockerd; kill -9 {before['Pid']}", folder="/")
    all_runs(host)
    assert recorder(host)["State"]["Pid"] != before["Pid"]
    verified(host)


def test_it_is_the_first_to_be_back_when_the_machine_starts(host: bare.Bare) -> None:
    _count, chain_uid = verified(host)
    machine.reboot(host.name)
    assert host.run("ls /run/dockersandbox", folder="/").code != 0
    last = host.run(f"tail -n1 {LOGS}/ct.jsonl", folder="/").text
    assert host.run(START, folder="/").code == 0
    print(f"the recorder and a sandbox run again {all_runs(host):.1f} s after the start of the engine")
    since = [record for record in records(host) if record["seq"] > json.loads(last)["seq"]]
    assert since[0]["action"] == "recorder.start"
    assert {record["sandbox"] for record in since[1:] if "sandbox" in record} == {"box"}
    assert verified(host)[1] == chain_uid


def test_a_changed_configuration_is_one_change_and_no_restart(host: bare.Bare) -> None:
    before = recorder(host)["State"]
    change = {"logging_retention_age": 86400 * 400}
    foreseen = site(host, "--check --diff --tags logging", **change)
    assert host.run(f"grep -c '\"seconds\": 0' {HOME}/configs/services/recorder.json", folder="/").text.strip() == "1"
    done = site(host, "--diff --tags logging", **change)
    assert (foreseen.code, done.code) == (0, 0), foreseen.text + done.text
    for text in (foreseen.text, done.text):
        changes = re.findall(r"^([-+] +\"(?:bytes|seconds|burst|events|head|reserve)\".*)$", text, re.MULTILINE)
        assert changes == ['-    "seconds": 0', '+    "seconds": 34560000']
    # The recorder's task and the seal of the phase.
    assert foreseen.changed == done.changed == 2
    assert recorder(host)["State"] == before
    configured = [record for record in records(host) if record["action"] == "recorder.configure"][-1]
    assert configured["outcome"] == "success"
    again = site(host, "--tags logging", **change)
    assert (again.code, again.changed) == (0, 0), again.text


def test_a_configuration_that_is_refused_is_put_back(host: bare.Bare) -> None:
    look = f"cat {HOME}/configs/services/recorder.json {HOME}/configs/services/recorder.json.sha256"
    before = host.run(look, folder="/").text
    done = site(host, "--tags logging", logging_ration_burst=0)
    errors = [line for line in done.text.splitlines() if line.startswith("[ERROR]")]
    assert done.code != 0
    assert len(errors) == 1 and "service recorder: " in errors[0] and "burst" in errors[0], done.text
    assert host.run(look, folder="/").text == before
    assert [record["outcome"] for record in records(host) if record["action"] == "recorder.configure"][-2:] == ["failure", "success"]
    assert host.sandbox("status").code == 0
    assert site(host, "--tags logging").code == 0


def test_heads_are_shipped_to_another_file_system_and_nowhere_else(host: bare.Bare) -> None:
    beside = site(host, "--tags logging", logging_ship_to=[{"folder": HOME}])
    assert beside.code != 0
    assert f"{HOME}: is on the file system of the log itself" in beside.text
    host.run(f"mkdir -p {HEADS}", folder="/")
    done = site(host, "--tags logging", logging_ship_to=[{"folder": HEADS}])
    assert done.code == 0, done.text
    for _time in range(2):
        assert host.sandbox("run box -- true").code == 0
        time.sleep(1.5)
        shipped = host.run(f"{HOME}/bin/minutely", folder="/")
        assert (shipped.code, f"to {HEADS}" in shipped.text) == (0, True), shipped.text
    (name,) = host.run(f"ls {HEADS}/*", folder="/").text.split()
    assert name == f"{HEADS}/{host.name}-{verified(host)[1]}.heads.jsonl"
    verified(host, name)
    done = site(host, "--tags logging")
    assert done.code == 0, done.text
    assert host.run(f"ls {HOME}/bin/minutely {HOME}/configs/shipper.json", folder="/").code != 0
    host.run(f"rm -r {HEADS}", folder="/")


def test_root_commands_it_by_name_and_with_a_reason(host: bare.Bare) -> None:
    key = json.loads(host.sandbox("service recorder status").text)["key"]
    refused = host.sandbox("service recorder rotate-key")
    assert (refused.code, refused.text) == (125, "sandbox: reason: rotate-key needs it\n")
    done = host.sandbox("service recorder rotate-key --reason 'a new year'")
    assert done.code == 0, done.text
    assert json.loads(host.sandbox("service recorder status").text)["key"] == json.loads(done.text)["key"] != key
    verified(host)


def test_a_teardown_ends_it_last_and_the_next_play_goes_on_with_its_log(host: bare.Bare) -> None:
    _count, chain_uid = verified(host)
    done = host.run(".venv/bin/ansible-playbook playbooks/teardown.yml")
    assert done.code == 0, done.text
    assert records(host)[-1]["action"] == "recorder.stop"
    assert host.run("ls /run/dockersandbox/recorder", folder="/").code != 0
    again = site(host)
    assert again.code == 0, again.text
    assert host.run("docker ps --format '{{.Names}}' | sort", folder="/").text.split() == [
        "guardrails-egress",
        "guardrails-llm",
        "guardrails-recorder",
        "guardrails-simulator",
        "sandbox-box",
    ]
    assert verified(host)[1] == chain_uid
