# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is read on the controller: configuration files and jobs, refused in one line each."""

from __future__ import annotations

import json
import pathlib
import shutil
import typing as t

import pytest
from ansible_collections.dockersandbox.guardrails.plugins.action import config_check, run_file

CONFIGS = pathlib.Path(__file__).resolve().parents[2] / "configs"


@pytest.fixture
def configs(tmp_path: pathlib.Path) -> pathlib.Path:
    """A copy of the configuration, to spoil."""
    folder = tmp_path / "configs"
    shutil.copytree(CONFIGS, folder)
    return folder


def test_what_we_ship_is_as_its_schema_says() -> None:
    files, found = config_check.problems(CONFIGS)
    assert found == []
    assert files == sorted(f"configs/{file.name}" for file in CONFIGS.iterdir() if file.suffix in (".yml", ".json"))


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("sandboxes", "sandboxes: [{name: a/b, originals: /x}]", "configs/sandboxes.yml: sandboxes[0].name: 'a/b' is not what is due: 1 to 32 of"),
        ("sandboxes", "sandboxes: [{name: a, originals: /x, memory: 12 elephants}]", "sandboxes[0].memory: '12 elephants' is not what is due: Bytes, or"),
        ("sandboxes", "sandboxes: [{name: a, originals: /x, memory: '0'}]", "sandboxes[0].memory: '0' is not what is due"),
        ("sandboxes", "sandboxes: [{name: a, originals: /x, memory: 0}]", "sandboxes[0].memory: 0 is not what is due"),
        ("sandboxes", "sandboxes: [{name: a}]", "sandboxes[0]: 'originals' is a required property"),
        ("sandboxes", "sandboxes: text", "sandboxes: 'text' is not of type 'array'"),
        ("sandboxes", "", "top: 'sandboxes' is a required property"),
        ("sandboxes", "sandboxes: [", "configs/sandboxes.yml: is not YAML"),
        ("env", "env_base: latest", "env_base: 'latest' is not what is due"),
        ("env", "env_colour: red", "('env_colour' was unexpected)"),
        ("env", "env_presets: {a: {packages: ['x; id']}}", "env_presets.a.packages[0]"),
        ("fs", "fs_example: relative", "configs/fs.yml: fs_example"),
    ],
)
def test_a_wrong_file_is_named(configs: pathlib.Path, name: str, text: str, said: str) -> None:
    (configs / f"{name}.yml").write_text(text, encoding="utf-8")
    (problem,) = config_check.problems(configs)[1]
    assert said in problem
    assert problem.startswith(f"configs/{name}.yml: ")
    assert "\n" not in problem


def _job(folder: pathlib.Path, content: t.Any) -> pathlib.Path:
    path = folder / "job.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def test_a_job_is_data(tmp_path: pathlib.Path) -> None:
    argv = ["sh", "-c", "echo {{ lookup('pipe', 'id') }}"]
    assert run_file.job(_job(tmp_path, {"sandbox": "default", "argv": argv})) == {"sandbox": "default", "argv": argv, "originals": ""}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is not JSON"),
        ([], "an object is due"),
        ({"sandbox": "default"}, "an object is due"),
        ({"sandbox": 1, "argv": ["ls"]}, "sandbox: the name of a sandbox is due"),
        ({"sandbox": "default", "argv": "ls"}, "argv: a list of texts is due"),
        ({"sandbox": "default", "argv": []}, "argv: the command is empty"),
        ({"sandbox": "default", "argv": ["a\0"]}, "argv[0]: has a NUL character"),
        ({"sandbox": "default", "argv": ["ls"], "shell": True}, "shell is not a key of a job"),
        ({"sandbox": "default", "argv": ["ls"], "originals": "x"}, "'x' is not an absolute path"),
    ],
)
def test_a_wrong_job_is_refused(tmp_path: pathlib.Path, content: t.Any, said: str) -> None:
    with pytest.raises(ValueError, match="^run_file: ") as caught:
        run_file.job(_job(tmp_path, content))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_job_is_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ValueError, match="No such file or directory: give -e run_file=job.json"):
        run_file.job(tmp_path / "none.json")
