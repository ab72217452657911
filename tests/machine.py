#!/usr/bin/env python
# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A machine in a container, for tests: with a Docker engine of its own, and nothing else that it was not given.

    tests/machine.py up NAME [SUITE PACKAGE...]  make the machine NAME (or find it running): a Debian 13 host
    tests/machine.py down NAME                   remove it and its sandboxes' data; images stay, as a cache

The image is made from this machine's own apt sources, with the suite changed, so that no registry is named here.
"""

from __future__ import annotations

import hashlib
import json
import pathlib
import platform
import shutil
import subprocess
import sys
import tempfile
import typing as t

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / ".collections"))

from ansible_collections.dockersandbox.guardrails.plugins.module_utils.images import apt_sources

REPOSITORY = "guardrails-tests"
# A bare host, and Compose v2, with which the rendered file is checked.
HOST_PACKAGES = ("docker-compose", "python3")
# An engine in a container: every capability but the one that test machines lack as well, its own overlays on real
# volumes (overlay on overlay is refused), and loop devices.
FLAGS = (
    "--init",
    "--cap-add=ALL",
    "--cap-drop=SYS_RESOURCE",
    "--security-opt=seccomp=unconfined",
    "--security-opt=apparmor=unconfined",
    "--security-opt=systempaths=unconfined",
    "--cgroupns=host",
    "--tmpfs=/run:rw,exec,nosuid,nodev,mode=755",
    "--device-cgroup-rule=b 7:* rmw",
    "--device-cgroup-rule=c 10:237 rmw",
)
# A container gets its cgroups read-only, and no loop devices. Those are this machine's own: any number may be next.
BOOT = """
set -e
for controller in /sys/fs/cgroup /sys/fs/cgroup/*/; do
    ! mountpoint -q "$controller" || mount -o remount,rw,bind "$controller"
done
[ -e /dev/loop-control ] || mknod /dev/loop-control c 10 237
for number in $(seq 0 127); do [ -e /dev/loop$number ] || mknod /dev/loop$number b 7 $number; done
mkdir -p /run/lock
"""
PREPARE = f"""
{BOOT}
# The engine's volume is kept for its images. Containers of a machine that is gone are not this machine's.
rm -rf /var/lib/docker/containers /var/lib/docker/volumes /var/lib/docker/network
"""
# What decides whether the mirrors of this machine can be reached and believed.
APT_KEYS = ("Acquire::http::Proxy", "Acquire::https::Proxy", "Acquire::https::CaInfo", "Acquire::Check-Valid-Until", "Acquire::Check-Date")
PIP_KEYS = ("index-url", "trusted-host", "proxy", "timeout")
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
# Not where it was found: the package ca-certificates writes that file anew when it is installed.
CERTIFICATES_INSIDE = "/etc/machine-certificates.crt"
LOCAL_CERTIFICATES = "/usr/local/share/ca-certificates"


def run(*command: str, text: str | None = None) -> str:
    """Run *command* and return what it printed; SystemExit with what it said when it fails."""
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command[:4])} … failed ({done.returncode}):\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout.strip()


def succeeds(*command: str) -> bool:
    """Tell whether *command* exits 0."""
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def sources(suite: str) -> str:
    """Return this machine's Debian sources for *suite*, one a line."""
    own = platform.freedesktop_os_release()["VERSION_CODENAME"]
    if not succeeds("sh", "-c", "apt-get indextargets 'Created-By: Packages' | grep -q ."):
        run("apt-get", "update", "-qq")
    return "".join(line.replace(f" {own}", f" {suite}") + "\n" for line in apt_sources())


def apt_options() -> list[str]:
    """Return the settings that this machine needs to reach its mirrors, as options of mmdebstrap."""
    dump = run("apt-config", "dump", "Acquire").splitlines()
    return [f"--aptopt={line.rstrip(';')}" for line in dump if line.split(" ")[0] in APT_KEYS and not line.endswith('"";')]


def image(suite: str, packages: t.Sequence[str]) -> str:
    """Return the tag of an image of *suite* with *packages* and what they depend on, built when it is not there."""
    listed = sources(suite)
    recipe = json.dumps([suite, sorted(packages), listed, apt_options()])
    tag = f"{REPOSITORY}/{suite}:{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
    if succeeds("docker", "image", "inspect", tag):
        return tag
    print(f"machine: building {tag}", file=sys.stderr)
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        tar = f"{folder}/root.tar"
        run("mmdebstrap", "--mode=root", "--variant=minbase", f"--include={','.join(sorted(packages))}", *apt_options(), suite, tar, "-", text=listed)
        run("docker", "import", tar, tag)
    return tag


def settings(name: str) -> None:
    """Give the machine *name* what this one needs to reach its registries: certificates and pip's index."""
    with tempfile.TemporaryDirectory() as folder:
        lines = ["[global]"]
        for line in run(sys.executable, "-m", "pip", "config", "list").splitlines():
            setting, value = line.split("=", 1)
            key = setting.split(".")[-1]
            if key in PIP_KEYS:
                lines.append(f"{key} = {value.strip(chr(39))}")
        if pathlib.Path(CERTIFICATES).exists():
            lines.append(f"cert = {CERTIFICATES_INSIDE}")
            run("docker", "cp", "-L", CERTIFICATES, f"{name}:{CERTIFICATES_INSIDE}")
            # Once the package is installed, whoever asks the system whom to believe is told the same.
            run("docker", "exec", name, "mkdir", "-p", LOCAL_CERTIFICATES)
            run("docker", "cp", "-L", CERTIFICATES, f"{name}:{LOCAL_CERTIFICATES}/machine.crt")
        pathlib.Path(folder, "pip.conf").write_text("\n".join(lines) + "\n", encoding="utf-8")
        run("docker", "cp", f"{folder}/pip.conf", f"{name}:/etc/pip.conf")


def up(name: str, suite: str, packages: t.Sequence[str]) -> None:
    """Make the machine *name*, with a hostname and volumes of that name."""
    if not shutil.which("docker"):
        sys.exit("there is no docker command: run `make engine`")
    tag = image(suite, packages)
    if succeeds("docker", "inspect", name):
        if run("docker", "inspect", "--format", "{{.Config.Image}} {{.State.Running}}", name) == f"{tag} true":
            return
        down(name)
    volumes = (f"--volume={name}-docker:/var/lib/docker", f"--volume={name}-data:/var/lib/dockersandbox")
    run("docker", "run", "--detach", f"--name={name}", f"--hostname={name}", *FLAGS, *volumes, tag, "sleep", "infinity")
    run("docker", "exec", name, "sh", "-c", PREPARE)
    settings(name)


def reboot(name: str) -> None:
    """Stop the machine *name* as if by its power switch, and start it: mounts, processes and /run are gone, disks are not."""
    run("docker", "restart", "--time=0", name)
    run("docker", "exec", name, "sh", "-c", BOOT)


def down(name: str, *, images: bool = False) -> None:
    """Remove the machine *name*; with *images*, what its engine has stored as well."""
    # The engine inside leaves sandboxes running (live-restore); the kernel ends them with the container's first process.
    succeeds("docker", "rm", "--force", name)
    succeeds("docker", "volume", "rm", "--force", f"{name}-data", *([f"{name}-docker"] if images else []))


def main(arguments: list[str]) -> None:
    """Do what the command line asks."""
    match arguments:
        case ["up", name]:
            up(name, "trixie", HOST_PACKAGES)
        case ["up", name, suite, *packages] if packages:
            up(name, suite, packages)
        case ["down", name]:
            down(name)
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
