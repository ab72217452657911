# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is read on the controller: configuration files and jobs, refused in one line each."""

from __future__ import annotations

import json
import pathlib
import shutil
import typing as t

import pytest
from ansible_collections.dockersandbox.guardrails.plugins.action import config_check, run_file

RULE = "logging_rules: [{id: own, regex: 'x[0-9]{8}', keywords: [x]}]\n"
COST = "cost_upstreams: {anthropic: {url: https://a.example, provider: a}, openai: {url: https://b.example, provider: b}}\n"
CONFIGS = pathlib.Path(__file__).resolve().parents[2] / "configs"


@pytest.fixture
def configs(tmp_path: pathlib.Path) -> pathlib.Path:
    """A copy of the configuration, to spoil."""
    folder = tmp_path / "configs"
    shutil.copytree(CONFIGS, folder)
    return folder


def test_what_we_ship_is_as_its_schema_says() -> None:
    files, found = config_check.problems(CONFIGS)
    assert found == []
    assert files == sorted(f"configs/{file.name}" for file in CONFIGS.iterdir() if file.suffix in (".yml", ".json"))


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("sandboxes", "sandboxes: [{name: a/b, originals: /x}]", "configs/sandboxes.yml: sandboxes[0].name: 'a/b' is not what is due: 1 to 32 of"),
        ("sandboxes", "sandboxes: [{name: a, originals: /x, memory: 12 elephants}]", "sandboxes[0].memory: '12 elephants' is not what is due: Bytes, or"),
        ("sandboxes", "sandboxes: [{name: a, originals: /x, memory: '0'}]", "sandboxes[0].memory: '0' is not what is due"),
        ("sandboxes", "sandboxes: [{name: a, originals: /x, memory: 0}]", "sandboxes[0].memory: 0 is not what is due"),
        ("sandboxes", "sandboxes: [{name: a}]", "sandboxes[0]: 'originals' is a required property"),
        ("sandboxes", "sandboxes: text", "sandboxes: 'text' is not of type 'array'"),
        ("sandboxes", "", "top: 'sandboxes' is a required property"),
        ("sandboxes", "sandboxes: [", "configs/sandboxes.yml: is not YAML"),
        ("env", "env_base: latest", "env_base: 'latest' is not what is due"),
        ("env", "env_colour: red", "('env_colour' was unexpected)"),
        ("env", "env_presets: {a: {packages: ['x; id']}}", "env_presets.a.packages[0]"),
        ("env", "env_presets: {a: {packages: [], npm: {b: latest}}}", "env_presets.a.npm.b: 'latest' is not what is due: An exact version"),
        ("env", "env_presets: {a: {packages: [], npm: {b: 1.0}}}", "env_presets.a.npm.b: 1.0 is not what is due: An exact version"),
        ("env", "env_presets: {a: {packages: [], npm: {'b;': '1.0.0'}}}", "env_presets.a.npm: 'b;' is not what is due: The name of an npm"),
        ("env", "env_presets: {a: {packages: [], environment: {B: 1}}}", "env_presets.a.environment.B: 1 is not what is due: A text"),
        ("env", "env_presets: {a: {packages: [], files: {/etc/../x: ''}}}", "env_presets.a.files: '/etc/../x' is not what is due: A plain path"),
        ("fs", "fs_example: relative", "configs/fs.yml: fs_example"),
        ("cost", "cost_budgets: []", "configs/cost.yml: top: 'cost_upstreams' is a required property"),
        ("cost", f"{COST}cost_budgets: [{{name: a, scope: world, limit: 5}}]", "cost_budgets[0].scope: 'world' is not what is due: run, sandbox, team"),
        ("cost", f"{COST}cost_budgets: [{{name: a, scope: run, limit: -5}}]", "cost_budgets[0].limit: -5 is not what is due: An amount of dollars"),
        ("cost", f"{COST}cost_budgets: [{{name: a, scope: run, limit: 5, zone: Mars/Base}}]", "cost_budgets[0].zone: 'Mars/Base' is not a time zone"),
        ("cost", f"{COST}cost_budgets: [{{name: a, scope: total, subject: x, limit: 5}}]", "cost_budgets[0].subject: 'x': a total has no subject"),
        ("cost", f"{COST}cost_budgets: []\ncost_ceiling: {{input_mtok: 5}}", "cost_ceiling.output_mtok: is missing: the dollars for a million tokens"),
        ("cost", f"{COST}cost_budgets: []\ncost_rules: {{server_tools: {{websearch: 1}}}}", "server_tools: 'websearch' is not what is due: web_search"),
        ("cost", f"{COST}cost_budgets: []\ncost_rules: {{server_tools: {{web_search: 0}}}}", "server_tools.web_search: 0 is not what is due: How often"),
        ("cost", f"{COST}cost_budgets: []\ncost_anthropic_key: sk-x", "('cost_anthropic_key' was unexpected)"),
        ("network", "network_registries: maybe", "network_registries: 'maybe' is not of type 'boolean'"),
        ("network", "network_groups: {a: [{host: 1}]}", "network_groups.a[0].host: 1 is not what is due: A name, *. and a name, or an address, in quotes"),
        ("network", "network_groups: {a: [{host: a.example, methods: [LIST]}]}", "network_groups.a[0].methods[0]: 'LIST' is not what is due: A method of HTTP"),
        ("network", "network_groups: {a: [{host: a.example, ports: [0]}]}", "network_groups.a[0].ports[0]: 0 is not what is due: A port from 1 to 65535"),
        ("network", "network_groups: {a: [{host: '*'}]}", "group a, rule 1 (*): * stands only before a dot"),
        ("network", "network_groups: {a: [{host: org}]}", "group a, rule 1 (org): is a bare top-level name"),
        ("network", "network_groups: {a: [{host: 10.1.2.3}]}", "group a, rule 1 (10.1.2.3): is an address"),
        ("network", 'network_groups: {a: [{host: "a.example\\n"}]}', "has a blank or a control character"),
        ("network", "network_sandboxes: {box: {groups: [gone]}}", "sandbox box: groups: ['gone'] is not a list of groups there are: none"),
        ("network", "network_sandboxes: {box: {limits: {bytes: 0}}}", "network_sandboxes.box.limits.bytes: 0 is not what is due: Bytes"),
        ("network", "network_resolvers: [1]", "network_resolvers[0]: 1 is not what is due: An IPv4 address"),
        ("network", "network_token_ports: ['443']", "network_token_ports[0]: '443' is not what is due: A port"),
        ("logging", "logging_rotation_size: 64m", "configs/logging.yml: top: 'logging_rules' is a required property"),
        ("logging", f"{RULE}logging_rotation_size: huge", "logging_rotation_size: 'huge' is not what is due: Bytes, or a whole number with k, m, g or t"),
        ("logging", f"{RULE}logging_retention_age: -1", "logging_retention_age: -1 is not what is due: Seconds, a whole number"),
        ("logging", f"{RULE}logging_head_interval: 600", "logging_head_interval: 600 is not what is due: Seconds from 1 to 60"),
        ("logging", f"{RULE}logging_ship_to: [{{folder: mnt}}]", "logging_ship_to[0].folder: 'mnt' is not what is due: An absolute path"),
        ("logging", f"{RULE}logging_ship_to: [{{server: 'a b'}}]", "logging_ship_to[0]: server: 'a b' is not a name or address with a port"),
        ("logging", RULE.replace("x[0-9]{8}", "("), "logging_rules: own: regex"),
        ("logging", RULE.replace("x[0-9]{8}", "(a+)+$"), "logging_rules: own: regex"),
        ("logging", f"{RULE}logging_rules_enabled: {{other: true}}", "logging_rules_enabled: there is no rule 'other'"),
    ],
)
def test_a_wrong_file_is_named(configs: pathlib.Path, name: str, text: str, said: str) -> None:
    (configs / f"{name}.yml").write_text(text, encoding="utf-8")
    (problem,) = config_check.problems(configs)[1]
    assert said in problem
    assert problem.startswith(f"configs/{name}.yml: ")
    assert "\n" not in problem


