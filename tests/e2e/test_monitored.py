# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A machine without loop devices: the cap of a working set is monitored, said to be, and holds."""

from __future__ import annotations

import base64
import collections.abc
import json
import typing as t

import bare
import pytest

ORIGINALS = "/var/lib/dockersandbox/originals/soft"
BOX = {"name": "soft", "originals": ORIGINALS, "memory": "256m", "working_set": "300m"}
# More than the limit of entries, and less than that of bytes, however late it is seen.
FILES = "import os; [os.symlink('x', f'{n}') for n in range(40000)]"


@pytest.fixture(scope="module")
def host(bare_machine: bare.Bare) -> collections.abc.Iterator[bare.Bare]:
    """A converged machine that has had no loop devices since its sandbox was made."""
    bare_machine.make_once()
    bare_machine.run(f"mkdir -p {ORIGINALS}; mv /dev/loop-control /root/", folder="/")
    try:
        done = bare_machine.site(bare_machine.declare(BOX))
        assert done.code == 0, done.text
        assert bare_machine.site(bare_machine.declare(BOX)).changed == 0
        yield bare_machine
    finally:
        bare_machine.run("mv /root/loop-control /dev/", folder="/")


def told(host: bare.Bare, script: str) -> dict[str, t.Any]:
    """Run *script* in the sandbox and return the result, and the facts in the bundle's seal as ``sealed``."""
    done = host.sandbox(f"run soft --json -- {script} 2>/dev/null")
    result = json.loads(done.text)
    envelope = json.loads(host.run(f"cat {result['bundle']}/seal.json", folder="/").text)
    return {**result, "sealed": json.loads(base64.b64decode(envelope["payload"]))["predicate"]}


def caps(host: bare.Bare) -> dict[str, tuple[str, str]]:
    """Return the cap and the state of each sandbox."""
    return {box["sandbox"]: (box["cap"], box["state"]) for box in json.loads(host.sandbox("status --json").text)["sandboxes"]}


def test_the_kind_of_the_cap_is_said_and_why(host: bare.Bare) -> None:
    kind = "monitored: there is no loop device (/dev/loop-control: No such file or directory)"
    assert caps(host) == {"soft": (f"300m {kind}", "runs")}
    assert told(host, "true")["sealed"]["cap"] == kind
    gate = json.loads(host.run("cat /opt/DockerSandboxApp/.state/seals/fs.json", folder="/").text)
    assert json.loads(base64.b64decode(gate["payload"]))["predicate"]["facts"]["caps"] == {"soft": kind}


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("sh -c 'while :; do head -c 9000000 /dev/zero >> big; done'", "takes "),
        (f'python3 -c "{FILES}; __import__(\'time\').sleep(30)"', "entries, one for each 10 KiB of its cap is the limit"),
    ],
    ids=["bytes", "files"],
)
def test_a_command_that_outgrows_it_is_ended(host: bare.Bare, script: str, said: str) -> None:
    ended = told(host, script)
    assert ended["exit_code"] == 137
    assert said in ended["ended"]
    assert ended["ended"].startswith("the command was ended: the working set of sandbox soft ")
    assert ended["sealed"]["ended"] == ended["ended"]
    # What is too much may be cleared away, and then there is room again.
    cleared = told(host, "sh -c 'rm -f big; find . -type l -delete; echo room'")
    assert (cleared["exit_code"], cleared["ended"]) == (0, "")
    assert told(host, "sh -c 'head -c 9000000 /dev/zero > small; rm small'")["ended"] == ""


def test_what_a_command_found_full_it_may_not_make_fuller(host: bare.Bare) -> None:
    # Too fast to be seen while it goes on.
    host.run("head -c 320000000 /dev/zero > /var/lib/dockersandbox/sandboxes/soft/delta/upper/big", folder="/")
    assert told(host, "sh -c 'head -c 20000000 /dev/zero > more; sleep 5'")["exit_code"] == 137
    assert told(host, "sh -c 'sleep 1; rm big more'")["exit_code"] == 0


def snapshots(host: bare.Bare) -> list[str]:
    return [known["id"] for known in json.loads(host.sandbox("snapshots soft --json").text)["snapshots"]]


def test_loop_devices_that_come_later_give_a_set_without_changes_a_hard_cap_and_keep_its_snapshots(host: bare.Bare) -> None:
    # Those of before, which are of a set that was full, are more than an image has room for.
    for known in snapshots(host):
        assert host.sandbox(f"snapshot soft --remove {known} --reason room").code == 0
    assert told(host, "touch kept")["exit_code"] == 0
    with_it = snapshots(host)[-1]
    host.run("cp -a /root/loop-control /dev/", folder="/")
    done = host.site(host.declare(BOX))
    assert done.code == 0, done.text
    assert caps(host) == {"soft": ("300m monitored: it was made without a cap, and holds changes or too many snapshots", "runs")}
    assert told(host, "rm kept")["exit_code"] == 0
    before = snapshots(host)
    done = host.site(host.declare(BOX))
    assert done.code == 0, done.text
    assert caps(host) == {"soft": ("300m hard", "runs")}
    assert host.site(host.declare(BOX)).changed == 0
    assert set(before) <= set(snapshots(host))
    done = host.sandbox(f"restore soft {with_it}")
    assert done.code == 0, done.text
    assert told(host, "test -e kept")["exit_code"] == 0
