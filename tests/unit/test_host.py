# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What makes a host unfit, as a table, and a look at the real one."""

from __future__ import annotations

import dataclasses
import os
import typing as t
from pathlib import Path

import modules
import pytest
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import gvisor, host

ENGINE = host.Engine(error=None, version="20.10.24+dfsg1", live_restore=True, seccomp=True)
FIT = host.Facts(
    system="debian",
    version="12",
    title="Debian GNU/Linux 12 (bookworm)",
    kernel="6.1.0-18-amd64",
    machine="x86_64",
    python=(3, 11),
    uid=0,
    cgroups=2,
    controllers=frozenset({"cpu", "memory", "pids"}),
    seccomp=frozenset({"allow", "errno"}),
    overlay=None,
    idmap=None,
    spaces=(host.Space("/var/lib", "bootstrap_data", 8 << 30),),
    engine=ENGINE,
    service_manager="systemd",
    managed=False,
    packaged=True,
    config_problem=None,
)
GVISOR = dataclasses.replace(ENGINE, runtimes={"runc": {"path": "runc"}, "runsc": gvisor.RUNTIME})
DEAD = host.Engine(error="Docker does not answer on /var/run/docker.sock: refused; start it")


@pytest.mark.parametrize(
    ("change", "wishes", "texts"),
    [
        ({}, {}, []),
        ({"version": "13"}, {}, []),
        ({"engine": None, "managed": True}, {}, []),
        ({"machine": "aarch64"}, {}, []),
        ({"system": "ubuntu", "version": "24.04", "title": "Ubuntu"}, {}, ["operating system: this is Ubuntu, tested"]),
        ({"system": "ubuntu", "version": "24.04"}, {"allow_untested_os": True}, []),
        ({"version": "11"}, {}, ["bootstrap_allow_untested_os"]),
        ({"kernel": "5.10.0-28"}, {}, ["kernel: 5.10.0-28, but idmapped mounts came with 5.12"]),
        ({"kernel": "5.10.0-28", "idmap": "Function not implemented"}, {}, ["kernel: "]),
        ({"kernel": "5.12-rc1"}, {}, []),
        ({"machine": "armv7l"}, {}, ["processor: this is armv7l"]),
        ({"uid": 1000}, {}, ["user: the play runs as uid 1000 on this host, it needs root; set ansible_become"]),
        ({"python": (3, 9)}, {}, ["python: 3.9 runs the modules"]),
        ({"cgroups": 0, "controllers": frozenset()}, {}, ["cgroups: no hierarchy is mounted"]),
        ({"controllers": frozenset({"cpu"})}, {}, ["cgroups: version 2 without memory, pids; "]),
        ({"cgroups": 1}, {}, ["cgroups: version 1 without freezer; "]),
        ({"cgroups": 1, "controllers": frozenset({"cpu", "memory", "pids", "freezer"})}, {}, []),
        ({"overlay": "No such device"}, {}, ["overlayfs: a trial mount at bootstrap_data failed (No such device)"]),
        ({"idmap": "Invalid argument"}, {}, ["idmapped mounts: a trial mount at bootstrap_data failed (Invalid arg"]),
        ({"seccomp": frozenset()}, {}, ["seccomp: the kernel does not filter system calls"]),
        ({}, {"min_free_disk": 9 << 30}, ["disk: 8192 MiB free at /var/lib, 9216 MiB are wanted; make room"]),
        ({}, {"min_free_disk": 8 << 30}, []),
        ({"engine": DEAD}, {}, ["Docker does not answer on /var/run/docker.sock: refused; start it, or"]),
        ({"engine": DEAD, "managed": True}, {}, []),
        ({"engine": DEAD, "managed": True}, {"engine_must_answer": True}, ["Docker does not answer on"]),
        ({"engine": dataclasses.replace(ENGINE, version="19.3.8")}, {}, ["the engine is 19.3.8; install 20.10"]),
        ({"engine": dataclasses.replace(ENGINE, version="26.1.5")}, {}, []),
        ({"engine": dataclasses.replace(ENGINE, live_restore=False)}, {}, ["live-restore is off"]),
        ({"engine": dataclasses.replace(ENGINE, live_restore=False), "managed": True}, {}, []),
        (
            {"engine": dataclasses.replace(ENGINE, live_restore=False), "managed": True},
            {"engine_must_answer": True},
            ["live-restore is off"],
        ),
        ({"engine": dataclasses.replace(ENGINE, seccomp=False)}, {}, ["the engine was built without seccomp"]),
        ({}, {"gvisor": True}, ["gVisor: a sandbox asks for it, but the engine has no runtime runsc; add one with the arguments --network=none"]),
        ({}, {"gvisor": True, "manage_engine": True}, ["or set bootstrap_manage_engine: true"]),
        ({"managed": True}, {"gvisor": True}, []),
        ({"managed": True}, {"gvisor": True, "engine_must_answer": True}, ["but the engine has no runtime runsc"]),
        ({"engine": GVISOR}, {"gvisor": True, "engine_must_answer": True}, []),
        ({"engine": None, "managed": True}, {"gvisor": True}, []),
        ({"config_problem": "Docker: it is not JSON"}, {}, ["it is not JSON"]),
        (
            {"version": "11", "uid": 5, "kernel": "4.19.0", "engine": DEAD, "seccomp": frozenset(), "cgroups": 0},
            {"min_free_disk": 1 << 40},
            ["operating system", "user", "kernel", "cgroups", "seccomp", "disk", "Docker"],
        ),
    ],
)
def test_every_unmet_need_is_one_line(change: dict[str, t.Any], wishes: dict[str, t.Any], texts: list[str]) -> None:
    found = host.unmet(dataclasses.replace(FIT, **change), host.Wishes(**wishes))
    assert len(found) == len(texts)
    for line, text in zip(found, texts, strict=True):
        assert text in line
        assert "\n" not in line


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("6.18.44-fc", (6, 18)),
        ("20.10.24+dfsg1", (20, 10)),
        ("5.12-rc1", (5, 12)),
        ("7", (7, 0)),
        ("", (0, 0)),
        ("dev", (0, 0)),
    ],
)
def test_numbers(version: str, expected: tuple[int, int]) -> None:
    assert host.numbers(version) == expected


