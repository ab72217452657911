# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A bare machine: Debian 12 with python3, make and git, a clone of the checkout, and what it says of itself."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re
import subprocess
import tempfile
import time
import typing as t
import uuid

import machine

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGES = ("git", "make", "python3")
CLONE = "/root/checkout"
RECAP = re.compile(r"^\S+ +: ok=(\d+) +changed=(\d+) +unreachable=(\d+) +failed=(\d+)", re.MULTILINE)

# Run inside: a line for each file of the home and the data, each mount, container, image and account, without what differs
# between two hosts that are in the same state: times, keys and tokens, the ids of images, whatever is signed or named with them, what
# is inside a working set's image, bundles, snapshots, and what the log, the ledger and its figures say.
STATE = r"""
import hashlib, json, os, re, subprocess

HOME = "/opt/DockerSandboxApp"
TIME = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z?")
TOKEN = re.compile(rb"sandbox-[0-9a-f]{48}")

def docker(*arguments):
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True).stdout

def inspect(kind, *names):
    return json.loads(docker(kind, "inspect", *names)) if names else []

images = inspect("image", *sorted(set(docker("images", "-q", "--no-trunc").split())))
tags = {found["Id"]: found["RepoTags"][0] for found in images if found["RepoTags"]}

def plain(content):
    content = TOKEN.sub(b"TOKEN", TIME.sub(b"TIME", content))
    for name, tag in tags.items():
        content = content.replace(name.encode(), tag.encode())
    return content

def entry(path):
    stat = os.lstat(path)
    kind = {0o040000: "d", 0o100000: "f", 0o120000: "l"}.get(stat.st_mode & 0o170000, "other")
    line = [path, kind, oct(stat.st_mode & 0o7777), stat.st_uid, stat.st_gid]
    if kind == "l":
        line.append(os.readlink(path))
    unlike = os.path.basename(path) in ("delta.img", "reserve", "ct.jsonl", "ledger.db", "llm.prom")
    signed = path.startswith(HOME + "/.state/") or "/baseline" in path or path.endswith((".sha256", ".stat", ".pub", ".json"))
    if kind == "f" and not signed and not unlike:
        with open(path, "rb") as file:
            line.append(hashlib.sha256(plain(file.read())).hexdigest())
    return line

def tree(top):
    yield entry(top)
    for folder, folders, files in os.walk(top):
        folders[:] = sorted(set(folders) - {"exports", "snapshots"})
        for name in folders + sorted(files):
            # What stands beside a ledger is its process', and what is being replaced is there twice for a moment. The overlay
            # works in files that are called #, and clears away at its next mount those that it had no more use for.
            passing = ("ledger.db-", "ledger.db.", *(["#"] if "/delta/work/" in folder else []))
            if not name.startswith(passing) and not (name.startswith(".") and name.endswith(".tmp")):
                yield entry(os.path.join(folder, name))

state = [line for top in (HOME, "/var/lib/dockersandbox") for line in tree(top)]
def mounts(pid, *places):
    with open(f"/proc/{pid}/mountinfo", encoding="utf-8") as file:
        for line in file:
            fields, _, rest = line.strip().partition(" - ")
            place, options, kind = fields.split()[4], sorted(fields.split()[5].split(",")), rest.split()[0]
            if place.startswith(places):
                yield ["mount", place, options, kind, "rw" in rest.split()[2].split(",")]

state += mounts("self", "/run/dockersandbox", "/var/lib/dockersandbox")
for found in inspect("container", *docker("ps", "-aq", "--no-trunc").split()):
    config = {**found["Config"], "Hostname": None, "Image": tags[found["Image"]]}
    config["Env"] = [TOKEN.sub(b"TOKEN", variable.encode()).decode() for variable in config["Env"] or ()]
    # The engine writes what is not there in two ways.
    found["HostConfig"] |= dict.fromkeys(("Dns", "DnsOptions", "DnsSearch"))
    if found["State"]["Running"]:
        state += ([found["Name"], *mount] for mount in mounts(found["State"]["Pid"], "/workspace", "/originals"))
    # It is a hash over all of this, the image's id included.
    del config["Labels"]["dockersandbox.guardrails.spec"]
    state.append(["container", found["Name"], found["State"]["Status"], config, found["HostConfig"]])
for found in images:
    state.append(["image", found["RepoTags"], {**found["Config"], "Image": None}])
volumes = docker("volume", "ls", "-q").split()
# Of those without a name of their own, how many.
named = [name for name in volumes if not re.fullmatch("[0-9a-f]{64}", name)]
state.append(["volumes without a name", len(volumes) - len(named)])
for found in inspect("volume", *named):
    state.append(["volume", found["Name"], found["Driver"], found["Options"]])
with open("/etc/passwd", encoding="utf-8") as file:
    state.extend(["account", line.strip()] for line in file)
print(json.dumps(sorted(state, key=json.dumps)))
"""

