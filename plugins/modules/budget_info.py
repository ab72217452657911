#!/usr/bin/python
# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tell where budgets stand and what was spent."""

from __future__ import annotations

DOCUMENTATION = r"""
module: budget_info
short_description: Tell where the budgets of LLM calls stand, and what was spent by whom
version_added: 0.1.0
description: Asks the gateway C(llm). Amounts are whole micro-dollars; the table has dollars.
author: DockerSandboxApp authors (@dockersandboxapp)
extends_documentation_fragment:
  - dockersandbox.guardrails.places.reads
options:
  days:
    description: For how many days back what was spent is told, today included, to the quarter of an hour.
    type: int
    default: 30
  run:
    description: The folder of sockets.
    type: path
    default: /run/dockersandbox
"""

EXAMPLES = r"""
- name: What was spent this week?
  dockersandbox.guardrails.budget_info:
    days: 7
  register: spend

- name: Show it
  ansible.builtin.debug:
    msg: "{{ spend.table }}"
"""

RETURN = r"""
budgets:
  description: The budgets, whole, as they were declared.
  returned: success
  type: list
  elements: dict
standing:
  description: Where each budget stands for each of its subjects, with C(limit), C(spent), C(held), C(left) and its window, C(since) and C(until).
  returned: success
  type: list
  elements: dict
spend:
  description: What was C(spent), what is C(held) and how many C(calls) there were, by C(run), C(sandbox), C(team), C(model), C(host) and C(total).
  returned: success
  type: dict
since:
  description: From when on, in seconds since 1970 UTC.
  returned: success
  type: int
simulated:
  description: The protocols whose calls go to the simulated provider, which no real money is spent at.
  returned: success
  type: list
  elements: str
table:
  description: All of it as text.
  returned: success
  type: str
"""

import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import arguments, llm, places


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={"days": {"type": "int", "default": 30}, "run": {"type": "path", "default": places.RUN}},
        supports_check_mode=True,
    )
    options = module.params
    with arguments.refusals(module):
        if options["days"] < 1:
            raise ValueError(f"days: {options['days']} is not a number of days above 0")
        since = max(0, int(time.time()) - 86400 * options["days"])
        known = llm.command(options["run"], "budgets")
        spend = llm.command(options["run"], "spend", since=since)["spend"]
        simulated = llm.simulated(llm.command(options["run"], "status"))
    table = llm.table(known["standing"], spend, since)
    if simulated:
        table = f"Simulated, no real money: {', '.join(simulated)}.\n\n{table}"
    module.exit_json(changed=False, since=since, spend=spend, simulated=simulated, table=table, **known)


if __name__ == "__main__":
    main()
