#!/usr/bin/python
# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Give sandboxes their working sets."""

from __future__ import annotations

DOCUMENTATION = r"""
module: working_set
short_description: Give each sandbox a copy-on-write working set over read-only originals
version_added: 0.1.0
description:
  - Seals a baseline of the originals, mounts them idmapped and read-only, and makes C(/workspace) and C(/originals) of
    each sandbox from overlays over that mount. The originals themselves are never mounted into a sandbox.
  - What a sandbox changes has a cap. Where there are loop devices it is a hard one, a file system in an image of its own.
  - Originals that are not what their baseline says are refused by name, until they are sealed anew with a reason.
author: DockerSandboxApp authors (@dockersandboxapp)
extends_documentation_fragment:
  - dockersandbox.guardrails.places
  - dockersandbox.guardrails.places.changes
options:
  sandboxes:
    description: The declared sandboxes, as in C(configs/sandboxes.yml).
    type: list
    elements: raw
    required: true
  presets:
    description: The names of the package presets there are.
    type: list
    elements: str
    required: true
  reseal_reason:
    description: Why originals that changed are sealed anew. Empty means that they are refused.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: The working set of one sandbox
  dockersandbox.guardrails.working_set:
    sandboxes:
      - name: default
        originals: /srv/data
    presets: [generic]
"""

RETURN = r"""
actions:
  description: What was done (in check mode, what would be) and why.
  returned: success
  type: list
  elements: str
  sample: ["Sealed the baseline of sandbox default: it had none"]
baselines:
  description: The id of each sandbox's baseline, which is the sha256 of its manifest. Not there in check mode before the first run.
  returned: success
  type: dict
caps:
  description: What keeps each working set at its size, V(hard) or C(monitored), with the reason.
  returned: success
  type: dict
  sample: {default: hard}
written:
  description: The file of the stack's part, when it changed.
  returned: success
  type: list
  elements: str
compose:
  description: The whole stack as the content of a Compose file.
  returned: success
  type: dict
"""

import contextlib
import os
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import acts, arguments, loops, rollback, sandboxes, spec, stack, workset
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.sandboxes import Host
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.workset import WorkingSet


def seal(host: Host, working_set: WorkingSet, reason: str, check: bool) -> tuple[str, list[str]]:
    """Make sure of a working set's delta and baseline; return the baseline's id and what was done.

    Raises OriginalsChanged when the originals are not what was sealed and no *reason* says to seal them anew.
    """
    known = working_set.baseline()
    name = working_set.name
    actions = []
    # The delta is made before the first seal: a sandbox with a baseline and no delta has lost its changes.
    if working_set.hard and (problem := loops.problem(working_set.image, working_set.delta)):
        actions.append(f"Mounted {working_set.image} for sandbox {name}: {working_set.delta} {problem}")
        if not check:
            with at_rest(host, working_set):
                working_set.mount_delta()
    if working_set.untouched() and loops.unavailable() is None:
        actions.append(f"Gave the working set of sandbox {name} a hard cap: it was a folder, and holds no changes")
        if not check:
            with at_rest(host, working_set), rollback.locked(host.places, name):
                working_set.make_delta()
    elif problem := working_set.delta_problem():
        if known is not None:
            raise sandboxes.SandboxError(
                f"sandbox {name}: its working set {problem}: restore {working_set.upper} from a backup, or start over with"
                " the playbook teardown.yml -e teardown_purge=true"
            )
        actions.append(f"Made the working set of sandbox {name}: it had none")
        if not check:
            working_set.make_delta()
    now = working_set.scan()
    if known is not None and now.digest == known[0]:
        working_set.sealed()
        return known[0], actions
    if known is not None and not reason:
        raise working_set.changed(now)
    if not check:
        if known is not None:
            # A lower layer that changes under a mounted overlay is undefined: the sandbox starts again on the new one.
            with sandboxes.held(host.places, name, "a new baseline"):
                if rollback.policy(host.places):
                    rollback.snapshot(host, rollback.mounted(working_set), "before a new baseline", reuse=True)
                host.take_down(name)
        working_set.seal_baseline(now, reason or "first seal")
    actions.append(f"Sealed the baseline of sandbox {name}{f' anew: {reason}' if known else ': it had none'}")
    return now.digest, actions


def converge(host: Host, declarations: list[t.Any], presets: list[str], reason: str, check: bool) -> dict[str, t.Any]:
    """Give every declared sandbox its working set and return what the module returns."""
    declared = spec.parse(declarations, presets)
    there = [sandbox for sandbox in declared if os.path.isdir(sandbox.originals)]
    uids = sandboxes.assign_uids(there, sandboxes.read_uids(host.places))
    sets = [WorkingSet(host.places, sandbox.name, sandbox.originals, *uids[sandbox.name], sandbox.working_set) for sandbox in there]
    # In check mode, originals that this play makes are not there yet; in earnest the preflight has seen to it.
    actions = [f"Made the working set of sandbox {sandbox.name}: it had none" for sandbox in declared if sandbox not in there]
    baselines = {}
    for working_set in sets:
        baselines[working_set.name], done_here = seal(host, working_set, reason, check)
        actions += done_here
        problem = working_set.lower_problem() if os.path.isdir(working_set.lower) else "is not mounted"
        if problem:
            actions.append(f"Mounted {working_set.originals} for sandbox {working_set.name}: {working_set.lower} {problem}")
            if not check:
                with at_rest(host, working_set):
                    working_set.mount_lower()
    done = host.converge("fs", {"sandboxes": {working_set.name: working_set.part() for working_set in sets}}, check)
    actions += done.actions
    return {
        "changed": bool(actions),
        "actions": actions,
        "baselines": baselines,
        "caps": {working_set.name: working_set.cap() for working_set in sets},
        "written": done.written,
        "compose": stack.compose(done.stack, "./seccomp.json"),
        "diff": {"before": done.before, "after": done.after},
    }


@contextlib.contextmanager
def at_rest(host: Host, working_set: WorkingSet) -> t.Iterator[None]:
    """Hold a sandbox with its container out of the way while the block changes its mounts."""
    workset.ensure_run(host.places)
    with sandboxes.held(host.places, working_set.name, "a converging playbook"):
        with acts.recorded(host.places, "sandbox.down", "application_lifecycle", sandbox=working_set.name, reason="its mounts are made anew"):
            host.docker.stop(stack.container_name(working_set.name))
        yield


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **arguments.PLACES,
            "sandboxes": {"type": "list", "elements": "raw", "required": True},
            "presets": {"type": "list", "elements": "str", "required": True},
            "reseal_reason": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    options = module.params
    with arguments.refusals(module):
        result = converge(
            arguments.host(module), options["sandboxes"], options["presets"], options["reseal_reason"], module.check_mode
        )
    module.exit_json(**result)


if __name__ == "__main__":
    main()
