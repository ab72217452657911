# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which tools of an agent the simulated provider calls, and with what."""

from __future__ import annotations

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
