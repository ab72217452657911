# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The folders module, run as Ansible runs it."""

from __future__ import annotations

import os
import typing as t
from pathlib import Path

import modules
import pytest

OWNER = {"owner": str(os.geteuid()), "group": str(os.getegid())}


def run(check: bool = False, *wanted: dict[str, t.Any]) -> dict[str, t.Any]:
    return modules.run("folders", check, **modules.NOWHERE, folders=[OWNER | folder for folder in wanted])


def test_check_predicts_real_and_a_second_run_changes_nothing(tmp_path: Path) -> None:
    wanted = [{"path": f"{tmp_path}/a", "mode": "0750"}, {"path": f"{tmp_path}/a/b"}]
    predicted = run(True, *wanted)
    assert list(tmp_path.iterdir()) == []
    done = run(False, *wanted)
    assert done["actions"] == predicted["actions"] == [f"Made {tmp_path}/{name}: it was not there" for name in ("a", "a/b")]
    assert (tmp_path / "a").stat().st_mode & 0o7777 == 0o750
    assert run(False, *wanted)["changed"] is False


@pytest.mark.parametrize("check", [True, False])
def test_a_mode_that_drifted_is_set(tmp_path: Path, check: bool) -> None:
    (tmp_path / "a").mkdir(mode=0o755)
    assert run(check, {"path": f"{tmp_path}/a", "mode": "0700"})["changed"] is True
    assert (tmp_path / "a").stat().st_mode & 0o7777 == (0o755 if check else 0o700)


@pytest.mark.parametrize(("name", "text"), [("file", "is not a folder"), ("link", "is a link"), ("file/x", "Not a")])
def test_nothing_is_made_when_one_place_is_taken(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path)
    done = run(False, {"path": f"{tmp_path}/new"}, {"path": f"{tmp_path}/{name}"})
    assert done["failed"] and text in done["msg"] and "\n" not in done["msg"]
    assert not (tmp_path / "new").exists()


def test_a_group_that_is_only_predicted(tmp_path: Path) -> None:
    wanted = {"path": f"{tmp_path}/a", "group": "group-to-come"}
    assert run(True, wanted)["changed"] is True
