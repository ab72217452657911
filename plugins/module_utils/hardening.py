# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a running sandbox says of its own walls, compared with what its description promises.

One short command inside tells it all; the comparison is pure. gVisor shows neither what caps the host holds it to nor all
options of its mounts: what it does not show is proven by effect, in a sandbox that may die of it.
"""

from __future__ import annotations

import os
import re
import typing as t

from ansible_collections.dockersandbox.guardrails.plugins.module_utils import stack

# Calls that the profile refuses, and that would be answered otherwise than by EPERM without it, under either runtime and
# without a capability: by name, their arguments, and their numbers for each machine.
_CALLS: dict[str, tuple[str, dict[str, int]]] = {
    "ptrace": ("0x4206, 0, 0, 0", {"x86_64": 101, "aarch64": 117}),
    "unshare": ("0x10000000", {"x86_64": 272, "aarch64": 97}),
    "setns": ("-1, 0", {"x86_64": 308, "aarch64": 268}),
    "keyctl": ("0, -3, 0", {"x86_64": 250, "aarch64": 219}),
    "process_vm_readv": ("1, 0, 0, 0, 0, 0", {"x86_64": 310, "aarch64": 270}),
    "name_to_handle_at": ("-1, 0, 0, 0, 0", {"x86_64": 303, "aarch64": 264}),
    "io_uring_setup": ("1, 0", {"x86_64": 425, "aarch64": 425}),
}
_PRCTL = {"x86_64": 157, "aarch64": 167}
_MACHINE = os.uname().machine
_EPERM = 1
_TRY = "".join(
    f'print "{name}\n" unless syscall({numbers.get(_MACHINE, -1)}, {given}) == -1 && $! == {_EPERM};\n' for name, (given, numbers) in _CALLS.items()
) + f'print "new privileges\n" unless syscall({_PRCTL.get(_MACHINE, -1)}, 39, 0, 0, 0, 0) == 1;\nprint "tried\n";\n'

# Each section ends with a line of its name, so that a value cannot be taken for another's.
PROBE = [
    "/bin/sh",
    "-c",
    r"""
cat /proc/self/status; echo "## status"
grep Seccomp: /proc/1/status; echo "## first"
cat /proc/self/limits; echo "## limits"
cat /proc/self/mountinfo; echo "## mountinfo"
tail -n +3 /proc/net/dev; echo "## net"
cat /proc/net/tcp; echo "## ports"
grep MemTotal: /proc/meminfo; echo "## total"
cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null; echo "## memory"
cat /sys/fs/cgroup/memory/memory.kmem.tcp.limit_in_bytes 2>/dev/null; echo "## tcp"
cat /sys/fs/cgroup/pids.max /sys/fs/cgroup/pids/pids.max 2>/dev/null; echo "## pids"
for f in /.guardrails-probe /usr/.guardrails-probe /originals/.guardrails-probe; do
  (: > "$f") 2>/dev/null && echo "$f"
