#!/usr/bin/python
# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check that the log can be kept as configured."""

from __future__ import annotations

DOCUMENTATION = r"""
module: logging_preflight
short_description: Check that the log can be kept as configured, before anything changes
version_added: 0.1.0
description:
  - Checks every redaction rule, among them that no expression can take very long by its form, and every target that
    heads of the log are shipped to. All problems come at once, a line each.
author: DockerSandboxApp authors (@dockersandboxapp)
extends_documentation_fragment:
  - dockersandbox.guardrails.places
  - dockersandbox.guardrails.places.reads
options:
  redaction:
    description: The rules, as C(configs/logging.yml) has them.
    type: dict
    required: true
  ship_to:
    description: The targets, as C(configs/logging.yml) has them.
    type: list
    elements: raw
    default: []
"""

EXAMPLES = r"""
- name: The log can be kept
  dockersandbox.guardrails.logging_preflight:
    redaction:
      logging_rules:
        - id: example-token
          regex: 'extok_[a-z0-9]{32}'
          keywords: [extok_]
    ship_to:
      - folder: /mnt/heads
"""

RETURN = r"""
rules:
  description: The ids of the rules that are switched on.
  returned: success
  type: list
  elements: str
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import arguments, redaction, shipper


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **arguments.PLACES,
            "redaction": {"type": "dict", "required": True},
            "ship_to": {"type": "list", "elements": "raw", "default": []},
        },
        supports_check_mode=True,
    )
    options: dict[str, t.Any] = module.params
    host = arguments.host(module)
    problems: list[str] = []
    rules: list[redaction.Rule] = []
    try:
        # The controller has tried them; here only what they are is looked at, which no load can disturb.
        rules = redaction.rules_of(options["redaction"], trial=False)
    except redaction.RedactionError as error:
        problems += error.problems
    with arguments.refusals(module):
        try:
            problems += shipper.problems(shipper.targets(options["ship_to"]), host.places)
        except ValueError as error:
            problems.append(str(error))
    if problems:
        module.fail_json(msg="\n".join(problems), problems=problems)
    module.exit_json(changed=False, rules=[rule.id for rule in rules])


if __name__ == "__main__":
    main()
