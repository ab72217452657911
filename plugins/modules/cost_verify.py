#!/usr/bin/python
# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Prove that the gateway of LLM calls does what it is for."""

from __future__ import annotations

DOCUMENTATION = r"""
module: cost_verify
short_description: Prove that LLM calls are let in, refused and charged as they must be
version_added: 0.1.0
description:
  - Asks on each sandbox's own socket. A token that is not its own must be refused, and so must a path that is not served.
  - Where the provider is simulated, one call is made, and what the provider charges for it must be what the ledger has. Where it is real
    none is made. A budget that is spent refuses it, which is no failure.
author: DockerSandboxApp authors (@dockersandboxapp)
extends_documentation_fragment:
  - dockersandbox.guardrails.places
  - dockersandbox.guardrails.places.reads
options:
  sandboxes:
    description: The names of the declared sandboxes.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: The gateway does what it is for
  dockersandbox.guardrails.cost_verify:
    sandboxes: [default]
"""

RETURN = r"""
sandboxes:
  description: How many sandboxes are heard.
  returned: success
  type: int
simulated:
  description: The families of protocols whose provider is simulated.
  returned: success
  type: list
  elements: str
outcome:
  description: How a call fared, C(charged), C(refused) or C(not made).
  returned: success
  type: str
micro_dollars:
  description: What it was charged.
  returned: success
  type: int
reason:
  description: Why it was refused.
  returned: success
  type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import arguments, llm_proof


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={**arguments.PLACES, "sandboxes": {"type": "list", "elements": "str", "required": True}},
        supports_check_mode=True,
    )
    with arguments.refusals(module):
        try:
            proof = llm_proof.prove(arguments.host(module).places, module.params["sandboxes"])
        except llm_proof.ProofError as error:
            module.fail_json(msg=str(error))
    module.exit_json(changed=False, **proof._asdict())


if __name__ == "__main__":
    main()
