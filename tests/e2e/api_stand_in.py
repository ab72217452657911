# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A stand-in for the models, on 127.0.0.1:4001, for the time of one command:  python3 api_stand_in.py COMMAND…

It speaks Anthropic's Messages API and OpenAI's Responses API as they stream, and plays a model that knows one thing: it
calls a tool that writes a file, then one that runs a command, then says that it is done. Which of them is due is read
from the conversation, so it keeps nothing. Every request is told on standard error, a line of JSON after ``stand-in: ``,
and at the end how often anything else was tried to be reached. The command knows of no proxy: what it tries finds no route.

It has the standard library only and needs no file, so that it can be fed to the Python of a sandbox.
"""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading
import typing as t

PORT = 4001  # the gateway has 4000
NOTE = "written by a tool call\n"
NOTES = ("note.txt", "copy.txt")
COPY = "cp note.txt copy.txt"
DONE = "The note is written."

Event = dict[str, t.Any]
# A model's answer: the tool, and what it is called with; None when it is only text.
Call = tuple[str, t.Any] | None


class Messages:
    """Anthropic's Messages API: POST /v1/messages."""

    CALLS: tuple[Call, ...] = (
        ("Write", {"file_path": "/workspace/note.txt", "content": NOTE}),
        ("Bash", {"command": COPY, "description": "Copy the note"}),
    )
    RESULTS = ("tool_result",)

    @staticmethod
    def parts(body: Event) -> t.Iterator[Event]:
        """Yield the parts of the conversation."""
        for message in body["messages"]:
            yield from message["content"] if isinstance(message["content"], list) else ()

    @staticmethod
    def answer(body: Event, call: Call, turn: int) -> t.Iterator[Event]:
        """Yield the events of an answer."""
        usage = {"input_tokens": 100, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 1}
        message = {"id": f"msg_{turn}", "type": "message", "role": "assistant", "model": body["model"], "content": []}
        yield {"type": "message_start", "message": {**message, "stop_reason": None, "stop_sequence": None, "usage": usage}}
        yield {"type": "ping"}
        if call:
            block: Event = {"type": "tool_use", "id": f"toolu_{turn}", "name": call[0], "input": {}}
            deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in ("", *pieces(json.dumps(call[1])))]
        else:
            block = {"type": "text", "text": ""}
            deltas = [{"type": "text_delta", "text": piece} for piece in pieces(DONE)]
        yield {"type": "content_block_start", "index": 0, "content_block": block}
        for delta in deltas:
            yield {"type": "content_block_delta", "index": 0, "delta": delta}
        yield {"type": "content_block_stop", "index": 0}
        reason = "tool_use" if call else "end_turn"
        yield {"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": None}, "usage": {"output_tokens": 20}}
        yield {"type": "message_stop"}


class Responses:
    """OpenAI's Responses API: POST /v1/responses."""

    PATCH = f"*** Begin Patch\n*** Add File: note.txt\n+{NOTE}*** End Patch\n"
    # The models that the client prefers write JavaScript that calls the tools.
    CALLS: tuple[Call, ...] = (
        ("exec", f"await tools.apply_patch({json.dumps(PATCH)});"),
        ("exec", f"text(await tools.exec_command({json.dumps({'cmd': COPY})}));"),
    )
    RESULTS = ("custom_tool_call_output",)

    @staticmethod
    def parts(body: Event) -> t.Iterator[Event]:
        """Yield the parts of the conversation."""
        yield from body["input"]

    @staticmethod
    def answer(body: Event, call: Call, turn: int) -> t.Iterator[Event]:
        """Yield the events of an answer."""
        response = {"id": f"resp_{turn}", "object": "response", "created_at": 1, "model": body["model"], "error": None}
        place = {"item_id": f"item_{turn}", "output_index": 0}
        if call:
            word, text, field, event = "custom_tool_call", call[1], "input", "custom_tool_call_input"
        else:
            word, text, field, event = "message", DONE, "text", "output_text"
            place["content_index"] = 0

        def item(status: str, said: str) -> Event:
            made = {"id": place["item_id"], "type": word, "status": status}
            if call:
                return {**made, "call_id": f"call_{turn}", "name": call[0], field: said}
            content = [{"type": "output_text", "text": said, "annotations": []}] if said else []
            return {**made, "role": "assistant", "content": content}

        yield {"type": "response.created", "response": {**response, "status": "in_progress", "output": []}}
        yield {"type": "response.output_item.added", "output_index": 0, "item": item("in_progress", "")}
        if not call:
            yield {"type": "response.content_part.added", **place, "part": {"type": "output_text", "text": "", "annotations": []}}
        for piece in pieces(text):
            yield {"type": f"response.{event}.delta", **place, "delta": piece}
        yield {"type": f"response.{event}.done", **place, field: text}
        if not call:
            yield {"type": "response.content_part.done", **place, "part": item("", text)["content"][0]}
        yield {"type": "response.output_item.done", "output_index": 0, "item": item("completed", text)}
        usage = {
            "input_tokens": 100,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": 20,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 120,
        }
        output = [item("completed", text)]
        yield {"type": "response.completed", "response": {**response, "status": "completed", "output": output, "usage": usage}}


