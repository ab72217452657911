# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images: what a preset may hold, what its image is made from, and what a failed build is told as."""

from __future__ import annotations

import hashlib
import pathlib
import re
import typing as t

import modules
import pytest
import yaml
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import images, stack

ROOT = pathlib.Path(__file__).resolve().parents[2]
SHIPPED = yaml.safe_load((ROOT / "configs" / "env.yml").read_text(encoding="utf-8"))["env_presets"]
BASE = "dockersandbox/base:bookworm-1"


def made(**content: t.Any) -> images.Recipe:
    return images.recipe(BASE, "own", images.preset("own", content), 1)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (["git"], "a preset is a mapping with packages, npm, environment and files, and nothing else"),
        ({"pip": ["x"]}, "a preset is a mapping with packages, npm, environment and files, and nothing else"),
        ({"packages": "git"}, "packages: is not a list"),
        ({"npm": ["x"]}, "npm: is not a mapping"),
        ({"packages": ["git; id"]}, "'git; id' is not the name of a Debian package"),
        ({"packages": [1]}, "1 is not the name of a Debian package"),
        ({"npm": {"x; id": "1.0.0"}}, "'x; id' is not the name of an npm package"),
        ({"npm": {"@scope": "1.0.0"}}, "'@scope' is not the name of an npm package"),
        ({"npm": {"x": "latest"}}, "x: 'latest' is not an exact version, such as \"1.2.3\" (in quotes)"),
        ({"npm": {"x": "^1.0.0"}}, "x: '^1.0.0' is not an exact version"),
        ({"npm": {"x": "1.0"}}, "x: '1.0' is not an exact version"),
        ({"npm": {"x": 1.0}}, "x: 1.0 is not an exact version"),
        ({"npm": {"x": "1.0.0\nRUN id"}}, "x: '1.0.0\\nRUN id' is not an exact version"),
        ({"environment": {"A B": "1"}}, "'A B' is not the name of an environment variable"),
        ({"environment": {"A": 1}}, "A: 1 is not a text: put it in quotes"),
        ({"environment": {"A": "\0"}}, "A: '\\x00' is not a text"),
        ({"files": {"/home/agent/x": ""}}, "'/home/agent/x' is not a plain path below /etc, /opt or /usr/local"),
        ({"files": {"/etc/../x": ""}}, "'/etc/../x' is not a plain path"),
        ({"files": {"/etc/x/..": ""}}, "'/etc/x/..' is not a plain path"),
        ({"files": {"/etc": ""}}, "'/etc' is not a plain path"),
        ({"files": {"etc/x": ""}}, "'etc/x' is not a plain path"),
        ({"files": {"/etc/x": {}}}, "/etc/x: its content is not a text"),
    ],
)
def test_a_preset_that_cannot_be_meant(content: t.Any, said: str) -> None:
    with pytest.raises(ValueError) as caught:
        images.preset("own", content)
    assert str(caught.value).startswith(f"env_presets: own: {said}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["services", "services-python"])
def test_a_name_that_is_kept(name: str) -> None:
    with pytest.raises(ValueError, match=f"env_presets: {name}: this name is kept for the image of the services"):
        images.preset(name, {})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"generic": {"packages": ["x;"]}}, "env_presets: generic: 'x;' is not the name of a Debian package"),
        ({"generic": {"npm": {"x": "1"}}}, "env_presets: generic: x: '1' is not an exact version, such as \"1.2.3\" (in quotes)"),
    ],
)
def test_the_module_refuses_it(content: t.Any, said: str) -> None:
    done = modules.run("sandbox_image", check=True, presets=content)
    assert (done["failed"], done["msg"]) == (True, said)


@pytest.mark.parametrize(
    ("path", "fits"),
    [
        ("/etc/tool/config.toml", True),
        ("/etc/.hidden", True),
        ("/etc/...", True),
        ("/usr/local/bin/tool", True),
        ("/opt/a+b/@c_d-e", True),
        ("/usr/bin/tool", False),
        ("/etc/", False),
        ("/etc//x", False),
        ("/etc/./x", False),
        ("/etc/a b", False),
        ("/etcx/a", False),
    ],
)
def test_paths_of_files(path: str, fits: bool) -> None:
    assert bool(images.FILE.fullmatch(path)) is fits


@pytest.mark.parametrize("name", SHIPPED)
def test_presets_that_we_ship(name: str) -> None:
    assert images.preset(name, SHIPPED[name]).packages == SHIPPED["generic"]["packages"]


def test_packages_alone_need_no_npm() -> None:
    text = made(packages=["ripgrep", "python3"]).dockerfile
    assert "npm" not in text
    assert re.findall("^COPY (.*)$", text, re.MULTILINE) == [f"forward.py {stack.FORWARDER}"]
    assert text.count("FROM ") == 1
    assert text.index("catatonit") < text.index("python3 \\") < text.index("ripgrep")
    assert {f" && install -D -m 0711 /usr/bin/catatonit {stack.INIT} \\", f" && install -m 0711 /usr/bin/python3 {stack.INTERPRETER}"} <= set(text.splitlines())


