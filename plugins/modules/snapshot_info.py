#!/usr/bin/python
# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tell of the snapshots of a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: snapshot_info
short_description: Tell of the snapshots of each sandbox
version_added: 0.1.0
description:
  - Lists, for each sandbox, its snapshots and the checkpoints that somebody removed.
  - Reads the sealed register. Whether every byte of a snapshot is as it was sealed is for the playbook C(verify.yml) to say.
author: DockerSandboxApp authors (@dockersandboxapp)
extends_documentation_fragment:
  - dockersandbox.guardrails.places
  - dockersandbox.guardrails.places.reads
options:
  name:
    description: The sandbox to tell of. All when it is not given.
    type: str
"""

EXAMPLES = r"""
- name: Where can the sandbox be put back to?
  dockersandbox.guardrails.snapshot_info:
    name: default
  register: snapshots
"""

RETURN = r"""
snapshots:
  description: The snapshots by the name of their sandbox, oldest first.
  returned: success
  type: dict
removed:
  description: What somebody removed, by the name of the sandbox, with the reason.
  returned: success
  type: dict
"""

import dataclasses

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import arguments, rollback, sandboxes


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec={**arguments.PLACES, "name": {"type": "str"}}, supports_check_mode=True)
    host = arguments.host(module)
    with arguments.refusals(module):
        only = module.params["name"]
        names = [only] if only is not None else sorted(sandboxes.read_stack(host.places))
        registers = {name: rollback.of(host, name).register() for name in names}
    module.exit_json(
        changed=False,
        snapshots={name: [dataclasses.asdict(one) for one, _digest in known.snapshots.values()] for name, known in registers.items()},
        removed={name: known.removed for name, known in registers.items()},
    )


if __name__ == "__main__":
    main()
