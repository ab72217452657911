# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Meters: what an answer cost, whatever pieces it comes in and however it is packed; read as the protocols themselves."""

from __future__ import annotations

import gzip
import json
import random
import typing as t
import zlib

import brotli
import pytest
import zstandard

from dockersandbox.llm import calls, meter
from dockersandbox.llm.meter import Charge, Meter
from dockersandbox.llm.prices import Prices, Usage

NOW = 1_795_521_600
PRICES = Prices(
    [
        {"provider": "p", "model": "small", "input_mtok": 1, "cache_read_mtok": 0.5, "cache_write_mtok": 2, "cache_write_1h_mtok": 4, "output_mtok": 10},
        {"provider": "p", "model": "large", "input_mtok": 100, "output_mtok": 1000},
        {"provider": "p", "model": "small", "tier": "fast", "input_mtok": 2, "output_mtok": 20},
    ]
)
PRICE = PRICES.find("p", "small", NOW)
HELD = 5000
Json = dict[str, t.Any]


def call(kind: calls.Wire = "messages", **fields: t.Any) -> calls.Call:
    body: Json = {"model": "small", "max_tokens": 400, "messages": [{"role": "user", "content": "hi"}], **fields}
    if kind == "responses":
        body = {"model": "small", "max_output_tokens": 400, "input": "hi", **fields}
    return calls.read(kind, json.dumps(body).encode(), calls.Rules())


def sse(*events: Json | str, names: bool = False) -> bytes:
    found = b""
    for event in events:
        if names and isinstance(event, dict):
            found += f"event: {event['type']}\n".encode()
        found += f"data: {event if isinstance(event, str) else json.dumps(event)}\n\n".encode()
    return found


def measured(asked: calls.Call, content: bytes, streamed: bool = True, encoding: str = "", held: int = HELD, size: int = 0) -> tuple[Charge, bytes]:
    """Return what is charged for an answer that comes in pieces of *size* bytes, and what was sent on."""
    reader = Meter(asked, streamed, encoding)
    pieces = [content[start : start + size] for start in range(0, len(content), size)] if size else [content]
    sent = b"".join(map(reader.feed, pieces)) + reader.end()
    return meter.charge(asked, reader.answer, PRICE, PRICES, "p", NOW, held), sent


def start(**usage: t.Any) -> Json:
    return {"type": "message_start", "message": {"type": "message", "model": "small", "usage": usage}}


