# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The client against an engine that never answers: whoever asks is told in time."""

from __future__ import annotations

import pathlib
import socket
import time
import typing as t

import pytest
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.docker_api import Docker, DockerError, Late


@pytest.fixture
def silent(tmp_path: pathlib.Path) -> t.Iterator[Docker]:
    """Yield a client of something that takes calls and says nothing."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "engine"))
        listener.listen(8)
        yield Docker(str(tmp_path / "engine"), timeout=0.2)


@pytest.mark.parametrize(
    "ask",
    [
        lambda docker: docker.call("GET", "/info"),
        lambda docker: docker.exec_create("box", {}, timeout=0.2),
        lambda docker: docker.exec_start("id", tty=False),
        lambda docker: docker.execute("box", ["true"], timeout=0.2),
    ],
)
def test_a_silent_engine_is_late(silent: Docker, ask: t.Callable[[Docker], t.Any]) -> None:
    start = time.monotonic()
    with pytest.raises(Late, match=r"no answer .*within 0.2 s"):
        ask(silent)
    assert time.monotonic() - start < 5


def test_no_engine_is_not_late(tmp_path: pathlib.Path) -> None:
    with pytest.raises(DockerError, match="Docker does not answer on") as caught:
        Docker(str(tmp_path / "none")).call("GET", "/info")
    assert not isinstance(caught.value, Late)
