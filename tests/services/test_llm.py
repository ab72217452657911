# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gateway as agents meet it: what goes through, what is refused and in whose words, and what it is charged."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import hashlib
import http.client
import json
import os
import re
import signal
import socket
import time
import typing as t
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.recorder import Ack, RecorderError
from services.llms import BODIES, PRICES, TOKEN, TOTAL, Got, Llm, Simulator, Stand, Unix, chat, many, message, response, standing

from dockersandbox.llm.ledger import Ledger
from dockersandbox.llm.service import Gateway
from dockersandbox.llm.settings import Settings


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Stand]:
    with standing(tmp_path_factory.mktemp("llm"), times={"hold": 0.2, "drain": 2, "idle": 2, "whole": 30}, limits=LIMITS) as made:
        yield made


LIMITS = {"requests": 1_000_000, "tokens": 1 << 50, "streams": 200, "connections": 100, "bodies": 1 << 40}
PATHS = sorted(BODIES)


def charged(stand: Stand) -> tuple[int, int]:
    """Return what the ledger has as spent, and what the upstream's own account says."""
    return stand.llm.settled()["spent"], stand.simulator.account()["micro_dollars"]


def last(stand: Stand, action: str) -> dict[str, t.Any]:
    return stand.events(action)[-1]


# -- what goes through


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", PATHS)
def test_every_form_goes_through_and_costs_what_the_upstream_says(stand: Stand, path: str, stream: bool) -> None:
    before = charged(stand)
    got = stand.llm.ask(path, BODIES[path]("[simulate output=50 cache_read=1000 cache_write=70]", stream=stream))
    assert got.status == 200
    assert got.headers["content-type"].startswith("text/event-stream" if stream else "application/json")
    assert b"word9" in got.body
    after = charged(stand)
    assert after[0] - before[0] == after[1] - before[1] > 0
    event = stand.of_call("llm.charge", got.headers["x-guardrails-call"])
    assert event["outcome"] == "success" and event["detail"]["micro_dollars"] == after[0] - before[0]
    assert (event["detail"]["output_tokens"], event["detail"]["cache_read_tokens"], event["detail"]["cache_write_tokens"]) == (50, 1000, 70)


@pytest.mark.parametrize("packed", ["gzip", "br", "deflate", "zstd"])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", PATHS)
def test_packed_answers_are_metered(stand: Stand, path: str, stream: bool, packed: str) -> None:
    before = charged(stand)
    got = stand.llm.ask(path, BODIES[path](f"[simulate output=50 packed={packed}]", stream=stream))
    assert got.status == 200
    # Only the stream that has something taken out is not as packed as it came.
    assert got.headers.get("content-encoding") == (None if path.endswith("completions") and stream else packed)
    after = charged(stand)
    assert after[0] - before[0] == after[1] - before[1] > 0


def test_pieces_of_any_size(stand: Stand) -> None:
    before = charged(stand)
    for size in (1, 3, 50):
        got = stand.llm.ask("/v1/messages", message(f"[simulate output=40 split={size}]", stream=True))
        assert got.body.endswith(b'data: {"type":"message_stop"}\n\n')
    after = charged(stand)
    assert after[0] - before[0] == after[1] - before[1] > 0


def test_bytes_come_as_the_upstream_sent_them(stand: Stand) -> None:
    body = message("[simulate output=20 garbage=3]", stream=True)
    direct = Unix(str(stand.simulator.settings["socket"]))
    direct.request("POST", "/v1/messages", json.dumps(body))
    through = stand.llm.ask("/v1/messages", body).body
    # The number of the turn is all that differs.
    assert [len(line) for line in direct.getresponse().read().split(b"\n") if b"msg_sim" not in line] == [
        len(line) for line in through.split(b"\n") if b"msg_sim" not in line
    ]


def test_usage_is_only_told_to_who_asked(stand: Stand) -> None:
    got = stand.llm.ask("/v1/chat/completions", chat("[simulate output=20]", stream=True))
    assert b"usage" not in got.body and got.body.endswith(b"data: [DONE]\n\n")
    got = stand.llm.ask("/v1/chat/completions", chat("[simulate output=20]", stream=True, stream_options={"include_usage": True}))
    assert b'"usage":{"prompt_tokens"' in got.body


def test_tools_are_called_and_their_results_are_sent_on(stand: Stand) -> None:
    tools = [{"name": "Write", "input_schema": {}}, {"name": "Bash", "input_schema": {}}]
    first = stand.llm.ask("/v1/messages", message(tools=tools)).json
    assert (first["stop_reason"], first["content"][0]["name"]) == ("tool_use", "Write")
    talk = [{"role": "assistant", "content": first["content"]}]
    talk += [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": first["content"][0]["id"], "content": "ok"}]}]
    second = stand.llm.ask("/v1/messages", message(tools=tools) | {"messages": [*message()["messages"], *talk]}).json
    assert second["content"][0]["name"] == "Bash"


def test_what_costs_nothing_is_passed_on_and_not_charged(stand: Stand) -> None:
    before = stand.llm.settled()["calls"]
    assert stand.llm.ask("/v1/messages/count_tokens", message()).json["input_tokens"] > 0
    assert stand.llm.ask("/v1/models").json["data"][0]["owned_by"] == "simulated"
    assert stand.llm.settled()["calls"] == before
    assert last(stand, "llm.models")["decision"] == "allow"


def test_a_call_is_on_record_before_it_leaves_without_a_word_of_it(stand: Stand) -> None:
    body = message("a secret plan of the company")
    got = stand.llm.ask("/v1/messages", body)
    event = last(stand, "llm.call")
    assert event["request_sha256"] == hashlib.sha256(json.dumps(body).encode()).hexdigest()
    assert event["detail"]["call"] == got.headers["x-guardrails-call"] and event["detail"]["held_micro_dollars"] > 0
    assert "secret plan" not in json.dumps(stand.recorder.records())


# -- who, and where to


@pytest.mark.parametrize("headers", [{}, {"x-api-key": "sk-ant-wrong"}, {"authorization": "Bearer wrong"}, {"authorization": TOKEN}])
@pytest.mark.parametrize(("path", "kind"), [("/v1/messages", "anthropic"), ("/v1/chat/completions", "openai")])
def test_without_its_token_a_sandbox_is_nobody(stand: Stand, headers: dict[str, str], path: str, kind: str) -> None:
    client = Unix(stand.llm.socket())
    client.request("POST", path, json.dumps(BODIES[path]()), headers)
    answer = client.getresponse()
    error = json.loads(answer.read())["error"]
    assert (answer.status, error["type"]) == (401, "authentication_error")
    assert error["reason" if kind == "anthropic" else "code"] == "token"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/v1/messages"),
        ("POST", "/v1/completions"),
        ("POST", "/v1/embeddings"),
        ("POST", "/v1/batches"),
        ("POST", "/v1/files"),
        ("GET", "/v1/responses/resp_1"),
        ("POST", "/v1/messages/batches"),
        ("POST", "/v1/messages/"),
        ("POST", "//v1/messages"),
        ("POST", "/v1/./messages"),
        ("POST", "/v1/%6dessages"),
        ("POST", "/V1/messages"),
        ("POST", "http://elsewhere/v1/messages"),
        ("DELETE", "/v1/models"),
        ("PUT", "/v1/messages"),
        ("GET", "/account"),
        ("OPTIONS", "/v1/messages"),
    ],
)
def test_every_other_path_is_refused(stand: Stand, method: str, path: str) -> None:
    before = stand.simulator.asks("/")["asked"]
    got = stand.llm.ask(path, b"{}", method=method)
    assert (got.status, got.reason) == (404, "path")
    assert stand.simulator.asks("/")["asked"] == before


