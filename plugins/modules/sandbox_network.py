#!/usr/bin/python
# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Give sandboxes their proxy."""

from __future__ import annotations

DOCUMENTATION = r"""
module: sandbox_network
short_description: Give every sandbox a proxy, which is its only way out
version_added: 0.1.0
description:
  - Adds to the stack a port of each sandbox's own loopback that leads to its socket of the service C(egress), and the
    environment by which programs find it; then makes every sandbox run as the whole stack says.
  - What a sandbox may is for the rules to say. One without any has a proxy that denies everything.
author: DockerSandboxApp authors (@dockersandboxapp)
extends_documentation_fragment:
  - dockersandbox.guardrails.places
  - dockersandbox.guardrails.places.changes
options:
  sandboxes:
    description: The names of the declared sandboxes.
    type: list
    elements: str
    required: true
  environment:
    description: What programs in them are told besides.
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: The proxy of each sandbox
  dockersandbox.guardrails.sandbox_network:
    sandboxes: [default]
"""

RETURN = r"""
actions:
  description: What was done (in check mode, what would be) and why.
  returned: success
  type: list
  elements: str
written:
  description: The file of the stack's part, when it changed.
  returned: success
  type: list
  elements: str
compose:
  description: The whole stack as the content of a Compose file.
  returned: success
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import arguments, network, stack


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **arguments.PLACES,
            "sandboxes": {"type": "list", "elements": "str", "required": True},
            "environment": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    options = module.params
    with arguments.refusals(module):
        host = arguments.host(module)
        done = host.converge("network", network.part(sorted(options["sandboxes"]), host.places, options["environment"]), module.check_mode)
    module.exit_json(
        changed=bool(done.actions),
        actions=done.actions,
        written=done.written,
        compose=stack.compose(done.stack, "./seccomp.json"),
        diff={"before": done.before, "after": done.after},
    )


if __name__ == "__main__":
    main()
