#!/usr/bin/python
# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make the declared sandboxes run, and no other."""

from __future__ import annotations

DOCUMENTATION = r"""
module: sandbox
short_description: Make the declared sandboxes run, and no other
version_added: 0.1.0
description:
  - Gives each sandbox a uid of its own, writes the part of phase C(env) of the stack, and makes every sandbox run as the
    whole stack says. A sandbox that is declared no more is taken down; its working set and bundles stay.
  - One that is at work and would have to be made anew is left alone, and the module fails with what it is busy with.
author: DockerSandboxApp authors (@dockersandboxapp)
extends_documentation_fragment:
  - dockersandbox.guardrails.places
  - dockersandbox.guardrails.places.changes
options:
  sandboxes:
    description: The declared sandboxes, as in C(configs/sandboxes.yml). Needed unless O(state=absent).
    type: list
    elements: raw
  images:
    description: The image of each preset, as M(dockersandbox.guardrails.sandbox_image) returns it.
    type: dict
    default: {}
  presets:
    description: The presets as M(dockersandbox.guardrails.sandbox_image) takes them; the C(environment) of each is given to its sandboxes.
    type: dict
    default: {}
  seccomp:
    description: The seccomp profile of all sandboxes as JSON text. The one in the home when it is not given.
    type: str
    default: ""
  state:
    description:
      - V(present) makes the declared sandboxes run.
      - V(absent) takes all sandboxes down, and they do not come back when the machine starts; working sets, baselines and bundles stay.
      - V(purged) takes them down and removes working sets and baselines too; bundles stay.
    type: str
    choices: [present, absent, purged]
    default: present
"""

EXAMPLES = r"""
- name: One sandbox
  dockersandbox.guardrails.sandbox:
    sandboxes:
      - name: default
        originals: /srv/data
    images:
      generic: sha256:0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0
"""

RETURN = r"""
actions:
  description: What was done (in check mode, what would be) and why.
  returned: success
  type: list
  elements: str
  sample: ["Brought up sandbox default: has no container"]
written:
  description: The file of the stack's part, when it changed.
  returned: success
  type: list
  elements: str
compose:
  description: The same stack as the content of a Compose file.
  returned: when O(state=present)
  type: dict
"""

import contextlib
import dataclasses
import pathlib
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import acts, arguments, gate, gvisor, lock, sandboxes, spec, stack
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.sandboxes import Host


def present(host: Host, declarations: list[t.Any], images: dict[str, str], presets: dict[str, t.Any], check: bool) -> dict[str, t.Any]:
    """Make the declared sandboxes run and return what the module returns."""
    declared = spec.parse(declarations, images)
    asking = [sandbox.name for sandbox in declared if sandbox.runtime == "gvisor"]
    if asking and not check and (problem := gvisor.runtime_problem(host.docker.call("GET", "/info")["Runtimes"])):
        raise sandboxes.SandboxError(f"sandbox {asking[0]}: asks for gVisor, but {problem}: run phase bootstrap (--tags bootstrap) first")
    table = sandboxes.read_uids(host.places)
    uids = sandboxes.assign_uids(declared, table)
    if not check:
        with sandboxes.uid_table(host.places) as table:
            uids = sandboxes.assign_uids(declared, table)
    files = [file for name, (uid, gid) in uids.items() for file in sandboxes.accounts_files(host.places, name, uid, gid)]
    steps = lock.plan(files)
    if not check:
        acts.write_files(host.places, steps)
    environments = {name: preset.get("environment", {}) for name, preset in presets.items()}
    done = host.converge("env", sandboxes.env_part(declared, images, uids, host.places, environments), check)
    actions = [*(step.text for step in steps), *done.actions]
    return {
        "changed": bool(actions),
        "actions": actions,
        "written": done.written,
        "compose": stack.compose(done.stack, "./seccomp.json"),
        "diff": {"before": done.before, "after": done.after},
    }


def absent(host: Host, purge: bool, check: bool) -> dict[str, t.Any]:
    """Take every sandbox down, and see that none comes back with the machine; return what the module returns."""
    mark = pathlib.Path(host.places.down)
    if not check and mark.parent.is_dir():
        mark.touch(mode=0o644)
    names = sorted({*host.strays(()), *(sandboxes.read_uids(host.places) if purge else ())})
    if purge and not check:
        # First of all, the last phase first: what is left after a kill is what a play has when it makes sandboxes phase by phase.
        for phase in reversed(gate.PHASES):
            # What was tampered with goes with the home.
            with contextlib.suppress(lock.LockError):
                lock.remove_locked(pathlib.Path(sandboxes.part_path(host.places, phase)))
    for name in names:
        if check:
            continue
        with sandboxes.held(host.places, name, "a teardown"):
            if purge:
                host.forget(name)
            else:
                host.take_down(name)
    verb = "Removed" if purge else "Took down"
    return {"changed": bool(names), "actions": [f"{verb} sandbox {name}" for name in names]}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **arguments.PLACES,
            "sandboxes": {"type": "list", "elements": "raw"},
            "images": {"type": "dict", "default": {}},
            "presets": {"type": "dict", "default": {}},
            "seccomp": {"type": "str", "default": ""},
            "state": {"type": "str", "choices": ["present", "absent", "purged"], "default": "present"},
        },
        required_if=[("state", "present", ["sandboxes"])],
        supports_check_mode=True,
    )
    options = module.params
    host = dataclasses.replace(arguments.host(module), profile=options["seccomp"])
    with arguments.refusals(module):
        if options["state"] == "present":
            module.exit_json(**present(host, options["sandboxes"], options["images"], options["presets"], module.check_mode))
        module.exit_json(**absent(host, options["state"] == "purged", module.check_mode))


if __name__ == "__main__":
    main()
