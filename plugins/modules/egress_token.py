#!/usr/bin/python
# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Let a sandbox reach one host beyond its rules for a while."""

from __future__ import annotations

DOCUMENTATION = r"""
module: egress_token
short_description: Mint or revoke an egress token
version_added: 0.1.0
description:
  - A token lets one sandbox reach one host beyond its rules, for a time. Whoever works there presents it to the proxy, as a password or a
    bearer token; egress keeps its hash, in memory.
  - Every run mints another token. When egress ends, all of them end.
author: DockerSandboxApp authors (@dockersandboxapp)
extends_documentation_fragment: dockersandbox.guardrails.places
attributes:
  check_mode:
    support: full
    description: Says what would be done, and mints nothing.
  diff_mode:
    support: none
    description: A token is shown once, in RV(secret).
  platform:
    support: full
    platforms: posix
    description: The systems on which this works.
options:
  state:
    description: V(present) mints one, V(absent) revokes one and cuts what it opened.
    type: str
    choices: [present, absent]
    default: present
  id:
    description: The token to revoke.
    type: str
  sandbox:
    description: Who may use it.
    type: str
  rule:
    description:
      - What it is for, a rule as in C(configs/network.yml) over a single host. Its ports must be among C(network_token_ports), and
        it cannot lead to private addresses.
    type: dict
  seconds:
    description: How long it lives, up to a day.
    type: int
    default: 3600
  uses:
    description: How many connections it is good for; without it, any number.
    type: int
  bytes:
    description: How many bytes, in both directions, it is good for; without it, any number.
    type: int
  reason:
    description: Why; it goes on record.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: One download
  dockersandbox.guardrails.egress_token:
    sandbox: default
    rule: {host: files.example.org}
    seconds: 600
    uses: 1
    reason: the data set of request 4711
  register: token
  no_log: true

- name: Not any more
  dockersandbox.guardrails.egress_token:
    state: absent
    id: "{{ token.id }}"
    reason: done
"""

RETURN = r"""
id:
  description: The token's id, by which it is known in the record.
  returned: success, but in check mode
  type: str
secret:
  description: The token itself. It is told this once.
  returned: when one was minted
  type: str
until:
  description: When it ends, in seconds since 1970.
  returned: when one was minted
  type: int
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import arguments, network
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.places import Places


def mint(places: Places, options: dict[str, t.Any]) -> dict[str, t.Any]:
    """Mint a token; return what the module returns."""
    asked = {key: options[key] for key in ("sandbox", "rule", "seconds", "uses", "bytes", "reason") if options[key] is not None}
    made = network.command(places, {"command": "mint", **asked})
    return {"changed": True, **{key: made[key] for key in ("id", "secret", "until")}}


def revoke(places: Places, this: str, reason: str, check: bool) -> dict[str, t.Any]:
    """Revoke a token that lives; return what the module returns."""
    living = {token["id"] for token in network.command(places, {"command": "tokens"})["tokens"]}
    if this in living and not check:
        network.command(places, {"command": "revoke", "id": this, "reason": reason})
    return {"changed": this in living, "id": this}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **arguments.PLACES,
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "id": {"type": "str"},
            "sandbox": {"type": "str"},
            "rule": {"type": "dict"},
            "seconds": {"type": "int", "default": 3600},
            "uses": {"type": "int"},
            "bytes": {"type": "int"},
            "reason": {"type": "str", "required": True},
        },
        required_if=[("state", "present", ["sandbox", "rule"]), ("state", "absent", ["id"])],
        supports_check_mode=True,
    )
    options = module.params
    with arguments.refusals(module):
        places = arguments.host(module).places
        if options["state"] == "absent":
            module.exit_json(**revoke(places, options["id"], options["reason"], module.check_mode))
        if module.check_mode:
            module.exit_json(changed=True)
        module.exit_json(**mint(places, options))


if __name__ == "__main__":
    main()