def _job(folder: pathlib.Path, content: t.Any) -> pathlib.Path:
    path = folder / "job.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def test_a_job_is_data(tmp_path: pathlib.Path) -> None:
    argv = ["sh", "-c", "echo {{ lookup('pipe', 'id') }}"]
    job = {"sandbox": "default", "argv": argv}
    assert run_file.job(_job(tmp_path, job)) == {**job, "originals": "", "timeout": 0}
    assert run_file.job(_job(tmp_path, {**job, "timeout": 90, "originals": "/srv"})) == {**job, "originals": "/srv", "timeout": 90}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is not JSON"),
        ([], "an object is due"),
        ({"sandbox": "default"}, "an object is due"),
        ({"sandbox": 1, "argv": ["ls"]}, "sandbox: the name of a sandbox is due"),
        ({"sandbox": "default", "argv": "ls"}, "argv: a list of texts is due"),
        ({"sandbox": "default", "argv": []}, "argv: the command is empty"),
        ({"sandbox": "default", "argv": ["a\0"]}, "argv[0]: has a NUL character"),
        ({"sandbox": "default", "argv": ["ls"], "shell": True}, "shell is not a key of a job"),
        ({"sandbox": "default", "argv": ["ls"], "originals": "x"}, "'x' is not an absolute path"),
        ({"sandbox": "default", "argv": ["ls"], "timeout": 0}, "timeout: 0 is not a whole number from 1 to 2592000 seconds"),
        ({"sandbox": "default", "argv": ["ls"], "timeout": "soon"}, "timeout: 'soon' is not a whole number"),
    ],
)
def test_a_wrong_job_is_refused(tmp_path: pathlib.Path, content: t.Any, said: str) -> None:
    with pytest.raises(ValueError, match="^run_file: ") as caught:
        run_file.job(_job(tmp_path, content))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_job_is_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ValueError, match="No such file or directory: give -e run_file=job.json"):
        run_file.job(tmp_path / "none.json")
