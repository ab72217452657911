#!/usr/bin/python
# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Prove that the recorder does what it is for."""

from __future__ import annotations

DOCUMENTATION = r"""
module: logging_verify
short_description: Prove that the recorder redacts, chains and seals
version_added: 0.1.0
description:
  - Records an event with made-up secrets, and looks at the log for what became of it. The secrets must be gone, the record must
    follow the one before it, a signed head must cover it, and in a copy of the live file one flipped bit must be found.
  - The whole of the log is verified by C(playbooks/verify.yml).
author: DockerSandboxApp authors (@dockersandboxapp)
extends_documentation_fragment:
  - dockersandbox.guardrails.places
  - dockersandbox.guardrails.places.reads
"""

EXAMPLES = r"""
- name: The recorder does what it is for
  dockersandbox.guardrails.logging_verify:
"""

RETURN = r"""
chain_uid:
  description: The id of the log's chain.
  returned: success
  type: str
seq:
  description: The number of the event's record.
  returned: success
  type: int
head:
  description: The number of the record as far as which the log is covered by a head.
  returned: success
  type: int
rules:
  description: The rules that took the secrets out.
  returned: success
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import arguments, chain, log_proof


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=dict(arguments.PLACES), supports_check_mode=True)
    with arguments.refusals(module):
        try:
            proof = log_proof.prove(arguments.host(module).places)
        except (chain.ChainError, log_proof.ProofError) as error:
            module.fail_json(msg=str(error))
    module.exit_json(changed=False, **proof._asdict())


if __name__ == "__main__":
    main()
