# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stack: parts are joined, and the engine's call and the Compose file say the same."""

from __future__ import annotations

import copy
import json
import typing as t

import pytest
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import gvisor, hardening, places, sandboxes, spec, stack, workset

PLACES = places.Places()
(SANDBOX,) = spec.parse([{"name": "default", "originals": "/srv/data", "memory": "1g", "cpus": "1.5"}], ["generic"])
ENV = sandboxes.env_part([SANDBOX], {"generic": "sha256:abc"}, {"default": (990000, 990000)}, PLACES, {"generic": {"PS1": "$PWD> "}})
FS = {"sandboxes": {"default": workset.WorkingSet(PLACES, "default", "/srv/data", 990000, 990000, 4 << 30).part()}}
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
    assert host["OomScoreAdj"] == 500
    assert {"/proc/kcore", "/proc/kallsyms", "/sys/kernel", "/sys/devices/virtual/powercap"} <= set(host["MaskedPaths"])
    assert "/proc/sys" in host["ReadonlyPaths"]
    assert {limit["Name"]: limit["Hard"] for limit in host["Ulimits"]} == {"core": 1, "fsize": 4 << 30, "nofile": 4096}
    assert all("nosuid,nodev,size=" in options for options in host["Tmpfs"].values())


@pytest.mark.parametrize(("runtime", "program"), [({}, "/usr/local/libexec/catatonit"), ({"runtime": "gvisor"}, "/usr/bin/catatonit")])
def test_the_first_process_is_closed_to_its_user_where_the_kernel_is_shared(runtime: dict[str, str], program: str) -> None:
    assert stack.container("default", {**WHOLE, **runtime}, "{}")["Entrypoint"] == [program, "-P"]


SOCKET = "/run/guardrails/egress/egress.sock"


@pytest.mark.parametrize(("runtime", "program"), [("runc", "/usr/local/libexec/guardrails-python"), ("gvisor", "/usr/bin/python3")])
def test_a_first_process_that_forwards(runtime: str, program: str) -> None:
    parts = [{"sandboxes": {"default": {"forwards": {port: SOCKET}}}} for port in ("4000", "3128")]
    whole = stack.merge([{"sandboxes": {"default": {**ENV["sandboxes"]["default"], "runtime": runtime}}}, FS, *parts])["default"]
    given = [program, "-I", "-S", "/usr/local/libexec/guardrails-forward.py", f"3128={SOCKET}", f"4000={SOCKET}"]
    assert stack.container("default", whole, "{}")["Entrypoint"] == given
    assert stack.compose({"default": whole}, "./seccomp.json")["services"]["sandbox-default"]["entrypoint"] == given
    with pytest.raises(ValueError, match="two phases set forwards 4000"):
        stack.merge([ENV, *parts, parts[0]])


@pytest.mark.parametrize(
    ("row", "ports"),
    [
        ("   0: 0100007F:0C38 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1", {3128}),
        ("   0: 0100007F:0C38 0100007F:A001 01 00000000:00000000 00:00000000 00000000     0        0 1 1", set()),
        ("   0: 00000000:0C38 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1", set()),
        ("", set()),
    ],
)
def test_ports_at_which_something_listens(row: str, ports: set[int]) -> None:
    assert stack.listening(f"  sl  local_address rem_address   st tx_queue rx_queue\n{row}\n") == ports


def test_originals_are_never_bound() -> None:
    body = json.dumps(stack.container("default", WHOLE, "{}"))
    assert '"/srv/data"' not in body
    mounts = stack.container("default", WHOLE, "{}")["HostConfig"]["Mounts"]
    assert [mount["Target"] for mount in mounts if mount["Type"] == "bind"] == ["/etc/passwd", "/etc/group"]


@pytest.mark.parametrize(("preset", "told"), [("generic", True), ("other", False)])
def test_a_preset_tells_its_own_sandboxes(preset: str, told: bool) -> None:
    part = sandboxes.env_part([SANDBOX], {"generic": "x"}, {"default": (1, 1)}, PLACES, {preset: {"A": "1"}})
    assert ("A=1" in stack.container("default", stack.merge([part])["default"], "{}")["Env"]) is told


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
    assert [f"{key}={value.replace('$$', '$')}" for key, value in service["environment"].items()] == body["Env"]
    assert service["tmpfs"] == [f"{path}:{options}" for path, options in host["Tmpfs"].items()]
    mounts = [(mount["Target"], mount["ReadOnly"]) for mount in host["Mounts"] if mount["Target"] != "/dev/pts"]
    assert [(mount["target"], mount["read_only"]) for mount in service["volumes"]] == mounts
    assert (service["mem_limit"], service["cpus"] * 1e9, service["pids_limit"]) == (host["Memory"], host["NanoCpus"], host["PidsLimit"])
    assert service["oom_score_adj"] == host["OomScoreAdj"]
    assert {key: value["hard"] for key, value in service["ulimits"].items()} == {u["Name"]: u["Hard"] for u in host["Ulimits"]}


