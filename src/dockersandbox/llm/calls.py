# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Calls as agents ask for them: what may be asked, what it can cost at the most, and what is sent on. Without I/O.

What is sent on is written anew from what was read here: of a key that a body has twice, what was checked is what counts.
"""

from __future__ import annotations

import codecs
import dataclasses
import functools
import hashlib
import re
import typing as t
import unicodedata

import msgspec

from dockersandbox.llm.prices import INPUTS, OUTPUTS, STANDARD

Body = dict[str, t.Any]
Wire = t.Literal["messages", "chat", "responses"]

# No byte of text is more than one token, once its characters are plain ones, as some tokenizers make them first: one that is written
# with others then has so many bytes more at the most. They are looked for in so many bytes at a time.
_GROWTH = 30
_PIECE = 1 << 16
# Around a text come the frame of a conversation, and what a provider says of tools, of each one that it knows by its type, and of the
# form that an answer must have.
_FRAME = 64
_TOOLS = 1024
# What a picture costs at the most, however large it is: some of OpenAI's small models take more tokens for one than others.
_PICTURE: dict[Wire, int] = {"messages": 16_384, "chat": 49_152, "responses": 49_152}
# What is put around each sentence that may be cited, and what ends one.
_SENTENCE = 32
_ENDS = ".!?\n\u3002\uff01\uff1f"
# What a provider wants for thinking at the least.
_THOUGHT = 1024
_MOST_TOOLS = 4096
# More than this many values take more memory than the body's size lets expect, and so many parts of a conversation more time.
_MOST_VALUES = 1_000_000
_MOST_PARTS = 100_000
_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,127}")
_LIMITS: dict[Wire, tuple[str, ...]] = {
    "messages": ("max_tokens",),
    "chat": ("max_completion_tokens", "max_tokens"),
    "responses": ("max_output_tokens",),
}
# Tools that the agent runs itself, by the beginning of their type.
_OWN_TOOLS: dict[Wire, tuple[str, ...]] = {
    "messages": ("custom", "bash_", "text_editor_", "computer_", "browser_", "memory_"),
    "chat": ("function", "custom"),
    "responses": ("function", "custom", "local_shell", "shell", "apply_patch", "computer", "namespace", "tool_search"),
}
# Tools that the provider runs: the word an operator allows them by → what is charged for a use of it.
ServerTool = t.Literal["web_search", "web_fetch", "file_search", "code_execution", "code_interpreter", "tool_search_tool"]
SERVER_TOOLS: dict[ServerTool, str] = {
    "web_search": "web_searches",
    "web_fetch": "",
    "file_search": "storage_searches",
    "code_execution": "code_executions",
    "code_interpreter": "code_executions",
    "tool_search_tool": "",
}
# What would go on, or be kept, at the provider where nobody counts it. Much of it is a router's, which may speak any of the protocols.
_SEARCHES = "searches whose number cannot be limited"
_ANYWHERE = {
    "web_search_options": _SEARCHES,
    "search_parameters": _SEARCHES,
    "enable_search": _SEARCHES,
    "plugins": "work that the provider would do besides",
    "preset": "what is set at the provider",
    "extra_headers": "headers that nobody has seen",
    "anthropic_beta": "headers that nobody has seen",
    "api_base": "an answer from elsewhere",
    "base_url": "an answer from elsewhere",
}
_REFUSED_KEYS: dict[Wire, dict[str, str]] = {
    "messages": {"mcp_servers": "servers that the provider would connect to", "container": "a container at the provider", **_ANYWHERE},
    "chat": _ANYWHERE,
    "responses": {"background": "an answer that is made later", **_ANYWHERE},
}
# Other models that the provider would try after this one. Without them a call that is declined is, and its client may ask again.
_LEFT_OUT = ("fallbacks", "models")
# Where a call says how fast it is to be served → which price that has. What is slower is charged as such once the answer says so.
_SPEEDS: dict[Wire, tuple[str, dict[str, str]]] = {
    "messages": ("speed", {"standard": STANDARD, "fast": "fast"}),
    "chat": (
        "service_tier",
        {"auto": STANDARD, "default": STANDARD, "flex": STANDARD, "scale": STANDARD, "on_demand": STANDARD, "priority": "priority", "fast": "priority"},
    ),
}
_SPEEDS["responses"] = _SPEEDS["chat"]
# What an answer may say of how it was served, so that its price is known.
SERVED = frozenset({STANDARD, *_SPEEDS["messages"][1], *_SPEEDS["chat"][1]})
# Conversations that are kept at the provider, and what it makes a part of this one.
_KEPT: dict[Wire, tuple[str, ...]] = {"messages": ("thread",), "chat": (), "responses": ("previous_response_id", "conversation", "prompt")}
# What the provider would fetch where it is a link, and not the thing itself.
_LINKS = ("image_url", "file_url", "video_url", "audio_url")
_HOLDERS = frozenset({*_LINKS, "source", "file", "input_audio"})
# Every key that is looked at in a request, wherever. Some servers do not tell upper case from lower in a key, and go by the last.
_NAMES = frozenset(
    "model stream stream_options include_usage n best_of tools tool definition environment memory_limit network_policy max_tool_calls max_uses"
    " system messages instructions input variables content output tool_references role id type url data result audio file_id thinking"
    " budget_tokens prediction inference_geo context_management compaction cache_control ttl container citations enabled modalities".split()
).union(_LEFT_OUT, _HOLDERS, (key for key, _known in _SPEEDS.values()), *_LIMITS.values(), *_REFUSED_KEYS.values(), *_KEPT.values())
# Where such keys may stand besides: in parts of these names, of the request and of a tool.
_INNER = frozenset({"stream_options", "thinking", "environment", "container", "cache_control", "citations", *_HOLDERS})
_USUAL = _NAMES.union("text name tool_use_id call_id arguments description input_schema function parameters".split()) - _INNER


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
    server_tools: t.Mapping[ServerTool, int] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(slots=True)
class Call:
    """A call that may be made, as far as its form goes.

    *inputs* is the most tokens that can go in, None when only the model's context limits them; *outputs* the most tokens that
    one choice may have and *least* what that can be cut down to, *choices* how many of them there are, *extra* what may be
    charged as output besides. *rounds*: how often the provider may read it all. *kinds* are the fields of a usage that tokens
    may be charged as. *percent* of its price is what it is served at as far as it says, *most_percent* at the most. *thinks*:
    whether tokens may come out that no answer shows, *hears* and *speaks*: whether what goes in, or comes out, may be heard.
    *injected*: whether a usage was asked for that the client did not ask for. *left_out* are the keys that are not sent on.
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
    most_percent: int
    thinks: bool
    hears: bool
    speaks: bool
    injected: bool
    clamped: bool
    hour: bool
    left_out: tuple[str, ...]
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
        body = self._values()
        for key in _LIMITS[self.wire]:
            if body.get(key) is not None:
                body[key] = min(body[key], each)
        thinking = body.get("thinking")
        if isinstance(thinking, dict) and isinstance(budget := thinking.get("budget_tokens"), int) and budget >= each:
            body["thinking"] = {**thinking, "budget_tokens": max(_THOUGHT, each // 2)}
        self.encoded = msgspec.json.encode(body)

    def put(self, key: str, value: t.Any) -> None:
        """Set a value of what is sent on."""
        body = self._values()
        body[key] = value
        self.encoded = msgspec.json.encode(body)

    def _values(self) -> Body:
        return self.body or t.cast("Body", msgspec.json.decode(self.encoded))

    def lighten(self) -> None:
        """Keep only the bytes of what is sent on: a long text with one rare character takes four times as much."""
        self.body = {}


def read(wire: Wire, raw: bytes, rules: Rules) -> Call:
    """Return the call in the body *raw* of a request. Raises Refusal."""
    body = _object(raw, rules)
    model = model_name(body)
    stream = _of(body, "stream", bool, False)
    left_out = tuple(key for key in _LEFT_OUT if body.pop(key, None))
    parts = _parts(body)
    offered = _offered(body, parts)
    rounds, tools = _asked(wire, body, parts, offered, rules)
    choices = _choices(body, rules)
    if wire == "chat" and ("-search" in model.lower() or model.lower().endswith(":online")):
        # Such a model looks things up whether it is asked to or not, once for each answer, and does not say so.
        if "web_search" not in rules.server_tools:
            raise Refusal(403, "server_tool", f"{model}: the provider would search where nobody sees it; cost_rules.server_tools allows it as web_search")
        rounds, tools = 2, {SERVER_TOOLS["web_search"]: choices}
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
    hears = speaks = False
    if b"audio" in encoded:
        kinds += ["input_audio", "output_audio"]
        hears = any(part.get("type") in ("input_audio", "audio_url") for part in parts)
        speaks = wire == "chat" and ("audio" in _of(body, "modalities", list, []) or bool(body.get("audio")))
    compacts = b'"compact' in encoded and bool(body.get("context_management") or body.get("compaction") or b'"compaction_trigger"' in encoded)
    inputs = _inputs(wire, body, parts, offered, encoded)
    prediction = body.get("prediction") if wire == "chat" else None
    percent = geo_percent(str(body.get("inference_geo") or "")) if wire == "messages" else 100
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
        percent=percent,
        most_percent=percent,
        # What a model of OpenAI's thought is charged and not shown, whether it was asked to or not.
        thinks=wire != "messages" or (isinstance(thinking, dict) and thinking.get("type") != "disabled"),
        hears=hears,
        speaks=speaks,
        injected=injected,
        clamped=clamped,
        hour=hour,
        left_out=left_out,
        encoded=encoded,
    )


def read_count(raw: bytes, rules: Rules) -> Body:
    """Return the body *raw* of a request to count tokens, which costs nothing. Raises Refusal."""
    body = _object(raw, rules)
    model_name(body)
    parts = _parts(body)
    _asked("messages", body, parts, _offered(body, parts), rules)
    return body


def geo_percent(geo: str) -> int:
    """Return at how many percent of its price a call is served there."""
    return 100 if geo in ("", "global", "not_available") else 110


def values(raw: bytes) -> int:
    """Return how many values the JSON in *raw* can have: each has one of these before it, which texts may have as well."""
    return raw.count(b",") + raw.count(b"[") + raw.count(b"{")


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
    # Few bytes cannot have many.
    if len(raw) > _MOST_VALUES and values(raw) > _MOST_VALUES:
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


def _choices(body: Body, rules: Rules) -> int:
    most = 1
    # Also where the protocol has no such number: a router may go by it.
    for key in ("n", "best_of"):
        count = _of(body, key, int, 1)
        if not 1 <= count <= rules.most_choices:
            raise Refusal(400, "choices", f"{key}: {_shown(count)} is not a number of answers from 1 to {rules.most_choices}")
        most = max(most, count)
    return most


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
    key, known = _SPEEDS[wire]
    value = body.get(key)
    if value is None:
        return STANDARD
    if not isinstance(value, str) or value not in known:
        raise Refusal(400, "tier", f"{key}: {_shown(value)} is not one whose price is known: {', '.join(known)}")
    return known[value]


def _asked(wire: Wire, body: Body, parts: list[Body], offered: list[tuple[str, t.Any]], rules: Rules) -> tuple[int, dict[str, int]]:
    """Return how often the provider may read what goes in, and how often it may use which of its tools. Raises Refusal."""
    for part in (body, *parts, *(tool for _where, tool in offered if isinstance(tool, dict))):
        # In a long conversation there are thousands, and most are like this.
        if not part.keys() <= _USUAL:
            _plain(part)
    for key in filter(body.get, _REFUSED_KEYS[wire]):
        raise Refusal(403, "not_allowed", f"{key} is not allowed: it asks for {_REFUSED_KEYS[wire][key]}")
    link = next(filter(None, map(_link, parts)), "")
    if link and "web_fetch" not in rules.server_tools:
        text = f"the provider would fetch {_shown(link)} where nobody sees it: send what is there, or have cost_rules.server_tools allow web_fetch"
        raise Refusal(403, "server_tool", text)
    rounds = 1
    uses: dict[str, int] = {}
    for where, tool in offered:
        kind = _run_there(wire, where, tool)
        if not kind:
            continue
        word = next((word for word in rules.server_tools if kind.startswith(word)), None)
        if word is None or wire == "chat":
            raise Refusal(403, "server_tool", f"{where}: the provider would run {_shown(kind)} where nobody sees it; cost_rules.server_tools allows it")
        most = rules.server_tools[word]
        limited, key = (tool, "max_uses") if wire == "messages" else (body, "max_tool_calls")
        limited[key] = most = max(1, min(most, _of(limited, key, int, most)))
        rounds += most
        if SERVER_TOOLS[word]:
            uses[SERVER_TOOLS[word]] = uses.get(SERVER_TOOLS[word], 0) + most
    return rounds, uses


def _plain(part: Body) -> None:
    """Refuse a key that some server takes for one that is looked at here, as it is written here."""
    for key in part:
        if key not in _NAMES and (other := key.casefold()) in _NAMES:
            raise Refusal(400, "value", f"{_shown(key)}: such a key is written {other!r}")
    for key in _INNER.intersection(part):
        _plain(_object_of(part, key))


def _offered(body: Body, parts: list[Body]) -> list[tuple[str, t.Any]]:
    """Return each tool that is offered, and where it stands: a conversation may bring some along, and a tool hold others. Raises Refusal."""
    waiting = [("tools", body.get("tools"))]
    for part in parts:
        if "tools" in part:
            waiting.append((f"{_shown(part.get('type'))}.tools", part["tools"]))
        change = part.get("tool")
        if isinstance(change, dict) and "definition" in change:
            waiting.append((f"{_shown(part.get('type'))}.definition", [change["definition"]]))
    found: list[tuple[str, t.Any]] = []
    while waiting:
        place, tools = waiting.pop()
        tools = _of({place: tools}, place, list, [])
        if len(found) + len(tools) > _MOST_TOOLS:
            raise Refusal(400, "tool", f"{place}: {len(found) + len(tools)} tools are more than {_MOST_TOOLS}")
        for index, tool in enumerate(tools):
            found.append((f"{place}[{index}]", tool))
            if isinstance(tool, dict) and tool.get("tools"):
                waiting.append((f"{place}[{index}].tools", tool["tools"]))
    return found


def _run_there(wire: Wire, where: str, tool: t.Any) -> str:
    """Return the type of a *tool* that the provider runs, "" for one that the agent runs. Raises Refusal."""
    kind = tool.get("type", "custom" if wire == "messages" else None) if isinstance(tool, dict) else None
    if not isinstance(kind, str):
        raise Refusal(400, "tool", f"{where}: is not a tool with a type")
    if wire == "responses" and kind == "shell":
        # Where it is if nobody says so is the provider's affair.
        place = tool["environment"] = tool.get("environment") or {"type": "local"}
        return "" if isinstance(place, dict) and place.get("type") == "local" else kind
    if kind.startswith(_OWN_TOOLS[wire]):
        return ""
    box = _object_of(tool, "container")
    if box.get("memory_limit") not in (None, "1g") or box.get("network_policy") not in (None, {"type": "disabled"}):
        raise Refusal(403, "server_tool", f"{where}: a container with more than 1g or with a network is more than cost_rules.server_tools allows")
    return kind


def _inputs(wire: Wire, body: Body, parts: list[Body], offered: list[tuple[str, t.Any]], encoded: bytes) -> int | None:
    """Return the most tokens that go in; None when only the model's context limits them."""
    if any(map(body.get, _KEPT[wire])):
        return None
    described = sum(isinstance(tool, dict) and tool.get("type") not in (None, "custom", "function") for _where, tool in offered)
    inputs = len(encoded) + _grown(encoded) + _FRAME + _TOOLS * (described + bool(offered) + (b'"json_schema"' in encoded))
    named = 0
    for part in parts:
        tokens, size = _media(wire, part)
        if tokens is None:
            return None
        inputs += tokens - size
        named += part.get("type") in ("tool_reference", "tool_addition")
    if named:
        # A tool that a conversation names is put there, as often as it does.
        inputs += named * max((len(msgspec.json.encode(tool)) for _where, tool in offered), default=0)
    return inputs


@functools.cache
def _growing() -> re.Pattern[str]:
    """Return what finds characters that have more bytes once they are plain (NFKC)."""
    composed = filter(unicodedata.decomposition, map(chr, range(0x80, 0x30000)))
    return re.compile("[" + "".join(one for one in composed if len(unicodedata.normalize("NFKC", one).encode()) > len(one.encode())) + "]")


def _grown(text: bytes) -> int:
    """Return how many bytes more *text* may have once its characters are plain."""
    if text.isascii():
        return 0
    others = text.translate(None, bytes(range(0x80)))
    decode, found = codecs.getincrementaldecoder("utf-8")().decode, 0
    for start in range(0, len(others), _PIECE):
        found += len(_growing().findall(decode(others[start : start + _PIECE])))
    return _GROWTH * found


def _object_of(part: Body, key: str) -> Body:
    value = part.get(key)
    return value if isinstance(value, dict) else {}


_WITHIN = frozenset({"content", "output", "tool_references", "source"})


def _parts(body: Body) -> list[Body]:
    """Return the parts of the conversation that are objects, those within results of tools and within documents too. Raises Refusal."""
    waiting: list[t.Any] = [body.get(key) for key in ("system", "messages", "instructions", "input")]
    waiting += _object_of(_object_of(body, "prompt"), "variables").values()
    found: list[Body] = []
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting += value
        elif isinstance(value, dict):
            found.append(value)
            if len(found) > _MOST_PARTS:
                raise Refusal(413, "too_large", f"the conversation has more than {_MOST_PARTS} parts")
            # In a long conversation there are thousands, and most hold a text.
            for key in _WITHIN.intersection(value):
                inner = value[key]
                if not isinstance(inner, str):
                    waiting.append(_object_of(value, key).get("content") if key == "source" else inner)
    return found


def _link(part: Body) -> str:
    """Return the link in *part* that the provider would follow, "" for none."""
    if _HOLDERS.isdisjoint(part):
        return ""
    found = [part.get(key) for key in _LINKS]
    for holder in _HOLDERS.intersection(part):
        inner = _object_of(part, holder)
        found += [inner.get(key) for key in ("url", *_LINKS)]
    return next((link for link in found if isinstance(link, str) and link and not link.startswith("data:")), "")


def _media(wire: Wire, part: Body) -> tuple[int | None, int]:
    """Return the most tokens that a picture or a file in *part* is (None: the context), and the bytes of the body that it takes."""
    kind = part.get("type")
    if kind in ("image", "image_url", "input_image", "computer_screenshot", "image_generation_call"):
        source = part.get("source") or part.get("image_url") or part.get("data") or part.get("result") or ""
        data = source.get("data") or source.get("url") or "" if isinstance(source, dict) else source
        size = len(data) if isinstance(data, str) else 0
        return _PICTURE[wire], size
    if kind in ("video", "video_url", "input_video"):
        # An hour in which nothing moves has few bytes.
        return None, 0
    if kind in ("document", "file", "input_file"):
        source = part.get("source") or part.get("file") or part
        # A page costs its text and its picture, however few bytes a compressed file has: only plain text is bounded by its size.
        if not isinstance(source, dict) or source.get("type") not in ("text", "content"):
            return None, 0
        text = source.get("data")
        if not isinstance(text, str) or not _object_of(part, "citations").get("enabled"):
            return 0, 0
        return _SENTENCE * sum(map(text.count, _ENDS)), 0
    # What was said before, and only has its name here.
    named = kind == "item_reference" or (kind is None and "id" in part and "role" not in part) or ("audio" in part and "id" in _object_of(part, "audio"))
    if named or kind == "container_upload" or part.get("file_id"):
        return None, 0
    return 0, 0
