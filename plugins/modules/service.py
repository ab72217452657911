# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make a service run, or none."""

from __future__ import annotations

DOCUMENTATION = r"""
module: service
short_description: Make a service run in a hardened container of its own
version_added: 0.1.0
description:
  - Makes the account C(guardrails-NAME), the folders that the service may write, its configuration
    C(configs/services/NAME.json) and its container, and waits until it answers on its C(admin.sock).
  - The root of the container is read-only; it has no capability, no new privileges, the seccomp profile of sandboxes, and a cap on
    memory, processors, processes and open files. The engine starts it again whenever it ends, and C(bin/sandbox up) when the
    machine starts.
  - A changed configuration is read on SIGHUP, without a restart. One that the service refuses is put back.
  - Configurations show in diffs, so this is no place for secrets.
author: DockerSandboxApp authors (@dockersandboxapp)
extends_documentation_fragment:
  - dockersandbox.guardrails.places
  - dockersandbox.guardrails.places.changes
options:
  name:
    description: The service. Needed unless O(state=absent), which then means all of them.
    type: str
    choices: [recorder, tracer, egress, simulator, llm, control, warden, monitor]
  state:
    description:
      - V(present) makes it run.
      - V(absent) ends all services, the recorder last. With O(name) it ends that one for good, whose description and configuration
        go too. What they wrote stays.
    type: str
    choices: [present, absent]
    default: present
  image:
    description: The image, by id or tag. The one that M(dockersandbox.guardrails.service_image) built last when it is not given.
    type: str
  config:
    description: What the service reads as its configuration.
    type: dict
    default: {}
  keep:
    description: Whether a configuration that is there already stays as it is.
    type: bool
    default: false
  mounts:
    description: What else of the host the service sees, read-only unless O(mounts[].write).
    type: list
    elements: dict
    default: []
    suboptions:
      source:
        description: The folder or file on the host.
        type: path
        required: true
      target:
        description: Where it is in the container.
        type: path
        required: true
      write:
        description: Whether it is a folder of the service's own, which is made when it is not there.
        type: bool
        default: false
      mode:
        description: The mode of such a folder, in octal.
        type: str
        default: "0700"
      group:
        description: The group of such a folder; the service's own when it is not given.
        type: str
        default: ""
  network:
    description:
      - V(none), or V(own) for a service that is a way out.
      - Its own network is a bridge, with a table of nftables around it that is rendered from O(config).
    type: str
    choices: [none, own]
    default: none
  memory:
    description: The memory that it may take, such as V(256m).
    type: str
    default: 256m
  cpus:
    description: The processors that it may take, such as V(0.5).
    type: str
    default: "1"
  pids:
    description: The processes and threads that it may have.
    type: int
    default: 64
  open_files:
    description: The files and sockets that each of its processes may have open.
    type: int
    default: 4096
  seccomp:
    description: The seccomp profile as JSON text. The one in the home when it is not given.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: The recorder
  dockersandbox.guardrails.service:
    name: recorder
    mounts:
      - source: /opt/DockerSandboxApp/observability/claude-sandbox/logs
        target: /var/log/guardrails
        write: true
        mode: "2750"
        group: dockersandbox

- name: No service any more
  dockersandbox.guardrails.service:
    state: absent
"""

RETURN = r"""
actions:
  description: What was done (in check mode, what would be) and why.
  returned: success
  type: list
  elements: str
  sample: ["Brought up service recorder: has no container"]
written:
  description: The files of its description and its configuration that changed.
  returned: success
  type: list
  elements: str
"""

import dataclasses
import os
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import arguments, services, spec
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.services import Services

MOUNT = {
    "source": {"type": "path", "required": True},
    "target": {"type": "path", "required": True},
    "write": {"type": "bool", "default": False},
    "mode": {"type": "str", "default": "0700"},
    "group": {"type": "str", "default": ""},
}


def description(options: dict[str, t.Any]) -> services.Description:
    """Return how the service is described by the module's *options*, but its image; ValueError in one line for what cannot be meant."""
    made: services.Description = {key: options[key] for key in ("network", "pids", "open_files")}
    for key, field, parse in (("memory", "memory", spec.size), ("cpus", "nano_cpus", spec.processors)):
        try:
            made[field] = parse(options[key])
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from None
    made["mounts"] = []
    for index, mount in enumerate(options["mounts"]):
        try:
            mode = int(mount["mode"], 8)
        except ValueError:
            raise ValueError(f"mounts[{index}]: mode: {mount['mode']!r} is not octal, such as \"0750\"") from None
        made["mounts"].append({**mount, "source": spec.originals_path(mount["source"]), "mode": mode})
    return made


def image_id(host: Services, image: str | None, check: bool) -> str:
    """Return the id of the image that the service runs from; a tag or nothing in check mode when it is not there yet."""
    if image is None and check and not os.path.exists(services.image_recipe(host.places)):
        return ""
    tag = image or services.image(host.places)
    known = host.docker.image(tag) if os.path.exists(host.docker.path) else None
    if known is None and not check:
        raise services.ServiceError(f"{tag} is not there: run phase env (--tags env) first, which builds the image of the services")
    return known["Id"] if known else tag


def absent(host: Services, name: str | None, check: bool) -> dict[str, t.Any]:
    """End one service for good, or all of them for now; return what the module returns."""
    names = [one for one in host.running() if name in (None, one)] if os.path.exists(host.docker.path) else []
    if name is not None and not names and any(path(host.places, name).exists() for path in (services.part_path, services.config_path)):
        names = [name]
    if not check:
        for one in names:
            host.take_down(one) if name is None else host.forget(one)
    return {"changed": bool(names), "written": [], "actions": [f"Took down service {one}" for one in names]}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **arguments.PLACES,
            "name": {"type": "str", "choices": list(services.NAMES)},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "image": {"type": "str"},
            "config": {"type": "dict", "default": {}},
            "keep": {"type": "bool", "default": False},
            "mounts": {"type": "list", "elements": "dict", "default": [], "options": MOUNT},
            "network": {"type": "str", "choices": list(services.NETWORKS), "default": "none"},
            "memory": {"type": "str", "default": "256m"},
            "cpus": {"type": "str", "default": "1"},
            "pids": {"type": "int", "default": 64},
            "open_files": {"type": "int", "default": 4096},
            "seccomp": {"type": "str", "default": ""},
        },
        required_if=[("state", "present", ["name"])],
        supports_check_mode=True,
    )
    options, check = module.params, module.check_mode
    with arguments.refusals(module):
        sandboxes = arguments.host(module)
        host = dataclasses.replace(Services(sandboxes.docker, sandboxes.places), profile=options["seccomp"])
        if options["state"] == "absent":
            module.exit_json(**absent(host, options["name"], check))
        wanted = description(options)
        wanted["image"] = image_id(host, options["image"], check)
        done = host.converge(options["name"], wanted, options["config"], options["keep"], check)
    module.exit_json(
        changed=bool(done.actions),
        actions=done.actions,
        written=done.written,
        diff={"before": done.before, "after": done.after},
    )


if __name__ == "__main__":
    main()