def delta(**usage: t.Any) -> Json:
    return {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": usage}


TEXT: Json = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": 'he said "usage": {"output_tokens": 999}'}}
STOP: Json = {"type": "message_stop"}
PLAIN = sse(start(input_tokens=10, output_tokens=1), TEXT, delta(output_tokens=20), STOP, names=True)


@pytest.mark.parametrize(
    ("events", "usage"),
    [
        # What a message_delta tells is the total so far, not what came since.
        ((start(input_tokens=10, output_tokens=5), delta(output_tokens=15), delta(output_tokens=20), STOP), Usage(10, output=20)),
        # What went in or out of a cache may come at the start, or only at the end, or be told again.
        (
            (start(input_tokens=10, output_tokens=1, cache_read_input_tokens=30, cache_creation_input_tokens=0), delta(output_tokens=20), STOP),
            Usage(10, 30, output=20),
        ),
        (
            (
                start(input_tokens=0, output_tokens=0),
                delta(input_tokens=10, output_tokens=20, cache_read_input_tokens=30, cache_creation_input_tokens=40),
                STOP,
            ),
            Usage(10, 30, 40, output=20),
        ),
        ((start(input_tokens=10, output_tokens=1), delta(input_tokens=0, output_tokens=20), STOP), Usage(10, output=20)),
        # Five minutes and an hour have prices of their own.
        (
            (
                start(
                    input_tokens=1,
                    output_tokens=1,
                    cache_creation_input_tokens=100,
                    cache_creation={"ephemeral_5m_input_tokens": 60, "ephemeral_1h_input_tokens": 40},
                ),
                delta(output_tokens=2),
                STOP,
            ),
            Usage(1, 0, 60, 40, 2),
        ),
        # What was written beyond the two is charged as well.
        (
            (
                start(input_tokens=1, output_tokens=1, cache_creation_input_tokens=100, cache_creation={"ephemeral_1h_input_tokens": 40}),
                delta(output_tokens=2),
                STOP,
            ),
            Usage(1, 0, 60, 40, 2),
        ),
        (
            (start(input_tokens=1, output_tokens=1, server_tool_use={"web_search_requests": 3}), delta(output_tokens=2), STOP),
            Usage(1, output=2, web_searches=3),
        ),
        # The rounds of a turn that was compacted on the way are not in its totals.
        (
            (
                start(input_tokens=10, output_tokens=1),
                delta(
                    input_tokens=10,
                    output_tokens=20,
                    iterations=[{"type": "compaction", "input_tokens": 500, "output_tokens": 50}, {"input_tokens": 10, "output_tokens": 20}],
                ),
                STOP,
            ),
            Usage(510, output=70),
        ),
    ],
)
def test_messages(events: tuple[Json, ...], usage: Usage) -> None:
    charge, sent = measured(call(), sse(*events, names=True), held=10**9)
    assert (charge.usage, charge.estimated, charge.alarms) == (usage, False, ())
    assert charge.micro == PRICE.cost(usage)
    assert sent == sse(*events, names=True)


def test_an_hour_that_the_answer_does_not_tell_is_charged_as_one_when_it_was_asked_for() -> None:
    asked = call(system=[{"type": "text", "text": "x", "cache_control": {"type": "ephemeral", "ttl": "1h"}}])
    charge, _sent = measured(asked, sse(start(input_tokens=1, output_tokens=1, cache_creation_input_tokens=100), delta(output_tokens=2), STOP))
    assert charge.usage == Usage(1, cache_write_1h=100, output=2)


def chunk(content: str = "x", **fields: t.Any) -> Json:
    return {"id": "c", "model": "small", "choices": [{"index": 0, "delta": {"content": content}, "finish_reason": None}], **fields}


FINAL: Json = {"id": "c", "model": "small", "choices": [], "usage": {"prompt_tokens": 50, "completion_tokens": 20, "total_tokens": 70}}


@pytest.mark.parametrize(
    ("told", "usage"),
    [
        ({"prompt_tokens": 50, "completion_tokens": 20, "total_tokens": 70}, Usage(50, output=20)),
        ({"prompt_tokens": 50, "completion_tokens": 20, "prompt_tokens_details": {"cached_tokens": 30}}, Usage(20, 30, output=20)),
        ({"prompt_tokens": 50, "completion_tokens": 20, "prompt_tokens_details": {"cached_tokens": 30, "cache_write_tokens": 5}}, Usage(15, 30, 5, output=20)),
        # What was thought is a part of what came out, or left out of it but not of the total.
        ({"prompt_tokens": 50, "completion_tokens": 20, "total_tokens": 70, "completion_tokens_details": {"reasoning_tokens": 15}}, Usage(50, output=20)),
        ({"prompt_tokens": 50, "completion_tokens": 20, "total_tokens": 170, "completion_tokens_details": {"reasoning_tokens": 100}}, Usage(50, output=120)),
        (
            {
                "prompt_tokens": 50,
                "completion_tokens": 20,
                "prompt_tokens_details": {"audio_tokens": 10},
                "completion_tokens_details": {"audio_tokens": 5},
            },
            Usage(40, output=15, input_audio=10, output_audio=5),
        ),
    ],
)
def test_chats(told: Json, usage: Usage) -> None:
    whole = {"id": "c", "model": "small", "choices": [{"message": {"content": "x"}}], "usage": told}
    charge, sent = measured(call("chat"), json.dumps(whole).encode(), streamed=False, held=10**9)
    assert (charge.usage, charge.micro, charge.estimated, charge.alarms) == (usage, PRICE.cost(usage), False, ())
    assert sent == json.dumps(whole).encode()
    charge, _sent = measured(call("chat", stream=True), sse(chunk(), {**FINAL, "usage": told}, "[DONE]"), held=10**9)
    assert (charge.usage, charge.estimated) == (usage, False)


@pytest.mark.parametrize("size", [0, 1, 2, 3, 7, 100])
@pytest.mark.parametrize(
    ("came", "sent"),
    [
        ((chunk(usage=None), chunk("y", usage=None), FINAL, "[DONE]"), (chunk(), chunk("y"), "[DONE]")),
        ((chunk(), {**chunk(""), "usage": FINAL["usage"]}, "[DONE]"), (chunk(), chunk(""), "[DONE]")),
        # What a model says of usages is none.
        ((chunk(', "usage": null'), chunk('{"usage": {"a": 1}}'), FINAL, "[DONE]"), (chunk(', "usage": null'), chunk('{"usage": {"a": 1}}'), "[DONE]")),
    ],
)
def test_a_usage_that_the_client_did_not_ask_for_is_taken_out(came: tuple[Json | str, ...], sent: tuple[Json | str, ...], size: int) -> None:
    charge, got = measured(call("chat", stream=True), sse(*came), size=size)
    assert charge.usage == Usage(50, output=20)
    assert [json.loads(line[6:]) if b"DONE" not in line else "[DONE]" for line in got.split(b"\n\n") if line] == list(sent)
    # Who asked for it gets every byte.
    charge, got = measured(call("chat", stream=True, stream_options={"include_usage": True}), sse(*came), size=size)
    assert (charge.usage, got) == (Usage(50, output=20), sse(*came))


def test_it_is_taken_out_of_packed_answers_too() -> None:
    came = gzip.compress(sse(chunk(usage=None), FINAL, "[DONE]"))
    asked = call("chat", stream=True)
    reader = Meter(asked, True, "gzip")
    assert reader.rewrites
    assert reader.feed(came) + reader.end() == sse(chunk(), "[DONE]")


@pytest.mark.parametrize("word", ["completed", "incomplete", "failed"])
def test_responses(word: str) -> None:
    told = {"input_tokens": 50, "input_tokens_details": {"cached_tokens": 30}, "output_tokens": 20, "output_tokens_details": {"reasoning_tokens": 10}}
    output = [{"type": "web_search_call"}, {"type": "file_search_call"}, {"type": "message", "content": []}]
    ended = {"type": "response.object", "status": word, "model": "small", "output": output, "usage": {**told, "total_tokens": 70}}
    usage = Usage(20, 30, output=20, web_searches=1, storage_searches=1)
    events = ({"type": "response.created", "response": {"usage": None, "error": None}}, {"type": "response.output_text.delta", "delta": "x"})
    content = sse(*events, {"type": f"response.{word}", "response": ended}, names=True)
    charge, sent = measured(call("responses"), content, held=10**9)
    assert (charge.usage, charge.estimated, charge.alarms, sent) == (usage, False, (), content)
    charge, _sent = measured(call("responses"), json.dumps(ended).encode(), streamed=False, held=10**9)
    assert (charge.usage, charge.estimated) == (usage, False)


PACKERS: dict[str, t.Callable[[bytes], bytes]] = {
    "": lambda data: data,
    "identity": lambda data: data,
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstandard.ZstdCompressor().compress,
}


@pytest.mark.parametrize("size", [0, 1, 13, 4096])
@pytest.mark.parametrize("encoding", PACKERS)
def test_packed_answers_are_metered_and_sent_on_as_they_came(encoding: str, size: int) -> None:
    content = PACKERS[encoding](PLAIN)
    charge, sent = measured(call(), content, encoding=encoding, size=size)
    assert (charge.usage, charge.estimated, sent) == (Usage(10, output=20), False, content)


def test_deflate_without_its_frame() -> None:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    content = packer.compress(PLAIN) + packer.flush()
    assert measured(call(), content, encoding="deflate")[0].usage == Usage(10, output=20)


@pytest.mark.parametrize("encoding", ["gzip", "br", "zstd", "deflate", "compress", "gzip, br"])
def test_what_cannot_be_unpacked_is_charged_whole_and_sent_on(encoding: str) -> None:
    charge, sent = measured(call(), PLAIN, encoding=encoding)
    assert (charge.micro, charge.estimated, sent) == (HELD, True, PLAIN)
    assert charge.alarms[0][0] == "usage_unreadable"


@pytest.mark.parametrize("encoding", ["gzip", "zstd", "br", "deflate"])
def test_what_unpacks_to_too_much_is_given_up(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meter, "_MOST_UNPACKED", 100_000)
    charge, _sent = measured(call(), PACKERS[encoding](b"x" * 3_000_000), encoding=encoding)
    assert (charge.micro, charge.estimated) == (HELD, True)
    assert "unpacks to more than" in charge.alarms[0][1]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("seed", range(5))
def test_pieces_of_any_size_and_lines_of_any_end(seed: int, end: bytes) -> None:
    dice = random.Random(seed)
    content = b": a comment\n\nid: 1\n" + PLAIN.replace(b'data: {"type": "message_delta", ', b'data: {"type": "message_delta",\ndata: ')
    content = content.replace(b"\n", end)
    reader = Meter(call(), True)
    at = 0
    while at < len(content):
        size = dice.randrange(1, 30)
        reader.feed(content[at : at + size])
        at += size
    reader.end()
    assert meter.charge(call(), reader.answer, PRICE, PRICES, "p", NOW, HELD).usage == Usage(10, output=20)


def test_an_answer_that_ends_without_a_blank_line() -> None:
    charge, _sent = measured(call(), sse(start(input_tokens=10, output_tokens=1), delta(output_tokens=20))[:-2])
    assert (charge.usage, charge.estimated) == (Usage(10, output=20), False)


@pytest.mark.parametrize(
    ("usage", "alarm"),
    [
        ({"input_tokens": -1, "output_tokens": 20}, "usage_unreadable"),
        ({"input_tokens": 10, "output_tokens": -20}, "usage_unreadable"),
        ({"input_tokens": "10", "output_tokens": 20}, "usage_unreadable"),
        ({"input_tokens": 10.5, "output_tokens": 20}, "usage_unreadable"),
        ({"input_tokens": True, "output_tokens": 20}, "usage_unreadable"),
        ({"input_tokens": 10, "output_tokens": 10**15}, "usage_unreadable"),
        ({"input_tokens": 10, "output_tokens": 10**8}, "usage_absurd"),
        ({"input_tokens": 10**8, "output_tokens": 1}, "usage_absurd"),
        ({"input_tokens": 10, "output_tokens": 5, "iterations": 7, "cache_creation": 3, "server_tool_use": []}, ""),
        ({"output_tokens": 20}, "usage_missing"),
        ({}, "usage_missing"),
        (None, "usage_missing"),
    ],
)
def test_usages_that_cannot_be(usage: Json | None, alarm: str) -> None:
    whole: Json = {"type": "message", "model": "small", "content": [], "usage": usage}
    charge, _sent = measured(call(), json.dumps(whole).encode(), streamed=False)
    assert charge.micro == (HELD if alarm else 60)
    assert [word for word, _text in charge.alarms] == ([alarm] if alarm else [])


def test_the_price_is_that_of_the_name_that_was_asked_for() -> None:
    own = Prices([{"provider": "anthropic", "model": "claude-sonnet-4-5-20250929", "input_mtok": 100, "output_mtok": 100}])
    asked = call(model="claude-sonnet-4-5-20250929")
    price = own.find("anthropic", asked.model, NOW)
    reader = Meter(asked, streamed=False)
    reader.feed(json.dumps({"type": "message", "model": "", "content": [], "usage": {"input_tokens": 10, "output_tokens": 20}}).encode())
    reader.end()
    assert meter.charge(asked, reader.answer, price, own, "anthropic", NOW, HELD).micro == 3000


def told(**usage: t.Any) -> bytes:
    counts = {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30}
    return json.dumps({"model": "small", "choices": [{"message": {"content": "x" * 2000}}], "usage": {**counts, **usage}}).encode()


@pytest.mark.parametrize(
    ("usage", "micro", "alarm"),
    [
        ({"cost": 0.00021}, 210, ""),
        # A router's searches and fees are not among the tokens.
        ({"cost": 0.0042101}, 4211, ""),
        ({"cost": {"input_tokens_cost": 0.0001, "request_cost": 0.005, "total_cost": 0.0051}}, 5100, "above_hold"),
        ({"cost": 0.01}, 10_000, "above_hold"),
        # What it cannot have cost, and what is no amount.
        ({"cost": 0.06}, 210, "usage_absurd"),
        ({"cost": 10**12}, 210, ""),
        ({"cost": 0}, 210, ""),
        ({"cost": -1}, 210, ""),
        ({"cost": "0.004"}, 210, ""),
        ({"cost": {"total_cost": None}}, 210, ""),
        ({"cost": True}, 210, ""),
        # Some servers let more come out than they were told: that is charged where it was seen, or the model can.
        ({"completion_tokens": 1900, "total_tokens": 1910}, 19_010, "above_hold"),
        ({"completion_tokens": 3000, "total_tokens": 3010}, HELD, "usage_absurd"),
    ],
)
def test_what_a_provider_charges_besides(usage: Json, micro: int, alarm: str) -> None:
    charge, _sent = measured(call("chat"), told(**usage), streamed=False)
    assert (charge.micro, [word for word, _text in charge.alarms]) == (micro, [alarm] if alarm else [])


def test_what_a_stream_says_that_it_cost() -> None:
    usage = {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30, "cost": 0.0042}
    charge, sent = measured(call("chat", stream=True), sse(part({"content": "x"}), {"model": "small", "choices": [], "usage": usage}, "[DONE]"))
    assert (charge.micro, charge.estimated, b"usage" in sent) == (4200, False, False)


SOUND = [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "QUFB", "format": "mp3"}}]}]


