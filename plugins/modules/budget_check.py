#!/usr/bin/python
# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fail when a budget is over."""

from __future__ import annotations

DOCUMENTATION = r"""
module: budget_check
short_description: Fail when spend is over a budget of LLM calls, or will be
version_added: 0.1.0
description:
  - Fails with all budgets that are over. What is spent and held is more than there is, or nothing is left of a hard budget.
  - With O(projected) also those of which more will be spent by the end of their window, if it goes on as it did since its start. Of a
    window that has just begun a tenth counts as gone. Budgets that hold for ever are not projected.
  - Without an answer of the gateway it fails too. It reads only, and does the same in check mode.
author: DockerSandboxApp authors (@dockersandboxapp)
extends_documentation_fragment:
  - dockersandbox.guardrails.places.reads
options:
  names:
    description: The budgets that are looked at. All of them when it is empty.
    type: list
    elements: str
    default: []
  projected:
    description: Whether what will be spent counts too.
    type: bool
    default: true
  run:
    description: The folder of sockets.
    type: path
    default: /run/dockersandbox
"""

EXAMPLES = r"""
- name: Nothing starts on a day that will go over
  dockersandbox.guardrails.budget_check:
    names: [day]
"""

RETURN = r"""
over:
  description: The budgets that are over, a line each.
  returned: always
  type: list
  elements: str
standing:
  description: Where each budget that was looked at stands, with what it will come to as C(projected), in micro-dollars.
  returned: always
  type: list
  elements: dict
"""

import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import arguments, llm, places


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "names": {"type": "list", "elements": "str", "default": []},
            "projected": {"type": "bool", "default": True},
            "run": {"type": "path", "default": places.RUN},
        },
        supports_check_mode=True,
    )
    options = module.params
    with arguments.refusals(module):
        known = llm.command(options["run"], "budgets")
        there = {budget["name"] for budget in known["budgets"]}
        if unknown := sorted(set(options["names"]) - there):
            raise ValueError(f"names: there is no budget {', '.join(unknown)}; there is {', '.join(sorted(there)) or 'none'}")
    now = int(time.time())
    rows = [{**row, "projected": llm.projected(row, now)} for row in known["standing"] if not options["names"] or row["name"] in options["names"]]
    over = llm.over(rows, now, options["projected"])
    if over:
        module.fail_json(msg="\n".join(over), over=over, standing=rows)
    module.exit_json(changed=False, over=over, standing=rows)


if __name__ == "__main__":
    main()
