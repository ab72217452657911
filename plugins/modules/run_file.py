#!/usr/bin/python
# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin of this name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: run_file
short_description: Read the command of a run from a JSON file, as data
version_added: 0.1.0
description:
  - Extra variables are templates, and a command given by one could run code on the controller. This reads it from a file.
  - The file holds an object with C(sandbox), C(argv) (a list of texts) and, at will, C(originals) and C(timeout) (seconds).
  - Runs on the controller.
author: DockerSandboxApp authors (@dockersandboxapp)
extends_documentation_fragment: dockersandbox.guardrails.places.reads
options:
  path:
    description: The file, on the controller.
    type: path
    required: true
"""

EXAMPLES = r"""
- name: Read the job as data
  dockersandbox.guardrails.run_file:
    path: job.json
  register: job
"""

RETURN = r"""
sandbox:
  description: The sandbox to run in.
  returned: success
  type: str
  sample: default
argv:
  description: The command.
  returned: success
  type: list
  elements: str
  sample: [ls, -l]
originals:
  description: The folder to run over in a throw-away sandbox; empty for the sandbox's own working set.
  returned: success
  type: str
  sample: ""
timeout:
  description: After how many seconds the command is ended; V(0) for never.
  returned: success
  type: int
  sample: 0
"""