@pytest.mark.parametrize(
    ("asked", "usage", "counted"),
    [
        ({"messages": SOUND}, {"prompt_tokens_details": {"audio_tokens": 6}}, Usage(4, output=20, input_audio=6)),
        # Who does not tell it apart is charged as if all of it were heard.
        ({"messages": SOUND}, {}, Usage(output=20, input_audio=10)),
        ({"messages": SOUND}, {"prompt_tokens_details": {"cached_tokens": 5}}, Usage(output=20, input_audio=10)),
        ({"modalities": ["text", "audio"], "audio": {"voice": "v"}}, {}, Usage(10, output_audio=20)),
        ({"modalities": ["text", "audio"], "audio": {"voice": "v"}}, {"completion_tokens_details": {"audio_tokens": 0}}, Usage(10, output=20)),
        # The word alone is no sound.
        ({"messages": [{"role": "user", "content": "input_audio"}]}, {}, Usage(10, output=20)),
    ],
)
def test_what_is_heard(asked: Json, usage: Json, counted: Usage) -> None:
    charge, _sent = measured(call("chat", **asked), told(**usage), streamed=False)
    assert (charge.usage, charge.estimated) == (counted, False)


CALLED = [{"type": "function", "id": "1", "function": {"name": "f", "arguments": "{}"}}]
ZEROS: dict[str, Json] = {
    "messages": {"input_tokens": 0, "output_tokens": 0},
    "chat": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
    "responses": {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0},
}
DONE = {"type": "response.completed", "response": {"model": "small", "output": [{"type": "message"}], "usage": ZEROS["responses"]}}


