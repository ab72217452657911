# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Count the words of a text."""

from __future__ import annotations

import collections
import sys

if __name__ == "__main__":
    for word, count in collections.Counter(sys.stdin.read().lower().split()).most_common(10):
        print(f"{count:6} {word}")
