# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options that every module with the host's folders has."""

from __future__ import annotations


class ModuleDocFragment:
    """Where things are on a host."""

    DOCUMENTATION = r"""
options:
  home:
    description: The home of the project on the host.
    type: path
    default: /opt/DockerSandboxApp
  data:
    description: The folder of working sets and baselines.
    type: path
    default: /var/lib/dockersandbox
  run:
    description: The folder of mounts and locks, lost at a reboot.
    type: path
    default: /run/dockersandbox
"""

    RECORDS = r"""
options:
  home:
    description:
      - The home of the project on the host.
      - What a module changes goes on record when the recorder has its configuration there; without an answer of the recorder nothing
        is changed then.
    type: path
    default: /opt/DockerSandboxApp
  run:
    description: The folder of sockets, the recorder's among them.
    type: path
    default: /run/dockersandbox
"""

    CHANGES = r"""
attributes:
  check_mode:
    support: full
    description: Says what would be done, and changes nothing.
  diff_mode:
    support: full
    description: Shows what differs before and after.
  platform:
    support: full
    platforms: posix
    description: The systems on which this works.
"""

    READS = r"""
attributes:
  check_mode:
    support: full
    description: Reads only, so there is no difference.
  diff_mode:
    support: none
    description: There is nothing to show.
  platform:
    support: full
    platforms: posix
    description: The systems on which this works.
"""
