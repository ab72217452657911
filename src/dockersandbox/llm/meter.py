# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an answer cost: reads it as it comes by, whatever pieces it comes in, and keeps none of it. Without I/O.

A usage is believed as far as it can be true. One that is negative, or beyond what the call could use, is charged as the most
that the call can cost, and told of.
"""

from __future__ import annotations

import dataclasses
import decimal
import math
import re
import typing as t
import zlib

import brotli
import msgspec
import zstandard

from dockersandbox.llm import calls
from dockersandbox.llm.calls import Call
from dockersandbox.llm.prices import Price, Prices, Unpriced, Usage

# An event, or a whole answer that is not a stream, is not read beyond this: some times more than pictures in one take.
MOST_EVENT = 32 << 20
# An answer that is packed is not unpacked beyond this.
_MOST_UNPACKED = 256 << 20
# No count beyond this is one, whatever the model.
_ABSURD = 10**9
_END = re.compile(rb"\r\n\r\n|\n\n|\r\r|\n\r\n|\r\n\n")
_LINE = re.compile(rb"\r\n|\n|\r")
_NO_USAGE = re.compile(rb',\s*"usage"\s*:\s*null')
_TOLD = re.compile(rb'"usage"\s*:\s*\{')
# In an event of a chat: a text that is not empty, or a call of a tool.
_SAYS = re.compile(rb'"(?:content|text|refusal|reasoning|reasoning_content|name|arguments)"\s*:\s*"[^"]')


class Unreadable(Exception):
    """What an upstream sent cannot be read; the text is one line."""


class Unpacker:
    """Unpacks an answer as it comes, by its ``Content-Encoding``. Raises Unreadable for one that is not known."""

    def __init__(self, encoding: str) -> None:
        self._left = _MOST_UNPACKED
        self._unpack: t.Callable[[bytes], bytes] | None = None
        word = encoding.strip().lower()
        if word in ("", "identity"):
            return
        makers: dict[str, t.Callable[[], t.Callable[[bytes], bytes]]] = {
            "gzip": lambda: self._inflater(zlib.MAX_WBITS | 16),
            "x-gzip": lambda: self._inflater(zlib.MAX_WBITS | 16),
            "deflate": self._deflate,
            "br": self._brotli,
            "zstd": self._zstd,
        }
        if word not in makers:
            raise Unreadable(f"Content-Encoding {encoding[:40]!r} is not known")
        self._unpack = makers[word]()

    def feed(self, data: bytes) -> bytes:
        """Return what *data* unpacks to. Raises Unreadable, also for what unpacks to too much."""
        if self._unpack is None:
            return data
        try:
            found = self._unpack(data)
        except (zlib.error, brotli.error, zstandard.ZstdError) as error:
            raise Unreadable(f"the answer cannot be unpacked: {error}") from None
        self._left -= len(found)
        if self._left < 0:
            raise Unreadable(f"the answer unpacks to more than {_MOST_UNPACKED} bytes")
        return found

    def _inflater(self, bits: int) -> t.Callable[[bytes], bytes]:
        unpacker = zlib.decompressobj(bits)
        return lambda data: unpacker.decompress(data, self._left + 1)

    def _deflate(self) -> t.Callable[[bytes], bytes]:
        begun = bytearray()
        chosen: list[t.Callable[[bytes], bytes]] = []

        def unpack(data: bytes) -> bytes:
            if chosen:
                return chosen[0](data)
            begun.extend(data)
            if len(begun) < 2:
                return b""
            # Some send it without the frame that belongs around it.
            framed = begun[0] & 15 == 8 and int.from_bytes(begun[:2], "big") % 31 == 0
            chosen.append(self._inflater(zlib.MAX_WBITS if framed else -zlib.MAX_WBITS))
            return chosen[0](bytes(begun))

        return unpack

    def _brotli(self) -> t.Callable[[bytes], bytes]:
        unpacker = brotli.Decompressor()
        return lambda data: bytes(unpacker.process(data, output_buffer_limit=self._left + 1))

    def _zstd(self) -> t.Callable[[bytes], bytes]:
        unpacker = zstandard.ZstdDecompressor(max_window_size=8 << 20).decompressobj()

        def unpack(data: bytes) -> bytes:
            # It cannot be told where to stop, so that it gets little at a time.
            found = bytearray()
            for start in range(0, len(data), 512):
                found += unpacker.decompress(data[start : start + 512])
                if len(found) > self._left:
                    break
            return bytes(found)

        return unpack


class Events:
    """Cuts a stream of server-sent events into its events. Raises Unreadable for one that never ends."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._looked = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Return the events, as they came and with the line that ends each, that *data* completes."""
        self._rest += data
        found = []
        start = 0
        while match := _END.search(self._rest, max(start, self._looked - 3)):
            found.append(bytes(self._rest[start : match.end()]))
            start = self._looked = match.end()
        if start:
            del self._rest[:start]
        self._looked = len(self._rest)
        if self._looked > MOST_EVENT:
            raise Unreadable(f"an event has more than {MOST_EVENT} bytes")
        return found

    def end(self) -> bytes:
        """Return what came after the last whole event."""
        return bytes(self._rest)