done; echo "## written"
perl -e "$1" 2>/dev/null
(: < /proc/1/mem) 2>/dev/null && echo memory of the first process; echo "## forbidden"
ls /var/run/docker.sock /run/docker.sock 2>/dev/null; echo "## sockets"
find / -xdev -type f -perm /6000 2>/dev/null; echo "## setuid"
""",
    "sh",
    _TRY,
]
_SECTIONS = {"status", "first", "limits", "mountinfo", "net", "ports", "total", "memory", "tcp", "pids", "written", "forbidden", "sockets", "setuid"}

# Caps for a sandbox in which they are tried, and a command for each that takes as much as its argument says.
TRIAL = {"memory": 64 << 20, "pids": 128}
TAKE = {
    "memory": ["/usr/bin/perl", "-e", "my $taken = 'x' x $ARGV[0]"],
    "pids": ["/usr/bin/perl", "-e", "for (1 .. $ARGV[0]) { my $pid = fork; defined $pid or exit 1; $pid or sleep 60, exit }"],
}


def problems(output: str, description: stack.Description) -> list[str]:
    """Return what in the probe's *output* is weaker than *description* promises, a line each; empty when all holds."""
    said = _sections(output)
    if set(said) != _SECTIONS:
        return [f"the probe was cut short: {output[-200:]!r}"]
    gvisor = stack.runtime(description) == "gvisor"
    found = [*_status(said["status"], description, gvisor), *_mounts(said["mountinfo"], description, gvisor)]
    if said["first"] != ["Seccomp:\t2"]:
        found.append("no seccomp filter is in force for its first process")
    limits = {line[:26].strip(): line[26:].split() for line in said["limits"]}
    for title, key in (("Max open files", "open_files"), ("Max file size", "file_size")):
        if limits[title][:2] != [str(description[key])] * 2:
            found.append(f"{title} is {limits[title][:2]}, not {description[key]}")
    if limits["Max core file size"][:2] != ["1", "1"]:
        found.append("core dumps are written, or handed to a program of the host")
    if interfaces := sorted({line.partition(":")[0].strip() for line in said["net"]} - {"lo"}):
        found.append(f"there are network interfaces: {', '.join(interfaces)}")
    if missing := sorted(set(map(int, description["forwards"])) - stack.listening("\n".join(said["ports"]))):
        found.append(f"nothing listens at 127.0.0.1:{missing[0]}: its first process does not forward")
    if gvisor:
        total = [int(word) << 10 for line in said["total"] for word in line.split() if word.isdecimal()]
        if not total or total[0] > description["memory"]:
            found.append(f"it sees {total[0] if total else 'an unknown amount'} of memory, not at most {description['memory']}")
    else:
        for title, key in (("memory", "memory"), ("pids", "pids")):
            if said[title] != [str(description[key])]:
                found.append(f"the cap on {title} is {' '.join(said[title]) or 'not there'}, not {description[key]}")
    # Only cgroup v1 has it, and runc shows it: elsewhere it is a part of the memory.
    if said["tcp"] not in ([], [str(stack.sockets(description["memory"]))]):
        found.append(f"the memory of TCP connections is capped at {said['tcp'][0]}, not {stack.sockets(description['memory'])}")
    found += [f"{path} could be written" for path in said["written"]]
    if "tried" not in said["forbidden"]:
        found.append("the calls that the seccomp profile refuses could not be tried: perl is missing")
    why = {"memory of the first process": "build its image anew", "new privileges": "they can be gained"}
    # gVisor lets a process read another's memory, and never write it.
    fine = {"tried", *(["memory of the first process"] if gvisor else [])}
    for word in said["forbidden"]:
        if word not in fine:
            found.append(f"{word} was allowed: {why.get(word, 'the seccomp profile is not in force')}")
    found += [f"{path} is there" for path in said["sockets"]]
    found += [f"{path} carries a set-id bit" for path in said["setuid"]]
    return found


def _sections(output: str) -> dict[str, list[str]]:
    said: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in output.splitlines():
        if line.startswith("## "):
            said[line[3:]] = lines
            lines = []
        else:
            lines.append(line)
    return said


def _status(lines: list[str], description: stack.Description, gvisor: bool) -> t.Iterator[str]:
    status = {key: value.split() for key, colon, value in (line.partition(":") for line in lines) if colon}
    for key, due in (("Uid", description["uid"]), ("Gid", description["gid"])):
        if status[key] != [str(due)] * 4:
            yield f"{key} is {' '.join(status[key])}, not {due}"
    extra = set(status["Groups"]) - {str(description["gid"])}
    if extra:
        yield f"it is in other groups too: {', '.join(sorted(extra))}"
    # gVisor has no ambient capabilities.
    for key in ("CapInh", "CapPrm", "CapEff", "CapBnd", *(() if gvisor else ("CapAmb",))):
        if int(status[key][0], 16):
            yield f"{key} is {status[key][0]}: capabilities are left"
    if status["Seccomp"] != ["2"]:
        yield "no seccomp filter is in force"


def _mounts(lines: list[str], description: stack.Description, gvisor: bool) -> t.Iterator[str]:
    # gVisor shows no option of the host's own mount. It holds: writes are tried (above), and so are new privileges.
    strict = set() if gvisor else {"nosuid", "nodev"}
    options = {}
    for line in lines:
        fields, rest = line.split(" - ", 1)
        options[fields.split()[4]] = set(fields.split()[5].split(",")) | set(rest.split()[2].split(","))
    if "ro" not in options["/"]:
        yield "the root file system is writable"
    for path in sorted(description["tmpfs"]):
        if path not in options or not strict <= options[path]:
            yield f"{path} is not a tmpfs with nosuid and nodev"
        elif not any(re.fullmatch(r"size=[1-9][0-9]*k?", option) for option in options[path]):
            yield f"{path} has no size limit"
    if not gvisor and not any(option.startswith("max=") for option in options["/dev/pts"]):
        yield "pseudo-terminals are given out without a limit"
    for mount in description["mounts"]:
        due = {"ro"} if "bind" in mount else strict
        if "overlay" in mount and "ro" in mount["options"].split(",") and not gvisor:
            due = due | {"ro"}
        if mount["target"] not in options:
            yield f"{mount['target']} is not mounted"
        elif missing := due - options[mount["target"]]:
            yield f"{mount['target']} is mounted without {', '.join(sorted(missing))}"
