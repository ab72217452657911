# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The recorder as a process: what senders may say, what it answers, and what root can have it do."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import hashlib
import json
import os
import signal
import socket
import time
import typing as t
from pathlib import Path

import pytest
import rfc8785
import uvloop
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import canonical, chain, events, frames, known_secrets, recorder, seal
from services.recorders import Recorder, event, running

from dockersandbox.common.records import Records

SECRET = "tok_abcdefgh01234567"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Recorder]:
    """A recorder that several tests speak to."""
    with running(tmp_path_factory.mktemp("recorder"), limits={"connections": 20, "stall": 1}) as found:
        yield found


def raw(made: Recorder, content: bytes, replies: int, patience: float = 10) -> list[dict[str, t.Any]]:
    """Return the answers to *content*, at most *replies*, or what came until the recorder closed."""
    found: list[dict[str, t.Any]] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(patience)
        client.connect(made.path())
        stream = frames.Frames()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            client.sendall(content)
            while len(found) < replies and (data := client.recv(1 << 16)):
                found += map(frames.decode, stream.feed(data))
    return found


def last(made: Recorder) -> dict[str, t.Any]:
    """Return the last record of a sender."""
    return [record for record in made.records() if record["sender"] != chain.RECORDER][-1]


def test_a_record_is_what_was_said_and_where_it_stands(made: Recorder) -> None:
    said = event(
        actor={"type": "agent", "name": "one"},
        sandbox="box",
        resource={"host": "é.example.com", "ports": [1, 2], "deep": {"none": None}},
        argv=["curl", "\x00\x1f\u2028\"\\/", "🙂"],
        decision="allow",
        detail={"bytes": 2**53 - 1, "fine": True},
        policy_ids=[],
        reason=f"it has {SECRET} in it",
        trace_id=None,
    )
    with made.client("egress") as client:
        ack = client.record(said)
    line = list(chain.lines(made.logs))[ack.seq - 1]
    record = json.loads(line)
    assert rfc8785.dumps(record) == line == canonical.dumps(record)
    pseudonym = record["reason"].removeprefix("it has [REDACTED:test-token:").removesuffix("] in it")
    assert len(pseudonym) == 12 and SECRET.encode() not in line
    before = list(chain.lines(made.logs))[ack.seq - 2]
    assert record == {
        **{name: value for name, value in said.items() if value is not None},
        "v": 1,
        "seq": ack.seq,
        "id": ack.id,
        "time": record["time"],
        "chain_uid": made.command("status")["chain_uid"],
        "prev_sha256": hashlib.sha256(before).hexdigest(),
        "sender": "egress",
        "reason": record["reason"],
        "redactions": {"test-token": 1},
    }
    assert abs(time.time() - _seconds(record["time"])) < 30


def _seconds(when: str) -> float:
    return datetime.datetime.fromisoformat(when).timestamp()


def text(value: t.Any) -> bytes:
    """Return a frame of JSON as any writer may write it."""
    return frames.pack(json.dumps(value).encode())