def data_of(event: bytes) -> bytes:
    """Return the data of one server-sent event, the lines of it joined."""
    lines = [line[5:].removeprefix(b" ") for line in _LINE.split(event) if line.startswith(b"data:")]
    return lines[0] if len(lines) == 1 else b"\n".join(lines)


@dataclasses.dataclass(slots=True)
class Answer:
    """What is known of an answer: *counts* by the fields of a usage, and whether any, or the final ones, were *told*.

    *broken*: what was told cannot be true. *cost*: what the provider itself says that it charges, in micro-dollars. *ended*: by
    its own word. *said*: it says something, of which there are *shown* bytes at the most. *thought*: whether there was thinking,
    of which perhaps nothing is shown.
    """

    counts: dict[str, int] = dataclasses.field(default_factory=dict)
    cost: int = 0
    told: bool = False
    outputs_told: bool = False
    broken: bool = False
    ended: bool = False
    said: bool = False
    thought: bool = False
    failed: bool = False
    model: str = ""
    tier: str = ""
    geo: str = ""
    shown: int = 0
    events: int = 0
    problems: list[str] = dataclasses.field(default_factory=list)

    def note(self, field: str, value: t.Any) -> None:
        """Take a count into account: of several the highest, for they are told as they grow."""
        if value is None:
            return
        if not calls.whole(value) or not 0 <= value <= _ABSURD:
            self.wrong(f"{field} is {str(value)[:40]}")
        elif value > self.counts.get(field, -1):
            self.counts[field] = value

    def note_cost(self, usage: dict[str, t.Any]) -> None:
        """Take into account what a provider says that the call did cost, where it does: in dollars, or with the sum in an object."""
        told = usage.get("cost")
        dollars = told.get("total_cost") if isinstance(told, dict) else told
        if (calls.whole(dollars) or isinstance(dollars, float)) and 0 < dollars < _ABSURD:
            self.cost = max(self.cost, math.ceil(decimal.Decimal(str(dollars)) * 10**6))

    def wrong(self, problem: str, broken: bool = True) -> None:
        """Note a problem, and that what was told is not to be believed."""
        self.broken = self.broken or broken
        if len(self.problems) < 8:
            self.problems.append(problem)


