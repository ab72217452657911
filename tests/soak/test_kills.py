# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever is killed, and whenever: the next play brings the host to the same state, and no sandbox is ever half made.

`make e2e` does a few rounds, `make soak` fifty; --seed repeats the rounds of an earlier time.
"""

from __future__ import annotations

import json
import random
import typing as t

import pytest
from e2e import bare

HOME, DATA = "/opt/DockerSandboxApp", "/var/lib/dockersandbox"
PLAY = ".venv/bin/ansible-playbook playbooks"
BOXES = [
    {"name": name, "originals": f"{DATA}/originals/{name}", "memory": "256m", "working_set": "300m"} for name in ("one", "two")
]
WORK = "sh -c 'i=0; while [ $i -lt 300 ]; do head -c 100000 /dev/urandom > f$i; i=$((i+1)); done; rm -f f*'"
CHANGES = "sh -c 'head -c 60000000 /dev/urandom > made; cp -a /originals/. copy'"
# What a round kills: its name, how it is prepared, the command, and up to how many seconds it takes.
ACTS: dict[str, tuple[str, str, float]] = {
    "first converge": (f"{PLAY}/teardown.yml -e teardown_purge=true", f"{PLAY}/site.yml {{declared}}", 30),
    "converge after a teardown": (f"{PLAY}/teardown.yml", f"{PLAY}/site.yml {{declared}}", 20),
    "repair": (
        "docker rm -fv sandbox-one; docker volume rm sandbox-one-workspace; docker stop -t 0 sandbox-two;"
        f" umount /run/dockersandbox/lower/two {DATA}/sandboxes/two/delta; umount {DATA}/sandboxes/one/delta",
        f"{PLAY}/site.yml {{declared}}",
        15,
    ),
    "run": ("true", f"{HOME}/bin/sandbox run one -- {WORK}", 3.5),
    "run with a bundle": ("true", f"{HOME}/bin/sandbox run two -- {CHANGES}", 3.5),
    "throw-away run": ("true", f"{HOME}/bin/sandbox run one --originals {DATA}/originals/two -- {WORK}", 4),
    "snapshot": (f"{HOME}/bin/sandbox run one -- sh -c 'echo x > x'", f"{HOME}/bin/sandbox snapshot one", 0.8),
    "restore": (
        f"{HOME}/bin/sandbox snapshot one --name kept --checkpoint; {HOME}/bin/sandbox run one -- sh -c 'echo x > x'",
        f"{HOME}/bin/sandbox restore one kept",
        1.5,
    ),
    "run by play": ("true", f"{PLAY}/run.yml -e run_file=/root/job.json", 6),
    "teardown": ("true", f"{PLAY}/teardown.yml", 5),
    "teardown with a purge": ("true", f"{PLAY}/teardown.yml -e teardown_purge=true", 6),
}
# Run inside: a line for whatever of a container that runs is not as every sandbox must be.
HALF = r"""
import json, subprocess
names = subprocess.run(["docker", "ps", "-q", "--filter", "label=dockersandbox.guardrails=sandbox"], capture_output=True, text=True).stdout.split()
found = json.loads(subprocess.run(["docker", "inspect", *names], capture_output=True, text=True, check=True).stdout) if names else []
wrong = []
for box in found:
    limits = box["HostConfig"]
    walls = (limits["NetworkMode"], limits["ReadonlyRootfs"], limits["CapDrop"], limits["Memory"], bool(limits["PidsLimit"]))
    if walls != ("none", True, ["ALL"], 256 << 20, True) or not any(option.startswith("seccomp=") for option in limits["SecurityOpt"]):
        wrong.append([box["Name"], walls])
    targets = {mount["Destination"]: mount["Source"] for mount in box["Mounts"]}
    if not {"/etc/passwd", "/etc/group"} <= set(targets) or len(set(targets) & {"/workspace", "/originals"}) == 1:
        wrong.append([box["Name"], targets])
    for target in {"/workspace", "/originals"} & set(targets):
        with open(f"/proc/{box['State']['Pid']}/mountinfo", encoding="utf-8") as file:
            mounts = [line.split() for line in file if f" {target} " in line]
        if len(mounts) != 1 or "overlay" not in mounts[0] or not {"nosuid", "nodev"} <= set(mounts[0][5].split(",")):
            wrong.append([box["Name"], target, mounts])
print(json.dumps(wrong))
"""


@pytest.fixture(scope="module")
def host(bare_machine: bare.Bare) -> bare.Bare:
    """A converged machine with two sandboxes in which nothing was changed."""
    bare_machine.make_once()
    script = f"for n in one two; do mkdir -p {DATA}/originals/$n; for i in 1 2 3; do echo $n > {DATA}/originals/$n/$i; done; done"
    job = json.dumps({"sandbox": "two", "argv": ["sh", "-c", "sleep 1; echo x > x; rm x"]})
    assert bare_machine.run(f"{script}; echo '{job}' > /root/job.json", folder="/").code == 0
    bare_machine.run(f"{PLAY}/teardown.yml -e teardown_purge=true")
    return bare_machine


def converged(host: bare.Bare) -> list[t.Any]:
    """Converge, clear the working sets, and return the state."""
    done = host.run(f"{PLAY}/site.yml {host.declare(*BOXES)}")
    assert done.code == 0, done.text[-6000:]
    for box in BOXES:
        cleared = host.sandbox(f"run {box['name']} -- sh -c 'rm -rf made copy f* x'")
        assert cleared.code == 0, cleared.text
    left = host.run(f"ls -A {HOME}/exports/*/ | grep partial; docker ps -a --format '{{{{.Names}}}}' | grep '\\.'", folder="/").text
    assert left == ""
    return host.state()


def test_whatever_is_killed_the_next_play_finishes(host: bare.Bare, request: pytest.FixtureRequest) -> None:
    seed = request.config.getoption("--seed")
    seed = random.randrange(10**6) if seed is None else seed
    chance = random.Random(seed)
    aim = converged(host)
    rounds = request.config.getoption("--rounds")
    # Each act once in turn, in an order of chance, for as long as there are rounds.
    acts = [act for _turn in range(rounds // len(ACTS) + 1) for act in chance.sample(list(ACTS), len(ACTS))][:rounds]
    for number, act in enumerate(acts, 1):
        prepare, command, longest = ACTS[act]
        host.run(prepare)
        moment = chance.uniform(0, longest)
        running = host.killed_after(moment, command.format(declared=host.declare(*BOXES)))
        half = host.run(f"cat > /tmp/half.py <<'END'\n{HALF}\nEND\npython3 /tmp/half.py", folder="/")
        state = "running" if running else "done by then"
        print(f"seed {seed}, round {number}: {act} killed after {moment:.1f} s ({state})")
        assert half.text.strip() in ("[]", ""), half.text
        changes = bare.differences(aim, converged(host))
        assert not changes, "\n".join(changes)
    verified = host.run(f"{PLAY}/verify.yml")
    assert verified.code == 0, verified.text