V1 = "cgroup /sys/fs/cgroup/{0} cgroup rw,nosuid,{0} 0 0\n"
V2 = "none /sys/fs/cgroup{} cgroup2 rw 0 0\n"


@pytest.mark.parametrize(
    ("proc_mounts", "unified", "expected"),
    [
        ("", [], (0, set())),
        ("proc /proc proc rw 0 0\n", ["cpu"], (0, set())),
        (V2.format(""), ["cpu", "memory", "pids"], (2, {"cpu", "memory", "pids"})),
        (V1.format("memory") + V1.format("cpu,cpuacct") + V2.format("/unified"), [], (1, {"memory", "cpu"})),
        (V1.format("name=systemd") + V2.format(""), ["pids"], (2, {"pids"})),
    ],
)
def test_cgroups(proc_mounts: str, unified: list[str], expected: tuple[int, set[str]]) -> None:
    version, controllers = host.cgroups(proc_mounts, unified)
    assert (version, set(controllers)) == expected


@pytest.mark.parametrize(
    ("existing", "with_gvisor", "expected"),
    [
        ({}, False, {"live-restore": True, "log-driver": "local", "log-opts": {"max-size": "10m", "max-file": "3"}}),
        ({"log-driver": "journald", "mtu": 1400}, False, {"log-driver": "journald", "mtu": 1400, "live-restore": True}),
        ({"live-restore": False, "log-opts": {}}, False, {"log-opts": {}, "live-restore": True}),
        ({"log-opts": {}}, True, {"log-opts": {}, "live-restore": True, "runtimes": {"runsc": gvisor.RUNTIME}}),
        (
            {"log-opts": {}, "runtimes": {"own": {"path": "/own"}, "runsc": {"path": "/old"}}},
            True,
            {"log-opts": {}, "live-restore": True, "runtimes": {"own": {"path": "/own"}, "runsc": gvisor.RUNTIME}},
        ),
        # It harms nobody, and a sandbox that is not made anew yet may need it.
        ({"log-opts": {}, "runtimes": {"runsc": 1}}, False, {"log-opts": {}, "live-restore": True, "runtimes": {"runsc": 1}}),
    ],
)
def test_what_the_operator_has_set_stays(existing: dict[str, t.Any], with_gvisor: bool, expected: dict[str, t.Any]) -> None:
    assert host.engine_config(existing, with_gvisor) == expected
    assert host.engine_config(expected, with_gvisor) == expected


@pytest.mark.parametrize(
    ("engine", "wanted", "due"),
    [
        (ENGINE, False, True),
        (ENGINE, True, False),
        (GVISOR, True, True),
        (dataclasses.replace(GVISOR, live_restore=False), True, False),
    ],
)
def test_an_engine_is_configured(engine: host.Engine, wanted: bool, due: bool) -> None:
    assert host.configured(engine, host.Wishes(gvisor=wanted)) is due


def test_nearest(tmp_path: Path) -> None:
    assert host.nearest(f"{tmp_path}/a/b/c") == str(tmp_path)
    assert host.nearest(str(tmp_path)) == str(tmp_path)


def test_a_look_leaves_no_trace(tmp_path: Path) -> None:
    answer = modules.run("host_preflight", check=True, data=f"{tmp_path}/data", min_free_disk="1000000g")
    assert any(need.startswith("disk: ") for need in answer["needs"])
    assert answer["failed"]
    assert list(tmp_path.iterdir()) == []
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text(encoding="utf-8")


def test_a_wrong_size_names_the_variable() -> None:
    answer = modules.run("host_preflight", data="/", min_free_disk="12 elephants")
    assert answer["msg"].startswith("bootstrap_min_free_disk: '12 elephants' is not a size")


def test_a_trial_that_was_killed_is_cleared_by_the_next(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    dead, alive = 2**22 + 1, os.getpid()
    for folder in (tmp_path, data):
        for number in (dead, alive):
            (folder / f".guardrails-trial-{number}-x" / "work").mkdir(parents=True)
    host.gather(str(data), host.Wishes())
    left = sorted(path.name for folder in (tmp_path, data) for path in folder.iterdir() if path != data)
    assert left == [f".guardrails-trial-{alive}-x"] * 2
