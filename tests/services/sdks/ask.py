# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks by the official SDKs for Python; the one argument is the address of the gateway. Prints what came, a line of JSON."""

from __future__ import annotations

import json
import sys
import typing as t

import anthropic
import openai
import pydantic

BASE, TOKEN = sys.argv[1:3]
WISH = "[simulate output=30 pace=1]"
FORM = {"type": "object", "properties": {"path": {"type": "string"}, "content": {"type": "string"}}, "required": ["path", "content"]}
TOOLS: list[t.Any] = [{"name": "write_file", "description": "Write a file", "input_schema": FORM}]
FUNCTIONS: list[t.Any] = [{"type": "function", "function": {"name": tool["name"], "parameters": tool["input_schema"]}} for tool in TOOLS]


class Place(pydantic.BaseModel):
    """Part of what is asked for."""

    name: str
    height: float | None


class Trip(pydantic.BaseModel):
    """What is asked for as JSON."""

    first: Place
    others: list[Place]


told: dict[str, t.Any] = {}

claude = anthropic.Anthropic(base_url=BASE, api_key=TOKEN, max_retries=0)
asked: dict[str, t.Any] = {"model": "claude-sonnet-4-5", "max_tokens": 100, "messages": [{"role": "user", "content": WISH}]}
answer = claude.messages.create(**asked)
told["messages"] = [answer.content[0].text.count("word"), answer.usage.output_tokens]
with claude.messages.stream(**asked) as stream:
    text = "".join(stream.text_stream)
    final = stream.get_final_message()
told["messages_stream"] = [text.count("word"), final.usage.output_tokens]
told["messages_count"] = claude.messages.count_tokens(model=asked["model"], messages=asked["messages"]).input_tokens > 0
used = claude.messages.create(**{**asked, "messages": [{"role": "user", "content": "go"}], "tools": TOOLS})
told["messages_tool"] = [used.stop_reason, used.content[0].name]
forced: t.Any = {"type": "tool", "name": "write_file"}
plain: dict[str, t.Any] = {**asked, "messages": [{"role": "user", "content": "go"}]}
used = claude.messages.create(**plain, tools=TOOLS, tool_choice=forced)
told["messages_forced"] = sorted(used.content[0].input)
told["messages_parsed"] = claude.messages.parse(**plain, output_format=Trip).parsed_output.model_dump()
told["messages_models"] = [model.id for model in claude.models.list().data][:1]

gpt = openai.OpenAI(base_url=f"{BASE}/v1", api_key=TOKEN, max_retries=0)
asked = {"model": "gpt-6-sol", "max_completion_tokens": 100, "messages": [{"role": "user", "content": WISH}]}
chat = gpt.chat.completions.create(**asked)
told["chat"] = [chat.choices[0].message.content.count("word"), chat.usage.completion_tokens]
chunks = list(gpt.chat.completions.create(**asked, stream=True))
told["chat_stream"] = ["".join(chunk.choices[0].delta.content or "" for chunk in chunks).count("word"), [chunk.usage for chunk in chunks if chunk.usage]]
chunks = list(gpt.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
told["chat_stream_usage"] = chunks[-1].usage.completion_tokens
used = gpt.chat.completions.create(**{**asked, "messages": [{"role": "user", "content": "go"}], "tools": FUNCTIONS})
told["chat_tool"] = [used.choices[0].finish_reason, used.choices[0].message.tool_calls[0].function.name]
plain = {**asked, "messages": [{"role": "user", "content": "go"}]}
told["chat_parsed"] = gpt.chat.completions.parse(**plain, response_format=Trip).choices[0].message.parsed.model_dump()
told["responses_parsed"] = gpt.responses.parse(model="gpt-6-sol", input="go", max_output_tokens=100, text_format=Trip).output_parsed.model_dump()
response = gpt.responses.create(model="gpt-6-sol", input=WISH, max_output_tokens=100)
told["responses"] = [response.output_text.count("word"), response.usage.output_tokens]
events = list(gpt.responses.create(model="gpt-6-sol", input=WISH, max_output_tokens=100, stream=True))
told["responses_stream"] = ["".join(event.delta for event in events if event.type == "response.output_text.delta").count("word"), events[-1].type]
told["openai_models"] = [model.id for model in gpt.models.list().data][:1]

failing: tuple[tuple[str, t.Callable[[], t.Any]], ...] = (
    ("messages_model", lambda: claude.messages.create(model="bad model", max_tokens=9, messages=[{"role": "user", "content": "x"}])),
    ("chat_model", lambda: gpt.chat.completions.create(model="bad model", messages=[{"role": "user", "content": "x"}])),
    ("responses_background", lambda: gpt.responses.create(model="gpt-6-sol", input="x", background=True)),
    ("messages_overloaded", lambda: claude.messages.create(model="m", max_tokens=9, messages=[{"role": "user", "content": "[simulate status=529]"}])),
)
for name, ask in failing:
    try:
        ask()
    except (anthropic.APIStatusError, openai.APIStatusError) as error:
        told[name] = [error.status_code, type(error).__name__]
sys.stdout.write(json.dumps(told) + "\n")
