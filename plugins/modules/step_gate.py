#!/usr/bin/python
# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Open or close the gate of a phase."""

from __future__ import annotations

DOCUMENTATION = r"""
module: step_gate
short_description: Let a phase start only on sealed phases, and seal it at its end
version_added: 0.1.0
description:
  - With O(state=open) the task fails, in one line that names the phase to run first, unless every phase in O(needs)
    has a seal on the host, its signature holds, and each file it covers still has the sealed sha256. The phase's own
    O(files) must agree with their locks.
  - With O(state=closed) the phase is sealed, and a line is added to C(.state/docker_sandbox_progress.md) below O(home).
    Nothing is written when only the time would differ.
  - In check mode, closing returns what would be sealed as the fact C(guardrails_gates). Opening accepts it by
    O(predicted), so that all phases can be predicted on a host where nothing is sealed yet.
author: DockerSandboxApp authors (@dockersandboxapp)
requirements:
  - python3-cryptography on the host, as soon as there is a seal to check or to make
extends_documentation_fragment: dockersandbox.guardrails.places.records
attributes:
  check_mode:
    support: full
    description: Says whether the phase would be sealed, and writes nothing.
  diff_mode:
    support: full
    description: Shows what the seal says before and after.
  platform:
    support: full
    platforms: posix
    description: The systems on which this works.
options:
  phase:
    description: The word of the phase.
    type: str
    required: true
    choices:
      - bootstrap
      - env
      - network
      - fs
      - monitoring
      - logging
      - policy
      - compliance
      - rollback
      - approvals
      - validation
      - cost
      - human_intervention
  state:
    description: Whether the phase wants to start (V(open)) or is done and verified (V(closed)).
    type: str
    required: true
    choices: [open, closed]
  needs:
    description: The words of the phases that must be sealed before this one.
    type: list
    elements: str
    default: []
  files:
    description: Absolute paths of the files that this phase wrote on the host. The seal binds their sha256.
    type: list
    elements: path
    default: []
  facts:
    description: Versions and ids that the seal binds too, such as an image's digest. Numbers with a point are refused.
    type: dict
    default: {}
  predicted:
    description: What earlier tasks would have sealed, from the fact C(guardrails_gates). Ignored outside check mode.
    type: list
    elements: str
    default: []
  rewritten:
    description: Those of O(files) that earlier tasks would have written anew. Ignored outside check mode.
    type: list
    elements: path
    default: []
"""

EXAMPLES = r"""
- name: Open the gate
  dockersandbox.guardrails.step_gate:
    phase: fs
    state: open
    needs: [bootstrap, env]
    predicted: "{{ ansible_facts['guardrails_gates'] | default([]) }}"

- name: Close the gate
  dockersandbox.guardrails.step_gate:
    phase: fs
    state: closed
    needs: [bootstrap, env]
    files: "{{ __fs_files }}"
    facts:
      baseline: "{{ __fs_baseline.id }}"
    predicted: "{{ ansible_facts['guardrails_gates'] | default([]) }}"
"""

RETURN = r"""
actions:
  description: What was found (open) or done (closed; in check mode, what would be) and why.
  returned: success
  type: list
  elements: str
  sample: ["Sealed fs: it had no seal", "Noted fs in /opt/DockerSandboxApp/.state/docker_sandbox_progress.md"]
seal:
  description: Where the phase's seal is.
  returned: success
  type: str
  sample: /opt/DockerSandboxApp/.state/seals/fs.json
ansible_facts:
  description: Facts for the tasks that follow.
  returned: in check mode, when the phase would be sealed
  type: dict
  contains:
    guardrails_gates:
      description: The phases that would be sealed by now.
      type: list
      elements: str
      sample: [bootstrap, env]
"""

import contextlib
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import acts, atomic, gate, recorder


def recorded(module: AnsibleModule, actions: list[str]) -> contextlib.AbstractContextManager[t.Any]:
    """Return what puts the block on record, when it will do something."""
    if not actions:
        return contextlib.nullcontext()
    places, phase = acts.places_of(module.params), module.params["phase"]
    return acts.recorded(places, "phase.seal", "file_activity", resource=phase, reason=acts.reasons(actions))


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **acts.OPTIONS,
            "phase": {"type": "str", "required": True, "choices": list(gate.PHASES)},
            "state": {"type": "str", "required": True, "choices": ["open", "closed"]},
            "needs": {"type": "list", "elements": "str", "default": []},
            "files": {"type": "list", "elements": "path", "default": []},
            "facts": {"type": "dict", "default": {}},
            "predicted": {"type": "list", "elements": "str", "default": []},
            "rewritten": {"type": "list", "elements": "path", "default": []},
        },
        supports_check_mode=True,
    )
    params: dict[str, t.Any] = module.params
    phase, home = params["phase"], params["home"]
    gates = (home, phase, params["needs"], params["files"])
    predicted = params["predicted"] if module.check_mode else []
    result: dict[str, t.Any] = {"changed": False, "seal": str(gate.seal_path(home, phase))}
    try:
        if params["state"] == "open":
            result["actions"] = gate.open_gate(*gates, predicted)
        else:
            closing = gate.close_gate(*gates, params["facts"], True, predicted, params["rewritten"] if module.check_mode else ())
            if not module.check_mode:
                with recorded(module, closing.actions):
                    closing = gate.close_gate(*gates, params["facts"])
            result |= {"changed": bool(closing.actions), "actions": closing.actions}
            if closing.before != closing.after:
                result["diff"] = {"before": closing.before, "after": closing.after, "before_header": result["seal"]}
                result["diff"]["after_header"] = result["seal"]
                if module.check_mode:
                    result["ansible_facts"] = {"guardrails_gates": [*predicted, phase]}
    except (gate.GateError, recorder.RecorderError) as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"{phase}: {error.filename or home}: {atomic.reason(error)}")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
