#!/usr/bin/python
# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lock files, seal trees, and verify both."""

from __future__ import annotations

DOCUMENTATION = r"""
module: checksum_seal
short_description: Lock files and seal trees with the host's key, and verify both
version_added: 0.1.0
description:
  - Makes the host's signing key, writes C(.sha256) locks beside files that exist, and writes the manifest of a tree with
    a signed seal. What is locked or sealed already is compared instead, and the task fails when it differs.
  - With O(verify) it changes nothing, and fails with a line for each lock, seal or sealed tree that does not hold.
author: DockerSandboxApp authors (@dockersandboxapp)
requirements:
  - python3-cryptography on the host, for all but O(paths)
extends_documentation_fragment:
  - dockersandbox.guardrails.places.changes
  - dockersandbox.guardrails.places.records
options:
  key:
    description: Make the host's key and its public half, unless they are there.
    type: str
    choices: [present]
  paths:
    description: Absolute paths of existing files that get a lock.
    type: list
    elements: path
    default: []
  tree:
    description: The folder to seal.
    type: path
  manifest:
    description: Where the manifest of O(tree) goes, outside of it. The seal is beside it, with C(.seal.json) added.
    type: path
  verify:
    description: The folder below which every lock, seal and sealed tree is checked.
    type: path
"""

EXAMPLES = r"""
- name: The host's key
  dockersandbox.guardrails.checksum_seal:
    key: present

- name: A lock for a file that another task wrote
  dockersandbox.guardrails.checksum_seal:
    paths: [/etc/docker/daemon.json]

- name: The seal of a reference tree
  dockersandbox.guardrails.checksum_seal:
    tree: /srv/reference
    manifest: /var/lib/dockersandbox/reference/manifest.jsonl

- name: Nothing was tampered with
  dockersandbox.guardrails.checksum_seal:
    verify: /opt/DockerSandboxApp
"""

RETURN = r"""
actions:
  description: What was made (in check mode, what would be), a line each.
  returned: success
  type: list
  elements: str
  sample: ["Made the host key /opt/DockerSandboxApp/.state/keys/host.key"]
locks:
  description: How many locks hold.
  returned: with O(verify)
  type: int
  sample: 12
seals:
  description: How many seals hold, sealed trees included.
  returned: with O(verify)
  type: int
  sample: 3
problems:
  description: What does not hold, a line each.
  returned: failure with O(verify)
  type: list
  elements: str
"""

import typing as t
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import (
    acts,
    atomic,
    lock,
    manifest,
    places,
    proofs,
    recorder,
    seal,
)


def make(module: AnsibleModule, check: bool) -> list[str]:
    """Do what the options ask for; return what was done. With *check* the library for signatures may still lack."""
    params: dict[str, t.Any] = module.params
    actions: list[str | None] = []
    actions += [_lock(path, check) for path in map(Path, params["paths"])]
    try:
        if params["key"]:
            actions.append(seal.ensure_key(Path(places.Places(params["home"]).host_key), check))
        if params["tree"]:
            actions.append(proofs.seal_tree(Path(params["tree"]), Path(params["manifest"]), params["home"], check))
    except seal.CryptographyMissing as error:
        if not module.check_mode:
            raise
        module.warn(f"not verified: {error}")
    return [action for action in actions if action]


def _lock(path: Path, check: bool) -> str | None:
    if check:
        problem = lock.check(path)
        if problem and problem.tampering and problem.kind != "unlocked":
            raise lock.LockError(str(problem))
        done = problem is not None
    else:
        done = lock.lock(path)
    return f"Locked {lock.show(path)}" if done else None


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **acts.OPTIONS,
            "key": {"type": "str", "choices": ["present"], "no_log": False},
            "paths": {"type": "list", "elements": "path", "default": []},
            "tree": {"type": "path"},
            "manifest": {"type": "path"},
            "verify": {"type": "path"},
        },
        required_together=[("tree", "manifest")],
        mutually_exclusive=[("verify", "key"), ("verify", "tree"), ("verify", "paths")],
        supports_check_mode=True,
    )
    params: dict[str, t.Any] = module.params
    tree, target = params["tree"], params["manifest"]
    if tree and Path(target).is_relative_to(tree):
        module.fail_json(msg=f"manifest: {target} is inside the tree {tree}; put it outside")
    try:
        if params["verify"]:
            locks, seals, problems = proofs.verify(Path(params["verify"]), params["home"])
            if problems:
                module.fail_json(msg="\n".join(problems), problems=problems)
            module.exit_json(changed=False, actions=[], locks=locks, seals=seals)
        actions = make(module, check=True)
        if actions and not module.check_mode:
            with acts.recorded(acts.places_of(module.params), "seal.make", "file_activity", reason=acts.reasons(actions)):
                actions = make(module, check=False)
    except (lock.LockError, manifest.ManifestError, proofs.ProofError, recorder.RecorderError, seal.SealError) as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"{error.filename or params['home']}: {atomic.reason(error)}")
    lines = "".join(f"{action}\n" for action in actions)
    module.exit_json(changed=bool(actions), actions=actions, diff={"prepared": lines} if actions else {})


if __name__ == "__main__":
    main()
