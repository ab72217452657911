# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a simulated model says: nothing of its own. It calls a tool that writes a file, then one that runs a command, then is done.

A tool that a request insists on is called, and an answer has the form that a request asks for, with the smallest values that do.
A text in the last message such as ``[simulate output=300 pace=20]`` makes it do otherwise; :class:`Wish` has what can be asked
for. Which tool is due is read from the conversation, so that nothing is kept between calls.
"""

from __future__ import annotations

import dataclasses
import json
import re
import typing as t

from dockersandbox.simulator import shapes

Body = dict[str, t.Any]
NOTE = "Written by a tool call of a simulated model.\n"
FILES = ("note.txt", "copy.txt")
COPY = f"cp {FILES[0]} {FILES[1]}"
DONE = "This answer is simulated: no model was asked. The note is written."
HELLO = "This answer is simulated: no model was asked."
_PATCH = f"*** Begin Patch\n*** Add File: {FILES[0]}\n+{NOTE}*** End Patch\n"
_WISH = re.compile(r"\[simulate((?: +[a-z0-9_]+=[a-z0-9_.-]+)+)\]")


class Call(t.NamedTuple):
    """A call of a tool: *arguments* is an object, or for a tool that takes text that text."""

    tool: str
    arguments: dict[str, t.Any] | str


# Tools that are known, in the order in which they are called; the first list that a request offers is taken. Where none is, what a
# request says of the form of its tools decides.
PLANS: tuple[tuple[Call, ...], ...] = (
    (
        Call("Write", {"file_path": f"/workspace/{FILES[0]}", "content": NOTE}),
        Call("Bash", {"command": COPY, "description": "Copy the note"}),
    ),
    (
        Call("exec", f"await tools.apply_patch({json.dumps(_PATCH)});"),
        Call("exec", f"text(await tools.exec_command({json.dumps({'cmd': COPY})}));"),
    ),
)
# What agents' tools that write or run something have in their names, and what they take it by.
_WRITES = ("write", "create", "save")
_PLACES = ("path", "file_path", "filePath", "filename")
_CONTENTS = ("content", "contents", "file_text")
_RUNS = ("bash", "shell", "run", "exec", "command", "terminal")
_COMMANDS = ("command", "cmd")
# Where, other than at the top, requests say what form an answer must have.
_FORMATS = ("text", "output_config")
# What a tool may need besides, and what it is given.
_ASIDE = {"description": "Make a note"}


@dataclasses.dataclass(slots=True)
class Wish:
    """What can be asked for: *output*, *reasoning*, *cache_…* tokens and *web_searches*; *delay* before the first word and *pace*
    between two, in milliseconds; an error's *status*; to *cut* the connection, to *hang*, or to send *garbage* after so many
    events; an answer *packed* as the word says; *usage* that is ``none``, ``zero``, ``negative`` or ``absurd``."""

    output: int = -1
    input: int = -1
    reasoning: int = 0
    cache_read: int = 0
    cache_write: int = 0
    cache_write_1h: int = 0
    web_searches: int = 0
    delay: int = 0
    pace: int = 0
    chunk: int = 8
    status: int = 0
    cut: int = -1
    hang: int = -1
    garbage: int = -1
    split: int = 0
    packed: str = ""
    usage: str = ""
    model: str = ""


def wish(texts: t.Iterable[str]) -> Wish:
    """Return what the last of *texts* that asks for something asks for."""
    found = Wish()
    matches = [match for text in texts if (match := _WISH.search(text))]
    if matches:
        for pair in matches[-1][1].split():
            name, _equals, value = pair.partition("=")
            if hasattr(found, name):
                setattr(found, name, value if isinstance(getattr(found, name), str) else int(value))
    return found


def texts(body: Body) -> t.Iterator[str]:
    """Yield the texts of the conversation, in order."""
    for message in (*listed(body.get("messages")), *listed(body.get("input"))):
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, str):
            yield content
        for part in listed(content):
            if isinstance(part, dict) and isinstance(part.get("text"), str):
                yield part["text"]
    if isinstance(body.get("input"), str):
        yield body["input"]


def listed(value: t.Any) -> list[t.Any]:
    """Return *value* if it is a list, else nothing."""
    return value if isinstance(value, list) else []


def tools(found: t.Any) -> t.Iterator[Body]:
    """Yield the tools that a request offers, wherever its list of them lies."""
    if isinstance(found, list):
        for item in found:
            yield from tools(item)
    elif isinstance(found, dict):
        for tool in listed(found.get("tools")):
            inner = tool.get("function") if isinstance(tool.get("function"), dict) else tool
            yield inner
            yield from tools(tool)
        yield from tools(found.get("input"))


def results(body: Body) -> int:
    """Return how many results of tools the conversation has."""
    count = 0
    for message in (*listed(body.get("messages")), *listed(body.get("input"))):
        if not isinstance(message, dict):
            continue
        kind = message.get("type")
        count += message.get("role") == "tool" or (isinstance(kind, str) and kind.endswith("_call_output"))
        count += sum(isinstance(part, dict) and part.get("type") == "tool_result" for part in listed(message.get("content")))
    return count


def due(body: Body) -> Call | None:
    """Return the call that is due, None when only text is."""
    offered = list(tools(body))
    mode, name = _choice(body.get("tool_choice"))
    if mode == "none":
        return None
    if name:
        return next((_made(tool) for tool in offered if tool.get("name") == name), None)
    found = _planned(body, offered)
    if found is None and mode in ("any", "required"):
        return next((_made(tool) for tool in reversed(offered) if isinstance(tool.get("name"), str)), None)
    return found


def _choice(choice: t.Any) -> tuple[str, str]:
    """Return whether a request wants a tool called (``none``, ``auto``, ``any`` or ``required``), and which, "" for one or other."""
    if not isinstance(choice, dict):
        return str(choice), ""
    named = choice["function"] if isinstance(choice.get("function"), dict) else choice
    return str(choice.get("mode", choice.get("type"))), str(named.get("name") or "")


def _made(tool: Body) -> Call:
    """Return a call of *tool* with the smallest arguments that it takes."""
    if tool.get("type") == "custom":
        return Call(str(tool["name"]), shapes.TEXT)
    try:
        arguments = shapes.example(_form(tool) or {"type": "object"})
    except shapes.Unmade:
        arguments = {}
    return Call(str(tool["name"]), arguments if isinstance(arguments, dict) else {})


def _form(tool: Body) -> t.Any:
    return tool.get("input_schema") or tool.get("parameters")


def _planned(body: Body, offered: list[Body]) -> Call | None:
    names = {str(tool.get("name", tool.get("type"))) for tool in offered}
    plan = next((plan for plan in PLANS if all(call.tool in names for call in plan)), None)
    done = results(body)
    if plan is not None:
        return plan[done] if done < len(plan) else None
    if done == 0:
        write = _fitting(offered, _WRITES, {_PLACES: FILES[0], _CONTENTS: NOTE})
        return write or _fitting(offered, _RUNS, {_COMMANDS: f"echo '{NOTE.strip()}' > {FILES[0]}"})
    return _fitting(offered, _RUNS, {_COMMANDS: COPY}) if done == 1 else None


def _fitting(offered: list[Body], words: tuple[str, ...], given: dict[tuple[str, ...], str]) -> Call | None:
    """Return a call of the first tool with one of *words* in its name that takes each of *given* as a text, by one of its names,
    and needs nothing else."""
    for tool in offered:
        name = str(tool.get("name"))
        if not any(word in name.lower() for word in words):
            continue
        form = _form(tool)
        properties = form.get("properties") if isinstance(form, dict) else None
        if not isinstance(form, dict) or not isinstance(properties, dict):
            continue
        texts_of = {key for key, value in properties.items() if isinstance(value, dict) and value.get("type") == "string"}
        found = {key: value for keys, value in given.items() for key in keys if key in texts_of}
        needed = set(listed(form.get("required")))
        if len(found) == len(given) and needed <= found.keys() | _ASIDE.keys():
            return Call(name, found | {key: value for key, value in _ASIDE.items() if key in needed})
    return None


def words(body: Body, count: int) -> list[str]:
    """Return what is said, in words: *count* of them, or (-1) that it is simulated, in the form that the request asks for."""
    if count >= 0:
        return [f"word{number % 10} " for number in range(count)]
    if (form := _asked(body)) is not None:
        try:
            return pieces(json.dumps(shapes.example(form)))
        except shapes.Unmade:
            pass
    return [f"{word} " for word in (DONE if results(body) else HELLO).split(" ")]


def pieces(text: str) -> list[str]:
    """Return *text* in pieces of about a token."""
    return [text[start : start + 7] for start in range(0, len(text), 7)]


def _asked(body: Body) -> t.Any:
    """Return the schema of what is to be answered, None when that is text."""
    nested = [body[key].get("format") for key in _FORMATS if isinstance(body.get(key), dict)]
    for place in (body.get("response_format"), body.get("output_format"), *nested):
        if isinstance(place, dict) and place.get("type") == "json_object":
            return {"type": "object", "properties": {"simulated": {"const": True}}, "required": ["simulated"]}
        if isinstance(place, dict) and place.get("type") == "json_schema":
            named = place.get("json_schema")
            return named.get("schema") if isinstance(named, dict) else place.get("schema")
    return None
