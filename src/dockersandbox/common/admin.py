# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The socket on which root commands a service: frames in, frames out."""

from __future__ import annotations

import asyncio
import contextlib
import os
import typing as t
from pathlib import Path

from ansible_collections.dockersandbox.guardrails.plugins.module_utils import frames

Handle = t.Callable[[dict[str, t.Any]], t.Awaitable[dict[str, t.Any]]]
_CONNECTIONS = 16
_STALL = 10.0  # seconds for a command to come in, once it has begun


class Refused(Exception):
    """A command that is not done; the text is one line for whoever gave it."""


def listen_at(path: Path) -> None:
    """Make the folder of the socket *path* if it is missing, and remove the socket that an ended process left there."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    path.unlink(missing_ok=True)


async def serve(path: Path, handle: Handle) -> asyncio.Server:
    """Listen on *path* (mode 0600) and answer each command with what *handle* returns, or with the error it raises."""
    open_now = 0

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal open_now
        open_now += 1
        try:
            if open_now <= _CONNECTIONS:
                await _converse(reader, writer, handle)
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass  # whoever asked is gone, or never said what it wanted
        finally:
            open_now -= 1
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    listen_at(path)
    before = os.umask(0o177)
    try:
        return await asyncio.start_unix_server(connected, str(path))
    finally:
        os.umask(before)


async def _converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, handle: Handle) -> None:
    while first := await reader.read(1):
        async with asyncio.timeout(_STALL):
            size = int.from_bytes(first + await reader.readexactly(3), "big")
            text = await reader.readexactly(size) if size <= frames.LIMIT else None
        try:
            if text is None:
                raise Refused(f"a command of {size} bytes is over the limit of {frames.LIMIT}")
            answer = frames.encode(await handle(frames.decode(text)))
        except (Refused, frames.FrameError) as error:
            answer = frames.encode({"error": " ".join(str(error).split())})
        writer.write(answer)
        await writer.drain()
        if text is None:
            return
