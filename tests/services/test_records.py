# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The recorder's clients: what they do while there is no recorder, and when it goes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
import typing as t
from pathlib import Path

import pytest
import uvloop
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import frames, recorder
from services.recorders import event

from dockersandbox.common.records import Records

Answer = t.Callable[[dict[str, t.Any], int], "bytes | None"]


class Peer:
    """A socket that answers each frame with what *answer* returns for its event and its number; None closes the connection."""

    def __init__(self, path: Path, answer: Answer) -> None:
        self.seen: list[dict[str, t.Any]] = []
        self._answer = answer
        self._server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._server.bind(str(path))
        self._server.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                client, _address = self._server.accept()
            except OSError:
                return
            threading.Thread(target=self._converse, args=(client,), daemon=True).start()

    def _converse(self, client: socket.socket) -> None:
        stream = frames.Frames()
        with client, contextlib.suppress(OSError):
            while data := client.recv(1 << 16):
                for text in stream.feed(data):
                    self.seen.append(frames.decode(text))
                    reply = self._answer(self.seen[-1], len(self.seen))
                    if reply is None:
                        return
                    client.sendall(reply)

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()


def acknowledging(said: dict[str, t.Any], number: int) -> bytes:
    return frames.encode({"seq": number, "id": said["id"]})


def blocking(path: Path, count: int, patience: float) -> list[t.Any]:
    """Return what becomes of *count* events, one after the other."""
    found: list[t.Any] = []
    with recorder.Client(str(path), patience) as client:
        for number in range(count):
            try:
                found.append(client.record(event(detail={"number": number})))
            except recorder.RecorderError as error:
                found.append(error)
    return found


def service(path: Path, count: int, patience: float) -> list[t.Any]:
    """Return what becomes of *count* events, all at once."""

    async def send() -> list[t.Any]:
        records = Records(str(path), patience)
        sent = [records.record(event(detail={"number": number})) for number in range(count)]
        found = await asyncio.gather(*sent, return_exceptions=True)
        await records.close()
        return found

    return uvloop.run(send())


def in_pairs(path: Path, count: int, patience: float) -> list[t.Any]:
    """Return what becomes of *count* events of a service, of which every other one may be sent with the next, if there is one."""

    async def send() -> list[t.Any]:
        records = Records(str(path), patience)
        sent = [(records.record if number % 2 else records.record_soon)(event(detail={"number": number})) for number in range(count)]
        found = await asyncio.gather(*sent, return_exceptions=True)
        await records.close()
        return found

    return uvloop.run(send())


CLIENTS = [blocking, service, in_pairs]
Send = t.Callable[[Path, int, float], list[t.Any]]


@pytest.mark.parametrize("send", CLIENTS)
def test_without_a_recorder_there_is_an_error_in_time(tmp_path: Path, send: Send) -> None:
    start = time.monotonic()
    (error,) = send(tmp_path / "none", 1, 0.3)
    assert 0.2 < time.monotonic() - start < 10
    assert str(error) == (
        f"{tmp_path / 'none'}: the recorder does not answer (No such file or directory), and nothing is done off the record;"
        " bring it up: bin/sandbox up, or see: docker logs guardrails-recorder"
    )


@pytest.mark.parametrize("send", CLIENTS)
def test_one_that_is_being_started_is_waited_for(tmp_path: Path, send: Send) -> None:
    made: list[Peer] = []
    timer = threading.Timer(0.3, lambda: made.append(Peer(tmp_path / "socket", acknowledging)))
    timer.start()
    assert [ack.seq for ack in send(tmp_path / "socket", 3, 20)] == [1, 2, 3]
    made[0].close()


@pytest.mark.parametrize("send", CLIENTS)
def test_what_was_not_acknowledged_is_sent_again_with_its_id_and_in_its_order(tmp_path: Path, send: Send) -> None:
    closed: set[str] = set()

    def answer(said: dict[str, t.Any], number: int) -> bytes | None:
        if said["detail"]["number"] in {1, 3} and said["id"] not in closed:
            closed.add(said["id"])
            return None
        return acknowledging(said, number)

    peer = Peer(tmp_path / "socket", answer)
    acks = send(tmp_path / "socket", 5, 20)
    assert all(isinstance(ack, recorder.Ack) for ack in acks) and len(closed) == 2
    by_id: dict[str, set[int]] = {}
    for said in peer.seen:
        by_id.setdefault(said["id"], set()).add(said["detail"]["number"])
    assert [by_id[ack.id] for ack in acks] == [{number} for number in range(5)]
    peer.close()


