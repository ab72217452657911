# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Nothing acts off the record on a host, and whoever looks finds what did: in the host's log and in the controller's journal.

In a machine of its own, on what `make site` has made of it. The tests are steps of one story, in this order.
"""

from __future__ import annotations

import datetime
import json
import typing as t

import bare
import pytest

HOME, DATA = "/opt/DockerSandboxApp", "/var/lib/dockersandbox"
LOGS = f"{HOME}/observability/claude-sandbox/logs"
RUNS = "/root/.local/state/dockersandbox/runs"
BOX = {"name": "told", "originals": f"{DATA}/originals/told", "memory": "256m", "working_set": "300m"}
OTHER = {**BOX, "name": "other"}
TOKEN = "ghp_k2Vb8XqLw0Zr4TnYc6MsJd1HfAe9PuGi3Ro5"
REFUSED = "the recorder does not answer"


@pytest.fixture(scope="module")
def start(bare_machine: bare.Bare) -> str:
    """When the story begins: other tests may have been on the machine before, and have killed what they ran."""
    bare_machine.make_once()
    return bare_machine.run("date -u +%Y-%m-%dT%H:%M:%S; sleep 1", folder="/").text.strip()


@pytest.fixture(scope="module")
def host(bare_machine: bare.Bare, start: str) -> bare.Bare:
    """A converged machine with one sandbox."""
    assert bare_machine.run(f"mkdir -p {BOX['originals']}; echo one > {BOX['originals']}/file", folder="/").code == 0
    done = bare_machine.site(bare_machine.declare(BOX))
    assert done.code == 0, done.text
    return bare_machine


def log(host: bare.Bare, arguments: str = "") -> list[dict[str, t.Any]]:
    """Return the records that ``sandbox log`` shows."""
    return [json.loads(line) for line in host.sandbox(f"log --json --limit 1000 {arguments}").text.splitlines()]


def played(host: bare.Bare, name: str, arguments: str = "") -> bare.Done:
    """Run a playbook of the checkout."""
    return host.run(f"make venv; .venv/bin/ansible-playbook playbooks/{name}.yml {arguments}")


def test_what_brought_the_sandbox_up_is_on_record(host: bare.Bare, start: str) -> None:
    actions = [record["action"] for record in log(host, f"--sandbox told --since {start}")]
    assert {"working_set.make", "baseline.seal", "sandbox.up"} <= set(actions)
    gates = [record["resource"] for record in log(host, f"--action phase.seal --since {start}")]
    assert gates.count("fs") == 2
    # Each before and after, by one trace.
    traces: dict[tuple[str, str], list[str]] = {}
    for record in log(host, f"--since {start}"):
        if record["sender"] == "host" and record["action"] != "log.verify":
            traces.setdefault((record["trace_id"], record["action"]), []).append(record["outcome"])
    assert all(outcomes == ["unknown", "success"] * (len(outcomes) // 2) for outcomes in traces.values()), traces


def test_a_run_is_on_record_without_its_secrets(host: bare.Bare) -> None:
    done = host.sandbox(f"run told -- sh -c 'echo written; exit 7' sh --token {TOKEN}")
    assert done.code == 7, done.text
    (run,) = {line.split()[2].rstrip(":") for line in done.text.splitlines() if line.startswith("sandbox: run ")}
    first, last = (record for record in log(host, f"--run {run}") if record["action"].startswith("run."))
    assert (first["action"], first["outcome"], first["resource"]) == ("run.start", "unknown", BOX["originals"])
    assert first["argv"][:3] == ["sh", "-c", "echo written; exit 7"]
    assert first["argv"][5].startswith("[REDACTED:")
    assert (last["action"], last["outcome"], last["detail"]["exit_code"], last["detail"]["bytes"]) == ("run.end", "failure", 7, 8)
    assert last["detail"]["bundle"].endswith(run)
    assert host.run(f"! grep -r {TOKEN} {LOGS} {RUNS}").code == 0


def test_a_run_that_is_undone_is_on_record(host: bare.Bare) -> None:
    assert host.sandbox("snapshot told --name before --reason why").code == 0
    assert host.sandbox("run told -- touch made").code == 0
    assert host.sandbox("restore told before").code == 0
    made = [record for record in log(host, "--sandbox told --action snapshot.make") if record["resource"]["name"] == "before"]
    assert [(record["outcome"], record.get("reason")) for record in made] == [("unknown", "why"), ("success", None)]
    first, last = log(host, "--sandbox told --action snapshot.restore")
    assert first["resource"]["snapshot"].endswith(" (before)")
    assert (last["outcome"], last["detail"]["differences"]) == ("success", 1)


def test_the_journals_of_the_controller_hold(host: bare.Bare, start: str) -> None:
    moment = datetime.datetime.fromisoformat(f"{start}+00:00").timestamp()
    told = json.loads(host.run(
        f"PYTHONPATH=.collections .venv/bin/python - <<'END'\n"
        f"import json, pathlib\n"
        f"from ansible_collections.dockersandbox.guardrails.plugins.module_utils import journal\n"
        f"folder = pathlib.Path('{RUNS}')\n"
        f"print(json.dumps([[len(path.read_bytes().splitlines()), journal.verify(path, journal.public_key(folder))]"
        f" for path in sorted(folder.glob('*.jsonl')) if path.stat().st_mtime >= {moment}]))\nEND"
    ).text)  # fmt: skip
    assert told
    assert all(records > 30 and problems == [] for records, problems in told), told


def test_without_a_recorder_nothing_is_done(host: bare.Bare) -> None:
    assert host.run("docker stop guardrails-recorder", folder="/").code == 0
    look = f"ls {HOME}/exports/told {DATA}/sandboxes; docker ps -q; sha256sum {LOGS}/ct.jsonl"
    before = host.run(look, folder="/").text
    refused = host.sandbox("run told -- touch never")
    assert refused.code == 125
    assert REFUSED in refused.text and len(refused.text.splitlines()) == 1, refused.text
    site = host.site("--tags fs " + host.declare(BOX, OTHER))
    assert site.code != 0
    assert REFUSED in site.text
    assert host.run(look, folder="/").text == before
    # What needs no change needs no record either, and it is the first phases that bring the recorder back.
    again = host.site(host.declare(BOX))
    assert again.code == 0, again.text
    assert host.sandbox("run told -- true").code == 0


def test_where_the_log_breaks_is_told(host: bare.Bare) -> None:
    assert played(host, "verify").code == 0
    assert host.sandbox("service recorder rotate").code == 0
    assert host.sandbox("service recorder seal").code == 0
    # The newest: rotations of earlier tests have left others.
    segment = host.run(f"ls {LOGS}/*.gz", folder="/").text.split()[-1]
    first = int(segment.rpartition("ct-")[2].partition(".")[0])
    host.run(f"cp -a {segment} /root/kept; zcat /root/kept | sed '9s/success/succexs/; 9s/unknown/unknxwn/' | gzip >{segment}", folder="/")
    found = played(host, "verify")
    assert found.code != 0
    assert f"{segment} line 9 (record {first + 8}): it was changed after it was written" in found.text, found.text
    host.run(f"cp -a /root/kept {segment}", folder="/")
    assert played(host, "verify").code == 0
