# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""This machine, converged with the operator's own sandboxes and three of the tests', which are gone afterwards."""

from __future__ import annotations

import collections.abc
import glob
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import typing as t

import pytest
import yaml
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import manifest, mounts, places, sandboxes, seal, stack
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.docker_api import Docker

ROOT = pathlib.Path(__file__).resolve().parents[2]
SANDBOX = str(ROOT / "bin" / "sandbox")
DOCKER = "/usr/bin/docker"
PREFIX = "e2e-"
# Not below /tmp: on many machines that is a tmpfs, which takes no idmapped mount on older kernels.
TREES = pathlib.Path("/var/tmp/guardrails-e2e")
AT = places.Places()
HOST = sandboxes.Host(Docker(), AT)
OWNER = 4711

CAPS, TWO, OWN = "e2e-caps", "e2e-two", "e2e-own"
SMALL = {"memory": "128m", "pids": 48, "open_files": 128, "file_size": "16m", "tmp_size": "8m", "home_size": "4m", "working_set": "300m"}
DECLARED: list[dict[str, t.Any]] = [
    {"name": CAPS, "originals": str(TREES / "caps"), **SMALL},
    {"name": TWO, "originals": str(TREES / "two"), "memory": "512m", "working_set": "512m"},
    {"name": OWN, "originals": str(TREES / "own"), "memory": "128m", "working_set": "300m", "run_as": "owner"},
]


class Play(t.NamedTuple):
    """What a play came to: exit code, seconds, each task's result in order, and whatever was said besides."""

    code: int
    seconds: float
    results: list[dict[str, t.Any]]
    said: str

    @property
    def lines(self) -> list[str]:
        """What the play says went wrong, line by line."""
        return [line for result in self.results if result.get("failed") for line in str(result["msg"]).splitlines()]

    @property
    def actions(self) -> list[str]:
        """What its tasks say they did."""
        return [action for result in self.results for action in result.get("actions", ())]

    @property
    def changed(self) -> bool:
        """Whether any task changed anything."""
        return any(result.get("changed") for result in self.results)


def play(name: str, *arguments: str, folder: pathlib.Path = ROOT, prefix: t.Sequence[str] = (), **variables: t.Any) -> Play:
    """Run a playbook of the checkout (or of a copy in *folder*) with extra *variables*; *prefix* is put before it."""
    environment = {
        **os.environ,
        "ANSIBLE_CONFIG": str(folder / "ansible.cfg"),
        "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json",
        # The operator's own journals are not for tests.
        "DOCKERSANDBOX_JSONL_FOLDER": str(ROOT / "tests" / "output" / "journals"),
    }
    program = str(pathlib.Path(sys.executable).with_name("ansible-playbook"))
    start = time.monotonic()
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(variables, file)
        file.flush()
        command = [*prefix, program, f"playbooks/{name}.yml", "-e", f"@{file.name}", *arguments]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - start
    begin = done.stdout.find("{")
    told = json.loads(done.stdout[begin:]) if begin >= 0 else {"plays": []}
    results = [result for one in told["plays"] for task in one["tasks"] for result in task["hosts"].values()]
    return Play(done.returncode, seconds, results, done.stdout[: max(begin, 0)] + done.stderr)


def operators() -> list[dict[str, t.Any]]:
    """Return the sandboxes that the checkout declares."""
    content = yaml.safe_load((ROOT / "configs" / "sandboxes.yml").read_text(encoding="utf-8"))
    return t.cast("list[dict[str, t.Any]]", content["sandboxes"])


def site(*arguments: str, declared: list[dict[str, t.Any]] | None = None, **variables: t.Any) -> Play:
    """Run site.yml with the operator's sandboxes and *declared* (the tests' own) beside them."""
    return play("site", *arguments, sandboxes=operators() + (DECLARED if declared is None else declared), **variables)


def run(*argv: str, name: str = TWO, options: t.Sequence[str] = (), stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run a command by bin/sandbox and return what came of it."""
    command = [SANDBOX, "run", name, *options, "--", *argv]
    return subprocess.run(command, input=stdin, capture_output=True, timeout=90, check=False)


def started(*argv: str, name: str = TWO, options: t.Sequence[str] = ()) -> subprocess.Popen[bytes]:
    """Begin a command by bin/sandbox, all its streams pipes."""
    command = [SANDBOX, "run", name, *options, "--", *argv]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def told(*argv: str, name: str = TWO, options: t.Sequence[str] = ()) -> dict[str, t.Any]:
    """Run a command by bin/sandbox and return its JSON result."""
    done = run(*argv, name=name, options=[*options, "--json"])
    return t.cast("dict[str, t.Any]", json.loads(done.stdout))


def inside(name: str, *argv: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command in a running sandbox, without a run."""
    command = [DOCKER, "exec", "-i", stack.container_name(name), *argv]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=90, check=False)


def docker(*arguments: str) -> str:
    """Return what the docker client prints."""
    return subprocess.run([DOCKER, *arguments], capture_output=True, text=True, check=True).stdout


def inspect(name: str) -> dict[str, t.Any]:
    """Return what the engine knows of a sandbox's container."""
    found = HOST.docker.inspect(stack.container_name(name))
    assert found is not None
    return found


def uid(name: str) -> int:
    """Return the uid of a sandbox."""
    return int(sandboxes.read_stack(AT)[name]["uid"])


