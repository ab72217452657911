#!/usr/bin/python
# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Put a sandbox's working set back as it was in a snapshot."""

from __future__ import annotations

DOCUMENTATION = r"""
module: snapshot_restore
short_description: Put a sandbox's working set back as it was in a snapshot
version_added: 0.1.0
description:
  - Verifies the whole snapshot, lays its layers out beside those that are there, stops the sandbox, exchanges the two at once,
    and starts it. What was there becomes a snapshot.
  - A restore that was killed is finished or undone by whatever comes next to the sandbox.
author: DockerSandboxApp authors (@dockersandboxapp)
extends_documentation_fragment:
  - dockersandbox.guardrails.places
  - dockersandbox.guardrails.places.changes
options:
  name:
    description: The sandbox.
    type: str
    required: true
  snapshot:
    description: The id or the name of the snapshot.
    type: str
    required: true
  path:
    description: Put only this back, a path below C(/workspace). All when it is not given.
    type: str
    default: ""
  force:
    description: Whether a run that goes on is stopped first. Its bundle says so. Otherwise the restore is refused.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Undo what the agent did today
  dockersandbox.guardrails.snapshot_restore:
    name: default
    snapshot: before-migration
"""

RETURN = r"""
snapshot:
  description: The id of the snapshot.
  returned: success
  type: str
saved:
  description: The id of the snapshot of what was there before; empty when nothing differed, and in check mode.
  returned: success
  type: str
differences:
  description: What the restore changed, or in check mode would, a line each, a thousand at the most.
  returned: success
  type: list
  elements: str
  sample: ["removed notes.txt (file)"]
count:
  description: How many differences there are.
  returned: success
  type: int
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import arguments, rollback

LIMIT = 1000


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **arguments.PLACES,
            "name": {"type": "str", "required": True},
            "snapshot": {"type": "str", "required": True},
            "path": {"type": "str", "default": ""},
            "force": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    options = module.params
    host = arguments.host(module)
    with arguments.refusals(module):
        kept = rollback.of(host, options["name"])
        done = rollback.restore(host, kept, options["snapshot"], path=options["path"], force=options["force"], check=module.check_mode)
    lines = [str(difference) for difference in done.differences[:LIMIT]]
    module.exit_json(
        changed=done.changed,
        snapshot=done.snapshot.id,
        saved=done.saved.id if done.saved else "",
        differences=lines,
        count=len(done.differences),
        diff={"before": "", "after": "".join(f"{line}\n" for line in lines)},
    )


if __name__ == "__main__":
    main()
