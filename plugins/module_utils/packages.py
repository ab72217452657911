# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Packages of a Debian host, installed without starting their services where nothing could supervise them.

Sources: dpkg-query(1), apt-get(8), invoke-rc.d(8).
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import typing as t
from pathlib import Path

from ansible_collections.dockersandbox.guardrails.plugins.module_utils import atomic

POLICY = Path("/usr/sbin/policy-rc.d")
POLICY_TEXT = b"#!/bin/sh\n# DockerSandboxApp wrote this for the time of an installation; it may be deleted.\nexit 101\n"


class PackageError(Exception):
    """A package could not be installed; the text is one line for the operator."""


def parse(listing: str) -> set[str]:
    """Return the names of the packages that are wholly installed, from lines of name, blank, dpkg's status."""
    lines = (line.split(" ") for line in listing.splitlines())
    return {name for name, status in lines if status == "installed"}


def missing(names: t.Sequence[str]) -> list[str]:
    """Return, sorted, which of *names* are not wholly installed. Raises PackageError where there is no dpkg."""
    try:
        done = _run("dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Status}\n", *names)
    except FileNotFoundError as error:
        raise PackageError(f"this host has no dpkg: install by hand what does the work of {', '.join(names)}") from error
    return sorted(set(names) - parse(done.stdout))


def leftover() -> bool:
    """Tell whether an interrupted installation has left its ban on services behind."""
    return _policy() == POLICY_TEXT


def install(names: t.Sequence[str], supervised: bool) -> None:
    """Install *names*; where services are not *supervised*, none of theirs is started.

    An installation that was interrupted before is completed first. Raises PackageError.
    """
    with contextlib.nullcontext() if supervised else _no_services():
        _step("dpkg", "--configure", "-a")
        update()
        _step("apt-get", "install", "-qq", "-y", "--no-install-recommends", *names)


def update() -> None:
    """Have apt read what its sources have. Raises PackageError."""
    _step("apt-get", "update", "-qq")


def lift_ban() -> None:
    """Remove the ban on services that an interrupted installation has left behind."""
    if leftover():
        POLICY.unlink()


@contextlib.contextmanager
def _no_services() -> t.Iterator[None]:
    # A ban that somebody else has set does the same and stays.
    if _policy() is None:
        atomic.write(POLICY, POLICY_TEXT, 0o755)
    try:
        yield
    finally:
        lift_ban()


def _policy() -> bytes | None:
    try:
        return atomic.read(POLICY)
    except OSError:
        return b""


def _step(*argv: str) -> None:
    if argv[0] == "apt-get":
        # Another apt at work is waited for; the operator's own edits of configuration files stay.
        argv = (*argv, "-o", "DPkg::Lock::Timeout=600", "-o", "Dpkg::Options::=--force-confold")
    done = _run(*argv)
    if done.returncode != 0:
        said = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith(("E: ", "dpkg: error"))]
        reason = "; ".join(said[:3]) or done.stderr.strip().rpartition("\n")[2]
        raise PackageError(f"`{' '.join(argv[:2])}` failed: {reason}; see that this host's apt sources can be reached")


def _run(*argv: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
    return subprocess.run(argv, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