BAD = {
    "no JSON": (frames.pack(b"{"), "the event is not JSON: "),
    "not UTF-8": (frames.pack(b'{"action":"a.b","class":"base_event","reason":"\xff"}'), "the event is not JSON: "),
    "no object": (frames.pack(b"[1]"), "the event is no JSON object"),
    "nothing": (frames.pack(b""), "the event is not JSON: "),
    "NaN": (frames.pack(b'{"action":"a.b","class":"base_event","detail":{"x":NaN}}'), "the event is not JSON: "),
    "deep nesting": (frames.pack(b'{"resource":' + b"[" * 200_000), "the event is not JSON: "),
    "deep resource": (text(event(resource={"a": json.loads("[" * 30 + "]" * 30)})), "resource.a[0][0][0][0][0][0][0]: it is nested deeper than 8 levels"),
    "lone surrogate": (frames.pack(b'{"action":"a.b","class":"base_event","reason":"\\ud800 x"}'), "the event is not JSON: "),
    "lone surrogate in a key": (frames.pack(b'{"action":"a.b","class":"base_event","\\udc00":"x"}'), "the event is not JSON: "),
    "unknown field": (text(event(colour="red")), "colour: there is no such field; what has no field of its own goes into detail"),
    "a field of the recorder's": (text(event(seq=1)), "seq: the recorder writes it; leave it out"),
    "an unprintable field": (text(event(**{"a\nb": 1})), "a\\nb: there is no such field"),
    "no action": (text({"class": "base_event"}), "action: it is missing; every event has action and class"),
    "no class": (text({"action": "a.b", "class": None}), "class: it is missing"),
    "an action of one word": (text(event(action="start")), "action: 'start' is not two or more words with dots between, such as run.start"),
    "a class of nobody's": (text(event(**{"class": "colour_activity"})), "class: 'colour_activity' is none of account_change, "),
    "a float": (text(event(detail={"load": 0.5})), "detail.load: '0.5' is no integer; use another unit, or text"),
    "a large integer": (text(event(detail={"n": 2**53})), "detail.n: '9007199254740992' is beyond 53 bits"),
    "a larger one": (text(event(detail={"n": 10**30})), "detail.n: '1000000000000000000000000000000' is "),
    "an object in detail": (text(event(detail={"a": {"b": 1}})), "detail.a: it is an object, not a text, an integer or a boolean"),
    "a key in another script": (text(event(detail={"ключ": 1})), "detail: 'ключ' is no field's name"),
    "argv as text": (text(event(argv="rm -rf /")), "argv: it is a text, not a list"),
    "argv with a number": (text(event(argv=["a", 1])), "argv[1]: it is an integer, not a text"),
    "a boolean for a text": (text(event(reason=True)), "reason: it is a boolean, not a text"),
    "an actor without a type": (text(event(actor={"name": "x"})), "actor.type: it is missing, or no text"),
    "a sandbox that is a path": (text(event(sandbox="../x")), "sandbox: '../x' is not a sandbox's name"),
    "a decision": (text(event(decision="maybe")), "decision: 'maybe' is none of allow, deny"),
    "a digest": (text(event(policy_sha256="abc")), "policy_sha256: 'abc' is not a sha256 in hexadecimal"),
    "an id": (text(event(id="1")), "id: '1' is not 32 hexadecimal digits"),
    "a long text": (text(event(reason="x" * 70_000)), "reason: it has 70000 characters; 65536 is the most"),
}


@pytest.mark.parametrize("word", BAD)
def test_a_bad_event_is_refused_in_one_line_and_the_next_one_taken(made: Recorder, word: str) -> None:
    content, told = BAD[word]
    before = made.command("status")["seq"]
    refused, taken = raw(made, content + text(event()), 2)
    assert refused["error"].startswith(told) and "\n" not in refused["error"] and len(refused["error"]) < 1000
    assert taken["seq"] == before + 1


def test_an_event_over_the_limit_ends_the_connection_after_the_replies_to_those_before(made: Recorder) -> None:
    most = event(argv=["x" * 60_000] * 17)
    most["argv"].append("y" * (frames.LIMIT - len(json.dumps(most)) - 4))
    assert len(json.dumps(most)) == frames.LIMIT
    replies = raw(made, text(most) + (frames.LIMIT + 1).to_bytes(4, "big") + b"{", 3)
    assert "seq" in replies[0]
    assert replies[1:] == [{"error": f"a frame of {frames.LIMIT + 1} bytes is over the limit of {frames.LIMIT}"}]


