# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Calls as agents ask for them: what may be asked, what it can cost at the most, and what is sent on. Without I/O.

What is sent on is written anew from what was read here: of a key that a body has twice, what was checked is what counts.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
import typing as t

import msgspec

from dockersandbox.llm.prices import DEARER, INPUTS, OUTPUTS

Body = dict[str, t.Any]
Wire = t.Literal["messages", "chat", "responses"]

# No byte of text is more than one token; around it come the frame of a conversation, and what a provider says of tools.
_FRAME = 64
_TOOLS = 1024
# What a picture costs at the most, however large it is.
_PICTURE = 16_384
# What a provider wants for thinking at the least.
_THOUGHT = 1024
_MOST_TOOLS = 4096
# More than this many values take more memory than the body's size lets expect.
_MOST_VALUES = 1_000_000
_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,127}")
_LIMITS: dict[Wire, tuple[str, ...]] = {
    "messages": ("max_tokens",),
    "chat": ("max_completion_tokens", "max_tokens"),
    "responses": ("max_output_tokens",),
}
# Tools that the agent runs itself, by the beginning of their type.
_OWN_TOOLS: dict[Wire, tuple[str, ...]] = {
    "messages": ("custom", "bash_", "text_editor_", "computer_", "memory_"),
    "chat": ("function", "custom"),
    "responses": ("function", "custom", "local_shell", "shell", "apply_patch", "computer", "namespace", "tool_search"),
}
# Tools that the provider runs: the word an operator allows them by → what is charged for a use of it.
SERVER_TOOLS = {
    "web_search": "web_searches",
    "web_fetch": "",
    "file_search": "storage_searches",
    "code_execution": "code_executions",
    "code_interpreter": "code_executions",
    "tool_search_tool": "",
}
# What would go on, or be kept, at the provider where nobody counts it.
_REFUSED_KEYS: dict[Wire, dict[str, str]] = {
    "messages": {"mcp_servers": "servers that the provider would connect to", "container": "a container at the provider"},
    "chat": {"web_search_options": "searches whose number cannot be limited"},
    "responses": {"background": "an answer that is made later"},
}


# What the tokens of every call may be charged as.
_KINDS = (*INPUTS, *OUTPUTS)


