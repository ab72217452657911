# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What acts on a host with a real recorder: on record before and after, or not done at all."""

from __future__ import annotations

import itertools
import json
import os
import pathlib
import subprocess
import sys
import threading
import typing as t

import pytest
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import acts, audit, recorder
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.places import Places
from services import recorders
from unit import modules

SANDBOX = pathlib.Path(__file__).parents[2] / "bin" / "sandbox"
TOKEN = "tok_0123456789abcdef"


@pytest.fixture
def host(tmp_path: pathlib.Path) -> t.Iterator[tuple[Places, recorders.Recorder]]:
    """Yield the places of a host whose recorder runs, and that recorder."""
    places = Places(str(tmp_path / "home"), str(tmp_path / "data"), str(tmp_path / "run"))
    config = pathlib.Path(places.home, "configs/services/recorder.json")
    config.parent.mkdir(parents=True)
    config.write_text("{}", encoding="ascii")
    pathlib.Path(places.logs).mkdir(parents=True)
    with recorders.running(tmp_path, logs=pathlib.Path(places.logs)) as one:
        keys = pathlib.Path(places.log_public).parent
        keys.parent.mkdir(parents=True)
        keys.symlink_to(one.keys)
        yield places, one


def told(one: recorders.Recorder, *names: str) -> list[tuple[t.Any, ...]]:
    """Return the fields *names* of all records but the recorder's own."""
    return [tuple(record.get(name) for name in names) for record in one.records() if record["sender"] == "host"]


def test_before_and_after(host: tuple[Places, recorders.Recorder]) -> None:
    places, one = host
    argv = ["curl", "-H", f"authorization: {TOKEN}", "--", "\udc80"]
    with acts.traced("r-1"), acts.recorded(places, "run.start", "process_activity", "run.end", sandbox="default", argv=argv) as came:
        assert told(one, "action", "outcome", "trace_id", "sandbox") == [("run.start", "unknown", "r-1", "default")]
        came.outcome, came.detail = "failure", {"exit_code": 3, "bytes": 17}
    first, last = (record for record in one.records() if record["sender"] == "host")
    assert (last["action"], last["outcome"], last["trace_id"], last["detail"]) == ("run.end", "failure", "r-1", {"exit_code": 3, "bytes": 17})
    assert first["actor"]["type"] == "user"
    assert first["argv"][:2] == ["curl", "-H"]
    assert first["argv"][3:] == ["--", "\\udc80"]
    assert "[REDACTED:test-token:" in first["argv"][2]
    assert TOKEN not in json.dumps(one.records())
    assert one.verify().problems == []


def test_an_act_that_fails(host: tuple[Places, recorders.Recorder]) -> None:
    places, one = host
    with pytest.raises(KeyError, match="why"), acts.recorded(places, "sandbox.up", "application_lifecycle", sandbox="default"):
        raise KeyError("why")
    assert told(one, "outcome", "reason") == [("unknown", None), ("failure", "'why'")]


def test_without_a_recorder_nothing_is_done(host: tuple[Places, recorders.Recorder]) -> None:
    places, one = host
    one.kill()
    done = []
    with pytest.raises(recorder.RecorderError, match="nothing is done off the record"), acts.recorded(places, "run.start", "process_activity", patience=0.2):
        done.append(1)
    assert done == []


def test_a_recorder_that_is_lost_meanwhile_is_an_error(host: tuple[Places, recorders.Recorder]) -> None:
    places, one = host
    with pytest.raises(recorder.RecorderError), acts.recorded(places, "run.start", "process_activity", patience=0.2):
        one.kill()
    with pytest.raises(KeyError), acts.recorded(Places(places.home + "-none"), "run.start", "process_activity"):
        raise KeyError


def test_a_recorder_that_has_no_configuration_is_not_asked(tmp_path: pathlib.Path) -> None:
    places = Places(str(tmp_path), str(tmp_path), str(tmp_path))
    done = []
    with acts.recorded(places, "run.start", "process_activity"):
        done.append(1)
    assert done == [1]


# -- modules