def test_nothing_is_recorded_while_the_hosts_secrets_are_not_known(tmp_path: Path) -> None:
    with running(tmp_path) as made, made.client() as client:
        secret = "Zk3vQ8mPq2Lw"
        first = client.record(event(reason=secret))
        known_secrets.remember(made.keys, {"a": secret})
        client.record(event(reason=secret))
        whole = (made.keys / "known.json").read_bytes()
        (made.keys / "known.json").write_bytes(b"{}")
        for _turn in range(2):
            with pytest.raises(recorder.RecorderError, match=r"cannot be redacted, so it is not recorded: .*known\.json is not a file of known secrets"):
                client.record(event(reason="x"))
        (made.keys / "known.json").write_bytes(whole)
        last = client.record(event(reason=secret))
        assert last.seq == first.seq + 2
        said = [record["reason"] for record in made.records()[first.seq - 1 :]]
        assert said[0] == secret and all(text.startswith("[REDACTED:host-secret:") for text in said[1:])


def test_replies_come_in_the_order_of_the_events(made: Recorder) -> None:
    sent = [event(detail={"number": number}) if number % 3 else event(colour=number) for number in range(300)]
    replies = raw(made, b"".join(map(text, sent)), 300)
    assert ["error" in reply for reply in replies] == [number % 3 == 0 for number in range(300)]
    numbers = [reply["seq"] for reply in replies if "seq" in reply]
    assert numbers == sorted(numbers)
    by_seq = {record["seq"]: record["detail"]["number"] for record in made.records() if record["seq"] in numbers}
    assert [by_seq[seq] for seq in numbers] == [number for number in range(300) if number % 3]


def test_an_event_that_is_sent_again_is_recorded_once(made: Recorder) -> None:
    one = text(event(id="ab" * 16, reason="once"))
    first, second = raw(made, one + one, 2)
    (third,) = raw(made, one, 1)
    assert first == second == third
    (other,) = raw(made, text(event(id="ab" * 16, reason="another")), 1)
    assert other == {"error": f"id: {'ab' * 16} is that of another event"}
    made.kill()
    made.start()
    assert raw(made, one, 1) == [first]
    assert [record["id"] for record in made.records()].count("ab" * 16) == 1


def test_thousands_of_connections_are_refused_and_nobody_else_is(made: Recorder) -> None:
    held: list[socket.socket] = []
    try:
        for _number in range(3000):
            client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            client.settimeout(10)
            _connect(client, made.path("egress"))
            held.append(client)
        answered = held[-1].recv(1 << 10)
        assert b"sender egress has 20 connections already, which is the limit" in answered
        with made.client("host") as client_of_another:
            assert client_of_another.record(event()).seq
    finally:
        for client in held:
            client.close()
    with made.client("egress") as after:
        assert after.record(event()).seq


def _connect(client: socket.socket, path: str) -> None:
    while True:
        # So many at once do not all find a place to wait in.
        with contextlib.suppress(BlockingIOError):
            client.connect(path)
            return
        time.sleep(0.01)


@pytest.mark.parametrize("content", [b"\0", b"\0\0\1\0{", b"\0\x0f\xff\xff" + b"[" * 1000])
def test_a_writer_that_stalls_in_mid_frame_is_let_go(made: Recorder, content: bytes) -> None:
    assert raw(made, content, 1, patience=10) == []
    # One that is merely idle is not.
    with made.client() as client:
        client.record(event())
        time.sleep(2)
        connection = client._socket
        client.record(event())
        assert client._socket is connection


def test_a_writer_that_reads_no_replies_is_let_go(made: Recorder) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(30)
        client.connect(made.path())
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            while True:
                client.sendall(text(event()) * 100)


