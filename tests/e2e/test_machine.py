# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The container that stands for a machine can do what a host must: run an engine, overlays and idmapped mounts."""

from __future__ import annotations

import collections.abc
import subprocess
import time

import machine
import pytest

NAME = "guardrails-machine-test"


def inside(script: str) -> str:
    """Run *script* in the machine and return what it printed."""
    done = subprocess.run(["docker", "exec", "-i", NAME, "sh", "-eu"], input=script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module", autouse=True)
def host() -> collections.abc.Iterator[None]:
    """A Debian 13 machine with a running engine."""
    machine.up(NAME, "trixie", machine.HOST_PACKAGES)
    inside("setsid dockerd --live-restore >/var/log/dockerd.log 2>&1 &")
    for _attempt in range(60):
        if machine.succeeds("docker", "exec", NAME, "docker", "version"):
            break
        time.sleep(0.5)
    yield
    machine.down(NAME, images=True)


def test_engine_builds_and_runs() -> None:
    inside("""
mkdir -p /root/image && cd /root/image
tar -C / -chf root.tar bin/sh bin/cat $(ldd /bin/sh /bin/cat | grep -o '/lib[^ ]*' | sort -u | cut -c2-)
printf 'FROM scratch\\nADD root.tar /\\nRUN echo built >/proof\\n' >Dockerfile
docker build -q -t tiny . >/dev/null 2>build.log || { cat build.log; exit 1; }
""")
    assert inside("docker run --rm --network none --memory 64m --pids-limit 32 tiny cat /proof") == "built"


def test_overlay_volume_over_an_idmapped_lower_layer() -> None:
    data = "/var/lib/dockersandbox/probe"
    seen = inside(f"""
mkdir -p {data}/tree {data}/lower {data}/upper {data}/work
echo original >{data}/tree/file
mount --bind -o X-mount.idmap=b:0:1500:1 {data}/tree {data}/lower
docker volume create --driver local --opt type=overlay --opt device=overlay \
    --opt o=lowerdir={data}/lower,upperdir={data}/upper,workdir={data}/work,index=on,redirect_dir=nofollow,metacopy=off work >/dev/null
chown 1500:1500 {data}/upper
docker run --rm --network none --user 1500:1500 --cap-drop ALL -v work:/workspace tiny \
    sh -c 'cat /workspace/file; echo edited >/workspace/file; cat /workspace/file'
cat {data}/tree/file {data}/upper/file
""")
    assert seen.split() == ["original", "edited", "original", "edited"]
