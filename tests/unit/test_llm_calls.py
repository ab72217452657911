# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Calls as agents ask for them: what is refused, what may come of the rest, and what is sent on."""

from __future__ import annotations

import json
import pathlib
import typing as t

import pytest

from dockersandbox.llm import calls, wire
from dockersandbox.llm.calls import Call, Refusal, Rules

RULES = Rules(most_body=1 << 20, most_output=50_000, most_choices=4, clamp_least=1000)
SEARCHES = Rules(most_output=50_000, server_tools={"web_search": 3, "web_fetch": 2})
MESSAGE: dict[str, t.Any] = {"model": "claude-x", "max_tokens": 100, "messages": [{"role": "user", "content": "hi"}]}
CHAT: dict[str, t.Any] = {"model": "gpt-x", "messages": [{"role": "user", "content": "hi"}]}
RESPONSE: dict[str, t.Any] = {"model": "gpt-x", "input": "hi"}
BODIES: dict[calls.Wire, dict[str, t.Any]] = {"messages": MESSAGE, "chat": CHAT, "responses": RESPONSE}


def read(kind: calls.Wire, rules: Rules = RULES, **fields: t.Any) -> Call:
    return calls.read(kind, json.dumps({**BODIES[kind], **fields}).encode(), rules)


@pytest.mark.parametrize(
    ("kind", "raw", "status", "reason", "text"),
    [
        ("messages", b"", 400, "json", "the body is not JSON"),
        ("messages", b"[]", 400, "json", "is not a JSON object"),
        ("messages", b"\xff", 400, "json", "the body is not JSON"),
        ("messages", b'{"model": "x", "max_tokens": NaN}', 400, "json", "the body is not JSON"),
        ("messages", b'{"model": "\\ud800"}', 400, "json", "the body is not JSON"),
        ("messages", b"[" * 200_000, 400, "json", "nested too deeply"),
        ("messages", b'{"a":' * 100_000, 400, "json", "nested too deeply"),
        ("messages", b'"' + b"x" * (1 << 20) + b'"', 413, "too_large", "more than 1048576 bytes"),
        ("messages", b"{}", 400, "model", "model: None is not the name of a model"),
    ],
)
def test_bodies_that_are_none(kind: calls.Wire, raw: bytes, status: int, reason: str, text: str) -> None:
    with pytest.raises(Refusal, match=text) as raised:
        calls.read(kind, raw, RULES)
    assert (raised.value.status, raised.value.reason) == (status, reason)


def test_many_small_values_are_refused_before_they_take_memory() -> None:
    with pytest.raises(Refusal, match="more than 1000000 values"):
        calls.read("messages", b"[" + b"0," * 1_000_001 + b"0]", Rules())


@pytest.mark.parametrize("name", ["", " ", "a b", "../x", "a//b", "x" * 129, "modèle", "a\n", 3, None, ["a"], "-x", "a\u0000"])
def test_names_that_are_no_models(name: t.Any) -> None:
    with pytest.raises(Refusal) as raised:
        read("messages", model=name)
    assert (raised.value.status, raised.value.reason) == (400, "model")


@pytest.mark.parametrize("name", ["claude-sonnet-4-5", "Claude-X", "qwen/Qwen3-30B:free", "us.anthropic.claude@20250101", "gpt-4.1"])
def test_names_that_may_be_models(name: str) -> None:
    assert read("messages", model=name).model == name


MCP = {"type": "mcp", "server_label": "x", "server_url": "https://x"}


def content(**part: t.Any) -> list[dict[str, t.Any]]:
    return [{"role": "user", "content": [part]}]


def added(definition: dict[str, t.Any]) -> list[dict[str, t.Any]]:
    return content(type="tool_addition", tool={"type": "tool_definition", "definition": definition})