def processes(of: int) -> list[str]:
    """Return the command lines of all processes of this machine that run as uid *of*, but the sandbox's first one."""
    found = []
    for folder in glob.glob("/proc/[0-9]*"):
        try:
            if os.stat(folder).st_uid == of:
                command = pathlib.Path(folder, "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
                found.append(command)
        except OSError:
            continue
    return sorted(command for command in found if not any(first in command for first in ("/catatonit ", "/guardrails-forward.py ")))


def sealed(bundle: str) -> dict[str, t.Any]:
    """Return the facts in a bundle's seal, once it verifies."""
    statement = seal.verify_file(os.path.join(bundle, "seal.json"), AT.public_key)
    return t.cast("dict[str, t.Any]", statement["predicate"])


def traces(name: str) -> dict[str, t.Any]:
    """Return everything there is of the sandboxes whose names begin so; all of it is empty when there is nothing."""
    container = stack.container_name(name)
    return {
        "containers": [known for known in docker("ps", "-a", "--format", "{{.Names}}").split() if known.startswith(container)],
        "volumes": [known for known in docker("volume", "ls", "-q").split() if known.startswith(container)],
        "mounts": [
            mount.point for mount in mounts.mounted() if mount.point.startswith((AT.lower(name), AT.sandbox(name))) or f"/volumes/{container}" in mount.point
        ],
        "folders": glob.glob(f"{AT.sandboxes}/{name}*") + glob.glob(f"{AT.run}/l*/{name}*"),
        "uids": [known for known in sandboxes.read_uids(AT) if known.startswith(name)],
    }


def state() -> dict[str, t.Any]:
    """Return all that a refused request must leave as it was: home, data, containers, volumes and mounts."""
    # What was hashed is remembered, whatever comes of it; locks in memory are nobody's state; a refusal may be on record; and
    # a gateway at work writes its ledger and figures.
    trees = {}
    for top in (AT.home, AT.sandboxes, os.path.join(AT.data, "originals")):
        for path, folders, names in os.walk(top):
            # The clock may make a snapshot at any time.
            folders[:] = sorted(set(folders) - {"snapshots"})
            if path.endswith("/work") or path.startswith((AT.logs, os.path.dirname(AT.log_key), f"{AT.home}/observability/metrics")):
                continue
            for name in ("", *sorted(names)):
                item = os.path.join(path, name)
                about = os.lstat(item)
                # What is written in a working set reaches its image some time later; the reserve follows what snapshots hold.
                if name in (os.path.basename(AT.image("")), "reserve"):
                    continue
                # Not the change time: what a test tampered with and put back has another one.
                trees[item] = (about.st_ino, about.st_mode, about.st_uid, about.st_gid, about.st_size, about.st_mtime_ns)
    containers = json.loads(docker("inspect", *ids)) if (ids := docker("ps", "-aq", "--filter", f"label={stack.LABEL}").split()) else []
    return {
        "files": trees,
        "uids": sandboxes.read_uids(AT),
        "containers": sorted((one["Name"], one["Id"], one["State"]["StartedAt"], json.dumps(one["HostConfig"])) for one in containers),
        "volumes": sorted(docker("volume", "ls", "-q", "--filter", f"label={stack.LABEL}").split()),
        "mounts": sorted(mount.point for mount in mounts.mounted() if mount.point.startswith(AT.run)),
    }


def tree(folder: pathlib.Path, owner: int = 0) -> pathlib.Path:
    """Make a small tree with something of each kind that originals may hold, all of one owner."""
    (folder / "data" / "deep").mkdir(parents=True)
    (folder / "README.md").write_text("# Example\n\nOne.\nTwo.\nThree.\n", encoding="utf-8")
    (folder / "data" / "numbers.csv").write_text("".join(f"{number},{number * number}\n" for number in range(200)), encoding="utf-8")
    (folder / "data" / "deep" / "blob").write_bytes(bytes(range(256)) * 40)
    (folder / "data" / "a name with 'quotes' and\nlines").write_text("odd\n", encoding="utf-8")
    (folder / "tool").write_text("#!/bin/sh\necho tool\n", encoding="utf-8")
    (folder / "tool").chmod(0o755)
    (folder / "link").symlink_to("data/numbers.csv")
    for path in (folder, *folder.rglob("*")):
        os.lchown(path, owner, owner)
    return folder


def digest(folder: pathlib.Path) -> str:
    """Return the sha256 of a tree's manifest, every byte read."""
    return manifest.build(folder).digest


def forget() -> None:
    """Remove all there is of the tests' sandboxes and trees, but what the stack says of them."""
    names = {name for name in HOST.strays(()) if name.startswith(PREFIX)} | {name for name in sandboxes.read_uids(AT) if name.startswith(PREFIX)}
    names |= {os.path.basename(path) for path in glob.glob(f"{AT.sandboxes}/{PREFIX}*") + glob.glob(f"{AT.run}/lower/{PREFIX}*")}
    for name in sorted(names):
        HOST.forget(name)
    assert not [mount.point for mount in mounts.mounted() if mount.point.startswith(AT.sandbox(PREFIX))]
    for path in glob.glob(f"{AT.exports(PREFIX)}*"):
        shutil.rmtree(path)
    for path in glob.glob(f"{AT.data}/cache/*guardrails-e2e*") + glob.glob(f"{AT.run}/lock/{PREFIX}*"):
        os.unlink(path)
    shutil.rmtree(TREES, ignore_errors=True)


@pytest.fixture(scope="session")
def site_with_ours() -> collections.abc.Iterator[Play]:
    """Converge this machine with the tests' sandboxes, once; at the end leave only the operator's."""
    forget()
    for name, owner in (("caps", 0), ("two", 1234), ("own", OWNER)):
        tree(TREES / name, owner)
    try:
        done = site()
        assert done.code == 0, done.lines or done.said
        yield done
    finally:
        if any(name.startswith(PREFIX) for name in sandboxes.read_stack(AT)):
            done = site(declared=[])
            assert done.code == 0, done.lines or done.said
        forget()
