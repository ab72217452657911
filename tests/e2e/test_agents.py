# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Agents at work: their own command-line clients, each in its sandbox, with a stand-in for the model.

The figures are printed (`make e2e` shows them): seconds of the whole command, on a machine with two cores.
"""

from __future__ import annotations

import collections.abc
import json
import pathlib
import re
import subprocess
import time
import typing as t

import api_stand_in
import here
import pytest
import yaml
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import manifest

PRESETS: dict[str, dict[str, t.Any]] = yaml.safe_load((here.ROOT / "configs" / "env.yml").read_text(encoding="utf-8"))["env_presets"]
STAND_IN = pathlib.Path(api_stand_in.__file__).read_bytes()
ASKED = "Write a note."
STAND_IN_URL = f'model_providers.sandbox.base_url="http://127.0.0.1:{api_stand_in.PORT}/v1"'


class Agent(t.NamedTuple):
    """How an agent is run, the package that it is, what it asks the model at, and how it is made to ask others too."""

    argv: tuple[str, ...]
    package: str
    paths: frozenset[str]
    talkative: tuple[str, ...]


AGENTS = {
    "claude-code": Agent(
        ("claude", "-p", ASKED),
        "@anthropic-ai/claude-code",
        frozenset({"HEAD /api/hello", "POST /v1/messages"}),
        ("env", "-u", "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "-u", "DISABLE_AUTOUPDATER", "claude", "-p", ASKED),
    ),
    "codex": Agent(
        ("codex", "exec", "--skip-git-repo-check", "-c", STAND_IN_URL, ASKED),
        "@openai/codex",
        frozenset({"POST /v1/responses"}),
        ("codex", "exec", "--skip-git-repo-check", "-c", STAND_IN_URL, "-c", "features.plugins=true", ASKED),
    ),
}
# Those that this engine has, by the word that a sandbox declares.
RUNTIMES = [word for word, name in {"runc": "runc", "gvisor": "runsc"}.items() if name in here.HOST.docker.call("GET", "/info")["Runtimes"]]
each = pytest.mark.parametrize("agent", AGENTS)


def box(agent: str, runtime: str = "runc") -> dict[str, t.Any]:
    """Return the declaration of an agent's sandbox."""
    made = {"name": f"{here.PREFIX}{agent}-{runtime}", "originals": str(here.TREES / "agents"), "preset": agent, "working_set": "512m"}
    return made if runtime == "runc" else {**made, "runtime": runtime}


BOXES = [box(agent, runtime) for agent in AGENTS for runtime in RUNTIMES]


@pytest.fixture(scope="module", autouse=True)
def converged(site_with_ours: here.Play) -> collections.abc.Iterator[here.Play]:
    """The machine with the agents' sandboxes beside the tests' own."""
    here.tree(here.TREES / "agents", 1234)
    try:
        done = here.site(declared=here.DECLARED + BOXES)
        assert done.code == 0, done.lines or done.said
        yield done
    finally:
        done = here.site()
        assert done.code == 0, done.lines or done.said


class Work(t.NamedTuple):
    """What an agent's run came to: its result, what it asked for, and how often it tried to reach anything else."""

    result: dict[str, t.Any]
    requests: list[dict[str, t.Any]]
    tries: int


def work(name: str, *argv: str) -> Work:
    """Let an agent work with the stand-in for its model, both by one run."""
    start = time.monotonic()
    done = here.run("python3", "-", *argv, name=name, options=["--json"], stdin=STAND_IN)
    seconds = time.monotonic() - start
    assert done.stdout, done.stderr
    result = json.loads(done.stdout)
    said = done.stderr.decode()
    assert result["exit_code"] == 0, said
    *requests, last = [json.loads(line.removeprefix("stand-in: ")) for line in said.splitlines() if line.startswith("stand-in: ")]
    print(f"{' '.join(argv[:2])} in {name}: {seconds:.1f} s, of these the agent {result['seconds']['command']:.1f} s")
    return Work(result, requests, last["tries"])


