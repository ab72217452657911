#!/usr/bin/python
# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Have secrets of this host taken out of whatever is recorded."""

from __future__ import annotations

DOCUMENTATION = r"""
module: known_secrets
short_description: Have secrets of this host taken out of whatever is recorded
version_added: 0.1.0
description:
  - Secrets that have no shape to know them by are looked for by keyed hashes. The host keeps these, and never the secrets.
  - A running recorder knows at once what changes.
author: DockerSandboxApp authors (@dockersandboxapp)
extends_documentation_fragment:
  - dockersandbox.guardrails.places.records
  - dockersandbox.guardrails.places.changes
options:
  group:
    description: Whose secrets they are. Those of other groups stay as they are.
    type: str
    required: true
  secrets:
    description:
      - Names, and the secret of each. A secret of the group that is not among them is no longer looked for.
      - Each has a run of at least 8 letters or digits.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: The database's password is never on record
  dockersandbox.guardrails.known_secrets:
    group: logging
    secrets:
      database: "{{ vault_database_password }}"
  no_log: true
"""

RETURN = r"""
actions:
  description: The names of the secrets that were learnt or unlearnt (in check mode, would be).
  returned: success
  type: list
  elements: str
  sample: ["Learnt logging/database anew, or no longer look for it"]
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import acts, arguments, known_secrets, places


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **acts.OPTIONS,
            "group": {"type": "str", "required": True},
            "secrets": {"type": "dict", "required": True, "no_log": True},
        },
        supports_check_mode=True,
    )
    host = acts.places_of(module.params)
    folder = Path(places.Places(host.home).log_key).parent
    values = {name: str(value) for name, value in module.params["secrets"].items()}
    with arguments.refusals(module):
        changed = known_secrets.differences(folder, module.params["group"], values)
        actions = [f"Learnt {name} anew, or no longer look for it" for name in changed]
        if changed and not module.check_mode:
            with acts.recorded(host, "secret.declare", "device_config_state_change", reason=acts.reasons(actions)):
                known_secrets.declare(folder, module.params["group"], values)
    module.exit_json(changed=bool(actions), actions=actions, diff={"before": "", "after": "".join(f"{action}\n" for action in actions)})


if __name__ == "__main__":
    main()
