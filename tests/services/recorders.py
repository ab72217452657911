# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Recorders for tests: real processes over folders of their own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import typing as t
from pathlib import Path

from ansible_collections.dockersandbox.guardrails.plugins.module_utils import chain, chain_verify, recorder

TOP = Path(__file__).resolve().parents[2]
RULES = {"logging_rules": [{"id": "test-token", "description": "tokens of these tests", "regex": "tok_[a-z0-9]{16}", "keywords": ["tok_"]}]}
EVENT = {"action": "network.connect", "class": "network_activity"}
PATIENCE = 30.0


def event(**fields: t.Any) -> dict[str, t.Any]:
    """Return an event with *fields*."""
    return {**EVENT, **fields}


class Recorder:
    """One recorder below *folder*; *settings* are added to its configuration."""

    def __init__(self, folder: Path, logs: Path | None = None, program: t.Sequence[str] = ("-m", "dockersandbox.recorder"), **settings: t.Any) -> None:
        self.folder, self.program = folder, program
        self.logs, self.keys, self.sockets = logs or folder / "logs", folder / "keys", folder / "run" / "recorder"
        self.config = folder / "recorder.json"
        self.process: subprocess.Popen[bytes] | None = None
        self.settings: dict[str, t.Any] = {
            "logs": str(self.logs),
            "keys": str(self.keys),
            "sockets": str(self.sockets),
            "senders": ["host", "egress"],
            "redaction": RULES,
            "reserve": 0,
            **settings,
        }
        for path in (folder, self.logs, self.keys, self.sockets):
            path.mkdir(parents=True, exist_ok=True)
        self.configure()

    def configure(self, **settings: t.Any) -> None:
        """Write the configuration, changed by *settings*."""
        self.settings |= settings
        self.config.write_text(json.dumps(self.settings), encoding="utf-8")

    def start(self) -> None:
        """Start the process and wait until it answers."""
        self.launch()
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                self.command("status")
                return
            except recorder.RecorderError:
                assert self.process is not None
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise AssertionError(self.words()) from None

    def launch(self) -> None:
        """Start the process."""
        environment = {**os.environ, "PYTHONPATH": f"{TOP / '.collections'}:{TOP / 'src'}", "PYTHONDONTWRITEBYTECODE": "1"}
        with (self.folder / "stderr").open("ab") as words:
            self.process = subprocess.Popen([sys.executable, *self.program, str(self.config)], stderr=words, env=environment)

    def words(self) -> str:
        """Return what the process said on standard error."""
        return (self.folder / "stderr").read_text(encoding="utf-8")

    def command(self, name: str, **arguments: t.Any) -> dict[str, t.Any]:
        """Give one command on admin.sock."""
        with recorder.Client(str(self.sockets / "admin.sock"), 10) as client:
            return client.command({"command": name, **arguments})

    def client(self, sender: str = "host", patience: float = 10) -> recorder.Client:
        """Return a client of one sender's socket."""
        return recorder.Client(self.path(sender), patience)

    def path(self, sender: str = "host") -> str:
        """Return one sender's socket."""
        return recorder.event_socket(str(self.folder / "run"), sender)

    def kill(self) -> None:
        """Kill the process at once."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """End the process in its own time; return its exit code."""
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)

    def records(self) -> list[dict[str, t.Any]]:
        """Return all records."""
        return [json.loads(line) for line in chain.lines(self.logs)]

    def verify(self, **options: t.Any) -> chain_verify.Report:
        """Verify the log."""
        return chain_verify.verify(self.logs, self.keys / "log.pub", **options)


@contextlib.contextmanager
def running(folder: Path, **settings: t.Any) -> t.Iterator[Recorder]:
    """Yield a recorder that runs, and end it."""
    made = Recorder(folder, **settings)
    made.start()
    try:
        yield made
    finally:
        if made.process is not None and made.process.poll() is None:
            made.stop()
