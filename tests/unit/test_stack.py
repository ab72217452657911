# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stack: parts are joined, and the engine's call and the Compose file say the same."""

from __future__ import annotations

import copy
import json
import typing as t

import pytest
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import hardening, places, sandboxes, spec, stack, workset

PLACES = places.Places()
(SANDBOX,) = spec.parse([{"name": "default", "originals": "/srv/data", "memory": "1g", "cpus": "1.5"}], ["generic"])
ENV = sandboxes.env_part([SANDBOX], {"generic": "sha256:abc"}, {"default": (990000, 990000)}, PLACES)
FS = {"sandboxes": {"default": workset.WorkingSet(PLACES, "default", "/srv/data", 990000, 990000).part()}}
WHOLE = stack.merge([ENV, FS])["default"]


def test_merge_joins_mounts_in_phase_order() -> None:
    assert [mount["target"] for mount in WHOLE["mounts"]] == ["/etc/passwd", "/etc/group", "/workspace", "/originals"]


def test_a_later_phase_makes_no_sandbox() -> None:
    assert list(stack.merge([{"sandboxes": {}}, FS])) == []


@pytest.mark.parametrize(
    ("addition", "said"),
    [({"image": "x"}, "two phases set image"), ({"tmpfs": {"/tmp": 1}}, "two phases set tmpfs /tmp")],
)
def test_phases_may_not_contradict(addition: dict[str, t.Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        stack.merge([ENV, {"sandboxes": {"default": addition}}])


def test_a_container_has_no_way_out_and_a_cap_on_everything() -> None:
    host = stack.container("default", WHOLE, "{}")["HostConfig"]
    assert host["NetworkMode"] == "none"
    assert host["CapDrop"] == ["ALL"]
    assert host["ReadonlyRootfs"] is True
    assert host["SecurityOpt"] == ["no-new-privileges", "seccomp={}"]
    assert (host["Memory"], host["MemorySwap"], host["NanoCpus"], host["PidsLimit"]) == (1 << 30, 1 << 30, 1_500_000_000, 256)
    assert {limit["Name"]: limit["Hard"] for limit in host["Ulimits"]} == {"core": 0, "fsize": 4 << 30, "nofile": 4096}
    assert all("nosuid,nodev,size=" in options for options in host["Tmpfs"].values())


def test_originals_are_never_bound() -> None:
    body = json.dumps(stack.container("default", WHOLE, "{}"))
    assert '"/srv/data"' not in body
    mounts = stack.container("default", WHOLE, "{}")["HostConfig"]["Mounts"]
    assert [mount["Target"] for mount in mounts if mount["Type"] == "bind"] == ["/etc/passwd", "/etc/group"]


def test_overlay_options_are_pinned() -> None:
    volumes = stack.volumes(WHOLE)
    assert volumes["sandbox-default-workspace"]["o"] == (
        "lowerdir=/run/dockersandbox/lower/default,upperdir=/var/lib/dockersandbox/sandboxes/default/delta/upper,"
        "workdir=/var/lib/dockersandbox/sandboxes/default/delta/work,index=on,redirect_dir=nofollow,metacopy=off,nosuid,nodev"
    )
    assert volumes["sandbox-default-originals"]["o"].startswith("ro,lowerdir=")


def test_compose_says_what_the_engine_is_told() -> None:
    body = stack.container("default", WHOLE, "{}")
    service = stack.compose({"default": WHOLE}, "./seccomp.json")["services"]["sandbox-default"]
    host = body["HostConfig"]
    assert service["user"] == body["User"]
    assert [f"{key}={value}" for key, value in service["environment"].items()] == body["Env"]
    assert service["tmpfs"] == [f"{path}:{options}" for path, options in host["Tmpfs"].items()]
    assert [(m["target"], m["read_only"]) for m in service["volumes"]] == [(m["Target"], m["ReadOnly"]) for m in host["Mounts"]]
    assert (service["mem_limit"], service["cpus"] * 1e9, service["pids_limit"]) == (host["Memory"], host["NanoCpus"], host["PidsLimit"])
    assert {key: value["hard"] for key, value in service["ulimits"].items()} == {u["Name"]: u["Hard"] for u in host["Ulimits"]}


@pytest.mark.parametrize("key", ["image", "uid", "memory", "pids", "mounts", "environment", "tmpfs", "file_size"])
def test_any_change_is_another_container(key: str) -> None:
    other = copy.deepcopy(WHOLE)
    other[key] = {"int": 1, "str": "x", "list": [], "dict": {"/tmp": 1}}[type(other[key]).__name__]
    if key == "environment":
        other[key] = {"A": "1"}
    label = "dockersandbox.guardrails.spec"
    assert stack.container("default", other, "{}")["Labels"][label] != stack.container("default", WHOLE, "{}")["Labels"][label]


def _inspected() -> dict[str, t.Any]:
    body = stack.container("default", WHOLE, "{}")
    return copy.deepcopy({"Config": {"Labels": body["Labels"]}, "HostConfig": body["HostConfig"]})


def test_no_drift() -> None:
    assert stack.drift(stack.container("default", WHOLE, "{}"), _inspected()) == []


@pytest.mark.parametrize(("key", "value"), [("Memory", 1), ("PidsLimit", None), ("NetworkMode", "host"), ("CapDrop", None)])
def test_drift_of_a_live_container(key: str, value: t.Any) -> None:
    inspected = _inspected()
    inspected["HostConfig"][key] = value
    (reason,) = stack.drift(stack.container("default", WHOLE, "{}"), inspected)
    assert reason.startswith(f"{key} is {value}")


GOOD_PROBE = """\
Uid:\t990000\t990000\t990000\t990000
Gid:\t990000\t990000\t990000\t990000
Groups:\t990000
CapInh:\t0000000000000000
CapPrm:\t0000000000000000
CapEff:\t0000000000000000
CapBnd:\t0000000000000000
CapAmb:\t0000000000000000
NoNewPrivs:\t1
Seccomp:\t2
## status
Max open files            4096                 4096                 files
Max file size             4294967296           4294967296           bytes
Max core file size        0                    0                    bytes
## limits
1 0 0:1 / / ro,relatime - overlay overlay rw,lowerdir=x
2 1 0:2 / /tmp rw,nosuid,nodev - tmpfs tmpfs rw,size=262144k
3 1 0:3 / /home/agent rw,nosuid,nodev - tmpfs tmpfs rw,size=262144k
4 1 0:4 / /etc/passwd ro - ext4 /dev/a rw
5 1 0:4 / /etc/group ro - ext4 /dev/a rw
6 1 0:5 / /workspace rw,nosuid,nodev - overlay overlay rw
7 1 0:6 / /originals ro,nosuid,nodev - overlay overlay ro
## mountinfo
lo
## net
1073741824
## memory
256
## pids
## written
## forbidden
## sockets
## setuid
"""


def test_probe_of_a_sound_sandbox() -> None:
    assert hardening.problems(GOOD_PROBE, WHOLE) == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("Uid:\t990000\t990000", "Uid:\t0\t0", "Uid is 0 0"),
        ("Groups:\t990000", "Groups:\t990000 0", "it is in other groups too: 0"),
        ("CapBnd:\t0000000000000000", "CapBnd:\t0000000000000400", "CapBnd is 0000000000000400: capabilities are left"),
        ("NoNewPrivs:\t1", "NoNewPrivs:\t0", "new privileges can be gained"),
        ("Seccomp:\t2", "Seccomp:\t0", "no seccomp filter is in force"),
        ("4096                 4096 ", "8192                 8192 ", "Max open files is"),
        ("core file size        0                    0 ", "core file size        9                    9 ", "core dumps"),
        ("/ / ro,relatime - overlay overlay rw", "/ / rw,relatime - overlay overlay rw", "the root file system is writable"),
        ("/tmp rw,nosuid,nodev", "/tmp rw,nodev", "/tmp is not a tmpfs with nosuid and nodev"),
        ("tmpfs rw,size=262144k\n3", "tmpfs rw\n3", "/tmp has no size limit"),
        ("/originals ro,nosuid,nodev - overlay overlay ro", "/originals rw,nosuid,nodev - overlay overlay rw", "/originals is mounted without ro"),
        ("6 1 0:5 / /workspace rw,nosuid,nodev - overlay overlay rw\n", "", "/workspace is not mounted"),
        ("lo\n## net", "eth0\nlo\n## net", "there are network interfaces: eth0, lo"),
        ("1073741824\n## memory", "## memory", "the cap on memory is not there"),
        ("256\n## pids", "max\n## pids", "the cap on pids is max"),
        ("## written", "/usr/x\n## written", "/usr/x could be written"),
        ("## forbidden", "unshare\n## forbidden", "unshare was allowed: the seccomp profile is not in force"),
        ("## sockets", "/run/docker.sock\n## sockets", "/run/docker.sock is there"),
        ("## setuid", "/bin/su\n## setuid", "/bin/su carries a set-id bit"),
        ("## setuid\n", "", "the probe was cut short"),
    ],
)
def test_probe_finds(old: str, new: str, said: str) -> None:
    assert old in GOOD_PROBE
    (problem,) = hardening.problems(GOOD_PROBE.replace(old, new), WHOLE)
    assert said in problem
