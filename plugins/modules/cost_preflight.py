#!/usr/bin/python
# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module cost_preflight: thin, over the core in module_utils."""

from __future__ import annotations

DOCUMENTATION = r"""
module: cost_preflight
short_description: Check that the gateway of LLM calls can get to its providers
description:
  - Refuses a URL that the gateway cannot reach from its own network, and a name where there is nobody to ask for its addresses.
  - Changes nothing.
version_added: 0.1.0
author: DockerSandboxApp authors (@dockersandboxapp)
attributes:
  check_mode: {support: full, description: Makes no difference.}
  diff_mode: {support: none, description: There is nothing to show.}
  platform: {support: full, platforms: posix, description: Debian.}
extends_documentation_fragment:
  - dockersandbox.guardrails.places
options:
  upstreams:
    description: Where calls in the protocols of C(anthropic) and C(openai) go, each with C(url).
    type: dict
    required: true
  given:
    description: The families for which a key is given now.
    type: list
    elements: str
    choices: [anthropic, openai]
    default: []
  removed:
    description: The families whose keys are removed.
    type: list
    elements: str
    choices: [anthropic, openai]
    default: []
  resolvers:
    description: The resolvers to ask, as IPv4 addresses; those of this machine when there is none.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Providers can be reached
  dockersandbox.guardrails.cost_preflight:
    upstreams:
      anthropic: {url: "https://api.anthropic.com"}
      openai: {url: "https://api.openai.com"}
"""

RETURN = r"""
resolvers:
  description: The resolvers that the gateway is to ask.
  returned: success
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import arguments, llm_access, llm_ways, network


def main() -> None:
    """Run the module."""
    families = {"type": "list", "elements": "str", "choices": list(llm_ways.FAMILIES), "default": []}
    module = AnsibleModule(
        argument_spec={
            **arguments.PLACES,
            "upstreams": {"type": "dict", "required": True},
            "given": families,
            "removed": families,
            "resolvers": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    options = module.params
    with arguments.refusals(module):
        places = arguments.host(module).places
        kept = {family for family in llm_ways.FAMILIES if llm_access.key_path(places, family).exists()}
        resolvers = options["resolvers"] or network.machine_resolvers()
        llm_ways.check(options["upstreams"], {*kept, *options["given"]} - {*options["removed"]}, resolvers)
    module.exit_json(changed=False, resolvers=resolvers)


if __name__ == "__main__":
    main()
