#!/usr/bin/python
# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin of this name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: config_check
short_description: Refuse a wrong configuration file, before anything changes
version_added: 0.1.0
description:
  - Checks every C(NAME.yml) and C(NAME.json) of a folder that has a schema C(schemas/NAME.json) against it (JSON Schema 2020-12).
  - Runs on the controller. Fails with every problem there is, a line each with file, path and reason.
author: DockerSandboxApp authors (@dockersandboxapp)
extends_documentation_fragment: dockersandbox.guardrails.places.reads
options:
  folder:
    description: The folder of the configuration files, on the controller.
    type: path
    required: true
"""

EXAMPLES = r"""
- name: Every configuration file is as its schema says
  dockersandbox.guardrails.config_check:
    folder: "{{ playbook_dir }}/../configs"
"""

RETURN = r"""
files:
  description: The files that were checked.
  returned: success
  type: list
  elements: str
  sample: [configs/env.yml]
"""
