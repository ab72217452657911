#!/usr/bin/python
# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin of this name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: spend_chart
short_description: Draw what LLM calls cost
version_added: 0.1.0
description:
  - Draws where budgets stand and who spent what, as M(dockersandbox.guardrails.budget_info) tells it, into a PNG.
  - Runs on the controller, with matplotlib of C(requirements/spend.txt).
author: DockerSandboxApp authors (@dockersandboxapp)
options:
  path:
    description: The file to write, on the controller.
    type: path
    required: true
  title:
    description: Whose spend it is.
    type: str
    required: true
  since:
    description: From when on, in seconds since 1970 UTC.
    type: int
    required: true
  spend:
    description: What was spent and by whom.
    type: dict
    required: true
  standing:
    description: Where the budgets stand.
    type: list
    elements: dict
    required: true
  simulated:
    description: The protocols whose provider is simulated; the chart says so.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    support: full
    description: Draws, and writes nothing.
  diff_mode:
    support: none
    description: It is a picture.
  platform:
    support: full
    platforms: posix
    description: The systems on which this works.
"""

EXAMPLES = r"""
- name: What was spent?
  dockersandbox.guardrails.budget_info:
  register: known

- name: Draw it
  dockersandbox.guardrails.spend_chart:
    path: spend.png
    title: "{{ inventory_hostname }}"
    since: "{{ known.since }}"
    spend: "{{ known.spend }}"
    standing: "{{ known.standing }}"
"""

RETURN = r"""
path:
  description: The file, absolute.
  returned: success
  type: str
  sample: /root/spend.png
"""