@pytest.mark.parametrize(
    ("kind", "fields", "reason", "text"),
    [
        ("messages", {"max_tokens": None}, "max_tokens", "max_tokens: is missing"),
        ("messages", {"max_tokens": 0}, "max_tokens", "max_tokens: 0 is not a number of tokens above 0"),
        ("messages", {"max_tokens": -5}, "max_tokens", "max_tokens: -5"),
        ("messages", {"max_tokens": 1.5}, "value", "max_tokens: 1.5 is not a whole number"),
        ("messages", {"max_tokens": "9"}, "value", "max_tokens: '9'"),
        ("messages", {"max_tokens": True}, "value", "max_tokens: True"),
        ("chat", {"max_tokens": -1}, "max_tokens", "max_tokens: -1"),
        ("responses", {"max_output_tokens": 0}, "max_tokens", "max_output_tokens: 0"),
        ("chat", {"n": 10_000}, "choices", "n: 10000 is not a number of answers from 1 to 4"),
        ("chat", {"n": 0}, "choices", "n: 0"),
        ("chat", {"n": -3}, "choices", "n: -3"),
        ("messages", {"n": 5}, "choices", "n: 5"),
        ("chat", {"best_of": 5}, "choices", "best_of: 5"),
        ("chat", {"stream": "yes"}, "value", "stream: 'yes' is not true or false"),
        ("chat", {"stream": True, "stream_options": 3}, "value", "stream_options: 3 is not an object"),
        ("chat", {"web_search_options": {"a": 1}}, "not_allowed", "web_search_options is not allowed"),
        ("messages", {"mcp_servers": [{"url": "https://x"}]}, "not_allowed", "mcp_servers is not allowed"),
        ("responses", {"background": True}, "not_allowed", "background is not allowed"),
        ("messages", {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "server_tool", "cost_rules.server_tools allows it"),
        ("messages", {"tools": [{"type": "something_new"}]}, "server_tool", "tools.0.: the provider would run 'something_new'"),
        ("messages", {"tools": [3]}, "tool", "tools.0.: is not a tool with a type"),
        ("messages", {"tools": "x"}, "value", "tools: 'x' is not a list"),
        ("responses", {"tools": [{"type": "mcp", "server_url": "https://x"}]}, "server_tool", "'mcp'"),
        ("responses", {"tools": [{"type": "image_generation"}]}, "server_tool", "'image_generation'"),
        ("chat", {"tools": [{"type": "web_search"}]}, "server_tool", "'web_search'"),
        ("messages", {"tools": [{"name": "a"}] * 5000}, "tool", "tools: 5000 tools are more than 4096"),
        ("messages", {"messages": [{}] * 100_001}, "too_large", "the conversation has more than 100000 parts"),
        # A tool is one wherever it stands.
        ("responses", {"tools": [{"type": "namespace", "tools": [{"type": "custom"}] * 5000}]}, "tool", "tools.0..tools: 5001 tools are more than 4096"),
        ("responses", {"input": [{"type": "additional_tools", "role": "developer", "tools": [MCP]}]}, "server_tool", "'additional_tools'.tools.0.: .* 'mcp'"),
        ("responses", {"input": [{"type": "tool_search_output", "tools": [{"type": "web_search"}]}]}, "server_tool", "'web_search'"),
        ("responses", {"tools": [{"type": "namespace", "name": "n", "tools": [MCP]}]}, "server_tool", "tools.0..tools.0.: .* 'mcp'"),
        ("responses", {"input": [{"type": "tool_search_output", "tools": [{"type": "namespace", "tools": [MCP]}]}]}, "server_tool", "'mcp'"),
        ("responses", {"input": [{"type": "additional_tools", "tools": {"type": "mcp"}}]}, "value", "is not a list"),
        ("responses", {"tools": [{"type": "programmatic_tool_calling"}]}, "server_tool", "'programmatic_tool_calling'"),
        ("messages", {"messages": added({"type": "web_search_20260318", "name": "web_search"})}, "server_tool", "'tool_addition'.definition.0.: .*web_search"),
        ("messages", {"messages": added({"type": "mcp_toolset", "mcp_server_name": "x"})}, "server_tool", "'mcp_toolset'"),
        ("messages", {"messages": added({"type": "advisor_20260301", "model": "claude-dear"})}, "server_tool", "'advisor_20260301'"),
        # A shell of the provider's is not one of the agent's.
        ("responses", {"tools": [{"type": "shell", "environment": {"type": "container_auto"}}]}, "server_tool", "'shell'"),
        ("responses", {"tools": [{"type": "shell", "environment": {"type": "container_reference", "container_id": "c"}}]}, "server_tool", "'shell'"),
        ("responses", {"tools": [{"type": "shell", "environment": "container_auto"}]}, "server_tool", "'shell'"),
        ("chat", {"tools": [{"type": "shell"}]}, "server_tool", "'shell'"),
        # What the provider would fetch tells others what is in the link.
        ("messages", {"messages": content(type="image", source={"type": "url", "url": "https://x/?secret"})}, "server_tool", "would fetch 'https://x/.secret'"),
        ("messages", {"messages": content(type="document", source={"type": "url", "url": "http://x"})}, "server_tool", "server_tools allow web_fetch"),
        ("messages", {"messages": content(type="tool_result", content=content(type="image", source={"url": "x"}))}, "server_tool", "would fetch"),
        ("messages", {"system": [{"type": "image", "source": {"type": "url", "url": "https://x"}}]}, "server_tool", "would fetch"),
        ("chat", {"messages": content(type="image_url", image_url={"url": "HTTPS://x"})}, "server_tool", "would fetch"),
        ("chat", {"messages": content(type="image_url", image_url="https://x")}, "server_tool", "would fetch"),
        ("chat", {"messages": content(type="video_url", video_url={"url": "https://x"})}, "server_tool", "would fetch"),
        ("chat", {"messages": content(type="file", file={"file_url": "https://x"})}, "server_tool", "would fetch"),
        ("responses", {"input": content(type="input_image", image_url="https://x")}, "server_tool", "would fetch"),
        ("responses", {"input": content(type="input_file", file_url="https://x")}, "server_tool", "would fetch"),
        ("responses", {"input": [{"type": "computer_call_output", "output": {"type": "computer_screenshot", "image_url": "https://x"}}]}, "server_tool", "see"),
        ("responses", {"input": [{"type": "function_call_output", "output": [{"type": "input_image", "image_url": "https://x"}]}]}, "server_tool", "see"),
        ("responses", {"prompt": {"id": "p", "variables": {"x": {"type": "input_file", "file_url": "https://x"}}}}, "server_tool", "would fetch"),
        ("responses", {"instructions": [{"type": "additional_tools", "tools": [MCP]}]}, "server_tool", "'mcp'"),
        ("chat", {"model": "gpt-4o-Search-preview"}, "server_tool", "gpt-4o-Search-preview: the provider would search"),
        ("chat", {"plugins": [{"id": "web"}]}, "not_allowed", "plugins is not allowed"),
        ("chat", {"search_parameters": {"mode": "on"}}, "not_allowed", "search_parameters is not allowed"),
        ("chat", {"enable_search": True}, "not_allowed", "enable_search is not allowed"),
        ("messages", {"api_base": "http://x"}, "not_allowed", "api_base is not allowed"),
        ("messages", {"extra_headers": {"anthropic-beta": "context-1m-2025-08-07"}}, "not_allowed", "extra_headers is not allowed"),
        ("messages", {"anthropic_beta": ["context-1m-2025-08-07"]}, "not_allowed", "anthropic_beta is not allowed"),
        ("responses", {"preset": "dear"}, "not_allowed", "preset is not allowed"),
        ("chat", {"model": "openai/gpt-x:online"}, "server_tool", "the provider would search"),
        ("chat", {"api_base": "https://x"}, "not_allowed", "api_base is not allowed: it asks for an answer from elsewhere"),
        ("responses", {"base_url": "https://x"}, "not_allowed", "base_url is not allowed"),
        ("responses", {"service_tier": "ultrafast"}, "tier", "service_tier: 'ultrafast' is not one whose price is known: auto, default"),
        ("chat", {"service_tier": ["priority"]}, "tier", "service_tier: .'priority'. is not one"),
        ("messages", {"speed": "warp"}, "tier", "speed: 'warp' is not one whose price is known: standard, fast"),
    ],
)
def test_what_may_not_be_asked(kind: calls.Wire, fields: dict[str, t.Any], reason: str, text: str) -> None:
    with pytest.raises(Refusal, match=text) as raised:
        read(kind, **fields)
    assert raised.value.reason == reason


@pytest.mark.parametrize(
    ("kind", "fields", "outputs", "sent"),
    [
        ("messages", {}, 100, {"max_tokens": 100}),
        ("messages", {"max_tokens": 64_000}, 50_000, {"max_tokens": 50_000}),
        ("chat", {}, 50_000, {"max_completion_tokens": 50_000}),
        ("chat", {"max_tokens": 7}, 7, {"max_tokens": 7}),
        ("chat", {"max_tokens": 7, "max_completion_tokens": 9}, 9, {"max_tokens": 7, "max_completion_tokens": 9}),
        ("chat", {"max_tokens": 60_000, "max_completion_tokens": 9}, 50_000, {"max_tokens": 50_000, "max_completion_tokens": 9}),
        ("chat", {"max_tokens": 10, "n": 3}, 30, {"max_tokens": 10, "n": 3}),
        ("chat", {"max_tokens": 10, "n": 2, "best_of": 4}, 40, {"max_tokens": 10, "n": 2, "best_of": 4}),
        ("messages", {"max_tokens": 10, "n": 3}, 30, {"max_tokens": 10, "n": 3}),
        ("responses", {}, 50_000, {"max_output_tokens": 50_000}),
        ("responses", {"max_output_tokens": 5}, 5, {"max_output_tokens": 5}),
    ],
)
def test_how_much_may_come_out(kind: calls.Wire, fields: dict[str, t.Any], outputs: int, sent: dict[str, t.Any]) -> None:
    call = read(kind, **fields)
    assert call.most_outputs == outputs
    assert json.loads(call.encoded).items() >= sent.items()


def test_what_was_predicted_wrongly_is_charged_too() -> None:
    words = "word " * 100
    assert read("chat", max_tokens=10, prediction={"type": "content", "content": words}).most_outputs >= 10 + len(words)


def test_of_a_key_that_is_there_twice_the_one_that_was_checked_is_sent() -> None:
    call = calls.read("messages", b'{"max_tokens": 64000, "model": "a", "max_tokens": 10, "messages": [], "model": "b"}', RULES)
    assert (call.model, call.outputs) == ("b", 10)
    assert json.loads(call.encoded, object_pairs_hook=list) == [("max_tokens", 10), ("model", "b"), ("messages", [])]


@pytest.mark.parametrize(
    ("kind", "fields", "kinds"),
    [
        ("messages", {}, {"input", "cache_read", "output"}),
        ("messages", {"system": [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}]}, {"input", "cache_read", "cache_write", "output"}),
        (
            "messages",
            {"system": [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral", "ttl": "1h"}}]},
            {"input", "cache_read", "cache_write", "cache_write_1h", "output"},
        ),
        ("chat", {}, {"input", "cache_read", "cache_write", "output"}),
        ("chat", {"modalities": ["audio"]}, {"input", "cache_read", "cache_write", "output", "input_audio", "output_audio"}),
    ],
)
def test_what_tokens_may_be_charged_as(kind: calls.Wire, fields: dict[str, t.Any], kinds: set[str]) -> None:
    assert set(read(kind, **fields).kinds) == kinds


def test_what_is_written_in_another_way_is_found_too() -> None:
    raw = b'{"model": "m", "max_tokens": 9, "system": [{"cache\\u005fcontrol": {"ttl": "\\u0031h"}}]}'
    assert set(calls.read("messages", raw, RULES).kinds) >= {"cache_write", "cache_write_1h"}


@pytest.mark.parametrize(
    ("kind", "fields", "key"),
    [
        ("messages", {"Model": "claude-dear"}, "Model"),
        ("messages", {"MAX_TOKENS": 50_000}, "MAX_TOKENS"),
        # To such a server the sign for Kelvin is a k, and the long s an s.
        ("messages", {"max_to\u212aens": 50_000}, "max_to"),
        ("chat", {"\u017ftream": True}, "tream"),
        ("chat", {"N": 9}, "N"),
        ("chat", {"Modalities": ["audio"]}, "Modalities"),
        ("chat", {"stream": True, "stream_options": {"Include_Usage": False}}, "Include_Usage"),
        ("chat", {"Fallbacks": ["gpt-dear"]}, "Fallbacks"),
        ("chat", {"Tools": [{"type": "web_search"}]}, "Tools"),
        ("chat", {"messages": [{"role": "user", "Content": [{"type": "image_url", "image_url": {"url": "http://x"}}]}]}, "Content"),
        ("chat", {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"Url": "http://x"}}]}]}, "Url"),
        ("responses", {"Background": True}, "Background"),
        ("responses", {"tools": [{"type": "function", "name": "f", "Type": "web_search"}]}, "Type"),
        ("responses", {"tools": [{"type": "namespace", "tools": [{"type": "function", "name": "f", "TYPE": "web_search"}]}]}, "TYPE"),
    ],
)
def test_keys_that_some_servers_read_as_others(kind: calls.Wire, fields: dict[str, t.Any], key: str) -> None:
    with pytest.raises(Refusal, match=key) as raised:
        read(kind, **fields)
    assert (raised.value.status, raised.value.reason) == (400, "value")


