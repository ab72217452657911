# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What gVisor needs of an engine and of apt, as tables."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import gvisor

GOOD = [*gvisor.ARGUMENTS]


@pytest.mark.parametrize(
    ("runtimes", "said"),
    [
        ({"runc": {"path": "runc"}, "runsc": gvisor.RUNTIME}, None),
        ({"runsc": {"path": "/elsewhere/runsc", "runtimeArgs": [*reversed(GOOD), "--debug"]}}, None),
        ({"runsc": {"path": "runsc", "runtimeArgs": ["--network=none", "--host-uds=open", "--oci-seccomp=true"]}}, None),
        ({}, "the engine has no runtime runsc"),
        ({"runc": {"path": "runc"}}, "the engine has no runtime runsc"),
        ({"runsc": {"path": "runsc"}}, "the engine's runtime runsc lacks --network=none --host-uds=open --oci-seccomp"),
        ({"runsc": {"path": "runsc", "runtimeArgs": None}}, "lacks --network=none --host-uds=open --oci-seccomp"),
        ({"runsc": {"path": "runsc", "runtimeArgs": GOOD[:2]}}, "lacks --oci-seccomp"),
        ({"runsc": {"path": "runsc", "runtimeArgs": [*GOOD[:2], "--oci-seccomp=false"]}}, "lacks --oci-seccomp"),
        ({"runsc": {"path": "runsc", "runtimeArgs": ["--network=host", *GOOD[1:]]}}, "lacks --network=none"),
        ({"runsc": {"path": "runsc", "runtimeArgs": [*GOOD, "--ignore-cgroups"]}}, "has --ignore-cgroups"),
        ({"runsc": {"path": "runsc", "runtimeArgs": [*GOOD, "--ignore-cgroups=true"]}}, "has --ignore-cgroups"),
    ],
)
def test_a_runtime_that_would_be_weaker_is_none(runtimes: dict[str, t.Any], said: str | None) -> None:
    problem = gvisor.runtime_problem(runtimes)
    assert problem is None if said is None else problem is not None and said in problem


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        ("", ""),
        ("http://mirror.example/debian $(SIGNED_BY)\n", "deb [lang=none] http://mirror.example/debian trixie main\n"),
        (
            "http://mirror.example/debian /usr/share/keyrings/debian-archive-keyring.gpg\n",
            "deb [lang=none signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://mirror.example/debian trixie main\n",
        ),
        # Several keys, or one that is written out, are left to apt's own.
        ("http://mirror.example/debian /a.gpg /b.gpg\n", "deb [lang=none] http://mirror.example/debian trixie main\n"),
        ("file:/b $(SIGNED_BY)\nfile:/a $(SIGNED_BY)\nfile:/b $(SIGNED_BY)\n", "deb [lang=none] file:/a trixie main\ndeb [lang=none] file:/b trixie main\n"),
    ],
)
def test_the_hosts_own_mirrors_with_another_suite(targets: str, expected: str) -> None:
    assert gvisor.sources(targets, "trixie") == expected


@pytest.mark.parametrize(
    ("suite", "listed", "paths"),
    [
        ("trixie", "deb [lang=none] file:/a trixie main\n", [gvisor.PINS, gvisor.SOURCES]),
        ("trixie", "", [gvisor.PINS]),
        ("", "", []),
        ("", "deb [lang=none] file:/a trixie main\n", []),
    ],
)
def test_pins_come_before_the_sources_that_they_tame(suite: str, listed: str, paths: list[t.Any]) -> None:
    files = gvisor.files(suite, listed)
    assert [file.path for file in files if file.content is not None] == paths
    assert {file.path for file in files if file.content is None} == (set() if suite else {gvisor.PINS, gvisor.SOURCES})
    for file in files:
        if file.path == gvisor.PINS and file.content:
            pins = [block.split("\n") for block in file.content.decode().split("\n\n")]
            assert [lines[-3:] if lines[-1] else lines[-4:-1] for lines in pins] == [
                ["Package: *", "Pin: release n=trixie", "Pin-Priority: -1"],
                ["Package: runsc", "Pin: release n=trixie", "Pin-Priority: 500"],
            ]
