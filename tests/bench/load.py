# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sends events to a recorder as a service does, and prints what came of it as JSON.

Arguments: socket, events, how many are under way at once, and events a second (0: as many as go).
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
import typing as t

import uvloop

from dockersandbox.common.records import Records

SIZE = 1024  # bytes of an event
WORDS = "the agent asked for a page of the handbook and was told that the rule for documentation allows it ".split()


def event(number: int) -> dict[str, t.Any]:
    """Return an event of SIZE bytes, another one for each *number*."""
    made = {
        "action": "http.request",
        "class": "http_activity",
        "actor": {"type": "agent", "name": f"agent-{number % 7}"},
        "sandbox": f"box-{number % 8}",
        "resource": {"host": f"docs-{number % 97}.example.com", "port": 443, "path": f"/handbook/{number}/index.html"},
        "argv": ["curl", "--silent", "--output", f"page-{number}.html", f"https://docs-{number % 97}.example.com/handbook/{number}"],
        "decision": "allow",
        "policy_ids": ["global.documentation", "box.reading"],
        "policy_sha256": "5e" * 32,
        "outcome": "success",
        "trace_id": f"20261124T111206Z-{number % 65536:04x}",
        "detail": {"bytes": number * 13 % 100_003, "duration_us": number % 9973, "status": 200},
        "reason": "",
    }
    lacking = SIZE - len(json.dumps(made, separators=(",", ":"))) - len(',"id":""') - 32
    made["reason"] = " ".join(WORDS[(number + place) % len(WORDS)] for place in range(lacking))[:lacking]
    return made


async def flood(records: Records, count: int, at_once: int) -> dict[str, t.Any]:
    """Send *count* events, *at_once* of them under way."""
    made = iter([event(number) for number in range(count)])

    async def worker() -> None:
        for item in made:
            await records.record(item)

    start = time.perf_counter()
    await asyncio.gather(*(worker() for _worker in range(at_once)))
    return {"per_s": round(count / (time.perf_counter() - start))}


async def pace(records: Records, count: int, rate: int) -> dict[str, t.Any]:
    """Send *count* events, *rate* a second, each at its time whatever became of those before."""
    taken: list[float] = []

    async def one(item: dict[str, t.Any]) -> None:
        start = time.perf_counter()
        await records.record(item)
        taken.append(time.perf_counter() - start)

    loop, tasks = asyncio.get_running_loop(), []
    begun = loop.time()
    for number in range(count):
        await asyncio.sleep(begun + number / rate - loop.time())
        tasks.append(asyncio.create_task(one(event(number))))
    await asyncio.gather(*tasks)
    taken.sort()
    return {"p50_ms": round(taken[len(taken) // 2] * 1000, 2), "p99_ms": round(taken[len(taken) * 99 // 100] * 1000, 2)}


async def main(socket: str, count: int, at_once: int, rate: int) -> None:
    """Send, and print."""
    records = Records(socket, patience=60)
    figures = await pace(records, count, rate) if rate else await flood(records, count, at_once)
    await records.close()
    sys.stdout.write(json.dumps(figures | {"pid": os.getpid()}) + "\n")


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], *map(int, sys.argv[2:5])))
