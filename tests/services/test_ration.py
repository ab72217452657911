# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rations and denials, at times that are given."""

from __future__ import annotations

import pytest
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.recorder import Ack

from dockersandbox.recorder import ration
from dockersandbox.recorder.ration import Denials, Rations
from dockersandbox.recorder.settings import Ration

EVENT = {"action": "network.connect", "class": "network_activity", "decision": "deny", "sandbox": "box"}


# Of so many events of a size, sent at each of these seconds, so many are taken.
@pytest.mark.parametrize(
    ("settings", "size", "sent", "taken"),
    [
        (Ration(events=10, bytes=10_000, burst=1), 1, {0.0: 25}, [10]),
        (Ration(events=10, bytes=10_000, burst=3), 1, {0.0: 50}, [30]),
        (Ration(events=10, bytes=10_000, burst=1), 1, {0.0: 10, 0.5: 10, 1.5: 20}, [10, 5, 10]),
        (Ration(events=10, bytes=1000, burst=2), 400, {0.0: 20, 1.0: 20}, [5, 2]),
        (Ration(events=10, bytes=1000, burst=1), 1001, {0.0: 3, 100.0: 3}, [0, 0]),
    ],
)
def test_a_ration_is_so_much_a_second_and_a_burst(settings: Ration, size: int, sent: dict[float, int], taken: list[int]) -> None:
    rations = Rations(settings)
    assert [sum(rations.take("box", size, now) for _event in range(count)) for now, count in sent.items()] == taken
    assert all(rations.take("other", 1, now) for now in sent)
    refused = sum(sent.values()) - sum(taken)
    assert list(rations.due(200.0)) == ([("box", refused)] if refused else [])


def test_who_is_over_is_told_of_at_once_and_then_now_and_then() -> None:
    rations = Rations(Ration(events=1, bytes=1000, burst=1))
    told = []
    for now in range(60):
        for _event in range(3):
            rations.take("box", 1, float(now))
        told += [(now, count) for _sandbox, count in rations.due(float(now))]
    assert told[0] == (0, 2) and [now for now, _count in told] == [0, 10, 20, 30, 40, 50]
    assert sum(count for _now, count in told) == 2 * 51
    assert rations.over["box"].total == 120
    assert dict(rations.due(70.0)) == {"box": 18} and not dict(rations.due(90.0)) and not rations.over


def test_a_denial_is_counted_after_its_first_and_recorded_anew_after_a_while() -> None:
    denials = Denials()
    first = denials.begin("box", b"key", EVENT, "egress", 0.0)
    assert first is not None
    assert [denials.seen("box", b"key", 1.0) for _time in range(5)] == [first] * 5
    assert denials.seen("box", b"another", 1.0) is None and denials.seen("other", b"key", 1.0) is None
    assert list(denials.due(5.0)) == [], "the first is not durable yet"
    first.ack = Ack(7, "a" * 32)
    assert [(denial is first, count) for denial, count in denials.due(5.0)] == [(True, 5)]
    assert list(denials.due(5.5)) == []
    denials.seen("box", b"key", 5.6)
    assert list(denials.due(5.7)) == [] and [count for _denial, count in denials.due(5.7, all_of_them=True)] == [1]
    assert denials.seen("box", b"key", ration.ANEW + 1) is None
    assert denials.begin("box", b"key", EVENT, "egress", ration.ANEW + 1) is not None


def test_a_denial_that_is_not_on_record_counts_for_nothing() -> None:
    denials = Denials()
    first = denials.begin("box", b"key", EVENT, "egress", 0.0)
    assert first is not None
    denials.forget("box", first)
    assert denials.seen("box", b"key", 0.1) is None


def test_one_sandbox_cannot_fill_the_memory() -> None:
    denials = Denials()
    begun = [denials.begin("box", b"%d" % number, EVENT, "egress", 0.0) for number in range(2000)]
    assert sum(denial is not None for denial in begun) == 256
    assert denials.begin("other", b"1", EVENT, "egress", 0.0) is not None
    assert list(denials.due(ration.ANEW + 1)) == []
    assert denials.begin("box", b"2000", EVENT, "egress", ration.ANEW + 2) is not None