def test_a_flood_takes_nothing_but_its_own_ration(tmp_path: Path) -> None:
    """A sandbox floods through the same connection on which another one works."""
    settings = {"events": 100, "bytes": 1 << 20, "burst": 2}

    async def flood(records: Records) -> list[str]:
        told = []
        for number in range(40):
            sent = [event(sandbox="flood", detail={"number": number * 100 + part}) for part in range(100)]
            told += [str(one) for one in await asyncio.gather(*map(records.record, sent), return_exceptions=True) if isinstance(one, Exception)]
        return told

    async def work(records: Records) -> list[recorder.Ack]:
        acks = []
        for number in range(60):
            acks.append(await records.record(event(sandbox="calm", detail={"number": number})))
            await asyncio.sleep(0.02)
        return acks

    async def both(path: str) -> tuple[list[str], list[recorder.Ack]]:
        records = Records(path)
        found = await asyncio.gather(flood(records), work(records))
        await records.close()
        return found

    with running(tmp_path, ration=settings) as made:
        start = time.monotonic()
        told, calm = uvloop.run(both(made.path("egress")))
        taken = time.monotonic() - start
        assert len(calm) == 60
        told_most = "sandbox flood is over its ration of 100 events and 1048576 bytes a second: not recorded, so it may not be done"
        assert set(told) == {told_most}
        on_record = [record for record in made.records() if record.get("sandbox") == "flood"]
        flooded = [record for record in on_record if record["sender"] == "egress"]
        assert 200 <= len(flooded) <= 100 * (taken + 3) and len(flooded) + len(told) == 4000
        deadline = time.monotonic() + 30
        while _refused(made, "flood") < len(told):
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert _refused(made, "flood") == len(told) and _refused(made, "calm") == 0
        assert made.command("status")["rationed"] == {"flood": len(told)}


def _refused(made: Recorder, sandbox: str) -> int:
    found = [record for record in made.records() if record["action"] == "ration.exceeded" and record["sandbox"] == sandbox]
    return sum(record["detail"]["refused"] for record in found)


def test_repeated_denials_become_one_record_and_counts(tmp_path: Path) -> None:
    denied = event(sandbox="box", decision="deny", resource=f"{SECRET}.example.com", reason="no rule allows it")
    others = [{**denied, "resource": "other.example.com"}, {**denied, "trace_id": "another"}, {**denied, "sandbox": "other"}]

    async def send(path: str) -> list[recorder.Ack]:
        records = Records(path)
        sent = [{**denied, "detail": {"port": number}} for number in range(3000)]
        acks = list(await asyncio.gather(*map(records.record, sent)))
        for other in others:
            await records.record(other)
        await records.close()
        return acks

    with running(tmp_path) as made:
        acks = uvloop.run(send(made.path("egress")))
        assert len(set(acks)) == 1
        assert made.stop() == 0
        found = [record for record in made.records() if record.get("decision") == "deny"]
        counts = [record for record in found if "repeated" in record.get("detail", {})]
        full = [record for record in found if record not in counts]
        assert full[0]["seq"] == acks[0].seq and len(full) == 1 + len(others)
        assert sum(record["detail"]["repeated"] for record in counts) == 2999 and len(counts) <= 10
        for record in counts:
            assert record["detail"]["first_seq"] == acks[0].seq and record["sender"] == "egress"
            assert record["resource"] == full[0]["resource"] and SECRET not in json.dumps(record)


def test_a_clock_that_goes_back_is_on_record_and_explained(tmp_path: Path) -> None:
    with running(tmp_path) as made, made.client() as client:
        client.record(event())
        made.stop()
    # The log says that it was written in the future: the clock was wrong then.
    lines = (made.logs / chain.LIVE).read_bytes().splitlines()
    record = json.loads(lines[-1])
    record["time"] = "2099-01-01T00:00:00.000000Z"
    lines[-1] = events.line(record)
    (made.logs / chain.LIVE).write_bytes(b"\n".join(lines) + b"\n")
    link = chain.Link(record["seq"], hashlib.sha256(lines[-1]).hexdigest(), record["time"])
    seal.write(made.logs / chain.HEAD, chain.head(seal.load_private(made.keys / "log.key"), link, record["chain_uid"]))
    made.start()
    with made.client() as client:
        client.record(event())
    made.stop()
    assert made.verify().problems == []
    told = [record for record in made.records() if record["action"] == chain.CLOCK]
    assert len(told) == 1 and told[0]["detail"]["before"] == "2099-01-01T00:00:00.000000Z" and told[0]["sender"] == chain.RECORDER


