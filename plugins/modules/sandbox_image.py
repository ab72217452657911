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
  - An image's tag is made from its recipe, so that what is there already is not built again. No setting of the host's
    registries is in it, nor in the image.
author: DockerSandboxApp authors (@dockersandboxapp)
extends_documentation_fragment:
  - dockersandbox.guardrails.places.changes
  - dockersandbox.guardrails.places.records
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
    description:
      - The presets to build. Each has Debian C(packages), C(npm) packages at exact versions, an C(environment) for its
        sandboxes, and C(files) (path to text; executable when the text begins with V(#!)).
      - Packages of npm come from the host's own npm registry; their install scripts are not run.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: The image of the generic preset
  dockersandbox.guardrails.sandbox_image:
    presets:
      generic:
        packages: [python3, ripgrep]

- name: An image with a tool from npm
  dockersandbox.guardrails.sandbox_image:
    presets:
      linter:
        packages: [nodejs]
        npm:
          prettier: 3.6.2
        environment:
          NO_COLOR: "1"
        files:
          /etc/prettierrc.json: '{"semi": false}'
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

import contextlib
import os
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import acts, arguments, images
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.docker_api import Docker


def recipes(base: str, suite: str, serial: int, presets: dict[str, t.Any]) -> dict[str, images.Recipe]:
    """Return the recipe of each preset; ValueError in one line for a base or preset that cannot be meant."""
    if base != "debian" and not images.DIGEST.fullmatch(base):
        raise ValueError(f"env_base: {base!r} is neither debian nor an image by digest (registry/name@sha256:…)")
    tag = images.base_tag(base, serial, suite)
    return {name: images.recipe(tag, name, images.preset(name, content), serial) for name, content in sorted(presets.items())}


def built(module: AnsibleModule, tag: str) -> contextlib.AbstractContextManager[acts.Came]:
    """Return what puts the making of an image on record."""
    return acts.recorded(acts.places_of(module.params), "image.build", "application_lifecycle", resource=tag)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **acts.OPTIONS,
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
        try:
            for preset, recipe in made.items():
                if reachable and (known := docker.image(recipe.tag)):
                    ids[preset] = known["Id"]
                    continue
                if not (reachable and docker.image(recipe.base)):
                    actions.append(f"Made the base {recipe.base}: it was not there")
                    if not module.check_mode:
                        with built(module, recipe.base):
                            images.ensure_base(docker, options["base"], recipe.base, suite)
                actions.append(f"Built {recipe.tag}: it was not there")
                ids[preset] = recipe.tag
                if not module.check_mode:
                    with built(module, recipe.tag):
                        images.build(docker, recipe)
                    ids[preset] = (docker.image(recipe.tag) or {})["Id"]
        finally:
            # Not after each: presets share the image in which npm packages are fetched.
            if actions and not module.check_mode:
                docker.prune_images(images.NPM_LABEL)
    module.exit_json(
        changed=bool(actions),
        actions=actions,
        images=ids,
        dockerfiles={preset: recipe.dockerfile for preset, recipe in made.items()},
        diff={"before": "", "after": "".join(f"{action}\n" for action in actions)},
    )


if __name__ == "__main__":
    main()
