#!/usr/bin/python
# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a command in a sandbox and bundle what it changed."""

from __future__ import annotations

DOCUMENTATION = r"""
module: sandbox_run
short_description: Run a command in a sandbox and bundle what it changed
version_added: 0.1.0
description:
  - Proves that the originals are what was sealed, runs one command, proves it again, and writes the sealed bundle.
  - A module cannot stream. The ends of the command's output are returned; C(bin/sandbox run) shows it as it comes.
author: DockerSandboxApp authors (@dockersandboxapp)
extends_documentation_fragment: dockersandbox.guardrails.places
attributes:
  check_mode:
    support: full
    description: Checks the command and the sandbox, and runs nothing.
  diff_mode:
    support: none
    description: The bundle holds the difference.
  platform:
    support: full
    platforms: posix
    description: The systems on which this works.
options:
  name:
    description: The sandbox.
    type: str
    required: true
  argv:
    description: The command, a list of texts. It is never given to a shell.
    type: raw
    required: true
  originals:
    description: Run in a throw-away sandbox of the same shape over this folder instead.
    type: path
  timeout:
    description: End the command when it has run for so many seconds. It may take as long as it likes when this is not given.
    type: int
"""

EXAMPLES = r"""
- name: Count the lines
  dockersandbox.guardrails.sandbox_run:
    name: default
    argv: [wc, -l, README.md]
  register: counted
"""

RETURN = r"""
exit_code:
  description: What the command returned; 128 and the number of the signal when one ended it.
  returned: success
  type: int
ended:
  description: Why the command was ended from outside, empty when it ended by itself.
  returned: success
  type: str
timed_out:
  description: Whether it was ended because its time was up.
  returned: success
  type: bool
bundle:
  description: The folder of the bundle on the host.
  returned: success
  type: str
changes:
  description: How many paths of the working set are not as in the originals.
  returned: success
  type: dict
  sample: {added: 1, changed: 0, removed: 0}
snapshots:
  description: The ids of the working set's snapshots V(before) and V(after) the run, empty where phase C(rollback) was not run.
  returned: success
  type: dict
originals:
  description: Empty when the originals are bit-identical to their baseline, else what differs.
  returned: success
  type: list
  elements: str
flagged:
  description: Changed paths that may execute something where they are put, each with the reason.
  returned: success
  type: dict
not_carried:
  description: Changed paths whose content the bundle does not hold, each with the reason.
  returned: success
  type: dict
run_id:
  description: The id of the run.
  returned: success
  type: str
stdout:
  description: The end of the command's output, 64 KiB at most.
  returned: success
  type: str
stderr:
  description: The end of the command's errors, 64 KiB at most.
  returned: success
  type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import arguments, run, spec

KEPT = 64 << 10


class Ends:
    """Keeps the ends of a command's output and gives it no input."""

    tty = False
    stdin = False

    def __init__(self) -> None:
        self.kept = {1: b"", 2: b""}

    def start(self, *_arguments: object) -> None:
        """There is nothing to pass on."""

    def write(self, kind: int, data: bytes) -> None:
        """Keep the end."""
        self.kept[kind] = (self.kept[kind] + data)[-KEPT:]

    def stop(self) -> None:
        """There is nothing to end."""


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **arguments.PLACES,
            "name": {"type": "str", "required": True},
            "argv": {"type": "raw", "required": True},
            "originals": {"type": "path"},
            "timeout": {"type": "int"},
        },
        supports_check_mode=True,
    )
    host = arguments.host(module)
    name = module.params["name"]
    with arguments.refusals(module):
        argv = spec.argv(module.params["argv"])
        timeout = 0 if module.params["timeout"] is None else spec.seconds(module.params["timeout"])
        if module.check_mode:
            run.described(host, name)
            module.exit_json(changed=True)
        ends = Ends()
        result = run.run(host, name, argv, ends, module.params["originals"], timeout=timeout)
    module.exit_json(
        changed=True,
        exit_code=result.exit_code,
        ended=result.ended,
        timed_out=result.timed_out,
        bundle=result.bundle,
        changes=result.changes,
        snapshots=result.snapshots,
        originals=result.originals,
        flagged=result.flagged,
        not_carried=result.not_carried,
        run_id=result.run,
        stdout=ends.kept[1].decode("utf-8", "replace"),
        stderr=ends.kept[2].decode("utf-8", "replace"),
    )


if __name__ == "__main__":
    main()