def test_what_is_the_agents_own_may_have_any_keys() -> None:
    schema = {"type": "object", "properties": {"Type": {"type": "string"}, "Model": {"type": "string"}}}
    said = [{"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "f", "input": {"Type": "a", "Content": "b"}}]}]
    tools = [{"name": "f", "input_schema": schema}]
    assert read("messages", messages=said, tools=tools, metadata={"User": 1}, providerOptions={"Model": 1}).model == "claude-x"


def picture(data: str) -> list[dict[str, t.Any]]:
    return [{"role": "user", "content": [{"type": "image", "source": {"type": "base64", "data": data}}]}]


PICTURE = picture("QUFB")[0]["content"]
SCREEN = {"type": "computer_screenshot", "image_url": "data:image/png;base64," + "A" * 9999}


def cited(text: str, **fields: t.Any) -> list[dict[str, t.Any]]:
    return [{"role": "user", "content": [{"type": "document", "source": {"type": "text", "data": text}, **fields}]}]


def named_tools(count: int) -> list[dict[str, t.Any]]:
    found = [{"type": "tool_result", "tool_use_id": "1", "content": [{"type": "tool_reference", "tool_name": "t"}]}] * (count - 1)
    return [{"role": "user", "content": [*found, {"type": "tool_addition", "tool": {"type": "tool_reference", "name": "t"}}]}]


@pytest.mark.parametrize(
    ("kind", "fields", "least", "most"),
    [
        # No byte of text is more than one token.
        ("messages", {"messages": [{"role": "user", "content": "x" * 5000}]}, 5000, 5400),
        ("messages", {"messages": [{"role": "user", "content": "\u4e2d" * 1000}]}, 3000, 3400),
        # One character can be written with eighteen others.
        ("messages", {"messages": [{"role": "user", "content": "\ufdfa" * 1000}]}, 33_000, 33_400),
        ("messages", {"messages": [{"role": "user", "content": "\u00e9\u4e2d\U0001f600\u2026" * 1000}]}, 12_000, 12_400),
        # A picture costs what pictures cost, not what its bytes would.
        ("messages", {"messages": picture("A" * 500_000)}, 16_384, 17_000),
        ("messages", {"messages": [{"role": "user", "content": [{"type": "tool_result", "content": picture("A" * 500_000)[0]["content"]}]}]}, 16_384, 17_000),
        ("chat", {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,QUFB"}}]}]}, 49_152, 50_000),
        ("responses", {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "data:image/png;base64," + "A" * 9999}]}]}, 49_152, 50_000),
        # What lies at the provider, or is packed, is only limited by the model's context.
        ("messages", {"messages": [{"role": "user", "content": [{"type": "document", "source": {"type": "file", "file_id": "f"}}]}]}, 200_000, 200_000),
        ("messages", {"messages": [{"role": "user", "content": [{"type": "document", "source": {"type": "base64", "data": "JVBE"}}]}]}, 200_000, 200_000),
        ("messages", {"messages": [{"role": "user", "content": [{"type": "image", "file_id": "f"}]}]}, 16_384, 17_000),
        ("messages", {"messages": [{"role": "user", "content": [{"type": "document", "source": {"type": "text", "data": "x" * 1000}}]}]}, 1000, 1400),
        # What may be cited is cut into its sentences.
        ("messages", {"messages": cited("a. " * 1000, citations={"enabled": True})}, 35_000, 35_400),
        ("messages", {"messages": cited("a. " * 1000, citations={"enabled": False})}, 3000, 3400),
        ("messages", {"thread": {"type": "continue", "previous_message_id": "msg_1"}}, 200_000, 200_000),
        ("chat", {"messages": [{"role": "assistant", "audio": {"id": "audio_1"}}]}, 200_000, 200_000),
        ("chat", {"messages": [{"role": "user", "content": [{"type": "video_url", "video_url": {"url": "data:video/mp4;base64,QUFB"}}]}]}, 200_000, 200_000),
        ("responses", {"previous_response_id": "resp_1"}, 200_000, 200_000),
        ("responses", {"conversation": {"id": "conv_1"}}, 200_000, 200_000),
        ("responses", {"prompt": {"id": "pmpt_1"}}, 200_000, 200_000),
        ("responses", {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]}, 200_000, 200_000),
        ("responses", {"input": [{"type": "item_reference", "id": "msg_1"}]}, 200_000, 200_000),
        ("responses", {"input": [{"id": "msg_1"}]}, 200_000, 200_000),
        ("responses", {"input": [{"type": "message", "id": "msg_1", "role": "user", "content": "x"}]}, 100, 400),
        ("responses", {"input": [{"type": "image_generation_call", "id": "ig_1", "result": None}]}, 49_152, 50_000),
        ("responses", {"input": [{"type": "computer_call_output", "output": SCREEN}]}, 49_152, 50_000),
        # A picture within a document is one too.
        ("messages", {"messages": [{"role": "user", "content": [{"type": "document", "source": {"type": "content", "content": PICTURE}}]}]}, 16_384, 17_000),
        # Of a tool that the provider knows it says more than what is sent.
        ("messages", {"tools": [{"type": "bash_20250124", "name": "bash"}, {"type": "computer_20250124", "name": "computer"}]}, 3000, 3600),
        ("chat", {"tools": [{"type": "function", "function": {"name": "f"}}] * 3}, 1024, 1500),
        ("chat", {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {}}}}, 1024, 1500),
        # A tool that is named is put there once more each time, and what is compacted is read twice.
        ("messages", {"messages": named_tools(10), "tools": [{"name": "t", "description": "x" * 5000}]}, 55_000, 58_000),
        ("messages", {"messages": [{"role": "user", "content": "x" * 5000}], "compaction": {"type": "summarize"}}, 10_000, 10_800),
        ("responses", {"input": [{"role": "user", "content": "x" * 5000}, {"type": "compaction_trigger"}]}, 10_000, 10_800),
        # Never more than the model takes in, but as often as it does.
        ("messages", {"messages": [{"role": "user", "content": "x" * 500_000}]}, 200_000, 200_000),
    ],
)
def test_how_much_may_go_in(kind: calls.Wire, fields: dict[str, t.Any], least: int, most: int) -> None:
    assert least <= read(kind, **fields).most_inputs(200_000) <= most


