#!/usr/bin/python
# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Build the images that sandboxes run from."""

from __future__ import annotations

DOCUMENTATION = r"""
module: sandbox_image
short_description: Build the base image and an image for each package preset
version_added: 0.1.0
description:
  - The base comes from the host's own apt sources by C(mmdebstrap), or from a registry by digest.
  - An image's tag is made from its recipe, so that what is there already is not built again.
author: DockerSandboxApp authors (@dockersandboxapp)
extends_documentation_fragment: dockersandbox.guardrails.places.changes
options:
  base:
    description: V(debian) for the host's own release from its own apt sources, or an image C(registry/name@sha256:…).
    type: str
    default: debian
  serial:
    description: A number that is raised to have all packages renewed.
    type: int
    default: 1
  presets:
    description: The presets to build, each with its Debian packages.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: The image of the generic preset
  dockersandbox.guardrails.sandbox_image:
    presets:
      generic:
        packages: [python3, ripgrep]
"""

RETURN = r"""
images:
  description: The image of each preset, by its id; by its tag in check mode when it is not there yet.
  returned: success
  type: dict
  sample: {generic: "sha256:0f1e…"}
dockerfiles:
  description: The text of each preset's Dockerfile.
  returned: success
  type: dict
actions:
  description: What was built (in check mode, what would be) and why.
  returned: success
  type: list
  elements: str
  sample: ["Built dockersandbox/generic:8cb664b71f57: it was not there"]
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import arguments, images
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.docker_api import Docker


def recipes(base: str, suite: str, serial: int, presets: dict[str, dict[str, list[str]]]) -> dict[str, images.Recipe]:
    """Return the recipe of each preset; ValueError in one line for a base or package that cannot be meant."""
    if base != "debian" and not images.DIGEST.fullmatch(base):
        raise ValueError(f"env_base: {base!r} is neither debian nor an image by digest (registry/name@sha256:…)")
    made = {}
    for preset, content in sorted(presets.items()):
        for package in content["packages"]:
            if not images.PACKAGE.fullmatch(package):
                raise ValueError(f"env_presets: {preset}: {package!r} is not the name of a Debian package")
        made[preset] = images.recipe(images.base_tag(base, serial, suite), preset, content["packages"], serial)
    return made


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "base": {"type": "str", "default": "debian"},
            "serial": {"type": "int", "default": 1},
            "presets": {"type": "dict", "required": True},
        },
        supports_check_mode=True,
    )
    options = module.params
    docker = Docker()
    actions = []
    ids = {}
    with arguments.refusals(module):
        suite = images.host_suite()
        made = recipes(options["base"], suite, options["serial"], options["presets"])
        reachable = os.path.exists(docker.path) or not module.check_mode
        for preset, recipe in made.items():
            if reachable and (known := docker.image(recipe.tag)):
                ids[preset] = known["Id"]
                continue
            if not (reachable and docker.image(recipe.base)):
                actions.append(f"Made the base {recipe.base}: it was not there")
                if not module.check_mode:
                    if options["base"] == "debian":
                        images.build_base(docker, recipe.base, suite)
                    else:
                        docker.pull(recipe.base)
            actions.append(f"Built {recipe.tag}: it was not there")
            ids[preset] = recipe.tag
            if not module.check_mode:
                images.build(docker, recipe)
                ids[preset] = (docker.image(recipe.tag) or {})["Id"]
    module.exit_json(
        changed=bool(actions),
        actions=actions,
        images=ids,
        dockerfiles={preset: recipe.dockerfile for preset, recipe in made.items()},
        diff={"before": "", "after": "".join(f"{action}\n" for action in actions)},
    )


if __name__ == "__main__":
    main()
