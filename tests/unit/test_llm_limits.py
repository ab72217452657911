# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Limits and breakers, with a clock that the tests set."""

from __future__ import annotations

import pytest

from dockersandbox.llm.limits import Breaker, Bucket, Change, Repeats, Tripping, Velocity


def test_a_bucket_has_a_minutes_worth_and_fills_again() -> None:
    bucket = Bucket(60)
    assert [bucket.take(1, 100.0) for _turn in range(60)] == [0.0] * 60
    assert bucket.take(1, 100.0) == pytest.approx(1.0)
    assert bucket.take(1, 101.0) == 0.0
    assert bucket.take(30, 101.0) == pytest.approx(30.0)
    bucket.give_back(30)
    assert bucket.take(30, 101.0) == 0.0
    bucket.give_back(10**9)
    # What is more than a minute's worth takes all of it.
    assert bucket.take(10**9, 101.0) == 0.0
    assert bucket.take(1, 101.0) > 0
    # What a refusal says is when it fits.
    wait = bucket.take(60, 101.0)
    assert bucket.take(60, 101.0 + wait) == 0.0


def test_a_burst_never_takes_more_than_there_is() -> None:
    bucket = Bucket(1000)
    assert sum(bucket.take(10, 5.0) == 0.0 for _turn in range(1000)) == 100


RULE = Tripping(failures=3, period=10.0, pause=5.0, longest=15.0)


def opened() -> Breaker:
    breaker = Breaker(RULE)
    assert [breaker.failed(now, "errors") for now in (1.0, 2.0)] == [None, None]
    assert breaker.failed(3.0, "errors") == Change("closed", "open", "errors")
    return breaker


def test_closed_until_there_are_too_many_failures_in_a_period() -> None:
    breaker = Breaker(RULE)
    for now in (0.0, 6.0, 12.0, 18.0, 24.0):
        assert breaker.failed(now, "errors") is None
        assert breaker.enter(now) == (0.0, None)
    assert breaker.failed(25.0, "errors") == Change("closed", "open", "errors")


def test_half_of_the_failures_are_anybodys_share() -> None:
    breaker = Breaker(Tripping(failures=4, period=10.0, pause=5.0))
    for now, share in ((0.0, False), (1.0, False)):
        assert breaker.had_its_share(now, "one") is share
        assert breaker.failed(now, "errors", "one") is None
    assert (breaker.had_its_share(2.0, "one"), breaker.had_its_share(2.0, "two")) == (True, False)
    # What is long ago counts no more.
    assert breaker.had_its_share(10.5, "one") is False
    for now, who in ((10.6, "one"), (10.7, "two")):
        assert breaker.failed(now, "errors", who) is None
    assert breaker.failed(10.8, "errors", "two") == Change("closed", "open", "errors")
    assert breaker.had_its_share(10.8, "two") is False


def test_open_until_the_pause_is_over_and_then_for_one() -> None:
    breaker = opened()
    assert breaker.enter(4.0) == (4.0, None)
    assert breaker.failed(5.0, "more") is None
    assert breaker.enter(8.0) == (0.0, Change("open", "half-open", "errors"))
    assert breaker.enter(8.0) == (1.0, None)
    assert breaker.succeeded() == Change("half-open", "closed", "a try went well")
    assert breaker.enter(8.0) == (0.0, None)
    assert breaker.succeeded() is None


def test_a_try_that_fails_makes_the_pause_longer_up_to_the_longest() -> None:
    breaker, now, pauses = opened(), 8.0, []
    for _turn in range(4):
        breaker.enter(now)
        assert breaker.failed(now, "again") == Change("half-open", "open", "again")
        pauses.append(breaker.enter(now)[0])
        now += pauses[-1]
    assert pauses == [10.0, 15.0, 15.0, 15.0]
    breaker.enter(now)
    breaker.succeeded()
    for _turn in range(3):
        breaker.failed(now, "new")
    assert breaker.enter(now)[0] == 5.0


def test_a_try_that_says_nothing_leaves_room_for_another() -> None:
    breaker = opened()
    breaker.enter(8.0)
    breaker.left()
    assert breaker.enter(8.0) == (0.0, None)


def test_it_can_be_tripped() -> None:
    breaker = Breaker(RULE)
    assert breaker.trip(1.0, "too fast") == Change("closed", "open", "too fast")
    assert breaker.trip(1.0, "too fast") is None
    assert (breaker.state, breaker.reason) == ("open", "too fast")


def test_spending_too_fast() -> None:
    velocity = Velocity(100)
    assert [velocity.add(50, now) for now in (0.0, 59.0, 61.0)] == [False, False, False]
    assert velocity.add(50, 62.0)
    assert not velocity.add(50, 63.0)


def test_the_same_again_and_again() -> None:
    repeats = Repeats(3)
    assert [repeats.add("a", now) for now in (0.0, 1.0, 2.0)] == [False] * 3
    assert not repeats.add("b", 2.0)
    assert repeats.add("a", 3.0)
    assert not repeats.add("a", 4.0)
    assert [repeats.add("c", now) for now in (0.0, 30.0, 60.0, 61.0, 91.0)] == [False] * 5
    # So many others came that it is forgotten.
    for number in range(1000):
        assert not repeats.add(f"d{number}", 91.0)
    assert len(repeats._seen) <= 256
