# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Parts of the bench of the gateway, each a process of its own:  python llm_parts.py upstream|relay|load ARGUMENTS

``upstream`` answers /v1/messages and /v1/chat/completions at once, or with a stream of paced events that say when they were sent.
``relay`` is the peer: the gateway's own stack, sockets and sessions, without ledger, policy, meter and events. ``load`` asks, and
prints what it saw. A number in the place of a socket's path is a port of 127.0.0.1.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
import typing as t

import aiohttp
import uvloop
from aiohttp import web

from dockersandbox.common import service

EVENTS, PACE = 50, 0.05
USAGE = {"input_tokens": 50, "output_tokens": 20, "cache_read_input_tokens": 0, "cache_creation_input_tokens": 0}
WHOLE = json.dumps({"type": "message", "model": "m", "content": [{"type": "text", "text": "x" * 400}], "usage": USAGE}).encode()

CHAT = json.dumps(
    {
        "id": "1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "x" * 400}}],
        "usage": {"prompt_tokens": 50, "completion_tokens": 20, "total_tokens": 70},
    }
).encode()


def frame(event: dict[str, t.Any]) -> bytes:
    """Return a server-sent event."""
    return f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()


async def serve(path: str, handle: t.Callable[[web.BaseRequest], t.Awaitable[web.StreamResponse]]) -> None:
    """Serve until the process is ended."""
    server = web.Server(handle, access_log=None, read_bufsize=1 << 16)
    loop = asyncio.get_running_loop()
    if path.isdecimal():
        await loop.create_server(server, "127.0.0.1", int(path), backlog=1024)
    else:
        await loop.create_unix_server(server, path, backlog=1024)
    await asyncio.Event().wait()


async def upstream(path: str) -> None:
    """Be the provider."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        body = json.loads(await request.content.read())
        if not body.get("stream"):
            return web.Response(body=CHAT if request.path.endswith("/chat/completions") else WHOLE, content_type="application/json")
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        await response.write(frame({"type": "message_start", "message": {"model": "m", "usage": USAGE}}))
        for _number in range(EVENTS):
            await asyncio.sleep(PACE)
            text = {"type": "text_delta", "text": f"<{time.perf_counter_ns()}>"}
            await response.write(frame({"type": "content_block_delta", "index": 0, "delta": text}))
        await response.write(frame({"type": "message_delta", "usage": {"output_tokens": 20}}) + frame({"type": "message_stop"}))
        await response.write_eof()
        return response

    await serve(path, handle)


async def relay(path: str, to: str) -> None:
    """Be the peer."""
    connector = aiohttp.UnixConnector(to, limit=0)
    session = aiohttp.ClientSession(connector=connector, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar(), read_bufsize=1 << 16)

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        body = await request.content.read()
        async with session.post(f"http://upstream{request.path}", data=body, headers={"content-type": "application/json"}) as came:
            if came.content_type != "text/event-stream":
                return web.Response(status=came.status, body=await came.read(), content_type=came.content_type)
            response = web.StreamResponse(status=came.status, headers={"content-type": "text/event-stream"})
            response.enable_chunked_encoding()
            await response.prepare(request)
            async for part in came.content.iter_any():
                await response.write(part)
            await response.write_eof()
            return response

    # As the gateway does.
    service.large_pages()
    await serve(path, handle)


async def load(path: str, token: str, connections: int, calls: int, streams: bool) -> None:
    """Ask *calls* times in all over so many *connections*; print what was seen."""
    took: list[float] = []
    late: list[float] = []
    headers = {"authorization": f"Bearer {token}"}
    connector = aiohttp.TCPConnector(limit=0) if path.isdecimal() else aiohttp.UnixConnector(path, limit=0)
    base, where = (f"http://127.0.0.1:{path}", "/v1/chat/completions") if path.isdecimal() else ("http://gateway", "/v1/messages")
    async with aiohttp.ClientSession(base, connector=connector, headers=headers) as session:

        async def one(worker: int) -> None:
            if streams:
                # As agents do, they do not begin all at the same moment.
                await asyncio.sleep(worker / connections)
            for number in range(calls // connections):
                body: dict[str, t.Any] = {"model": "m", "max_tokens": 100, "messages": [{"role": "user", "content": f"{worker} {number} " + "x" * 400}]}
                begun = time.perf_counter()
                async with session.post(where, json={**body, "stream": True} if streams else body) as answer:
                    assert answer.status == 200, await answer.text()
                    async for part in answer.content.iter_any():
                        now = time.perf_counter_ns()
                        late.extend((now - int(piece.partition(b">")[0])) / 1e6 for piece in part.split(b'"<')[1:])
                took.append(time.perf_counter() - begun)

        begun = time.perf_counter()
        await asyncio.gather(*(one(worker) for worker in range(connections)))
        passed = time.perf_counter() - begun
    told = {"per_s": len(took) / passed, "p50_ms": statistics.median(took) * 1e3, "p99_ms": statistics.quantiles(took, n=100)[98] * 1e3}
    if late:
        told |= {"late_p50_ms": statistics.median(late), "late_p99_ms": statistics.quantiles(late, n=100)[98], "events": len(late)}
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    part, *rest = sys.argv[1:]
    if part == "load":
        uvloop.run(load(rest[0], rest[1], int(rest[2]), int(rest[3]), rest[4] == "streams"))
    else:
        uvloop.run(upstream(*rest) if part == "upstream" else relay(*rest))
