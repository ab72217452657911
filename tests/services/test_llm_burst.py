# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""No burst and no kill gets past a budget: many calls at once, several gateways on one ledger, and processes that die."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import shutil
import subprocess
import time
import typing as t
from pathlib import Path

import aiohttp
import pytest
from services.llms import BODIES, PRICES, Llm, Stand, message, standing

from dockersandbox.llm import calls
from dockersandbox.llm.ledger import SqliteLedger
from dockersandbox.llm.prices import Prices

AT_ONCE = 500
FIT = 100


def bound(path: str, body: dict[str, t.Any], least: int | None = None) -> int:
    """Return the most micro-dollars that a call can cost, or can be cut down to cost."""
    kinds: dict[str, calls.Wire] = {"/v1/messages": "messages", "/v1/chat/completions": "chat", "/v1/responses": "responses"}
    call = calls.read(kinds[path], json.dumps(body).encode(), calls.Rules(clamp_least=least or 0))
    price = Prices(PRICES).find("simulated", call.model, int(time.time()))
    return price.most(call.most_inputs(price.context), call.least_outputs if least else call.most_outputs, call.tools, call.kinds)


def burst(gateways: list[Llm], path: str, bodies: list[dict[str, t.Any]]) -> list[tuple[int, str]]:
    """Ask for all of *bodies* at once, of the gateways in turn; return status and reason of each."""

    async def one(session: aiohttp.ClientSession, body: dict[str, t.Any]) -> tuple[int, str]:
        async with session.post(path, json=body) as answer:
            await answer.read()
            return answer.status, answer.headers.get("x-guardrails-reason", "")

    async def all_of_them() -> list[tuple[int, str]]:
        async with contextlib.AsyncExitStack() as stack:
            sessions = [await stack.enter_async_context(gateway.session()) for gateway in gateways]
            return await asyncio.gather(*(one(sessions[number % len(sessions)], body) for number, body in enumerate(bodies)))

    return asyncio.run(all_of_them())


class Watch:
    """Looks at a ledger all the while, that spent and held are never above the limit."""

    def __init__(self, llm: Llm, limit: int) -> None:
        self.llm, self.limit, self.most, self.looks = llm, limit, 0, 0
        self.ended = False

    async def look(self) -> None:
        """Look until it is ended."""
        while not self.ended:
            (row,) = (await asyncio.to_thread(self.llm.command, "budgets"))["standing"]
            self.most = max(self.most, row["spent"] + row["held"])
            self.looks += 1
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("path", "stream", "gateways"),
    [("/v1/messages", False, 1), ("/v1/messages", True, 1), ("/v1/chat/completions", True, 1), ("/v1/responses", False, 1), ("/v1/messages", True, 2)],
)
def test_of_500_calls_at_once_exactly_those_are_served_that_fit(tmp_path: Path, path: str, stream: bool, gateways: int) -> None:
    wish = "[simulate output=40 delay=20]"
    bodies = [BODIES[path](f"{wish} {number:03}", stream=stream) for number in range(AT_ONCE)]
    with standing(tmp_path, times={"hold": 60}, rules={"clamp_least": 0}) as stand:
        stood = [stand.llm]
        if gateways == 2:
            stood.append(Llm(tmp_path / "second", stand.upstream, stand.recorder.path("llm"), Path(stand.llm.settings["ledger"]), **SECOND))
            stood[1].start(None)
        try:
            # What one call does cost is known beforehand: the hundredth still fits by what it may cost, and none after it.
            assert burst(stood[:1], path, bodies[:1]) == [(200, "")]
            cost = stand.llm.settled()["spent"]
            limit = cost + (FIT - 1) * cost + bound(path, bodies[0])
            assert bound(path, bodies[0]) > cost
            stand.llm.command("declare", budgets=[{"name": "b", "scope": "total", "limit": f"{limit / 1e6:.6f}"}], exclusive=True)
            watch = Watch(stand.llm, limit)

            async def story() -> list[tuple[int, str]]:
                looking = asyncio.create_task(watch.look())
                found = await asyncio.to_thread(burst, stood, path, bodies)
                watch.ended = True
                await looking
                return found

            found = asyncio.run(story())
            assert found.count((200, "")) == FIT
            assert set(found) == {(200, ""), (402, "spent")}
            assert watch.looks > 3 and watch.most <= limit
            assert stand.llm.settled() == {"spent": cost * (FIT + 1), "held": 0, "calls": FIT + 1}
            assert stand.simulator.account()["micro_dollars"] == cost * (FIT + 1)
        finally:
            for more in stood[1:]:
                more.stop()