class Refusal(Exception):
    """A call that gets no answer. *reason* is for programs, *retry_after* is in seconds; the text is one line for people.

    *left*: the call was on its way already when this came up.
    """

    def __init__(self, status: int, reason: str, message: str, retry_after: int | None = None, left: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.retry_after = retry_after
        self.left = left


@dataclasses.dataclass(frozen=True)
class Rules:
    """What may be asked. *most_body* is in bytes, *most_output* in tokens, *server_tools*: word → how often in one call."""

    most_body: int = 32 << 20
    most_output: int = 128_000
    most_choices: int = 8
    clamp_least: int = 1024
    server_tools: t.Mapping[str, int] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(slots=True)
class Call:
    """A call that may be made, as far as its form goes.

    *inputs* is the most tokens that can go in, None when only the model's context limits them; *outputs* the most tokens that
    one choice may have and *least* what that can be cut down to, *choices* how many of them there are, *extra* what may be
    charged as output besides. *rounds*: how often the provider may read it all. *kinds* are the fields of a usage that tokens
    may be charged as. *thinks*: whether tokens may come out that no answer shows. *injected*: whether a usage was asked for
    that the client did not ask for.
    """

    wire: Wire
    body: Body
    sha256: str
    size: int
    model: str
    stream: bool
    inputs: int | None
    outputs: int
    least: int
    choices: int
    extra: int
    rounds: int
    tools: dict[str, int]
    kinds: tuple[str, ...]
    tier: str
    percent: int
    thinks: bool
    injected: bool
    clamped: bool
    hour: bool
    encoded: bytes

    def most_inputs(self, context: int) -> int:
        """Return the most tokens that can go in, for a model that takes *context* of them (0: not known). Raises Refusal."""
        if self.inputs is None or self.rounds > 1:
            if not context:
                raise Refusal(
                    400, "unbounded", f"{self.model}: what goes in is only limited by the model's context, which is not known: set it in cost_prices"
                )
            return context * self.rounds
        return min(self.inputs, context) if context else self.inputs

    @property
    def most_outputs(self) -> int:
        """The most tokens that can come out, of all choices together."""
        return self.outputs * self.choices + self.extra

    @property
    def least_outputs(self) -> int:
        """What :attr:`most_outputs` can be cut down to with :meth:`limit`."""
        return self.least * self.choices + self.extra

    def limit(self, outputs: int) -> None:
        """Let no more than *outputs* tokens come out, of all choices together."""
        each = (outputs - self.extra) // self.choices
        if each >= self.outputs:
            return
        self.outputs = each
        self.clamped = True
        for key in _LIMITS[self.wire]:
            if self.body.get(key) is not None:
                self.body[key] = min(self.body[key], each)
        thinking = self.body.get("thinking")
        if isinstance(thinking, dict) and isinstance(budget := thinking.get("budget_tokens"), int) and budget >= each:
            self.body["thinking"] = {**thinking, "budget_tokens": max(_THOUGHT, each // 2)}
        self.encoded = msgspec.json.encode(self.body)

    def put(self, key: str, value: t.Any) -> None:
        """Set a value of what is sent on."""
        self.body[key] = value
        self.encoded = msgspec.json.encode(self.body)


def read(wire: Wire, raw: bytes, rules: Rules) -> Call:
    """Return the call in the body *raw* of a request. Raises Refusal."""
    body = _object(raw, rules)
    model = model_name(body)
    stream = _of(body, "stream", bool, False)
    for key, what in _REFUSED_KEYS[wire].items():
        if body.get(key):
            raise Refusal(403, "not_allowed", f"{key} is not allowed: it asks for {what}")
    rounds, tools = _tools(wire, body, rules)
    choices = _choices(wire, body, rules)
    outputs, clamped = _outputs(wire, body, rules)
    injected = False
    if wire == "chat" and stream:
        options = _of(body, "stream_options", dict, {})
        if options.get("include_usage") is not True:
            body["stream_options"] = {**options, "include_usage": True}
            injected = True
    # What is looked for is looked for in what is sent on: there nothing can be hidden by another way of writing it.
    encoded = msgspec.json.encode(body)
    kinds = list(_KINDS)
    hour = wire == "messages" and b'"1h"' in encoded
    # Where nobody has to ask for it, a provider keeps in its cache what it likes.
    if wire != "messages" or b'"cache_control"' in encoded:
        kinds.append("cache_write")
    if hour:
        kinds.append("cache_write_1h")
    if b"audio" in encoded:
        kinds += ["input_audio", "output_audio"]
    compacts = b'"context_management"' in encoded and b'"compact' in encoded
    inputs = _inputs(wire, body, encoded)
    prediction = body.get("prediction") if wire == "chat" else None
    thinking = body.get("thinking")
    floor = 2 * _THOUGHT if isinstance(thinking, dict) and thinking.get("type") == "enabled" else 1
    return Call(
        wire=wire,
        body=body,
        sha256=hashlib.sha256(raw).hexdigest(),
        size=len(raw),
        model=model,
        stream=stream,
        inputs=inputs if inputs is None else inputs * (2 if compacts else 1),
        outputs=outputs,
        least=min(outputs, max(rules.clamp_least, floor)) if rules.clamp_least else outputs,
        choices=choices,
        extra=(len(msgspec.json.encode(prediction)) if prediction else 0) + (outputs if compacts else 0),
        rounds=rounds,
        tools=tools,
        kinds=tuple(kinds),
        tier=_tier(wire, body),
        percent=110 if wire == "messages" and body.get("inference_geo") == "us" else 100,
        # What a model of OpenAI's thought is charged and not shown, whether it was asked to or not.
        thinks=wire != "messages" or (isinstance(thinking, dict) and thinking.get("type") != "disabled"),
        injected=injected,
        clamped=clamped,
        hour=hour,
        encoded=encoded,
    )


def read_count(raw: bytes, rules: Rules) -> Body:
    """Return the body *raw* of a request to count tokens, which costs nothing. Raises Refusal."""
    body = _object(raw, rules)
    model_name(body)
    return body


def encode(body: Body) -> bytes:
    """Return *body* as it is sent on."""
    return msgspec.json.encode(body)


def model_name(body: Body) -> str:
    """Return the name of the model that *body* asks for. Raises Refusal."""
    name = body.get("model")
    if not isinstance(name, str) or not _MODEL.fullmatch(name) or "//" in name or ".." in name:
        shown = repr(name) if len(repr(name)) <= 80 else f"{repr(name)[:77]}…"
        raise Refusal(400, "model", f"model: {shown} is not the name of a model: 1 to 128 letters, digits and . _ : / @ + -")
    return name


def _object(raw: bytes, rules: Rules) -> Body:
    if len(raw) > rules.most_body:
        raise Refusal(413, "too_large", f"the body has more than {rules.most_body} bytes")
    # Each value has one of these before it, so that few bytes cannot have many.
    if len(raw) > _MOST_VALUES and raw.count(b",") + raw.count(b"[") + raw.count(b"{") > _MOST_VALUES:
        raise Refusal(413, "too_large", f"the body has more than {_MOST_VALUES} values")
    try:
        body = msgspec.json.decode(raw)
    except RecursionError:
        raise Refusal(400, "json", "the body is nested too deeply") from None
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError) as error:
        raise Refusal(400, "json", f"the body is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise Refusal(400, "json", "the body is not a JSON object")
    return body


def whole(value: object) -> t.TypeGuard[int]:
    """Whether *value* is a whole number, which to Python true and false are as well."""
    return isinstance(value, int) and not isinstance(value, bool)


def _of(body: Body, key: str, kind: type[t.Any], default: t.Any) -> t.Any:
    value = body.get(key)
    if value is None:
        return default
    if not isinstance(value, kind) or (kind is int and not whole(value)):
        words = {bool: "true or false", int: "a whole number", dict: "an object", list: "a list"}
        raise Refusal(400, "value", f"{key}: {_shown(value)} is not {words[kind]}")
    return value


def _shown(value: t.Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}…"


def _choices(wire: Wire, body: Body, rules: Rules) -> int:
    if wire != "chat":
        return 1
    count = _of(body, "n", int, 1)
    if not 1 <= count <= rules.most_choices:
        raise Refusal(400, "choices", f"n: {_shown(count)} is not a number of answers from 1 to {rules.most_choices}")
    return int(count)


def _outputs(wire: Wire, body: Body, rules: Rules) -> tuple[int, bool]:
    """Return the most tokens of one choice, which the body then says, and whether it is less than what was asked for."""
    wanted, most = 0, rules.most_output
    # Which of two names a provider goes by is its own affair.
    for key in _LIMITS[wire]:
        asked = _of(body, key, int, None)
        if asked is None:
            continue
        if asked < 1:
            raise Refusal(400, "max_tokens", f"{key}: {_shown(asked)} is not a number of tokens above 0")
        if asked > most:
            body[key] = most
        wanted = max(wanted, asked)
    if not wanted:
        if wire == "messages":
            raise Refusal(400, "max_tokens", "max_tokens: is missing")
        body[_LIMITS[wire][0]] = most
        return most, False
    return min(wanted, most), wanted > most


def _tier(wire: Wire, body: Body) -> str:
    value = body.get("speed") if wire == "messages" else body.get("service_tier")
    return value if isinstance(value, str) and value in DEARER else ""


def _tools(wire: Wire, body: Body, rules: Rules) -> tuple[int, dict[str, int]]:
    """Return how often the provider may read what goes in, and how often it may use which of its tools."""
    tools = _of(body, "tools", list, None)
    if not tools:
        return 1, {}
    if len(tools) > _MOST_TOOLS:
        raise Refusal(400, "tool", f"tools: {len(tools)} are more than {_MOST_TOOLS}")
    uses: dict[str, int] = {}
    rounds = 1
    for index, tool in enumerate(tools):
        kind = tool.get("type", "custom" if wire == "messages" else None) if isinstance(tool, dict) else None
        if not isinstance(kind, str):
            raise Refusal(400, "tool", f"tools[{index}]: is not a tool with a type")
        if kind.startswith(_OWN_TOOLS[wire]):
            continue
        word = next((word for word in SERVER_TOOLS if kind.startswith(word)), kind)
        if wire == "chat" or word not in rules.server_tools or word not in SERVER_TOOLS:
            raise Refusal(403, "server_tool", f"tools[{index}]: the provider would run {_shown(kind)} where nobody sees it; cost_server_tools allows it")
        most = rules.server_tools[word]
        if wire == "messages":
            asked = _of(tool, "max_uses", int, most)
            most = max(1, min(most, asked))
            tool["max_uses"] = most
        else:
            most = max(1, min(most, _of(body, "max_tool_calls", int, most)))
            body["max_tool_calls"] = most
        rounds += most
        if SERVER_TOOLS[word]:
            uses[SERVER_TOOLS[word]] = uses.get(SERVER_TOOLS[word], 0) + most
    return rounds, uses


def _inputs(wire: Wire, body: Body, encoded: bytes) -> int | None:
    """Return the most tokens that go in; None when only the model's context limits them."""
    inputs: int | None = len(encoded) + _FRAME + (_TOOLS if body.get("tools") else 0)
    if wire == "responses" and any(body.get(key) for key in ("previous_response_id", "conversation", "prompt")):
        inputs = None
    for part in _parts(body):
        tokens, size = _media(part)
        inputs = None if tokens is None or inputs is None else inputs + tokens - size
    return inputs


def _parts(body: Body) -> t.Iterator[Body]:
    """Yield the parts of the conversation that are objects, those within results of tools too."""
    waiting: list[t.Any] = [body.get("system"), body.get("messages"), body.get("input")]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting += value
        elif isinstance(value, dict):
            yield value
            waiting += [value.get("content"), value.get("output")]


def _media(part: Body) -> tuple[int | None, int]:
    """Return the most tokens that a picture or a file in *part* is (None: the context), and the bytes of the body that it takes."""
    kind = part.get("type")
    if kind in ("image", "image_url", "input_image"):
        source = part.get("source") or part.get("image_url") or part.get("data") or ""
        data = source.get("data") or source.get("url") or "" if isinstance(source, dict) else source
        size = len(data) if isinstance(data, str) else 0
        return _PICTURE, size
    if kind in ("document", "file", "input_file"):
        source = part.get("source") or part.get("file") or part
        inside = isinstance(source, dict) and (source.get("type") in ("text", "content") or any(source.get(key) for key in ("data", "file_data")))
        # A page costs its text and its picture, however few bytes a compressed file has: only plain text is bounded by its size.
        plain = inside and isinstance(source, dict) and source.get("type") in ("text", "content")
        return (0, 0) if plain else (None, 0)
    if kind == "container_upload" or part.get("file_id"):
        return None, 0
    return 0, 0