Arguments = t.Callable[[pathlib.Path], dict[str, t.Any]]
MODULES: list[tuple[str, Arguments, str]] = [
    ("locked_files", lambda top: {"files": [{"path": str(top / "made/file"), "content": "x\n"}], "owner": "root", "group": "root"}, "file.write"),
    ("folders", lambda top: {"folders": [{"path": str(top / "made"), "mode": "0750"}]}, "folder.make"),
    ("checksum_seal", lambda top: {"paths": [str(top / "there")]}, "seal.make"),
    ("step_gate", lambda _top: {"phase": "bootstrap", "state": "closed"}, "phase.seal"),
    ("known_secrets", lambda _top: {"group": "group", "secrets": {"name": "longEnough0123"}}, "secret.declare"),
]


def there(top: pathlib.Path) -> set[str]:
    """Return what the modules can have made below *top*."""
    inner = {"logs", "run", "log", "keys"}
    found = {path.relative_to(top) for path in top.rglob("*")}
    return {str(path) for path in found if path.name == "known.json" or not inner & {*path.parts}} - {"stderr"}


@pytest.mark.skipif(os.geteuid() != 0, reason="files are given to root")
@pytest.mark.parametrize(("name", "arguments", "action"), MODULES)
def test_a_module_records_what_it_does(host: tuple[Places, recorders.Recorder], tmp_path: pathlib.Path, name: str, arguments: Arguments, action: str) -> None:
    places, one = host
    (tmp_path / "there").write_text("there\n", encoding="ascii")
    options: dict[str, t.Any] = {"home": places.home, "run": places.run}
    if name == "step_gate":
        # The seal needs the host's key; its making is on record too.
        assert modules.run("checksum_seal", key="present", **options)["changed"]
    options |= arguments(tmp_path)
    begun = len(told(one, "action"))
    before = there(tmp_path)

    assert modules.run(name, check=True, **options)["changed"]
    assert (len(told(one, "action")), there(tmp_path)) == (begun, before), "check mode leaves no record and no change"

    one.kill()
    refused = modules.run(name, **options)
    assert refused["failed"]
    assert "nothing is done off the record" in refused["msg"]
    assert "\n" not in refused["msg"]
    assert there(tmp_path) == before, "without a recorder nothing is changed"

    one.start()
    done = modules.run(name, **options)
    assert done["changed"], done
    assert there(tmp_path) != before
    records = told(one, "action", "outcome", "reason")[begun:]
    assert [record[:2] for record in records] == [(action, "unknown"), (action, "success")]
    assert records[0][2] == "; ".join(done["actions"])

    assert not modules.run(name, **options)["changed"]
    assert len(told(one, "action")) == begun + 2, "what changes nothing leaves no record"
    assert one.verify().problems == []


# -- reading


