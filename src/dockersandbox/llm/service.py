# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gateway: from a sandbox's socket to a provider, past every limit, and back with the bytes as they came.

Nothing leaves unless its cost is held in the ledger and the call is on record. Whatever then happens to it, the hold ends in
one of three ways: settled to what the call did cost, freed because it cost nothing, or left charged because nobody knows.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import hmac
import time
import typing as t

import aiohttp
from aiohttp import web
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.budgets import dollars
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.recorder import Ack, RecorderError

from dockersandbox.common.ids import Ids
from dockersandbox.common.records import Record
from dockersandbox.llm import calls, limits, meter, wire
from dockersandbox.llm.books import Ask, Held, Refused
from dockersandbox.llm.calls import Call, Refusal
from dockersandbox.llm.ledger import Ledger, LedgerError
from dockersandbox.llm.metrics import Metrics
from dockersandbox.llm.prices import LONG, Price, Prices, Unpriced, Usage
from dockersandbox.llm.settings import Settings
from dockersandbox.llm.wire import Family

# How long an upstream may keep a connection open after the answer's last word.
_AFTERWARDS = 5.0
_TICK = 0.25
# A clock that differs by more than this from what has passed was set.
_STEP = 30.0
_MOST_ERROR = 1 << 20
# Seconds after which what the ledger could not do is tried again.
_PAUSES = (0.25, 0.5, 1.0, 2.0)
_MOST_RUNS = 64
# What the bodies of all sandboxes may have at a time, in bytes, above which nobody gets more than the share that each is sure of.
_BODIES = 96 << 20
_SHARE = 4 << 20
# So many chunks of a body, unless they have so many bytes on average, take long to read for what they hold.
_CHUNKS = 10_000
_CHUNK = 512
# What is read when there are no more.
_NO_MORE = (b"", False)
# Seconds for which one who is refused in the middle of a body may go on to send it.
_LINGER = 2.0
# A body with so many values, or of so many bytes, takes some ten milliseconds to read, in which nobody else is served.
_VALUES = 10_000
_BYTES = 1 << 20


@dataclasses.dataclass(slots=True)
class Upstream:
    """A provider as it is reached: *headers* carry the real key."""

    family: Family
    base: str
    provider: str
    headers: dict[str, str]
    session: aiohttp.ClientSession
    breaker: limits.Breaker


class Box:
    """What is known of one sandbox between its calls."""

    def __init__(self, name: str, settings: Settings) -> None:
        self.name = name
        # In the order in which they began: a run in a throw-away sandbox of this one's shape goes on beside its own.
        self.runs: list[str] = []
        self.streams = 0
        self.bodies = 0
        self.configure(settings)

    @property
    def run(self) -> str:
        """The run that its calls count to, "" for none: of those that go on, the one that began last."""
        return self.runs[-1] if self.runs else ""

    def configure(self, settings: Settings) -> None:
        """Take its limits from *settings*; what was counted starts anew."""
        rates, breakers = settings.limits, settings.breakers
        self._token_sha256 = settings.sandboxes[self.name].token_sha256
        self._token = b""
        self.team = settings.sandboxes[self.name].team or ""
        self.requests = limits.Bucket(rates.requests)
        self.tokens = limits.Bucket(rates.tokens)
        self.breaker = limits.Breaker(tripping(breakers.sandbox))
        self.velocity = limits.Velocity(breakers.velocity) if breakers.velocity else None
        self.repeats = limits.Repeats(breakers.repeats)

    def knows(self, token: bytes) -> bool:
        """Whether *token* is the sandbox's. Once it was found to be, it is not hashed again."""
        if self._token and hmac.compare_digest(token, self._token):
            return True
        if not hmac.compare_digest(hashlib.sha256(token).hexdigest(), self._token_sha256):
            return False
        self._token = token
        return True


def tripping(rule: t.Any) -> limits.Tripping:
    """Return a breaker's rule as the settings have it."""
    return limits.Tripping(rule.failures, float(rule.period), float(rule.pause), float(rule.longest))


@dataclasses.dataclass(slots=True, eq=False)
class Exchange:
    """A call under way. *cut* says why it is ended from outside."""

    id: str
    box: Box
    request: web.BaseRequest
    task: asyncio.Task[t.Any]
    begun: float
    upstream: Upstream
    call: Call
    price: Price
    held: int
    at: int
    run: str
    over: tuple[str, ...]
    tokens: int = 0
    gone: float = 0.0
    ended: float = 0.0
    first: float = 0.0
    cut: str = ""

    def end(self, why: str) -> None:
        """End the call from outside."""
        if not self.cut:
            self.cut = why
            self.task.cancel()


class _Chunks:
    """Counts the chunks of a body."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._count = 0
        self._size = 0

    def small(self, part: bytes, ended: bool) -> bool:
        """Take *part* into account, which may have *ended* a chunk; return whether there are many, and small ones."""
        self._count += ended
        self._size += len(part)
        return self._count > self._most and self._size < self._count * _CHUNK


class Room:
    """What the bodies of all sandboxes take, in bytes."""

    def __init__(self) -> None:
        self.taken = 0


class Place:
    """A place among a sandbox's calls at a time, and for *size* bytes of a body, of the *room* for all."""

    def __init__(self, box: Box, room: Room) -> None:
        self.box = box
        self.size = 0
        self._room = room

    def __enter__(self) -> Place:
        self.box.streams += 1
        return self

    def __exit__(self, *_exception: object) -> None:
        self.box.streams -= 1
        self.take(-self.size)

    def take(self, size: int) -> None:
        """Take *size* bytes more."""
        self.size += size
        self.box.bodies += size
        self._room.taken += size

    def crowded(self) -> bool:
        """Whether all have taken so much that only the share of each is left, and this sandbox has had its own."""
        return self._room.taken > _BODIES and self.box.bodies > _SHARE


