#!/usr/bin/python
# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Declare budgets."""

from __future__ import annotations

DOCUMENTATION = r"""
module: budget
short_description: Declare what LLM calls may cost
version_added: 0.1.0
description:
  - Declares budgets to the gateway C(llm), which holds every call to all that apply to it. It goes on record, with its reason.
  - What was spent stays spent, whatever is declared anew.
author: DockerSandboxApp authors (@dockersandboxapp)
extends_documentation_fragment:
  - dockersandbox.guardrails.places.changes
options:
  budgets:
    description:
      - The budgets, each a mapping. It has a C(name), a C(scope) and a C(limit) in dollars, of which a millionth is the least.
      - C(scope) is C(run), C(sandbox), C(team), C(model), C(host) or C(total).
      - C(subject) is the name of one of its kind, or C(*) (the default) for each one apart.
      - C(window) is C(hour), C(day) (the default), C(month) or C(ever) (the default of runs), in the time zone C(zone), C(UTC) if not given.
      - C(mode) is C(hard) (the default), which refuses calls, or C(soft), which tells of them.
    type: list
    elements: raw
    required: true
  exclusive:
    description: Whether all other budgets are removed.
    type: bool
    default: false
  reason:
    description: Why. It goes on record.
    type: str
    default: declared by a playbook
  run:
    description: The folder of sockets.
    type: path
    default: /run/dockersandbox
"""

EXAMPLES = r"""
- name: At most 5 dollars a run and 50 a day, and to be told from 500 a month
  dockersandbox.guardrails.budget:
    exclusive: true
    budgets:
      - {name: each-run, scope: run, limit: 5}
      - {name: day, scope: total, limit: 50, zone: Europe/Berlin}
      - {name: month, scope: total, limit: 500, window: month, mode: soft}
"""

RETURN = r"""
actions:
  description: What was done (in check mode, what would be) and why.
  returned: success
  type: list
  elements: str
  sample: ["Declared budget each-run: it was not there"]
budgets:
  description: All budgets that there are now (in check mode, that there would be), whole.
  returned: success
  type: list
  elements: dict
"""

import json
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import arguments, budgets, llm, places, recorder

_PREDICTS = 1.0  # seconds for an answer that may not come


def declared(run: str, check: bool) -> list[dict[str, t.Any]]:
    """Return the budgets that there are: in check mode none where no gateway answers that an earlier task would have started."""
    try:
        found: list[dict[str, t.Any]] = llm.command(run, "budgets", _PREDICTS if check else recorder.PATIENCE)["budgets"]
    except recorder.RecorderError:
        if not check:
            raise
        return []
    return found


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "budgets": {"type": "list", "elements": "raw", "required": True},
            "exclusive": {"type": "bool", "default": False},
            "reason": {"type": "str", "default": "declared by a playbook"},
            "run": {"type": "path", "default": places.RUN},
        },
        supports_check_mode=True,
    )
    options = module.params
    with arguments.refusals(module):
        wanted = budgets.parse(options["budgets"])
        before = declared(options["run"], module.check_mode)
        actions = llm.changes(before, wanted, options["exclusive"])
        kept = [] if options["exclusive"] else before
        after = {budget["name"]: budget for budget in (*kept, *(budget.declared() for budget in wanted))}
        there = [after[name] for name in sorted(after)]
        if actions and not module.check_mode:
            given = [budget.declared() for budget in wanted]
            llm.command(options["run"], "declare", budgets=given, exclusive=options["exclusive"], reason=options["reason"])
    module.exit_json(
        changed=bool(actions),
        actions=actions,
        budgets=there,
        diff={"before": _text(before), "after": _text(there) if actions else _text(before)},
    )


def _text(found: list[dict[str, t.Any]]) -> str:
    return "".join(json.dumps(budget, sort_keys=True) + "\n" for budget in found)


if __name__ == "__main__":
    main()