class Listener:
    """An upstream that tells what it got, and answers as it is told; on a unix socket."""

    def __init__(self, path: Path, answer: bytes, linger: float = 0.0) -> None:
        self.path, self.answer, self.linger = path, answer, linger
        self.got: list[bytes] = []
        self.spend: dict[str, int] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        size = next((int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0)
        self.got.append(head + (await reader.readexactly(size) if size else b""))
        writer.write(self.answer)
        with contextlib.suppress(ConnectionError):
            await writer.drain()
            if self.linger:
                await asyncio.sleep(self.linger)
        writer.close()


def against(
    tmp_path: Path, stand: Stand, answer: bytes, ask: t.Callable[[Llm], Got], linger: float = 0.0, **settings: t.Any
) -> tuple[Got, Listener]:
    """Return what a gateway answers whose upstream sends *answer*; the gateway has ended when this returns."""
    listener = Listener(tmp_path / "listener.sock", answer, linger)
    (tmp_path / "key").write_text("sk-the-real-one\n", encoding="utf-8")
    upstream = {"url": "http://real", "provider": "simulated", "socket": str(listener.path), "key_file": str(tmp_path / "key")}
    times = {"hold": 0.2, "drain": 1, "idle": 1, "connect": 1, "whole": 20}
    llm = Llm(tmp_path / "gateway", upstream, stand.recorder.path("llm"), **{"times": times, **settings})

    def meanwhile() -> Got:
        llm.start()
        try:
            got = ask(llm)
            listener.spend = llm.command("spend")["spend"]["total"].get("total", {"spent": 0, "held": 0})
            return got
        finally:
            llm.stop()

    async def story() -> Got:
        server = await asyncio.start_unix_server(listener.serve, str(listener.path))
        try:
            return await asyncio.to_thread(meanwhile)
        finally:
            server.close()

    return asyncio.run(story()), listener


OK = b'{"type": "message", "model": "m", "content": [], "usage": {"input_tokens": 1, "output_tokens": 1}}'
PLAIN = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nset-cookie: a=b\r\nanthropic-organization-id: org\r\nrequest-id: r1\r\n"
    b"content-length: %d\r\n\r\n%s"
)


def test_nothing_that_an_agent_sends_says_where_to_or_in_whose_name(tmp_path: Path, stand: Stand) -> None:
    tricks = {
        "x-api-key": TOKEN,
        "host": "evil.example",
        "x-forwarded-host": "evil.example",
        "x-upstream": "http://evil.example",
        "openai-organization": "org-evil",
        "cookie": "a=b",
        "proxy-authorization": "Basic x",
        "anthropic-beta": "a-beta",
        "anthropic-version": "2023-06-01",
        "accept-encoding": "gzip, br, zstd",
        "x-client-request-id": "mine",
    }
    got, listener = against(tmp_path, stand, PLAIN % (len(OK), OK), lambda llm: llm.ask("/v1/messages?beta=true", message(), tricks))
    assert got.status == 200
    head, _blank, body = listener.got[0].partition(b"\r\n\r\n")
    lines = head.lower().decode().split("\r\n")
    names = {line.partition(":")[0] for line in lines[1:]}
    assert lines[0] == "post /v1/messages?beta=true http/1.1"
    assert {"x-api-key: sk-the-real-one", "anthropic-beta: a-beta", "accept-encoding: identity", "host: real"} <= set(lines)
    assert names <= {
        "accept", "host", "x-api-key", "anthropic-beta", "anthropic-version", "accept-encoding", "content-type", "content-length", "x-client-request-id"
    }
    assert TOKEN.encode() not in listener.got[0] and b"mine" not in head
    assert json.loads(body) == message()
    # Nor does the answer say whose account it was.
    assert got.headers["request-id"] == "r1" and not {"set-cookie", "anthropic-organization-id"} & got.headers.keys()


def test_a_provider_is_reached_at_the_version_that_its_url_has(tmp_path: Path, stand: Stand) -> None:
    upstream = {"url": "http://real/api/v4", "provider": "simulated", "socket": str(tmp_path / "listener.sock")}
    got, listener = against(tmp_path, stand, PLAIN % (len(OK), OK), lambda llm: llm.ask("/v1/messages", message()), anthropic=upstream)
    assert got.status == 200 and listener.got[0].startswith(b"POST /api/v4/messages HTTP/1.1\r\n")


@pytest.mark.parametrize(("context", "beta"), [(200_000, b"a-beta"), (1_000_000, b"a-beta,context-1m-2025-08-07"), (None, b"a-beta,context-1m-2025-08-07")])
def test_no_more_context_is_asked_for_than_was_held_for(tmp_path: Path, stand: Stand, context: int | None, beta: bytes) -> None:
    prices = [{**PRICES[0], "context": context} if context else {key: value for key, value in PRICES[0].items() if key != "context"}]
    headers = {"anthropic-beta": "a-beta,context-1m-2025-08-07"}
    got, listener = against(tmp_path, stand, PLAIN % (len(OK), OK), lambda llm: llm.ask("/v1/messages", message(), headers), prices=prices)
    assert got.status == 200 and b"\r\nanthropic-beta: " + beta + b"\r\n" in listener.got[0].lower()


def test_the_real_key_is_nowhere_but_in_the_call(tmp_path: Path, stand: Stand) -> None:
    refused = b"HTTP/1.1 401 no\r\ncontent-length: 2\r\n\r\n{}"
    got, listener = against(tmp_path, stand, refused, lambda llm: llm.ask("/v1/chat/completions", chat()))
    assert b"authorization: bearer sk-the-real-one" in listener.got[0].lower()
    assert got.status == 401
    everywhere = [path.read_bytes() for path in (tmp_path / "gateway").rglob("*") if path.is_file()]
    assert everywhere and not any(b"sk-the-real-one" in content for content in everywhere)
    assert "sk-the-real-one" not in json.dumps(stand.recorder.records())
    assert listener.spend["spent"] == listener.spend["held"] == 0


# -- upstreams that misbehave


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503, 529])
@pytest.mark.parametrize("path", PATHS)
def test_an_upstreams_refusal_is_passed_on_and_costs_nothing(tmp_path_factory: pytest.TempPathFactory, stand: Stand, status: int, path: str) -> None:
    before = stand.llm.settled()
    for sandbox in stand.llm.command("status")["sandboxes"].values():
        assert sandbox["breaker"] == "closed"
    got = stand.llm.ask(path, BODIES[path](f"[simulate status={status}]"))
    assert got.status == status and b"this error was asked for" in got.body
    assert got.headers.get("retry-after") == ("1" if status == 429 else None)
    assert stand.llm.settled() == before
    # A good one in between, so that no breaker has reason to open.
    assert stand.llm.ask(path, BODIES[path]("[simulate output=1]")).status == 200


@pytest.mark.parametrize("status", [408, 504, 524])
def test_one_who_gave_up_waiting_for_the_model_does_not_know_what_it_cost(tmp_path: Path, stand: Stand, status: int) -> None:
    given_up = b"HTTP/1.1 %d no\r\ncontent-length: 2\r\n\r\n{}" % status
    got, listener = against(tmp_path, stand, given_up, lambda llm: llm.ask("/v1/messages", message()))
    assert (got.status, got.body) == (status, b"{}")
    assert listener.spend["held"] > listener.spend["spent"] == 0


def test_a_redirect_is_not_followed(stand: Stand) -> None:
    before = stand.llm.settled()
    got = stand.llm.ask("/v1/messages", message("[simulate status=302]"))
    assert (got.status, got.reason, "location" in got.headers) == (502, "redirect", False)
    assert stand.llm.settled() == before


@pytest.mark.parametrize("path", PATHS)
def test_a_stream_that_breaks_off_is_left_charged_until_reconciled(stand: Stand, path: str) -> None:
    llm = stand.llm
    before = llm.settled()
    with contextlib.suppress(http.client.IncompleteRead, ConnectionError):
        got = llm.ask(path, BODIES[path]("[simulate output=80 cut=5]", stream=True))
        assert b"upstream" in got.body
    (entry,) = [call for call in stand.simulator.account()["calls"] if not call["finished"]][-1:]
    assert stand.of_call("llm.charge", entry["id"])["outcome"] == "unknown"
    held = llm.command("spend")["spend"]["total"]["total"]["held"]
    assert held >= entry["micro_dollars"] > 0
    done = llm.command("reconcile", upstream="simulated", statement={entry["id"]: entry["micro_dollars"]}, until=0, reason="a test")
    assert done["settled"] == 1
    after = llm.settled()
    assert after["spent"] - before["spent"] == entry["micro_dollars"]