def test_the_forwarder_is_in_the_tag(monkeypatch: pytest.MonkeyPatch) -> None:
    one = made()
    monkeypatch.setattr(images, "forward", stack)
    assert made().tag != one.tag


def test_npm_is_fetched_in_an_image_of_its_own() -> None:
    text = made(npm={"b": "2.0.0", "@a/a": "1.2.3-linux.x64"}).dockerfile
    fetch, image = text.split(f"\nFROM {BASE}\n")
    assert fetch.splitlines()[1] == f"FROM {BASE} AS npm"
    assert "--ignore-scripts" in fetch
    assert fetch.index("@a/a@1.2.3-linux.x64") < fetch.index("b@2.0.0")
    assert "\nCOPY --from=npm /usr/local/ /usr/local/\n" in image
    assert "npm install" not in image


def test_files_are_in_the_tag() -> None:
    one, two = made(files={"/etc/x": "1"}), made(files={"/etc/x": "2"})
    assert f"# {hashlib.sha256(b'1').hexdigest()}  /etc/x\nCOPY files/ /\n" in one.dockerfile
    assert one.tag != two.tag != made().tag


@pytest.mark.parametrize("content", [{"packages": ["a1"]}, {"npm": {"a": "1.0.0"}}, {"npm": {"a": "1.0.1"}}, {"files": {"/etc/x": ""}}])
def test_another_recipe_is_another_tag(content: t.Any) -> None:
    assert made(**content).tag != made().tag


def test_what_sandboxes_are_told_is_not_in_the_image() -> None:
    assert made(environment={"A": "1"}).tag == made().tag


@pytest.mark.parametrize("base", [BASE, f"registry.example/debian@sha256:{'0' * 64}"])
def test_a_raised_serial_runs_another_command(base: str) -> None:
    commands = []
    for serial in (1, 2):
        text = images.recipe(base, "own", images.Preset(), serial).dockerfile
        commands.append([line for line in text.splitlines() if not line.startswith(("#", "FROM"))])
    assert commands[0] != commands[1]


@pytest.mark.parametrize(
    ("told", "environment", "npmrc"),
    [
        # No npm on the host.
        (None, {}, "cafile=/npm/ca.crt\n"),
        (None, {"https_proxy": "http://p:1", "no_proxy": "a,b"}, "https-proxy=http://p:1\nnoproxy=a,b\ncafile=/npm/ca.crt\n"),
        ("registry=http://mirror/\ncafile=null\nproxy=null\nhttps-proxy=null\nnoproxy=", {}, "registry=http://mirror/\ncafile=/npm/ca.crt\n"),
        (
            "registry=http://mirror/\ncafile=OWN\nproxy=http://q:2\nnoproxy=",
            {"http_proxy": "http://p:1"},
            "proxy=http://q:2\nregistry=http://mirror/\ncafile=/npm/ca.crt\n",
        ),
        ("registry=http://mirror/\ncafile=/none", {}, "registry=http://mirror/\n"),
    ],
)
def test_npm_settings_are_the_hosts(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, told: str | None, environment: dict[str, str], npmrc: str
) -> None:
    own, common = tmp_path / "own.crt", tmp_path / "common.crt"
    own.write_text("own", encoding="utf-8")
    common.write_text("common", encoding="utf-8")
    if told is not None:
        (tmp_path / "npm").write_text(f"#!/bin/sh\ncat <<END\n{told.replace('OWN', str(own))}\nEND\n", encoding="utf-8")
        (tmp_path / "npm").chmod(0o755)
    for key in ("http_proxy", "https_proxy", "no_proxy"):
        monkeypatch.delenv(key, raising=False)
    for key, value in {**environment, "PATH": str(tmp_path) + (":/bin:/usr/bin" if told is not None else "")}.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr(images, "CERTIFICATES", str(common))
    files = images.npm_settings()
    assert files.pop("npmrc").decode() == npmrc
    certificates = "own" if "OWN" in (told or "") else "common"
    assert files == ({"ca.crt": certificates.encode()} if "cafile" in npmrc else {})


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ("Step 1/7 : FROM x\nE: Unable to locate package nope\n", None),
        (
            "npm ERR! code ETARGET\nnpm ERR! notarget No matching version found for @openai/codex@9.9.9.\nnpm ERR! notarget In most cases\n",
            "npm has no version 9.9.9 of @openai/codex: set one that `npm view @openai/codex versions` lists",
        ),
        (
            "npm ERR! code E404\nnpm ERR! 404 Not Found - GET http://mirror/nope\nnpm ERR! 404 \nnpm ERR! 404  'nope@1.0.0' is not in this registry.\n",
            "npm knows no package nope: correct its name",
        ),
        (
            "npm ERR! code ECONNREFUSED\nnpm ERR! network request to http://mirror/x failed\n",
            "npm: code ECONNREFUSED; network request to http://mirror/x failed; see that this host can reach its npm registry",
        ),
    ],
)
def test_what_npm_says(said: str, problem: str | None) -> None:
    assert images.npm_problem(said) == problem
