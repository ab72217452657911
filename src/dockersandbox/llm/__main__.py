# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Starts the gateway; the one argument is its configuration, where that is not in the usual place."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import heapq
import socket
import time
import typing as t
from pathlib import Path

import aiohttp
import msgspec
from aiohttp import web
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import atomic, budgets, canonical
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.budgets import EACH, Budget
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.recorder import RecorderError

from dockersandbox.common import admin, config, service
from dockersandbox.common.records import Records
from dockersandbox.common.resolver import Resolver
from dockersandbox.llm import calls, limits, prices, wire
from dockersandbox.llm.ledger import LedgerError, SqliteLedger
from dockersandbox.llm.names import Names
from dockersandbox.llm.service import Gateway, Upstream, tripping
from dockersandbox.llm.settings import Settings
from dockersandbox.llm.wire import Family

NAME = "llm"
_WRITE = 5.0  # seconds between looks at the figures
_GRACE = 10.0
_CHUNK = 1 << 16
_TOLD = 1000
_GARBAGE = 10_000


class _Full(asyncio.Protocol):
    """Closes a connection that is one too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        t.cast(asyncio.Transport, transport).abort()


class Service:
    """The process: sockets in, sessions out, and what root says."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.loaded = config.load(path, Settings)
        self.settings = self.loaded.value
        self.sockets: dict[str, asyncio.Server] = {}
        self.signals = service.signals()
        self.records = Records(self.settings.recorder)
        self.began = int(time.time())
        self.problem = ""
        self._closing: set[asyncio.Task[None]] = set()

    async def run(self) -> int:
        """Serve until the process is told to end."""
        loop = asyncio.get_running_loop()
        gateway: Gateway | None = None
        early: dict[str, str] = {}

        def stopped(stops: dict[str, str]) -> None:
            early.clear()
            early.update(stops)
            loop.call_soon_threadsafe(lambda: gateway.stopped(dict(stops)) if gateway else None)

        self.ledger = SqliteLedger(Path(self.settings.ledger), self.settings.times.lost, stopped=stopped)
        # Its first look at what another process left comes before the first call.
        await self.ledger.budgets()
        self.gateway = gateway = Gateway(self.settings, self.ledger, self.records.record, self.records.record_soon, self._upstreams(self.settings))
        gateway.stopped(dict(early))
        self._recall_runs()
        await self._listen()
        control = await admin.serve(Path(self.settings.sockets, "admin.sock"), self._command)
        tasks = [asyncio.create_task(work()) for work in (gateway.watch, self._figures, self._reloads)]
        for task in tasks:
            task.add_done_callback(lambda _done: self.signals.end.set())
        # The table of prices is large, and no garbage: to look through it again and again holds up every stream.
        prices.load()
        gc.collect()
        gc.freeze()
        gc.set_threshold(_GARBAGE)
        service.large_pages()
        await self._note("llm.start", self.loaded.sha256)
        await self.signals.end.wait()
        control.close()
        for server in self.sockets.values():
            server.close()
        await gateway.close(_GRACE)
        failed = [problem for task in tasks if task.done() and (problem := task.exception())]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._note("llm.stop", self.loaded.sha256)
        await self.ledger.close()
        with contextlib.suppress(OSError):
            gateway.metrics.write()
        for upstream in gateway.upstreams.values():
            await upstream.session.close()
        await self.records.close()
        for problem in failed:
            service.say(NAME, f"{type(problem).__name__}: {problem}")
        return 1 if failed else 0

    # -- what there is

    def _upstreams(self, settings: Settings) -> dict[Family, Upstream]:
        found: dict[Family, Upstream] = {}
        wanted: tuple[tuple[Family, t.Any], ...] = (("anthropic", settings.anthropic), ("openai", settings.openai))
        keys = {kind: _key(self.path, at.key_file, at.key_sha256) for kind, at in wanted}
        for kind, at in wanted:
            connector: aiohttp.BaseConnector = aiohttp.TCPConnector(
                resolver=Names(Resolver(settings.resolvers), at.allow_private), use_dns_cache=False, family=socket.AF_INET, limit=0, keepalive_timeout=15
            )
            if at.socket:
                connector = aiohttp.UnixConnector(at.socket, limit=0, keepalive_timeout=15)
            session = aiohttp.ClientSession(
                connector=connector,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=settings.times.connect, sock_read=settings.times.idle),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                skip_auto_headers=("User-Agent",),
                read_bufsize=_CHUNK,
            )
            breaker = limits.Breaker(tripping(settings.breakers.upstream))
            found[kind] = Upstream(kind, wire.base(at.url), at.provider, wire.credentials(kind, keys[kind]), session, breaker)
        return found

    async def _listen(self) -> None:
        """Have a socket for each sandbox, and none for others."""
        loop = asyncio.get_running_loop()
        for gone in self.sockets.keys() - self.settings.sandboxes.keys():
            self.sockets.pop(gone).close()
        for name in self.settings.sandboxes:
            if name in self.sockets:
                continue
            path = Path(self.settings.sockets, "sandboxes", name, f"{NAME}.sock")
            admin.listen_at(path)
            path.parent.chmod(0o755)
            self.sockets[name] = await loop.create_unix_server(self._door(name), str(path), backlog=1024)
            # Whoever has the folder is the sandbox, whatever its uid; the token is asked for besides.
            path.chmod(0o666)

    def _door(self, sandbox: str) -> t.Callable[[], asyncio.BaseProtocol]:
        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            return await self.gateway.handle(sandbox, request)

        server = web.Server(handle, access_log=None, keepalive_timeout=75, lingering_time=2.0, read_bufsize=_CHUNK)

        def come_in() -> asyncio.BaseProtocol:
            return _Full() if len(server.connections) >= self.settings.limits.connections else server()

        return come_in

    # -- what goes on

    async def _figures(self) -> None:
        complained = False
        while True:
            counts = {name: box.streams for name, box in self.gateway.boxes.items()}
            try:
                self.gateway.metrics.active(counts)
                self.gateway.metrics.standing(await self.ledger.standing())
                # It waits for the disk.
                await asyncio.to_thread(self.gateway.metrics.write)
                complained = False
            except (OSError, LedgerError) as error:
                if not complained:
                    service.say(NAME, f"the figures cannot be written: {error}")
                complained = True
            await asyncio.sleep(_WRITE)

    async def _reloads(self) -> None:
        while True:
            await self.signals.reload.wait()
            self.signals.reload.clear()
            try:
                await self._reload()
                self.problem = ""
            except (config.ConfigError, ValueError) as error:
                self.problem = str(error)
                service.say(NAME, f"the configuration is refused, and the old one stays: {error}")
                await self._note("llm.reload", None, self.problem)

    async def _reload(self) -> None:
        loaded = config.load(self.path, Settings)
        if loaded.value.fixed() != self.settings.fixed():
            raise config.ConfigError(f"{self.path}: host, ledger, sockets, recorder and metrics can only be changed by a new start")
        upstreams = self._upstreams(loaded.value)
        before = self.gateway.upstreams
        try:
            self.gateway.configure(loaded.value, upstreams)
        except ValueError:
            for upstream in upstreams.values():
                await upstream.session.close()
            raise
        self.loaded, self.settings = loaded, loaded.value
        await self._listen()
        await self._note("llm.reload", loaded.sha256)
        asyncio.get_running_loop().call_later(self.settings.times.whole, self._close, before)

    def _close(self, upstreams: dict[Family, Upstream]) -> None:
        for upstream in upstreams.values():
            # Nothing waits for it, and the loop alone does not keep a task.
            task = asyncio.create_task(upstream.session.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def _note(self, action: str, sha256: str | None, problem: str = "") -> None:
        event: dict[str, t.Any] = {
            "action": action,
            "class": "application_lifecycle",
            "actor": {"type": "service", "name": NAME},
            "outcome": "failure" if problem else "success",
            "reason": problem or None,
            "detail": {"config_sha256": sha256} if sha256 else None,
        }
        with contextlib.suppress(RecorderError):
            await self.records.record(event)

    # -- runs: they outlive the process, or one that crashes would free a run of its budget

    def _runs_file(self) -> Path:
        # Where sockets are nothing outlives the machine, and neither does a run.
        return Path(self.settings.sockets, "runs.json")

    def _recall_runs(self) -> None:
        content = atomic.read(self._runs_file())
        try:
            known = msgspec.json.decode(content, type=dict[str, list[str]]) if content is not None else {}
        except msgspec.DecodeError as error:
            raise config.ConfigError(f"{self._runs_file()}: {error}: whose runs go on is not known; remove it when none does") from None
        for name, runs in known.items():
            if name in self.gateway.boxes:
                self.gateway.boxes[name].runs = runs

    def _keep_runs(self) -> None:
        known = {name: box.runs for name, box in self.gateway.boxes.items() if box.runs}
        atomic.write(self._runs_file(), msgspec.json.encode(known), mode=0o600)

    # -- what root says

    async def _command(self, message: dict[str, t.Any]) -> dict[str, t.Any]:
        handle = _COMMANDS.get(message.get("command", ""))
        if handle is None:
            raise admin.Refused(f"{message.get('command')!r} is not a command; there is {', '.join(sorted(_COMMANDS))}")
        try:
            return await handle(self, message)
        except (LedgerError, budgets.BudgetError, RecorderError, OSError) as error:
            raise admin.Refused(str(error)) from None

    async def _on_record(self, action: str, message: dict[str, t.Any], kind: str = "device_config_state_change", **detail: t.Any) -> None:
        """Put what root does on record before it is done. Raises RecorderError."""
        event = {
            "action": action,
            "class": kind,
            "actor": {"type": "user", "name": "root"},
            "reason": str(message.get("reason") or "")[:1000] or None,
            "outcome": "success",
            "detail": detail,
        }
        await self.records.record(event)

    async def status(self, _message: dict[str, t.Any]) -> dict[str, t.Any]:
        """Tell how the service stands."""
        gateway = self.gateway
        return {
            "began": self.began,
            "config_sha256": self.loaded.sha256,
            "problem": self.problem,
            "stops": gateway.stops,
            "active": len(gateway.exchanges),
            "sandboxes": {
                name: {"run": box.run, "active": box.streams, "breaker": box.breaker.state, "reason": box.breaker.reason}
                for name, box in sorted(gateway.boxes.items())
            },
            "upstreams": {
                kind: {"provider": at.provider, "url": at.base, "key": bool(at.headers), "breaker": at.breaker.state}
                for kind, at in sorted(gateway.upstreams.items())
            },
        }

    async def budgets(self, _message: dict[str, t.Any]) -> dict[str, t.Any]:
        """Tell what budgets there are, and where each stands."""
        declared = [budget.declared() for budget in await self.ledger.budgets()]
        return {"budgets": declared, "standing": await self.ledger.standing()}

    async def declare(self, message: dict[str, t.Any]) -> dict[str, t.Any]:
        """Declare budgets: ``budgets`` as an operator writes them, ``exclusive``: and no others."""
        wanted = budgets.parse(message.get("budgets"))
        if problems := [problem for budget in wanted if (problem := self._nobody(budget))]:
            raise budgets.BudgetError(problems)
        exclusive = message.get("exclusive") is True
        text = "; ".join(f"{one.name}: {one.scope} {one.subject} {budgets.dollars(one.limit)}/{one.window} {one.mode}" for one in wanted)
        await self._on_record("llm.budgets", message, budgets=text[:4000], exclusive=exclusive)
        await self.ledger.declare(wanted, exclusive)
        return {"budgets": len(wanted)}

    def _nobody(self, budget: Budget) -> str:
        """Return why a *budget* for a model would hold for no call, "" when it may."""
        if budget.scope != "model" or budget.subject == EACH:
            return ""
        provider, _slash, name = budget.subject.partition("/")
        mine = {self.settings.anthropic.provider, self.settings.openai.provider, "simulated"}
        if not name or not (provider in mine or self.gateway.prices.knows(provider)):
            return f"{budget.name}: subject: {budget.subject!r} is not PROVIDER/MODEL with a provider that is known, such as {min(mine)}/{budget.subject}"
        called = prices.called(provider, name)
        return f"{budget.name}: subject: {budget.subject!r} is one of the names of {called!r}: write that" if called != budget.subject else ""

    async def spend(self, message: dict[str, t.Any]) -> dict[str, t.Any]:
        """Tell what was spent since the second ``since``, by run, sandbox, team, model and host."""
        since = message.get("since", 0)
        if not calls.whole(since) or since < 0:
            raise admin.Refused(f"since: {since!r} is not a number of seconds since 1970")
        spend = await self.ledger.spend(since)
        # There is no end of names, and an answer has one: the dearest are told.
        spend = {scope: dict(heapq.nlargest(_TOLD, found.items(), key=lambda item: item[1]["spent"])) for scope, found in spend.items()}
        return {"since": since, "spend": spend}

    async def stop(self, message: dict[str, t.Any]) -> dict[str, t.Any]:
        """Stop a ``subject`` (``total``, ``sandbox:NAME``, ``team:NAME``, ``run:ID``) for a ``reason``; calls under way are cut."""
        key, reason = _subject(message), message.get("reason")
        if not isinstance(reason, str) or not reason.strip():
            raise admin.Refused("reason: is missing: it is put on record, and told to whoever calls")
        await self._on_record("llm.stop_calls", message, subject=key)
        await self.ledger.stop(key, reason.strip()[:500])
        return {"stopped": key}

    async def resume(self, message: dict[str, t.Any]) -> dict[str, t.Any]:
        """Take back the stop of a ``subject``."""
        key = _subject(message)
        await self._on_record("llm.resume_calls", message, subject=key)
        return {"resumed": await self.ledger.resume(key)}

    async def run_changed(self, message: dict[str, t.Any]) -> dict[str, t.Any]:
        """Count what ``sandbox`` calls to ``run`` from now on, or when it has ``ended`` no more; null ends all of its runs."""
        name, run = message.get("sandbox"), message.get("run") or ""
        if name not in self.gateway.boxes:
            raise admin.Refused(f"sandbox: {name!r} is not one that has a socket here")
        if not isinstance(run, str) or len(run) > 100 or not run.isascii() or not run.isprintable():
            raise admin.Refused(f"run: {run!r} is not the id of a run")
        if run and message.get("ended") is not True:
            self.gateway.begin_run(name, run)
        else:
            for one in [run] if run else list(self.gateway.boxes[name].runs):
                self.gateway.end_run(name, one)
        self._keep_runs()
        return {"sandbox": name, "run": self.gateway.boxes[name].run}

    async def reconcile(self, message: dict[str, t.Any]) -> dict[str, t.Any]:
        """Go by an ``upstream``'s own account: ``statement`` has micro-dollars by call; whole for what was reserved ``until`` then."""
        statement, until = message.get("statement"), message.get("until", 0)
        if not isinstance(statement, dict) or not all(calls.whole(value) and 0 <= value <= budgets.MOST for value in statement.values()):
            raise admin.Refused("statement: is not an object of micro-dollars by the ids of calls")
        if not calls.whole(until) or not isinstance(message.get("upstream"), str):
            raise admin.Refused("upstream: a name, and until: seconds since 1970, are needed")
        await self._on_record("llm.reconcile", message, upstream=message["upstream"], calls=len(statement), until=until)
        done = await self.ledger.reconcile(message["upstream"], statement, until)
        return done._asdict()


_COMMANDS: dict[str, t.Callable[[Service, dict[str, t.Any]], t.Awaitable[dict[str, t.Any]]]] = {
    "status": Service.status,
    "budgets": Service.budgets,
    "declare": Service.declare,
    "spend": Service.spend,
    "stop": Service.stop,
    "resume": Service.resume,
    "run": Service.run_changed,
    "reconcile": Service.reconcile,
}


def _subject(message: dict[str, t.Any]) -> str:
    key = message.get("subject", "total")
    scope, _colon, name = key.partition(":") if isinstance(key, str) else ("", "", "")
    if key != "total" and (scope not in ("sandbox", "team", "run") or not name or len(key) > 128):
        raise admin.Refused(f"subject: {key!r} is not total, sandbox:NAME, team:NAME or run:ID")
    return str(key)


def _key(config_path: Path, key_file: str, sha256: str | None) -> str:
    """Return the key in *key_file*, "" for none. Raises ConfigError."""
    if not key_file:
        return ""
    try:
        content = atomic.read(Path(key_file), limit=4096)
    except OSError as error:
        raise config.ConfigError(f"{config_path}: key_file: {key_file}: {atomic.reason(error)}") from None
    if sha256 is not None and canonical.sha256_hex(content or b"") != sha256:
        raise config.ConfigError(f"{config_path}: key_file: {key_file}: is not the key that was configured: run site.yml with it")
    text = (content or b"").decode("ascii", "replace").strip()
    if not text or not text.isprintable() or not text.isascii() or " " in text:
        raise config.ConfigError(f"{config_path}: key_file: {key_file}: does not hold a key, one line of visible characters")
    return text


async def serve(path: Path) -> int:
    """Run the service."""
    return await Service(path).run()


if __name__ == "__main__":
    service.run(NAME, serve, LedgerError, OSError, ValueError)