def test_what_only_a_context_limits_needs_one_that_is_known() -> None:
    with pytest.raises(Refusal, match="set it in cost_prices") as raised:
        read("responses", previous_response_id="resp_1").most_inputs(0)
    assert raised.value.reason == "unbounded"


def test_tools_of_the_provider_that_are_allowed_are_limited() -> None:
    tools = [{"type": "web_search_20250305", "name": "web_search", "max_uses": 9}, {"type": "web_fetch_20250910", "name": "web_fetch"}, {"name": "mine"}]
    call = read("messages", SEARCHES, tools=tools)
    assert (call.tools, call.rounds, call.most_inputs(1000)) == ({"web_searches": 3}, 6, 6000)
    assert [tool.get("max_uses") for tool in json.loads(call.encoded)["tools"]] == [3, 2, None]
    call = read("responses", SEARCHES, tools=[{"type": "web_search"}])
    assert (call.tools, json.loads(call.encoded)["max_tool_calls"]) == ({"web_searches": 3}, 3)
    # Those that come with the conversation count as well.
    more = [{"type": "additional_tools", "role": "developer", "tools": [{"type": "web_search"}]}]
    call = read("responses", SEARCHES, tools=[{"type": "web_search"}], input=more)
    assert (call.tools, call.rounds) == ({"web_searches": 6}, 7)