@pytest.mark.parametrize(("said", "due"), [({}, "runc"), ({"runtime": "runc"}, "runc"), ({"runtime": "gvisor"}, gvisor.PACKAGE)])
def test_runtime(said: dict[str, str], due: str) -> None:
    described = {**{key: value for key, value in WHOLE.items() if key != "runtime"}, **said}
    body = stack.container("default", described, "{}")
    assert body["HostConfig"]["Runtime"] == due
    assert stack.compose({"default": described}, "./seccomp.json")["services"]["sandbox-default"]["runtime"] == due


@pytest.mark.parametrize("key", ["image", "runtime", "uid", "memory", "pids", "mounts", "environment", "tmpfs", "file_size"])
def test_any_change_is_another_container(key: str) -> None:
    other = copy.deepcopy(WHOLE)
    other[key] = {"int": 1, "str": "gvisor", "list": [], "dict": {"/tmp": 1}}[type(other[key]).__name__]
    if key == "environment":
        other[key] = {"A": "1"}
    label = "dockersandbox.guardrails.spec"
    assert stack.container("default", other, "{}")["Labels"][label] != stack.container("default", WHOLE, "{}")["Labels"][label]


def _inspected() -> dict[str, t.Any]:
    body = stack.container("default", WHOLE, "{}")
    return copy.deepcopy({"Config": {"Labels": body["Labels"]}, "HostConfig": body["HostConfig"]})


def test_no_drift() -> None:
    assert stack.drift(stack.container("default", WHOLE, "{}"), _inspected()) == []


@pytest.mark.parametrize(("key", "value"), [("Runtime", "runsc"), ("Memory", 1), ("PidsLimit", None), ("NetworkMode", "host"), ("CapDrop", None)])
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
Seccomp:\t2
## status
Seccomp:\t2
## first
Max open files            4096                 4096                 files
Max file size             4294967296           4294967296           bytes
Max core file size        1                    1                    bytes
## limits
1 0 0:1 / / ro,relatime - overlay overlay rw,lowerdir=x
2 1 0:2 / /tmp rw,nosuid,nodev - tmpfs tmpfs rw,size=262144k
3 1 0:3 / /home/agent rw,nosuid,nodev - tmpfs tmpfs rw,size=262144k
4 1 0:4 / /etc/passwd ro - ext4 /dev/a rw
5 1 0:4 / /etc/group ro - ext4 /dev/a rw
8 1 0:7 / /dev/pts rw,nosuid,noexec - devpts devpts rw,max=64
6 1 0:5 / /workspace rw,nosuid,nodev - overlay overlay rw
7 1 0:6 / /originals ro,nosuid,nodev - overlay overlay ro
## mountinfo
    lo:       0       0    0    0    0     0          0         0        0       0    0    0    0     0       0          0
## net
## ports
MemTotal:        8048576 kB
## total
1073741824
## memory
134217728
## tcp
256
## pids
## written
tried
## forbidden
## sockets
## setuid
"""
UNDER_GVISOR = {**WHOLE, "runtime": "gvisor"}
GVISOR_PROBE = """\
Uid:\t990000\t990000\t990000\t990000
Gid:\t990000\t990000\t990000\t990000
Groups:\t990000
CapInh:\t0000000000000000
CapPrm:\t0000000000000000
CapEff:\t0000000000000000
CapBnd:\t0000000000000000
Seccomp:\t2
## status
Seccomp:\t2
## first
Max open files            4096                 4096                 files
Max file size             4294967296           4294967296           bytes
Max core file size        1                    1                    bytes
## limits
16 15 0:17 / / ro - 9p none ro,trans=fd,rfdno=4,wfdno=4,aname=/,cache=fscache,directfs
20 16 0:20 / /tmp rw - tmpfs none rw,mode=1777,size=268435456
21 16 0:21 / /home/agent rw - tmpfs none rw,mode=0700,size=268435456
24 16 0:24 / /etc/passwd ro - 9p none ro,trans=fd
25 16 0:25 / /etc/group ro - 9p none ro,trans=fd
26 16 0:26 / /workspace rw - 9p none rw,trans=fd
27 16 0:27 / /originals rw - 9p none rw,trans=fd
## mountinfo
    lo:       0       0    0    0    0     0          0         0        0       0    0    0    0     0       0          0
