#!/usr/bin/python
# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write authored files and their locks in one task."""

from __future__ import annotations

DOCUMENTATION = r"""
module: locked_files
short_description: Write files on a host, each with a C(.sha256) lock beside it
version_added: 0.1.0
description:
  - Writes any number of files in one task. Beside each one goes C(NAME.sha256), a line that C(sha256sum -c) reads.
  - A file that differs from its lock was changed by somebody else. The task then fails, names every such file, and
    changes nothing at all.
  - A write that was killed is recognised and completed by the next run.
  - Contents show in diffs and in the host's log of module calls, so this is no place for secrets.
author: DockerSandboxApp authors (@dockersandboxapp)
extends_documentation_fragment:
  - dockersandbox.guardrails.places.changes
  - dockersandbox.guardrails.places.records
options:
  files:
    description: The files.
    type: list
    elements: dict
    required: true
    suboptions:
      path:
        description: Where the file is, as an absolute path. Missing folders are made with mode V(0755).
        type: path
        required: true
      content:
        description: The text of the file. Needed unless O(state=absent).
        type: str
      mode:
        description: The file's mode in octal. The lock has the same, without the executable and set-id bits.
        type: raw
        default: "0644"
  owner:
    description: The user that owns files, locks and new folders, by name or number.
    type: str
    default: root
  group:
    description: The group of files, locks and new folders, by name or number.
    type: str
    default: root
  state:
    description: Whether the files are there with their locks, or neither is.
    type: str
    choices: [present, absent]
    default: present
"""

EXAMPLES = r"""
- name: The host's configuration of the phase
  dockersandbox.guardrails.locked_files:
    files:
      - path: /opt/DockerSandboxApp/configs/env.json
        content: "{{ env_stack | to_nice_json }}\n"
      - path: /opt/DockerSandboxApp/phases/phase1_env_setup.sh
        content: "{{ lookup('template', 'phase.sh.j2') }}"
        mode: "0755"

- name: A script of a phase that is gone
  dockersandbox.guardrails.locked_files:
    files:
      - path: /opt/DockerSandboxApp/phases/phase99_example.sh
    state: absent
"""

RETURN = r"""
actions:
  description: What was done (in check mode, what would be) and why, a line for each file that was not as wanted.
  returned: success
  type: list
  elements: str
  sample: ["Wrote /opt/DockerSandboxApp/configs/env.json: its content differed"]
written:
  description: The paths of the files that changed, for handlers.
  returned: success
  type: list
  elements: str
  sample: ["/opt/DockerSandboxApp/configs/env.json"]
"""

import grp
import pwd
import typing as t
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import acts, lock, recorder


def number(module: AnsibleModule, option: str) -> int:
    """Return the uid or gid behind the option; -1 in check mode for one that an earlier task would have made."""
    name: str = module.params[option]
    if name.isdecimal():
        return int(name)
    try:
        return pwd.getpwnam(name).pw_uid if option == "owner" else grp.getgrnam(name).gr_gid
    except KeyError:
        if not module.check_mode:
            module.fail_json(msg=f"{option}: there is no {name!r} on this host; name one that exists")
        return -1


def octal(value: t.Any) -> int | None:
    """Return the mode that *value* says; None when it says none. YAML has already read an unquoted 0644 as octal."""
    if isinstance(value, int) and not isinstance(value, bool):
        mode = value
    else:
        try:
            mode = int(str(value), 8)
        except ValueError:
            return None
    return mode if 0 <= mode <= 0o7777 else None


def wanted_files(module: AnsibleModule) -> list[lock.Wanted]:
    """Return the task's files, or fail with one line for all that is wrong with them."""
    uid, gid = number(module, "owner"), number(module, "group")
    absent = module.params["state"] == "absent"
    wanted: dict[Path, lock.Wanted] = {}
    wrong = []
    for index, file in enumerate(module.params["files"]):
        path, mode = Path(file["path"]), octal(file["mode"])
        where = f"files[{index}] {file['path']}"
        if not path.is_absolute() or ".." in path.parts or "\0" in file["path"]:
            wrong.append(f"{where}: path must be absolute, without '..'")
        elif path.name.endswith((lock.SUFFIX, lock.INTENT, lock.TEMPORARY)):
            wrong.append(f"{where}: this name is kept for locks; choose another")
        elif path in wanted:
            wrong.append(f"{where}: is listed twice")
        elif mode is None:
            wrong.append(f"{where}: mode {file['mode']!r} is not octal; write it as a quoted string such as '0644'")
        elif file["content"] is None and not absent:
            wrong.append(f"{where}: content is missing")
        else:
            content = None if absent else file["content"].encode("utf-8", "surrogateescape")
            wanted[path] = lock.Wanted(path, content, mode, uid, gid)
    if wrong:
        module.fail_json(msg="; ".join(wrong))
    return list(wanted.values())


def difference(step: lock.Step) -> dict[str, str]:
    """Return one step in the form of Ansible's diff."""
    path = str(step.wanted.path)
    after = step.before if step.does == "own" else step.wanted.content
    found: dict[str, str] = {"before_header": path, "after_header": path}
    for key, content in (("before", step.before), ("after", after)):
        try:
            found[key] = (content or b"").decode()
        except UnicodeDecodeError:
            found[key] = "(not text)\n"
    if step.does == "own":
        found["prepared"] = f"{step.text}\n"
    return found


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **acts.OPTIONS,
            "files": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "path": {"type": "path", "required": True},
                    "content": {"type": "str"},
                    "mode": {"type": "raw", "default": "0644"},
                },
            },
            "owner": {"type": "str", "default": "root"},
            "group": {"type": "str", "default": "root"},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        supports_check_mode=True,
    )
    try:
        steps = lock.plan(wanted_files(module))
        if not module.check_mode:
            acts.write_files(acts.places_of(module.params), steps)
    except (lock.LockError, recorder.RecorderError) as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"{error.filename or 'a file'}: {error.strerror or error}; run again after curing that")
    module.exit_json(
        changed=bool(steps),
        actions=[step.text for step in steps],
        written=[str(step.wanted.path) for step in steps],
        diff=[difference(step) for step in steps],
    )


if __name__ == "__main__":
    main()
