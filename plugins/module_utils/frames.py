# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How services are spoken to: a frame is the length of a JSON text (4 bytes, big-endian) and that text in UTF-8."""

from __future__ import annotations

import json
import typing as t

LIMIT = 1 << 20  # bytes of a frame's text
_HEAD = 4


class FrameError(Exception):
    """Bytes or a message that make no frame; the text is one line."""


def pack(text: bytes) -> bytes:
    """Return the frame that holds *text*. Raises FrameError when it is over the limit."""
    if len(text) > LIMIT:
        raise FrameError(f"a message of {len(text)} bytes is over the limit of {LIMIT}")
    return len(text).to_bytes(_HEAD, "big") + text


def encode(message: t.Any) -> bytes:
    """Return the frame that holds *message* as JSON. Raises FrameError for what JSON or UTF-8 cannot hold."""
    try:
        text = json.dumps(message, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise FrameError(f"the message is not JSON in UTF-8: {error}") from None
    return pack(text)


def decode(text: bytes) -> dict[str, t.Any]:
    """Return the JSON object in a frame's *text*; FrameError when it holds something else."""
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        message = None
    if not isinstance(message, dict):
        raise FrameError("the frame does not hold a JSON object")
    return message


class Frames:
    """Cuts a stream of bytes into the texts of its frames. *limit* is the most bytes of one text.

    *lost* says why no more texts come: where the next frame begins is not known after one over the limit.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self.lost = ""
        self._limit = limit
        self._rest = bytearray()
        self._needed = _HEAD

    @property
    def partial(self) -> bool:
        """Whether a frame has begun that is not complete."""
        return bool(self._rest)

    def feed(self, data: bytes) -> list[bytes]:
        """Return the texts that *data* completes."""
        if self.lost:
            return []
        if self._rest:
            self._rest += data
            # What is incomplete is looked at once, however small the pieces are that it comes in.
            if len(self._rest) < self._needed:
                return []
            data = bytes(self._rest)
            self._rest.clear()
        found: list[bytes] = []
        at, end = 0, len(data)
        self._needed = _HEAD
        while end - at >= _HEAD:
            size = int.from_bytes(data[at : at + _HEAD], "big")
            if size > self._limit:
                self.lost = f"a frame of {size} bytes is over the limit of {self._limit}"
                return found
            stop = at + _HEAD + size
            if stop > end:
                self._needed = _HEAD + size
                break
            found.append(data[at + _HEAD : stop])
            at = stop
        if at < end:
            self._rest += data[at:]
        return found
