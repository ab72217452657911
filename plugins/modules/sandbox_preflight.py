#!/usr/bin/python
# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Say what is wrong with declared sandboxes, before anything changes."""

from __future__ import annotations

DOCUMENTATION = r"""
module: sandbox_preflight
short_description: Refuse sandboxes that cannot be made, before anything changes
version_added: 0.1.0
description:
  - Checks the declarations of all sandboxes and, on request, the originals that they name and the room for what is to be
    changed of them.
  - Fails with every problem there is, each in one line. Changes nothing.
author: DockerSandboxApp authors (@dockersandboxapp)
extends_documentation_fragment:
  - dockersandbox.guardrails.places
  - dockersandbox.guardrails.places.reads
options:
  sandboxes:
    description: The declared sandboxes, as in C(configs/sandboxes.yml).
    type: list
    elements: raw
    required: true
  presets:
    description: The names of the package presets there are.
    type: list
    elements: str
    required: true
  originals:
    description: Whether to look at the originals and the disk too.
    type: bool
    default: false
  min_free_disk:
    description: The space that must stay free beside the working sets, such as V(2g). Looked at with O(originals).
    type: str
    default: 2g
  absent_ok:
    description: Originals that may be missing, because the same play makes them.
    type: list
    elements: path
    default: []
"""

EXAMPLES = r"""
- name: Every sandbox can be made
  dockersandbox.guardrails.sandbox_preflight:
    sandboxes:
      - name: default
        originals: /srv/data
        memory: 1g
    presets: [generic]
    originals: true
"""

RETURN = r"""
presets:
  description: The presets that the declared sandboxes use.
  returned: success
  type: list
  elements: str
  sample: [generic]
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import arguments, sandboxes, spec, workset
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.workset import WorkingSet


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **arguments.PLACES,
            "sandboxes": {"type": "list", "elements": "raw", "required": True},
            "presets": {"type": "list", "elements": "str", "required": True},
            "originals": {"type": "bool", "default": False},
            "min_free_disk": {"type": "str", "default": "2g"},
            "absent_ok": {"type": "list", "elements": "path", "default": []},
        },
        supports_check_mode=True,
    )
    with arguments.refusals(module):
        declared = spec.parse(module.params["sandboxes"], module.params["presets"])
        if module.params["originals"]:
            host = arguments.host(module)
            if problems := workset.originals_problems(declared, host.places, module.params["absent_ok"]):
                raise spec.SpecError(problems)
            there = [sandbox for sandbox in declared if os.path.isdir(sandbox.originals)]
            uids = sandboxes.assign_uids(there, sandboxes.read_uids(host.places))
            sets = [WorkingSet(host.places, one.name, one.originals, *uids.get(one.name, (0, 0)), one.working_set) for one in declared]
            workset.refuse_space(sets, spec.size(module.params["min_free_disk"]))
        module.exit_json(changed=False, presets=sorted({sandbox.preset for sandbox in declared}))


if __name__ == "__main__":
    main()
