# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a sender may say, and the one form in which it is written."""

from __future__ import annotations

import json
import random
import typing as t

import pytest
import rfc8785
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import canonical, events

GOOD: dict[str, dict[str, t.Any]] = {
    "the least": {},
    "what is absent": {"reason": None, "detail": None, "sandbox": None, "argv": None},
    "all of it": {
        "actor": {"type": "agent", "name": "one", "uid": 1500},
        "sandbox": "box-1",
        "resource": {"host": "example.com", "ports": [80, 443], "deep": {"a": [{"b": None}]}},
        "argv": ["ls", "-la", "", "naïve", "line\nbreak"],
        "request_sha256": "0" * 64,
        "decision": "deny",
        "policy_ids": ["one", "two"],
        "policy_sha256": "f" * 64,
        "permit_id": "p-1",
        "approval_id": "a-1",
        "reason": "because",
        "data_class": "personal",
        "outcome": "failure",
        "trace_id": "20261124T111206Z-0ae8",
        "detail": {"bytes": -(2**53) + 1, "fine": False, "text": "é", "dotted.name": 0},
        "id": "0123456789abcdef" * 2,
    },
    "a resource in words": {"resource": "https://example.com/é"},
    "eight levels": {"resource": {"a": {"a": {"a": {"a": {"a": {"a": {"a": {}}}}}}}}},
    "the longest texts": {"reason": "x" * 65_536, "trace_id": "y" * 128, "action": "a." + "b" * 62},
}
BAD: list[tuple[dict[str, t.Any], str]] = [
    ({"reason": "\udcff"}, "reason: '\\udcff' has a lone surrogate"),
    ({"argv": ["a", "\ud800"]}, "argv[1]: '\\ud800' has a lone surrogate"),
    ({"detail": {"a": "\ud800"}}, "detail.a: '\\ud800' has a lone surrogate"),
    ({"resource": "\ud800"}, "resource: '\\ud800' has a lone surrogate"),
    ({"resource": {"a": ["\ud800"]}}, "resource.a[0]: '\\ud800' has a lone surrogate"),
    ({"reason": b"bytes"}, "reason: it is a bytes, not a text"),
    ({"argv": ("a",)}, "argv: it is a tuple, not a list"),
    ({"argv": ["x"] * 4097}, "argv: it has 4097 items; 4096 is the most"),
    ({"detail": {"a": None}}, "detail.a: it is null, not a text"),
    ({"detail": {"a": float("nan")}}, "detail.a: 'nan' is no integer"),
    ({"detail": {"": 1}}, "detail: '' is no field's name"),
    ({"detail": {"a" * 65: 1}}, f"detail: '{'a' * 48}'… is no field's name"),
    ({"detail": {"a\n": 1}}, "detail: 'a\\n' is no field's name"),
    ({"actor": {"type": 1}}, "actor.type: it is missing, or no text"),
    ({"resource": 1}, "resource: it is an integer, not a text or an object"),
    ({"resource": {"a": {"é": 1}}}, "resource.a: 'é' is no field's name"),
    ({"resource": {"a": [0.5]}}, "resource.a[0]: '0.5' is no integer"),
    ({"action": "run.start\n"}, "action: 'run.start\\n' is not two or more words"),
    ({"sandbox": "Box"}, "sandbox: 'Box' is not a sandbox's name"),
    ({"trace_id": "a b"}, "trace_id: 'a b' is not a name of visible ASCII characters"),
    ({"outcome": "not good"}, "outcome: 'not good' is not a word of a-z, 0-9 and _"),
    ({"prev_sha256": "0" * 64}, "prev_sha256: the recorder writes it; leave it out"),
    ({"x" * 100: 1}, "x" * 64 + ": there is no such field"),
]


def event(**fields: t.Any) -> dict[str, t.Any]:
    return {"action": "run.start", "class": "process_activity", **fields}


@pytest.mark.parametrize("word", GOOD)
def test_a_good_event_is_taken(word: str) -> None:
    events.check(event(**GOOD[word]))


@pytest.mark.parametrize(("fields", "told"), BAD)
def test_a_bad_event_is_refused_by_the_name_of_the_field(fields: dict[str, t.Any], told: str) -> None:
    with pytest.raises(events.EventError) as refused:
        events.check(event(**fields))
    assert str(refused.value).startswith(told) and str(refused.value).isprintable()


@pytest.mark.parametrize("word", GOOD)
def test_a_record_has_what_was_said_and_where_it_stands(word: str) -> None:
    said = event(**GOOD[word])
    record = events.stamped(said, {"kind": 2}, "host", 7, "2026-11-24T10:00:00.000000Z", "uid", "a" * 64)
    stamps = {"v": 1, "seq": 7, "time": "2026-11-24T10:00:00.000000Z", "chain_uid": "uid", "prev_sha256": "a" * 64, "sender": "host"}
    assert record == {name: value for name, value in said.items() if value is not None} | stamps | {"redactions": {"kind": 2}}
    assert events.line(record) == rfc8785.dumps(record)


def test_nothing_redacted_is_not_said() -> None:
    assert "redactions" not in events.stamped(event(), {}, "host", 1, "", "", "")


@pytest.mark.parametrize("seed", range(50))
def test_the_form_is_that_of_rfc_8785(seed: int) -> None:
    chance = random.Random(seed)

    def any_text() -> str:
        return "".join(chr(chance.choice([*range(0x100), 0x2028, 0x2029, 0xD7FF, 0xE000, 0xFFFF, 0x1F600])) for _char in range(chance.randrange(20)))

    def anything(depth: int) -> t.Any:
        kinds: list[t.Callable[[], t.Any]] = [any_text, lambda: chance.randrange(-(2**53) + 1, 2**53), lambda: chance.choice([True, False, None])]
        if depth:
            kinds += [lambda: [anything(depth - 1) for _item in range(3)], lambda: {f"k{chance.randrange(99)}": anything(depth - 1) for _item in range(4)}]
        return chance.choice(kinds)()

    value = {"a": anything(4), "b": anything(4)}
    assert canonical.dumps(value) == rfc8785.dumps(value)
    assert json.loads(canonical.dumps(value)) == value


@pytest.mark.parametrize(
    ("nanoseconds", "shown"),
    [
        (0, "1970-01-01T00:00:00.000000Z"),
        (1_795_514_400_000_001_999, "2026-11-24T10:00:00.000001Z"),
        (4_102_444_799_999_999_999, "2099-12-31T23:59:59.999999Z"),
    ],
)
def test_times_sort_as_texts(nanoseconds: int, shown: str) -> None:
    assert events.text_time(nanoseconds) == shown
    assert events.text_time(nanoseconds) < events.text_time(nanoseconds + 1_000_000_000)
