# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options that lengthen a proof, and the machine that several of them share."""

from __future__ import annotations

import collections.abc
import typing as t

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that lengthen a proof."""
    parser.addoption("--kills", type=int, default=1, help="how many first converges to kill at a random moment (default 1)")
    parser.addoption("--rounds", type=int, default=2, help="how many acts on a converged host to kill at a random moment (default 2)")
    parser.addoption("--recorder-kills", type=int, default=10, help="how often to kill the recorder under its writers (default 10)")
    parser.addoption("--llm-kills", type=int, default=10, help="how often to kill the LLM gateway under load (default 10)")
    parser.addoption("--seed", type=int, default=None, help="the seed of those moments (default: another one each time)")


@pytest.fixture(scope="session")
def bare_machine() -> collections.abc.Iterator[t.Any]:
    """A machine that is made by the first test that needs one, and removed at the end."""
    from e2e import bare

    made = bare.Bare("guardrails-bare")
    yield made
    made.remove()
