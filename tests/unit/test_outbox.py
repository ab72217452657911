# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What leaves an event loop goes together, in its order; ids for it sort by their time."""

from __future__ import annotations

import asyncio

from dockersandbox.common.ids import Ids
from dockersandbox.common.outbox import Outbox


def test_what_comes_in_one_turn_goes_together_and_takes_along_what_waits() -> None:
    async def story() -> list[list[int]]:
        sent: list[list[int]] = []
        box = Outbox(asyncio.get_running_loop(), sent.append, linger=0.01)
        box.put(1)
        box.put(2, waits=True)
        assert sent == []
        await asyncio.sleep(0)
        box.put(3, waits=True)
        await asyncio.sleep(0)
        assert sent == [[1, 2]]
        box.put(4)
        await asyncio.sleep(0)
        assert sent == [[1, 2], [3, 4]]
        box.put(5, waits=True)
        box.put(6, waits=True)
        assert sent[2:] == []
        async with asyncio.timeout(5):
            while not sent[2:]:
                await asyncio.sleep(0.001)
        box.put(7)
        box.flush()
        box.flush()
        await asyncio.sleep(0)
        return sent

    assert asyncio.run(story()) == [[1, 2], [3, 4], [5, 6], [7]]


def test_ids_differ_and_sort_by_their_time() -> None:
    ids = Ids()
    made = [ids() for _number in range(1000)]
    assert len(set(made)) == 1000
    assert {len(one) for one in made} == {32} and int("".join(made), 16)
    assert [one[:12] for one in made] == sorted(one[:12] for one in made)
