#!/usr/bin/python
# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep the providers' keys and the sandboxes' tokens."""

from __future__ import annotations

DOCUMENTATION = r"""
module: llm_secrets
short_description: Keep what opens the gateway of LLM calls
version_added: 0.1.0
description:
  - Writes the providers' keys into files that the gateway C(llm) alone can read, and root, and has a token for each sandbox, which
    is worth nothing elsewhere. Makes the account C(guardrails-llm) when it is not there.
  - A key that is not given stays as it is. The recorder takes keys and tokens out of whatever it records.
  - Neither is in what the module returns, nor in a diff.
author: DockerSandboxApp authors (@dockersandboxapp)
extends_documentation_fragment:
  - dockersandbox.guardrails.places
  - dockersandbox.guardrails.places.changes
options:
  sandboxes:
    description: The names of the declared sandboxes. Tokens of others are removed.
    type: list
    elements: str
    required: true
  keys:
    description: The keys by the family of protocols, C(anthropic) and C(openai). An empty one is one that is not given.
    type: dict
    default: {}
  teams:
    description: The teams of sandboxes, by the sandboxes' names.
    type: dict
    default: {}
  removed:
    description: The families whose keys are removed.
    type: list
    elements: str
    choices: [anthropic, openai]
    default: []
"""

EXAMPLES = r"""
- name: One key, and a token for the sandbox default
  dockersandbox.guardrails.llm_secrets:
    sandboxes: [default]
    keys:
      anthropic: "{{ vault_anthropic_key }}"
"""

RETURN = r"""
actions:
  description: What was done (in check mode, what would be) and why.
  returned: success
  type: list
  elements: str
written:
  description: The files that changed.
  returned: success
  type: list
  elements: str
callers:
  description:
    - What the gateway is told of each sandbox, the sha256 of its token and its team. In check mode that of a token that is not made
      yet is made up.
  returned: success
  type: dict
key_digests:
  description: The sha256 of the file of each family's key, C(null) when there is none.
  returned: success
  type: dict
"""

import os
import pathlib
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import (
    acts,
    arguments,
    atomic,
    canonical,
    known_secrets,
    llm,
    llm_access,
    lock,
    services,
)
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.sandboxes import Host


def keep(
    host: Host, sandboxes: list[str], keys: dict[str, str], teams: dict[str, str], removed: list[str], check: bool
) -> dict[str, t.Any]:
    """Have the files as wanted, and return what the module returns."""
    places, actions = host.places, []
    if strangers := sorted(set(teams) - set(sandboxes)):
        raise llm_access.AccessError(f"teams: {', '.join(strangers)}: is not a declared sandbox; there is {', '.join(sorted(sandboxes)) or 'none'}")
    if unknown := sorted(set(keys) - set(llm_access.FAMILIES)):
        raise llm_access.AccessError(f"keys: {', '.join(unknown)}: there is {', '.join(llm_access.FAMILIES)}")
    actions += ready(host, check)
    gid = (services.ids(llm.NAME) or (-1, -1))[1]
    tokens = llm_access.tokens_of(sandboxes, llm_access.read_tokens(places))
    given = {family: "" if family in removed else keys.get(family) or "" for family in llm_access.FAMILIES}
    files = [llm_access.tokens_file(places, tokens)]
    files += [llm_access.key_file(places, family, key, gid) for family, key in given.items() if key or family in removed]
    steps = lock.plan(files)
    actions += [step.text for step in steps]
    if steps and not check:
        # Known before they are used: what comes between would else be on record as it is.
        learn(host, tokens, given, removed)
        acts.write_files(places, steps)
    wanted = {file.path: file.content for file in files}
    key_digests = {}
    for family in llm_access.FAMILIES:
        path = llm_access.key_path(places, family)
        content = wanted.get(path)
        key_digests[family] = canonical.sha256_hex(content) if content is not None else None if family in removed else lock.digest_of(path)
    return {
        "changed": bool(actions),
        "actions": actions,
        "written": [str(step.wanted.path) for step in steps],
        "callers": {name: {"token_sha256": llm_access.digest(token), "team": teams.get(name)} for name, token in tokens.items()},
        "key_digests": key_digests,
    }


def ready(host: Host, check: bool) -> list[str]:
    """Make sure of the gateway's account, and of the folder of the keys, which it may enter; return what was done."""
    path = llm_access.keys_folder(host.places)
    there = services.ids(llm.NAME)
    actions = [] if there else [f"Made the account {services.account(llm.NAME)}: it was not there"]
    if there is None or atomic.owner(path) != (0o750, 0, there[1]):
        actions.append(f"Made {path}: it was not there as it must be")
    if actions and not check:
        with acts.recorded(host.places, "service.prepare", "application_lifecycle", resource=llm.NAME, reason=acts.reasons(actions)):
            gid = (there or services.make_account(llm.NAME))[1]
            path.parent.mkdir(mode=0o700, exist_ok=True)
            path.mkdir(mode=0o750, exist_ok=True)
            os.chown(path, 0, gid)
            path.chmod(0o750)
    return actions


def learn(host: Host, tokens: dict[str, str], keys: dict[str, str], removed: list[str]) -> None:
    """Have the recorder take all of them out of what it records."""
    log_keys = pathlib.Path(host.places.log_key).parent
    if not log_keys.is_dir():
        return
    known_secrets.declare(log_keys, "llm-tokens", tokens)
    known_secrets.remember(log_keys, {f"llm-keys/{family}": key for family, key in keys.items() if key})
    known_secrets.unlearn(log_keys, [f"llm-keys/{family}" for family in removed])


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **arguments.PLACES,
            "sandboxes": {"type": "list", "elements": "str", "required": True},
            "keys": {"type": "dict", "default": {}, "no_log": True},
            "teams": {"type": "dict", "default": {}},
            "removed": {"type": "list", "elements": "str", "choices": list(llm_access.FAMILIES), "default": []},
        },
        supports_check_mode=True,
    )
    options = module.params
    with arguments.refusals(module):
        result = keep(
            arguments.host(module), options["sandboxes"], options["keys"], options["teams"], options["removed"], module.check_mode
        )
    shown = "".join(f"{path}\n" for path in result["written"])
    module.exit_json(diff={"before": "", "after": shown}, **result)


if __name__ == "__main__":
    main()
