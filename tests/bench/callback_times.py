# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs a playbook and writes how long each event took in each callback: ``callback_times.py OUT ansible-playbook-arguments…``.

What is timed is all that Ansible does in its own process to hand one event to one callback: the copy of the result too.
"""

from __future__ import annotations

import json
import pathlib
import sys
import threading
import time
import typing as t

from ansible.cli.playbook import PlaybookCLI
from ansible.executor.task_queue_manager import TaskQueueManager

taken: dict[str, list[int]] = {}
send = TaskQueueManager.send_callback
one_at_a_time = threading.RLock()


def timed(manager: t.Any, method: str, *arguments: t.Any, **options: t.Any) -> None:
    """Hand an event to one callback after the other."""
    with one_at_a_time:
        plugins = manager._callback_plugins
        for plugin in plugins:
            manager._callback_plugins = [plugin]
            start = time.perf_counter_ns()
            send(manager, method, *arguments, **options)
            if method in plugin._implemented_callback_methods:
                taken.setdefault(plugin.CALLBACK_NAME, []).append(time.perf_counter_ns() - start)
        manager._callback_plugins = plugins


if __name__ == "__main__":
    TaskQueueManager.send_callback = timed
    out, sys.argv[1:] = sys.argv[1], sys.argv[2:]
    code = PlaybookCLI(["ansible-playbook", *sys.argv[1:]]).run()
    pathlib.Path(out).write_text(json.dumps(taken), encoding="ascii")
    sys.exit(code)