def test_the_words_for_the_providers_tools_are_the_same_everywhere() -> None:
    schema = json.loads((pathlib.Path(__file__).parents[2] / "configs" / "schemas" / "cost.json").read_text(encoding="utf-8"))
    words = schema["properties"]["cost_rules"]["properties"]["server_tools"]["propertyNames"]["enum"]
    assert words == list(calls.SERVER_TOOLS) == list(t.get_args(calls.ServerTool))


def test_a_model_that_always_searches_is_paid_for_that() -> None:
    call = read("chat", SEARCHES, model="gpt-4o-search-preview", n=2)
    assert (call.tools, call.most_inputs(128_000)) == ({"web_searches": 2}, 256_000)


def test_links_are_followed_where_fetching_is_allowed() -> None:
    assert 49_152 <= read("chat", SEARCHES, messages=content(type="image_url", image_url={"url": "https://x/y.png"})).most_inputs(200_000) <= 50_000
    assert read("messages", SEARCHES, messages=content(type="document", source={"type": "url", "url": "https://x"})).inputs is None


def test_a_shell_is_the_agents_own_and_says_so() -> None:
    for environment in ({}, {"environment": None}, {"environment": {"type": "local"}}):
        call = read("responses", tools=[{"type": "shell", **environment}])
        assert json.loads(call.encoded)["tools"] == [{"type": "shell", "environment": {"type": "local"}}]


