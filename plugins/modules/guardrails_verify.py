#!/usr/bin/python
# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Prove that nothing on a host was tampered with."""

from __future__ import annotations

DOCUMENTATION = r"""
module: guardrails_verify
short_description: Prove that nothing on a host was tampered with
version_added: 0.1.0
description:
  - Checks every gate, lock, baseline, bundle and snapshot of the host, proves its log from the first record to the last, and reads
    every byte of the originals.
  - Fails with everything that differs, a line each. Changes nothing.
author: DockerSandboxApp authors (@dockersandboxapp)
extends_documentation_fragment:
  - dockersandbox.guardrails.places
  - dockersandbox.guardrails.places.reads
options:
  heads:
    description:
      - Files, on the host, of heads of the log that were kept off it, such as what a syslog server has written. A log that was
        written anew, or cut, by whoever has the log's key is found by these alone.
      - Heads that are shipped to a folder of the host are checked anyway.
    type: list
    elements: path
    default: []
"""

EXAMPLES = r"""
- name: Nothing was tampered with
  dockersandbox.guardrails.guardrails_verify:

- name: Nor was the log written anew by somebody who has become root
  dockersandbox.guardrails.guardrails_verify:
    heads: [/root/heads-of-the-syslog-server.jsonl]
"""

RETURN = r"""
counts:
  description: How many gates, locks, baselines, bundles, snapshots and records of the log were verified.
  returned: success
  type: dict
  sample: {gates: 5, locks: 21, baselines: 1, bundles: 4, snapshots: 9, records: 1042}
table:
  description: The same as text.
  returned: success
  type: str
"""

import pathlib

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import arguments, status


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec={**arguments.PLACES, "heads": {"type": "list", "elements": "path", "default": []}}, supports_check_mode=True)
    with arguments.refusals(module):
        verified = status.verify(arguments.host(module), heads=[pathlib.Path(path) for path in module.params["heads"]])
        if verified.problems:
            module.fail_json(msg="\n".join(verified.problems), problems=verified.problems, counts=verified.counts)
    rows = [(word, str(count)) for word, count in verified.counts.items()]
    module.exit_json(changed=False, counts=verified.counts, table=status.columns(("What", "Verified"), rows))


if __name__ == "__main__":
    main()
