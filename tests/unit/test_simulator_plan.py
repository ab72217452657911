# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which tools of an agent the simulated provider calls, and with what."""

from __future__ import annotations

import json
import typing as t

import pytest

from dockersandbox.simulator import plan

Tool = dict[str, t.Any]


def tool(name: str, *needed: str, **types: str) -> Tool:
    """Return a tool that takes *types* of things, and needs *needed*."""
    form = {"type": "object", "properties": {key: {"type": kind} for key, kind in types.items()}, "required": list(needed)}
    return {"name": name, "input_schema": form}


WRITE = tool("write", "filePath", "content", filePath="string", content="string")
SHELL = tool("run_shell_command", "command", command="string", directory="string")
DESCRIBED = tool("bash", "command", "description", command="string", description="string")
TOLD = {"role": "tool", "content": "done"}


@pytest.mark.parametrize(
    ("tools", "results", "wanted"),
    [
        ([SHELL, WRITE], 0, plan.Call("write", {"filePath": "note.txt", "content": plan.NOTE})),
        ([SHELL, WRITE], 1, plan.Call("run_shell_command", {"command": plan.COPY})),
        ([SHELL, WRITE], 2, None),
        # One that writes nothing does it by a command.
        ([SHELL], 0, plan.Call("run_shell_command", {"command": f"echo '{plan.NOTE.strip()}' > note.txt"})),
        ([WRITE], 1, None),
        ([DESCRIBED], 1, plan.Call("bash", {"command": plan.COPY, "description": "Make a note"})),
        # It needs what nobody here knows.
        ([tool("create_file", "owner", "path", "content", owner="string", path="string", content="string")], 0, None),
        # Its name says that it does something else.
        ([tool("post", "path", "content", path="string", content="string")], 0, None),
        # It takes a list.
        ([tool("shell", "command", command="array")], 0, None),
        ([{"name": "write"}, {"name": "write", "input_schema": []}, {"type": "custom"}], 0, None),
        # Who is known is known by name.
        ([{"name": "Write"}, {"name": "Bash"}, SHELL], 1, plan.PLANS[0][1]),
    ],
)
def test_due(tools: list[Tool], results: int, wanted: plan.Call | None) -> None:
    chat = [{"type": "function", "function": {"name": made.get("name"), "parameters": made.get("input_schema")}} for made in tools]
    for offered in (tools, chat):
        assert plan.due({"tools": offered, "messages": [{"role": "user", "content": "x"}, *[TOLD] * results]}) == wanted


FORM = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1}}, "required": ["city", "days"]}
ANSWER = {"name": "answer", "input_schema": FORM}
MADE = plan.Call("answer", {"city": "simulated", "days": 1})


@pytest.mark.parametrize(
    ("choice", "wanted"),
    [
        # Anthropic's, and OpenAI's two ways.
        ({"type": "tool", "name": "answer"}, MADE),
        ({"type": "function", "function": {"name": "answer"}}, MADE),
        ({"type": "function", "name": "answer"}, MADE),
        ({"type": "any"}, MADE),
        ("required", MADE),
        ({"type": "none"}, None),
        ("none", None),
        ({"type": "auto"}, None),
        ("auto", None),
        (None, None),
        # One that is not offered.
        ({"type": "tool", "name": "other"}, None),
    ],
)
def test_what_a_request_insists_on(choice: t.Any, wanted: plan.Call | None) -> None:
    body = {"tools": [SHELL, ANSWER], "tool_choice": choice, "messages": [TOLD, TOLD]}
    assert plan.due(body) == wanted


def test_a_plan_goes_on_where_any_tool_will_do() -> None:
    body = {"tools": [WRITE, ANSWER], "tool_choice": "required", "messages": []}
    assert plan.due(body) == plan.Call("write", {"filePath": "note.txt", "content": plan.NOTE})


@pytest.mark.parametrize(
    ("tool", "wanted"),
    [
        ({"type": "custom", "name": "free"}, plan.Call("free", "simulated")),
        ({"name": "bare"}, plan.Call("bare", {})),
        ({"name": "odd", "input_schema": {"type": "array"}}, plan.Call("odd", {})),
        ({"name": "endless", "input_schema": {"$ref": "#"}}, plan.Call("endless", {})),
    ],
)
def test_a_tool_of_any_form_can_be_insisted_on(tool: Tool, wanted: plan.Call) -> None:
    assert plan.due({"tools": [tool], "tool_choice": {"type": "tool", "name": wanted.tool}}) == wanted


@pytest.mark.parametrize(
    "fields",
    [
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": FORM}}},
        {"text": {"format": {"type": "json_schema", "name": "x", "schema": FORM}}},
        {"output_format": {"type": "json_schema", "schema": FORM}},
        {"output_config": {"format": {"type": "json_schema", "schema": FORM}}},
    ],
)
def test_an_answer_has_the_form_that_is_asked_for(fields: dict[str, t.Any]) -> None:
    assert json.loads("".join(plan.words(fields, -1))) == MADE.arguments
    assert plan.words(fields, 2) == ["word0 ", "word1 "]


def test_an_answer_is_json_where_only_that_is_asked_for() -> None:
    assert json.loads("".join(plan.words({"response_format": {"type": "json_object"}}, -1))) == {"simulated": True}


@pytest.mark.parametrize(
    "fields",
    [
        {"response_format": {"type": "text"}},
        {"text": {"format": {"type": "text"}, "verbosity": "low"}},
        {"text": "x", "output_config": {"effort": "low"}},
        {"response_format": {"type": "json_schema", "json_schema": 3}},
        {"response_format": {"type": "json_schema", "json_schema": {"schema": {"$ref": "#"}}}},
    ],
)
def test_an_answer_is_text_otherwise(fields: dict[str, t.Any]) -> None:
    assert "".join(plan.words(fields, -1)).strip() == plan.HELLO
