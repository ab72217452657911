# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the modules' arguments have in common, and how a module ends when the core refuses."""

from __future__ import annotations

import contextlib
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import (
    allowlist,
    chain,
    lock,
    mounts,
    places,
    recorder,
    sandboxes,
    seal,
    services,
    spec,
    wall,
    workset,
)
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.docker_api import Docker, DockerError

PLACES: dict[str, dict[str, t.Any]] = {
    "home": {"type": "path", "default": places.HOME},
    "data": {"type": "path", "default": places.DATA},
    "run": {"type": "path", "default": places.RUN},
}


def host(module: AnsibleModule) -> sandboxes.Host:
    """Return the host that the module's arguments name."""
    return sandboxes.Host(Docker(), places.Places(*(module.params[key] for key in PLACES)))


@contextlib.contextmanager
def refusals(module: AnsibleModule) -> t.Iterator[None]:
    """End the module in one clear message when the core refuses; several problems come as a list too."""
    try:
        yield
    except (allowlist.RulesError, spec.SpecError, workset.WorkingSetError) as error:
        module.fail_json(msg="\n".join(error.problems), problems=error.problems)
    except (
        chain.ChainError,
        DockerError,
        lock.LockError,
        mounts.MountError,
        recorder.RecorderError,
        sandboxes.Busy,
        sandboxes.SandboxError,
        seal.SealError,
        services.ServiceError,
        wall.WallError,
        ValueError,
    ) as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        module.fail_json(msg=f"{where}{error.strerror or error}")