APIS: dict[str, type[Messages | Responses]] = {"/v1/messages": Messages, "/v1/responses": Responses}


def pieces(text: str) -> list[str]:
    """Return *text* cut as a stream cuts it: at no place that means anything."""
    return [text[start : start + 7] for start in range(0, len(text), 7)]


def names(found: t.Any) -> t.Iterator[str]:
    """Yield the names of the tools that a request offers, wherever its list of them lies."""
    if isinstance(found, list):
        for item in found:
            yield from names(item)
    elif isinstance(found, dict):
        for tool in found.get("tools", ()):
            yield tool.get("name", tool.get("type"))
            yield from names(tool)
        yield from names(found.get("input"))


def tell(about: Event) -> None:
    """Say something to whoever reads the output of all this."""
    print(f"stand-in: {json.dumps(about)}", file=sys.stderr, flush=True)


def tries() -> int:
    """Return how many packets this network namespace has had no route for, or has sent to a name server of its own."""
    counters: dict[str, int] = {}
    for path in ("/proc/net/snmp", "/proc/net/snmp6"):
        try:
            with open(path, encoding="ascii") as file:
                rows = [line.split() for line in file]
        except FileNotFoundError:
            continue  # gVisor has none for the second
        if path.endswith("6"):
            counters.update((name, int(value)) for name, value in rows)
        else:
            for heads, values in zip(rows[::2], rows[1::2], strict=True):
                counters.update((heads[0] + name, int(value)) for name, value in zip(heads[1:], values[1:], strict=True))
    return sum(counters.get(name, 0) for name in ("Ip:OutNoRoutes", "Ip6OutNoRoutes", "Udp:OutDatagrams", "Udp6OutDatagrams"))


class Handler(http.server.BaseHTTPRequestHandler):
    """One connection of a client."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        """Answer a client that asks whether anybody is there."""
        self._told()
        self._whole(200, {})

    def do_GET(self) -> None:
        """Answer that there is nothing else."""
        self._told()
        self._whole(404, {"error": {"type": "not_found_error", "message": self.path}})

    def do_POST(self) -> None:
        """Answer for the model."""
        path = self.path.partition("?")[0]
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if path == "/v1/messages/count_tokens":
            self._told()
            self._whole(200, {"input_tokens": 100})
            return
        if path not in APIS:
            self._told()
            self._whole(404, {"error": {"type": "not_found_error", "message": path}})
            return
        api = APIS[path]
        results = [part for part in api.parts(body) if part.get("type") in api.RESULTS]
        call = (*api.CALLS, None)[min(len(results), len(api.CALLS))]
        tools = list(names(body))
        # Not every request is a turn of the agent's: a client may ask for a title as well.
        if call and call[0] not in tools:
            call = None
        self._told(tools=tools, results=results)
        self._stream(api.answer(body, call, len(results)))

    def _told(self, **more: t.Any) -> None:
        tell({"method": self.command, "path": self.path, **more})

    def _whole(self, status: int, body: Event) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _stream(self, events: t.Iterable[Event]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for event in events:
            data = f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_: t.Any) -> None:
        """Say nothing: what is asked is told already."""


class Server(http.server.ThreadingHTTPServer):
    """A server that takes a client's going away as it comes."""

    daemon_threads = True

    def handle_error(self, request: t.Any, client_address: t.Any) -> None:
        """Say only what is not a connection's end."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def main(command: list[str]) -> int:
    """Answer on 127.0.0.1 while *command* runs, and return its exit code."""
    server = Server(("127.0.0.1", PORT), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    before = tries()
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    environment["ANTHROPIC_BASE_URL"] = f"http://127.0.0.1:{PORT}"
    code = subprocess.run(command, stdin=subprocess.DEVNULL, env=environment, check=False).returncode
    tell({"tries": tries() - before})
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
