# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a running sandbox says of its own walls, compared with what its description promises.

One short command inside tells it all; the comparison is pure.
"""

from __future__ import annotations

import re
import typing as t

from ansible_collections.dockersandbox.guardrails.plugins.module_utils import stack

# Each section ends with a line of its name, so that a value cannot be taken for another's.
PROBE = [
    "/bin/sh",
    "-c",
    r"""
cat /proc/self/status; echo "## status"
cat /proc/self/limits; echo "## limits"
cat /proc/self/mountinfo; echo "## mountinfo"
ls /sys/class/net; echo "## net"
cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null; echo "## memory"
cat /sys/fs/cgroup/pids.max /sys/fs/cgroup/pids/pids.max 2>/dev/null; echo "## pids"
for f in /.guardrails-probe /usr/.guardrails-probe /originals/.guardrails-probe; do
  (: > "$f") 2>/dev/null && echo "$f"
done; echo "## written"
unshare -Ur true 2>/dev/null && echo unshare; echo "## forbidden"
ls /var/run/docker.sock /run/docker.sock 2>/dev/null; echo "## sockets"
find / -xdev -type f -perm /6000 2>/dev/null; echo "## setuid"
""",
]


def problems(output: str, description: stack.Description) -> list[str]:
    """Return what in the probe's *output* is weaker than *description* promises, a line each; empty when all holds."""
    said = _sections(output)
    if set(said) != {"status", "limits", "mountinfo", "net", "memory", "pids", "written", "forbidden", "sockets", "setuid"}:
        return [f"the probe was cut short: {output[-200:]!r}"]
    found = [*_status(said["status"], description), *_mounts(said["mountinfo"], description)]
    limits = {line[:26].strip(): line[26:].split() for line in said["limits"]}
    for title, key in (("Max open files", "open_files"), ("Max file size", "file_size")):
        if limits[title][:2] != [str(description[key])] * 2:
            found.append(f"{title} is {limits[title][:2]}, not {description[key]}")
    if limits["Max core file size"][:2] != ["0", "0"]:
        found.append("core dumps are written")
    if said["net"] not in ([], ["lo"]):
        found.append(f"there are network interfaces: {', '.join(said['net'])}")
    for title, key in (("memory", "memory"), ("pids", "pids")):
        if said[title] != [str(description[key])]:
            found.append(f"the cap on {title} is {' '.join(said[title]) or 'not there'}, not {description[key]}")
    found += [f"{path} could be written" for path in said["written"]]
    found += [f"{word} was allowed: the seccomp profile is not in force" for word in said["forbidden"]]
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


def _status(lines: list[str], description: stack.Description) -> t.Iterator[str]:
    status = {key: value.split() for key, colon, value in (line.partition(":") for line in lines) if colon}
    for key, due in (("Uid", description["uid"]), ("Gid", description["gid"])):
        if status[key] != [str(due)] * 4:
            yield f"{key} is {' '.join(status[key])}, not {due}"
    extra = set(status["Groups"]) - {str(description["gid"])}
    if extra:
        yield f"it is in other groups too: {', '.join(sorted(extra))}"
    for key in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        if int(status[key][0], 16):
            yield f"{key} is {status[key][0]}: capabilities are left"
    if status["NoNewPrivs"] != ["1"]:
        yield "new privileges can be gained"
    if status["Seccomp"] != ["2"]:
        yield "no seccomp filter is in force"


def _mounts(lines: list[str], description: stack.Description) -> t.Iterator[str]:
    options = {}
    for line in lines:
        fields, rest = line.split(" - ", 1)
        options[fields.split()[4]] = set(fields.split()[5].split(",")) | set(rest.split()[2].split(","))
    if "ro" not in options["/"]:
        yield "the root file system is writable"
    for path in sorted(description["tmpfs"]):
        if path not in options or not {"nosuid", "nodev"} <= options[path]:
            yield f"{path} is not a tmpfs with nosuid and nodev"
        elif not any(re.fullmatch(r"size=[1-9][0-9]*k", option) for option in options[path]):
            yield f"{path} has no size limit"
    for mount in description["mounts"]:
        due = {"nosuid", "nodev"} if "overlay" in mount else set()
        if "bind" in mount or "ro" in mount["options"].split(","):
            due = due | {"ro"}
        if mount["target"] not in options:
            yield f"{mount['target']} is not mounted"
        elif missing := due - options[mount["target"]]:
            yield f"{mount['target']} is mounted without {', '.join(sorted(missing))}"
