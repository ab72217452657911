# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tree hash, beside another implementation of it and the vectors of Certificate Transparency."""

from __future__ import annotations

import random

import pymerkle
import pytest
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import merkle

VECTOR = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
ROOTS = {
    0: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    1: "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    8: "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
}


@pytest.mark.parametrize("size", ROOTS)
def test_known_roots(size: int) -> None:
    assert merkle.root([bytes.fromhex(entry) for entry in VECTOR[:size]]).hex() == ROOTS[size]


@pytest.mark.parametrize("size", [*range(1, 40), 63, 64, 65, 255, 256, 257, 1000])
def test_roots_are_those_of_pymerkle(size: int) -> None:
    chance = random.Random(size)
    entries = [chance.randbytes(chance.randrange(1, 100)) for _entry in range(size)]
    tree = pymerkle.InmemoryTree(algorithm="sha256")
    for entry in entries:
        tree.append_entry(entry)
    assert merkle.root(entries) == tree.get_root()


def test_order_counts() -> None:
    assert merkle.root([b"a", b"b"]) != merkle.root([b"b", b"a"])
