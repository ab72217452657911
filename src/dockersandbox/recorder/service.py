# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The recorder: takes events, has them written in batches, and answers once they are durable."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import sys
import time
import typing as t
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import atomic, chain, events, frames, seal
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.recorder import Ack, new_id

from dockersandbox.common import admin, config, service
from dockersandbox.recorder.connections import Connection, error
from dockersandbox.recorder.log import Entry, Full, Log, LogError, own
from dockersandbox.recorder.ration import Denial, Denials, Over, Rations
from dockersandbox.recorder.settings import Settings

NAME = "recorder"
ALARM = "detection_finding"
_BATCH = 1024  # events that are made durable together at most
_TICK = 0.5  # seconds
_TEND = 60.0  # seconds between looks at what waits to be sealed or removed
_ROOT = {"type": "user", "name": "root"}
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder(order="deterministic").encode
_Refusals = (OSError, ValueError, seal.SealError, chain.ChainError)


def _acknowledgement(ack: Ack) -> bytes:
    return frames.pack(b'{"id":"%b","seq":%d}' % (ack.id.encode(), ack.seq))


class Redactor(t.Protocol):
    """What takes secrets out of events."""

    def look(self) -> None:
        """Go by the host's secrets as they are now."""

    def redacted(self, event: dict[str, t.Any]) -> tuple[dict[str, t.Any], dict[str, int]]:
        """Return the event without secrets, and how many of each kind there were."""

    def forget(self, until: str, groups: t.Collection[str] = ...) -> list[str]:
        """Forget whom the pseudonyms of the months up to *until* stand for; return what was removed."""


class Item:
    """An event between its frame and its reply. *entry* is None for one whose *reply* is known already."""

    __slots__ = ("connection", "denial", "entry", "key", "reply", "settled", "size")

    def __init__(self, connection: Connection | None, size: int, reply: bytes = b"", entry: Entry | None = None) -> None:
        self.connection = connection
        self.size = size
        self.reply = reply
        self.entry = entry
        self.key = 0  # what its frame held, to tell an event sent again from another one with its id
        self.denial: Denial | None = None  # the one that it repeats, or begins
        self.settled: asyncio.Future[Ack] | None = None  # who else waits for it


