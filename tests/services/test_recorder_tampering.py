# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever is done to a log that a recorder wrote is found, and in its place; and nothing is found in what nobody touched."""

from __future__ import annotations

import contextlib
import random
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import canonical, chain, chain_verify, recorder, seal
from services import tampering
from services.recorders import Recorder, event, running

EACH = 80  # changes of each class; there are fifteen
VERIFIED = 100


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> tampering.Base:
    """A log of five sealed segments, of which the first was removed, and a live file; the key was rotated half-way."""
    folder = tmp_path_factory.mktemp("recorder")
    shipped: list[chain_verify.Shipped] = []
    chance = random.Random(4)
    with running(folder) as made, made.client() as client:
        for segment in range(6):
            for part in range(6):
                for number in range(8):
                    words = " ".join(chance.choices("the rule says that this may be done".split(), k=chance.randrange(30)))
                    client.record(event(sandbox="box", reason=words, detail={"segment": segment, "part": part, "number": number}))
                shipped.append(_head(made, len(shipped) + 1))
            if segment < 5:
                _seal(made)
            if segment == 2:
                made.command("rotate-key", reason="it is time")
        sealed = sum(path.stat().st_size for path in made.logs.glob("*.gz"))
        made.configure(retention={"bytes": sealed - 1})
        _reload(made)
        assert made.stop() == 0
    shipped.append(_read_head(made, len(shipped) + 1))
    return tampering.Base(made.logs, made.keys, shipped)


def _read_head(made: Recorder, line: int) -> chain_verify.Shipped:
    return chain_verify.Shipped("heads", line, seal.read(made.logs / chain.HEAD))


def _head(made: Recorder, line: int) -> chain_verify.Shipped:
    """Wait for a head of what is there now, and return it."""
    seq = made.command("status")["seq"]
    while made.command("status")["head"] < seq:
        time.sleep(0.02)
    return _read_head(made, line)


def _seal(made: Recorder) -> None:
    made.command("rotate")
    while made.command("seal") and made.command("status")["files"]["unsealed"]:
        time.sleep(0.01)


def _reload(made: Recorder) -> None:
    assert made.process is not None
    made.process.send_signal(signal.SIGHUP)
    digest = canonical.sha256_hex(made.config.read_bytes())
    while made.command("status")["config_sha256"] != digest:
        time.sleep(0.02)
    made.command("retain", reason="a test")


def test_the_log_has_all_that_is_tampered_with(base: tampering.Base) -> None:
    here = chain.contents(base.folder)
    assert len(here.seals) == 5 and len(here.packed) == 4 and len(here.tombstones) == 1 and here.live
    report = chain_verify.verify(base.folder, base.keys / tampering.PUBLIC, base.shipped, jobs=1)
    assert report.problems == [] and report.heads == 37 and report.removed == 1


@pytest.mark.parametrize("word", tampering.CLASSES)
def test_every_change_is_found_in_its_place(base: tampering.Base, word: str, tmp_path: Path) -> None:
    changed = 0
    for number in range(EACH):
        chance = random.Random(f"{word} {number}")
        change = chance.choice(tampering.CLASSES[word])
        log = tampering.Log(base, tmp_path / "log", chance)
        place = change(log)
        # A change may be none: two equal records swapped, one written over itself.
        public = (tmp_path / tampering.PUBLIC).read_bytes()
        if _content(log.folder) != _content(base.folder) or public != (base.keys / tampering.PUBLIC).read_bytes():
            report = chain_verify.verify(log.folder, tmp_path / tampering.PUBLIC, log.shipped, jobs=1)
            changed += 1
            told = f"{change.__name__} {number}: {list(map(str, report.problems))}, expected {place}"
            assert report.problems, told
            first = report.problems[0]
            assert Path(first.path).name in place.files, told
            assert place.lines is None or first.line in place.lines, told
        shutil.rmtree(log.folder)
    assert changed >= EACH - 5


def _content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name.startswith("ct")}


def test_nothing_is_found_in_a_log_that_nobody_touched_while_it_is_written(tmp_path: Path) -> None:
    """It is rotated, sealed, removed and given new keys meanwhile."""
    with running(tmp_path, rotation={"bytes": 1 << 16, "seconds": 1}, retention={"bytes": 1 << 16, "seconds": 0}) as made:
        ended = threading.Event()

        def write() -> None:
            with made.client("egress") as client:
                while not ended.is_set():
                    client.record(event(reason="x" * 500))
                    # Segments of this size are full sooner than they are sealed when it is written without a pause.
                    time.sleep(0.01)

        def tend() -> None:
            while not ended.is_set():
                made.command("rotate-key", reason="a test")
                made.command("rotate")
                made.command("retain", reason="a test")
                time.sleep(0.1)

        workers = [threading.Thread(target=work) for work in (write, write, tend)]
        for worker in workers:
            worker.start()
        try:
            told: list[chain_verify.Report] = []
            while len(told) < VERIFIED or told[-1].removed < 4:
                assert all(worker.is_alive() for worker in workers)
                told.append(made.verify(now=time.time(), jobs=1))
                # What retention removes in that moment is gone; nothing else is left out, or there twice.
                with contextlib.suppress(FileNotFoundError):
                    numbers = [record["seq"] for record in made.records()]
                    assert numbers == list(range(numbers[0], numbers[-1] + 1))
        finally:
            ended.set()
            for worker in workers:
                worker.join()
        assert [report.problems for report in told if report.problems] == []
        assert len({report.last.seq for report in told}) > VERIFIED // 2


@pytest.mark.parametrize("seconds", [60, 600])
def test_a_tail_without_a_head_is_found_when_its_time_is_over(tmp_path: Path, seconds: int) -> None:
    with running(tmp_path, head=3600) as made:
        ack = recorder.record(str(tmp_path / "run"), event())
        report = made.verify(now=time.time() + seconds)
        assert [problem.seq for problem in report.problems] == ([2] if seconds > chain_verify.TAIL_SECONDS else [])
        assert made.verify(now=time.time()).problems == [] and ack.seq == 3
