#!/usr/bin/python
# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tell how a host stands."""

from __future__ import annotations

DOCUMENTATION = r"""
module: guardrails_info
short_description: Tell how a host stands
version_added: 0.1.0
description: Lists the phases and their gates, the services, the sandboxes, and what to do next, as data and as a table.
author: DockerSandboxApp authors (@dockersandboxapp)
extends_documentation_fragment:
  - dockersandbox.guardrails.places
  - dockersandbox.guardrails.places.reads
"""

EXAMPLES = r"""
- name: How does the host stand?
  dockersandbox.guardrails.guardrails_info:
  register: host
"""

RETURN = r"""
phases:
  description: The phases, each with its gate (sealed, broken or not sealed), since when, and why it is broken.
  returned: success
  type: list
  elements: dict
services:
  description: The services, each with its state, its uid and what it says of itself.
  returned: success
  type: list
  elements: dict
sandboxes:
  description: The sandboxes, each with its state, what it is busy with, the cap of its working set and its kind, its uid, originals and number of bundles.
  returned: success
  type: list
  elements: dict
next:
  description: What to do next, a line each.
  returned: success
  type: list
  elements: str
ok:
  description: Whether every phase is sealed, and every service and sandbox runs as described.
  returned: success
  type: bool
table:
  description: All of it as text.
  returned: success
  type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import arguments, status


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=dict(arguments.PLACES), supports_check_mode=True)
    with arguments.refusals(module):
        known = status.gather(arguments.host(module))
    module.exit_json(changed=False, table=status.table(known), **known)


if __name__ == "__main__":
    main()
