# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The main promise: `make site` on a bare Debian 12. The tests are steps of one story, in this order.

The figures are printed (`make e2e` shows them): seconds of the whole command, on a machine with two cores.
"""

from __future__ import annotations

import random
import time

import bare
import pytest

AGAIN_SECONDS = 20
ENV_ALONE_SECONDS = 8


@pytest.fixture(scope="module")
def host(bare_machine: bare.Bare) -> bare.Bare:
    """The bare machine of this story."""
    bare_machine.make()
    return bare_machine


def test_the_environment_is_made_once(host: bare.Bare) -> None:
    first, second = host.run("make venv"), host.run("make venv")
    assert (first.code, second.code) == (0, 0), first.text + second.text
    assert "installing" not in second.text
    print(f"make venv: {first.seconds:.1f} s, again {second.seconds:.1f} s")


def test_a_phase_alone_names_the_phase_to_run_first(host: bare.Bare) -> None:
    done = host.site("--tags fs")
    errors = [line for line in done.text.splitlines() if line.startswith("[ERROR]")]
    assert done.code != 0
    assert len(errors) == 1, done.text
    assert "fs needs bootstrap" in errors[0]
    print(f"--tags fs on a bare host ({done.seconds:.1f} s): {errors[0]}")


def test_a_first_run_in_check_mode_changes_nothing(host: bare.Bare) -> None:
    look = "ls -A /opt /var/lib/dockersandbox; command -v dockerd || true; cat /etc/passwd"
    before = host.run(look).text
    done = host.site("--check --diff")
    assert done.code == 0, done.text
    assert host.run(look).text == before
    print(f"first run in check mode: {done.seconds:.1f} s")


def test_the_first_converge(host: bare.Bare) -> None:
    done = host.site()
    assert done.code == 0, done.text
    print(f"make site: {done.seconds:.1f} s, changed={done.changed}")


@pytest.mark.parametrize(
    ("arguments", "limit"),
    [("", AGAIN_SECONDS), ("--tags env", ENV_ALONE_SECONDS), ("--check --diff", AGAIN_SECONDS)],
)
def test_a_converged_host_is_left_alone(host: bare.Bare, arguments: str, limit: float) -> None:
    before = host.state()
    done = host.site(arguments)
    assert done.code == 0, done.text
    assert done.changed == 0, done.text
    print(f"make site {arguments}: {done.seconds:.1f} s, changed=0 (aim: at most {limit} s)")
    changes = bare.differences(before, host.state())
    assert not changes, "\n".join(changes)


def test_a_killed_converge_is_finished_by_the_next(host: bare.Bare, request: pytest.FixtureRequest) -> None:
    seed = request.config.getoption("--seed")
    seed = random.randrange(10**6) if seed is None else seed
    moments = random.Random(seed)
    aim = host.state()
    for number in range(request.config.getoption("--kills")):
        host.make()
        assert host.run("make venv").code == 0
        # The play itself is what is killed; 60 s is about its length here, and a later moment just finds it done.
        moment = moments.uniform(1, 60)
        killed = host.killed_after(moment, "make site")
        start = time.monotonic()
        done = host.site()
        print(f"seed {seed}, kill {number + 1} after {moment:.1f} s ({'running' if killed else 'done by then'}): next run {time.monotonic() - start:.1f} s")
        assert done.code == 0, done.text
        changes = bare.differences(aim, host.state())
        assert not changes, "\n".join(changes)