def part(delta: Json, usage: Json | None = None) -> Json:
    return {"choices": [{"index": 0, "delta": delta}], "usage": usage}


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("messages", {"type": "message", "model": "small", "content": [{"type": "text", "text": "x"}], "usage": ZEROS["messages"]}),
        ("chat", {"model": "small", "choices": [{"message": {"content": "x"}}], "usage": ZEROS["chat"]}),
        ("chat", {"model": "small", "choices": [{"message": {"content": None, "tool_calls": CALLED}}], "usage": ZEROS["chat"]}),
        ("responses", {"model": "small", "output": [{"type": "message"}], "usage": ZEROS["responses"]}),
        ("messages", sse(start(**ZEROS["messages"]), TEXT, {"type": "content_block_stop", "index": 0}, delta(output_tokens=0), STOP)),
        ("chat", sse(part({"role": "assistant", "content": ""}), part({"content": "x"}), {"choices": [], "usage": ZEROS["chat"]}, "[DONE]")),
        ("chat", sse(part({"tool_calls": CALLED}, ZEROS["chat"]), "[DONE]")),
        ("chat", sse(part({"content": [{"type": "text", "text": "x"}]}, ZEROS["chat"]), "[DONE]")),
        ("responses", sse(DONE)),
    ],
)
def test_a_usage_of_nothing_for_something_is_none(kind: calls.Wire, content: Json | bytes) -> None:
    streamed = isinstance(content, bytes)
    charge, _sent = measured(call(kind, stream=streamed), content if isinstance(content, bytes) else json.dumps(content).encode(), streamed)
    assert (charge.micro, charge.estimated) == (HELD, True)
    assert charge.alarms == (("usage_unreadable", "a usage of nothing for an answer that says something"),)


