# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An answer in each of the three forms that agents speak: whole, and as the events of a stream."""

from __future__ import annotations

import json
import typing as t

from dockersandbox.simulator.account import Used
from dockersandbox.simulator.plan import Call, Wish

Json = dict[str, t.Any]
# The data of an event, and its name where the form has names.
Event = tuple[str, Json | str]
_ABSURD = 10**12


class Said(t.NamedTuple):
    """An answer: *pieces* of its text or of the arguments of its *call*; *stopped* by the limit of tokens."""

    model: str
    pieces: list[str]
    call: Call | None
    stopped: bool
    turn: int
    used: Used
    wish: Wish

    @property
    def whole(self) -> str:
        """The text, or the call's arguments as they are written."""
        return "".join(self.pieces)


def spoiled(usage: Json, kind: str) -> Json | None:
    """Return *usage* as the wish wants it."""
    if kind == "none":
        return None
    worst = {"zero": 0, "negative": -1, "absurd": _ABSURD}.get(kind)
    if worst is None:
        return usage
    return {key: spoiled(value, kind) if isinstance(value, dict) else worst if isinstance(value, int) else value for key, value in usage.items()}


class Messages:
    """Anthropic's Messages API."""

    @staticmethod
    def usage(said: Said) -> Json:
        """Return the usage."""
        used = said.used
        return {
            "input_tokens": used.input,
            "cache_creation_input_tokens": used.cache_write + used.cache_write_1h,
            "cache_read_input_tokens": used.cache_read,
            "cache_creation": {"ephemeral_5m_input_tokens": used.cache_write, "ephemeral_1h_input_tokens": used.cache_write_1h},
            "output_tokens": used.output,
            "service_tier": "standard",
            **({"server_tool_use": {"web_search_requests": used.web_searches}} if used.web_searches else {}),
        }

    @classmethod
    def answer(cls, said: Said) -> Json:
        """Return the whole answer."""
        block: Json = {"type": "text", "text": said.whole}
        if said.call:
            block = {"type": "tool_use", "id": f"toolu_sim_{said.turn}", "name": said.call.tool, "input": said.call.arguments}
        usage = spoiled(cls.usage(said), said.wish.usage)
        reason = "max_tokens" if said.stopped else "tool_use" if said.call else "end_turn"
        message = {"id": f"msg_sim_{said.turn}", "type": "message", "role": "assistant", "model": said.model, "content": [block]}
        return {**message, "stop_reason": reason, "stop_sequence": None, **({"usage": usage} if usage else {})}

    @classmethod
    def events(cls, said: Said, _body: Json) -> t.Iterator[Event]:
        """Yield the events of the answer."""
        usage = spoiled(cls.usage(said), said.wish.usage)
        begun = {**usage, "output_tokens": min(1, usage["output_tokens"])} if usage else None
        whole = cls.answer(said)
        message = {**whole, "content": [], "stop_reason": None}
        message.pop("usage", None)
        yield "message_start", {"type": "message_start", "message": {**message, **({"usage": begun} if begun else {})}}
        yield "ping", {"type": "ping"}
        block: Json = {"type": "text", "text": ""}
        if said.call:
            block = {**whole["content"][0], "input": {}}
        yield "content_block_start", {"type": "content_block_start", "index": 0, "content_block": block}
        for piece in said.pieces:
            delta = {"type": "input_json_delta", "partial_json": piece} if said.call else {"type": "text_delta", "text": piece}
            yield "content_block_delta", {"type": "content_block_delta", "index": 0, "delta": delta}
        yield "content_block_stop", {"type": "content_block_stop", "index": 0}
        ended = {"type": "message_delta", "delta": {"stop_reason": whole["stop_reason"], "stop_sequence": None}}
        yield "message_delta", {**ended, **({"usage": {"output_tokens": usage["output_tokens"]}} if usage else {})}
        yield "message_stop", {"type": "message_stop"}

    @staticmethod
    def error(status: int, text: str) -> Json:
        """Return the body of an error."""
        kind = {429: "rate_limit_error", 529: "overloaded_error"}.get(status, "invalid_request_error" if status < 500 else "api_error")
        return {"type": "error", "error": {"type": kind, "message": text}}