class Meter:
    """Reads the answer to *call*: hand it every byte, and send on what it returns."""

    def __init__(self, call: Call, streamed: bool, encoding: str = "") -> None:
        self.answer = Answer()
        self._call = call
        self._strip = call.injected and streamed
        self._read = _READERS[call.wire]
        self._events = Events() if streamed else None
        self._whole = bytearray()
        self._unpacker: Unpacker | None = None
        try:
            self._unpacker = Unpacker(encoding)
        except Unreadable as error:
            self._give_up(str(error))

    @property
    def rewrites(self) -> bool:
        """Whether what is sent on is not what came, and is not packed."""
        return self._strip and self._unpacker is not None

    def feed(self, data: bytes) -> bytes:
        """Return what is to be sent on for *data*."""
        if self._unpacker is None:
            return data
        try:
            plain = self._unpacker.feed(data)
            if self._events is None:
                self._whole += plain
                if len(self._whole) > MOST_EVENT:
                    raise Unreadable(f"the answer has more than {MOST_EVENT} bytes")
                return data
            kept = [self._event(event) for event in self._events.feed(plain)]
        except Unreadable as error:
            self._give_up(str(error))
            return b"" if self._strip else data
        return b"".join(kept) if self._strip else data

    def end(self) -> bytes:
        """Say that all has come; return what is still to be sent on."""
        rest = b""
        if self._unpacker is not None:
            if self._events is None:
                self.answer.shown = len(self._whole)
                self._take(self._whole, whole=True)
            else:
                # Who ends without a blank line has still said what he said.
                rest = self._event(self._events.end())
        return rest if self._strip else b""

    def _give_up(self, problem: str) -> None:
        self.answer.wrong(problem)
        self._unpacker = None

    def _event(self, event: bytes) -> bytes:
        """Read one event, and return it as it is to be sent on."""
        data = data_of(event)
        answer = self.answer
        answer.events += 1
        answer.shown += len(data)
        if self._strip:
            event, data = self._stripped(event, data)
        elif data:
            self._take(data, whole=False)
        return event

    def _stripped(self, event: bytes, data: bytes) -> tuple[bytes, bytes]:
        """Return an event of a chat without the usage that the client did not ask for."""
        self._take(data, whole=False)
        if _TOLD.search(data):
            try:
                content = msgspec.json.decode(data)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                return event, data
            if isinstance(content, dict) and isinstance(content.get("usage"), dict):
                del content["usage"]
                if not content.get("choices"):
                    return b"", data
                return b"data: " + msgspec.json.encode(content) + b"\n\n", data
        return _NO_USAGE.sub(b"", event), data

    def _take(self, data: bytes | bytearray, whole: bool) -> None:
        if data == b"[DONE]":
            self.answer.ended = True
            return
        if b'"thinking"' in data or b'"redacted_thinking"' in data:
            # Newer models do so without being asked to.
            self.answer.thought = True
        if self._call.wire == "chat" and not whole and not self.answer.said:
            self.answer.said = _SAYS.search(data) is not None
        # What is only text is not looked into.
        if not whole and not _TOLD.search(data) and b'"error"' not in data and b"_stop" not in data:
            return
        try:
            content = msgspec.json.decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            self.answer.wrong(f"not JSON: {error}", broken=False)
            return
        if isinstance(content, dict):
            self._read(self.answer, content, whole, self._call)


def _text(value: t.Any) -> str:
    return value[:128] if isinstance(value, str) else ""


def _object(value: t.Any) -> dict[str, t.Any]:
    return value if isinstance(value, dict) else {}


def _messages(answer: Answer, content: dict[str, t.Any], whole: bool, call: Call) -> None:
    kind = content.get("type")
    if kind == "error":
        answer.failed = answer.ended = True
        return
    if kind == "message_stop":
        answer.ended = True
        return
    answer.said = answer.said or kind == "content_block_stop" or (whole and bool(content.get("content")))
    message = _object(content.get("message")) if kind == "message_start" else content
    answer.model = _text(message.get("model")) or answer.model
    usage = message.get("usage")
    if not isinstance(usage, dict):
        return
    answer.told = True
    answer.outputs_told = answer.outputs_told or whole or kind == "message_delta"
    answer.ended = answer.ended or whole
    answer.tier = _text(usage.get("speed")) or answer.tier
    answer.geo = _text(usage.get("inference_geo")) or answer.geo
    answer.note_cost(usage)
    # Where a turn was compacted on the way, the totals leave out what that took.
    iterations = usage.get("iterations")
    rounds = [_object(item) for item in iterations] if isinstance(iterations, list) else []

    def summed(key: str) -> t.Any:
        told = [item.get(key) for item in rounds]
        total = sum(value for value in told if calls.whole(value) and value > 0)
        return max(total, usage[key]) if calls.whole(usage.get(key)) and usage[key] >= 0 else usage.get(key, total or None)

    count = summed if rounds else usage.get
    answer.note("input", count("input_tokens"))
    answer.note("cache_read", count("cache_read_input_tokens"))
    answer.note("output", count("output_tokens"))
    written = count("cache_creation_input_tokens")
    apart = _object(usage.get("cache_creation"))
    hour = apart.get("ephemeral_1h_input_tokens")
    if calls.whole(written) and not apart and call.hour:
        # It does not say for how long: for the longer time.
        answer.note("cache_write_1h", written)
    elif calls.whole(written) and calls.whole(hour):
        answer.note("cache_write_1h", hour)
        answer.note("cache_write", max(written - hour, 0))
    else:
        answer.note("cache_write", written)
    tools = _object(usage.get("server_tool_use"))
    answer.note("web_searches", tools.get("web_search_requests"))
    answer.note("code_executions", tools.get("code_execution_requests"))