def test_something_that_went_in_and_nothing_that_came_out_is_half_believed() -> None:
    whole = {"type": "message", "model": "small", "content": [{"type": "text", "text": "x"}], "usage": {"input_tokens": 7, "output_tokens": 0}}
    content = json.dumps(whole).encode()
    charge, _sent = measured(call(), content, streamed=False)
    assert (charge.micro, charge.estimated) == (7 + 10 * len(content), True)
    # A model that may think without a word may have done so at length.
    chat = {"model": "small", "choices": [{"message": {"content": "x"}}], "usage": {"prompt_tokens": 7, "completion_tokens": 0, "total_tokens": 7}}
    charge, _sent = measured(call("chat"), json.dumps(chat).encode(), streamed=False)
    assert (charge.micro, charge.estimated) == (HELD, True)


def test_nothing_that_went_in_is_not_believed() -> None:
    whole = {"type": "message", "model": "small", "content": [{"type": "text", "text": "x"}], "usage": {"input_tokens": 0, "output_tokens": 3}}
    charge, _sent = measured(call(), json.dumps(whole).encode(), streamed=False)
    assert (charge.micro, charge.estimated) == (HELD, True)
    whole["usage"] = {"input_tokens": 0, "output_tokens": 3, "cache_read_input_tokens": 10}
    charge, _sent = measured(call(), json.dumps(whole).encode(), streamed=False)
    assert (charge.micro, charge.estimated) == (35, False)