def sandbox(places: Places, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run bin/sandbox on the host."""
    command = [sys.executable, str(SANDBOX), "--home", places.home, "--data", places.data, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.skipif(os.geteuid() != 0, reason="bin/sandbox is root's")
def test_the_log_is_shown(host: tuple[Places, recorders.Recorder]) -> None:
    places, one = host
    with acts.traced("r-1"), acts.recorded(places, "run.start", "process_activity", "run.end", sandbox="default", argv=["ls", "\x1b[31m\n"]):
        pass
    with acts.recorded(places, "sandbox.up", "application_lifecycle", sandbox="other"):
        pass
    shown = sandbox(places, "log", "--sandbox", "default").stdout.splitlines()
    assert len(shown) == 2
    assert "run.start  default" in shown[0]
    assert r"ls '\x1b[31m\n'" in shown[0]
    assert "run.end  default  success" in shown[1]
    records = [json.loads(line) for line in sandbox(places, "log", "--json", "--run", "r-1", "--action", "run.end").stdout.splitlines()]
    assert [(record["action"], record["trace_id"]) for record in records] == [("run.end", "r-1")]
    refused = sandbox(places, "log", "--since", "yesterday")
    assert refused.returncode == 125
    assert "'yesterday' is no time" in refused.stderr

    told_here = modules.run("audit_log_info", home=places.home, sandbox="default", limit=1)
    assert [record["action"] for record in told_here["records"]] == ["run.end"]
    assert told_here["proven"], told_here
    segment = pathlib.Path(places.logs, "ct.jsonl")
    content = segment.read_bytes()
    one.stop()
    segment.write_bytes(content.replace(b"run.start", b"run.stort", 1))
    told_here = modules.run("audit_log_info", home=places.home, sandbox="default")
    assert not told_here["proven"]
    (number,) = [index for index, line in enumerate(content.splitlines(), 1) if b"run.start" in line]
    assert f"ct.jsonl line {number} " in told_here["problems"][0]


@pytest.mark.skipif(os.geteuid() != 0, reason="bin/sandbox is root's")
def test_the_log_is_followed_over_a_rotation(host: tuple[Places, recorders.Recorder]) -> None:
    places, one = host
    command = [sys.executable, str(SANDBOX), "--home", places.home, "log", "--follow", "--json", "--sandbox", "default"]
    event = {"action": "run.start", "class": "process_activity", "sandbox": "default"}
    with one.client() as client, subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as shown:
        assert shown.stdout is not None
        deadline = threading.Timer(60, shown.kill)
        deadline.start()
        sent = []
        for number in range(30):
            sent.append(client.record({**event, "detail": {"number": number}}).seq)
            if number in (10, 11, 20):
                one.command("rotate")
            if number == 20:
                one.command("seal")
        seen = [json.loads(line)["seq"] for line in itertools.islice(shown.stdout, 30)]
        deadline.cancel()
        shown.terminate()
    assert seen == sent


# -- what is looked for


NOW = 1_795_000_000.0
MOMENTS: list[tuple[str, str]] = [
    ("2026-11-24", "2026-11-24T00:00:00.000000Z"),
    ("2026-11-24T10:00:00", "2026-11-24T10:00:00.000000Z"),
    ("2026-11-24T10:00:00.25", "2026-11-24T10:00:00.250000Z"),
    ("2026-11-24T10:00:00+02:00", "2026-11-24T08:00:00.000000Z"),
    ("90s", "2026-11-18T11:05:10.000000Z"),
    ("2h", "2026-11-18T09:06:40.000000Z"),
    ("1w", "2026-11-11T11:06:40.000000Z"),
]


@pytest.mark.parametrize(("text", "due"), MOMENTS)
def test_times(text: str, due: str) -> None:
    assert audit.moment(text, NOW) == due


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01", "0d", "1y", "-1h", "999999999w", "٣d"])
def test_no_times(text: str) -> None:
    with pytest.raises(ValueError, match="is no time"):
        audit.moment(text, NOW)


RECORD = {"action": "run.start", "class": "process_activity", "sandbox": "a", "trace_id": "r", "decision": "deny", "seq": 1}
TIME = {"time": "2026-11-24T10:00:00.000000Z"}
FILTERS: list[tuple[dict[str, t.Any], bool]] = [
    ({}, True),
    ({"sandbox": "a"}, True),
    ({"sandbox": "b"}, False),
    ({"sandbox": "r"}, False),
    ({"run": "r"}, True),
    ({"run": "a"}, False),
    ({"kind": "process_activity"}, True),
    ({"kind": "file_activity"}, False),
    ({"action": "run"}, True),
    ({"action": "run.start"}, True),
    ({"action": "ru"}, False),
    ({"action": "run.start.x"}, False),
    ({"decision": "deny"}, True),
    ({"decision": "allow"}, False),
    ({"since": "2026-11-24T10:00:00.000000Z"}, True),
    ({"since": "2026-11-24T10:00:00.000001Z"}, False),
    ({"until": "2026-11-24T10:00:00.000000Z"}, False),
    ({"until": "2026-11-24T10:00:00.000001Z"}, True),
]


@pytest.mark.parametrize(("wanted", "due"), FILTERS)
def test_filters(wanted: dict[str, t.Any], due: bool) -> None:
    line = json.dumps(RECORD | TIME, sort_keys=True, separators=(",", ":")).encode()
    assert (audit.Wanted(**wanted).record(line) is not None) == due


@pytest.mark.parametrize("line", [b"", b"{", b"[]", b"null", b"{}", b'{"seq":"1"}', b"\xff", b"[" * 100_000])
def test_what_is_no_record_is_passed_over(line: bytes) -> None:
    assert audit.Wanted().record(line) is None
