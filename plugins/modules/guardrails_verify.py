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
  - Checks every gate, lock, baseline and bundle of the host, and reads every byte of the originals.
  - Fails with everything that differs, a line each. Changes nothing.
author: DockerSandboxApp authors (@dockersandboxapp)
extends_documentation_fragment:
  - dockersandbox.guardrails.places
  - dockersandbox.guardrails.places.reads
"""

EXAMPLES = r"""
- name: Nothing was tampered with
  dockersandbox.guardrails.guardrails_verify:
"""

RETURN = r"""
counts:
  description: How many gates, locks, baselines and bundles were verified.
  returned: success
  type: dict
  sample: {gates: 3, locks: 21, baselines: 1, bundles: 4}
table:
  description: The same as text.
  returned: success
  type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import arguments, status


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=dict(arguments.PLACES), supports_check_mode=True)
    with arguments.refusals(module):
        verified = status.verify(arguments.host(module))
        if verified.problems:
            module.fail_json(msg="\n".join(verified.problems), problems=verified.problems, counts=verified.counts)
    rows = [(word, str(count)) for word, count in verified.counts.items()]
    module.exit_json(changed=False, counts=verified.counts, table=status.columns(("What", "Verified"), rows))


if __name__ == "__main__":
    main()
