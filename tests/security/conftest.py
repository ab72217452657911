# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The battery's sandboxes, one for each runtime, and the table at the end."""

from __future__ import annotations

import collections.abc
import contextlib
import os
import subprocess
import typing as t

import pytest
from security.arena import Arena, Box
from security.cases import CASES
from security.table import Table


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the battery."""
    parser.addoption("--short", action="store_true", help="under runc alone, without bombs and what takes long, one protection a class taken away")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what a short battery does not have."""
    if not config.getoption("--short"):
        return
    shown: set[str] = set()
    kept: list[pytest.Item] = []
    left_out: list[pytest.Item] = []
    for item in items:
        given: dict[str, t.Any] = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
        if "cases" in given:
            groups = {case.group for case in given["cases"]}
            keep = not groups <= shown
            shown |= groups
        elif "runtime" in given:
            keep = given["runtime"] == "runc" and given["case"].group != "bombs" and not given["case"].long
        else:
            keep = True
        (kept if keep else left_out).append(item)
    items[:] = kept
    config.hook.pytest_deselected(items=left_out)


TABLE = Table()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table."""
    if TABLE.results or TABLE.proven:
        terminalreporter.section("the battery")
        terminalreporter.write_line(TABLE.text(CASES))


@pytest.fixture(scope="session")
def table() -> Table:
    """What came of every attack."""
    return TABLE


@pytest.fixture(scope="session")
def arena() -> collections.abc.Iterator[Arena]:
    """Yield the battery's host: it needs root and an engine with the image of a sandbox."""
    if os.geteuid() or subprocess.run(["docker", "info"], capture_output=True, check=False).returncode:
        pytest.skip("needs root and a Docker engine")
    with contextlib.ExitStack() as held:
        made = held.enter_context(contextlib.closing(Arena()))
        made.neighbour = held.enter_context(made.sandbox())
        yield made


@pytest.fixture(scope="session")
def boxes(arena: Arena) -> collections.abc.Iterator[dict[str, Box]]:
    """Yield a sandbox for each runtime that this engine has."""
    with contextlib.ExitStack() as stack:
        yield {name: stack.enter_context(arena.sandbox(name)) for name, there in arena.runtimes().items() if there}
