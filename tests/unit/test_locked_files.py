# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The locked_files module, run as Ansible runs it."""

from __future__ import annotations

import os
import typing as t
from pathlib import Path

import modules
import pytest
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import lock

OWNER = {"owner": str(os.geteuid()), "group": str(os.getegid())}


def run(check: bool = False, **arguments: t.Any) -> dict[str, t.Any]:
    return modules.run("locked_files", check, **OWNER | modules.NOWHERE | arguments)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_check_predicts_real_and_a_second_run_changes_nothing(tmp_path: Path) -> None:
    files = [
        {"path": f"{tmp_path}/deep/er/a", "content": "alpha\n"},
        {"path": f"{tmp_path}/b c", "content": "", "mode": "0750"},
    ]
    predicted = run(check=True, files=files)
    assert tree(tmp_path) == {} and not (tmp_path / "deep").exists()
    done = run(files=files)
    for key in ("changed", "actions", "written", "diff"):
        assert predicted[key] == done[key]
    assert done["changed"] and done["actions"] == [
        f"Wrote {tmp_path}/deep/er/a: it was not there",
        f"Wrote {tmp_path}/b c: it was not there",
    ]
    assert done["diff"][0]["before"] == "" and done["diff"][0]["after"] == "alpha\n"
    assert sorted(tree(tmp_path)) == ["b c", "b c.sha256", "deep/er/a", "deep/er/a.sha256"]
    assert (tmp_path / "b c").stat().st_mode & 0o7777 == 0o750
    assert (tmp_path / "deep").stat().st_mode & 0o7777 == 0o755
    again = run(files=files)
    assert (again["changed"], again["actions"], again["diff"]) == (False, [], [])


@pytest.mark.parametrize(
    ("change", "action"),
    [
        ({"content": "beta"}, "Wrote {}: its content differed"),
        ({"mode": "0600"}, "Set {} to 0600 {uid}:{gid}: it was 0644 {uid}:{gid}"),
        ({"mode": 0o600}, "Set {} to 0600 {uid}:{gid}: it was 0644 {uid}:{gid}"),
    ],
)
def test_only_what_differs_is_done(tmp_path: Path, change: dict[str, t.Any], action: str) -> None:
    kept = {"path": f"{tmp_path}/kept", "content": "alpha"}
    file = {"path": f"{tmp_path}/a", "content": "alpha"}
    run(files=[kept, file])
    for check in (True, False):
        done = run(check, files=[kept, file | change])
        assert done["actions"] == [action.format(file["path"], uid=OWNER["owner"], gid=OWNER["group"])]
        assert done["written"] == [file["path"]]
    assert not run(files=[kept, file | change])["changed"]


def test_one_tampered_file_stops_all(tmp_path: Path) -> None:
    files = [{"path": f"{tmp_path}/{name}", "content": "alpha"} for name in "abc"]
    run(files=files)
    (tmp_path / "b").write_bytes(b"evil")
    before = tree(tmp_path)
    for state in ("present", "absent"):
        done = run(files=[file | {"content": "beta"} for file in files], state=state)
        assert done["failed"] and done["msg"].startswith(f"{tmp_path}/b: its sha256 is ")
        assert tree(tmp_path) == before
    (tmp_path / "b").unlink()
    (tmp_path / "b.sha256").unlink()
    assert run(files=files)["actions"] == [f"Wrote {tmp_path}/b: it was not there"]


def test_absent_removes_file_and_lock(tmp_path: Path) -> None:
    file = {"path": f"{tmp_path}/a", "content": "alpha"}
    run(files=[file])
    assert run(True, files=[file], state="absent")["changed"]
    assert run(files=[{"path": file["path"]}], state="absent")["actions"] == [f"Removed {tmp_path}/a and its lock"]
    assert tree(tmp_path) == {}
    assert not run(files=[file], state="absent")["changed"]


def test_a_file_without_a_lock_is_taken_over_only_as_wanted(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"mine")
    done = run(files=[{"path": f"{tmp_path}/a", "content": "theirs"}])
    assert done["failed"] and "without a lock" in done["msg"]
    done = run(files=[{"path": f"{tmp_path}/a", "content": "mine"}])
    assert done["actions"] == [f"Locked {tmp_path}/a: it was as wanted, without a lock"]
    assert lock.check(tmp_path / "a") is None


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"files": [{"path": "a/b", "content": ""}]}, "files[0] a/b: path must be absolute"),
        ({"files": [{"path": "/tmp/../x", "content": ""}]}, "path must be absolute, without '..'"),
        ({"files": [{"path": "/x/y.sha256", "content": ""}]}, "this name is kept for locks"),
        ({"files": [{"path": "/x/y", "content": ""}] * 2}, "files[1] /x/y: is listed twice"),
        ({"files": [{"path": "/x/y", "content": "", "mode": "u+x"}]}, "mode 'u+x' is not octal"),
        ({"files": [{"path": "/x/y", "content": "", "mode": "99999"}]}, "is not octal"),
        ({"files": [{"path": "/x/y"}]}, "files[0] /x/y: content is missing"),
        ({"files": [{"path": "/dev/null/y", "content": ""}]}, "/dev/null/y: "),
        ({"files": [], "owner": "nobody-of-this-name"}, "owner: there is no 'nobody-of-this-name' on this host"),
    ],
)
def test_bad_input_is_one_line(arguments: dict[str, t.Any], text: str) -> None:
    done = run(**arguments)
    assert done["failed"] and text in done["msg"] and "\n" not in done["msg"]