## net
## ports
MemTotal:        1048576 kB
## total
9223372036854775807
## memory
## tcp
max
## pids
## written
tried
memory of the first process
## forbidden
## sockets
## setuid
"""


@pytest.mark.parametrize("tcp", ["134217728\n", ""], ids=["cgroup 1", "cgroup 2"])
def test_probe_of_a_sound_sandbox(tcp: str) -> None:
    assert hardening.problems(GOOD_PROBE.replace("134217728\n## tcp", f"{tcp}## tcp"), WHOLE) == []
    assert hardening.problems(GVISOR_PROBE, UNDER_GVISOR) == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("Uid:\t990000\t990000", "Uid:\t0\t0", "Uid is 0 0"),
        ("Groups:\t990000", "Groups:\t990000 0", "it is in other groups too: 0"),
        ("CapBnd:\t0000000000000000", "CapBnd:\t0000000000000400", "CapBnd is 0000000000000400: capabilities are left"),
        ("Seccomp:\t2\n## status", "Seccomp:\t0\n## status", "no seccomp filter is in force"),
        ("Seccomp:\t2\n## first", "Seccomp:\t0\n## first", "no seccomp filter is in force for its first process"),
        ("4096                 4096 ", "8192                 8192 ", "Max open files is"),
        ("core file size        1                    1 ", "core file size        0                    0 ", "core dumps"),
        ("/ / ro,relatime - overlay overlay rw", "/ / rw,relatime - overlay overlay rw", "the root file system is writable"),
        ("/tmp rw,nosuid,nodev", "/tmp rw,nodev", "/tmp is not a tmpfs with nosuid and nodev"),
        ("tmpfs rw,size=262144k\n3", "tmpfs rw\n3", "/tmp has no size limit"),
        ("/originals ro,nosuid,nodev - overlay overlay ro", "/originals rw,nosuid,nodev - overlay overlay rw", "/originals is mounted without ro"),
        ("6 1 0:5 / /workspace rw,nosuid,nodev - overlay overlay rw\n", "", "/workspace is not mounted"),
        ("rw,max=64", "rw", "pseudo-terminals are given out without a limit"),
        ("## net", "  eth0:       0       0\n## net", "there are network interfaces: eth0"),
        ("1073741824\n## memory", "## memory", "the cap on memory is not there"),
        ("134217728\n## tcp", "9223372036854771712\n## tcp", "the memory of TCP connections is capped at 9223372036854771712, not 134217728"),
        ("256\n## pids", "max\n## pids", "the cap on pids is max"),
        ("## written", "/usr/x\n## written", "/usr/x could be written"),
        ("tried", "unshare\ntried", "unshare was allowed: the seccomp profile is not in force"),
        ("tried", "new privileges\ntried", "new privileges was allowed: they can be gained"),
        ("tried\n", "", "the calls that the seccomp profile refuses could not be tried: perl is missing"),
        ("## forbidden", "memory of the first process\n## forbidden", "memory of the first process was allowed: build its image anew"),
        ("## sockets", "/run/docker.sock\n## sockets", "/run/docker.sock is there"),
        ("## setuid", "/bin/su\n## setuid", "/bin/su carries a set-id bit"),
        ("## setuid\n", "", "the probe was cut short"),
    ],
)
def test_probe_finds(old: str, new: str, said: str) -> None:
    assert old in GOOD_PROBE
    (problem,) = hardening.problems(GOOD_PROBE.replace(old, new), WHOLE)
    assert said in problem


@pytest.mark.parametrize(("row", "found"), [(f"0: 0100007F:0C38 00000000:0000 0A{' 0' * 8}\n", []), ("", ["nothing listens at 127.0.0.1:3128"])])
def test_probe_of_one_that_forwards(row: str, found: list[str]) -> None:
    problems = hardening.problems(GOOD_PROBE.replace("## ports", f"{row}## ports"), {**WHOLE, "forwards": {"3128": SOCKET}})
    assert [problem.partition(":")[0] + ":" + problem.split(":")[1] for problem in problems] == found


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("CapBnd:\t0000000000000000", "CapBnd:\t0000000000000400", "CapBnd is 0000000000000400: capabilities are left"),
        ("Seccomp:\t2\n## status", "Seccomp:\t0\n## status", "no seccomp filter is in force"),
        ("Seccomp:\t2\n## first", "Seccomp:\t0\n## first", "no seccomp filter is in force for its first process"),
        ("/ / ro - 9p none ro", "/ / rw - 9p none rw", "the root file system is writable"),
        ("/etc/passwd ro - 9p none ro", "/etc/passwd rw - 9p none rw", "/etc/passwd is mounted without ro"),
        ("mode=1777,size=268435456", "mode=1777", "/tmp has no size limit"),
        ("26 16 0:26 / /workspace rw - 9p none rw,trans=fd\n", "", "/workspace is not mounted"),
        ("MemTotal:        1048576 kB", "MemTotal:        8048576 kB", "it sees 8241741824 of memory, not at most 1073741824"),
        ("MemTotal:        1048576 kB\n", "", "it sees an unknown amount of memory"),
        ("## written", "/originals/x\n## written", "/originals/x could be written"),
        ("tried", "ptrace\ntried", "ptrace was allowed: the seccomp profile is not in force"),
    ],
)
def test_probe_finds_under_gvisor(old: str, new: str, said: str) -> None:
    assert old in GVISOR_PROBE
    (problem,) = hardening.problems(GVISOR_PROBE.replace(old, new), UNDER_GVISOR)
    assert said in problem
