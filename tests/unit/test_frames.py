# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Frames, whole and in pieces, and what cannot be one."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import frames

TEXTS = [b"{}", b"", b"x" * 5000, b'{"a":1}', b"y"]
STREAM = b"".join(map(frames.pack, TEXTS))


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 100, 4999, 5001, len(STREAM)])
def test_pieces_of_any_size_give_the_same_texts(size: int) -> None:
    stream = frames.Frames()
    found = [text for at in range(0, len(STREAM), size) for text in stream.feed(STREAM[at : at + size])]
    assert found == TEXTS and not stream.partial and not stream.lost


def test_what_comes_before_a_frame_over_the_limit_is_not_lost_with_it() -> None:
    stream = frames.Frames(limit=10)
    assert stream.feed(frames.pack(b"0123456789") + frames.pack(b"0123456789x") + frames.pack(b"y")) == [b"0123456789"]
    assert stream.lost == "a frame of 11 bytes is over the limit of 10"
    assert stream.feed(frames.pack(b"z")) == []


@pytest.mark.parametrize("rest", [b"\0", b"\0\0\0\2", b"\0\0\0\2{"])
def test_an_incomplete_frame_is_known(rest: bytes) -> None:
    stream = frames.Frames()
    assert stream.feed(frames.pack(b"{}") + rest) == [b"{}"]
    assert stream.partial


@pytest.mark.parametrize("message", [{"a": float("nan")}, {"a": "\ud800"}, {"a": {1, 2}}, "x" * frames.LIMIT])
def test_what_makes_no_frame_is_refused(message: t.Any) -> None:
    with pytest.raises(frames.FrameError) as refused:
        frames.encode(message)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("text", [b"", b"[]", b"1", b"{", b"\xff", b'{"a":' * 100_000])
def test_a_frame_without_an_object_is_refused(text: bytes) -> None:
    with pytest.raises(frames.FrameError, match="the frame does not hold a JSON object"):
        frames.decode(text)


def test_a_message_comes_back() -> None:
    message = {"a": [1, "é", None], "b": {"c": True}}
    assert frames.Frames().feed(frames.encode(message))[0].decode() == '{"a":[1,"é",null],"b":{"c":true}}'
    assert frames.decode(frames.Frames().feed(frames.encode(message))[0]) == message