class Gateway:
    """All calls of all sandboxes. A call waits for *record* before it leaves, and nothing waits for *report*, which tells how it ended."""

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        record: Record,
        report: Record,
        upstreams: dict[Family, Upstream],
        clock: t.Callable[[], float] = time.time,
    ) -> None:
        self.ledger = ledger
        self.stops: dict[str, str] = {}
        self.metrics = Metrics(settings.metrics)
        self.exchanges: set[Exchange] = set()
        self._record = record
        self._report_event = report
        self._ids = Ids()
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._now = self._loop.time
        self._behind: set[asyncio.Future[t.Any]] = set()
        self._drift = clock() - self._now()
        self._closing = False
        self._room = Room()
        self.boxes: dict[str, Box] = {}
        self.configure(settings, upstreams)

    def configure(self, settings: Settings, upstreams: dict[Family, Upstream]) -> None:
        """Go by *settings* from now on."""
        self.prices = Prices(settings.prices, settings.ceiling)
        self.settings = settings
        self.upstreams = upstreams
        rules = settings.rules
        self.rules = calls.Rules(rules.most_body, rules.most_output, rules.most_choices, rules.clamp_least, rules.server_tools)
        for name in settings.sandboxes:
            if name in self.boxes:
                self.boxes[name].configure(settings)
            else:
                self.boxes[name] = Box(name, settings)
        for name in self.boxes.keys() - settings.sandboxes.keys():
            del self.boxes[name]

    # -- from a sandbox's socket

    async def handle(self, sandbox: str, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request that came in on the socket of *sandbox*."""
        path = request.raw_path.partition("?")[0]
        kind = wire.family(path, request.headers)
        try:
            box = self.boxes.get(sandbox)
            if box is None:
                raise Refusal(403, "sandbox", "this sandbox is not one any more")
            route = wire.ROUTES.get((request.method, path))
            self._let_in(box, request, known=route is not None)
            if route is None:
                raise Refusal(404, "path", f"{request.method} {request.path[:100]} is not one of the paths that are served here")
            if route in ("count", "models"):
                return await self._free(box, request, kind, counts=route == "count")
            return await self._call(box, request, kind, t.cast(calls.Wire, route))
        except Refusal as refusal:
            return await self._refuse(sandbox, request, kind, refusal)

    def _let_in(self, box: Box, request: web.BaseRequest, known: bool) -> None:
        """Check what is known before anything is read. Raises Refusal."""
        given = wire.token(request.headers).encode("utf-8", "surrogateescape")
        if not box.knows(given):
            raise Refusal(401, "token", "the token is not this sandbox's; it is in the environment as ANTHROPIC_AUTH_TOKEN and OPENAI_API_KEY")
        if self._closing:
            raise Refusal(503, "closing", "the gateway is being ended; try again soon", 5)
        self._not_stopped(box, box.run)
        now = self._now()
        if wait := box.requests.take(1, now):
            raise Refusal(429, "rate", f"more than {box.requests.rate} requests a minute", _seconds(wait))
        if known and box.streams >= self.settings.limits.streams:
            raise Refusal(429, "streams", f"more than {self.settings.limits.streams} calls at a time", 1)

    def _not_stopped(self, box: Box, run: str) -> None:
        if not self.stops:
            return
        for key in ("total", f"sandbox:{box.name}", f"team:{box.team}", f"run:{run}"):
            if key in self.stops:
                raise Refusal(403, "stopped", f"all calls are stopped ({key}): {self.stops[key]}")

    async def _refuse(self, sandbox: str, request: web.BaseRequest, kind: Family, refusal: Refusal) -> web.StreamResponse:
        # What could not be put on record the first time is not waited for once more.
        if not refusal.left and refusal.reason != "recorder":
            await self._denied(sandbox, request, refusal)
        headers = {wire.REASON: refusal.reason, "content-type": "application/json"}
        if refusal.retry_after is not None:
            headers["retry-after"] = str(refusal.retry_after)
        return await self._unread(request, web.Response(status=refusal.status, body=wire.error(kind, refusal), headers=headers))

    async def _unread(self, request: web.BaseRequest, response: web.Response) -> web.Response:
        """Return the *response* to a request whose body was not read to its end: it may have none."""
        if not request.content.at_eof():
            response.force_close()
            if "transfer-encoding" in request.headers or "content-encoding" in request.headers:
                with contextlib.suppress(ConnectionError, aiohttp.ClientError):
                    await response.prepare(request)
                    await response.write_eof()
                await self._let_go(request)
        return response

    async def _let_go(self, request: web.BaseRequest) -> None:
        """End a connection on which a few bytes can take long to read. Who sends on in chunks of some size may do so until he
        has read the answer, as the server lets all others."""
        count = _Chunks(_CHUNKS // 10)
        if "content-encoding" not in request.headers:
            with contextlib.suppress(TimeoutError, aiohttp.ClientError, web.RequestPayloadError, ConnectionError, ValueError):
                async with asyncio.timeout(_LINGER):
                    while (got := await request.content.readchunk()) != _NO_MORE and not count.small(*got):
                        pass
        request.protocol.force_close()

    async def _denied(self, sandbox: str, request: web.BaseRequest, refusal: Refusal) -> None:
        self.metrics.refused(sandbox, refusal.reason)
        event = {
            "action": "llm.call",
            "class": "api_activity",
            "actor": {"type": "sandbox", "name": sandbox},
            "sandbox": sandbox,
            "decision": "deny",
            "reason": refusal.reason,
            "outcome": "failure",
            "detail": {"message": _plain(str(refusal)), "path": _plain(request.path[:200])},
        }
        with contextlib.suppress(RecorderError):
            await self._record(event)
        box = self.boxes.get(sandbox)
        if box is not None and refusal.status in (400, 403, 404, 413) and refusal.reason != "stopped":
            self._breaker_changed("sandbox", sandbox, box.breaker.failed(self._now(), "errors"))

    async def _body(self, box: Box, request: web.BaseRequest, holder: Place) -> bytes:
        """Return the body of a request, of no more than it may have. Raises Refusal."""
        most = self.rules.most_body
        if (request.content_length or 0) > most:
            raise Refusal(413, "too_large", f"the body has more than {most} bytes")
        if request.content.is_eof() and request.content.exception() is None:
            # It came with the head, as it mostly does.
            whole = request.content.read_nowait()
            holder.take(len(whole))
            self._bounded(box, holder)
            return self._weighed(box, whole)
        if request.headers.get("expect", "").lower() == "100-continue" and request.transport is not None:
            # Whoever waits to be told sends nothing before.
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        parts, count = [], _Chunks(_CHUNKS)
        try:
            async with asyncio.timeout(self.settings.times.body):
                while (got := await request.content.readchunk()) != _NO_MORE:
                    holder.take(len(got[0]))
                    self._bounded(box, holder)
                    if count.small(*got):
                        raise Refusal(400, "chunks", f"the body comes in more than {_CHUNKS} chunks of less than {_CHUNK} bytes")
                    parts.append(got[0])
        except TimeoutError:
            raise Refusal(408, "slow", f"the body did not come within {self.settings.times.body} s") from None
        except (aiohttp.ClientError, web.RequestPayloadError, ConnectionError, ValueError) as error:
            raise Refusal(400, "body", f"the body cannot be read: {error}") from None
        return self._weighed(box, b"".join(parts))

    def _weighed(self, box: Box, body: bytes) -> bytes:
        """Return *body*, which counts as several requests where it is large or has many values. Raises Refusal."""
        rate = box.requests.rate
        # It has been counted once by now, as it will be when it comes again: it must fit beside that.
        more = min(calls.values(body) // _VALUES + len(body) // _BYTES, rate - 1) if len(body) > _VALUES else 0
        if more and (wait := box.requests.take(more, self._now())):
            text = f"more than {rate} requests a minute; one that takes so long to read counts as {more + 1} of them"
            raise Refusal(429, "rate", text, _seconds(wait + 60 / rate))
        return body

    def _bounded(self, box: Box, holder: Place) -> None:
        if holder.size > self.rules.most_body:
            raise Refusal(413, "too_large", f"the body has more than {self.rules.most_body} bytes")
        if box.bodies > self.settings.limits.bodies:
            raise Refusal(429, "bodies", f"the bodies of calls under way have more than {self.settings.limits.bodies} bytes", 1)
        if holder.crowded():
            raise Refusal(429, "bodies", f"the bodies of all sandboxes have more than {_BODIES} bytes, and this one's more than {_SHARE}", 1)

    # -- what costs nothing

    async def _free(self, box: Box, request: web.BaseRequest, kind: Family, counts: bool) -> web.StreamResponse:
        upstream = self.upstreams[kind]
        with Place(box, self._room) as place:
            body = calls.encode(calls.read_count(await self._body(box, request, place), self.rules)) if counts else None
            event = {
                "action": "llm.count" if counts else "llm.models",
                "class": "api_activity",
                "actor": {"type": "sandbox", "name": box.name},
                "sandbox": box.name,
                "decision": "allow",
                "trace_id": box.run or None,
                "resource": upstream.provider,
            }
            self._pass(upstream)
            try:
                await self._on_record(self._record(event))
            except Refusal:
                upstream.breaker.left()
                raise
            headers = self._headers(upstream, request, self._ids())
            try:
                async with asyncio.timeout(self.settings.times.idle):
                    async with self._send(upstream, request.method, request, headers, body) as answer:
                        content = await _limited(answer, 16 << 20)
                        self._judge(upstream, box, answer.status)
                        if 300 <= answer.status < 400:
                            raise Refusal(502, "redirect", "the upstream sends elsewhere, where nothing is sent")
                        response = web.Response(status=answer.status, body=content, headers=wire.back(answer.headers))
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                raise self._unreachable(upstream, box, error) from None
            return await self._unread(request, response)

    # -- what costs

    async def _call(self, box: Box, request: web.BaseRequest, kind: Family, route: calls.Wire) -> web.StreamResponse:
        begun = self._now()
        # Before the body is read, which takes more than all that comes before it.
        self._held_up(box, box.breaker.waits(begun))
        with Place(box, self._room) as place:
            exchange, notes = await self._admit(box, request, kind, route, await self._body(box, request, place), begun)
            self.exchanges.add(exchange)
            try:
                return await self._exchange(exchange, notes)
            finally:
                self.exchanges.discard(exchange)

    async def _admit(
        self, box: Box, request: web.BaseRequest, kind: Family, route: calls.Wire, raw: bytes, begun: float
    ) -> tuple[Exchange, dict[str, str]]:
        """Return the call once it may leave: held, and on record. Raises Refusal."""
        upstream = self.upstreams[kind]
        call = calls.read(route, raw, self.rules)
        del raw
        at = int(self._clock())
        price = self._price(upstream, call, at)
        call.lighten()
        asked = request.headers.get("anthropic-beta")
        inputs = call.most_inputs(price.longest if asked and wire.betas(asked)[1] else price.context)
        run = box.run
        wait, change = box.breaker.enter(self._now())
        self._breaker_changed("sandbox", box.name, change)
        self._held_up(box, wait)
        try:
            if box.repeats.add(call.sha256, self._now()):
                self._breaker_changed("sandbox", box.name, box.breaker.trip(self._now(), "the same request again and again"))
                raise Refusal(429, "breaker", "this sandbox is held up: the same request again and again", _seconds(self.settings.breakers.sandbox.pause))
            tokens = min(inputs + call.most_outputs, box.tokens.rate)
            if wait := box.tokens.take(tokens, self._now()):
                raise Refusal(429, "rate", f"more than {box.tokens.rate} tokens a minute", _seconds(wait))
            try:
                self._pass(upstream)
                try:
                    exchange = await self._hold(box, request, upstream, call, price, inputs, at, run, begun)
                except BaseException:
                    upstream.breaker.left()
                    raise
                exchange.tokens = tokens
            except BaseException:
                box.tokens.give_back(tokens)
                raise
        except BaseException:
            box.breaker.left()
            raise
        notes = {wire.CALL: exchange.id}
        if call.clamped:
            notes[wire.LIMITED] = str(call.outputs)
        if warnings := [*(f"budget {name} is over" for name in exchange.over), *(f"{key} is left out" for key in call.left_out)]:
            notes[wire.WARNING] = "; ".join(warnings)
        return exchange, notes

    def _held_up(self, box: Box, wait: float) -> None:
        if wait:
            raise Refusal(429, "breaker", f"this sandbox is held up: {box.breaker.reason}", _seconds(wait))

    def _price(self, upstream: Upstream, call: Call, at: int) -> Price:
        try:
            price = self.prices.find(upstream.provider, call.model, at, call.tier)
            if upstream.family == "openai" and call.body.get("service_tier") in (None, "auto"):
                # Which tier that is may be set at the provider, so that it is said.
                with contextlib.suppress(Unpriced):
                    if self.prices.find(upstream.provider, call.model, at, "priority").source == "genai-prices":
                        call.put("service_tier", "default")
            elif upstream.provider == "anthropic" and call.body.get("inference_geo") is None:
                # Where it is served may be set there too, and that is not for us to say.
                call.most_percent = calls.geo_percent("us")
            return price
        except Unpriced as error:
            raise Refusal(400, "unpriced", str(error)) from None

    async def _hold(
        self, box: Box, request: web.BaseRequest, upstream: Upstream, call: Call, price: Price, inputs: int, at: int, run: str, begun: float
    ) -> Exchange:
        """Hold the most that *call* can cost, and put it on record. Raises Refusal."""
        most = price.most(inputs, call.most_outputs, call.tools, call.kinds, call.most_percent)
        least = most
        if call.least_outputs < call.most_outputs:
            least = price.most(inputs, call.least_outputs, call.tools, call.kinds, call.most_percent)
        call_id = self._ids()
        subjects = {"sandbox": box.name, "host": self.settings.host, "model": price.model}
        if box.team:
            subjects["team"] = box.team
        if run:
            subjects["run"] = run
        wait = self.settings.times.hold
        recording: list[asyncio.Future[Ack]] = []
        stopped: list[Refusal] = []

        def decided(held: Held) -> None:
            """Put the call on record while the ledger writes: it leaves when both are done."""
            if held.micro < most:
                call.limit(price.outputs(held.micro, inputs, call.tools, call.kinds, call.most_percent))
            try:
                self._not_stopped(box, run)
            except Refusal as refusal:
                stopped.append(refusal)
                return
            # The ledger may fail by then, and nobody wait for it.
            recording.append(self._aside(self._record(self._event(box, call, price, run, call_id, held))))

        try:
            got = await self.ledger.reserve(Ask(call_id, at, subjects, most, least, upstream.provider), wait, decided)
        except LedgerError as error:
            self._took_back(box, price, run, call_id, recording)
            raise Refusal(503, "ledger", f"nothing is spent off the ledger: {error}", 5) from None
        if isinstance(got, Refused):
            raise self._spent(got, least)
        try:
            if stopped:
                raise stopped[0]
            await self._on_record(recording[0])
            self._not_stopped(box, run)
        except BaseException:
            self._surely(lambda: self.ledger.release(call_id))
            raise
        task = asyncio.current_task(self._loop)
        assert task is not None
        return Exchange(call_id, box, request, task, begun, upstream, call, price, got.micro, at, run, got.over)

    def _took_back(self, box: Box, price: Price, run: str, call_id: str, recording: list[asyncio.Future[Ack]]) -> None:
        """Say of a call that is on record, or about to be, that it did not leave."""
        if recording:
            event = {
                "action": "llm.charge",
                "class": "api_activity",
                "actor": {"type": "service", "name": "llm"},
                "sandbox": box.name,
                "resource": price.model,
                "reason": "ledger",
                "outcome": "failure",
                "trace_id": run or None,
                "detail": {"call": call_id, "micro_dollars": 0},
            }
            self._aside(self._record(event))

    def _event(self, box: Box, call: Call, price: Price, run: str, call_id: str, got: Held) -> dict[str, t.Any]:
        detail: dict[str, t.Any] = {
            "call": call_id,
            "asked_model": call.model,
            "held_micro_dollars": got.micro,
            "max_tokens": call.outputs,
            "request_bytes": call.size,
            "stream": call.stream,
            "price": price.source,
        }
        if call.clamped:
            detail["clamped"] = True
        if call.left_out:
            detail["left_out"] = ",".join(call.left_out)
        if got.over:
            detail["over_soft_budgets"] = ",".join(got.over)
        return {
            "action": "llm.call",
            "class": "api_activity",
            "actor": {"type": "sandbox", "name": box.name},
            "sandbox": box.name,
            "resource": price.model,
            "request_sha256": call.sha256,
            "decision": "allow",
            "trace_id": run or None,
            "detail": detail,
        }

    async def _on_record(self, recorded: t.Awaitable[Ack]) -> None:
        try:
            await recorded
        except RecorderError as error:
            raise Refusal(503, "recorder", f"nothing is called off the record: {error}", 5) from None

    def _spent(self, got: Refused, least: int) -> Refusal:
        if got.reason == "no_budget":
            return Refusal(402, "no_budget", "no hard budget applies to this call: declare one in cost_budgets")
        whose = got.subject.replace(":", " ")
        until = time.strftime(" until %Y-%m-%dT%H:%M:%SZ", time.gmtime(got.until)) if got.until else ""
        figures = f"{dollars(got.spent)} of {dollars(got.limit)} dollars are spent and {dollars(got.held)} held{until}; this call may cost {dollars(least)}"
        if got.reason == "spent":
            return Refusal(402, "spent", f"budget {got.budget} ({whose}) is spent: {figures}")
        return Refusal(429, "held", f"budget {got.budget} ({whose}) is held by calls under way: {figures}", max(1, int(self.settings.times.hold)))

    # -- to the upstream and back

    def _headers(self, upstream: Upstream, request: web.BaseRequest, call_id: str) -> dict[str, str]:
        given = request.headers
        headers = {name: value for name in wire.SENT_ON if (value := given.get(name)) is not None}
        # Packed answers could be metered too, but not the way every upstream might pack them.
        headers |= {"accept-encoding": "identity", "content-type": "application/json", "x-client-request-id": call_id}
        return headers | upstream.headers

    def _send(self, upstream: Upstream, method: str, request: web.BaseRequest, headers: dict[str, str], body: bytes | None) -> t.Any:
        path, _mark, query = request.raw_path.partition("?")
        beta = "?beta=true" if query == "beta=true" else ""
        return upstream.session.request(method, f"{upstream.base}{path.removeprefix('/v1')}{beta}", data=body, headers=headers, allow_redirects=False)

    def _pass(self, upstream: Upstream) -> None:
        """Check that an upstream's breaker lets a call pass. Raises Refusal."""
        wait, change = upstream.breaker.enter(self._now())
        self._breaker_changed("upstream", upstream.provider, change)
        if wait:
            raise Refusal(503, "upstream_breaker", f"the upstream {upstream.provider} is left alone: {upstream.breaker.reason}", _seconds(wait))

    def _judge(self, upstream: Upstream, box: Box, status: int) -> None:
        """Take note of how an upstream answered."""
        if status >= 500:
            self._failed(upstream, box, f"it answered {status}")
        else:
            self._breaker_changed("upstream", upstream.provider, upstream.breaker.succeeded())

    def _failed(self, upstream: Upstream, box: Box, reason: str) -> None:
        """Take note that an upstream failed a sandbox. One that fails where others need not is held up itself, and they are not."""
        now = self._now()
        if len(self.boxes) > 1 and upstream.breaker.had_its_share(now, box.name):
            self._breaker_changed("sandbox", box.name, box.breaker.failed(now, "errors"))
        else:
            self._breaker_changed("upstream", upstream.provider, upstream.breaker.failed(now, reason, box.name))

    def _unreachable(self, upstream: Upstream, box: Box, error: BaseException) -> Refusal:
        self._failed(upstream, box, "it does not answer")
        if isinstance(error, TimeoutError):
            return Refusal(504, "upstream_timeout", f"the upstream {upstream.provider} does not answer in time")
        # The error's own text may hold an address that is nobody's business.
        return Refusal(502, "upstream", f"the upstream {upstream.provider} cannot be reached ({type(error).__name__})")

    async def _exchange(self, exchange: Exchange, notes: dict[str, str]) -> web.StreamResponse:
        """Send a call that is held, and bring its answer; the hold is seen to whatever happens."""
        upstream, request = exchange.upstream, exchange.request
        headers = self._headers(upstream, request, exchange.id)
        if 0 < exchange.price.longest < LONG and "anthropic-beta" in headers:
            # No more is held than for what the model takes without.
            others, _longer = wire.betas(headers.pop("anthropic-beta"))
            headers |= {"anthropic-beta": others} if others else {}
        answer: meter.Answer | None = None
        sent = True
        outcome = ""
        response: web.StreamResponse | None = None
        try:
            async with self._send(upstream, "POST", request, headers, exchange.call.encoded) as came:
                status = came.status
                self._judge(upstream, exchange.box, status)
                if status >= 300:
                    outcome = f"status_{status}"
                    if status < 400:
                        raise Refusal(502, "redirect", "the upstream sends elsewhere, where nothing is sent", left=True)
                    content = await _limited(came, _MOST_ERROR)
                    return web.Response(status=status, body=content, headers={**wire.back(came.headers), **notes})
                streamed = came.content_type == "text/event-stream"
                reader = meter.Meter(exchange.call, streamed, came.headers.get("content-encoding", ""))
                answer = reader.answer
                kept = {**wire.back(came.headers), **notes}
                if reader.rewrites:
                    kept = {name: value for name, value in kept.items() if name.lower() != "content-encoding"}
                if not streamed:
                    whole = await self._whole(exchange, came, reader)
                    self._settle(exchange, answer, "")
                    return web.Response(status=status, body=whole, headers=kept)
                response = web.StreamResponse(status=status, headers=kept)
                await self._stream(exchange, came, reader, response)
            self._settle(exchange, answer, "")
            answer = None
            if not exchange.gone:
                with contextlib.suppress(ConnectionError, aiohttp.ClientError):
                    await response.write_eof()
            return response
        except asyncio.CancelledError:
            upstream.breaker.left()
            if not exchange.cut:
                outcome = "cancelled"
                raise
            exchange.task.uncancel()
            outcome = "" if exchange.cut == "ended" else exchange.cut
            return await self._cut(exchange, response)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            never = isinstance(error, (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError))
            outcome = "unreachable" if never else "broken"
            sent = not never
            refusal = self._unreachable(upstream, exchange.box, error)
            refusal.left = True
            if response is None:
                raise refusal from None
            return await self._break_off(exchange, response, refusal)
        finally:
            self._over(exchange, answer, sent, outcome)

    def _over(self, exchange: Exchange, answer: meter.Answer | None, sent: bool, outcome: str) -> None:
        """See to a hold that the straight way has not seen to."""
        if exchange.held < 0:
            return
        if answer is not None and (answer.ended or answer.outputs_told):
            self._settle(exchange, answer, outcome)
        elif not sent or (outcome.startswith("status_") and outcome not in _GIVEN_UP):
            # An upstream charges nothing for what it refuses.
            self._free_hold(exchange, outcome)
        else:
            self._lose(exchange, outcome or "incomplete")

    async def _whole(self, exchange: Exchange, came: aiohttp.ClientResponse, reader: meter.Meter) -> bytes:
        content = came.content
        if content.is_eof() and content.exception() is None:
            # It came with the head, as a short one mostly does.
            parts = [reader.feed(content.read_nowait())]
        else:
            parts, size = [], 0
            async for part in content.iter_any():
                size += len(part)
                if size > meter.MOST_EVENT:
                    raise aiohttp.ClientPayloadError("the answer is too long")
                parts.append(reader.feed(part))
        exchange.ended = self._now()
        return b"".join([*parts, reader.end()])

    async def _stream(self, exchange: Exchange, came: aiohttp.ClientResponse, reader: meter.Meter, response: web.StreamResponse) -> None:
        answer = reader.answer
        response.enable_chunked_encoding()
        await self._to_client(exchange, response, None)
        async for part in came.content.iter_any():
            if not exchange.first:
                exchange.first = self._now()
            out = reader.feed(part)
            if answer.ended and not exchange.ended:
                exchange.ended = self._now()
            if out and not exchange.gone:
                await self._to_client(exchange, response, out)
        if out := reader.end():
            await self._to_client(exchange, response, out)
        if not (answer.ended or answer.outputs_told):
            raise aiohttp.ClientPayloadError("the stream ended before its end")

    async def _to_client(self, exchange: Exchange, response: web.StreamResponse, data: bytes | None) -> None:
        """Write to the client; when it is gone, the answer is read to its end all the same, for what it costs."""
        if exchange.gone:
            return
        try:
            if data is None:
                await response.prepare(exchange.request)
            else:
                await response.write(data)
        except (ConnectionError, aiohttp.ClientError):
            exchange.gone = self._now()

    async def _cut(self, exchange: Exchange, response: web.StreamResponse | None) -> web.StreamResponse:
        """Answer for a call that was ended from outside."""
        if exchange.cut == "ended" and response is not None:
            with contextlib.suppress(ConnectionError, aiohttp.ClientError):
                await response.write_eof()
            return response
        reasons = {
            "stopped": Refusal(403, "stopped", "this call was stopped by a person"),
            "closing": Refusal(503, "closing", "the gateway is being ended", 5),
            "whole": Refusal(504, "upstream_timeout", f"the call took longer than {self.settings.times.whole} s"),
            "gone": Refusal(499, "gone", "the client went away"),
        }
        refusal = reasons[exchange.cut]
        refusal.left = True
        if response is None or not response.prepared:
            raise refusal
        return await self._break_off(exchange, response, refusal)

    async def _break_off(self, exchange: Exchange, response: web.StreamResponse, refusal: Refusal) -> web.StreamResponse:
        """End a stream that has begun with an error in the protocol's own words, so that nobody takes it for whole."""
        with contextlib.suppress(ConnectionError, aiohttp.ClientError):
            if not exchange.gone:
                await response.write(wire.error_event(exchange.upstream.family, refusal))
                await response.write_eof()
        response.force_close()
        return response

    # -- what becomes of a hold

    def _settle(self, exchange: Exchange, answer: meter.Answer, outcome: str) -> None:
        charge = meter.charge(exchange.call, answer, exchange.price, self.prices, exchange.upstream.provider, exchange.at, exchange.held)
        self._done(exchange, charge.micro, None if charge.estimated else charge.usage)
        self._breaker_changed("sandbox", exchange.box.name, exchange.box.breaker.succeeded())
        held, exchange.held = exchange.held, -1
        self._surely(
            lambda: self.ledger.settle(exchange.id, charge.micro, charge.estimated), lambda: self._settled(exchange, answer, charge, held, outcome)
        )

    def _lose(self, exchange: Exchange, outcome: str) -> None:
        self._done(exchange, exchange.held, None)
        exchange.box.breaker.left()
        held, exchange.held = exchange.held, -1
        self._surely(lambda: self.ledger.lose(exchange.id), lambda: self._lost(exchange, held, outcome))

    def _free_hold(self, exchange: Exchange, outcome: str) -> None:
        self._done(exchange, 0, None)
        if outcome not in _ITS_OWN:
            exchange.box.breaker.left()
        else:
            self._breaker_changed("sandbox", exchange.box.name, exchange.box.breaker.failed(self._now(), "errors"))
        exchange.held = -1
        self._surely(lambda: self.ledger.release(exchange.id), lambda: self._freed(exchange, outcome))

    def _done(self, exchange: Exchange, micro: int, usage: Usage | None) -> None:
        """Tell the sandbox's limits what a call came to; without a *usage* that is known it took all that it might."""
        box, now = exchange.box, self._now()
        used = usage.total_input + usage.output if usage is not None else (exchange.tokens if micro else 0)
        box.tokens.give_back(max(0, exchange.tokens - used))
        if box.velocity is not None and box.velocity.add(micro, now):
            self._breaker_changed("sandbox", box.name, box.breaker.trip(now, f"more than {dollars(box.velocity.most)} dollars a minute"))

    def _settled(self, exchange: Exchange, answer: meter.Answer, charge: meter.Charge, held: int, outcome: str) -> None:
        error = outcome or ("upstream_error" if answer.failed else "")
        seconds = (exchange.ended or self._now()) - exchange.begun
        first = exchange.first - exchange.begun if exchange.first else None
        box = exchange.box
        self.metrics.answered(
            box.name, box.team, exchange.run, exchange.upstream.provider, exchange.price.model, charge.usage, charge.micro, seconds, first, error
        )
        usage = {f"{name}_tokens" if name not in _COUNTS else name: count for name, count in charge.usage._asdict().items() if count and name != "requests"}
        detail = {"micro_dollars": charge.micro, "held_micro_dollars": held, "estimated": charge.estimated, "answered_model": _plain(answer.model), **usage}
        self._report(exchange, "failure" if error else "success", error, detail)
        for word, text in charge.alarms:
            self._alarm(exchange, word, text)

    def _lost(self, exchange: Exchange, held: int, outcome: str) -> None:
        self.metrics.failed(exchange.box.name, outcome)
        self._report(exchange, "unknown", outcome, {"held_micro_dollars": held})

    def _freed(self, exchange: Exchange, outcome: str) -> None:
        self.metrics.failed(exchange.box.name, outcome)
        self._report(exchange, "failure", outcome, {"micro_dollars": 0})

    def _surely(self, act: t.Callable[[], asyncio.Future[bool]], then: t.Callable[[], None] = lambda: None) -> None:
        """Do it, also when the ledger cannot at once, and *then* what follows."""

        def tried(done: asyncio.Future[bool]) -> None:
            self._behind.discard(done)
            if done.cancelled() or done.exception() is not None:
                self._later(self._again(act, then))
            else:
                then()

        first = act()
        self._behind.add(first)
        first.add_done_callback(tried)

    async def _again(self, act: t.Callable[[], asyncio.Future[bool]], then: t.Callable[[], None]) -> None:
        """Do what the ledger could not; what it never can stays charged."""
        for pause in _PAUSES:
            await asyncio.sleep(pause)
            with contextlib.suppress(LedgerError):
                await act()
                break
        else:
            self.metrics.alarm("ledger")
        then()

    def _report(self, exchange: Exchange, outcome: str, reason: str, detail: dict[str, t.Any]) -> None:
        event = {
            "action": "llm.charge",
            "class": "api_activity",
            "actor": {"type": "service", "name": "llm"},
            "sandbox": exchange.box.name,
            "resource": exchange.price.model,
            "request_sha256": exchange.call.sha256,
            "reason": reason or None,
            "outcome": outcome,
            "trace_id": exchange.run or None,
            "detail": {"call": exchange.id, "duration_us": int(((exchange.ended or self._now()) - exchange.begun) * 1_000_000), **detail},
        }
        self._aside(self._report_event(event))

    def _alarm(self, exchange: Exchange | None, word: str, text: str) -> None:
        self.metrics.alarm(word)
        event: dict[str, t.Any] = {
            "action": "llm.alarm",
            "class": "detection_finding",
            "actor": {"type": "service", "name": "llm"},
            "reason": f"{word}: {_plain(text)}",
            "outcome": "unknown",
        }
        if exchange is not None:
            event |= {"sandbox": exchange.box.name, "resource": exchange.price.model, "trace_id": exchange.run or None, "detail": {"call": exchange.id}}
        self._aside(self._record(event))

    def _breaker_changed(self, kind: str, name: str, change: limits.Change | None) -> None:
        if change is None:
            return
        self.metrics.breaker(kind, name, change.after)
        event = {
            "action": "llm.breaker",
            "class": "detection_finding" if change.after == "open" else "application_lifecycle",
            "actor": {"type": "service", "name": "llm"},
            "sandbox": name if kind == "sandbox" else None,
            "resource": f"{kind} {name}",
            "reason": change.reason,
            "outcome": "success",
            "detail": {"before": change.before, "after": change.after},
        }
        self._aside(self._record(event))

    def _aside(self, recorded: asyncio.Future[Ack]) -> asyncio.Future[Ack]:
        """See to the end of what is being recorded, which perhaps nobody waits for."""
        self._behind.add(recorded)
        recorded.add_done_callback(self._heard)
        return recorded

    def _heard(self, done: asyncio.Future[Ack]) -> None:
        self._behind.discard(done)
        if not done.cancelled():
            # An exception that nobody asked for would be complained of.
            done.exception()

    def _later(self, work: t.Coroutine[t.Any, t.Any, None]) -> None:
        task = self._loop.create_task(work)
        self._behind.add(task)
        task.add_done_callback(self._behind.discard)

    # -- from outside

    def stopped(self, stops: dict[str, str]) -> None:
        """Go by these stops from now on: calls under way that one is for are cut."""
        self.stops = stops
        for exchange in list(self.exchanges):
            with contextlib.suppress(Refusal):
                self._not_stopped(exchange.box, exchange.run)
                continue
            exchange.end("stopped")

    def begin_run(self, sandbox: str, run: str) -> None:
        """Count the calls of *sandbox* to *run* from now on. Raises KeyError."""
        box = self.boxes[sandbox]
        self.end_run(sandbox, run)
        # What a killed command did not end must not pile up.
        for old in box.runs[: -_MOST_RUNS + 1]:
            self.end_run(sandbox, old)
        box.runs.append(run)

    def end_run(self, sandbox: str, run: str) -> None:
        """Count no more calls of *sandbox* to *run*. Raises KeyError."""
        box = self.boxes[sandbox]
        if run in box.runs:
            box.runs.remove(run)
            self.metrics.run_ended(sandbox, run)

    async def watch(self) -> None:
        """See to calls whose client is gone, that take too long, or that do not end; and to the clock."""
        while True:
            await asyncio.sleep(_TICK)
            now, times = self._now(), self.settings.times
            for exchange in list(self.exchanges):
                transport = exchange.request.transport
                if not exchange.gone and (transport is None or transport.is_closing()):
                    exchange.gone = now
                if exchange.ended and now - exchange.ended > _AFTERWARDS:
                    exchange.end("ended")
                elif exchange.gone and now - exchange.gone > times.drain:
                    exchange.end("gone")
                elif now - exchange.begun > times.whole:
                    exchange.end("whole")
            drift = self._clock() - now
            if abs(drift - self._drift) > _STEP:
                self._alarm(None, "clock_step", f"the clock was set by {round(drift - self._drift)} s")
                self._drift = drift

    async def close(self, grace: float) -> None:
        """Let calls under way end within *grace* seconds, cut the rest, and see to every hold."""
        self._closing = True
        deadline = self._now() + grace
        # Who still waits for money is not among the exchanges yet.
        while any(box.streams for box in self.boxes.values()):
            await asyncio.sleep(0.02)
            if self._now() > deadline:
                for exchange in list(self.exchanges):
                    exchange.end("closing")
        while self._behind:
            await asyncio.wait(self._behind)


# Answers that say that the agent asked for something wrong.
_ITS_OWN = frozenset({"status_400", "status_404", "status_413", "status_422"})
# Answers that somebody gave up who waited for the model, which may have gone on to its end.
_GIVEN_UP = frozenset({"status_408", "status_504", "status_524"})
_COUNTS = frozenset({"web_searches", "storage_searches", "code_executions", "requests"})


async def _limited(answer: aiohttp.ClientResponse, most: int) -> bytes:
    content = bytearray()
    async for part in answer.content.iter_any():
        content += part
        if len(content) > most:
            raise aiohttp.ClientPayloadError("the answer is too long")
    return bytes(content)


def _seconds(wait: float) -> int:
    return max(1, int(wait + 0.999))


def _plain(text: str) -> str:
    """Return *text* as an event can hold it."""
    return text.encode("utf-8", "backslashreplace").decode()[:500]