def test_an_upstream_that_hangs_is_given_up(stand: Stand) -> None:
    begun = time.monotonic()
    made = len(stand.simulator.account()["calls"])
    got = stand.llm.ask("/v1/messages", message("[simulate delay=12000]"))
    assert (got.status, got.reason) == (504, "upstream_timeout")
    assert time.monotonic() - begun < 10
    # The upstream makes and charges it all the same, when nobody is there any more.
    while len(stand.simulator.account()["calls"]) == made:
        assert time.monotonic() - begun < 30
        time.sleep(0.1)
    with contextlib.suppress(http.client.IncompleteRead):
        got = stand.llm.ask("/v1/messages", message("[simulate output=80 hang=4]", stream=True))
        assert b"event: error" in got.body
    statement = {call["id"]: call["micro_dollars"] for call in stand.simulator.account()["calls"]}
    stand.llm.command("reconcile", upstream="simulated", statement=statement, until=int(time.time()) + 1, reason="a test")


@pytest.mark.parametrize(
    ("answer", "status", "spent"),
    [
        (b"", 502, "held"),
        (b"garbage\r\n\r\n", 502, "held"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 900\r\n\r\n{", 502, "held"),
        (PLAIN % (8, b"not JSON"), 200, "all"),
        (PLAIN % (2, b"{}"), 200, "all"),
        (b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 9\r\n\r\ngarbage\n\n", 200, "held"),
    ],
)
def test_answers_that_are_none(tmp_path: Path, stand: Stand, answer: bytes, status: int, spent: str) -> None:
    def ask(llm: Llm) -> Got:
        try:
            return llm.ask("/v1/messages", message())
        except (http.client.IncompleteRead, ConnectionError):
            return Got(200, {}, b"")

    got, listener = against(tmp_path, stand, answer, ask)
    assert got.status == status
    told = listener.spend
    assert bool(told["held"]) == (spent == "held") and bool(told["spent"]) == (spent == "all")


def peak(llm: Llm) -> int:
    """Return the most memory that a gateway has had, in MiB."""
    assert llm.process is not None
    return int(re.findall(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{llm.process.pid}/status").read_text(encoding="ascii"))[0]) >> 10


def test_an_answer_without_end_is_ended_before_it_fills_the_memory(tmp_path: Path, stand: Stand) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % (1 << 40)
    peaks: list[int] = []

    def ask(llm: Llm) -> Got:
        got = llm.ask("/v1/messages", message())
        peaks.append(peak(llm))
        return got

    got, listener = against(tmp_path, stand, head + bytes(160 << 20), ask)
    assert (got.status, got.reason) == (502, "upstream")
    assert listener.spend["spent"] == 0 and listener.spend["held"] > 0
    # In MiB; it has had some 130 by the time it is up.
    assert peaks[0] < 200, peaks


def test_one_that_drips_and_one_that_does_not_close_are_ended(tmp_path: Path, stand: Stand) -> None:
    stream = b'data: {"type":"message_start","message":{"usage":{"input_tokens":1,"output_tokens":1}}}\n\n'
    stream += b'data: {"type":"message_delta","usage":{"output_tokens":2}}\n\ndata: {"type":"message_stop"}\n\n'
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n%s\r\n"
    begun = time.monotonic()
    times = {"hold": 0.2, "drain": 1, "idle": 60, "connect": 1, "whole": 60}
    answer = head % (len(stream), stream)
    got, listener = against(tmp_path, stand, answer, lambda llm: llm.ask("/v1/messages", message(stream=True)), linger=30, times=times)
    assert time.monotonic() - begun < 20
    assert got.body == stream
    assert listener.spend == {"spent": 33, "held": 0, "calls": 1}


@pytest.mark.parametrize(
    ("usage", "alarm"), [("negative", "usage_unreadable"), ("absurd", "usage_unreadable"), ("none", "usage_missing"), ("zero", "usage_unreadable")]
)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", sorted(BODIES))
def test_a_usage_that_cannot_be_is_charged_whole_and_told_of(stand: Stand, path: str, usage: str, alarm: str, stream: bool) -> None:
    before = stand.llm.settled()["spent"]
    got = stand.llm.ask(path, BODIES[path](f"[simulate output=9 usage={usage}]", stream=stream))
    assert got.status == 200
    spent = stand.llm.settled()["spent"] - before
    event = stand.of_call("llm.charge", got.headers["x-guardrails-call"])
    assert event["detail"]["estimated"] and spent == event["detail"]["micro_dollars"] == event["detail"]["held_micro_dollars"]
    assert stand.of_call("llm.alarm", got.headers["x-guardrails-call"])["reason"].startswith(alarm)


@pytest.mark.parametrize("cost", [0.000084, 0.00009])
def test_what_a_router_says_that_a_call_did_cost_is_charged(tmp_path: Path, stand: Stand, cost: float) -> None:
    usage = {"prompt_tokens": 8, "completion_tokens": 4, "total_tokens": 12, "cost": cost}
    body = json.dumps({"object": "chat.completion", "model": "m", "choices": [{"index": 0, "message": {"content": "x"}}], "usage": usage}).encode()
    answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
    got, listener = against(tmp_path, stand, answer, lambda llm: llm.ask("/v1/chat/completions", chat()))
    assert (got.status, got.body) == (200, body)
    assert listener.spend == {"spent": round(cost * 10**6), "held": 0, "calls": 1}


# -- clients that go away


def until_active(stand: Stand, count: int) -> None:
    deadline = time.monotonic() + 20
    while stand.llm.command("status")["active"] != count:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def went_away(stand: Stand, path: str, text: str, stream: bool) -> None:
    until_active(stand, 0)
    client = Unix(stand.llm.socket())
    client.request("POST", path, json.dumps(BODIES[path](text, stream=stream)), {"x-api-key": TOKEN})
    if stream:
        client.getresponse().read(10)
    else:
        until_active(stand, 1)
    client.sock.shutdown(socket.SHUT_RDWR)
    client.close()
    until_active(stand, 0)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", PATHS)
def test_who_goes_away_pays_what_it_costs(stand: Stand, path: str, stream: bool) -> None:
    before = charged(stand)
    went_away(stand, path, "[simulate output=90 delay=300 pace=10]", stream)
    after = charged(stand)
    assert after[0] - before[0] == after[1] - before[1] > 90 * 15


def test_an_answer_without_a_client_is_read_for_so_long_and_no_longer(stand: Stand) -> None:
    stand.llm.settled()
    before = len(stand.simulator.account()["calls"])
    went_away(stand, "/v1/messages", "[simulate output=90 pace=1000]", True)
    deadline = time.monotonic() + 10
    while not (unfinished := [call for call in stand.simulator.account()["calls"][before:] if not call["finished"]]):
        assert time.monotonic() < deadline
    (account,) = unfinished
    assert stand.of_call("llm.charge", account["id"])["reason"] == "gone"
    held = stand.llm.command("spend")["spend"]["total"]["total"]["held"]
    assert held >= account["micro_dollars"]
    stand.llm.command("reconcile", upstream="simulated", statement={account["id"]: account["micro_dollars"]}, until=0, reason="a test")


# -- bad input


def raw(llm: Llm, *pieces: bytes, wait: float = 0.0) -> bytes:
    """Send bytes as they are; return all that comes back."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as plain:
        plain.settimeout(20)
        plain.connect(llm.socket())
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for piece in pieces:
                plain.sendall(piece)
                time.sleep(wait)
        found = b""
        with contextlib.suppress(ConnectionResetError):
            while data := plain.recv(1 << 16):
                found += data
                if wait and found.count(b"HTTP/1.1") == len(pieces):
                    break
        return found


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (b"", 400, "json"),
        (b"{", 400, "json"),
        (b"[1]", 400, "json"),
        (b"\x00" * 100, 400, "json"),
        (b"[" * 100_000, 400, "json"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, 400, "json"),
        (b'{"model":' + b"9" * 1_000_000 + b"}", 400, "json"),
        (b"[" + b"[],," * 400_000 + b"]", 413, "too_large"),
    ],
)
def test_bodies_that_are_none(stand: Stand, body: bytes, status: int, reason: str) -> None:
    got = stand.llm.ask("/v1/messages", body)
    assert (got.status, got.reason) == (status, reason)
    assert stand.llm.ask("/v1/messages", message()).status == 200


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": "many"}, "value"),
        ({"model": "../../etc"}, "model"),
        ({"model": "mod\u00e8le"}, "model"),
        ({"model": None}, "model"),
        ({"model": ""}, "model"),
        ({"mcp_servers": [{"url": "https://x"}]}, "not_allowed"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "server_tool"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": "https://x/?secret"}}]}]}, "server_tool"),
        ({"messages": [{"role": "user", "content": [{"type": "tool_addition", "tool": {"definition": {"type": "mcp_toolset"}}}]}]}, "server_tool"),
        ({"speed": "warp"}, "tier"),
    ],
)
def test_what_may_not_be_asked(stand: Stand, fields: dict[str, t.Any], reason: str) -> None:
    got = stand.llm.ask("/v1/messages", message(**fields))
    assert got.status in (400, 403) and got.reason == reason == got.json["error"]["reason"]
    assert stand.llm.ask("/v1/messages", message()).status == 200


@pytest.mark.parametrize(
    "fields", [{"mcp_servers": [{"url": "https://x"}]}, {"system": [{"type": "image", "source": {"type": "url", "url": "https://x/?secret"}}]}]
)
def test_what_may_not_be_asked_of_what_is_only_counted_either(stand: Stand, fields: dict[str, t.Any]) -> None:
    got = stand.llm.ask("/v1/messages/count_tokens", message(**fields))
    assert (got.status, got.json["error"]["type"]) == (403, "permission_error")
    assert stand.llm.ask("/v1/messages/count_tokens", message()).status == 200


def test_a_conversation_brings_no_tools_of_the_providers_along(stand: Stand) -> None:
    tools = [{"type": "mcp", "server_label": "x", "server_url": "https://x"}]
    more = [{"type": "additional_tools", "role": "developer", "tools": tools}, {"role": "user", "content": "hi"}]
    got = stand.llm.ask("/v1/responses", {"model": "gpt-5", "max_output_tokens": 100, "input": more})
    assert (got.status, got.json["error"]["code"]) == (403, "server_tool")


def test_other_models_to_fall_back_on_are_left_out_and_that_is_said(stand: Stand) -> None:
    got = stand.llm.ask("/v1/messages", message(fallbacks=[{"model": "claude-opus-4-6"}]))
    assert (got.status, got.headers["x-guardrails-warning"]) == (200, "fallbacks is left out")
    assert last(stand, "llm.call")["detail"]["left_out"] == "fallbacks"


def test_n_10000(stand: Stand) -> None:
    got = stand.llm.ask("/v1/chat/completions", chat(n=10_000))
    assert (got.status, got.json["error"]["code"]) == (400, "choices")
    event = last(stand, "llm.call")
    assert (event["decision"], event["reason"], event["sandbox"]) == ("deny", "choices", "one")


def test_upper_case_names_the_same_model(stand: Stand) -> None:
    before = stand.llm.command("spend")["spend"]["model"]["simulated/claude-sonnet-4-5"]["calls"]
    assert stand.llm.ask("/v1/messages", message(model="Claude-SONNET-4-5")).status == 200
    stand.llm.settled()
    assert stand.llm.command("spend")["spend"]["model"]["simulated/claude-sonnet-4-5"]["calls"] == before + 1


def test_a_body_of_100_mb_is_refused_at_its_head(stand: Stand) -> None:
    head = f"POST /v1/messages HTTP/1.1\r\nhost: x\r\nx-api-key: {TOKEN}\r\ncontent-length: {100 << 20}\r\n\r\n".encode()
    assert raw(stand.llm, head, b"x" * 100_000).startswith(b"HTTP/1.1 413 ")
    head = f"POST /v1/messages HTTP/1.1\r\nhost: x\r\nx-api-key: {TOKEN}\r\ntransfer-encoding: chunked\r\n\r\n".encode()
    assert raw(stand.llm, head, *[b"100000\r\n" + b"x" * (1 << 20) + b"\r\n"] * 40).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    ("head", "wanted"),
    [("POST /v1/messages HTTP/1.1\r\nauthorization: Bearer another", b"HTTP/1.1 401 "), (f"GET /v1/models HTTP/1.1\r\nx-api-key: {TOKEN}", b"HTTP/1.1 200 ")],
)
@pytest.mark.parametrize("size", [1, 1000])
def test_a_body_that_nobody_asked_for_is_let_in_in_chunks_of_some_size(stand: Stand, head: str, wanted: bytes, size: int) -> None:
    chunk = b"%x\r\n%b\r\n" % (size, b"x" * size)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as plain:
        plain.settimeout(20)
        plain.connect(stand.llm.socket())
        plain.sendall(f"{head}\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n".encode())
        assert plain.recv(1 << 16).startswith(wanted)
        sent = 0
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            while sent < 2 << 20:
                plain.sendall(chunk * (10_000 // size))
                sent += 10_000
        # The small ones are not read for long: what is on the way fits into buffers.
        assert (sent >= 2 << 20) == (size == 1000)


def test_a_packed_body_is_not_unpacked_beyond_its_bound(stand: Stand) -> None:
    assert stand.llm.ask("/v1/messages", gzip.compress(json.dumps(message()).encode()), {"content-encoding": "gzip"}).status == 200
    packer = zlib.compressobj(wbits=31)
    bomb = b"".join([packer.compress(b'{"model": "'), *(packer.compress(bytes(1 << 20)) for _number in range(1000)), packer.flush()])
    head = f"POST /v1/messages HTTP/1.1\r\nhost: x\r\nx-api-key: {TOKEN}\r\ncontent-encoding: gzip\r\ncontent-length: {len(bomb)}\r\n\r\n".encode()
    process = stand.llm.process
    assert process is not None

    def processor_time() -> float:
        fields = Path(f"/proc/{process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    before = processor_time()
    for _turn in range(4):
        got = raw(stand.llm, head, bomb)
        assert got.startswith(b"HTTP/1.1 413 ") or not got
    # To unpack it all takes a second each time.
    assert processor_time() - before < 2


@pytest.mark.parametrize(("size", "wanted"), [(1, b"HTTP/1.1 400 "), (100, b"HTTP/1.1 400 "), (1000, b"HTTP/1.1 200 ")])
def test_a_body_in_a_great_many_chunks_is_not_read_to_its_end(stand: Stand, size: int, wanted: bytes) -> None:
    head = f"POST /v1/messages HTTP/1.1\r\nhost: x\r\nx-api-key: {TOKEN}\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n".encode()
    body = json.dumps(message("x" * 20_000 * size)).encode()
    pieces = [b"%x\r\n%b\r\n" % (len(piece), piece) for start in range(0, len(body), size) if (piece := body[start : start + size])]
    got = raw(stand.llm, head, b"".join(pieces), *[b"1\r\nx\r\n" * 100_000] * (10 if size < 1000 else 0), b"0\r\n\r\n")
    assert got.startswith(wanted)
    assert b"x-guardrails-reason: chunks" in got.lower() or size == 1000


@pytest.mark.parametrize(
    ("head", "size", "wanted"),
    [
        (f"authorization: Bearer {TOKEN}", 0, b"HTTP/1.1 100 Continue\r\n\r\n"),
        (f"authorization: Bearer {TOKEN}", 1 << 30, b"HTTP/1.1 413"),
        ("authorization: Bearer another", 0, b"HTTP/1.1 401"),
    ],
)
def test_who_waits_to_be_told_to_send_is_told_or_refused(stand: Stand, head: str, size: int, wanted: bytes) -> None:
    body = json.dumps(message()).encode()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as plain:
        plain.settimeout(5)
        plain.connect(stand.llm.socket())
        lines = ["POST /v1/messages HTTP/1.1", "host: x", "content-type: application/json", "expect: 100-continue", head]
        plain.sendall("\r\n".join([*lines, f"content-length: {size or len(body)}", "", ""]).encode())
        told = plain.recv(1 << 16)
        assert told.startswith(wanted)
        if b"Continue" in wanted:
            assert told == wanted
            plain.sendall(body)
            assert plain.recv(1 << 16).startswith(b"HTTP/1.1 200")


def test_a_packed_body_that_is_a_bomb_is_refused(stand: Stand) -> None:
    import gzip

    bomb = gzip.compress(b"x" * (200 << 20))
    got = stand.llm.ask("/v1/messages", bomb, {"content-encoding": "gzip"})
    assert got.status in (400, 413)
    packed = gzip.compress(json.dumps(message()).encode())
    assert stand.llm.ask("/v1/messages", packed, {"content-encoding": "gzip"}).status == 200


def test_requests_one_behind_another(stand: Stand) -> None:
    body = json.dumps(message("[simulate output=1]")).encode()
    one = f"POST /v1/messages HTTP/1.1\r\nhost: x\r\nx-api-key: {TOKEN}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body
    other = one.replace(TOKEN.encode(), b"x" * len(TOKEN))
    # What follows one that is refused unread is not read either.
    found = raw(stand.llm, one + one + other + one)
    assert re.findall(rb"HTTP/1\.1 ([0-9]+) ", found) == [b"200", b"200", b"401"]


@pytest.mark.parametrize(
    "head",
    [
        b"GET\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"POST /v1/messages HTTP/1.1\r\ncontent-length: 5\r\ncontent-length: 50\r\n\r\nhello",
        b"POST /v1/messages HTTP/1.1\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /v1/messages HTTP/1.1\r\nhost: x\r\nx: " + b"y" * 100_000 + b"\r\n\r\n",
    ],
)
def test_heads_that_are_none(stand: Stand, head: bytes) -> None:
    found = raw(stand.llm, head + b"\r\n\r\n")
    assert found == b"" or found.startswith((b"HTTP/1.1 400", b"HTTP/1.0 400", b"HTTP/1.1 401"))
    assert stand.llm.ask("/v1/messages", message()).status == 200


def test_connections_have_a_limit(stand: Stand) -> None:
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) for _number in range(130)]
        for plain in opened:
            plain.connect(stand.llm.socket())
            plain.settimeout(5)
        assert opened[-1].recv(1) == b""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if stand.llm.ask("/v1/messages", message()).status == 200:
                return
    raise AssertionError("no connection is let in again")


# -- what is said by root


def test_a_stop_cuts_calls_under_way_and_refuses_others_until_it_is_taken_back(stand: Stand) -> None:
    stand.llm.settled()

    async def story() -> None:
        async with stand.llm.session() as session, session.post("/v1/messages", json=message("[simulate output=90 pace=100]", stream=True)) as answer:
            await answer.content.readany()
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(None, lambda: stand.llm.command("stop", subject="sandbox:one", reason="it looks odd"))
            begun = time.monotonic()
            rest = b""
            with contextlib.suppress(Exception):
                while data := await answer.content.readany():
                    rest += data
            assert time.monotonic() - begun < 3
            assert b"stopped by a person" in rest

    asyncio.run(story())
    for path in PATHS:
        got = stand.llm.ask(path, BODIES[path]())
        assert (got.status, got.reason) == (403, "stopped") and b"it looks odd" in got.body
    assert last(stand, "llm.stop_calls")["reason"] == "it looks odd"
    assert stand.llm.command("resume", subject="sandbox:one", reason="it was not")["resumed"]
    deadline = time.monotonic() + 5
    while stand.llm.ask("/v1/messages", message()).status != 200:
        assert time.monotonic() < deadline
    call = stand.simulator.account()["calls"]
    stand.llm.command(
        "reconcile", upstream="simulated", statement={one["id"]: one["micro_dollars"] for one in call}, until=int(time.time()) + 1, reason="a test"
    )


def test_a_stop_outlasts_the_process(tmp_path: Path) -> None:
    with standing(tmp_path) as own:
        own.llm.command("stop", subject="total", reason="for the night")
        own.llm.kill()
        own.llm.start()
        assert own.llm.ask("/v1/messages", message()).reason == "stopped"


def test_spend_is_told_by_run_sandbox_team_model_and_host(stand: Stand) -> None:
    stand.llm.command("run", sandbox="one", run="20261124T111206Z-0ae8")
    got = stand.llm.ask("/v1/messages", message("[simulate output=10]", model="of-its-own"))
    stand.llm.settled()
    spend = stand.llm.command("spend")["spend"]
    of_run = spend["run"]["20261124T111206Z-0ae8"]
    assert of_run["calls"] == 1 and of_run == spend["model"]["simulated/of-its-own"]
    assert spend["sandbox"]["one"] == spend["team"]["blue"] == spend["host"]["here"] == spend["total"]["total"]
    assert stand.of_call("llm.charge", got.headers["x-guardrails-call"])["trace_id"] == "20261124T111206Z-0ae8"
    stand.llm.command("run", sandbox="one", run=None)
    assert stand.llm.ask("/v1/messages", message()).status == 200
    stand.llm.settled()
    assert stand.llm.command("spend")["spend"]["run"]["20261124T111206Z-0ae8"]["calls"] == 1


def test_of_runs_beside_each_other_the_last_one_pays_and_none_is_forgotten(tmp_path: Path) -> None:
    with standing(tmp_path) as own:
        assert own.llm.command("run", sandbox="one", run="first") == {"sandbox": "one", "run": "first"}
        assert own.llm.command("run", sandbox="one", run="second")["run"] == "second"
        # A gateway that died knows them still.
        own.llm.kill()
        own.llm.start()
        assert own.llm.command("status")["sandboxes"]["one"]["run"] == "second"
        assert own.llm.command("run", sandbox="one", run="second", ended=True)["run"] == "first"
        assert own.llm.command("run", sandbox="one", run="unknown", ended=True)["run"] == "first"
        assert own.llm.ask("/v1/messages", message()).status == 200
        own.llm.settled()
        assert own.llm.command("spend")["spend"]["run"]["first"]["calls"] == 1
        assert own.llm.command("run", sandbox="one", run=None)["run"] == ""


@pytest.mark.parametrize(
    ("command", "arguments", "problem"),
    [
        ("dance", {}, "'dance' is not a command"),
        ("declare", {"budgets": [{"name": "x"}]}, "budgets.0..scope"),
        ("declare", {}, "budgets: None is not a list"),
        ("stop", {"subject": "total"}, "reason: is missing"),
        ("stop", {"subject": "model:x", "reason": "y"}, "subject: 'model:x' is not total"),
        ("spend", {"since": -1}, "since: -1"),
        ("run", {"sandbox": "two", "run": "r"}, "sandbox: 'two' is not one"),
        ("run", {"sandbox": "one", "run": 7}, "run: 7 is not the id"),
        ("reconcile", {"upstream": "x", "statement": {"a": -1}}, "statement: is not"),
        ("reconcile", {"upstream": 3, "statement": {}}, "upstream: a name"),
    ],
)
def test_commands_that_are_none(stand: Stand, command: str, arguments: dict[str, t.Any], problem: str) -> None:
    from ansible_collections.dockersandbox.guardrails.plugins.module_utils.recorder import RecorderError

    with pytest.raises(RecorderError, match=problem):
        stand.llm.command(command, **arguments)


def test_figures_are_written_for_prometheus(stand: Stand) -> None:
    assert stand.llm.ask("/v1/messages", message("[simulate output=10]", stream=True)).status == 200
    stand.llm.settled()
    deadline = time.monotonic() + 15
    wanted = (
        'gen_ai_client_token_usage_count{gen_ai_operation_name="chat",gen_ai_provider_name="simulated",gen_ai_request_model="claude-sonnet-4-5"',
        "gen_ai_client_operation_duration_seconds_bucket{",
        "gen_ai_client_operation_time_to_first_chunk_seconds_bucket{",
        'dockersandbox_llm_spent_micro_dollars_total{model="simulated/claude-sonnet-4-5",sandbox="one",team="blue"} ',
        'dockersandbox_llm_budget_limit_micro_dollars{budget="total",mode="hard",subject="total",window="day"} 1e+09',
        "dockersandbox_llm_budget_held_micro_dollars{",
    )
    while True:
        text = (stand.llm.folder / "llm.prom").read_text(encoding="utf-8") if (stand.llm.folder / "llm.prom").exists() else ""
        if all(word in text for word in wanted):
            break
        assert time.monotonic() < deadline, text
        time.sleep(0.2)


# -- what it cannot do without


def test_without_a_recorder_there_is_no_call(tmp_path: Path) -> None:
    with standing(tmp_path) as own:
        own.recorder.kill()
        before = own.simulator.asks("/")["asked"]
        got = own.llm.ask("/v1/messages", message())
        assert (got.status, got.reason) == (503, "recorder")
        assert own.simulator.asks("/")["asked"] == before
        own.recorder.start()
        assert own.llm.ask("/v1/messages", message()).status == 200
        assert own.llm.settled()["calls"] == 1


def test_without_a_budget_there_is_no_call(tmp_path: Path) -> None:
    with standing(tmp_path, budgets=[{"name": "soft", "scope": "total", "limit": 5, "mode": "soft"}]) as own:
        got = own.llm.ask("/v1/messages", message())
        assert (got.status, got.reason) == (402, "no_budget")
        own.llm.command("declare", budgets=[{"name": "none", "scope": "total", "limit": 0}], exclusive=True)
        got = own.llm.ask("/v1/chat/completions", chat())
        assert (got.status, got.reason, got.json["error"]["type"]) == (402, "spent", "insufficient_quota")
        assert own.simulator.asks("/")["asked"] == 0


def test_what_has_no_price_is_refused_or_costs_the_ceiling(tmp_path: Path) -> None:
    with standing(tmp_path, prices=[]) as own:
        got = own.llm.ask("/v1/messages", message())
        assert (got.status, got.reason) == (400, "unpriced") and "cost_prices" in got.json["error"]["message"]
        own.llm.configure(ceiling={"input_mtok": 100, "output_mtok": 500})
        own.llm.reload()
        deadline = time.monotonic() + 10
        while own.llm.ask("/v1/messages", message("[simulate output=10 input=10]")).status != 200:
            assert time.monotonic() < deadline
        assert own.llm.settled()["spent"] == 10 * 100 + 10 * 500


def test_a_configuration_that_is_wrong_is_refused_and_the_old_one_stays(tmp_path: Path) -> None:
    with standing(tmp_path) as own:
        keyless = {"anthropic": {**own.upstream, "key_file": "/none"}}
        (tmp_path / "key").write_text("sk-another\n", encoding="ascii")
        another = {"anthropic": {**own.upstream, "key_file": str(tmp_path / "key"), "key_sha256": hashlib.sha256(b"sk-one\n").hexdigest()}}
        for wrong in ({"limits": {"requests": 0}}, {"prices": [{"provider": "x"}]}, {"ledger": "/elsewhere"}, {"colour": 1}, keyless, another):
            kept = dict(own.llm.settings)
            own.llm.configure(**wrong)
            own.llm.reload()
            deadline = time.monotonic() + 10
            while not own.llm.command("status")["problem"]:
                assert time.monotonic() < deadline
            assert own.llm.ask("/v1/messages", message()).status == 200
            own.llm.settings = kept
            own.llm.configure()
            own.llm.reload()
            while own.llm.command("status")["problem"]:
                assert time.monotonic() < deadline
        # The other calls' limits, a sandbox more and one less come with a reload.
        own.llm.configure(sandboxes={"two": {"token_sha256": hashlib.sha256(b"two").hexdigest()}})
        own.llm.reload()
        deadline = time.monotonic() + 10
        while not os.path.exists(own.llm.socket("two")):
            assert time.monotonic() < deadline
        assert own.llm.ask("/v1/messages", message(), sandbox="two", token="two").status == 200
        with pytest.raises(OSError):
            own.llm.ask("/v1/messages", message())


def test_a_new_configuration_or_token_gives_nothing_back(tmp_path: Path) -> None:
    with standing(tmp_path, budgets=[{"name": "day", "scope": "sandbox", "subject": "one", "limit": "0.0025", "window": "day"}]) as own:
        own.llm.command("run", sandbox="one", run="first")
        assert own.llm.ask("/v1/messages", message("[simulate output=100]")).status == 200
        spent = own.llm.settled()["spent"]
        own.llm.configure(
            sandboxes={"one": {"token_sha256": hashlib.sha256(b"new").hexdigest(), "team": "green"}},
            limits={**LIMITS, "requests": 5000},
            times={"hold": 0.2},
        )
        before = own.llm.command("status")["config_sha256"]
        own.llm.reload()
        deadline = time.monotonic() + 10
        while own.llm.command("status")["config_sha256"] == before:
            assert time.monotonic() < deadline
        assert own.llm.ask("/v1/messages", message()).status == 401
        assert own.llm.settled()["spent"] == spent
        assert own.llm.command("status")["sandboxes"]["one"]["run"] == "first"
        got = own.llm.ask("/v1/messages", message("[simulate output=100]"), token="new")
        assert (got.status, got.reason) == (402, "spent")


def test_a_clock_that_is_set_is_told_of(tmp_path: Path) -> None:
    async def story() -> list[str]:
        ahead, said = [0.0], []

        def record(event: dict[str, t.Any]) -> asyncio.Future[Ack]:
            said.append(event["reason"])
            done: asyncio.Future[Ack] = asyncio.get_running_loop().create_future()
            done.set_result(Ack(1, ""))
            return done

        settings = msgspec.convert(Llm(tmp_path, {"url": "http://simulator", "provider": "simulated"}, "/none").settings, Settings)
        gateway = Gateway(settings, t.cast(Ledger, None), record, record, {}, lambda: time.time() + ahead[0])
        watching = asyncio.create_task(gateway.watch())
        for step in (0, 20, 3600, -3600):
            ahead[0] += step
            await asyncio.sleep(0.6)
        watching.cancel()
        return said

    assert asyncio.run(story()) == [f"clock_step: the clock was set by {seconds} s" for seconds in (3620, -3600)]


# -- limits


@contextlib.contextmanager
def priced_as_anthropics(folder: Path, *prices: dict[str, t.Any], budgets: t.Sequence[dict[str, t.Any]] = TOTAL) -> t.Iterator[Stand]:
    """Yield a stand whose simulated provider is paid as Anthropic is."""
    own = Stand(folder)
    own.llm.configure(anthropic={**own.upstream, "provider": "anthropic"}, prices=prices)
    try:
        own.start(budgets)
        yield own
    finally:
        own.stop()


def test_a_model_has_one_budget_by_whichever_of_its_names(tmp_path: Path) -> None:
    model = {"name": "sonnet", "scope": "model", "subject": "anthropic/claude-sonnet-4-5", "limit": 0}
    price = {**PRICES[0], "provider": "anthropic", "model": "claude-sonnet-*"}
    with priced_as_anthropics(tmp_path, price, budgets=[*TOTAL, model]) as own:
        for name in ("claude-sonnet-4-5", "claude-sonnet-4-5-20250929", "Claude-Sonnet-4-5"):
            got = own.llm.ask("/v1/messages", message(model=name))
            assert (got.status, got.reason) == (402, "spent"), name
        assert own.llm.ask("/v1/messages", message(model="claude-sonnet-4-0")).status == 200
        # A budget that no call could be for is none.
        for subject, text in (
            ("claude-sonnet-4-5", "is not PROVIDER/MODEL with a provider that is known, such as anthropic/claude-sonnet-4-5"),
            ("antropic/claude-sonnet-4-5", "is not PROVIDER/MODEL"),
            ("anthropic/claude-sonnet-4-5-20250929", "is one of the names of 'anthropic/claude-sonnet-4-5': write that"),
        ):
            with pytest.raises(RecorderError, match=text):
                own.llm.command("declare", budgets=[{**model, "subject": subject}], exclusive=True, reason="a test")
        for subject in ("anthropic/no-such-model", "simulated/x", "openrouter/openai/gpt-5"):
            assert own.llm.command("declare", budgets=[{**model, "subject": subject}], exclusive=True, reason="a test")["budgets"] == 1


def held_for(own: Stand, body: dict[str, t.Any], headers: dict[str, str] | None = None) -> int:
    """Return what is held for a call, in micro-dollars."""
    got = own.llm.ask("/v1/messages", body, headers)
    return int(own.of_call("llm.call", got.headers["x-guardrails-call"])["detail"]["held_micro_dollars"])


def test_where_a_call_is_served_may_be_set_at_the_provider(tmp_path: Path) -> None:
    with priced_as_anthropics(tmp_path) as own:
        anywhere = held_for(own, message("x" * 2000))
        told = {geo: held_for(own, message("x" * 2000, inference_geo=geo)) for geo in ("global", "us")}
    # What says so takes some bytes itself.
    assert told["us"] > anywhere > 1.08 * told["global"]


def test_a_longer_context_is_held_for_where_it_is_asked_for(tmp_path: Path) -> None:
    long = message("x" * 700_000, inference_geo="global")
    with priced_as_anthropics(tmp_path) as own:
        # 200,000 tokens at 3 dollars a million, and 700,000 at 6.
        assert 600_000 <= held_for(own, long) <= 610_000
        assert 4_200_000 <= held_for(own, long, {"anthropic-beta": "context-1m-2025-08-07"}) <= 4_220_000


def test_a_great_many_names_hide_nothing_from_root(tmp_path: Path) -> None:
    bodies = [message(model=f"name-{number}-{'y' * 100}", max_tokens=1) for number in range(6000)]
    budgets = [*TOTAL, {"name": "each", "scope": "model", "limit": 1}]
    with standing(tmp_path, budgets=budgets) as own:
        for start in range(0, len(bodies), 1000):
            assert {status for status, _reason, _body in asyncio.run(many(own.llm, bodies[start : start + 1000]))} == {200}
        told = own.llm.command("spend")["spend"]
        assert len(told["model"]) == 257 and sum(row["spent"] for row in told["model"].values()) == told["total"]["total"]["spent"]
        standings = own.llm.command("budgets")["standing"]
        assert len([row for row in standings if row["name"] == "each"]) == 257


def test_what_takes_long_to_read_counts_as_many_requests(tmp_path: Path) -> None:
    two = {"token_sha256": hashlib.sha256(TOKEN.encode()).hexdigest()}
    many_values = {"model": "claude-sonnet-4-5", "max_tokens": 5, "messages": [1] * 500_000}
    with standing(tmp_path, limits={**LIMITS, "requests": 60}, sandboxes={"one": two, "two": two}) as own:
        assert own.llm.ask("/v1/messages", many_values).status == 200
        for path in ("/v1/messages", "/v1/messages/count_tokens"):
            got = own.llm.ask(path, many_values)
            assert (got.status, got.reason) == (429, "rate") and 35 <= int(got.headers["retry-after"]) <= 60
            assert "counts as 52 of them" in got.json["error"]["message"]
        assert own.llm.ask("/v1/messages", message()).status == 200
        assert own.llm.ask("/v1/messages", message(), sandbox="two").status == 200
        # For its size and for its commas, of which each may begin a value; even a slow machine has no room for two.
        large = message("," * 200_000 + "x" * (29 << 20))
        assert own.llm.ask("/v1/messages", large, sandbox="two").status == 200
        got = own.llm.ask("/v1/messages", large, sandbox="two")
        assert (got.status, got.reason) == (429, "rate") and "counts as 50 of them" in got.json["error"]["message"]


def test_a_sandbox_that_is_held_up_is_told_so_before_its_body_is_read(tmp_path: Path) -> None:
    rule = {"failures": 1, "period": 60, "pause": 60, "longest": 60}
    with standing(tmp_path, breakers={"upstream": {"failures": 1000}, "sandbox": rule}) as own:
        assert own.llm.ask("/v1/messages", message("[simulate status=400]")).status == 400
        head = f"POST /v1/messages HTTP/1.1\r\nhost: x\r\nx-api-key: {TOKEN}\r\ncontent-length: 1000000\r\n\r\n".encode()
        got = raw(own.llm, head)
        assert got.startswith(b"HTTP/1.1 429 ") and b"x-guardrails-reason: breaker" in got


MANY_VALUES = {"model": "claude-sonnet-4-5", "max_tokens": 5, "messages": [1] * 900_000}


@pytest.mark.parametrize("requests", [1, 3])
def test_what_counts_as_many_requests_is_let_in_however_few_there_may_be(tmp_path: Path, requests: int) -> None:
    with standing(tmp_path, limits={**LIMITS, "requests": requests}) as own:
        assert own.llm.ask("/v1/messages", MANY_VALUES).status == 200


def test_what_counts_as_many_requests_is_let_in_when_it_was_told_to_come(tmp_path: Path) -> None:
    with standing(tmp_path, limits={**LIMITS, "requests": 600}) as own:
        deadline = time.monotonic() + 60
        while (got := own.llm.ask("/v1/messages", MANY_VALUES)).status == 200:
            assert time.monotonic() < deadline
        assert (got.status, got.reason) == (429, "rate")
        time.sleep(int(got.headers["retry-after"]))
        assert own.llm.ask("/v1/messages", MANY_VALUES).status == 200


def test_a_sandbox_has_its_rates_and_another_is_not_touched(tmp_path: Path) -> None:
    two = {"token_sha256": hashlib.sha256(TOKEN.encode()).hexdigest()}
    limits = {"requests": 5, "tokens": 10_000, "streams": 2}
    with standing(tmp_path, limits=limits, sandboxes={"one": two, "two": two}) as own:
        slow = message("[simulate output=5 delay=600]")
        answers = asyncio.run(many(own.llm, [slow] * 4))
        assert sorted(status for status, _reason, _body in answers) == [200, 200, 429, 429]
        assert {reason for status, reason, _body in answers if status == 429} == {"streams"}
        got = own.llm.ask("/v1/messages", message())
        assert got.status == 200
        got = own.llm.ask("/v1/chat/completions", chat())
        assert (got.status, got.reason, got.json["error"]["code"]) == (429, "rate", "rate") and 1 <= int(got.headers["retry-after"]) <= 12
        assert own.llm.ask("/v1/messages", message(), sandbox="two").status == 200
        # Tokens are counted at their most before a call, and as they were after it.
        got = own.llm.ask("/v1/messages", message(max_tokens=9_000), sandbox="two")
        assert got.status == 200
        assert own.llm.ask("/v1/messages", message(max_tokens=9_000), sandbox="two").status == 200
        got = own.llm.ask("/v1/messages", message(max_tokens=9_900), sandbox="two")
        assert (got.status, got.reason) == (429, "rate")


def test_bodies_of_all_sandboxes_do_not_fill_the_memory(tmp_path: Path) -> None:
    limits = {"requests": 100, "tokens": 1 << 40, "streams": 4, "bodies": 64 << 20}
    names = ("one", "two", "three")
    token = {"token_sha256": hashlib.sha256(TOKEN.encode()).hexdigest()}
    with standing(tmp_path, limits=limits, sandboxes=dict.fromkeys(names, token)) as own, ThreadPoolExecutor() as pool:

        def ask(name: str, mebibytes: int, wish: str = "") -> tuple[int, str]:
            # A text with one such character takes four bytes for each of the others.
            body = json.dumps(message(f"{wish}\U0001f600{'x' * (mebibytes << 20)}"), ensure_ascii=False).encode()
            got = own.llm.ask("/v1/messages", body, sandbox=name)
            return got.status, got.reason

        under_way = [pool.submit(ask, name, 29, "[simulate delay=6000]") for name in ("one", "one", "two")]
        until_active(own, 3)
        assert ask("two", 10) == (429, "bodies")
        assert ask("three", 10) == (429, "bodies")
        # What each is sure of.
        assert ask("three", 3) == (200, "")
        assert [asked.result() for asked in under_way] == [(200, "")] * 3
        assert ask("three", 29) == (200, "")
        # In MiB; a container of the gateway has 768.
        assert peak(own.llm) < 560


@pytest.mark.parametrize("usage", ["none", "zero", "negative"])
def test_tokens_that_nobody_tells_of_are_not_given_back(tmp_path: Path, usage: str) -> None:
    limits = {"requests": 100, "tokens": 10_000, "streams": 2}
    with standing(tmp_path, limits=limits) as own:
        assert own.llm.ask("/v1/messages", message(f"[simulate output=5 usage={usage}]", max_tokens=8_000)).status == 200
        got = own.llm.ask("/v1/messages", message(max_tokens=8_000))
        assert (got.status, got.reason) == (429, "rate")


def test_breakers(tmp_path: Path) -> None:
    rule = {"failures": 3, "period": 60, "pause": 1, "longest": 2}
    breakers = {"upstream": rule, "sandbox": rule, "velocity": 3000, "repeats": 4}
    with standing(tmp_path, breakers=breakers) as own:
        ask = own.llm.ask

        def opens_and_closes(kind: str, status: int, reason: str) -> None:
            got = ask("/v1/messages", message("[simulate output=1]"))
            assert (got.status, got.reason) == (status, reason) and int(got.headers["retry-after"]) >= 1
            deadline = time.monotonic() + 10
            while (got := ask("/v1/messages", message(f"[simulate output=1] {time.monotonic()}"))).status != 200:
                assert got.reason == reason and time.monotonic() < deadline
                time.sleep(0.2)
            while True:
                events = [event["detail"] for event in own.events("llm.breaker") if event["resource"].startswith(kind)]
                if [(event["before"], event["after"]) for event in events[-3:]] == [("closed", "open"), ("open", "half-open"), ("half-open", "closed")]:
                    return
                assert time.monotonic() < deadline, events

        for number in range(3):
            assert ask("/v1/messages", message(f"[simulate status=529] {number}")).status == 529
        opens_and_closes("upstream", 503, "upstream_breaker")
        for number in range(3):
            assert ask("/v1/messages", message(f"[simulate status=400] {number}")).status == 400
        opens_and_closes("sandbox", 429, "breaker")
        assert ask("/v1/messages", message("[simulate output=100 input=1000]", max_tokens=200)).status == 200
        opens_and_closes("sandbox", 429, "breaker")
        for _turn in range(5):
            got = ask("/v1/messages", message("[simulate output=1] the same"))
        assert (got.status, got.reason) == (429, "breaker") and "again and again" in got.json["error"]["message"]
        opens_and_closes("sandbox", 429, "breaker")


def test_a_sandbox_that_makes_its_upstream_fail_holds_up_itself_and_no_other(tmp_path: Path) -> None:
    known = {"token_sha256": hashlib.sha256(TOKEN.encode()).hexdigest()}
    breakers = {"upstream": {"failures": 4, "period": 60, "pause": 60}, "sandbox": {"failures": 6, "period": 60, "pause": 60}}
    with standing(tmp_path, breakers=breakers, sandboxes={"one": known, "two": known}) as own:
        failing = message("[simulate status=500]")
        for number in range(12):
            got = own.llm.ask("/v1/messages", {**failing, "max_tokens": 100 + number})
            assert own.llm.ask("/v1/messages", message(), sandbox="two").status == 200
            if got.status != 500:
                break
        assert (number, got.status, got.reason) == (8, 429, "breaker")
        # What fails for two is not the fault of one.
        for number in range(2):
            assert own.llm.ask("/v1/messages", {**failing, "max_tokens": 100 + number}, sandbox="two").status == 500
        got = own.llm.ask("/v1/messages", message(), sandbox="two")
        assert (got.status, got.reason) == (503, "upstream_breaker")


def test_max_tokens_is_cut_down_to_what_fits_and_that_is_said(tmp_path: Path) -> None:
    with standing(tmp_path, budgets=[{"name": "small", "scope": "sandbox", "limit": "0.10"}]) as own:
        got = own.llm.ask("/v1/messages", message("[simulate output=20]", max_tokens=64_000))
        assert got.status == 200
        limit = int(got.headers["x-guardrails-max-tokens"])
        # Half of ten cents at 15 dollars a million, less what goes in.
        assert 3200 <= limit <= 3333
        event = last(own, "llm.call")
        assert event["detail"]["clamped"] and event["detail"]["max_tokens"] == limit and event["detail"]["held_micro_dollars"] <= 50_000
        got = own.llm.ask("/v1/messages", message("[simulate output=64000]", max_tokens=64_000))
        assert got.json["stop_reason"] == "max_tokens"
        spent = own.llm.settled()
        assert spent["spent"] == own.simulator.account()["micro_dollars"] <= 100_000


def test_soft_budgets_only_tell(tmp_path: Path) -> None:
    soft = [*TOTAL, {"name": "soft", "scope": "team", "subject": "blue", "limit": 0, "mode": "soft"}]
    with standing(tmp_path, budgets=soft) as own:
        assert own.llm.ask("/v1/messages", message()).headers["x-guardrails-warning"] == "budget soft is over"
        assert last(own, "llm.call")["detail"]["over_soft_budgets"] == "soft"


def test_held_and_spent_are_told_apart(tmp_path: Path) -> None:
    budget = [{"name": "small", "scope": "total", "limit": "0.003"}]
    with standing(tmp_path, budgets=budget, times={"hold": 0.3}) as own:

        async def story() -> list[tuple[int, str, bytes]]:
            slow = asyncio.create_task(many(own.llm, [message("[simulate output=1 delay=2000]")]))
            await asyncio.sleep(0.7)
            refused = await many(own.llm, [message("[simulate output=1]")])
            return [*await slow, *refused]

        (served, refused) = asyncio.run(story())
        assert served[0] == 200
        assert refused[:2] == (429, "held") and b"is held by calls under way" in refused[2]
        assert own.llm.ask("/v1/messages", message("[simulate output=100]")).status == 200
        own.llm.settled()
        got: t.Any = own.llm.ask("/v1/messages", message("[simulate output=100]"))
        assert (got.status, got.reason, got.json["error"]["type"]) == (402, "spent", "billing_error")
        assert got.json["error"]["message"].startswith("budget small (total) is spent: 0.00")


def test_a_simulated_provider_says_so(stand: Stand) -> None:
    assert stand.simulator.asks("/")["simulated"] is True
    assert b"simulated: no model was asked" in stand.llm.ask("/v1/messages", message()).body
    direct = Unix(str(stand.simulator.settings["socket"]))
    direct.request("POST", "/v1/responses", json.dumps(response()))
    assert direct.getresponse().getheader("x-simulated") == "true"


def test_an_end_in_its_own_time_loses_nothing(tmp_path: Path) -> None:
    with standing(tmp_path) as own:

        async def story() -> None:
            asked = asyncio.create_task(many(own.llm, [message(f"[simulate output=50 delay=300] {number}") for number in range(50)]))
            await asyncio.sleep(0.15)
            assert own.llm.process is not None
            own.llm.process.send_signal(signal.SIGTERM)
            answers = await asked
            assert [status for status, _reason, _body in answers] == [200] * 50, answers[0]

        asyncio.run(story())
        assert own.llm.process is not None and own.llm.process.wait(20) == 0
        own.llm.start()
        assert own.llm.settled() == {"spent": own.simulator.account()["micro_dollars"], "held": 0, "calls": 50}


def test_an_upstream_that_is_not_there_costs_nothing(tmp_path: Path, stand: Stand) -> None:
    upstream = {"url": "http://nobody", "provider": "simulated", "socket": str(tmp_path / "none.sock")}
    llm = Llm(tmp_path / "gateway", upstream, stand.recorder.path("llm"))
    try:
        llm.start()
        got = llm.ask("/v1/messages", message())
        assert (got.status, got.reason) == (502, "upstream")
        assert llm.settled() == {"spent": 0, "held": 0, "calls": 0}
        llm.configure(anthropic={"url": "http://127.0.0.1:1", "provider": "simulated"})
        llm.reload()
        time.sleep(0.3)
        assert llm.ask("/v1/messages", message()).status == 502
        assert llm.settled() == {"spent": 0, "held": 0, "calls": 0}
    finally:
        llm.stop()


def test_a_simulated_provider_can_listen_on_a_port(tmp_path: Path, stand: Stand) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    simulator = Simulator(tmp_path / "simulator", port=port)
    llm = Llm(tmp_path / "gateway", {"url": f"http://127.0.0.1:{port}", "provider": "simulated"}, stand.recorder.path("llm"))
    try:
        simulator.start()
        llm.start()
        assert llm.ask("/v1/messages", message()).status == 200
        assert llm.settled()["spent"] == simulator.account()["micro_dollars"] > 0
    finally:
        llm.stop()
        simulator.stop()
