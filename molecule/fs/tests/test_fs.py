# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""P3: originals stay as they are, and changes land in the upper layer."""

from __future__ import annotations

import typing as t

import pytest

Host = t.Any
SANDBOX = "sandbox-default"
ORIGINALS = "/var/lib/dockersandbox/originals/example"
UPPER = "/var/lib/dockersandbox/sandboxes/default/delta/upper"


def sums(host: Host) -> str:
    """What the originals are."""
    return t.cast("str", host.check_output("cd %s && find . -printf '%%y %%m %%p\\n' -type f -exec sha256sum {} + | sort", ORIGINALS))


def inside(host: Host, script: str) -> t.Any:
    """Run *script* in the sandbox."""
    return host.run("docker exec %s sh -c %s", SANDBOX, script)


def test_baseline_is_sealed(host: Host) -> None:
    baseline = "/var/lib/dockersandbox/sandboxes/default/baseline"
    assert "payload" in host.file(f"{baseline}/seal.json").content_string
    assert len(host.check_output(f"ls {baseline}/*/manifest.jsonl").split()) == 1


def test_a_change_lands_in_the_upper_layer(host: Host) -> None:
    before = sums(host)
    assert inside(host, "echo new >/workspace/molecule").rc == 0
    assert host.file(f"{UPPER}/molecule").content_string == "new\n"
    assert inside(host, "rm /workspace/molecule").rc == 0
    assert sums(host) == before


@pytest.mark.parametrize(
    "script",
    ["touch /originals/proof", "rm -rf /originals/*", "mount -o remount,rw /originals", "mkfifo /originals/pipe"],
)
def test_originals_refuse_every_write(host: Host, script: str) -> None:
    before = sums(host)
    assert inside(host, script).rc != 0
    assert sums(host) == before
