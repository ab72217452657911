#!/usr/bin/python
# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tell whether a host is fit for sandboxes."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_preflight
short_description: Check that a host can run sandboxes, and name every unmet need at once
version_added: 0.1.0
description:
  - Looks at the operating system, kernel, cgroups, overlayfs, idmapped mounts, seccomp, free disk, user, Python, and at
    a Docker engine if there is one.
  - Fails when anything is missing, with one line for each need that says what was found and what to do.
  - Mounts are tried for real, in a mount namespace that nobody else sees. Nothing on the host is changed.
author: DockerSandboxApp authors (@dockersandboxapp)
extends_documentation_fragment: dockersandbox.guardrails.places.reads
options:
  data:
    description: The folder for the sandboxes' data. It need not exist.
    type: path
    required: true
  allow_untested_os:
    description: Whether a system other than Debian 12 or 13 is accepted.
    type: bool
    default: false
  manage_engine:
    description: Whether the role may configure and start a Docker engine that it has not installed.
    type: bool
    default: false
  min_free_disk:
    description: The free space that the data folder and Docker's own must have, such as V(2g), or a number of bytes.
    type: str
    default: 2g
  gvisor:
    description: Whether a sandbox runs under gVisor, so that the engine needs a runtime for it.
    type: bool
    default: false
  engine_wait:
    description: How many seconds an engine that is being started may take to answer. Above V(0), there must be one.
    type: int
    default: 0
"""

EXAMPLES = r"""
- name: The host is fit
  dockersandbox.guardrails.host_preflight:
    data: /var/lib/dockersandbox

- name: The engine answers
  dockersandbox.guardrails.host_preflight:
    data: /var/lib/dockersandbox
    engine_wait: 60
"""

RETURN = r"""
needs:
  description: The unmet needs, a line each.
  returned: always
  type: list
  elements: str
  sample: ["user: the play runs as uid 1000 on this host, it needs root; set ansible_become: true"]
system:
  description: The operating system.
  returned: success
  type: dict
  contains:
    id:
      description: The C(ID) of C(/etc/os-release).
      type: str
      returned: always
    version:
      description: Its C(VERSION_ID).
      type: str
      returned: always
  sample: {id: debian, version: "12"}
service_manager:
  description: What starts services on this host, V(systemd) or V(none).
  returned: success
  type: str
  sample: systemd
engine:
  description: The Docker engine.
  returned: success
  type: dict
  contains:
    installed:
      description: Whether there is one.
      type: bool
      returned: always
    answers:
      description: Whether it answers.
      type: bool
      returned: always
    version:
      description: Its version, empty when it does not answer.
      type: str
      returned: always
    live_restore:
      description: Whether containers go on when it ends.
      type: bool
      returned: always
    configured:
      description: Whether it works with what its configuration should hold.
      type: bool
      returned: always
    supervised:
      description: Whether the supervisor of a host without service manager watches over it.
      type: bool
      returned: always
    packaged:
      description: Whether it is, or will be, the distribution's package.
      type: bool
      returned: always
    managed:
      description: Whether the role may configure and start it.
      type: bool
      returned: always
    adopt:
      description: Whether a configuration that the role has not written yet must be changed.
      type: bool
      returned: always
    config:
      description: The text that its configuration file should have.
      type: str
      returned: always
  sample:
    installed: true
    answers: true
    version: 20.10.24+dfsg1
    live_restore: true
    configured: true
    supervised: false
    packaged: true
    managed: false
    adopt: false
    config: "{}"
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import host
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.spec import size


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "data": {"type": "path", "required": True},
            "allow_untested_os": {"type": "bool", "default": False},
            "manage_engine": {"type": "bool", "default": False},
            "min_free_disk": {"type": "str", "default": "2g"},
            "gvisor": {"type": "bool", "default": False},
            "engine_wait": {"type": "int", "default": 0},
        },
        supports_check_mode=True,
    )
    options = module.params
    try:
        least = size(options["min_free_disk"])
    except ValueError as error:
        module.fail_json(msg=f"bootstrap_min_free_disk: {error}", needs=[])
    wishes = host.Wishes(options["allow_untested_os"], options["manage_engine"], least, options["engine_wait"] > 0, options["gvisor"])
    facts = host.gather(options["data"], wishes, options["engine_wait"])
    needs = host.unmet(facts, wishes)
    if needs:
        lines = "".join(f"\n- {need}" for need in needs)
        module.fail_json(msg=f"This host is not fit for sandboxes:{lines}", needs=needs)
    engine = facts.engine
    module.exit_json(
        needs=[],
        system={"id": facts.system, "version": facts.version},
        service_manager=facts.service_manager,
        engine={
            "installed": engine is not None,
            "answers": engine is not None and engine.error is None,
            "version": engine.version if engine else "",
            "live_restore": engine is not None and engine.live_restore,
            "configured": engine is not None and host.configured(engine, wishes),
            "supervised": host.supervised(),
            "packaged": facts.packaged,
            "managed": facts.managed,
            "adopt": facts.managed and host.adopts_config(wishes.gvisor),
            "config": host.wanted_config(wishes.gvisor),
        },
    )


if __name__ == "__main__":
    main()