# Run inside: kill the process in the file and all that it has started, so that nothing of the play goes on. What was
# made a daemon has another parent by then, and lives, as it does when a person kills a play.
KILL = r"""
import os, pathlib, signal, sys, time

def children():
    found = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat", encoding="utf-8") as file:
                found.setdefault(int(file.read().rpartition(")")[2].split()[1]), []).append(int(name))
        except OSError:
            continue
    return found

def tree(pid):
    try:
        os.kill(pid, signal.SIGSTOP)
    except ProcessLookupError:
        return []
    return [pid, *(found for child in children().get(pid, []) for found in tree(child))]

note = pathlib.Path(sys.argv[1])
while not (note.exists() and note.read_text()):
    time.sleep(0.01)
found = tree(int(note.read_text()))
for pid in found:
    os.kill(pid, signal.SIGKILL)
print(len(found))
"""


def differences(before: list[t.Any], after: list[t.Any]) -> list[str]:
    """Return what one state has and the other has not, ``-`` for what is gone and ``+`` for what is new."""
    old, new = ({json.dumps(line, sort_keys=True) for line in state} for state in (before, after))
    return sorted([f"- {line}" for line in old - new] + [f"+ {line}" for line in new - old])


@dataclasses.dataclass(frozen=True)
class Done:
    """What a command inside came to: its exit code, all that it printed, and the seconds it took."""

    code: int
    text: str
    seconds: float

    @property
    def changed(self) -> int:
        """How many tasks changed something, by the play's own recap."""
        recaps = RECAP.findall(self.text)
        assert recaps, self.text[-4000:]
        return sum(int(changed) for _ok, changed, _unreachable, _failed in recaps)


class Bare:
    """The bare machine called *name*. Its engine's images are removed with it: a first converge is a first one."""

    def __init__(self, name: str) -> None:
        self.name = name
        # One commit for the whole story, also when another is made meanwhile.
        self._folder = tempfile.TemporaryDirectory()
        self._bundle = f"{self._folder.name}/checkout.bundle"
        machine.run("git", "-C", str(ROOT), "bundle", "create", "-q", self._bundle, "HEAD")

    def make(self) -> None:
        """Make the machine anew and clone the checkout, at the commit that is checked out, into it."""
        machine.down(self.name, images=True)
        machine.up(self.name, "bookworm", PACKAGES)
        machine.run("docker", "cp", self._bundle, f"{self.name}:/root/checkout.bundle")
        done = self.run(f"git clone -q /root/checkout.bundle {CLONE}", folder="/root")
        assert done.code == 0, done.text

    def make_once(self) -> None:
        """Make the machine unless it is there, and the environment of `make site` in it."""
        if not machine.succeeds("docker", "exec", self.name, "test", "-e", f"{CLONE}/Makefile"):
            self.make()
        done = self.run("make venv")
        assert done.code == 0, done.text

    def remove(self) -> None:
        """Remove the machine and all that it stored."""
        machine.down(self.name, images=True)
        self._folder.cleanup()

    def run(self, script: str, folder: str = CLONE) -> Done:
        """Run *script* inside, in *folder*."""
        start = time.monotonic()
        command = ["docker", "exec", "--workdir", folder, self.name, "sh", "-euc", script]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        return Done(done.returncode, done.stdout, time.monotonic() - start)

    def site(self, arguments: str = "") -> Done:
        """Run ``make site`` inside."""
        return self.run(f"make site ARGS='{arguments}'")

    def killed_after(self, seconds: float, script: str) -> bool:
        """Run the command *script* inside, kill all of it after *seconds*, and tell whether it was still running by then."""
        # A file of its own: that of an earlier one would name a process that is long gone while this one is still being started.
        note = f"/tmp/play.{uuid.uuid4().hex}"
        command = ["docker", "exec", "--workdir", CLONE, self.name, "sh", "-c", f"echo $$ >{note}; exec {script}"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as play:
            try:
                play.wait(seconds)
                return False
            except subprocess.TimeoutExpired:
                killed = machine.run("docker", "exec", "-i", self.name, "timeout", "30", "python3", "-", note, text=KILL)
                play.wait(60)
                # It could not seal its journal: that is named until somebody has looked at it and moved it away.
                self.run("cd ~/.local/state/dockersandbox/runs || exit 0; mkdir -p killed; for j in *.jsonl; do [ -e $j.seal.json ] || mv $j killed; done")
                return int(killed) > 0

    def sandbox(self, arguments: str) -> Done:
        """Run the command that is on the host."""
        return self.run(f"/opt/DockerSandboxApp/bin/sandbox {arguments}")

    def declare(self, *sandboxes: dict[str, t.Any]) -> str:
        """Return the arguments of a play that declares *sandboxes*."""
        machine.run("docker", "exec", "-i", self.name, "tee", "/root/declared.json", text=json.dumps({"sandboxes": sandboxes}))
        return "-e @/root/declared.json"

    def state(self) -> list[t.Any]:
        """Return the state that the machine is in (see STATE)."""
        return t.cast("list[t.Any]", json.loads(machine.run("docker", "exec", "-i", self.name, "python3", "-", text=STATE)))
