#!/usr/bin/python
# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make or remove a snapshot of a sandbox's working set."""

from __future__ import annotations

DOCUMENTATION = r"""
module: snapshot
short_description: Make or remove a snapshot of a sandbox's working set
version_added: 0.1.0
description:
  - Pauses the sandbox, notes the state of its layers while their files share their blocks, lets it go on, and seals what was noted.
  - A snapshot with a name is made once. One without is made when the last one is not the same.
  - What the policy of phase C(rollback) does not keep is removed, but never a checkpoint or what a bundle or a run refers to.
author: DockerSandboxApp authors (@dockersandboxapp)
extends_documentation_fragment: dockersandbox.guardrails.places
attributes:
  check_mode:
    support: full
    description: Tells whether there would be a new snapshot. The sandbox is paused for that as well.
  diff_mode:
    support: none
    description: The restore of a snapshot shows what differs.
  platform:
    support: full
    platforms: posix
    description: The systems on which this works.
options:
  name:
    description: The sandbox.
    type: str
    required: true
  snapshot:
    description: The name of the snapshot. With O(state=absent) it may be an id.
    type: str
    default: ""
  checkpoint:
    description: Whether the snapshot stays until somebody removes it. It needs a name then.
    type: bool
    default: false
  reason:
    description: Why, which the seal tells. It must be given with O(state=absent).
    type: str
    default: ""
  state:
    description: Whether the snapshot is there.
    type: str
    choices: [present, absent]
    default: present
"""

EXAMPLES = r"""
- name: What there is before the migration stays
  dockersandbox.guardrails.snapshot:
    name: default
    snapshot: before-migration
    checkpoint: true
    reason: the agent migrates the data today
"""

RETURN = r"""
snapshot:
  description: The snapshot; none for one that would be new in check mode.
  returned: success
  type: dict
  sample:
    id: 20261124T101500Z-8c1f
    name: before-migration
    reason: the agent migrates the data today
    run: ""
    checkpoint: true
    baseline: 5feceb66ffc86f38d952786c6d696c79c2dbc239dd4e91b46729d73a27fb57e9
    time: "2026-11-24T10:15:00Z"
    entries: 3
    files: 2
    bytes: 4096
paused_ms:
  description: For how many milliseconds the sandbox stood.
  returned: success
  type: int
"""

import dataclasses
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import arguments, rollback
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.history import History, Snapshot
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.sandboxes import Host


def present(host: Host, kept: History, options: dict[str, t.Any], check: bool) -> dict[str, t.Any]:
    """Make sure of a snapshot and return what the module returns."""
    name = options["snapshot"]
    there = [one for one, _digest in kept.register().snapshots.values() if name and one.name == name]
    if there:
        if options["checkpoint"] and not there[0].checkpoint:
            raise kept.refuse(f"{there[0]} is not a checkpoint, and cannot become one: restore it, or take another name")
        return {"changed": False, "snapshot": dataclasses.asdict(there[0]), "paused_ms": 0}
    made = rollback.snapshot(
        host,
        kept,
        options["reason"] or "on request",
        name=name,
        checkpoint=options["checkpoint"],
        reuse=not name,
        check=check,
    )
    told = dataclasses.asdict(made.snapshot) if made.snapshot else {}
    return {"changed": made.new, "snapshot": told, "paused_ms": round(made.paused * 1000)}


def absent(host: Host, kept: History, options: dict[str, t.Any], check: bool) -> dict[str, t.Any]:
    """Make sure that a snapshot is not there and return what the module returns."""
    which = options["snapshot"]
    there: list[Snapshot] = [one for one, _digest in kept.register().snapshots.values() if which and which in (one.id, one.name)]
    if there and not check:
        rollback.remove(host, kept, which, options["reason"])
    return {"changed": bool(there), "snapshot": dataclasses.asdict(there[0]) if there else {}, "paused_ms": 0}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **arguments.PLACES,
            "name": {"type": "str", "required": True},
            "snapshot": {"type": "str", "default": ""},
            "checkpoint": {"type": "bool", "default": False},
            "reason": {"type": "str", "default": ""},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        required_if=[("state", "absent", ("snapshot", "reason"))],
        supports_check_mode=True,
    )
    host = arguments.host(module)
    with arguments.refusals(module):
        kept = rollback.of(host, module.params["name"])
        act = present if module.params["state"] == "present" else absent
        result = act(host, kept, module.params, module.check_mode)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