class Recorder:
    """The service. *load* makes the redactor that a configuration describes."""

    def __init__(self, path: Path, load: t.Callable[[Settings], Redactor]) -> None:
        self.path = path
        self._load = load
        self._loaded = config.load(path, Settings)
        self.settings = self._loaded.value
        self.redact = self._redactor(self.settings)
        self.log = Log(Path(self.settings.logs), Path(self.settings.keys), self.settings.reserve)
        self.problem = ""  # why the last configuration was refused
        self.rations = Rations(self.settings.ration)
        self.denials = Denials()
        self.full_since: float | None = None
        self.full = ""  # what those are told who want something recorded meanwhile
        self.refused = 0  # events, since there is no room
        self.failed = ""  # why the process must end
        self._connections: dict[str, set[Connection]] = {}
        self._pending: list[Item] = []
        self._keys: dict[str, int] = {}
        self._kick = asyncio.Event()
        self._writing = asyncio.Lock()
        self._sealing = asyncio.Lock()
        self._tend = asyncio.Event()
        self._disk = ThreadPoolExecutor(1, "disk")
        self._servers: dict[str, asyncio.Server] = {}
        self._signals = service.signals()

    def _redactor(self, settings: Settings) -> Redactor:
        try:
            return self._load(settings)
        except (ValueError, OSError) as problem:
            raise config.ConfigError(f"{self.path}: redaction: {problem}") from None

    async def run(self) -> int:
        """Serve until the process is told to end; return its exit code."""
        for entry in self.log.open():
            self._add(Item(None, 0, entry=entry))
        if self.log.alarm:
            self._alarm(self.log.alarm)
        self.note("recorder.start", outcome="success", detail={"config_sha256": self._loaded.sha256})
        tasks = [asyncio.create_task(work()) for work in (self._write, self._tick, self._heads, self._tends, self._reloads)]
        for task in tasks:
            task.add_done_callback(self._ended)
        control = await admin.serve(Path(self.settings.sockets, "admin.sock"), self._command)
        await self._listen()
        service.large_pages()
        await self._signals.end.wait()
        control.close()
        await self._drain()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with contextlib.suppress(OSError):
            self.log.close()
        if self.failed:
            service.say(NAME, self.failed)
        return 1 if self.failed else 0

    def _ended(self, task: asyncio.Task[None]) -> None:
        """End the process with a part of it: one that only seems to work would be worse than none."""
        if not task.cancelled() and (problem := task.exception()):
            self.failed = self.failed or f"{type(problem).__name__}: {problem}"
            self._signals.end.set()

    async def _drain(self) -> None:
        """Answer what was read, and say goodbye on record."""
        for server in self._servers.values():
            server.close()
        for connection in self._all():
            connection.drain()
        for denial, count in self.denials.due(self._now(), all_of_them=True):
            self._count(denial, count)
        last = self.note("recorder.stop", outcome="success")
        if not self.failed:
            with contextlib.suppress(Full, TimeoutError):
                await asyncio.wait_for(last, 10)
        for connection in self._all():
            connection.finish()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2):
                while self._all():
                    await asyncio.sleep(0.01)

    def _all(self) -> list[Connection]:
        return [connection for group in self._connections.values() for connection in group]

    async def _listen(self) -> None:
        """Have a socket for each sender, and none for others."""
        loop = asyncio.get_running_loop()
        for gone in self._servers.keys() - set(self.settings.senders):
            self._servers.pop(gone).close()
            for connection in list(self._connections.get(gone, ())):
                connection.abort()
        for sender in self.settings.senders:
            if sender in self._servers:
                continue
            path = Path(self.settings.sockets, sender, "event.sock")
            admin.listen_at(path)
            path.parent.chmod(0o755)

            def protocol(sender: str = sender) -> Connection:
                return Connection(sender, self)

            self._servers[sender] = await loop.create_unix_server(protocol, str(path), backlog=1024)
            # Whoever has the folder in its container is the sender, whatever its uid.
            path.chmod(0o666)

    # -- events come in

    def connected(self, connection: Connection) -> str:
        """Return why *connection* is refused; "" when it is not."""
        group = self._connections.setdefault(connection.sender, set())
        if len(group) >= self.settings.limits.connections:
            return f"sender {connection.sender} has {len(group)} connections already, which is the limit"
        group.add(connection)
        return ""

    def gone(self, connection: Connection) -> None:
        """Take note that *connection* has ended."""
        self._connections.get(connection.sender, set()).discard(connection)

    def receive(self, connection: Connection, texts: list[bytes]) -> None:
        """Take events from a connection."""
        self._kick.set()
        now = self._now()
        unsure = None
        try:
            # Once for all that came together.
            self.redact.look()
        except (ValueError, OSError) as problem:
            unsure = problem
        for text in texts:
            try:
                item = self._taken(connection, text, now, unsure)
            except events.EventError as problem:
                item = Item(connection, len(text), error(str(problem)))
            self._pending.append(item)

    def last(self, connection: Connection, reply: bytes) -> None:
        """Have *reply* written after those to what came before."""
        self._add(Item(connection, 1, reply))

    def _add(self, item: Item) -> None:
        self._pending.append(item)
        self._kick.set()

    def _taken(self, connection: Connection, text: bytes, now: float, unsure: Exception | None) -> Item:
        """Return what becomes of one event; *unsure*: why none can be redacted now. Raises EventError."""
        if self.log.alarm:
            raise events.EventError(self._refusal())
        if self.full_since is not None:
            self.refused += 1
            raise events.EventError(self.full)
        try:
            event = _decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
            raise events.EventError(f"the event is not JSON: {problem}") from None
        if not isinstance(event, dict):
            raise events.EventError("the event is no JSON object")
        events.check(event)
        name = event.get("id") or new_id()
        event["id"] = name
        item = Item(connection, len(text))
        item.key = hash(text)
        if (seq := self.log.recent.get(name)) is not None:
            item.reply = self._again(item, name, seq)
            return item
        if (sandbox := event.get("sandbox")) is not None and self._over(item, sandbox, event, now):
            return item
        try:
            if unsure is not None:
                raise unsure
            redacted, redactions = self.redact.redacted(event)
        except (ValueError, OSError) as problem:
            raise events.EventError(f"the event cannot be redacted, so it is not recorded: {problem}") from None
        item.entry = Entry(redacted, connection.sender, redactions)
        return item

    def _over(self, item: Item, sandbox: str, event: dict[str, t.Any], now: float) -> bool:
        """Return whether an event of *sandbox* is not written: a denial that is repeated, or one over the ration."""
        assert item.connection is not None
        denied, key = event.get("decision") == "deny", b""
        if denied:
            alike = {name: value for name, value in event.items() if name not in {"id", "detail"}}
            key = item.connection.sender.encode() + b"\0" + _encode(alike)
            item.denial = self.denials.seen(sandbox, key, now)
            if item.denial:
                return True
        if not self.rations.take(sandbox, item.size, now):
            ration = self.settings.ration
            raise events.EventError(
                f"sandbox {sandbox} is over its ration of {ration.events} events and {ration.bytes} bytes a second: not recorded, so it may not be done"
            )
        if denied:
            item.denial = self.denials.begin(sandbox, key, event, item.connection.sender, now)
        return False

    def _again(self, item: Item, name: str, seq: int) -> bytes:
        """Return the reply to an event with the id of a durable record. Of one that an earlier process wrote only the id is known."""
        if self._keys.get(name, item.key) != item.key:
            return error(f"id: {name} is that of another event")
        return _acknowledgement(Ack(seq, name))

    def note(self, action: str, kind: str = "application_lifecycle", **fields: t.Any) -> asyncio.Future[Ack]:
        """Record an event of the recorder itself; the future tells where it is."""
        return self._settled(own(action, kind, **fields))

    def _settled(self, entry: Entry) -> asyncio.Future[Ack]:
        item = Item(None, 0, entry=entry)
        item.settled = asyncio.get_running_loop().create_future()
        # Whether anyone waits for it is not known here.
        item.settled.add_done_callback(lambda future: future.cancelled() or future.exception())
        self._add(item)
        return item.settled

    def _refusal(self) -> str:
        return f"{self.log.alarm}: nothing is recorded, so nothing may be done; see docs/logging.md on a broken log"

    # -- events are written

    async def _write(self) -> None:
        while True:
            await self._kick.wait()
            self._kick.clear()
            while self._pending:
                items, self._pending = self._pending[:_BATCH], self._pending[_BATCH:]
                async with self._writing:
                    await self._commit(items)
                    if self.log.due(self.settings.rotation.bytes, self.settings.rotation.seconds):
                        await self._rotate()

    async def _commit(self, items: list[Item]) -> None:
        """Have the events of *items* written that are new, and reply to all of them."""
        fresh: list[Item] = []
        again: list[Item] = []
        known: set[str] = set()
        for item in items:
            if item.entry is None:
                continue
            name = item.entry.event["id"]
            if name in known:
                again.append(item)
            elif (seq := self.log.recent.get(name)) is not None:
                item.entry, item.reply = None, self._again(item, name, seq)
            else:
                known.add(name)
                self._keys[name] = item.key
                fresh.append(item)
        failure = ""
        if fresh:
            failure = await self._durable([item.entry for item in fresh if item.entry])
        for item in again:
            assert item.entry is not None
            name = item.entry.event["id"]
            if (seq := self.log.recent.get(name)) is not None:
                item.entry, item.reply = None, self._again(item, name, seq)
        replies: dict[Connection, tuple[list[bytes], int]] = {}
        for item in items:
            self._settle(item, failure)
            if item.connection is not None:
                texts, size = replies.get(item.connection, ([], 0))
                texts.append(item.reply)
                replies[item.connection] = texts, size + item.size
        for connection, (texts, size) in replies.items():
            connection.reply(b"".join(texts), size)

    async def _durable(self, entries: list[Entry]) -> str:
        """Have *entries* written; return why they are not."""
        if self.log.alarm:
            return self._refusal()
        if self.full_since is not None:
            return self.full
        try:
            await self._in_thread(self.log.commit, self.log.stamp(entries))
        except Full as problem:
            await self._filled(str(problem))
            return str(problem)
        except LogError as problem:
            self.failed = self.log.alarm = str(problem)
            self._signals.end.set()
            return str(problem)
        if len(self._keys) > 2 * len(self.log.recent) + _BATCH:
            self._keys = {name: key for name, key in self._keys.items() if name in self.log.recent}
        return ""

    def _settle(self, item: Item, failure: str) -> None:
        """Give *item* its reply."""
        ack = None
        if item.entry is not None:
            name = item.entry.event["id"]
            seq = self.log.recent.get(name)
            if seq is not None:
                ack = Ack(seq, name)
            else:
                self._keys.pop(name, None)
        if item.denial is not None:
            denial = item.denial
            if item.entry is None:
                ack, failure = denial.ack, "the denial that this one repeats is not on record"
            elif ack is not None:
                denial.ack = ack
            else:
                self.denials.forget(str(denial.event["sandbox"]), denial)
        if ack is not None:
            item.reply = _acknowledgement(ack)
        elif not item.reply:
            item.reply = error(failure)
        if item.settled is not None and not item.settled.done():
            if ack is not None:
                item.settled.set_result(ack)
            else:
                item.settled.set_exception(Full(failure))

    async def _in_thread(self, work: t.Callable[..., t.Any], *arguments: t.Any) -> t.Any:
        """Do what only one at a time may do to the log, while the loop goes on."""
        return await asyncio.get_running_loop().run_in_executor(self._disk, work, *arguments)

    async def _rotate(self) -> bool:
        """Make the live file a segment, which is then sealed; the caller holds the lock of writing."""
        try:
            rotated: bool = await self._in_thread(self.log.rotate)
        except OSError as problem:
            service.say(NAME, f"{self.settings.logs}: not rotated: {atomic.reason(problem)}")
            return False
        if rotated:
            self._tend.set()
        return rotated

    # -- no room

    async def _filled(self, why: str) -> None:
        """Refuse all events until there is room again. The alarm itself goes on record, out of the reserve."""
        self.full_since, self.full, self.refused = self._now(), why, 0
        service.say(NAME, f"ALARM: {why}")
        entry = own("log.full", ALARM, reason=why, outcome="failure")
        with contextlib.suppress(Full):
            await self._in_thread(self.log.commit, self.log.stamp([entry]), True)

    def _look_for_room(self) -> None:
        if self.full_since is None or not self.log.room(again=True):
            return
        seconds = int(self._now() - self.full_since)
        self.full_since = None
        service.say(NAME, "there is room again")
        self.note("log.room", ALARM, outcome="success", detail={"refused": self.refused, "seconds": seconds})

    # -- what happens now and then

    @staticmethod
    def _now() -> float:
        return time.monotonic()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK)
            now = self._now()
            self._look_for_room()
            self._end_stalled(asyncio.get_running_loop().time())
            if self.log.alarm or self.full_since is not None:
                continue
            for denial, count in self.denials.due(now):
                self._count(denial, count)
            for sandbox, count in self.rations.due(now):
                reason = "it is over its ration of events; these were not recorded, and so not done"
                told = self.note("ration.exceeded", ALARM, sandbox=sandbox, reason=reason, outcome="failure", detail={"refused": count})
                told.add_done_callback(functools.partial(self._untold, sandbox, count))
            if self.log.due(1 << 62, self.settings.rotation.seconds):
                async with self._writing:
                    await self._rotate()

    def _untold(self, sandbox: str, count: int, told: asyncio.Future[Ack]) -> None:
        """Tell later what could not be told now."""
        if not told.cancelled() and told.exception():
            self.rations.over.setdefault(sandbox, Over()).untold += count

    def _end_stalled(self, now: float) -> None:
        for connection in self._all():
            if connection.begun is not None and now - connection.begun > self.settings.limits.stall:
                connection.abort()

    def _count(self, denial: Denial, count: int) -> None:
        """Record how often a denial was repeated."""
        assert denial.ack is not None
        event = {**denial.event, "id": new_id(), "detail": {"repeated": count, "first_seq": denial.ack.seq}}
        try:
            self.redact.look()
            redacted, redactions = self.redact.redacted(event)
        except (ValueError, OSError) as problem:
            service.say(NAME, f"a count cannot be redacted, so it is not recorded: {problem}")
            return

        def settled(future: asyncio.Future[Ack]) -> None:
            if not future.cancelled() and future.exception():
                denial.count += count

        self._settled(Entry(redacted, denial.sender, redactions)).add_done_callback(settled)

    async def _heads(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self.settings.head)
            if self.log.alarm:
                continue
            try:
                # The sealer and the rotation of the key wait for each other already; a head is as short as them.
                await loop.run_in_executor(None, self.log.write_head)
            except (OSError, seal.SealError) as problem:
                service.say(NAME, f"{self.settings.logs}: no head was written: {problem}")

    async def _tends(self) -> None:
        self._tend.set()
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._tend.wait(), _TEND)
            self._tend.clear()
            if self.log.alarm:
                continue
            async with self._sealing:
                try:
                    await self._seal()
                    await self._retain("it is older, or the log larger, than its configuration says")
                except (Full, *_Refusals) as problem:
                    service.say(NAME, f"not sealed or removed: {problem}")

    async def _seal(self) -> int:
        """Have the segments sealed that wait for it; return how many were. Raises ChainError."""
        if not chain.contents(self.log.folder).raw:
            return 0
        flags = ["-I"] if sys.flags.isolated else []
        sealer = await asyncio.create_subprocess_exec(
            sys.executable, *flags, "-m", "dockersandbox.recorder.sealer", str(self.log.folder), str(self.log.key), stdout=asyncio.subprocess.PIPE
        )
        output, _none = await sealer.communicate()
        said = [json.loads(line) for line in output.splitlines()]
        for detail in said:
            if "error" not in detail:
                await self.note("log.seal", outcome="success", detail=detail)
        if sealer.returncode:
            why = said[-1].get("error") if said else None
            await self.note("log.seal", ALARM, outcome="failure", reason=why or f"the sealer ended with code {sealer.returncode}")
            raise chain.ChainError(why or "the sealer failed")
        return len(said)

    async def _retain(self, why: str) -> int:
        """Remove the segments whose time is over; return how many. Each is on record before it goes."""
        loop = asyncio.get_running_loop()
        retention = self.settings.retention
        found = await loop.run_in_executor(None, self.log.retained, retention.seconds, retention.bytes)
        for made in found:
            detail = {"first_seq": made.first, "last_seq": made.last.seq, "records": made.records, "root": made.root, "seal_sha256": made.sha256}
            await self.note("log.retain", reason=why, outcome="success", detail=detail)
            await loop.run_in_executor(None, self.log.remove, made, why)
        return len(found)

    # -- the operator

    async def _reloads(self) -> None:
        while True:
            await self._signals.reload.wait()
            self._signals.reload.clear()
            try:
                loaded = config.load(self.path, Settings)
                if loaded.value.fixed() != self.settings.fixed():
                    raise config.ConfigError(f"{self.path}: logs, keys and sockets are changed by a new start only")
                redact = self._redactor(loaded.value)
            except config.ConfigError as refused:
                self.problem = str(refused)
                service.say(NAME, f"the configuration stays as it was: {refused}")
                self.note("recorder.configure", outcome="failure", reason=self.problem)
                continue
            self._loaded, self.settings, self.redact, self.problem = loaded, loaded.value, redact, ""
            self.log.reserve = self.settings.reserve
            self.rations.ration = self.settings.ration
            await self._listen()
            self.note("recorder.configure", outcome="success", detail={"config_sha256": loaded.sha256})
            self._tend.set()

    def _alarm(self, text: str) -> None:
        service.say(NAME, f"ALARM: {text}: nothing is recorded until it is put right")

    async def _command(self, message: dict[str, t.Any]) -> dict[str, t.Any]:
        """Do one command of root's. Raises Refused."""
        name = message.pop("command", None)
        commands: dict[t.Any, tuple[t.Callable[..., t.Awaitable[dict[str, t.Any]]], set[str], set[str]]] = {
            "status": (self._status, set(), set()),
            "rotate": (self._rotate_now, set(), set()),
            "seal": (self._seal_now, set(), set()),
            "retain": (self._retain_now, {"reason"}, set()),
            "rotate-key": (self._rotate_key, {"reason"}, set()),
            "forget": (self._forget, {"reason", "until"}, {"groups"}),
            "reset-chain": (self._reset, {"reason"}, set()),
        }
        if name not in commands:
            raise admin.Refused(f"command: there is no {name!r}; there are {', '.join(commands)}")
        work, required, optional = commands[name]
        if lacking := required - message.keys():
            raise admin.Refused(f"{min(lacking)}: {name} needs it")
        if extra := message.keys() - required - optional:
            raise admin.Refused(f"{min(extra)}: {name} has no such argument")
        if "reason" in message and not (isinstance(message["reason"], str) and message["reason"].strip()):
            raise admin.Refused(f"reason: {name} needs one, in words")
        if self.log.alarm and name not in {"status", "reset-chain"}:
            raise admin.Refused(self._refusal())
        try:
            return await work(**message)
        except (Full, LogError, *_Refusals) as problem:
            raise admin.Refused(str(problem)) from None

    async def _status(self) -> dict[str, t.Any]:
        here, link = chain.contents(self.log.folder), self.log.link
        disk = await self._in_thread(self.log.free)
        return {
            "config_sha256": self._loaded.sha256,
            "problem": self.problem,
            "alarm": self._refusal() if self.log.alarm else self.full if self.full_since is not None else "",
            "chain_uid": self.log.chain_uid,
            "seq": link.seq,
            "sha256": link.sha256,
            "time": link.time,
            "head": self.log.head.seq,
            "key": self.log.keyid,
            "files": {"sealed": len(here.packed), "unsealed": len(here.raw), "removed": len(here.tombstones)},
            "free_bytes": disk,
            "connections": {sender: len(group) for sender, group in self._connections.items()},
            "rationed": {sandbox: over.total for sandbox, over in self.rations.over.items()},
        }

    async def _rotate_now(self) -> dict[str, t.Any]:
        async with self._writing:
            return {"rotated": await self._rotate()}

    async def _seal_now(self) -> dict[str, t.Any]:
        async with self._sealing:
            return {"sealed": await self._seal()}

    async def _retain_now(self, reason: str) -> dict[str, t.Any]:
        async with self._sealing:
            await self._seal()
            return {"removed": await self._retain(reason)}

    async def _rotate_key(self, reason: str) -> dict[str, t.Any]:
        async with self._sealing, self._writing:
            old = self.log.keyid
            new = await self._in_thread(self.log.rotate_key)
        await self.note("log.rotate_key", "device_config_state_change", actor=_ROOT, reason=reason, outcome="success", detail={"old": old, "new": new})
        return {"key": new}

    async def _forget(self, reason: str, until: t.Any, groups: t.Any = ("secret", "personal")) -> dict[str, t.Any]:
        if not isinstance(until, str) or not isinstance(groups, (list, tuple)) or not all(isinstance(group, str) for group in groups):
            raise admin.Refused('forget: until is a month such as "2026-11", groups a list of secret and personal')
        gone = self.redact.forget(until, groups)
        detail = {"until": until, "keys": len(gone)}
        await self.note("log.forget", "device_config_state_change", actor=_ROOT, reason=reason, outcome="success", detail=detail)
        return {"forgotten": gone}

    async def _reset(self, reason: str) -> dict[str, t.Any]:
        if not self.log.alarm:
            raise admin.Refused("reset-chain: the log is as it should be; a new chain is for one that is broken")
        why = self.log.alarm
        async with self._sealing, self._writing:
            entry = await self._in_thread(self.log.reset, f"{reason} (it was broken: {why})")
        service.say(NAME, f"a new chain was begun: {reason}")
        return {"chain_uid": self.log.chain_uid, "folder": entry.event["detail"]["folder"]}


async def serve(path: Path, load: t.Callable[[Settings], Redactor]) -> int:
    """Run the recorder that the configuration at *path* describes; return its exit code."""
    return await Recorder(path, load).run()
