# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The cap of a working set: what fills it stays in it, and a full one is still of use."""

from __future__ import annotations

import json
import os
import re
import subprocess
import typing as t

import here
import pytest
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import loops, stack

pytestmark = pytest.mark.usefixtures("site_with_ours")

MIB = 1 << 20
# In pieces below the cap on a single file.
BYTES = "i=0; while head -c 8000000 /dev/zero > fill$i; do i=$((i+1)); done; echo $i"
# What a run leaves to a full set of the reserve, so that it can go on.
REST = "cd /workspace && for i in 1001 1002 1003; do head -c 8000000 /dev/zero > fill$i; done"
FILES = """
import os
number = 0
try:
    while True:
        if number % 4096 == 0:
            os.mkdir(f"fill{number}")
            folder = f"fill{number}"
        os.symlink("x", f"{folder}/{number}")
        number += 1
except OSError as error:
    print(number, error.strerror)
"""
CLEAR = ["sh", "-c", "rm -rf fill*"]


@pytest.fixture(autouse=True)
def cleared() -> t.Iterator[None]:
    """Nothing that filled the set is left, nor a snapshot that has it."""
    yield
    assert here.run(*CLEAR, name=here.CAPS).returncode == 0
    for known in sandbox("snapshots", here.CAPS, "--json")["snapshots"]:
        removed = [here.SANDBOX, "snapshot", here.CAPS, "--remove", known["id"], "--reason", "a test"]
        assert subprocess.run(removed, capture_output=True, check=False).returncode == 0


def sandbox(*arguments: str) -> dict[str, t.Any]:
    told: dict[str, t.Any] = json.loads(subprocess.run([here.SANDBOX, *arguments], capture_output=True, check=False).stdout)
    return told


def status(name: str) -> dict[str, t.Any]:
    return next(box for box in sandbox("status", "--json")["sandboxes"] if box["sandbox"] == name)


def test_the_kind_of_the_cap_is_said(site_with_ours: here.Play) -> None:
    assert loops.unavailable() is None
    assert (status(here.CAPS)["cap"], status(here.TWO)["cap"]) == ("300m hard", "512m hard")
    (caps,) = [result["caps"] for result in site_with_ours.results if "caps" in result]
    assert {caps[box["name"]] for box in here.DECLARED} == {"hard"}


def test_bytes_stay_in_their_sandbox_and_a_full_set_is_bundled_started_and_cleared() -> None:
    image, container = here.AT.image(here.CAPS), stack.container_name(here.CAPS)
    before = os.stat(image).st_blocks
    done = here.told("sh", "-c", BYTES, name=here.CAPS)
    assert done["exit_code"] == 0
    assert done["changes"]["added"] > 20
    facts = here.sealed(done["bundle"])
    assert (facts["cap"], facts["ended"]) == ("hard", "")
    assert abs(os.stat(image).st_blocks - before) * 512 < MIB
    neighbour = here.run("sh", "-c", "head -c 50000000 /dev/zero > fill && stat -c %s fill && rm fill")
    assert neighbour.stdout == b"50000000\n", neighbour.stderr

    assert "No space left on device" in here.inside(here.CAPS, "sh", "-c", REST).stderr
    here.docker("restart", "-t", "0", container)
    assert here.inside(here.CAPS, "sh", "-c", ": > /workspace/fill0").returncode != 0
    # Started by us, it has what an overlay needs to be writable.
    assert "is mounted read-only" in status(here.CAPS)["state"]
    again = here.run("sh", "-c", "rm fill1 && echo room > fill1 && cat fill1", name=here.CAPS)
    assert again.stdout == b"room\n", again.stderr


def test_files_stay_in_their_sandbox() -> None:
    done = here.told("python3", "-c", FILES, name=here.CAPS)
    assert done["exit_code"] == 0
    share = 300 * MIB * loops.INODES // 100 // 512
    # The file system makes inodes by 64, in each of its groups.
    assert 0.9 * share < done["changes"]["added"] <= 1.02 * share
    assert here.run("sh", "-c", "mkdir fill && rmdir fill").returncode == 0
    here.docker("stop", "-t", "0", stack.container_name(here.CAPS))
    again = here.run("sh", "-c", "rm -r fill0 && mkdir fill0 && echo room", name=here.CAPS)
    assert again.stdout == b"room\n", again.stderr


def test_a_cap_grows_in_use() -> None:
    with here.started("sh", "-c", "echo ready; cat", name=here.OWN) as busy:
        assert busy.stdout is not None
        assert busy.stdout.readline() == b"ready\n"
        declared = [{**one, "working_set": "400m"} if one["name"] == here.OWN else one for one in here.DECLARED]
        refused = here.site("--tags", "env,fs", declared=declared)
        assert refused.code == 2
        assert ["is busy with run" in line for line in refused.lines] == [True], refused.lines
        busy.communicate()
    before = here.inspect(here.OWN)["State"]["StartedAt"]
    done = here.site("--tags", "env,fs", declared=declared)
    assert done.code == 0, done.lines
    assert [action for action in done.actions if re.search(r"sandbox e2e-own: .*/delta.img has not its whole 400m yet$", action)]
    assert here.inspect(here.OWN)["State"]["StartedAt"] == before
    size = here.inside(here.OWN, "df", "--output=size", "-m", "/workspace").stdout.split()[1]
    # With the quarter that is there for snapshots: 375 before.
    assert 375 < int(size) <= 500
    # It does not shrink again.
    here.DECLARED[:] = declared
