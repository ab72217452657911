# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A small provider that only plays one: what ``make site`` has behind the gateway until there is a key for a real one.

It says so in every answer: in a header, in the models it has, and in the text. ``GET /account`` is its own account of what it
charged. The one argument is its configuration: a JSON file with ``socket`` (a path) or ``port`` (on 127.0.0.1). As a service of
a host it has ``admin`` too, the socket on which root asks for its ``status``.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import typing as t
import zlib
from pathlib import Path

import brotli
import msgspec
import zstandard
from aiohttp import web

from dockersandbox.common import admin, config, service
from dockersandbox.simulator import plan
from dockersandbox.simulator.account import Account, Entry, Used
from dockersandbox.simulator.forms import FORMS, Messages, Said, frame

NAME = "simulator"
HEADERS = {"x-simulated": "true"}
_LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
_MOST_BODY = 64 << 20


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where it listens: at the unix socket *socket*, or on the *port* of 127.0.0.1; root is heard at *admin*."""

    socket: str = ""
    port: int = 0
    admin: str = ""


class Provider:
    """The provider, and its account."""

    def __init__(self) -> None:
        self.account = Account()
        self.turns = 0
        self.asked = 0
        # Answers that make a client wait are let go when the process ends.
        self.ending = asyncio.Event()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        if request.method == "GET":
            return self._told(request)
        form = FORMS.get(request.path)
        raw = b"".join([part async for part in request.content.iter_any()]) if (request.content_length or 0) <= _MOST_BODY else b""
        try:
            body = msgspec.json.decode(raw)
            assert isinstance(body, dict) and isinstance(body["model"], str)
        except (msgspec.MsgspecError, ValueError, KeyError, AssertionError):
            return _json((form or Messages).error(400, "simulated: the body is not a request"), 400)
        if request.path == "/v1/messages/count_tokens":
            return _json({"input_tokens": _tokens(raw)})
        if form is None:
            return _json(Messages.error(404, f"simulated: there is no {request.path[:100]}"), 404)
        self.asked += 1
        wish = plan.wish(plan.texts(body))
        said = self._say(body, raw, wish)
        # Whoever is made to wait keeps no long text meanwhile.
        body = {key: body[key] for key in ("stream", "stream_options") if key in body}
        del raw
        if wish.delay:
            await self._pause(wish.delay)
        if 300 <= wish.status < 400:
            return web.Response(status=wish.status, headers={**HEADERS, "location": "http://127.0.0.1:9/"})
        if wish.status:
            return _json(form.error(wish.status, "simulated: this error was asked for"), wish.status, {"retry-after": "1"} if wish.status == 429 else {})
        entry = Entry(request.headers.get("x-client-request-id", ""), said.model, said.used, finished=True)
        if body.get("stream"):
            return await self._stream(request, form, body, said, entry)
        self.account.charge(entry)
        packed = _packed(wish.packed, [msgspec.json.encode(form.answer(said))])
        return web.Response(body=b"".join(packed), headers={**HEADERS, "content-type": "application/json", **_encoding(wish)})

    def _told(self, request: web.BaseRequest) -> web.Response:
        if request.path == "/account":
            return _json(self.account.told())
        if request.path == "/v1/models":
            names = ("simulated-small", "simulated-large")
            models = [{"id": name, "object": "model", "type": "model", "created": 1, "owned_by": "simulated", "display_name": name} for name in names]
            return _json({"object": "list", "data": models, "has_more": False, "first_id": names[0], "last_id": names[1]})
        if request.path == "/":
            return _json({"simulated": True, "asked": self.asked, "charged": self.account.count})
        return _json(Messages.error(404, f"simulated: there is no {request.path[:100]}"), 404)

    def _say(self, body: plan.Body, raw: bytes, wish: plan.Wish) -> Said:
        self.turns += 1
        call = plan.due(body) if wish.output < 0 else None
        limit = min((body[key] for key in _LIMITS if isinstance(body.get(key), int)), default=1 << 20)
        if call is None:
            tokens = plan.words(body, min(wish.output, limit) if wish.output >= 0 else -1)
        else:
            tokens = plan.pieces(call.arguments if isinstance(call.arguments, str) else json.dumps(call.arguments))
        shown = tokens[: max(0, limit - wish.reasoning)] if call is None else tokens
        size = max(1, wish.chunk)
        pieces = ["".join(shown[start : start + size]) for start in range(0, len(shown), size)]
        used = Used(
            input=wish.input if wish.input >= 0 else _tokens(raw),
            output=len(shown) + min(wish.reasoning, limit),
            cache_read=wish.cache_read,
            cache_write=wish.cache_write,
            cache_write_1h=wish.cache_write_1h,
            reasoning=min(wish.reasoning, limit),
            web_searches=wish.web_searches,
        )
        stopped = len(shown) < len(tokens) or wish.output > limit
        return Said(wish.model or body["model"], pieces, call, stopped, self.turns, used, wish)

    async def _stream(self, request: web.BaseRequest, form: t.Any, body: plan.Body, said: Said, entry: Entry) -> web.StreamResponse:
        wish = said.wish
        response = web.StreamResponse(headers={**HEADERS, "content-type": "text/event-stream; charset=utf-8", **_encoding(wish)})
        response.enable_chunked_encoding()
        sent = 0
        entry.finished = False
        try:
            await response.prepare(request)
            parts = list(_packed(wish.packed, self._events(form, said, body)))
            for data in parts:
                if sent in (wish.cut, wish.hang):
                    if sent == wish.hang:
                        await self._pause(3_600_000)
                    if request.transport is not None:
                        request.transport.abort()
                    return response
                if wish.pace:
                    await self._pause(wish.pace)
                if sent == len(parts) - 1:
                    # It counts as made before its last event, so that nobody has an answer that is not on the account.
                    entry.finished = True
                    self.account.charge(entry)
                if wish.split:
                    for start in range(0, len(data), wish.split):
                        await response.write(data[start : start + wish.split])
                        await asyncio.sleep(0)
                else:
                    await response.write(data)
                sent += 1
            await response.write_eof()
        except ConnectionError:
            pass
        finally:
            if not entry.finished:
                entry.used.output = min(entry.used.output, max(0, sent - 3) * max(1, wish.chunk))
                self.account.charge(entry)
        return response

    @staticmethod
    def _events(form: t.Any, said: Said, body: plan.Body) -> t.Iterator[bytes]:
        for number, event in enumerate(form.events(said, body)):
            if number == said.wish.garbage:
                yield b'data: {"usage": {"input_tok\n\n\x00\xff: not an event\r\r'
            yield frame(event)

    async def _pause(self, milliseconds: int) -> None:
        try:
            async with asyncio.timeout(milliseconds / 1000):
                await self.ending.wait()
        except TimeoutError:
            pass


def _tokens(raw: bytes) -> int:
    """Return how many tokens a request has: one for four bytes of it."""
    return len(raw) // 4 + 1


def _json(content: t.Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(status=status, body=msgspec.json.encode(content), headers={**HEADERS, **(headers or {}), "content-type": "application/json"})


def _encoding(wish: plan.Wish) -> dict[str, str]:
    return {"content-encoding": wish.packed} if wish.packed else {}


def _packed(word: str, parts: t.Iterable[bytes]) -> t.Iterator[bytes]:
    """Yield *parts* packed as *word* says."""
    if word == "gzip":
        yield gzip.compress(b"".join(parts))
    elif word == "deflate":
        yield zlib.compress(b"".join(parts))
    elif word == "br":
        yield brotli.compress(b"".join(parts))
    elif word == "zstd":
        yield zstandard.ZstdCompressor().compress(b"".join(parts))
    else:
        yield from parts


class Control:
    """What root is told of the process. All that can be configured takes a new start."""

    def __init__(self, path: Path, loaded: config.Loaded[Settings], provider: Provider) -> None:
        self.path = path
        self.loaded = loaded
        self.provider = provider
        self.problem = ""

    async def command(self, message: dict[str, t.Any]) -> dict[str, t.Any]:
        """Answer one command."""
        if message.get("command") != "status":
            raise admin.Refused(f"{message.get('command')!r} is not a command; there is status")
        return {
            "config_sha256": self.loaded.sha256,
            "problem": self.problem,
            "simulated": True,
            "calls": self.provider.account.count,
            "micro_dollars": self.provider.account.micro_dollars,
        }

    async def reloads(self, signals: service.Signals) -> None:
        """Read the configuration again whenever that is asked for."""
        while True:
            await signals.reload.wait()
            signals.reload.clear()
            try:
                loaded = config.load(self.path, Settings)
                if loaded.value != self.loaded.value:
                    raise config.ConfigError(f"{self.path}: socket, port and admin can only be changed by a new start")
                self.loaded, self.problem = loaded, ""
            except config.ConfigError as error:
                self.problem = str(error)
                service.say(NAME, f"the configuration is refused, and the old one stays: {error}")


async def serve(path: Path) -> int:
    """Run the provider."""
    loaded = config.load(path, Settings)
    settings = loaded.value
    signals = service.signals()
    loop = asyncio.get_running_loop()
    provider = Provider()
    server = web.Server(provider.handle, access_log=None)
    if settings.socket:
        admin.listen_at(Path(settings.socket))
        # Whoever is given the folder may ask it, whatever its uid.
        Path(settings.socket).parent.chmod(0o755)
        listening = await loop.create_unix_server(server, settings.socket, backlog=1024)
        Path(settings.socket).chmod(0o666)
    else:
        listening = await loop.create_server(server, "127.0.0.1", settings.port, backlog=1024)
    control = Control(path, loaded, provider)
    heard = await admin.serve(Path(settings.admin), control.command) if settings.admin else None
    reloads = asyncio.create_task(control.reloads(signals))
    await signals.end.wait()
    reloads.cancel()
    if heard is not None:
        heard.close()
    listening.close()
    provider.ending.set()
    await server.shutdown(1)
    return 0


if __name__ == "__main__":
    service.run(NAME, serve, OSError)
