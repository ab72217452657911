#!/usr/bin/python
# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make folders in one task."""

from __future__ import annotations

DOCUMENTATION = r"""
module: folders
short_description: Make folders with their modes and owners
version_added: 0.1.0
description:
  - Makes any number of folders in one task, where a task for each would take a hundred times as long.
  - A link or a file in the place of a folder is refused before anything is changed.
author: DockerSandboxApp authors (@dockersandboxapp)
extends_documentation_fragment: dockersandbox.guardrails.places.records
attributes:
  check_mode:
    support: full
    description: Says what would be done, and changes nothing.
  diff_mode:
    support: none
    description: The differences are in RV(actions).
  platform:
    support: full
    platforms: posix
    description: The systems on which this works.
options:
  folders:
    description: The folders, parents before what is in them.
    type: list
    elements: dict
    required: true
    suboptions:
      path:
        description: Where the folder is.
        type: path
        required: true
      mode:
        description: Its mode, in octal.
        type: raw
        default: "0755"
      owner:
        description: The user that owns it.
        type: str
        default: root
      group:
        description: Its group.
        type: str
        default: root
"""

EXAMPLES = r"""
- name: The home and what is secret in it
  dockersandbox.guardrails.folders:
    folders:
      - path: /opt/DockerSandboxApp
      - path: /opt/DockerSandboxApp/.state
        mode: "0700"
"""

RETURN = r"""
actions:
  description: What was done (in check mode, what would be), a line for each folder that was not as wanted.
  returned: success
  type: list
  elements: str
  sample: ["Made /opt/DockerSandboxApp: it was not there"]
"""

import stat
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import acts, recorder


def problem(path: Path) -> str | None:
    """Return why no folder can be at *path*, None when it can."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"{path}: {error.strerror}"
    if stat.S_ISDIR(mode):
        return None
    return f"{path} is {'a link' if stat.S_ISLNK(mode) else 'not a folder'}; move it away"


def converge(module: AnsibleModule) -> list[str]:
    """Make the folders as wanted, unless the module is in check mode, and return what was done."""
    actions = []
    for folder in module.params["folders"]:
        path = Path(folder["path"])
        made = not path.exists()
        if made:
            actions.append(f"Made {path}: it was not there")
            # A folder that is only predicted has no mode yet, and its group may be only predicted too.
            if module.check_mode:
                continue
            # Closed until its mode is set, so that nobody gets in between.
            path.mkdir(mode=0o700, parents=True)
        if module.set_fs_attributes_if_different(module.load_file_common_arguments(folder), False) and not made:
            actions.append(f"Set {path} to {folder['owner']}:{folder['group']} {folder['mode']}: it differed")
    return actions


def main() -> None:
    """Run the module."""
    options = {
        "path": {"type": "path", "required": True},
        "mode": {"type": "raw", "default": "0755"},
        "owner": {"type": "str", "default": "root"},
        "group": {"type": "str", "default": "root"},
    }
    module = AnsibleModule(
        argument_spec={**acts.OPTIONS, "folders": {"type": "list", "elements": "dict", "required": True, "options": options}},
        supports_check_mode=True,
    )
    wanted = module.params["folders"]
    if wrong := [text for folder in wanted if (text := problem(Path(folder["path"])))]:
        module.fail_json(msg="; ".join(wrong))
    try:
        check, module.check_mode = module.check_mode, True
        actions = converge(module)
        module.check_mode = check
        if actions and not check:
            with acts.recorded(acts.places_of(module.params), "folder.make", "file_activity", reason=acts.reasons(actions)):
                actions = converge(module)
    except recorder.RecorderError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"{error.filename}: {error.strerror}")
    module.exit_json(changed=bool(actions), actions=actions)


if __name__ == "__main__":
    main()
