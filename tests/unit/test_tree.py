# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lookup of a folder's files: all of them, at their places on the host, and nothing that Python left there."""

from __future__ import annotations

import pathlib

import pytest
from ansible_collections.dockersandbox.guardrails.plugins.lookup import tree


def test_all_text_files_and_no_bytecode(tmp_path: pathlib.Path) -> None:
    for name in ("b.py", "a/one.py", "a/deep/er/page.html", "a/__pycache__/one.cpython-311.pyc", "old.pyc"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{name}\n", encoding="utf-8")
    found = tree.files(tmp_path, "/srv/src")
    assert found == [{"path": f"/srv/src/{name}", "content": f"{name}\n"} for name in ("a/deep/er/page.html", "a/one.py", "b.py")]


def test_a_folder_that_is_not_there_is_no_empty_one(tmp_path: pathlib.Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        tree.files(tmp_path / "gone", "/srv")


def test_what_is_no_text_is_refused(tmp_path: pathlib.Path) -> None:
    (tmp_path / "data").write_bytes(b"\xff")
    with pytest.raises(UnicodeDecodeError):
        tree.files(tmp_path, "/srv")
