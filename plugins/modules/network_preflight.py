#!/usr/bin/python
# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check that sandboxes can be let out as configured."""

from __future__ import annotations

DOCUMENTATION = r"""
module: network_preflight
short_description: Check that sandboxes can be let out as configured, before anything changes
version_added: 0.1.0
description:
  - Checks every rule, and puts together what the service C(egress) is told. All problems come at once, a line each.
  - Reads the pins of this host, whose seal must hold, its resolvers, and, when asked to, the registries of its apt, pip and npm.
author: DockerSandboxApp authors (@dockersandboxapp)
extends_documentation_fragment:
  - dockersandbox.guardrails.places
  - dockersandbox.guardrails.places.reads
options:
  declared:
    description: The names of the declared sandboxes.
    type: list
    elements: str
    required: true
  groups:
    description: Groups of rules, as C(configs/network.yml) has them.
    type: dict
    default: {}
  sandboxes:
    description: What each sandbox may, as C(configs/network.yml) has it.
    type: dict
    default: {}
  registries:
    description: Whether every sandbox may use the package registries that this machine itself uses.
    type: bool
    default: false
  resolvers:
    description: The resolvers to ask, as addresses, with a port where it is not 53. This machine's own when there is none.
    type: list
    elements: str
    default: []
  token_ports:
    description: The ports that egress tokens may be for.
    type: list
    elements: int
    default: []
"""

EXAMPLES = r"""
- name: Sandboxes can be let out
  dockersandbox.guardrails.network_preflight:
    declared: [default]
    sandboxes:
      default:
        rules:
          - host: api.example.org
"""

RETURN = r"""
config:
  description: What the service C(egress) is told.
  returned: success
  type: dict
environment:
  description: What sandboxes are told besides the proxy.
  returned: success
  type: dict
  sample: {PIP_INDEX_URL: "https://pip.example.org/simple"}
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import arguments, dns_pins, network, registries


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **arguments.PLACES,
            "declared": {"type": "list", "elements": "str", "required": True},
            "groups": {"type": "dict", "default": {}},
            "sandboxes": {"type": "dict", "default": {}},
            "registries": {"type": "bool", "default": False},
            "resolvers": {"type": "list", "elements": "str", "default": []},
            "token_ports": {"type": "list", "elements": "int", "default": [], "no_log": False},
        },
        supports_check_mode=True,
    )
    options: dict[str, t.Any] = module.params
    with arguments.refusals(module):
        found = registries.machine() if options["registries"] else None
        config = network.document(
            options["groups"],
            options["sandboxes"],
            options["declared"],
            None if found is None else registries.rules(found, registries.private),
            options["resolvers"] or network.machine_resolvers(),
            options["token_ports"],
            dns_pins.read(arguments.host(module).places),
        )
    module.exit_json(changed=False, config=config, environment={} if found is None else registries.environment(found))


if __name__ == "__main__":
    main()
