#!/usr/bin/python
# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Prove that what a sandbox changed can be undone."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rollback_verify
short_description: Prove that what a sandbox changed can be undone
version_added: 0.1.0
description:
  - For each runtime that a sandbox has, lets a throw-away sandbox change its working set, makes a snapshot, lets it change and
    destroy more, restores the snapshot, and looks from inside whether all is as it was.
author: DockerSandboxApp authors (@dockersandboxapp)
extends_documentation_fragment:
  - dockersandbox.guardrails.places
  - dockersandbox.guardrails.places.reads
"""

EXAMPLES = r"""
- name: What a sandbox changed can be undone
  dockersandbox.guardrails.rollback_verify:
"""

RETURN = r"""
proven:
  description: What was tried, by runtime, with the milliseconds for which the sandbox stood and those that the restore took.
  returned: success
  type: dict
  sample: {runc: {paused_ms: 41, restore_ms: 702}}
"""

import contextlib
import os
import shutil
import tempfile
import time
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import arguments, rollback, run, sandboxes, stack, workset
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.sandboxes import Host

FIRST = "cd /workspace && echo one > made && rm gone && echo one >> kept && mkdir -p folder/deep && ln made folder/twin"
SECOND = "cd /workspace && echo two > made && rm -rf folder kept && mkdir kept && echo two > gone && chmod 700 ."
AS_FIRST = (
    "cd /workspace && echo one | cmp - made && test ! -e gone && printf 'kept\\none\\n' | cmp - kept"
    " && test -d folder/deep && test made -ef folder/twin && echo three > made"
)


def undone(host: Host, name: str, shape: stack.Description) -> dict[str, t.Any]:
    """Return the figures of one trial in the *shape* of the sandbox *name*; SandboxError when something is not as it was."""
    folder = os.path.join(host.places.data, "originals")
    os.makedirs(folder, mode=0o755, exist_ok=True)
    tree = tempfile.mkdtemp(prefix="undone-", dir=folder)
    try:
        for word in ("gone", "kept"):
            with open(os.path.join(tree, word), "w", encoding="ascii") as file:
                file.write(f"{word}\n")
        os.chmod(tree, 0o755)
        with run.throwaway(host, name, shape, tree) as (other, description):

            def inside(script: str) -> None:
                code, output = host.execute(other, description, ["/bin/sh", "-c", script], timeout=60)
                if code:
                    said = output.decode("utf-8", "replace").strip()
                    raise sandboxes.SandboxError(f"sandbox {name}: a change could not be undone: {script!r} failed ({code}): {said}")

            kept = rollback.mounted(t.cast(workset.WorkingSet, host.working_set(other, description)))
            inside(FIRST)
            made = rollback.snapshot(host, kept, "a trial", name="trial")
            inside(SECOND)
            start = time.monotonic()
            rollback.restore(host, kept, "trial", description=description)
            taken = time.monotonic() - start
            inside(AS_FIRST)
            if problems := kept.problems():
                raise sandboxes.SandboxError("; ".join(problems))
        return {"paused_ms": round(made.paused * 1000), "restore_ms": round(taken * 1000)}
    finally:
        shutil.rmtree(tree, ignore_errors=True)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(host.places.stat_cache(tree))


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=dict(arguments.PLACES), supports_check_mode=True)
    host = arguments.host(module)
    if module.check_mode:
        # What it would prove is only predicted: there may be no engine yet.
        module.exit_json(changed=False, proven={})
    proven: dict[str, t.Any] = {}
    with arguments.refusals(module):
        for name, shape in sorted(sandboxes.read_stack(host.places).items()):
            if stack.runtime(shape) not in proven and host.working_set(name, shape):
                proven[stack.runtime(shape)] = undone(host, name, shape)
    module.exit_json(changed=False, proven=proven)


if __name__ == "__main__":
    main()
