# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Declarations: what is taken, and the one line that says why something is not."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import spec

GOOD: dict[str, t.Any] = {"name": "default", "originals": "/srv/data"}


def _problems(*declarations: t.Any) -> list[str]:
    with pytest.raises(spec.SpecError) as caught:
        spec.parse(list(declarations), ["generic"])
    return caught.value.problems


@pytest.mark.parametrize(
    ("value", "due"),
    [("512m", 512 << 20), ("2g", 2 << 30), ("2G", 2 << 30), ("1t", 1 << 40), (1048576, 1 << 20), ("64k", 65536), ("7", 7)],
)
def test_size(value: t.Any, due: int) -> None:
    assert spec.size(value) == due


@pytest.mark.parametrize("value", ["0", 0, "12 elephants", "-1g", "1.5g", "", None, True, 1.0, "g", "1gb", "١m", " 1m", "9" * 30])
def test_size_refused(value: t.Any) -> None:
    with pytest.raises(ValueError, match="is not a size: write a whole number above 0"):
        spec.size(value)


@pytest.mark.parametrize(("count", "due"), [(0, "0"), (1, "1"), (1024, "1k"), (3 << 30, "3g"), ((1 << 30) + 1, "1073741825")])
def test_human(count: int, due: str) -> None:
    assert spec.human(count) == due


def test_defaults() -> None:
    (sandbox,) = spec.parse([GOOD], ["generic"])
    assert (sandbox.memory, sandbox.nano_cpus, sandbox.pids, sandbox.run_as) == (2 << 30, 1_000_000_000, 256, "own")
    assert sandbox.runtime == "runc"


@pytest.mark.parametrize(("runtime", "pids"), [("runc", 16), ("gvisor", 128)])
def test_runtimes(runtime: str, pids: int) -> None:
    (sandbox,) = spec.parse([{**GOOD, "runtime": runtime, "pids": pids}], ["generic"])
    assert (sandbox.runtime, sandbox.pids) == (runtime, pids)


def test_sorted_by_name() -> None:
    names = [sandbox.name for sandbox in spec.parse([{**GOOD, "name": "b"}, {**GOOD, "name": "a"}], ["generic"])]
    assert names == ["a", "b"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "a/b"}, "sandboxes[0]: name: 'a/b' is not a sandbox name: 1 to 32 of a-z, 0-9 and -, with no - at either end"),
        ({"name": "Upper"}, "name: 'Upper' is not a sandbox name"),
        ({"name": "x" * 300}, "(300 characters) is not a sandbox name"),
        ({"name": "-a"}, "name: '-a' is not a sandbox name"),
        ({"name": "a.b"}, "name: 'a.b' is not a sandbox name"),
        ({"name": "a\n"}, "is not a sandbox name"),
        ({"name": None}, "sandboxes[0]: name: missing"),
        ({"originals": None}, "sandbox default: originals: missing"),
        ({"originals": "data"}, "originals: 'data' is not an absolute path"),
        ({"originals": "/a:b"}, "originals: '/a:b' has a colon, which the options of a mount cannot carry"),
        ({"originals": "/a,b"}, "originals: '/a,b' has a comma"),
        ({"originals": "/a\\b"}, "has a backslash"),
        ({"originals": "/a\nb"}, "has a control character"),
        ({"originals": "/a/../b"}, "is not a plain path"),
        ({"memory": "0"}, "memory: '0' is not a size"),
        ({"memory": "12 elephants"}, "memory: '12 elephants' is not a size: write a whole number above 0 with k, m, g or t, such as 512m"),
        ({"memory": "1m"}, "memory: '1m' is too little: at least 64m"),
        ({"working_set": "299m"}, "working_set: '299m' is too little: at least 300m"),
        ({"working_set": "lots"}, "working_set: 'lots' is not a size"),
        ({"cpus": "many"}, "cpus: 'many' is not a number of processors"),
        ({"cpus": 0}, "cpus: 0 is not a number of processors"),
        ({"cpus": "nan"}, "cpus: 'nan' is not a number of processors"),
        ({"pids": 1}, "pids: 1 is not a whole number from 16 to 32768"),
        ({"pids": True}, "pids: True is not a whole number"),
        ({"preset": "nope"}, "preset: 'nope' is not a preset there is: use generic"),
        ({"run_as": "root"}, "run_as: 'root' is not one of own, owner"),
        ({"runtime": "kata"}, "sandbox default: runtime: 'kata' is not one of runc, gvisor"),
        ({"runtime": "gvisor", "pids": 127}, "pids: 127 is too little under gvisor, whose own threads count: at least 128"),
        ({"colour": "red"}, "sandbox default: colour is not a key of a sandbox"),
    ],
)
def test_refused(change: dict[str, t.Any], said: str) -> None:
    (problem,) = _problems({**GOOD, **change})
    assert said in problem
    assert "\n" not in problem


def test_all_problems_at_once() -> None:
    assert len(_problems({"name": "a/b"}, "text", {**GOOD, "memory": "0", "pids": 0}, GOOD, GOOD)) == 6


def test_declared_twice() -> None:
    assert _problems(GOOD, GOOD) == ["sandbox default: declared twice: give each sandbox a name of its own"]


def test_not_a_list() -> None:
    with pytest.raises(spec.SpecError, match="sandboxes: a list is due, not str"):
        spec.parse("default", ["generic"])


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([], "argv: the command is empty"),
        ("ls -l", r"argv: a list of texts is due, such as \[\"ls\", \"-l\"\], not str"),
        (["ls", 1], r"argv\[1\]: a text is due, not int"),
        (["a\0b"], r"argv\[0\]: has a NUL character"),
        (["ls", "\udcff"], r"argv\[1\]: is not UTF-8"),
        ([""], r"argv\[0\]: the program's name is empty"),
        (None, "argv: a list of texts is due"),
    ],
)
def test_argv_refused(value: t.Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        spec.argv(value)


def test_argv_is_taken_as_it_is() -> None:
    assert spec.argv(["sh", "-c", "echo '{{ x }}' \n; $(id)", ""]) == ["sh", "-c", "echo '{{ x }}' \n; $(id)", ""]
