# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of the end-to-end tests."""

from __future__ import annotations

import pytest
from here import site_with_ours

__all__ = ["site_with_ours"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that lengthen a proof."""
    parser.addoption("--kills", type=int, default=1, help="how many first converges to kill at a random moment (default 1)")
    parser.addoption("--seed", type=int, default=None, help="the seed of those moments (default: another one each time)")
