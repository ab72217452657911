#!/usr/bin/python
# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tell what is on record."""

from __future__ import annotations

DOCUMENTATION = r"""
module: audit_log_info
short_description: Tell what is on record on a host, and whether the log is what was written
version_added: 0.1.0
description:
  - Lists records of the log, sealed segments included, and proves the whole log; or those of the journals that the callback
    P(dockersandbox.guardrails.jsonl#callback) keeps of playbook runs on a controller.
  - A log that does not prove is no failure of this module, whose records then show what is there; RV(problems) says where it breaks.
    M(dockersandbox.guardrails.guardrails_verify) fails.
author: DockerSandboxApp authors (@dockersandboxapp)
extends_documentation_fragment: dockersandbox.guardrails.places.reads
options:
  home:
    description: The home of the project on the host.
    type: path
    default: /opt/DockerSandboxApp
  sandbox:
    description: Only records of this sandbox.
    type: str
  run_id:
    description: Only records of this run, by its id.
    type: str
  since:
    description: Only records from this time on. A date, a date and time (in UTC unless it says otherwise), or an age such as V(90s), V(30m), V(2h), V(7d).
    type: str
  until:
    description: Only records before this time.
    type: str
  class:
    description: Only records of this class of OCSF, such as V(process_activity).
    type: str
  action:
    description: Only records of this action, such as V(run.start), or of all actions that begin with this word, such as V(run).
    type: str
  decision:
    description: Only records with this decision.
    type: str
    choices: [allow, deny]
  limit:
    description: The most records to return; the newest are.
    type: int
    default: 100
  journals:
    description: The folder of the callback's journals, on the machine that this runs on. They take the place of the host's log.
    type: path
  prove:
    description: Whether the log is proven. That reads all of it.
    type: bool
    default: true
"""

EXAMPLES = r"""
- name: What happened in the sandbox within the last day?
  dockersandbox.guardrails.audit_log_info:
    sandbox: default
    since: 1d
  register: records

- name: Every run that was denied
  dockersandbox.guardrails.audit_log_info:
    action: run
    decision: deny
    prove: false

- name: What did playbooks of this controller fail on?
  dockersandbox.guardrails.audit_log_info:
    journals: ~/.local/state/dockersandbox/runs
    action: task.end
  delegate_to: localhost
"""

RETURN = r"""
records:
  description: The records, oldest first, as they stand in the log.
  returned: success
  type: list
  elements: dict
  sample:
    - action: run.end
      class: process_activity
      outcome: success
      sandbox: default
      seq: 42
      time: "2026-11-24T10:00:00.000000Z"
      trace_id: 20261124T100000Z-0ae8
lines:
  description: The same for people, a line each.
  returned: success
  type: list
  elements: str
proven:
  description: Whether the log is what was written.
  returned: with O(prove)
  type: bool
counts:
  description: How many records and sealed segments were proven, how many segments were removed, and by how many shipped heads; or how many journals.
  returned: with O(prove)
  type: dict
  sample: {heads: 0, records: 1042, removed: 0, segments: 3}
problems:
  description: Where the log breaks and how, the first break first.
  returned: with O(prove)
  type: list
  elements: str
"""

import time
import typing as t
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import arguments, audit, journal, places

FILTERS = ("sandbox", "run_id", "since", "until", "class", "action")


def kept(folder: Path) -> t.Iterator[bytes]:
    """Yield the lines of all journals in *folder*, oldest first."""
    for path in journal.journals(folder):
        with path.open("rb") as file:
            yield from file


def proven(folder: Path) -> tuple[dict[str, int], list[str]]:
    """Return how many journals there are in *folder*, and what is wrong with them."""
    paths = journal.journals(folder)
    public = journal.public_key(folder)
    return {"journals": len(paths)}, [problem for path in paths for problem in journal.verify(path, public)]


def log(host: places.Places) -> tuple[dict[str, int], list[str]]:
    """Return the counts of the log's proof, and what is wrong with it."""
    report = audit.proof(host)
    if report is None:
        return {}, []
    counts = {name: getattr(report, name) for name in ("records", "segments", "removed", "heads")}
    return counts, [str(problem) for problem in report.problems]


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "home": arguments.PLACES["home"],
            **{name: {"type": "str"} for name in FILTERS},
            "decision": {"type": "str", "choices": ["allow", "deny"]},
            "limit": {"type": "int", "default": audit.LIMIT},
            "journals": {"type": "path"},
            "prove": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    options = module.params
    host = places.Places(options["home"])
    folder = options["journals"] and Path(options["journals"])
    with arguments.refusals(module):
        since, until = (None if options[name] is None else audit.moment(options[name], time.time()) for name in ("since", "until"))
        if options["limit"] < 1:
            raise ValueError("limit: is less than 1")
        wanted = audit.Wanted(options["sandbox"], options["run_id"], since, until, options["class"], options["action"], options["decision"])
        records = audit.newest(kept(folder) if folder else audit.lines(Path(host.logs)), wanted, options["limit"])
        result = {"records": records, "lines": [audit.line(record) for record in records]}
        if options["prove"]:
            counts, problems = proven(folder) if folder else log(host)
            result |= {"proven": not problems, "problems": problems, "counts": counts}
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
