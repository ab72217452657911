# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""configs/seccomp.json as data: what it refuses is refused for a reason, and by nothing else let in again."""

from __future__ import annotations

import json
import pathlib
import typing as t

import pytest

PROFILE = json.loads((pathlib.Path(__file__).parents[2] / "configs" / "seccomp.json").read_text(encoding="utf-8"))
RULES: list[dict[str, t.Any]] = PROFILE["syscalls"]
ALLOWED = {name for rule in RULES if rule["action"] == "SCMP_ACT_ALLOW" for name in rule["names"]}
REFUSED = {name for rule in RULES if rule["action"] == "SCMP_ACT_ERRNO" for name in rule["names"]}
BY_ARGUMENT = {"clone", "ioctl", "memfd_create", "mknod", "mknodat", "mmap", "personality", "prlimit64", "setrlimit", "shmget", "socket", "socketpair"}
# One of the limits they set is refused.
LIMITS = {"prlimit64", "setrlimit"}
NOT_THERE = {"clone3", *LIMITS}

MUST_REFUSE = (
    "acct add_key bpf chroot clock_adjtime clock_settime delete_module fanotify_init finit_module fsconfig "
    "fsmount fsopen fspick init_module io_setup io_submit io_uring_enter io_uring_register io_uring_setup ioperm iopl kcmp "
    "kexec_file_load kexec_load keyctl lookup_dcookie mount mount_setattr move_mount name_to_handle_at "
    "open_by_handle_at open_tree perf_event_open pidfd_getfd pivot_root process_vm_readv process_vm_writev ptrace "
    "quotactl quotactl_fd reboot request_key setns settimeofday swapoff swapon syslog umount2 unshare userfaultfd "
    "vmsplice "
)

MUST_ALLOW = (
    "accept4 arch_prctl bind brk clock_gettime clock_nanosleep close close_range connect copy_file_range dup3 "
    "epoll_create1 epoll_ctl epoll_pwait eventfd2 execve exit_group faccessat2 fallocate fchmodat fchownat fcntl "
    "fdatasync flock fork fstat fsync ftruncate futex getcwd getdents64 getpid getrandom getuid inotify_add_watch "
    "inotify_init1 kill linkat listen lseek madvise memfd_create mkdirat mmap mprotect mremap munmap newfstatat "
    "openat openat2 pidfd_open pipe2 poll ppoll prctl pread64 prlimit64 pselect6 read readlinkat recvmsg "
    "renameat2 rseq rt_sigaction rt_sigprocmask rt_sigreturn sched_getaffinity sched_yield sendmsg "
    "set_robust_list set_tid_address setitimer setsid shutdown sigaltstack statfs statx symlinkat sysinfo tgkill "
    "timerfd_create umask uname unlinkat utimensat vfork wait4 waitid write writev "
)


@pytest.mark.parametrize("name", MUST_REFUSE.split())
def test_refused_and_not_let_in_by_another_rule(name: str) -> None:
    assert name in REFUSED
    assert name not in ALLOWED


@pytest.mark.parametrize("name", MUST_ALLOW.split())
def test_allowed(name: str) -> None:
    assert name in ALLOWED


def test_no_call_is_both_allowed_and_refused() -> None:
    assert ALLOWED & REFUSED == LIMITS


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule['names'][0]}-{rule['action']}")
def test_rule_has_a_reason_and_no_condition_on_capabilities(rule: dict[str, t.Any]) -> None:
    assert len(rule["comment"]) > 10
    assert rule["comment"].endswith(".")
    assert set(rule) <= {"comment", "names", "action", "errnoRet", "args"}


def test_not_equal_only_refuses() -> None:
    assert {rule["action"] for rule in RULES for arg in rule.get("args", []) if arg["op"] == "SCMP_CMP_NE"} == {"SCMP_ACT_ERRNO"}


def test_each_call_has_one_unconditional_rule_at_most() -> None:
    plain = [name for rule in RULES if "args" not in rule for name in rule["names"]]
    assert sorted(plain) == sorted(set(plain))
    assert {name for rule in RULES if "args" in rule for name in rule["names"]} == BY_ARGUMENT
    assert BY_ARGUMENT.isdisjoint(plain)