# What of a chat's message says something.
_SAID = ("content", "refusal", "tool_calls", "function_call", "audio")


def _chat(answer: Answer, content: dict[str, t.Any], whole: bool, call: Call) -> None:
    if content.get("error"):
        answer.failed = answer.ended = True
    for tool, uses in call.tools.items():
        answer.note(tool, uses)
    answer.model = _text(content.get("model")) or answer.model
    answer.tier = _text(content.get("service_tier")) or answer.tier
    answer.ended = answer.ended or whole
    choices = content.get("choices")
    messages = [_object(_object(choice).get("message")) for choice in choices] if isinstance(choices, list) else []
    answer.said = answer.said or any(message.get(key) for message in messages for key in _SAID)
    _openai(answer, content.get("usage"), "prompt_tokens", "completion_tokens", call)


def _responses(answer: Answer, content: dict[str, t.Any], whole: bool, call: Call) -> None:
    kind = content.get("type")
    if kind == "error":
        answer.failed = answer.ended = True
    response = content if whole else _object(content.get("response"))
    answer.model = _text(response.get("model")) or answer.model
    answer.tier = _text(response.get("service_tier")) or answer.tier
    if whole or kind in ("response.completed", "response.incomplete", "response.failed"):
        answer.ended = True
        answer.failed = answer.failed or response.get("status") == "failed"
        output = response.get("output")
        kinds = [item.get("type") for item in output if isinstance(item, dict)] if isinstance(output, list) else []
        answer.note("web_searches", kinds.count("web_search_call"))
        answer.note("storage_searches", kinds.count("file_search_call"))
        answer.note("code_executions", kinds.count("code_interpreter_call"))
        answer.said = bool(kinds)
        _openai(answer, response.get("usage"), "input_tokens", "output_tokens", call)


def _openai(answer: Answer, usage: t.Any, inputs_key: str, outputs_key: str, call: Call) -> None:
    if not isinstance(usage, dict):
        return
    inputs, outputs, total = usage.get(inputs_key), usage.get(outputs_key), usage.get("total_tokens")
    answer.told = answer.outputs_told = True
    answer.note_cost(usage)
    into = _object(usage.get("prompt_tokens_details") or usage.get("input_tokens_details"))
    out = _object(usage.get("completion_tokens_details") or usage.get("output_tokens_details"))
    # Who does not tell apart what is heard is charged as if all of it were.
    if call.hears and into.get("audio_tokens") is None:
        into = {"audio_tokens": inputs}
    if call.speaks and out.get("audio_tokens") is None:
        out = {"audio_tokens": outputs}
    for field, value in (
        ("cache_read", into.get("cached_tokens")),
        ("cache_write", into.get("cache_write_tokens")),
        ("input_audio", into.get("audio_tokens")),
        ("output_audio", out.get("audio_tokens")),
    ):
        answer.note(field, value)
    if calls.whole(inputs) and inputs >= 0:
        # What goes in is told as a whole, with its parts besides.
        inputs = max(0, inputs - sum(answer.counts.get(field, 0) for field in ("cache_read", "cache_write", "input_audio")))
    if calls.whole(outputs) and outputs >= 0:
        # Some leave what was thought out of what came out, but not out of the total.
        if calls.whole(total) and calls.whole(usage.get(inputs_key)):
            outputs = max(outputs, total - usage[inputs_key])
        outputs = max(0, outputs - answer.counts.get("output_audio", 0))
    answer.note("input", inputs)
    answer.note("output", outputs)