@pytest.mark.parametrize("more", [{"memory_limit": "64g"}, {"network_policy": {"type": "allowlist", "allowed_domains": ["x"]}}, {"network_policy": "any"}])
def test_a_container_of_the_provider_is_no_more_than_is_paid_for(more: dict[str, t.Any]) -> None:
    rules = Rules(server_tools={"code_interpreter": 2})
    container = {"type": "auto", "memory_limit": "1g", "network_policy": {"type": "disabled"}}
    assert read("responses", rules, tools=[{"type": "code_interpreter", "container": container}]).tools == {"code_executions": 2}
    with pytest.raises(Refusal, match="a container with more than 1g or with a network"):
        read("responses", rules, tools=[{"type": "code_interpreter", "container": {**container, **more}}])


@pytest.mark.parametrize(("kind", "key"), [("messages", "fallbacks"), ("chat", "models")])
def test_no_other_model_is_tried_after_the_one_that_is_paid_for(kind: calls.Wire, key: str) -> None:
    for others, left_out in (([{"model": "claude-dear"}], (key,)), ("default", (key,)), ([], ())):
        fields: dict[str, t.Any] = {key: others}
        call = read(kind, **fields)
        assert call.left_out == left_out and key not in json.loads(call.encoded)


def test_what_is_only_counted_asks_for_nothing_else() -> None:
    calls.read_count(json.dumps({**MESSAGE, "tools": [{"name": "mine"}]}).encode(), RULES)
    for fields in ({"mcp_servers": [{"url": "https://x"}]}, {"messages": content(type="image", source={"type": "url", "url": "https://x"})}):
        with pytest.raises(Refusal) as raised:
            calls.read_count(json.dumps({**MESSAGE, **fields}).encode(), RULES)
        assert raised.value.status == 403


