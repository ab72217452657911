# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The socket on which root talks to a service."""

from __future__ import annotations

import asyncio
import typing as t
from pathlib import Path

import pytest
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import frames, recorder

from dockersandbox.common import admin


def test_an_answer_that_is_too_large_is_an_error_in_words(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"

    async def handle(message: dict[str, t.Any]) -> dict[str, t.Any]:
        return {"told": "x" * message["size"]}

    def talk() -> None:
        with recorder.Client(str(path), 5) as client:
            assert client.command({"size": 3}) == {"told": "xxx"}
            with pytest.raises(recorder.RecorderError, match=rf"a message of {frames.LIMIT + 11} bytes is over the limit of {frames.LIMIT}"):
                client.command({"size": frames.LIMIT})
            assert client.command({"size": 1}) == {"told": "x"}

    async def story() -> None:
        server = await admin.serve(path, handle)
        await asyncio.to_thread(talk)
        server.close()

    asyncio.run(story())