@pytest.mark.parametrize("torn", [b"{", b'{"action":"network.connect","seq":9', b"\0" * 5000])
def test_a_torn_last_line_is_cut_off_and_that_is_on_record(tmp_path: Path, torn: bytes) -> None:
    with running(tmp_path) as made, made.client() as client:
        ack = client.record(event())
        made.kill()
        with (made.logs / chain.LIVE).open("ab") as file:
            file.write(torn)
        made.start()
        assert client.record(event()).seq > ack.seq
        repair = next(record for record in made.records() if record["action"] == "log.repair")
        assert repair["detail"] == {"bytes": len(torn), "sha256": canonical.sha256_hex(torn)}
        made.stop()
        assert made.verify().problems == []


def _cut(logs: Path, keys: Path) -> None:
    lines = (logs / chain.LIVE).read_bytes().splitlines(keepends=True)
    (logs / chain.LIVE).write_bytes(b"".join(lines[:-2]))


def _edit(logs: Path, keys: Path) -> None:
    content = (logs / chain.LIVE).read_bytes()
    (logs / chain.LIVE).write_bytes(content.replace(b"said first", b"said never"))


def _empty(logs: Path, keys: Path) -> None:
    for path in logs.glob("ct*"):
        path.unlink()


def _remove(name: str) -> t.Callable[[Path, Path], None]:
    return lambda logs, keys: next(path for folder in (logs, keys) for path in folder.glob(name)).unlink()


BROKEN: dict[str, tuple[t.Callable[[Path, Path], None], str]] = {
    "the end was cut off": (_cut, "ct.jsonl: it ends with record "),
    "a record was changed": (_edit, "): it was changed after it was written"),
    "the log is gone": (_empty, "logs: the log is gone"),
    "the live file is gone": (_remove(chain.LIVE), "ct.jsonl: it ends with record "),
    "the head is gone": (_remove(chain.HEAD), "ct.head.json: there is no such seal"),
    "a segment is gone": (_remove("ct-*.gz"), "there is no tombstone"),
    "a seal is gone": (_remove("ct-*.seal.json"), "its seal is gone"),
    "the anchor is gone": (_remove("log.chain.json"), "log.chain.json: it is gone"),
    "the key is gone": (_remove("log.key"), "log.key: the key is gone, its public half"),
    "the public key is gone and another key there": (lambda _logs, keys: _other_key(keys), "is not signed with this log's key"),
}


def _other_key(keys: Path) -> None:
    for name in ("log.key", "log.pub"):
        (keys / name).unlink()
    seal.ensure_key(keys / "log.key")


@pytest.mark.parametrize("word", BROKEN)
def test_a_broken_log_is_an_alarm_until_root_begins_a_new_chain(tmp_path: Path, word: str) -> None:
    change, told = BROKEN[word]
    with running(tmp_path) as made:
        with made.client() as client:
            client.record(event())
            made.command("rotate")
            while made.command("status")["files"]["sealed"] == 0:
                time.sleep(0.05)
            client.record(event(reason="said first"))
            client.record(event())
        uid = made.command("status")["chain_uid"]
        made.stop()
        change(made.logs, made.keys)
        left = {path.name: path.read_bytes() for path in made.logs.glob("ct*")}
        made.start()
        with made.client() as client, pytest.raises(recorder.RecorderError) as refused:
            client.record(event())
        assert told in str(refused.value) and "nothing is recorded, so nothing may be done" in str(refused.value)
        assert told in made.command("status")["alarm"] and "ALARM" in made.words()
        for command in ("rotate", "seal"):
            with pytest.raises(recorder.RecorderError, match="nothing is recorded"):
                made.command(command)
        made.stop()
        assert {path.name: path.read_bytes() for path in made.logs.glob("ct*")} == left, "an alarm changes nothing"
        made.start()
        with pytest.raises(recorder.RecorderError, match="reason: reset-chain needs it"):
            made.command("reset-chain")
        answer = made.command("reset-chain", reason="the disk was repaired")
        archive = made.logs / answer["folder"]
        assert {path.name: path.read_bytes() for path in archive.glob("ct*")} == left
        assert made.command("status")["alarm"] == ""
        with made.client() as client:
            client.record(event())
        first = made.records()[0]
        assert first["action"] == "log.reset" and first["chain_uid"] == answer["chain_uid"] != uid
        assert first["reason"].startswith("the disk was repaired (it was broken: ") and told in first["reason"]
        assert first["detail"]["folder"] == archive.name
        if word != "the anchor is gone":
            assert first["detail"]["previous_chain"] == uid and archive.name == f"chain-{uid}"
        made.kill()
        made.start()
        made.stop()
        assert made.verify().problems == []


