# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Gateways and simulated providers for tests: real processes over folders of their own, with a real recorder."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
import typing as t
from pathlib import Path

import aiohttp
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import recorder
from services.recorders import PATIENCE, TOP, Recorder

TOKEN = "token-of-a-test"
# As the simulated provider prices itself.
PRICES = [
    {
        "provider": "simulated",
        "model": "*",
        "input_mtok": 3,
        "cache_read_mtok": "0.30",
        "cache_write_mtok": "3.75",
        "cache_write_1h_mtok": 6,
        "output_mtok": 15,
        "web_searches_kcount": 10,
        "context": 1_000_000,
    }
]
TOTAL = ({"name": "total", "scope": "total", "limit": 1000},)
Budgets = t.Sequence[dict[str, t.Any]]


class Unix(http.client.HTTPConnection):
    """A plain client of a unix socket."""

    def __init__(self, path: str, timeout: float = 30) -> None:
        super().__init__("sandbox", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


@dataclasses.dataclass
class Got:
    """An answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> t.Any:
        return json.loads(self.body)

    @property
    def reason(self) -> str:
        return self.headers.get("x-guardrails-reason", "")


class Process:
    """A service as a process of its own."""

    def __init__(self, folder: Path, name: str, settings: dict[str, t.Any]) -> None:
        self.folder, self.name, self.settings = folder, name, settings
        folder.mkdir(parents=True, exist_ok=True)
        self.config = folder / f"{name}.json"
        self.process: subprocess.Popen[bytes] | None = None
        self.configure()

    def configure(self, **settings: t.Any) -> None:
        """Write the configuration, changed by *settings*."""
        self.settings |= settings
        self.config.write_text(json.dumps(self.settings), encoding="utf-8")

    def launch(self, module: str) -> None:
        """Start the process."""
        environment = {**os.environ, "PYTHONPATH": f"{TOP / '.collections'}:{TOP / 'src'}", "PYTHONDONTWRITEBYTECODE": "1"}
        with (self.folder / f"{self.name}.stderr").open("ab") as words:
            self.process = subprocess.Popen([sys.executable, "-m", module, str(self.config)], stderr=words, env=environment)

    def until(self, ready: t.Callable[[], bool]) -> None:
        """Wait until it is *ready*."""
        deadline = time.monotonic() + PATIENCE
        while not ready():
            assert self.process is not None
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(self.words())
            time.sleep(0.02)

    def words(self) -> str:
        """Return what the process said."""
        return (self.folder / f"{self.name}.stderr").read_text(encoding="utf-8")

    def kill(self) -> None:
        """Kill it at once."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def reload(self) -> None:
        """Have it read its configuration again."""
        assert self.process is not None
        self.process.send_signal(signal.SIGHUP)

    def stop(self) -> int:
        """End it in its own time; return its exit code."""
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)


class Simulator(Process):
    """A simulated provider."""

    def __init__(self, folder: Path, **settings: t.Any) -> None:
        super().__init__(folder, "simulator", settings or {"socket": str(folder / "simulator.sock")})

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.launch("dockersandbox.simulator")
        self.until(lambda: self.asks("/") is not None)

    def asks(self, path: str) -> t.Any:
        """Return what it says at *path*, None while it says nothing."""
        try:
            client = Unix(str(self.settings["socket"])) if "socket" in self.settings else http.client.HTTPConnection("127.0.0.1", self.settings["port"])
            client.request("GET", path)
            return json.loads(client.getresponse().read())
        except (OSError, ValueError):
            return None

    def account(self) -> dict[str, t.Any]:
        """Return its own account."""
        told: dict[str, t.Any] = self.asks("/account")
        return told


