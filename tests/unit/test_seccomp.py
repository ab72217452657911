# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The profile as a program: it decides as the profile says, and a command is begun under it or not at all."""

from __future__ import annotations

import ctypes
import json
import pathlib
import struct
import subprocess
import typing as t

import pytest
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import seccomp

TEXT = (pathlib.Path(__file__).parents[2] / "configs" / "seccomp.json").read_text(encoding="utf-8")
LIBRARY = ctypes.CDLL("libseccomp.so.2")
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
EPERM, ENOSYS = 1, 38


def decide(program: bytes, number: int, arguments: t.Sequence[int]) -> int:
    """Return what a BPF *program* decides of a call on this machine: seccomp(2), and the few instructions it may have."""
    audit = LIBRARY.seccomp_arch_native()
    data = struct.pack("<iIQ6Q", number, audit & 0xFFFFFFFF, 0, *(word & (1 << 64) - 1 for word in [*arguments, 0, 0, 0, 0, 0, 0][:6]))
    instructions = list(struct.iter_unpack("<HBBI", program))
    accumulator = at = 0
    while True:
        code, true, false, value = instructions[at]
        at += 1
        match code:
            case 0x20:
                (accumulator,) = struct.unpack_from("<I", data, value)
            case 0x54:
                accumulator &= value
            case 0x05:
                at += value
            case 0x15:
                at += true if accumulator == value else false
            case 0x25:
                at += true if accumulator > value else false
            case 0x35:
                at += true if accumulator >= value else false
            case 0x06:
                return value
            case _:
                raise AssertionError(f"{code:#x} is not known here")


@pytest.mark.parametrize(
    ("name", "arguments", "due"),
    [
        ("read", [0, 0, 0], ALLOW),
        ("openat", [-100, 0, 0], ALLOW),
        ("execve", [0, 0, 0], ALLOW),
        ("seccomp", [1, 0, 0], ALLOW),
        ("ptrace", [0], ERRNO | EPERM),
        ("unshare", [0x10000000], ERRNO | EPERM),
        ("io_uring_setup", [1, 0], ERRNO | EPERM),
        ("clone3", [0, 0], ERRNO | ENOSYS),
        ("clone", [0x11], ALLOW),
        ("clone", [0x10000011], ERRNO | EPERM),
        ("socket", [1, 1, 0], ALLOW),
        ("socket", [16, 3, 0], ALLOW),
        ("socket", [16, 3, 4], ERRNO | EPERM),
        ("socket", [40, 1, 0], ERRNO | EPERM),
        ("ioctl", [0, 0x5401], ALLOW),
        ("ioctl", [0, 0x5412], ERRNO | EPERM),
        ("ioctl", [0, 0x100005412], ERRNO | EPERM),
        ("mknodat", [-100, 0, 0o100644], ALLOW),
        ("mknodat", [-100, 0, 0o020644], ERRNO | EPERM),
        ("personality", [0xFFFFFFFF], ALLOW),
        ("personality", [0x40000], ERRNO | EPERM),
    ],
)
def test_the_program_decides_as_the_profile_says(name: str, arguments: list[int], due: int) -> None:
    number = LIBRARY.seccomp_syscall_resolve_name(name.encode())
    assert number >= 0
    assert decide(seccomp.program(TEXT), number, arguments) == due


def test_a_call_that_nobody_knows_is_refused() -> None:
    assert decide(seccomp.program(TEXT), 4000, []) == ERRNO | EPERM


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"defaultAction": "SCMP_ACT_LOG"}, "SCMP_ACT_LOG is not one of SCMP_ACT_ALLOW, SCMP_ACT_ERRNO"),
        ({"syscalls": [{"names": ["read"], "action": "SCMP_ACT_TRACE"}]}, "SCMP_ACT_TRACE is not one of"),
        (
            {"syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_LT"}]}]},
            "SCMP_CMP_LT is not one of SCMP_CMP_NE, SCMP_CMP_EQ, SCMP_CMP_MASKED_EQ",
        ),
    ],
)
def test_a_profile_that_says_more_is_refused(change: dict[str, t.Any], said: str) -> None:
    with pytest.raises(ValueError, match="^the seccomp profile: ") as caught:
        seccomp.program(json.dumps({**json.loads(TEXT), **change}))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("argv", "code", "output", "said"),
    [
        (["printf", "%s|", "a b", "", "'$(id)'"], 0, "a b||'$(id)'|", ""),
        (["sh", "-c", "exit 7"], 7, "", ""),
        (["sh", "-c", "kill -TERM $$"], -15, "", ""),
        (["grep", "-h", "^Seccomp:", "/proc/self/status"], 0, "Seccomp:\t2\n", ""),
        (["unshare", "-U", "true"], 1, "", "Operation not permitted"),
        (["sh", "-c", "unshare -U true"], 1, "", "Operation not permitted"),
        (["no-such-program"], 127, "", "no-such-program: No such file or directory"),
        (["/etc/passwd"], 126, "", "/etc/passwd: Permission denied"),
    ],
)
def test_a_command_is_begun_under_the_profile(argv: list[str], code: int, output: str, said: str) -> None:
    command = ["setpriv", "--no-new-privs", *seccomp.under(TEXT, argv)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (code, output), done.stderr
    assert said in done.stderr


def test_without_a_filter_nothing_is_begun() -> None:
    command = seccomp.under(TEXT, ["echo", "begun"])
    # Two bytes are no instruction.
    command[3] = "0000"
    done = subprocess.run(["setpriv", "--no-new-privs", *command], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert done.stdout == ""
    assert "the seccomp profile cannot be put in force" in done.stderr
