# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The official SDKs through the gateway: what they read of it, what they are charged, and what they do when there is no money."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import typing as t
from pathlib import Path

import pytest
from services.llms import TOKEN, Stand, standing
from services.recorders import TOP

from dockersandbox.simulator import plan

HERE = Path(__file__).parent / "sdks"
CACHE = TOP / ".cache" / "llm-sdks"
PYTHON = ("anthropic==2.10.0", "openai==3.51.0")
NODE = ("@anthropic-ai/sdk@1.10.0", "openai@7.55.0")
# An agent that nobody here has made anything for.
AGENT = ("@mariozechner/pi-coding-agent@0.73.1",)
SERVED = [30, 30]
TRIP = {"first": {"name": "simulated", "height": None}, "others": []}
STREAMS = {"messages": SERVED, "messages_stream": SERVED, "chat": SERVED, "chat_stream": [30, []], "responses": SERVED}


class Door:
    """127.0.0.1 → the socket of a sandbox, as a sandbox has it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.loop = asyncio.new_event_loop()
        self.port = 0
        self.ready = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        assert self.ready.wait(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        server = self.loop.run_until_complete(asyncio.start_server(self._through, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        self.ready.set()
        self.loop.run_forever()
        server.close()

    async def _through(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_unix_connection(self.path)

        async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError):
                while data := await source.read(1 << 16):
                    sink.write(data)
                    await sink.drain()
            sink.close()

        await asyncio.gather(copy(reader, inner_writer), copy(inner_reader, writer))

    def close(self) -> None:
        """End it."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[tuple[Stand, str]]:
    with standing(tmp_path_factory.mktemp("sdks")) as made:
        door = Door(made.llm.socket())
        try:
            yield made, f"http://127.0.0.1:{door.port}"
        finally:
            door.close()


@pytest.fixture(scope="module")
def python() -> Path:
    """A Python that has the SDKs, and nothing of ours."""
    venv = CACHE / "python"
    mark = venv / " ".join(PYTHON)
    if not mark.exists():
        shutil.rmtree(venv, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        subprocess.run([venv / "bin" / "pip", "install", "-q", *PYTHON], check=True)
        mark.touch()
    return venv / "bin" / "python"


def installed(folder: Path, packages: tuple[str, ...]) -> Path:
    """Return *folder*, in which Node finds *packages*."""
    mark = folder / " ".join(packages).replace("/", "%")
    if not mark.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        subprocess.run(["npm", "install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", folder, *packages], check=True)
        mark.touch()
    return folder


@pytest.fixture(scope="module")
def node() -> Path:
    """A folder in which Node finds the SDKs."""
    return installed(CACHE / "node", NODE)


def asked(stand: Stand, command: list[str | Path], folder: Path | None = None) -> dict[str, t.Any]:
    """Return what a client tells; the ledger then equals the upstream's own account."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON") and "PROXY" not in name.upper()}
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert stand.llm.settled()["spent"] == stand.simulator.account()["micro_dollars"]
    told: dict[str, t.Any] = json.loads(done.stdout)
    return told


def test_python(stand: tuple[Stand, str], python: Path) -> None:
    told = asked(stand[0], [python, HERE / "ask.py", stand[1], TOKEN])
    assert told == {
        **STREAMS,
        "messages_count": True,
        "messages_tool": ["tool_use", "write_file"],
        "messages_forced": ["content", "path"],
        "messages_parsed": TRIP,
        "messages_models": ["simulated-small"],
        "chat_stream_usage": 30,
        "chat_tool": ["tool_calls", "write_file"],
        "chat_parsed": TRIP,
        "responses_parsed": TRIP,
        "responses_stream": [30, "response.completed"],
        "openai_models": ["simulated-small"],
        "messages_model": [400, "BadRequestError"],
        "chat_model": [400, "BadRequestError"],
        "responses_background": [403, "PermissionDeniedError"],
        "messages_overloaded": [529, told["messages_overloaded"][1]],
    }


def test_node(stand: tuple[Stand, str], node: Path) -> None:
    shutil.copy(HERE / "ask.mjs", node / "ask.mjs")
    told = asked(stand[0], ["node", "ask.mjs", stand[1], TOKEN], node)
    assert told == {**STREAMS, "responses_stream": [30, "response.completed"], "messages_model": [400, "BadRequestError"]}


@pytest.mark.parametrize(("protocol", "below"), [("anthropic-messages", ""), ("openai-completions", "/v1"), ("openai-responses", "/v1")])
def test_an_agent(stand: tuple[Stand, str], tmp_path: Path, protocol: str, below: str) -> None:
    model = {"id": "simulated-small", "name": "simulated", "input": ["text"], "contextWindow": 200_000, "maxTokens": 8000}
    model |= {"reasoning": False, "cost": {"input": 3, "output": 15, "cacheRead": 0.3, "cacheWrite": 3.75}}
    provider = {"baseUrl": stand[1] + below, "apiKey": TOKEN, "api": protocol, "models": [model]}
    settings = tmp_path / "home" / ".pi" / "agent" / "models.json"
    settings.parent.mkdir(parents=True)
    settings.write_text(json.dumps({"providers": {"gateway": provider}}), encoding="utf-8")
    work = tmp_path / "work"
    work.mkdir()
    before = stand[0].simulator.account()["micro_dollars"]
    command = installed(CACHE / "agent", AGENT) / "node_modules" / ".bin" / "pi"
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path / "home")}
    ask: list[str | Path] = [command, "-p", "--provider", "gateway", "--model", "simulated-small", "Write a note."]
    done = subprocess.run(ask, capture_output=True, text=True, cwd=work, env=environment, stdin=subprocess.DEVNULL, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    # Its own tools did it, as it was told to by what came through the gateway.
    assert {path.name: path.read_text(encoding="utf-8") for path in work.iterdir()} == dict.fromkeys(plan.FILES, plan.NOTE)
    assert before < stand[0].simulator.account()["micro_dollars"] == stand[0].llm.settled()["spent"]


RETRIES = """
import sys, anthropic, openai
base, token = sys.argv[1:3]
for ask in (
    lambda: anthropic.Anthropic(base_url=base, api_key=token).messages.create(model="m", max_tokens=9, messages=[{"role": "user", "content": "x"}]),
    lambda: openai.OpenAI(base_url=base + "/v1", api_key=token).chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}]),
):
    try:
        ask()
    except (anthropic.APIStatusError, openai.APIStatusError) as error:
        print(error.status_code)
"""


def test_no_sdk_asks_again_when_the_money_is_spent(stand: tuple[Stand, str], python: Path) -> None:
    stand[0].llm.command("declare", budgets=[{"name": "none", "scope": "total", "limit": 0}], exclusive=True)
    done = subprocess.run([python, "-c", RETRIES, stand[1], TOKEN], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.split() == ["402", "402"], done.stderr
    figures = stand[0].llm.folder / "llm.prom"
    deadline = time.monotonic() + 20
    written: set[int] = set()
    # What is being written may be from before; what is written after that has all that was asked.
    while len(written) < 3:
        assert time.monotonic() < deadline
        with contextlib.suppress(FileNotFoundError):
            written.add(figures.stat().st_mtime_ns)
        time.sleep(0.1)
    assert re.findall(r'refused_total{reason="spent",sandbox="one"} (\S+)', figures.read_text(encoding="utf-8")) == ["2.0"]