class Llm(Process):
    """A gateway."""

    def __init__(self, folder: Path, upstream: dict[str, t.Any], recorder_socket: str, ledger: Path | None = None, **settings: t.Any) -> None:
        limits = {"requests": 1_000_000, "tokens": 1 << 50, "streams": 2000, "connections": 2000, "bodies": 1 << 40}
        whole = {
            "host": "here",
            "ledger": str(ledger or folder / "ledger.db"),
            "sockets": str(folder / "run"),
            "recorder": recorder_socket,
            "metrics": str(folder),
            "anthropic": upstream,
            "openai": upstream,
            "sandboxes": {"one": {"token_sha256": hashlib.sha256(TOKEN.encode()).hexdigest(), "team": "blue"}},
            "prices": PRICES,
            "limits": limits,
            "breakers": {"repeats": 1_000_000, "sandbox": {"failures": 1_000_000}, "upstream": {"failures": 1_000_000}},
            **settings,
        }
        super().__init__(folder, "llm", whole)

    def start(self, budgets: Budgets | None = TOTAL) -> None:
        """Start it, wait until it answers, and declare *budgets*."""
        self.launch("dockersandbox.llm")
        self.until(lambda: self._status() is not None)
        if budgets is not None:
            self.command("declare", budgets=budgets, exclusive=True, reason="a test")

    def _status(self) -> dict[str, t.Any] | None:
        try:
            return self.command("status")
        except recorder.RecorderError:
            return None

    def command(self, name: str, **arguments: t.Any) -> dict[str, t.Any]:
        """Give a command on admin.sock."""
        with recorder.Client(str(self.folder / "run" / "admin.sock"), 20) as client:
            return client.command({"command": name, **arguments})

    def socket(self, sandbox: str = "one") -> str:
        """Return a sandbox's socket."""
        return str(self.folder / "run" / "sandboxes" / sandbox / "llm.sock")

    def ask(
        self, path: str, body: t.Any = None, headers: dict[str, str] | None = None, sandbox: str = "one", method: str = "", token: str = TOKEN
    ) -> Got:
        """Ask as a sandbox does; *body* is JSON, or bytes as they are."""
        client = Unix(self.socket(sandbox))
        raw = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        client.request(method or ("POST" if raw is not None else "GET"), path, raw, {"authorization": f"Bearer {token}", **(headers or {})})
        answer = client.getresponse()
        return Got(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())

    def settled(self) -> dict[str, int]:
        """Return what is spent in all, once nothing is held any more."""
        deadline = time.monotonic() + PATIENCE
        while True:
            spend: dict[str, int] = self.command("spend")["spend"]["total"].get("total", {"spent": 0, "held": 0, "calls": 0})
            if not spend["held"] or time.monotonic() > deadline:
                return spend
            time.sleep(0.02)

    def session(self) -> aiohttp.ClientSession:
        """Return a client for many calls at once, within an event loop."""
        connector = aiohttp.UnixConnector(self.socket(), limit=0)
        timeout = aiohttp.ClientTimeout(total=120)
        return aiohttp.ClientSession("http://sandbox", connector=connector, headers={"x-api-key": TOKEN}, timeout=timeout)


class Stand:
    """A recorder, a simulated provider and a gateway."""

    def __init__(self, folder: Path, **settings: t.Any) -> None:
        self.folder = folder
        ration = {"events": 1_000_000, "bytes": 1 << 30, "burst": 10}
        self.recorder = Recorder(folder / "recorder", senders=["host", "llm"], ration=ration)
        self.simulator = Simulator(folder / "simulator")
        self.upstream = {"url": "http://simulator", "provider": "simulated", "socket": self.simulator.settings["socket"]}
        self.llm = Llm(folder / "llm", self.upstream, self.recorder.path("llm"), **settings)

    def start(self, budgets: Budgets | None = TOTAL) -> None:
        """Start all of it."""
        self.recorder.start()
        self.simulator.start()
        self.llm.start(budgets)

    def stop(self) -> None:
        """End what runs."""
        for service in (self.llm, self.simulator, self.recorder):
            if service.process is not None and service.process.poll() is None:
                service.stop()

    def events(self, action: str) -> list[dict[str, t.Any]]:
        """Return the events of *action* on record."""
        return [record for record in self.recorder.records() if record["action"] == action]

    def of_call(self, action: str, call: str) -> dict[str, t.Any]:
        """Return the event of *action* that is of *call*, once it is on record."""
        deadline = time.monotonic() + PATIENCE
        while True:
            if found := [event for event in self.events(action) if event.get("detail", {}).get("call") == call]:
                return found[-1]
            assert time.monotonic() < deadline, f"no {action} of {call}"
            time.sleep(0.02)


@contextlib.contextmanager
def standing(folder: Path, budgets: Budgets | None = TOTAL, **settings: t.Any) -> t.Iterator[Stand]:
    """Yield a stand that runs, and end it."""
    stand = Stand(folder, **settings)
    try:
        stand.start(budgets)
        yield stand
    finally:
        stand.stop()


def message(text: str = "hello", **fields: t.Any) -> dict[str, t.Any]:
    """Return the body of a request to /v1/messages, or with other *fields* to its like."""
    return {"model": "claude-sonnet-4-5", "max_tokens": 100, "messages": [{"role": "user", "content": text}], **fields}


def chat(text: str = "hello", **fields: t.Any) -> dict[str, t.Any]:
    """Return the body of a request to /v1/chat/completions."""
    return {"model": "gpt-6-sol", "max_completion_tokens": 100, "messages": [{"role": "user", "content": text}], **fields}


def response(text: str = "hello", **fields: t.Any) -> dict[str, t.Any]:
    """Return the body of a request to /v1/responses."""
    return {"model": "gpt-6-sol", "max_output_tokens": 100, "input": text, **fields}


BODIES: dict[str, t.Callable[..., dict[str, t.Any]]] = {"/v1/messages": message, "/v1/chat/completions": chat, "/v1/responses": response}


async def many(llm: Llm, bodies: t.Iterable[dict[str, t.Any]], path: str = "/v1/messages") -> list[tuple[int, str, bytes]]:
    """Ask for all of *bodies* at once; return status, reason and answer of each."""

    async def one(session: aiohttp.ClientSession, body: dict[str, t.Any]) -> tuple[int, str, bytes]:
        async with session.post(path, json=body) as answer:
            return answer.status, answer.headers.get("x-guardrails-reason", ""), await answer.read()

    async with llm.session() as session:
        return await asyncio.gather(*(one(session, body) for body in bodies))