@pytest.mark.parametrize(
    ("fields", "injected", "sent"),
    [
        ({}, False, None),
        ({"stream": True}, True, {"include_usage": True}),
        ({"stream": True, "stream_options": {"include_usage": False, "x": 1}}, True, {"include_usage": True, "x": 1}),
        ({"stream": True, "stream_options": {"include_usage": True}}, False, {"include_usage": True}),
    ],
)
def test_the_usage_of_a_stream_is_asked_for(fields: dict[str, t.Any], injected: bool, sent: dict[str, t.Any] | None) -> None:
    call = read("chat", **fields)
    assert (call.injected, json.loads(call.encoded).get("stream_options")) == (injected, sent)


@pytest.mark.parametrize(
    ("kind", "fields", "tier", "percent"),
    [
        ("messages", {"speed": "fast"}, "fast", 100),
        ("messages", {"service_tier": "priority", "inference_geo": "us"}, "", 110),
        ("messages", {"inference_geo": "eu"}, "", 110),
        ("messages", {"inference_geo": "global"}, "", 100),
        ("chat", {"service_tier": "priority"}, "priority", 100),
        ("responses", {"service_tier": "flex"}, "", 100),
        ("chat", {"service_tier": "fast"}, "priority", 100),
        ("responses", {"service_tier": "scale"}, "", 100),
    ],
)
def test_what_makes_it_dearer(kind: calls.Wire, fields: dict[str, t.Any], tier: str, percent: int) -> None:
    call = read(kind, **fields)
    assert (call.tier, call.percent) == (tier, percent)


@pytest.mark.parametrize(
    ("kind", "fields", "rules", "least"),
    [
        ("messages", {"max_tokens": 30_000}, RULES, 1000),
        ("messages", {"max_tokens": 300}, RULES, 300),
        ("messages", {"max_tokens": 30_000}, Rules(clamp_least=0), 30_000),
        ("messages", {"max_tokens": 30_000, "thinking": {"type": "enabled", "budget_tokens": 20_000}}, RULES, 2048),
        ("chat", {"max_tokens": 30_000, "n": 2}, RULES, 2000),
    ],
)
def test_what_it_can_be_cut_down_to(kind: calls.Wire, fields: dict[str, t.Any], rules: Rules, least: int) -> None:
    assert read(kind, rules, **fields).least_outputs == least


