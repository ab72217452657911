# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The seccomp profile as a program, for commands that would else run without it.

gVisor before March 2026 puts a profile on a container's first process and what comes of it, but on nothing that the
engine's exec starts. Such a command is begun by a few lines that put the same profile on themselves and then become it.

Sources: seccomp(2), seccomp_init(3), seccomp_rule_add(3), seccomp_export_bpf(3), perlfunc(1), the OCI runtime
specification (config-linux), gvisor pull request 12692.
"""

from __future__ import annotations

import ctypes
import json
import os
import tempfile
import typing as t

_SECCOMP = {"x86_64": 317, "aarch64": 277}
_ACTIONS = {"SCMP_ACT_ALLOW": 0x7FFF0000, "SCMP_ACT_ERRNO": 0x00050000}
_COMPARISONS = {"SCMP_CMP_NE": 1, "SCMP_CMP_EQ": 4, "SCMP_CMP_MASKED_EQ": 7}
_OPTIMIZE, _BINARY_TREE = 8, 2

# In Perl, because every Debian has it: the program as a struct sock_fprog, then seccomp(SECCOMP_SET_MODE_FILTER).
_BECOME = """
my $f = pack "H*", shift;
my $p = pack "Sx![P]P", length($f) / 8, $f;
syscall(SECCOMP, 1, 0, $p) == 0 or die "the seccomp profile cannot be put in force: $!\\n";
exec { $ARGV[0] } @ARGV;
print STDERR "$ARGV[0]: $!\\n";
exit($! == 2 ? 127 : 126);
"""


class _Comparison(ctypes.Structure):
    _fields_: t.ClassVar = [("index", ctypes.c_uint), ("operator", ctypes.c_int), ("value", ctypes.c_uint64), ("second", ctypes.c_uint64)]


def program(profile: str) -> bytes:
    """Return the BPF program of a *profile* (JSON as Docker takes it) for this machine's architecture.

    System calls that the machine's libseccomp does not know get the default action, as under runc. Raises ValueError for
    a profile that is not as ``configs/schemas/seccomp.json`` says, and OSError when there is no libseccomp.
    """
    rules = json.loads(profile)
    library = ctypes.CDLL("libseccomp.so.2")
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_rule_add_array.argtypes = [ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.POINTER(_Comparison)]
    default = _action(rules["defaultAction"], rules.get("defaultErrnoRet"))
    context = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(default)))
    try:
        # gVisor interprets the program at every call: fewer comparisons.
        library.seccomp_attr_set(context, _OPTIMIZE, ctypes.c_uint32(_BINARY_TREE))
        for rule in rules["syscalls"]:
            action = _action(rule["action"], rule.get("errnoRet"))
            if action == default:
                continue
            given = [_comparison(arg) for arg in rule.get("args", ())]
            for name in rule["names"]:
                number = library.seccomp_syscall_resolve_name(name.encode())
                if number < 0:
                    continue
                failed = library.seccomp_rule_add_array(context, action, number, len(given), (_Comparison * len(given))(*given))
                if failed:
                    raise ValueError(f"the seccomp profile: {name}: {os.strerror(-failed)}")
        with tempfile.TemporaryFile() as file:
            if failed := library.seccomp_export_bpf(context, file.fileno()):
                raise ValueError(f"the seccomp profile: {os.strerror(-failed)}")
            file.seek(0)
            return file.read()
    finally:
        library.seccomp_release(context)


def _comparison(arg: dict[str, t.Any]) -> _Comparison:
    if arg["op"] not in _COMPARISONS:
        raise ValueError(f"the seccomp profile: {arg['op']} is not one of {', '.join(_COMPARISONS)}")
    return _Comparison(arg["index"], _COMPARISONS[arg["op"]], arg["value"], arg.get("valueTwo", 0))


def _action(word: str, number: int | None) -> int:
    if word not in _ACTIONS:
        raise ValueError(f"the seccomp profile: {word} is not one of {', '.join(_ACTIONS)}")
    return _ACTIONS[word] | ((number or 1) if word == "SCMP_ACT_ERRNO" else 0)


def under(profile: str, argv: t.Sequence[str]) -> list[str]:
    """Return a command for a Debian container that becomes *argv* under *profile*, 126 or 127 when there is no such program."""
    script = _BECOME.replace("SECCOMP", str(_SECCOMP[os.uname().machine]))
    return ["/usr/bin/perl", "-e", script, program(profile).hex(), *argv]