class Chat:
    """OpenAI's Chat Completions API."""

    @staticmethod
    def usage(said: Said) -> Json:
        """Return the usage."""
        used = said.used
        inputs = used.input + used.cache_read + used.cache_write
        return {
            "prompt_tokens": inputs,
            "completion_tokens": used.output,
            "total_tokens": inputs + used.output,
            "prompt_tokens_details": {"cached_tokens": used.cache_read, "cache_write_tokens": used.cache_write},
            "completion_tokens_details": {"reasoning_tokens": used.reasoning},
        }

    @staticmethod
    def _calls(said: Said) -> list[Json]:
        assert said.call is not None
        return [{"id": f"call_sim_{said.turn}", "type": "function", "function": {"name": said.call.tool, "arguments": said.whole}}]

    @staticmethod
    def _reason(said: Said) -> str:
        return "length" if said.stopped else "tool_calls" if said.call else "stop"

    @classmethod
    def answer(cls, said: Said) -> Json:
        """Return the whole answer."""
        message: Json = {"role": "assistant", "content": None if said.call else said.whole, "refusal": None}
        if said.call:
            message["tool_calls"] = cls._calls(said)
        choice = {"index": 0, "message": message, "finish_reason": cls._reason(said), "logprobs": None}
        usage = spoiled(cls.usage(said), said.wish.usage)
        whole = {"id": f"chatcmpl-sim-{said.turn}", "object": "chat.completion", "created": 1, "model": said.model, "choices": [choice]}
        return {**whole, "service_tier": "default", **({"usage": usage} if usage else {})}

    @classmethod
    def events(cls, said: Said, body: Json) -> t.Iterator[Event]:
        """Yield the events of the answer."""
        asked = (body.get("stream_options") or {}).get("include_usage") is True
        told = {"usage": None} if asked else {}

        def chunk(delta: Json, reason: str | None = None) -> Event:
            choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
            head = {"id": f"chatcmpl-sim-{said.turn}", "object": "chat.completion.chunk", "created": 1, "model": said.model}
            return "", {**head, "choices": [choice], **told}

        if said.call:
            (call,) = cls._calls(said)
            yield chunk({"role": "assistant", "content": None, "tool_calls": [{**call, "index": 0, "function": {**call["function"], "arguments": ""}}]})
        else:
            yield chunk({"role": "assistant", "content": ""})
        for piece in said.pieces:
            yield chunk({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]} if said.call else {"content": piece})
        yield chunk({}, cls._reason(said))
        usage = spoiled(cls.usage(said), said.wish.usage)
        if asked and usage:
            head = {"id": f"chatcmpl-sim-{said.turn}", "object": "chat.completion.chunk", "created": 1, "model": said.model}
            yield "", {**head, "choices": [], "usage": usage}
        yield "", "[DONE]"

    @staticmethod
    def error(status: int, text: str) -> Json:
        """Return the body of an error."""
        return {"error": {"message": text, "type": "invalid_request_error" if status < 500 else "server_error", "param": None, "code": None}}


class Responses:
    """OpenAI's Responses API."""

    @staticmethod
    def usage(said: Said) -> Json:
        """Return the usage."""
        used = said.used
        inputs = used.input + used.cache_read + used.cache_write
        return {
            "input_tokens": inputs,
            "input_tokens_details": {"cached_tokens": used.cache_read, "cache_write_tokens": used.cache_write},
            "output_tokens": used.output,
            "output_tokens_details": {"reasoning_tokens": used.reasoning},
            "total_tokens": inputs + used.output,
        }

    @staticmethod
    def _item(said: Said, status: str, text: str) -> Json:
        made: Json = {"id": f"item_sim_{said.turn}", "status": status}
        if said.call is None:
            content = [{"type": "output_text", "text": text, "annotations": []}] if text else []
            return {**made, "type": "message", "role": "assistant", "content": content}
        custom = isinstance(said.call.arguments, str)
        called = {**made, "call_id": f"call_sim_{said.turn}", "name": said.call.tool}
        return {**called, "type": "custom_tool_call", "input": text} if custom else {**called, "type": "function_call", "arguments": text}

    @classmethod
    def answer(cls, said: Said) -> Json:
        """Return the whole answer."""
        searches = [{"id": f"ws_{number}", "type": "web_search_call", "status": "completed"} for number in range(said.used.web_searches)]
        status = "incomplete" if said.stopped else "completed"
        made = {"id": f"resp_sim_{said.turn}", "object": "response", "created_at": 1, "model": said.model, "error": None, "status": status}
        details = {"incomplete_details": {"reason": "max_output_tokens"} if said.stopped else None}
        rest = {"output": [*searches, cls._item(said, "completed", said.whole)], "parallel_tool_calls": True, "tool_choice": "auto", "tools": []}
        return {**made, **details, **rest, "service_tier": "default", "usage": spoiled(cls.usage(said), said.wish.usage)}

    @classmethod
    def events(cls, said: Said, _body: Json) -> t.Iterator[Event]:
        """Yield the events of the answer."""
        number = 0

        def event(kind: str, **fields: t.Any) -> Event:
            nonlocal number
            number += 1
            return kind, {"type": kind, "sequence_number": number - 1, **fields}

        whole = cls.answer(said)
        begun = {**whole, "status": "in_progress", "output": [], "usage": None, "incomplete_details": None}
        place: Json = {"item_id": f"item_sim_{said.turn}", "output_index": 0}
        if said.call is None:
            word, field = "output_text", "text"
            place["content_index"] = 0
        elif isinstance(said.call.arguments, str):
            word, field = "custom_tool_call_input", "input"
        else:
            word, field = "function_call_arguments", "arguments"
        yield event("response.created", response=begun)
        yield event("response.output_item.added", output_index=0, item=cls._item(said, "in_progress", ""))
        if said.call is None:
            yield event("response.content_part.added", **place, part={"type": "output_text", "text": "", "annotations": []})
        for piece in said.pieces:
            yield event(f"response.{word}.delta", **place, delta=piece)
        yield event(f"response.{word}.done", **place, **{field: said.whole})
        if said.call is None:
            yield event("response.content_part.done", **place, part={"type": "output_text", "text": said.whole, "annotations": []})
        yield event("response.output_item.done", output_index=0, item=cls._item(said, "completed", said.whole))
        yield event(f"response.{whole['status']}", response=whole)

    error = Chat.error


FORMS: dict[str, type[Messages | Chat | Responses]] = {"/v1/messages": Messages, "/v1/chat/completions": Chat, "/v1/responses": Responses}


def frame(event: Event) -> bytes:
    """Return an event as it is sent."""
    name, data = event
    text = data if isinstance(data, str) else json.dumps(data, separators=(",", ":"))
    return (f"event: {name}\n" if name else "").encode() + f"data: {text}\n\n".encode()
