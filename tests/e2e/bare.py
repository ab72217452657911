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

import machine

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGES = ("git", "make", "python3")
CLONE = "/root/checkout"
RECAP = re.compile(r"^\S+ +: ok=(\d+) +changed=(\d+) +unreachable=(\d+) +failed=(\d+)", re.MULTILINE)

# Run inside: a line for each file of the home and the data, each container, image and account, without what differs
# between two hosts that are in the same state: times, keys, the ids of images, and whatever is signed or named with them.
STATE = r"""
import hashlib, json, os, re, subprocess

HOME = "/opt/DockerSandboxApp"
TIME = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z?")

def docker(*arguments):
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True).stdout

def inspect(kind, *names):
    return json.loads(docker(kind, "inspect", *names)) if names else []

images = inspect("image", *sorted(set(docker("images", "-q", "--no-trunc").split())))
tags = {found["Id"]: found["RepoTags"][0] for found in images if found["RepoTags"]}

def plain(content):
    content = TIME.sub(b"TIME", content)
    for name, tag in tags.items():
        content = content.replace(name.encode(), tag.encode())
    return content

def entry(path):
    stat = os.lstat(path)
    kind = {0o040000: "d", 0o100000: "f", 0o120000: "l"}.get(stat.st_mode & 0o170000, "other")
    line = [path, kind, oct(stat.st_mode & 0o7777), stat.st_uid, stat.st_gid]
    if kind == "l":
        line.append(os.readlink(path))
    signed = path.startswith(HOME + "/.state/") or "/baseline" in path or path.endswith((".sha256", ".stat", ".pub", ".json"))
    if kind == "f" and not signed:
        with open(path, "rb") as file:
            line.append(hashlib.sha256(plain(file.read())).hexdigest())
    return line

def tree(top):
    yield entry(top)
    for folder, folders, files in os.walk(top):
        folders.sort()
        for name in folders + sorted(files):
            yield entry(os.path.join(folder, name))

state = [line for top in (HOME, "/var/lib/dockersandbox") for line in tree(top)]
for found in inspect("container", *docker("ps", "-aq", "--no-trunc").split()):
    config = {**found["Config"], "Hostname": None, "Image": tags[found["Image"]]}
    # It is a hash over all of this, the image's id included.
    del config["Labels"]["dockersandbox.guardrails.spec"]
    state.append(["container", found["Name"], found["State"]["Status"], config, found["HostConfig"]])
for found in images:
    state.append(["image", found["RepoTags"], {**found["Config"], "Image": None}])
for found in inspect("volume", *docker("volume", "ls", "-q").split()):
    state.append(["volume", found["Name"], found["Driver"], found["Options"]])
with open("/etc/passwd", encoding="utf-8") as file:
    state.extend(["account", line.strip()] for line in file)
print(json.dumps(sorted(state, key=json.dumps)))
"""

# Run inside: kill the process in the file and all that it has started, so that nothing of the play goes on. What was
# made a daemon has another parent by then, and lives, as it does when a person kills a play.
KILL = r"""
import os, signal

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
    os.kill(pid, signal.SIGSTOP)
    return [pid, *(found for child in children().get(pid, []) for found in tree(child))]

with open("/tmp/play.pid", encoding="utf-8") as file:
    for pid in tree(int(file.read())):
        os.kill(pid, signal.SIGKILL)
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

    def site_killed_after(self, seconds: float) -> bool:
        """Run ``make site`` inside, kill it after *seconds*, and tell whether it was still running by then."""
        command = ["docker", "exec", "--workdir", CLONE, self.name, "sh", "-c", "echo $$ >/tmp/play.pid; exec make site"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as play:
            try:
                play.wait(seconds)
                return False
            except subprocess.TimeoutExpired:
                machine.run("docker", "exec", "-i", self.name, "python3", "-", text=KILL)
                play.wait(60)
                return True

    def state(self) -> list[t.Any]:
        """Return the state that the machine is in (see STATE)."""
        return t.cast("list[t.Any]", json.loads(machine.run("docker", "exec", "-i", self.name, "python3", "-", text=STATE)))
