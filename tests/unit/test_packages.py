# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which packages count as installed."""

from __future__ import annotations

import modules
import pytest
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import packages


@pytest.mark.parametrize(
    ("listing", "expected"),
    [
        ("", set()),
        ("git installed\ntini installed\n", {"git", "tini"}),
        ("git unpacked\ntini half-configured\nrunc config-files\nx not-installed\ny half-installed\n", set()),
    ],
)
def test_only_a_whole_package_is_installed(listing: str, expected: set[str]) -> None:
    assert packages.parse(listing) == expected


def test_missing_asks_dpkg() -> None:
    assert packages.missing(["dpkg", "no-package-has-this-name"]) == ["no-package-has-this-name"]


@pytest.mark.parametrize(
    ("names", "actions"),
    [
        (["dpkg"], []),
        (["no-package-has-this-name", "dpkg"], ["Installed no-package-has-this-name: it was missing"]),
    ],
)
def test_check_mode_predicts(names: list[str], actions: list[str]) -> None:
    done = modules.run("host_packages", check=True, names=names)
    assert (done["changed"], done["actions"]) == (bool(actions), actions)
