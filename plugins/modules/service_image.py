# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Build the image that services run from."""

from __future__ import annotations

DOCUMENTATION = r"""
module: service_image
short_description: Build the image that all services run from
version_added: 0.1.0
description:
  - Debian's Python, the packages of C(src/requirements.txt) at their pinned hashes, the core of the collection under its full
    name, and the services; all from the locked files in the home, so that nothing that somebody else put there gets in.
  - The tag is made from what the image holds, so that what is there already is not built again. No setting of the host's
    registries is in it, nor in the image.
author: DockerSandboxApp authors (@dockersandboxapp)
extends_documentation_fragment:
  - dockersandbox.guardrails.places.records
  - dockersandbox.guardrails.places.changes
options:
  base:
    description: What M(dockersandbox.guardrails.sandbox_image) was given as O(base).
    type: str
    default: debian
  serial:
    description: A number that is raised to have all packages renewed.
    type: int
    default: 1
  rewritten:
    description: The files that earlier tasks would have written anew. Ignored outside check mode.
    type: list
    elements: path
    default: []
"""

EXAMPLES = r"""
- name: The image of the services
  dockersandbox.guardrails.service_image:
  register: __example_image
"""

RETURN = r"""
image:
  description: The image by its id; by its tag in check mode when it is not there yet.
  returned: success
  type: str
  sample: "sha256:0f1e…"
dockerfiles:
  description: The text of each of the two Dockerfiles; in check mode without those that cannot be told yet.
  returned: success
  type: dict
actions:
  description: What was built (in check mode, what would be) and why.
  returned: success
  type: list
  elements: str
  sample: ["Built dockersandbox/services:8cb664b71f57: it was not there"]
"""

import os
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import acts, arguments, images, service_images
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.docker_api import Docker

UNKNOWN = f"{images.REPOSITORY}/{service_images.NAME}:not-known-yet"


def predicted(home: str, rewritten: t.Iterable[str]) -> bool:
    """Return whether the files that the image is made from are only predicted."""
    kept = (f"{home}/lib/", f"{home}/src/")
    return not os.path.exists(f"{home}/src/{service_images.REQUIREMENTS}") or any(path.startswith(kept) for path in rewritten)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **acts.OPTIONS,
            "base": {"type": "str", "default": "debian"},
            "serial": {"type": "int", "default": 1},
            "rewritten": {"type": "list", "elements": "path", "default": []},
        },
        supports_check_mode=True,
    )
    options = module.params
    docker = Docker()
    if module.check_mode and predicted(options["home"], options["rewritten"]):
        action = f"Built {UNKNOWN}: what it is made from is not there yet"
        module.exit_json(changed=True, image=UNKNOWN, dockerfiles={}, actions=[action], diff={"before": "", "after": f"{action}\n"})
    actions = []
    with arguments.refusals(module):
        base = images.base_tag(options["base"], options["serial"], images.host_suite())
        made = service_images.parts(base, options["serial"], service_images.sources(options["home"]))
        reachable = os.path.exists(docker.path) or not module.check_mode
        image = made[service_images.NAME].tag
        if not (known := reachable and docker.image(image)):
            for part in made.values():
                if reachable and docker.image(part.tag):
                    continue
                actions.append(f"Built {part.tag}: it was not there")
                if not module.check_mode:
                    with acts.recorded(acts.places_of(options), "image.build", "application_lifecycle", resource=part.tag):
                        images.ensure_base(docker, options["base"], base, images.host_suite())
                        service_images.build(docker, part)
            known = {} if module.check_mode else docker.image(image)
        image = (known or {}).get("Id", image)
    module.exit_json(
        changed=bool(actions),
        actions=actions,
        image=image,
        dockerfiles={name: part.dockerfile for name, part in made.items()},
        diff={"before": "", "after": "".join(f"{action}\n" for action in actions)},
    )


if __name__ == "__main__":
    main()