def test_zeros_on_the_way_to_a_usage_are_no_lie() -> None:
    content = sse(part({"content": "x"}, ZEROS["chat"]), {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}}, "[DONE]")
    charge, _sent = measured(call("chat", stream=True), content)
    assert (charge.micro, charge.estimated, charge.alarms) == (27, False, ())


def test_an_answer_that_says_nothing_may_have_taken_nothing() -> None:
    failed = {"model": "small", "status": "failed", "output": [], "usage": ZEROS["responses"]}
    charge, _sent = measured(call("responses"), json.dumps(failed).encode(), streamed=False)
    assert (charge.micro, charge.estimated) == (0, False)


THOUGHT = {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": "", "signature": ""}}
REDACTED = {"type": "content_block_start", "index": 0, "content_block": {"type": "redacted_thinking", "data": ""}}


@pytest.mark.parametrize(
    ("content", "thinks", "micro"),
    [
        # No usage at all: the most that the call can cost.
        (sse(TEXT, STOP), False, HELD),
        # What went in is known: and no byte that was shown is more than one token.
        (sse(start(input_tokens=10, output_tokens=1), STOP), False, 10 + 10 * sum(map(len, map(json.dumps, (start(input_tokens=10, output_tokens=1), STOP))))),
        # ... unless something was thought that was not shown.
        (sse(start(input_tokens=10, output_tokens=1), STOP), True, HELD),
        (sse(start(input_tokens=10, output_tokens=1), THOUGHT, STOP), False, HELD),
        (sse(start(input_tokens=10, output_tokens=1), REDACTED, STOP), False, HELD),
        # Never more than was held.
        (sse(start(input_tokens=10, output_tokens=1), *[TEXT] * 500, STOP), False, 10 + 4000),
        (b"not a stream at all", False, HELD),
        (b"", False, HELD),
        (b"data: {broken\n\n" * 100, False, HELD),
    ],
)
def test_without_a_usage_it_is_charged_upwards(content: bytes, thinks: bool, micro: int) -> None:
    fields: Json = {"thinking": {"type": "enabled", "budget_tokens": 1024}} if thinks else {}
    charge, _sent = measured(call(**fields), content)
    assert charge.micro == micro
    assert charge.estimated


def test_broken_events_do_not_hide_a_usage() -> None:
    content = b'data: {"error": "usage": {\n\n\xff\x00\n\ndata\n\n' + PLAIN
    charge, sent = measured(call(), content)
    assert (charge.usage, charge.estimated, sent) == (Usage(10, output=20), False, content)
    assert charge.alarms[0][0] == "usage_unreadable"


def test_an_event_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meter, "MOST_EVENT", 1000)
    charge, sent = measured(call(), b"data: " + b"x" * 5000, size=100)
    assert (charge.micro, len(sent)) == (HELD, 5006)