def test_a_log_that_is_right_has_no_new_chain(made: Recorder) -> None:
    with pytest.raises(recorder.RecorderError, match="the log is as it should be"):
        made.command("reset-chain", reason="for fun")


def test_a_second_recorder_does_not_write_the_same_log(made: Recorder, tmp_path: Path) -> None:
    other = Recorder(tmp_path, logs=made.logs)
    other.launch()
    assert other.process is not None and other.process.wait(30) == 1
    assert f"{made.logs}: another recorder writes this log" in other.words()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"colour": 1}, "Object contains unknown field `colour`"),
        ({"senders": []}, "Expected `array` of length >= 1"),
        ({"senders": ["../x"]}, "$.senders[0]"),
        ({"rotation": {"bytes": 10}}, "$.rotation.bytes"),
        ({"logs": "relative"}, "$.logs"),
        ({"redaction": {"logging_rules": [{"id": "bad-one", "description": "no", "regex": "(", "keywords": ["x"]}]}}, "bad-one"),
    ],
)
def test_a_wrong_configuration_is_refused_at_the_start_and_later(tmp_path: Path, change: dict[str, t.Any], told: str) -> None:
    fresh = Recorder(tmp_path / "fresh")
    fresh.configure(**change)
    fresh.launch()
    assert fresh.process is not None and fresh.process.wait(30) == 1
    assert str(fresh.config) in fresh.words() and told in fresh.words() and len(fresh.words().splitlines()) == 1
    with running(tmp_path / "other") as made:
        before = made.command("status")["config_sha256"]
        made.configure(**change)
        assert made.process is not None
        made.process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 30
        while not made.command("status")["problem"]:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        status = made.command("status")
        assert told in status["problem"] and status["config_sha256"] == before
        with made.client() as client:
            assert client.record(event()).seq
        refused = next(record for record in made.records() if record["action"] == "recorder.configure")
        assert refused["outcome"] == "failure" and refused["reason"] == status["problem"]


def test_a_new_configuration_counts_at_once(tmp_path: Path) -> None:
    with running(tmp_path) as made:
        with pytest.raises(recorder.RecorderError, match="does not answer"):
            made.client("llm", patience=0.1).record(event())
        made.configure(senders=["host", "llm"], ration={"events": 1, "bytes": 100, "burst": 1})
        assert made.process is not None
        made.process.send_signal(signal.SIGHUP)
        with made.client("llm", patience=30) as client:
            client.record(event())
            with pytest.raises(recorder.RecorderError, match="over its ration of 1 events and 100 bytes"):
                client.record(event(sandbox="box", reason="x" * 200))
        with pytest.raises(recorder.RecorderError, match="does not answer"):
            made.client("egress", patience=0.1).record(event())