def test_default_is_a_refusal_and_only_native_architectures_are_known() -> None:
    assert (PROFILE["defaultAction"], PROFILE["defaultErrnoRet"]) == ("SCMP_ACT_ERRNO", 1)
    assert PROFILE["archMap"] == [
        {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": []},
        {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": []},
    ]


@pytest.mark.parametrize("rule", [r for r in RULES if r["action"] == "SCMP_ACT_ERRNO"], ids=lambda r: r["names"][0])
def test_what_programs_do_without_says_that_it_does_not_exist(rule: dict[str, t.Any]) -> None:
    assert rule["errnoRet"] == (38 if NOT_THERE.intersection(rule["names"]) else 1)


def _actions(name: str, arguments: dict[str, int]) -> set[str]:
    def holds(condition: dict[str, t.Any]) -> bool:
        value = arguments.get(f"arg{condition['index']}", 0)
        if condition["op"] == "SCMP_CMP_MASKED_EQ":
            return bool(value & condition["value"] == condition["valueTwo"])
        if condition["op"] == "SCMP_CMP_NE":
            return bool(value != condition["value"])
        assert condition["op"] == "SCMP_CMP_EQ"
        return bool(value == condition["value"])

    return {rule["action"] for rule in RULES if name in rule["names"] and all(map(holds, rule.get("args", [])))}


def _allows(name: str, **arguments: int) -> bool:
    return "SCMP_ACT_ALLOW" in _actions(name, arguments)


CLONE_FLAGS = [0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000]


@pytest.mark.parametrize(
    ("name", "arguments", "allowed"),
    [
        ("clone", {"arg0": 0x003D0F00}, True),
        ("clone", {"arg0": 17}, True),
        *[("clone", {"arg0": flag | 17}, False) for flag in CLONE_FLAGS],
        *[("socket", {"arg0": family, "arg1": 1}, family in (1, 2, 10, 16)) for family in range(48)],
        *[("socket", {"arg0": 2, "arg1": kind}, kind in (1, 2)) for kind in range(1, 11)],
        *[("socket", {"arg0": 10, "arg1": kind}, kind in (1, 2)) for kind in range(1, 11)],
        *[("socket", {"arg0": 2, "arg1": 1, "arg2": protocol}, protocol in (0, 6)) for protocol in range(263)],
        *[("socket", {"arg0": 10, "arg1": 2, "arg2": protocol}, protocol in (0, 17)) for protocol in range(263)],
        ("socket", {"arg0": 2, "arg1": 0o2004001, "arg2": 6}, True),
        ("mmap", {"arg3": 0x22}, True),
        ("mmap", {"arg3": 0x40022}, False),
        ("memfd_create", {"arg1": 3}, True),
        ("memfd_create", {"arg1": 4}, False),
        ("shmget", {"arg2": 0o1600}, True),
        ("shmget", {"arg2": 0o5600}, False),
        *[("socket", {"arg0": 16, "arg2": protocol}, protocol == 0) for protocol in range(23)],
        ("socketpair", {"arg0": 1}, True),
        ("socketpair", {"arg0": 30}, False),
        ("personality", {"arg0": 0}, True),
        ("personality", {"arg0": 0xFFFFFFFF}, True),
        ("personality", {"arg0": 0x0040000}, False),
        ("personality", {"arg0": 0x0100000}, False),
        ("mknodat", {"arg2": 0o010644}, True),
        ("mknodat", {"arg2": 0o100644}, True),
        ("mknodat", {"arg2": 0o020000}, False),
        ("mknodat", {"arg2": 0o060000}, False),
        ("mknod", {"arg1": 0o010644}, True),
        ("mknod", {"arg1": 0o020000}, False),
        *[("ioctl", {"arg1": number}, number not in (0x5412, 0x541C)) for number in range(0x5400, 0x5480)],
        *[("ioctl", {"arg1": 1 << bit}, True) for bit in range(32)],
        *[("ioctl", {"arg1": 0x5412 ^ 1 << bit}, True) for bit in range(16)],
        ("ioctl", {"arg1": 1 << 32 | 0x5412}, False),
        ("ioctl", {"arg1": 1 << 63 | 0x541C}, False),
    ],
)
def test_arguments_decide(name: str, arguments: dict[str, int], allowed: bool) -> None:
    assert _allows(name, **arguments) is allowed


@pytest.mark.parametrize(("name", "index"), [("prlimit64", 1), ("setrlimit", 0)])
@pytest.mark.parametrize("high", [0, 1 << 32, 1 << 63])
def test_the_limit_on_core_dumps_stays_and_all_others_may_be_set(name: str, index: int, high: int) -> None:
    for limit in range(16):
        action = "SCMP_ACT_ERRNO" if limit == 4 else "SCMP_ACT_ALLOW"
        assert _actions(name, {f"arg{index}": high | limit, "arg2": 0x7FFF0000}) == {action}
    assert _actions("prlimit64", {"arg1": high | 4}) == {"SCMP_ACT_ALLOW"}
