# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever is switched off, everything comes back by itself, and nothing runs in between without its walls.

In a machine of its own, whose restart is that of its container: mounts, processes and /run are gone, disks are not.
"""

from __future__ import annotations

import json
import re
import time
import typing as t

import bare
import machine
import pytest

HOME, DATA = "/opt/DockerSandboxApp", "/var/lib/dockersandbox"
ONE, TWO = "one", "two"
START = f"{HOME}/bin/dockerd-supervised start"
SECONDS = 60
# The first process of a sandbox; in brackets, so that who looks for it does not find itself.
FIRST = "[g]uardrails-forward"


@pytest.fixture(scope="module")
def host(bare_machine: bare.Bare) -> bare.Bare:
    """A converged machine with two sandboxes over trees of their own, each with something changed."""
    bare_machine.make_once()
    script = f"for n in {ONE} {TWO}; do mkdir -p {DATA}/originals/$n; echo $n > {DATA}/originals/$n/file; done"
    assert bare_machine.run(script, folder="/").code == 0
    done = bare_machine.site(declared(bare_machine))
    assert done.code == 0, done.text
    for name in (ONE, TWO):
        changed = bare_machine.sandbox(f"run {name} -- sh -c 'echo changed > file; echo new > new'")
        assert changed.code == 0, changed.text
    return bare_machine


def declared(host: bare.Bare, **keys: t.Any) -> str:
    """Return the arguments of a play that declares both; *keys* are the first one's own."""
    boxes = [{"name": name, "originals": f"{DATA}/originals/{name}", "memory": "256m", "working_set": "300m"} for name in (ONE, TWO)]
    return host.declare({**boxes[0], **keys}, boxes[1])


@pytest.fixture(autouse=True)
def same(host: bare.Bare) -> t.Iterator[None]:
    """Whatever a test does, the machine is afterwards as it was."""
    before = host.state()
    yield
    changes = bare.differences(before, host.state())
    assert not changes, "\n".join(changes)
    for name in (ONE, TWO):
        read = host.sandbox(f"run {name} -- cat file new /originals/file")
        assert (read.code, read.text.split()[:3]) == (0, ["changed", "new", name]), read.text


def until(host: bare.Bare, script: str) -> float:
    """Wait until *script* exits 0 inside, and return the seconds that it took."""
    start = time.monotonic()
    while host.run(script, folder="/").code != 0:
        assert time.monotonic() - start < SECONDS, host.run("tail -n 30 /var/log/dockerd-supervised.log").text
        time.sleep(0.2)
    return time.monotonic() - start


def all_run(host: bare.Bare) -> float:
    return until(host, f"{HOME}/bin/sandbox status >/dev/null")


def started(host: bare.Bare) -> dict[str, str]:
    found = json.loads(host.run(f"docker inspect sandbox-{ONE} sandbox-{TWO}", folder="/").text)
    return {box["Name"]: box["State"]["StartedAt"] for box in found}


def states(host: bare.Bare) -> dict[str, str]:
    known = json.loads(host.sandbox("status --json").text)
    return {box["sandbox"]: box["state"] for box in known["sandboxes"]}


def test_a_killed_engine_finds_its_sandboxes_running(host: bare.Bare) -> None:
    before = started(host)
    processes = host.run(f"pgrep -f {FIRST}", folder="/").text
    host.run("pkill -KILL -x dockerd", folder="/")
    assert host.run(f"pgrep -f {FIRST}", folder="/").text == processes
    until(host, "docker version")
    all_run(host)
    assert started(host) == before
    assert host.run(f"pgrep -f {FIRST}", folder="/").text == processes


def test_an_engine_that_is_stopped_and_started_finds_them_too(host: bare.Bare) -> None:
    before = started(host)
    assert host.run(f"{HOME}/bin/dockerd-supervised stop && {START}", folder="/").code == 0
    until(host, "docker version")
    all_run(host)
    assert started(host) == before


def test_after_a_restart_of_the_machine_all_comes_back(host: bare.Bare) -> None:
    machine.reboot(host.name)
    assert "dockersandbox/" not in host.run("ls /run; mount | grep /sandboxes/ || true", folder="/").text
    assert host.run(f"pgrep -f {FIRST}", folder="/").code != 0
    # As whatever starts the machine would.
    assert host.run(START, folder="/").code == 0
    print(f"two sandboxes run again {all_run(host):.1f} s after the start of the engine")


