# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The start of a machine: services, mounts and sandboxes come back, in that order, and only what is as it was sealed."""

from __future__ import annotations

import os
import time
import typing as t

from ansible_collections.dockersandbox.guardrails.plugins.module_utils import gate, lock, mounts, recorder, sandboxes, services, workset
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.docker_api import DockerError
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.sandboxes import Host

_PAUSE = 0.2


class Came(t.NamedTuple):
    """What was done, and what stays down and why, a line each."""

    up: list[str]
    problems: list[str]


def up(host: Host, patience: float) -> Came:
    """Bring up every service and every sandbox of the stack; the engine gets *patience* seconds to answer.

    One that cannot be as it was described does not run, and keeps no other from running; but without the recorder nothing
    may act, and nothing is started. Neither is anything after a teardown, nor while a phase's files are not what it sealed.
    """
    if os.path.exists(host.places.down):
        return Came(["nothing is started: a teardown took all sandboxes down; run site.yml"], [])
    came = Came([], [])
    try:
        for phase in gate.PHASES:
            if os.path.exists(sandboxes.part_path(host.places, phase)):
                gate.verified(host.places.home, phase)
        described = sandboxes.read_stack(host.places)
        declared = services.described(host.places)
        if described or declared:
            _wait(host, patience)
    except (gate.GateError, lock.LockError, DockerError, OSError, ValueError) as error:
        return Came([], [f"nothing is started: {error}"])
    running = services.Services(host.docker, host.places)
    for name, service in declared.items():
        try:
            if reasons := running.differences(name, service):
                running.bring_up(name, service, reasons)
                came.up.append(f"service {name} is up again: {', '.join(reasons)}")
        except (services.ServiceError, recorder.RecorderError, DockerError, OSError, ValueError) as error:
            came.problems.append(f"service {name} stays down: {error}")
            if name == services.RECORDER:
                came.problems.append("nothing else is started: without the recorder nothing may act")
                return came
    for name, description in sorted(described.items()):
        try:
            with sandboxes.held(host.places, name, sandboxes.START):
                if reasons := host.differences(name, description):
                    host.bring_up(name, description, reasons)
                    came.up.append(f"sandbox {name} is up again: {', '.join(reasons)}")
        except sandboxes.Busy as error:
            # Whoever works in it has seen to it.
            came.up.append(str(error))
        except (sandboxes.SandboxError, workset.WorkingSetError, mounts.MountError, DockerError, OSError) as error:
            came.problems.append(f"sandbox {name} stays down: {error}")
    return came


def _wait(host: Host, patience: float) -> None:
    deadline = time.monotonic() + patience
    while True:
        try:
            host.docker.call("GET", "/version")
            return
        except DockerError:
            if time.monotonic() > deadline:
                raise
            time.sleep(_PAUSE)
