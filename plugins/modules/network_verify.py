#!/usr/bin/python
# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Prove that nothing leaves but what a rule lets out."""

from __future__ import annotations

DOCUMENTATION = r"""
module: network_verify
short_description: Prove that sandboxes get out by their proxy alone, and that it denies
version_added: 0.1.0
description:
  - Asks from within each sandbox for a host that no rule names. That must be denied, and the denial be on record.
  - Tries from the network of the service C(egress) to reach this host and the address at which clouds tell credentials. The
    wall around it must let neither through.
author: DockerSandboxApp authors (@dockersandboxapp)
extends_documentation_fragment:
  - dockersandbox.guardrails.places
  - dockersandbox.guardrails.places.reads
"""

EXAMPLES = r"""
- name: Nothing leaves
  dockersandbox.guardrails.network_verify:
"""

RETURN = r"""
sandboxes:
  description: The sandboxes that were tried.
  returned: success
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import arguments, network, sandboxes


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=dict(arguments.PLACES), supports_check_mode=True)
    with arguments.refusals(module):
        host = arguments.host(module)
        described = sandboxes.read_stack(host.places)
        problems = network.problems(host, described)
    if problems:
        module.fail_json(msg="\n".join(problems), problems=problems)
    module.exit_json(changed=False, sandboxes=sorted(described))


if __name__ == "__main__":
    main()
