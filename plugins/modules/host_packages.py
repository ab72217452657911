#!/usr/bin/python
# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Install Debian packages, also where there is no service manager and no python3-apt."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_packages
short_description: Install packages of a Debian host that are missing
version_added: 0.1.0
description:
  - Asks dpkg first, and asks the package mirrors only when something is missing. Needs nothing but C(dpkg) and
    C(apt-get), so that it predicts on a bare host as well.
  - On a host without systemd the packages' services are not started, and their failure to start fails nothing.
  - An installation that was interrupted is completed.
author: DockerSandboxApp authors (@dockersandboxapp)
extends_documentation_fragment: dockersandbox.guardrails.places.records
attributes:
  check_mode:
    support: full
    description: Says what would be installed, and changes nothing.
  diff_mode:
    support: none
    description: The names are in RV(actions).
  platform:
    support: full
    platforms: debian
    description: The systems on which this works.
options:
  names:
    description: The packages, without versions.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: What the host needs
  dockersandbox.guardrails.host_packages:
    names: [docker.io, mmdebstrap, python3-cryptography]
"""

RETURN = r"""
actions:
  description: What was done (in check mode, what would be) and why.
  returned: success
  type: list
  elements: str
  sample: ["Installed mmdebstrap: it was missing"]
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import acts, packages, recorder


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={**acts.OPTIONS, "names": {"type": "list", "elements": "str", "required": True}},
        supports_check_mode=True,
    )
    try:
        missing = packages.missing(module.params["names"])
        actions = [f"Installed {name}: it was missing" for name in missing]
        if packages.leftover():
            actions.append(f"Removed {packages.POLICY}: an interrupted installation left it")
        if actions and not module.check_mode:
            with acts.recorded(acts.places_of(module.params), "package.install", "application_lifecycle", reason=acts.reasons(actions)):
                if missing:
                    packages.install(missing, supervised=Path("/run/systemd/system").is_dir())
                packages.lift_ban()
    except (packages.PackageError, recorder.RecorderError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=bool(actions), actions=actions)


if __name__ == "__main__":
    main()
