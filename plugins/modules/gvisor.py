#!/usr/bin/python
# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Install gVisor on a Debian host, from a release that has a usable one."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gvisor
short_description: Install gVisor's package, on Debian 12 from Debian 13
version_added: 0.1.0
description:
  - Installs C(runsc). The one of Debian 12 does not work on kernels of today, so there it is taken from Debian 13 on the
    same mirrors, which apt itself names. A locked file of sources and one of pins see to it that nothing else comes from there.
  - When the package cannot be had, the module fails and apt's sources are as they were.
author: DockerSandboxApp authors (@dockersandboxapp)
extends_documentation_fragment: dockersandbox.guardrails.places.records
attributes:
  check_mode:
    support: full
    description: Says what would be done, and changes nothing.
  diff_mode:
    support: none
    description: What is done is in RV(actions).
  platform:
    support: full
    platforms: debian
    description: The systems on which this works.
"""

EXAMPLES = r"""
- name: The package of gVisor
  dockersandbox.guardrails.gvisor:
"""

RETURN = r"""
actions:
  description: What was done (in check mode, what would be) and why.
  returned: success
  type: list
  elements: str
  sample: ["Installed runsc from trixie: it was missing"]
written:
  description: The files that changed.
  returned: success
  type: list
  elements: str
  sample: [/etc/apt/preferences.d/dockersandbox-gvisor]
files:
  description: The files by which apt takes the package from another release; none where the system's own has it.
  returned: success
  type: list
  elements: str
  sample: [/etc/apt/sources.list.d/dockersandbox-gvisor.list, /etc/apt/preferences.d/dockersandbox-gvisor]
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import acts, arguments, gvisor
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.packages import PackageError


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=dict(acts.OPTIONS), supports_check_mode=True)
    with arguments.refusals(module):
        try:
            supervised = Path("/run/systemd/system").is_dir()
            done = gvisor.install(supervised, check=True)
            if done.actions and not module.check_mode:
                with acts.recorded(acts.places_of(module.params), "package.install", "application_lifecycle", reason=acts.reasons(done.actions)):
                    done = gvisor.install(supervised, check=False)
        except PackageError as error:
            module.fail_json(msg=f"gVisor, which a sandbox asks for, cannot be installed: {error}")
    module.exit_json(changed=bool(done.actions), **done._asdict())


if __name__ == "__main__":
    main()
