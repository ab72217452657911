#!/usr/bin/python
# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Let sandboxes reach the gateway of LLM calls."""

from __future__ import annotations

DOCUMENTATION = r"""
module: llm_access
short_description: Let sandboxes reach the gateway of LLM calls
version_added: 0.1.0
description:
  - Writes the part of the stack of phase C(cost). Each sandbox that has a token gets the socket on which the gateway hears it alone,
    127.0.0.1:4000 that leads there, and the variables by which agents find it, its token among them.
  - Sandboxes that differ are made anew. One that somebody works in is not, and the module fails.
author: DockerSandboxApp authors (@dockersandboxapp)
extends_documentation_fragment:
  - dockersandbox.guardrails.places
  - dockersandbox.guardrails.places.changes
options:
  sandboxes:
    description: The names of the declared sandboxes; M(dockersandbox.guardrails.llm_secrets) has made their tokens.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: The sandbox default reaches its models
  dockersandbox.guardrails.llm_access:
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
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import arguments, llm_access, stack


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={**arguments.PLACES, "sandboxes": {"type": "list", "elements": "str", "required": True}},
        supports_check_mode=True,
    )
    with arguments.refusals(module):
        host = arguments.host(module)
        known = llm_access.read_tokens(host.places)
        missing = sorted(set(module.params["sandboxes"]) - set(known))
        if missing and not module.check_mode:
            raise llm_access.AccessError(f"sandboxes: {', '.join(missing)}: has no token: run site.yml --tags cost")
        tokens = llm_access.tokens_of(module.params["sandboxes"], known)
        done = host.converge(llm_access.PHASE, llm_access.part(host.places, tokens), module.check_mode)
    module.exit_json(
        changed=bool(done.actions),
        actions=done.actions,
        written=done.written,
        compose=stack.compose(done.stack, "./seccomp.json"),
        diff={"before": done.before, "after": done.after},
    )


if __name__ == "__main__":
    main()