SECOND = {"times": {"hold": 60}, "rules": {"clamp_least": 0}}


def test_with_64000_tokens_asked_for_as_many_are_served_as_their_cost_allows(tmp_path: Path) -> None:
    # The budget is less than what one of them could cost: each is cut down, and what it does not use is there for the next.
    body = message("[simulate output=300 chunk=100]", max_tokens=64_000, stream=True)
    with standing(tmp_path, times={"hold": 60}, rules={"clamp_least": 300}) as stand:
        assert burst([stand.llm], "/v1/messages", [body]) == [(200, "")]
        cost = stand.llm.settled()["spent"]
        limit = cost + (FIT - 1) * cost + bound("/v1/messages", body, 300)
        assert cost <= bound("/v1/messages", body, 300) < 2 * cost and limit < bound("/v1/messages", body)
        stand.llm.command("declare", budgets=[{"name": "b", "scope": "total", "limit": f"{limit / 1e6:.6f}"}], exclusive=True)
        found = burst([stand.llm], "/v1/messages", [body] * AT_ONCE)
        assert found.count((200, "")) == FIT
        assert set(found) == {(200, ""), (402, "spent")}
        assert stand.llm.settled() == {"spent": cost * (FIT + 1), "held": 0, "calls": FIT + 1}
        assert stand.simulator.account()["micro_dollars"] == cost * (FIT + 1) <= limit


def test_the_first_calls_of_a_run_do_not_all_pass(tmp_path: Path) -> None:
    with standing(tmp_path, budgets=[{"name": "run", "scope": "run", "limit": 1}, {"name": "t", "scope": "total", "limit": 100}]) as stand:
        body = message("[simulate output=50]")
        stand.llm.command("declare", budgets=[{"name": "run", "scope": "run", "limit": f"{bound('/v1/messages', body) / 1e6:.6f}"}])
        for run in ("first", "second"):
            stand.llm.command("run", sandbox="one", run=run)
            found = burst([stand.llm], "/v1/messages", [message("[simulate output=50]")] * 20)
            assert 1 <= found.count((200, "")) < 5 and (402, "spent") in found
            spend = stand.llm.command("spend")["spend"]["run"][run]
            assert spend["spent"] + spend["held"] <= bound("/v1/messages", body)


def statement(stand: Stand) -> dict[str, int]:
    return {call["id"]: call["micro_dollars"] for call in stand.simulator.account()["calls"]}


