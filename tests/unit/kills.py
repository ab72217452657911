# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kills a piece of code at a chosen file operation, to prove that the next run repairs what is left."""

from __future__ import annotations

import os
import signal
import sys
import typing as t


def killed(step: int, action: t.Callable[[], object]) -> bool:
    """Run *action* in a child that is killed as it starts its *step*-th file operation; return whether it got there."""
    child = os.fork()
    if child == 0:
        count = 0

        def hook(event: str, _arguments: tuple[object, ...]) -> None:
            nonlocal count
            if event in {"open", "os.rename", "os.remove", "os.chown", "os.chmod"}:
                count += 1
                if count == step:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        action()
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or status == 0
    return os.WIFSIGNALED(status)