def test_the_end_is_in_its_own_time(tmp_path: Path) -> None:
    """What was read when SIGTERM came is recorded and answered."""

    async def send(path: str, pid: int) -> tuple[int, int]:
        records = Records(path, patience=3)
        tasks = [records.record(event(detail={"number": number})) for number in range(3000)]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        os.kill(pid, signal.SIGTERM)
        found = await asyncio.gather(*tasks, return_exceptions=True)
        await records.close()
        acked = [one for one in found if isinstance(one, recorder.Ack)]
        return len(acked), len(found) - len(acked)

    with running(tmp_path) as made:
        assert made.process is not None
        acked, _failed = uvloop.run(send(made.path(), made.process.pid))
        assert made.process.wait(30) == 0
        written = [record for record in made.records() if record["sender"] == "host"]
        assert len(written) == acked > 0
        assert made.records()[-1]["action"] == "recorder.stop"
        head = json.loads(seal.payload(seal.read(made.logs / chain.HEAD)))["predicate"]
        assert head["seq"] == made.records()[-1]["seq"]


COMMANDS = [
    ({"command": "nothing"}, "command: there is no 'nothing'"),
    ({}, "command: there is no None"),
    ({"command": "forget", "reason": "x"}, "until: forget needs it"),
    ({"command": "forget", "reason": "x", "until": "soon"}, "'soon' is no month"),
    ({"command": "forget", "reason": "x", "until": 3}, "forget: until is a month"),
    ({"command": "rotate-key", "reason": " "}, "reason: rotate-key needs one, in words"),
    ({"command": "status", "verbose": True}, "verbose: status has no such argument"),
]


@pytest.mark.parametrize(("message", "told"), COMMANDS)
def test_a_wrong_command_is_refused(made: Recorder, message: dict[str, t.Any], told: str) -> None:
    with recorder.Client(str(made.sockets / "admin.sock")) as client:
        with pytest.raises(recorder.RecorderError, match=told):
            client.command(message)
        assert client.command({"command": "status"})["alarm"] == ""


def test_pseudonyms_can_be_forgotten(tmp_path: Path) -> None:
    with running(tmp_path) as made, made.client() as client:
        said = [event(reason=SECRET), event(reason=SECRET)]
        client.record(said[0])
        answer = made.command("forget", until="2099-12", reason="somebody asked for it")
        client.record(said[1])
        assert len(answer["forgotten"]) == 1
        before, after = [record["reason"] for record in made.records() if record["sender"] == "host"]
        assert before != after and SECRET not in before + after
        told = next(record for record in made.records() if record["action"] == "log.forget")
        assert told["reason"] == "somebody asked for it" and told["actor"] == {"type": "user", "name": "root"}


def test_sockets_are_for_their_senders_alone(made: Recorder) -> None:
    assert (made.sockets / "admin.sock").stat().st_mode & 0o777 == 0o600
    for sender in ("host", "egress"):
        assert Path(made.path(sender)).stat().st_mode & 0o777 == 0o666
        assert Path(made.path(sender)).parent.stat().st_mode & 0o777 == 0o755
    assert (made.logs / chain.LIVE).stat().st_mode & 0o777 == 0o640


def test_old_segments_are_removed_and_say_so(tmp_path: Path) -> None:
    with running(tmp_path, retention={"seconds": 1, "bytes": 0}) as made, made.client() as client:
        for _segment in range(3):
            client.record(event())
            made.command("rotate")
        deadline = time.monotonic() + 30
        while made.command("status")["files"] != {"sealed": 0, "unsealed": 0, "removed": 3}:
            assert time.monotonic() < deadline
            made.command("retain", reason="the year is over")
            time.sleep(0.2)
        told = [record for record in made.records() if record["action"] == "log.retain"]
        assert [record["detail"]["first_seq"] for record in told] == sorted(record["detail"]["first_seq"] for record in told)
        assert made.verify().problems == [] and made.verify().removed == 3
        made.kill()
        made.start()
        assert client.record(event()).seq
