#!/usr/bin/python
# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pin a name to the addresses that it may have."""

from __future__ import annotations

DOCUMENTATION = r"""
module: dns_pin
short_description: Pin a name to the addresses that sandboxes may reach it at
version_added: 0.1.0
description:
  - A rule with C(pins=strict) leads to addresses that are pinned, and to no others. This pins them.
  - All pins of a host are sealed with its key in C(.state/pins.json). The service C(egress) is told at once; tunnels to an address that is
    no longer pinned are cut.
author: DockerSandboxApp authors (@dockersandboxapp)
extends_documentation_fragment:
  - dockersandbox.guardrails.places
  - dockersandbox.guardrails.places.changes
options:
  name:
    description: The name.
    type: str
    required: true
  state:
    description:
      - V(present) pins a name that has no pins, or has others than O(addresses).
      - V(renewed) asks for its addresses again and pins those, whatever it had.
      - V(absent) removes its pins.
    type: str
    choices: [present, renewed, absent]
    default: present
  addresses:
    description:
      - Its addresses. When there are none, egress asks its resolvers, which it does for names that a rule covers.
      - A name that has pins keeps them then.
    type: list
    elements: str
    default: []
  reason:
    description: Why; it is sealed with the pins and goes on record.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: The addresses that it has now are the right ones
  dockersandbox.guardrails.dns_pin:
    name: api.example.org
    reason: first use

- name: It has moved
  dockersandbox.guardrails.dns_pin:
    name: api.example.org
    addresses: [93.184.216.34]
    reason: announced by the provider
"""

RETURN = r"""
addresses:
  description: The addresses that are pinned now.
  returned: success
  type: list
  elements: str
actions:
  description: What was done (in check mode, what would be) and why.
  returned: success
  type: list
  elements: str
"""

import json
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import acts, arguments, dns_pins, network
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.places import Places
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.services import Services


def wanted(places: Places, name: str, known: dns_pins.Pins, options: dict[str, t.Any]) -> list[str]:
    """Return the addresses that *name* is to have."""
    if options["state"] == "absent":
        return []
    if options["addresses"]:
        return dns_pins.addresses_of(options["addresses"])
    if options["state"] == "present" and name in known:
        return known[name]
    return dns_pins.addresses_of(network.command(places, {"command": "resolve", "name": name})["addresses"])


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **arguments.PLACES,
            "name": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["present", "renewed", "absent"], "default": "present"},
            "addresses": {"type": "list", "elements": "str", "default": []},
            "reason": {"type": "str", "required": True},
        },
        supports_check_mode=True,
    )
    options, check = module.params, module.check_mode
    with arguments.refusals(module):
        sandboxes = arguments.host(module)
        host = Services(sandboxes.docker, sandboxes.places)
        if not options["reason"].strip():
            raise ValueError("reason: is empty: say why these addresses are right")
        name = dns_pins.name_of(options["name"])
        known = dns_pins.read(host.places)
        addresses = wanted(host.places, name, known, options)
        pins = {**known, name: addresses}
        if not addresses:
            pins.pop(name)
        actions = []
        if pins != known:
            actions.append(f"Pinned {name} to {', '.join(addresses)}" if addresses else f"Removed the pins of {name}")
            if not check:
                with acts.recorded(host.places, "network.pin", "dns_activity", resource=f"{name} {' '.join(addresses)}", reason=options["reason"]):
                    dns_pins.write(host.places, pins, options["reason"])
        actions += network.changed_pins(host, pins, check).actions
    shown = ["" if not of else json.dumps(of, indent=2, sort_keys=True) + "\n" for of in (known, pins)]
    module.exit_json(changed=bool(actions), actions=actions, addresses=addresses, diff={"before": shown[0], "after": shown[1]})


if __name__ == "__main__":
    main()
