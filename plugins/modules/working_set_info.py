#!/usr/bin/python
# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tell of the working sets of a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: working_set_info
short_description: Tell what each sandbox changed, and on which baseline
version_added: 0.1.0
description:
  - Lists, for each sandbox, the baseline its working set stands on and the paths that it changed.
  - Reads the upper layer of the overlay. Nothing of the working set is run or followed.
author: DockerSandboxApp authors (@dockersandboxapp)
extends_documentation_fragment:
  - dockersandbox.guardrails.places
  - dockersandbox.guardrails.places.reads
options:
  name:
    description: The sandbox to tell of. All when it is not given.
    type: str
  limit:
    description: How many changed paths to list for each sandbox at the most; the counts are always whole.
    type: int
    default: 1000
"""

EXAMPLES = r"""
- name: What did the agent change?
  dockersandbox.guardrails.working_set_info:
    name: default
  register: changes
"""

RETURN = r"""
working_sets:
  description: The working sets, by the name of their sandbox.
  returned: success
  type: dict
  sample:
    default:
      baseline: 5feceb66ffc86f38d952786c6d696c79c2dbc239dd4e91b46729d73a27fb57e9
      originals: /srv/data
      uid: 990000
      counts: {added: 1, changed: 0, removed: 0}
      changes: [{path: notes.txt, change: added, type: file}]
      busy: null
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import arguments, canonical, changes, sandboxes
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.sandboxes import Host


def told(host: Host, name: str, description: dict[str, t.Any], limit: int) -> dict[str, t.Any] | None:
    """Return what there is to tell of one sandbox; None when it has no working set."""
    working_set = host.working_set(name, description)
    known = working_set.baseline() if working_set else None
    if working_set is None or known is None:
        return None
    found = changes.read(working_set.upper, working_set.lower)
    return {
        "baseline": known[0],
        "originals": working_set.originals,
        "uid": working_set.uid,
        "counts": changes.counts(found),
        "changes": [
            {
                "path": canonical.printable(change.path),
                "change": change.word,
                "type": (change.new or change.old).type,  # type: ignore[union-attr]
            }
            for change in found[:limit]
        ],
        "busy": sandboxes.holder(host.places, name),
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={**arguments.PLACES, "name": {"type": "str"}, "limit": {"type": "int", "default": 1000}},
        supports_check_mode=True,
    )
    host = arguments.host(module)
    with arguments.refusals(module):
        stack = sandboxes.read_stack(host.places)
        only = module.params["name"]
        if only is not None and only not in stack:
            raise sandboxes.SandboxError(f"{only}: is not a sandbox of this host: there is {', '.join(stack) or 'none'}")
        found = {
            name: told(host, name, description, module.params["limit"])
            for name, description in stack.items()
            if only in (None, name)
        }
    module.exit_json(changed=False, working_sets={name: about for name, about in found.items() if about})


if __name__ == "__main__":
    main()
