#!/usr/bin/python
# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Prove that running sandboxes hold what they promise."""

from __future__ import annotations

DOCUMENTATION = r"""
module: sandbox_verify
short_description: Prove inside each running sandbox that its walls stand
version_added: 0.1.0
description:
  - Looks from inside each sandbox at its user, capabilities, limits, mounts and interfaces, tries what must be refused, and
    fails with everything that is weaker than the stack promises.
  - With O(attack) it also lets a throw-away sandbox do its worst to a small tree, and proves that the tree is bit-identical
    afterwards.
author: DockerSandboxApp authors (@dockersandboxapp)
extends_documentation_fragment:
  - dockersandbox.guardrails.places
  - dockersandbox.guardrails.places.reads
options:
  caps:
    description: Whether to try the caps that gVisor does not show, in a container that may die of it, if a sandbox runs under it.
    type: bool
    default: false
  attack:
    description: Whether to try a throw-away sandbox on a tree of the module's own.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Every sandbox holds
  dockersandbox.guardrails.sandbox_verify:
"""

RETURN = r"""
sandboxes:
  description: The sandboxes that were looked at.
  returned: success
  type: list
  elements: str
  sample: [default]
"""

import contextlib
import os
import secrets
import shutil
import tempfile

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import arguments, hardening, manifest, run, sandboxes, stack
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.docker_api import DockerError
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.sandboxes import Host

# Each of these must leave the originals alone; the last tells that the working copy did take the writes.
ATTACK = r"""
cd /originals && { rm -rf . ./* ; echo x > new; chmod 777 keep; mv keep kept; ln keep hard; echo x > keep; touch keep; }
cd /workspace && { echo changed > keep; rm -rf folder; mkdir folder; ln -s / out; echo x >> out/etc/passwd; chmod 000 keep; }
test -d folder
"""


def looked(host: Host) -> list[str]:
    """Return the problems of all sandboxes, a line each."""
    problems = []
    for name, description in sandboxes.read_stack(host.places).items():
        _code, output = host.execute(name, description, hardening.PROBE, timeout=60)
        found = hardening.problems(output.decode("utf-8", "replace"), description)
        problems += [f"sandbox {name}: {problem}" for problem in found]
    return problems


def exceeded(host: Host, name: str, shape: stack.Description) -> list[str]:
    """Return which caps do not hold under the runtime of the sandbox *name*, tried in a container of its *shape*."""
    other = f"{name}.{secrets.token_hex(3)}"
    container = stack.container_name(other)
    shape = {**shape, **hardening.TRIAL, "mounts": [mount for mount in shape["mounts"] if "bind" in mount]}
    found = []
    with sandboxes.held(host.places, other, "a trial of caps"):
        try:
            host.docker.create(container, stack.container(other, shape, host.seccomp()))
            for cap, most in hardening.TRIAL.items():
                host.docker.start(container)
                # What is far below the cap must be had, or the trial would tell nothing.
                if host.execute(other, shape, [*hardening.TAKE[cap], str(most // 16)], timeout=60)[0]:
                    found.append(f"the cap on {cap} could not be tried")
                try:
                    if host.execute(other, shape, [*hardening.TAKE[cap], str(most * 4)], timeout=60)[0] == 0:
                        found.append(f"the cap on {cap} does not hold: {most * 4} could be taken, of {most}")
                except DockerError:
                    # The container died of it.
                    pass
                host.docker.kill(container)
                host.docker.stop(container)
        finally:
            host.docker.remove(container)
            os.unlink(host.places.lock(other))
    return [f"sandbox {name}: {problem}" for problem in found]


def attacked(host: Host, name: str) -> list[str]:
    """Return in what a small tree differs after a throw-away sandbox of the shape of *name* has done its worst to it."""
    folder = os.path.join(host.places.data, "originals")
    os.makedirs(folder, mode=0o755, exist_ok=True)
    tree = tempfile.mkdtemp(prefix="attacked-", dir=folder)
    try:
        os.makedirs(os.path.join(tree, "folder"))
        for path in ("keep", "folder/file"):
            with open(os.path.join(tree, path), "w", encoding="ascii") as file:
                file.write(path)
        os.chmod(tree, 0o755)
        before = manifest.build(tree, cache=None)
        with run.throwaway(host, name, sandboxes.read_stack(host.places)[name], tree) as (other, description):
            code, output = host.execute(other, description, ["/bin/sh", "-c", ATTACK], timeout=60)
        after = manifest.build(tree, cache=None)
        if code:
            return [f"a working copy could not be written: {output.decode('utf-8', 'replace').strip()}"]
        return [f"a hostile write reached the originals: {difference}" for difference in manifest.diff(before, after)]
    finally:
        shutil.rmtree(tree, ignore_errors=True)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(host.places.stat_cache(tree))


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **arguments.PLACES,
            "caps": {"type": "bool", "default": False},
            "attack": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    host = arguments.host(module)
    if module.check_mode and not os.path.exists(host.docker.path):
        module.exit_json(changed=False, sandboxes=[])
    with arguments.refusals(module):
        described = sandboxes.read_stack(host.places)
        names = sorted(described)
        problems = looked(host) if not module.check_mode else []
        hidden = [name for name in names if stack.runtime(described[name]) == "gvisor"]
        if module.params["caps"] and hidden and not module.check_mode:
            problems += exceeded(host, hidden[0], described[hidden[0]])
        if module.params["attack"] and names and not module.check_mode:
            problems += attacked(host, names[0])
        if problems:
            module.fail_json(msg="\n".join(problems), problems=problems)
    module.exit_json(changed=False, sandboxes=names)


if __name__ == "__main__":
    main()
