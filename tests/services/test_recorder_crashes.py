# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is acknowledged stays, whatever ends the recorder: a kill, a loss of power, a full disk."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import threading
import time
import typing as t
from pathlib import Path

import pytest
import uvloop
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import chain, recorder
from services import disks
from services.recorders import Recorder, event, running

from dockersandbox.common.records import Records

WRITERS = 8
Sent = dict[tuple[int, int], recorder.Ack]


class Writers:
    """Eight writers that go on whatever happens: half of them as modules do, half as services do."""

    def __init__(self, made: Recorder) -> None:
        self.acked: Sent = {}
        self.failures: list[str] = []
        self._made = made
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._blocking, args=(number,)) for number in range(WRITERS // 2)]
        self._threads.append(threading.Thread(target=self._service))

    def __enter__(self) -> Writers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _event(self, writer: int, number: int) -> dict[str, t.Any]:
        return event(detail={"writer": writer, "number": number}, reason="x" * random.randrange(2000))

    def _blocking(self, writer: int) -> None:
        number = 0
        with self._made.client("host", patience=60) as client:
            while not self._ended.is_set():
                try:
                    self.acked[writer, number] = client.record(self._event(writer, number))
                except recorder.RecorderError as error:
                    self.failures.append(str(error))
                number += 1

    def _service(self) -> None:
        async def one(records: Records, writer: int) -> None:
            number = 0
            while not self._ended.is_set():
                try:
                    self.acked[writer, number] = await records.record(self._event(writer, number))
                except recorder.RecorderError as error:
                    self.failures.append(str(error))
                number += 1

        async def all_of_them() -> None:
            records = Records(self._made.path("egress"), patience=60)
            await asyncio.gather(*(one(records, writer) for writer in range(WRITERS // 2, WRITERS)))
            await records.close()

        uvloop.run(all_of_them())


def written(logs: Path) -> dict[tuple[int, int], list[recorder.Ack]]:
    """Return what is on record, by writer and number."""
    found: dict[tuple[int, int], list[recorder.Ack]] = {}
    for line in chain.lines(logs):
        record = json.loads(line)
        if record["sender"] != chain.RECORDER:
            detail = record["detail"]
            found.setdefault((detail["writer"], detail["number"]), []).append(recorder.Ack(record["seq"], record["id"]))
    return found


def test_no_acknowledged_event_is_lost_or_twice_when_the_recorder_is_killed(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    kills = request.config.getoption("--recorder-kills")
    with running(tmp_path, rotation={"bytes": 1 << 20, "seconds": 3600}) as made:
        with Writers(made) as writers:
            for _kill in range(kills):
                before = len(writers.acked)
                time.sleep(random.uniform(0, 0.4))
                made.kill()
                made.launch()
                deadline = time.monotonic() + 60
                while len(writers.acked) < before + WRITERS:
                    assert time.monotonic() < deadline, made.words()
                    time.sleep(0.01)
        assert writers.failures == []
        found = written(made.logs)
        assert {key: [ack] for key, ack in writers.acked.items()} == found
        assert {writer for writer, _number in found} == set(range(WRITERS))
        assert made.stop() == 0
        assert made.verify().problems == []
        starts = [record for record in made.records() if record["action"] == "recorder.start"]
        assert kills // 2 < len(starts) <= kills + 1


@pytest.mark.parametrize("kind", disks.MAKE)
def test_a_copy_of_the_disk_in_mid_write_has_every_acknowledged_event(tmp_path: Path, kind: str) -> None:
    """SIGKILL proves nothing about a loss of power: what was written is in the kernel's memory then. A copy of the image is not."""
    image, copy = tmp_path / "image", tmp_path / "copy"
    disks.made(image, kind, 320 << 20)
    with disks.mounted(image, kind, tmp_path / "disk") as disk:
        made = Recorder(tmp_path / "recorder", logs=disk / "logs")
        made.start()
        try:
            with Writers(made) as writers:
                for number in range(3):
                    time.sleep(random.uniform(0.2, 0.6))
                    unsynced = disk / f"unsynced{number}"
                    unsynced.write_bytes(b"x" * 5000)
                    assert made.process is not None
                    made.process.send_signal(signal.SIGSTOP)
                    acked = dict(writers.acked)
                    subprocess.run(["cp", "--sparse=always", str(image), str(copy)], check=True)
                    made.process.send_signal(signal.SIGCONT)
                    with disks.mounted(copy, kind, tmp_path / "after") as after:
                        # What nobody synced shows that the copy is what a loss of power leaves.
                        left = after / unsynced.name
                        assert not left.exists() or left.read_bytes() != b"x" * 5000
                        found = written(after / "logs")
                        assert acked and {key: found.get(key) for key in acked} == {key: [ack] for key, ack in acked.items()}
                        _goes_on(tmp_path / f"again{number}", after / "logs", made.keys)
            assert writers.failures == []
        finally:
            made.stop()


def _goes_on(folder: Path, logs: Path, keys: Path) -> None:
    """Have a recorder start on what is there."""
    again = Recorder(folder, logs=logs)
    subprocess.run(["cp", "-a", f"{keys}/.", str(again.keys)], check=True)
    again.start()
    assert again.command("status")["alarm"] == ""
    again.stop()
    assert again.verify().problems == []


def _fill(filler: Path, left: int) -> None:
    """Write *filler* until *left* bytes are free."""
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        for size in (1 << 18, 1 << 10):
            while (found := os.fstatvfs(file.fileno())).f_bavail * found.f_frsize > left + size:
                file.write(b"z" * size)
            os.fsync(file.fileno())


@pytest.mark.parametrize("reserve", [0, 4 << 20])
def test_a_full_disk_stops_actions_and_nothing_else(tmp_path: Path, reserve: int) -> None:
    image = tmp_path / "image"
    disks.made(image, "ext4", 24 << 20)
    with (
        disks.mounted(image, "ext4", tmp_path / "disk") as disk,
        running(tmp_path / "recorder", logs=disk / "logs", reserve=reserve) as made,
        made.client() as client,
    ):
        for _round in range(2):
            before = client.record(event(reason="there is room"))
            filler = disk / "filler"
            _fill(filler, reserve // 2)
            with pytest.raises(recorder.RecorderError, match="nothing may be done; make room"):
                for _event in range(10_000):
                    client.record(event(reason="y" * 3000))
            assert "make room" in made.command("status")["alarm"]
            with pytest.raises(recorder.RecorderError, match="make room"):
                client.record(event())
            assert made.verify().problems == []
            filler.unlink()
            deadline = time.monotonic() + 30
            while made.command("status")["alarm"]:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            assert client.record(event()).seq > before.seq
        actions = [record["action"] for record in made.records()]
        assert actions.count("log.room") == 2
        # Without a reserve there may be no room for the alarm; it is on standard error and in the status.
        assert actions.count("log.full") == 2 or not reserve
        assert made.words().count("ALARM") == 2
        assert made.verify().problems == []
        made.kill()
        made.start()
        assert client.record(event()).seq and made.verify().problems == []