@pytest.mark.parametrize(
    ("kind", "fields", "room", "sent"),
    [
        ("messages", {"max_tokens": 30_000}, 2500, {"max_tokens": 2500}),
        ("messages", {"max_tokens": 2000}, 2500, {"max_tokens": 2000}),
        ("chat", {"max_tokens": 30_000, "n": 3}, 3001, {"max_tokens": 1000}),
        ("chat", {}, 3001, {"max_completion_tokens": 3001}),
        ("chat", {"max_tokens": 9000, "max_completion_tokens": 30_000}, 3001, {"max_tokens": 3001, "max_completion_tokens": 3001}),
        ("responses", {}, 3001, {"max_output_tokens": 3001}),
        (
            "messages",
            {"max_tokens": 30_000, "thinking": {"type": "enabled", "budget_tokens": 20_000}},
            4000,
            {"max_tokens": 4000, "thinking": {"type": "enabled", "budget_tokens": 2000}},
        ),
    ],
)
@pytest.mark.parametrize("light", [False, True])
def test_cutting_down(kind: calls.Wire, fields: dict[str, t.Any], room: int, sent: dict[str, t.Any], light: bool) -> None:
    call = read(kind, **fields)
    if light:
        call.lighten()
    call.put("service_tier", "default")
    call.limit(room)
    assert json.loads(call.encoded).items() >= {"model": json.loads(read(kind, **fields).encoded)["model"], "service_tier": "default"}.items()
    assert json.loads(call.encoded).items() >= sent.items()
    assert call.most_outputs <= max(room, call.least_outputs)


@pytest.mark.parametrize(
    ("headers", "token"),
    [
        ({}, ""),
        ({"x-api-key": "a"}, "a"),
        ({"authorization": "Bearer b"}, "b"),
        ({"authorization": "bearer  b "}, "b"),
        ({"authorization": "Basic b"}, ""),
        ({"x-api-key": "a", "authorization": "Bearer b"}, "a"),
    ],
)
def test_tokens(headers: dict[str, str], token: str) -> None:
    assert wire.token(headers) == token


@pytest.mark.parametrize(
    ("path", "headers", "family"),
    [
        ("/v1/messages", {}, "anthropic"),
        ("/v1/chat/completions", {"anthropic-version": "x"}, "openai"),
        ("/v1/models", {}, "openai"),
        ("/v1/models", {"anthropic-version": "x"}, "anthropic"),
    ],
)
def test_families(path: str, headers: dict[str, str], family: str) -> None:
    assert wire.family(path, headers) == family


def test_what_asks_for_a_longer_context() -> None:
    others = "a-2025-01-01,context-management-2025-06-27"
    assert wire.betas("a-2025-01-01, context-1m-2025-08-07,context-management-2025-06-27") == (others, True)
    assert wire.betas(others) == (others, False)
    assert wire.betas("context-1m-2025-08-07") == wire.betas("Context-1M-2025-08-07") == ("", True)


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("https://api.anthropic.com", "https://api.anthropic.com/v1"),
        ("http://10.1.2.3:8000/", "http://10.1.2.3:8000/v1"),
        ("https://example.org/anthropic", "https://example.org/anthropic/v1"),
        ("https://example.org/vision", "https://example.org/vision/v1"),
        ("https://v2.example.org", "https://v2.example.org/v1"),
        # As their own clients are given it.
        ("https://example.org/api/v1", "https://example.org/api/v1"),
        ("https://example.org/api/v1/", "https://example.org/api/v1"),
        ("https://example.org/paas/v4", "https://example.org/paas/v4"),
        ("https://example.org/v1beta/openai/", "https://example.org/v1beta/openai"),
    ],
)
def test_an_interface_has_one_version(url: str, base: str) -> None:
    assert wire.base(url) == base


def test_errors_are_in_the_providers_own_words() -> None:
    refusal = Refusal(402, "spent", "budget total is spent")
    assert json.loads(wire.error("anthropic", refusal)) == {
        "type": "error",
        "error": {"type": "billing_error", "message": "budget total is spent", "reason": "spent"},
    }
    assert json.loads(wire.error("openai", refusal)) == {
        "error": {"message": "budget total is spent", "type": "insufficient_quota", "param": None, "code": "spent"}
    }


def test_what_of_an_answer_comes_back() -> None:
    headers = {"Content-Type": "x", "Set-Cookie": "a", "Anthropic-Organization-Id": "o", "Anthropic-RateLimit-Requests-Limit": "9", "Request-Id": "r"}
    assert wire.back(headers) == {"Content-Type": "x", "Anthropic-RateLimit-Requests-Limit": "9", "Request-Id": "r"}