def test_a_restart_without_ours_starts_nothing(host: bare.Bare) -> None:
    machine.reboot(host.name)
    host.run("setsid dockerd --config-file /etc/docker/daemon.json >/var/log/other.log 2>&1 </dev/null &", folder="/")
    until(host, "docker version")
    time.sleep(2)
    assert host.run("docker ps -q", folder="/").text == ""
    # Nor can anybody start one whose mounts are not there: no layer is mounted, and none is made.
    assert host.run(f"docker start sandbox-{ONE}", folder="/").code != 0
    assert host.run(f"docker run --rm --mount type=volume,source=sandbox-{ONE}-workspace,target=/w $(docker images -q | head -n1) true", folder="/").code != 0
    done = host.sandbox("up")
    assert done.code == 0, done.text
    assert [line.split()[1:3] for line in done.text.splitlines()] == [
        *(["service", name] for name in ("recorder", "egress", "simulator", "llm")),
        *(["sandbox", name] for name in (ONE, TWO)),
    ]
    assert host.sandbox("up").text == ""
    host.run("pkill -x dockerd", folder="/")
    until(host, "! pgrep -x dockerd")
    host.run(START, folder="/")
    until(host, "docker version")


SPOILED = {
    "image gone": (f"mv {DATA}/sandboxes/{ONE}/delta.img /root/", f"mv /root/delta.img {DATA}/sandboxes/{ONE}/", "has no upper or work layer"),
    "image cut short": (
        f"cp {DATA}/sandboxes/{ONE}/delta.img /root/ && truncate -s -1m {DATA}/sandboxes/{ONE}/delta.img",
        f"mv /root/delta.img {DATA}/sandboxes/{ONE}/",
        "delta.img: is too small, 392167424 bytes of the 393216000",
    ),
    "image corrupt": (
        f"cp {DATA}/sandboxes/{ONE}/delta.img /root/ && printf %200s x | dd of={DATA}/sandboxes/{ONE}/delta.img bs=1 seek=40 conv=notrunc status=none",
        f"mv /root/delta.img {DATA}/sandboxes/{ONE}/",
        "delta.img: .* cannot mount /dev/loop",
    ),
    "originals gone": (f"mv {DATA}/originals/{ONE} /root/", f"mv /root/{ONE} {DATA}/originals/", f"{DATA}/originals/{ONE}"),
    "files in the mount's place": (
        f"mkdir {DATA}/sandboxes/{ONE}/delta/upper && touch {DATA}/sandboxes/{ONE}/delta/upper/file",
        f"rm -r {DATA}/sandboxes/{ONE}/delta/upper",
        "holds files of its own where",
    ),
    "no loop device": ("mv /dev/loop-control /root/", "mv /root/loop-control /dev/", "cannot be attached to a loop device"),
}


def test_what_cannot_be_made_right_stays_down_and_keeps_nobody_else_down(host: bare.Bare) -> None:
    for word, (spoil, mend, said) in SPOILED.items():
        machine.reboot(host.name)
        assert host.run(spoil, folder="/").code == 0, word
        spoilt = {ONE, TWO} if word == "no loop device" else {ONE}
        host.run(f": >/var/log/dockerd-supervised.log; {START}", folder="/")
        until(host, "grep -q 'at-start ended' /var/log/dockerd-supervised.log")
        log = host.run("cat /var/log/dockerd-supervised.log", folder="/").text
        lines = [line for line in log.splitlines() if line.startswith("sandbox: ") and "stays down" in line]
        assert len(lines) == len(spoilt), (word, log[-3000:])
        assert re.search(said, lines[0]), (word, lines)
        running = {name for name in (ONE, TWO) if host.run(f"docker exec sandbox-{name} true", folder="/").code == 0}
        assert running == {ONE, TWO} - spoilt, word
        again = host.sandbox("up")
        assert again.code == 1, word
        refused = host.sandbox(f"run {ONE} -- true")
        assert refused.code == 125, (word, refused.text)
        assert host.run(mend, folder="/").code == 0, word
        done = host.sandbox("up")
        assert done.code == 0, (word, done.text)


def test_nothing_is_started_from_files_that_were_tampered_with(host: bare.Bare) -> None:
    machine.reboot(host.name)
    host.run(f"cp -p {HOME}/configs/seccomp.json /root/ && echo >> {HOME}/configs/seccomp.json && {START}", folder="/")
    until(host, "docker version")
    done = host.sandbox("up")
    assert done.code == 1
    assert len(done.text.splitlines()) == 1
    assert "nothing is started: env: " in done.text
    assert "configs/seccomp.json" in done.text
    assert host.run("docker ps -q", folder="/").text == ""
    host.run(f"cp -p /root/seccomp.json {HOME}/configs/", folder="/")
    assert host.sandbox("up").code == 0


def test_the_play_brings_the_same_back(host: bare.Bare) -> None:
    machine.reboot(host.name)
    done = host.site(declared(host))
    assert done.code == 0, done.text


def test_nothing_comes_back_after_a_teardown_until_the_next_play(host: bare.Bare) -> None:
    assert host.run(".venv/bin/ansible-playbook playbooks/teardown.yml").code == 0
    machine.reboot(host.name)
    host.run(START, folder="/")
    until(host, "docker version")
    done = host.sandbox("up")
    assert (done.code, "a teardown took all sandboxes down" in done.text) == (0, True), done.text
    assert host.run("docker ps -aq", folder="/").text == ""
    again = host.site(declared(host))
    assert again.code == 0, again.text