@each
def test_the_version_is_the_pinned_one(agent: str) -> None:
    done = here.inside(box(agent)["name"], AGENTS[agent].argv[0], "--version")
    assert re.findall(r"[0-9]+\.[0-9]+\.[0-9]+", done.stdout) == [PRESETS[agent]["npm"][AGENTS[agent].package]]


@pytest.fixture(scope="module", params=BOXES, ids=lambda declared: declared["name"].removeprefix(here.PREFIX))
def worked(request: pytest.FixtureRequest) -> tuple[Agent, Work]:
    """An agent, and what its work came to: once for all that is asked of it."""
    agent = AGENTS[request.param["preset"]]
    return agent, work(request.param["name"], *agent.argv)


def test_a_tool_call_writes_a_file_and_the_bundle_holds_it(worked: tuple[Agent, Work]) -> None:
    agent, done = worked
    assert len(done.requests[-1]["results"]) == len(api_stand_in.NOTES), done.requests
    assert done.result["changes"] == {"added": 2, "changed": 0, "removed": 0}
    assert done.result["originals"] == []
    bundle = pathlib.Path(done.result["bundle"])
    for note in api_stand_in.NOTES:
        assert (bundle / "files" / note).read_text(encoding="utf-8") == api_stand_in.NOTE
    assert here.sealed(str(bundle))["argv"][2:] == list(agent.argv)


def test_what_an_agent_did_is_undone_and_had_back(worked: tuple[Agent, Work]) -> None:
    _agent, done = worked
    name = done.result["sandbox"]
    (top,) = (mount["Source"] for mount in here.inspect(name)["Mounts"] if mount["Destination"] == "/workspace")
    states = {"before": manifest.build(here.AT.lower(name)), "after": manifest.build(top)}
    assert len(manifest.diff(states["before"], states["after"])) > len(api_stand_in.NOTES) - 1
    for word, wanted in states.items():
        command = [here.SANDBOX, "restore", name, done.result["snapshots"][word], "--json"]
        restored = subprocess.run(command, capture_output=True, check=False)
        assert restored.returncode == 0, restored.stderr
        assert json.loads(restored.stdout)["changed"]
        assert manifest.diff(wanted, manifest.build(top)) == []


def test_the_model_is_asked_and_nobody_else(worked: tuple[Agent, Work]) -> None:
    agent, done = worked
    assert {f"{request['method']} {request['path'].partition('?')[0]}" for request in done.requests} <= agent.paths
    assert done.tries == 0


@each
def test_asking_others_would_be_seen(agent: str) -> None:
    assert work(box(agent)["name"], *AGENTS[agent].talkative).tries > 0


@each
def test_nothing_of_the_registry_is_left(agent: str) -> None:
    image = json.loads(here.docker("image", "inspect", here.inspect(box(agent)["name"])["Image"]))[0]
    history = here.docker("history", "--no-trunc", "--format", "{{.CreatedBy}}", image["Id"])
    assert "npm install" not in history
    assert not image["Config"]["Labels"]
    assert here.docker("images", "-q", "--filter", "dangling=true", "--filter", "label=dockersandbox.guardrails=npm") == ""
    for place in ("/npm", "/usr/bin/npm", "/usr/bin/node"):
        assert here.inside(box(agent)["name"], "test", "-e", place).returncode == 1


@pytest.mark.parametrize(
    ("package", "version", "said"),
    [
        ("@openai/codex", "0.0.999", "npm has no version 0.0.999 of @openai/codex: set one that `npm view @openai/codex versions` lists"),
        ("@openai/no-such-package", "1.0.0", "npm knows no package @openai/no-such-package: correct its name"),
    ],
)
def test_what_npm_does_not_have_is_named(package: str, version: str, said: str) -> None:
    before = here.state()
    presets = {**PRESETS, "wrong": {"packages": [], "npm": {package: version}}}
    declared = [*here.DECLARED, *BOXES, {**box("codex"), "name": f"{here.PREFIX}wrong", "preset": "wrong"}]
    done = here.site(declared=declared, env_presets=presets)
    assert done.code == 2
    assert done.lines == [f"env_presets: wrong: {said}"]
    after = here.state()
    for key in before:
        assert after[key] == before[key], key