@pytest.mark.parametrize("send", CLIENTS)
@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (frames.encode({"error": "reason: it is too long"}), "reason: it is too long"),
        (frames.encode({"seq": "one"}), "the recorder's answer is none"),
        (frames.pack(b"[]"), "the recorder's answer is none"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "the recorder does not answer"),
        (b"", "the recorder does not answer"),
    ],
)
def test_what_is_no_acknowledgement_is_an_error(tmp_path: Path, send: Send, reply: bytes, told: str) -> None:
    peer = Peer(tmp_path / "socket", lambda _said, _number: reply)
    (error,) = send(tmp_path / "socket", 1, 0.5)
    assert isinstance(error, recorder.RecorderError) and told in str(error) and "\n" not in str(error)
    peer.close()


def in_turn(path: Path, patience: float) -> list[t.Any]:
    """Return what becomes of two events of a service, one after the other."""

    async def send() -> list[t.Any]:
        records = Records(str(path), patience)
        found = [(await asyncio.gather(records.record(event(detail={"number": number})), return_exceptions=True))[0] for number in range(2)]
        await records.close()
        return found

    return uvloop.run(send())


@pytest.mark.parametrize("one_after_the_other", [lambda path, patience: blocking(path, 2, patience), in_turn])
def test_one_late_answer_is_not_taken_for_the_next(tmp_path: Path, one_after_the_other: t.Callable[[Path, float], list[t.Any]]) -> None:
    def answer(said: dict[str, t.Any], number: int) -> bytes:
        if number == 1:
            time.sleep(3)
        return acknowledging(said, number)

    peer = Peer(tmp_path / "socket", answer)
    first, second = one_after_the_other(tmp_path / "socket", 2)
    assert isinstance(first, recorder.RecorderError) and isinstance(second, recorder.Ack)
    assert second.id == next(said["id"] for said in peer.seen if said["detail"]["number"] == 1)
    peer.close()


def test_an_event_that_cannot_be_framed_is_refused_before_it_is_sent(tmp_path: Path) -> None:
    with pytest.raises(recorder.RecorderError, match="the event 'network.connect' cannot be recorded: "):
        recorder.Client(str(tmp_path / "none"), 0.1).record(event(reason="\udcff"))


def test_a_command_is_not_sent_twice(tmp_path: Path) -> None:
    peer = Peer(tmp_path / "socket", lambda _said, _number: None)
    with recorder.Client(str(tmp_path / "socket"), 1) as client, pytest.raises(recorder.RecorderError, match="it closed the connection"):
        client.command({"command": "rotate-key", "reason": "once"})
    assert len(peer.seen) == 1
    peer.close()


def test_who_is_held_up_at_the_last_try_still_says_what_was_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sleep = time.sleep
    monkeypatch.setattr(time, "sleep", lambda _seconds: sleep(0.2))
    with pytest.raises(recorder.RecorderError, match="No such file"):
        recorder.Client(str(tmp_path / "none"), 0.1).record(event())


def test_a_service_that_ends_does_not_wait(tmp_path: Path) -> None:
    async def end() -> list[t.Any]:
        records = Records(str(tmp_path / "none"), 60)
        tasks = [records.record(event()) for _event in range(3)]
        await asyncio.sleep(0.05)
        await records.close()
        return await asyncio.gather(*tasks, return_exceptions=True)

    assert ["this client was closed" in str(error) for error in uvloop.run(end())] == [True] * 3


def test_what_may_wait_goes_with_the_next_or_alone_a_little_later(tmp_path: Path) -> None:
    async def send() -> list[int]:
        records = Records(str(tmp_path / "socket"), 20)
        await records.record(event(detail={"number": 0}))
        alone = await records.record_soon(event(detail={"number": 1}))
        waiting = records.record_soon(event(detail={"number": 2}))
        await asyncio.sleep(0)
        last = await records.record(event(detail={"number": 3}))
        found = [alone.seq, (await waiting).seq, last.seq]
        unsent = records.record_soon(event(detail={"number": 4}))
        await asyncio.sleep(0)
        await records.close()
        (error,) = await asyncio.gather(unsent, return_exceptions=True)
        assert "this client was closed" in str(error)
        return found

    peer = Peer(tmp_path / "socket", acknowledging)
    assert uvloop.run(send()) == [2, 3, 4]
    assert [said["detail"]["number"] for said in peer.seen] == [0, 1, 2, 3]
    peer.close()