def test_kills_under_load_leave_nothing_uncharged(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    dice = random.Random(request.config.getoption("--seed"))
    with standing(tmp_path, times={"hold": 1}) as stand:

        async def load() -> None:
            """Ask until the gateway is gone."""

            async def one(session: aiohttp.ClientSession, number: int) -> None:
                with contextlib.suppress(aiohttp.ClientError, OSError):
                    while True:
                        path = dice.choice(sorted(BODIES))
                        wish = f"[simulate output={dice.randrange(1, 60)} delay={dice.randrange(30)} pace={dice.randrange(3)}] {number}"
                        async with session.post(path, json=BODIES[path](wish, stream=dice.random() < 0.6)) as answer:
                            await answer.read()

            async with stand.llm.session() as session:
                await asyncio.gather(*(one(session, number) for number in range(24)))

        async def killed() -> None:
            asking = asyncio.create_task(load())
            await asyncio.sleep(dice.uniform(0.1, 0.8))
            await asyncio.to_thread(stand.llm.kill)
            await asking

        for turn in range(request.config.getoption("--llm-kills")):
            asyncio.run(killed())
            stand.llm.start(None)
            account = stand.simulator.account()
            total = stand.llm.command("spend")["spend"]["total"]["total"]
            assert total["spent"] + total["held"] >= account["micro_dollars"], f"kill {turn}"
            # What the upstream has not ended by now it has noticed that nobody wants.
            deadline = time.monotonic() + 10
            while stand.simulator.account() != account:
                account = stand.simulator.account()
                time.sleep(0.2)
                assert time.monotonic() < deadline
            while True:
                stand.llm.command("reconcile", upstream="simulated", statement=statement(stand), until=int(time.time()) + 1, reason="a test")
                total = stand.llm.command("spend")["spend"]["total"]["total"]
                if not total["held"]:
                    break
                # The ledger looks for owners that died when it is opened, and from time to time.
                assert time.monotonic() < deadline
                time.sleep(0.1)
            assert total["spent"] == stand.simulator.account()["micro_dollars"], f"kill {turn}"
        kinds = {state for state, _held, _spent in asyncio.run(states(Path(stand.llm.settings["ledger"]))).values()}
        assert {"settled", "reconciled"} <= kinds


async def states(path: Path) -> dict[str, tuple[str, int, int]]:
    """Return all calls of a ledger."""
    ledger = SqliteLedger(path)
    try:
        return await ledger.calls()
    finally:
        await ledger.close()


def test_what_was_held_is_on_the_disk_before_the_call_leaves(tmp_path: Path) -> None:
    image, mounted = tmp_path / "disk.img", tmp_path / "disk"
    with image.open("wb") as file:
        file.truncate(64 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
    mounted.mkdir()
    made = subprocess.run(["mount", "-o", "loop", image, mounted], check=False, capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"no loop device can be mounted here: {made.stderr.strip()}")
    try:
        with standing(tmp_path / "stand", ledger=str(mounted / "ledger.db")) as stand:

            async def story() -> list[Path]:
                copies = []

                async def load(session: aiohttp.ClientSession, number: int) -> None:
                    for turn in range(20):
                        async with session.post("/v1/messages", json=message(f"[simulate output={1 + turn}] {number}")) as answer:
                            await answer.read()

                async with stand.llm.session() as session:
                    asking = [asyncio.create_task(load(session, number)) for number in range(8)]
                    for number in range(5):
                        await asyncio.sleep(0.15)
                        # First the account, then the disk: what is on the account must be in the copy. The page cache is not.
                        account = await asyncio.to_thread(stand.simulator.account)
                        copy = tmp_path / f"copy{number}.img"
                        await asyncio.to_thread(shutil.copyfile, image, copy)
                        (tmp_path / f"copy{number}.json").write_text(json.dumps(account), encoding="utf-8")
                        copies.append(copy)
                    await asyncio.gather(*asking)
                return copies

            copies = asyncio.run(story())
        seen = 0
        for copy in copies:
            account = json.loads(copy.with_suffix(".json").read_text(encoding="utf-8"))
            found = copied_states(copy, tmp_path / "look")
            for call in account["calls"]:
                state, held, spent = found[call["id"]]
                assert (spent if state == "settled" else held) >= call["micro_dollars"]
                seen += 1
        assert seen > 20
    finally:
        subprocess.run(["umount", mounted], check=True)


def copied_states(image: Path, folder: Path) -> dict[str, tuple[str, int, int]]:
    """Return the calls of the ledger in a copy of its disk, as a machine finds it that lost its power then."""
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-o", "loop", image, folder], check=True)
    try:
        return asyncio.run(states(folder / "ledger.db"))
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_full_disk_means_no_call_and_nothing_is_lost(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", disk], check=False, capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"nothing can be mounted here: {made.stderr.strip()}")
    try:
        with standing(tmp_path / "stand", ledger=str(disk / "ledger.db")) as stand:
            assert stand.llm.ask("/v1/messages", message()).status == 200
            stand.llm.settled()
            with contextlib.suppress(OSError), (disk / "filler").open("wb", buffering=0) as filler:
                while True:
                    filler.write(b"x" * 4096)
            statuses = [(got.status, got.reason) for got in (stand.llm.ask("/v1/messages", message(str(number))) for number in range(60))]
            assert statuses[-1] == (503, "ledger")
            served = statuses.count((200, ""))
            assert len(stand.simulator.account()["calls"]) == served + 1
            (disk / "filler").unlink()
            assert stand.llm.ask("/v1/messages", message()).status == 200
            assert stand.llm.settled()["spent"] == stand.simulator.account()["micro_dollars"]
    finally:
        subprocess.run(["umount", disk], check=True)
        shutil.rmtree(disk)