_READERS: dict[calls.Wire, t.Callable[[Answer, dict[str, t.Any], bool, Call], None]] = {
    "messages": _messages,
    "chat": _chat,
    "responses": _responses,
}


class Charge(t.NamedTuple):
    """What to charge for a call: *micro* micro-dollars for *usage*; *estimated* upwards, or by what was told. *alarms*: why
    somebody should look, a word and a text each."""

    micro: int
    usage: Usage
    estimated: bool
    alarms: tuple[tuple[str, str], ...]


def charge(call: Call, answer: Answer, price: Price, prices: Prices, provider: str, at: int, held: int) -> Charge:
    """Return what to charge for an *answer* that has come to its end; *held* are the micro-dollars held for it.

    A usage above what is held is charged when the model could have used as much, for then the bound was wrong; else it is
    absurd, and what is held is charged.
    """
    alarms = [("usage_unreadable", problem) for problem in answer.problems]
    usage = Usage(**answer.counts)
    whole = answer.outputs_told and "input" in answer.counts and "output" in answer.counts
    # What says something took something, and gave something.
    empty = whole and answer.said and not (usage.total_input and usage.output + usage.output_audio)
    if answer.broken or empty or not whole:
        if empty and not answer.broken:
            alarms.append(("usage_unreadable", "a usage of nothing for an answer that says something"))
        elif not answer.broken and not answer.failed:
            alarms.append(("usage_missing", "the answer does not say what it used"))
        if usage.total_input and not answer.broken and not (call.thinks or answer.thought):
            # What went in was told at its start, and no byte that was shown is more than one token.
            guessed = usage._replace(output=max(usage.output, min(call.most_outputs, answer.shown)))
            micro = min(held, price.cost(guessed, call.most_percent))
            return Charge(micro, guessed, True, tuple(alarms))
        return Charge(held, usage, True, tuple(alarms))
    if answer.tier not in calls.SERVED:
        alarms.append(("tier_unknown", f"it was served as {answer.tier!r}, whose price is not known"))
        return Charge(held, usage, True, tuple(alarms))
    percent = calls.geo_percent(answer.geo) if answer.geo else call.percent
    micro = _dearest(answer.tier or call.tier, call.model, answer.model, usage, price, prices, provider, at, percent)
    if answer.cost > _BESIDES * max(micro, held):
        alarms.append(("usage_absurd", f"the provider tells of {answer.cost} micro-dollars, for a call of {micro} by its usage"))
    elif answer.cost > micro:
        micro = answer.cost
    if micro > held:
        most_in = max(call.inputs or 0, price.context or 0, 2_000_000) * call.rounds
        # Not every server keeps to what it is told of how much may come out.
        most_out = max(call.most_outputs + _SLACK, price.context, answer.shown)
        if usage.total_input > most_in or usage.output + usage.output_audio > most_out:
            alarms.append(("usage_absurd", f"{usage.total_input} tokens in and {usage.output} out are more than the call could use"))
            return Charge(held, usage, True, tuple(alarms))
        alarms.append(("above_hold", f"the call cost {micro} micro-dollars, and {held} were held"))
    return Charge(micro, usage, False, tuple(alarms))


# How many tokens more than it was allowed to an upstream may let come out.
_SLACK = 1024
# How many times what a call costs by its usage, or could, a provider may charge for it: a router's searches and fees come on top.
_BESIDES = 10


def _dearest(tier: str, asked: str, answered: str, usage: Usage, price: Price, prices: Prices, provider: str, at: int, percent: int) -> int:
    """Return what *usage* costs by the *tier* that was served: of the model *asked* for and the one that *answered* the dearer."""
    costs = [price.cost(usage, percent)] if price.source == "ceiling" else []
    for model in dict.fromkeys([asked, answered or asked]):
        try:
            found = prices.find(provider, model, at, tier)
        except Unpriced:
            continue
        if found.source != "ceiling":
            costs.append(found.cost(usage, percent))
    return max(costs or [price.cost(usage, percent)])
