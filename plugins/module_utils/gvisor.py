# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""gVisor on a host: where its package comes from, and what the engine must be told of it.

Sources: apt-get(8), apt_preferences(5), sources.list(5), dockerd(8), and the flags of runsc as of July 2024.
"""

from __future__ import annotations

import platform
import subprocess
import typing as t
from pathlib import Path

from ansible_collections.dockersandbox.guardrails.plugins.module_utils import lock, packages
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.packages import PackageError

PACKAGE = "runsc"
# It has no network, may connect to the sockets that it is given, and heeds our seccomp profile.
ARGUMENTS = ("--network=none", "--host-uds=open", "--oci-seccomp")
RUNTIME: dict[str, t.Any] = {"path": "/usr/bin/runsc", "runtimeArgs": list(ARGUMENTS)}

SOURCES = Path("/etc/apt/sources.list.d/dockersandbox-gvisor.list")
PINS = Path("/etc/apt/preferences.d/dockersandbox-gvisor")
# Debian 12's own package, of 2022, answers EINVAL to every stat on kernels of today.
_SUITES = {("debian", "12"): "trixie"}
_WHY = "# Takes one package, runsc, from the next Debian. Remove this file before upgrading the system to that release.\n"


def runtime_problem(runtimes: t.Mapping[str, t.Any]) -> str | None:
    """Return why gVisor cannot be used with the engine's *runtimes* (as its ``/info`` has them), None when it can."""
    if PACKAGE not in runtimes:
        return f"the engine has no runtime {PACKAGE}"
    given = [argument.removesuffix("=true") for argument in runtimes[PACKAGE].get("runtimeArgs") or ()]
    if missing := [argument for argument in ARGUMENTS if argument not in given]:
        return f"the engine's runtime {PACKAGE} lacks {' '.join(missing)}"
    # With it a cap on memory does nothing.
    if "--ignore-cgroups" in given:
        return f"the engine's runtime {PACKAGE} has --ignore-cgroups"
    return None


def other_suite() -> str:
    """Return the suite that the package must be taken from, empty for the host's own."""
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        return ""
    return _SUITES.get((release["ID"], release.get("VERSION_ID", "")), "")


def sources(targets: str, suite: str) -> str:
    """Return sources.list(5) for *suite* on the host's own mirrors, empty when none is known.

    *targets* is a line for each: its address, a blank, and the path of the key it is signed with or anything else.
    """
    lines = set()
    for address, _blank, key in (target.partition(" ") for target in targets.splitlines()):
        signed = f" signed-by={key}" if key.startswith("/") and " " not in key else ""
        lines.add(f"deb [lang=none{signed}] {address} {suite} main\n")
    return "".join(sorted(lines))


def files(suite: str, listed: str) -> list[lock.Wanted]:
    """Return the files by which apt takes the one package from *suite* and nothing else, in the order of their writing.

    Without a suite neither may be there. The sources are left alone where *listed*, their lines, is empty.
    """
    if not suite:
        return [lock.Wanted(path, None, 0o644, 0, 0) for path in (SOURCES, PINS)]
    pins = f"{_WHY}Package: *\nPin: release n={suite}\nPin-Priority: -1\n\nPackage: {PACKAGE}\nPin: release n={suite}\nPin-Priority: 500\n"
    wanted = [lock.Wanted(PINS, pins.encode(), 0o644, 0, 0)]
    if listed:
        wanted.append(lock.Wanted(SOURCES, (_WHY + listed).encode(), 0o644, 0, 0))
    return wanted


class Installed(t.NamedTuple):
    """What was done, a reason each, the files written, and all the files that there are for it."""

    actions: list[str]
    written: list[str]
    files: list[str]


def install(supervised: bool, check: bool) -> Installed:
    """Make sure that the package is there, from the suite it must come from; with *check* only say what would be done.

    Raises PackageError when it cannot be had, with apt's sources as they were before.
    """
    suite = other_suite()
    missing = packages.missing([PACKAGE])
    known = sources(_targets(), suite)
    if suite and not known and not SOURCES.exists() and not check:
        packages.update()
        known = sources(_targets(), suite)
        if not known:
            raise PackageError("apt knows no Debian source on this host: name one in its sources")
    steps = lock.plan(files(suite, known))
    actions = [step.text for step in steps]
    if missing or (suite and steps):
        # A package of that name from elsewhere is not the one.
        actions.append(f"Installed {PACKAGE}{f' from {suite}' if suite else ''}: {'it was missing' if missing else 'its source is new'}")
    if not check:
        for step in steps:
            lock.apply(step)
        if missing or (suite and steps):
            try:
                packages.install([f"{PACKAGE}/{suite}" if suite else PACKAGE], supervised)
            except PackageError:
                for step in steps:
                    if step.before is None:
                        lock.remove_locked(step.wanted.path)
                raise
    return Installed(actions, [str(step.wanted.path) for step in steps], [str(path) for path in (SOURCES, PINS) if suite])


def _targets() -> str:
    command = ["apt-get", "indextargets", "--format", "$(SITE) $(SIGNED_BY)", "Created-By: Packages", "Origin: Debian", "Component: main"]
    command.append(f"Codename: {platform.freedesktop_os_release().get('VERSION_CODENAME', '')}")
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout
