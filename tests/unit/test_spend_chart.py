# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The chart of spend: what is drawn, and that it is a picture."""

from __future__ import annotations

import struct
import typing as t

import pytest

pytest.importorskip("matplotlib", reason="draws with requirements/spend.txt")

from ansible_collections.dockersandbox.guardrails.plugins.action import spend_chart
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import llm


def one(micro: int) -> dict[str, int]:
    return {"spent": micro, "held": 0, "calls": 1}


def row(name: str, **changes: t.Any) -> llm.Row:
    return {"name": name, "subject": "total", "limit": 10_000_000, "spent": 4_000_000, "held": 1_000_000, **changes}


SPEND: llm.Spend = {
    "total": {"total": one(3_000_000)},
    "sandbox": {"a": one(1_000_000), "b": one(2_000_000)},
    "team": {},
    "model": {f"m{number:02}": one(number * 1_000_000) for number in range(14)},
}


def size(picture: bytes) -> tuple[int, int]:
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    return struct.unpack(">II", picture[16:24])


def test_the_dearest_come_first_and_the_rest_is_one_bar() -> None:
    drawn = dict(spend_chart.bars(SPEND))
    assert list(drawn) == ["sandbox", "model"]
    assert drawn["sandbox"] == [("b", 2.0), ("a", 1.0)]
    assert len(drawn["model"]) == 13 and drawn["model"][0] == ("m13", 13.0) and drawn["model"][-1] == ("2 more", 1.0)


@pytest.mark.parametrize(
    ("spend", "standing", "simulated"),
    [
        ({}, [], []),
        (SPEND, [row("day"), row("over", spent=30_000_000)], ["anthropic"]),
        ({"sandbox": {"x" * 90: one(0)}}, [row("none", limit=0)], []),
        ({"model": {"a$b$c_d^e": one(5)}}, [row("a", subject="model:$x$")], []),
    ],
)
def test_it_is_a_picture_the_same_each_time(spend: llm.Spend, standing: list[llm.Row], simulated: list[str]) -> None:
    made = spend_chart.draw("here", 1_800_000_000, spend, standing, simulated)
    assert made == spend_chart.draw("here", 1_800_000_000, spend, standing, simulated)
    width, height = size(made)
    assert width == 1080 and height >= 200


def test_more_to_show_is_a_taller_picture() -> None:
    small, large = (spend_chart.draw("here", 0, SPEND, standing, []) for standing in ([row("day")], [row(f"b{number}") for number in range(12)]))
    assert size(large)[1] > size(small)[1]