def test_an_error_within_a_stream_ends_it() -> None:
    reader = Meter(call(), True)
    reader.feed(sse(start(input_tokens=10, output_tokens=1), {"type": "error", "error": {"type": "overloaded_error"}}))
    assert reader.answer.ended and reader.answer.failed
    charge = meter.charge(call(), reader.answer, PRICE, PRICES, "p", NOW, HELD)
    assert charge.estimated and 10 < charge.micro < HELD and charge.alarms == ()


def test_a_dearer_model_or_tier_that_answers_is_charged() -> None:
    usage = {"input_tokens": 10, "output_tokens": 20}
    for model, speed, micro in (("large", None, 21_000), ("small", "fast", 420), ("unknown", None, 210), ("small", "standard", 210)):
        whole: Json = {"type": "message", "model": model, "usage": {**usage, "speed": speed}}
        charge, _sent = measured(call(), json.dumps(whole).encode(), streamed=False)
        assert charge.micro == micro
        # It was not held; but it is what it costs.
        assert [word for word, _text in charge.alarms] == (["above_hold"] if micro > HELD else [])


def test_a_model_that_always_searches_is_charged_for_that() -> None:
    body = {"model": "gpt-x-search", "n": 2, "messages": []}
    asked = calls.read("chat", json.dumps(body).encode(), calls.Rules(server_tools={"web_search": 1}))
    usage = {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30}
    reader = Meter(asked, False)
    reader.feed(json.dumps({"model": "gpt-x-search", "choices": [], "usage": usage}).encode())
    reader.end()
    assert reader.answer.counts == {"input": 10, "output": 20, "web_searches": 2}


def test_a_tier_without_a_known_price_is_charged_as_what_was_held() -> None:
    whole: Json = {"object": "response", "model": "small", "service_tier": "ultrafast", "usage": {"input_tokens": 10, "output_tokens": 20}}
    charge, _sent = measured(call("responses"), json.dumps(whole).encode(), streamed=False)
    assert (charge.micro, charge.estimated) == (HELD, True)
    assert charge.alarms == (("tier_unknown", "it was served as 'ultrafast', whose price is not known"),)


def test_where_it_was_answered_has_its_price() -> None:
    for geo, micro in (("us", 231), ("eu", 231), ("global", 210), ("not_available", 210), (None, 210)):
        whole: Json = {"type": "message", "model": "small", "usage": {"input_tokens": 10, "output_tokens": 20, "inference_geo": geo}}
        assert measured(call(), json.dumps(whole).encode(), streamed=False)[0].micro == micro
