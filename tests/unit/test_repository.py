# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What must hold for the repository as a whole, so that knowing one part is knowing all."""

from __future__ import annotations

import json
import pathlib
import re
import subprocess
import typing as t

import jsonschema
import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
HEADER = (ROOT / "Makefile").read_text(encoding="utf-8").splitlines()[:3]
WITH_HEADER = {".py", ".yml", ".yaml", ".sh", ".cfg", ".toml", ".in", ""}
# Texts of their own form, and data.
WITHOUT_HEADER = {"LICENSE"}
# Hosts of package registries: a machine's own settings say where its packages come from.
REGISTRIES = re.compile(r"(?:(?:deb|security|snapshot|ftp)\.debian|pypi|files\.pythonhosted|registry\.npmjs|galaxy\.ansible)\.(?:org|com)\b")

Spec = dict[str, t.Any]


def _tracked() -> list[pathlib.Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [path for name in listed.split("\0") if name and (path := ROOT / name).is_file()]


TRACKED = _tracked()
ROLES = sorted(path.name for path in (ROOT / "roles").glob("*") if path.is_dir())


def _id(value: object) -> str:
    return str(value.relative_to(ROOT)) if isinstance(value, pathlib.Path) else str(value)


def _yaml(path: pathlib.Path) -> t.Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def _pins(lock: str) -> dict[str, str]:
    text = (ROOT / "requirements" / lock).read_text(encoding="utf-8")
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", text, re.MULTILINE))


def _has_header(path: pathlib.Path) -> bool:
    return path.name not in WITHOUT_HEADER and path.suffix in WITH_HEADER and path.parts[-2] != "fragments"


@pytest.mark.parametrize("path", [path for path in TRACKED if _has_header(path)], ids=_id)
def test_header(path: pathlib.Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[1:4] == HEADER if lines[0].startswith("#!") else lines[:3] == HEADER


@pytest.mark.parametrize("path", [path for path in TRACKED if path.suffix == ".py"], ids=_id)
def test_annotations_are_not_evaluated(path: pathlib.Path) -> None:
    assert "\nfrom __future__ import annotations\n" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", TRACKED, ids=_id)
def test_executable_means_script(path: pathlib.Path) -> None:
    # Templates become scripts on the host, and modules are run by Ansible.
    if path.suffix != ".j2" and path.parent != ROOT / "plugins" / "modules":
        assert bool(path.stat().st_mode & 0o100) == path.read_bytes().startswith(b"#!")


def test_no_registry_is_named() -> None:
    named = [_id(path) for path in TRACKED if REGISTRIES.search(path.read_text(encoding="utf-8", errors="replace"))]
    assert named == []


@pytest.mark.parametrize("lock", ["site.txt", "services.txt", "spend.txt", "test.txt"])
def test_locks_are_hashed_and_name_no_place(lock: str) -> None:
    text = (ROOT / "requirements" / lock).read_text(encoding="utf-8")
    entries = re.split(r"\n(?=[a-z0-9])", text)[1:]
    assert entries
    assert [entry.split()[0] for entry in entries if "--hash=sha256:" not in entry or "==" not in entry.split()[0]] == []
    assert re.findall(r"\S+://\S+|^ *--(?:index|extra|find|trusted)\S*|@ \S+", text, re.MULTILINE) == []


@pytest.mark.parametrize("name", ["site", "services", "spend", "test"])
def test_locks_hold_what_is_asked_for(name: str) -> None:
    pins = _pins(f"{name}.txt")
    for line in (ROOT / "requirements" / f"{name}.in").read_text(encoding="utf-8").splitlines():
        asked = re.match(r"([A-Za-z0-9-]+)(?:==([0-9.]+)\.\*)?$", line)
        if asked:
            assert f"{pins[asked[1].lower()]}.".startswith(f"{asked[2]}." if asked[2] else "")


def test_tests_run_what_site_installs() -> None:
    site, test = _pins("site.txt"), _pins("test.txt")
    assert site and {name: test.get(name) for name in site} == site


def _arguments(role: str) -> dict[str, Spec]:
    return _yaml(ROOT / "roles" / role / "meta" / "argument_specs.yml")["argument_specs"]["main"].get("options", {})


def _defaults(role: str) -> Spec:
    return _yaml(ROOT / "roles" / role / "defaults" / "main.yml") or {}


@pytest.mark.parametrize("role", ROLES)
def test_argument_specs_equal_defaults(role: str) -> None:
    required = {name for name, option in _arguments(role).items() if option.get("required")}
    documented = {name: option.get("default") for name, option in _arguments(role).items() if name not in required}
    assert documented == _defaults(role)
    assert required.isdisjoint(_defaults(role))


@pytest.mark.parametrize("role", ROLES)
def test_a_role_keeps_to_its_word(role: str) -> None:
    assert [name for name in _arguments(role) if not name.startswith(f"{role}_")] == []
    assert [option for option in _arguments(role).values() if not option.get("description")] == []
    missing = [
        name
        for name in (f"docs/{role}.md", f"molecule/{role}/molecule.yml", f"roles/{role}/README.md", f"roles/{role}/tasks/main.yml")
        if not (ROOT / name).is_file()
    ]
    assert missing == []
    assert re.search(rf"\b{role}\b", (ROOT / "playbooks" / "site.yml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yml")), ids=_id)
def test_configs_meet_their_schemas(path: pathlib.Path) -> None:
    schema = json.loads((ROOT / "configs" / "schemas" / f"{path.stem}.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(_yaml(path), schema)


@pytest.mark.parametrize("path", [path for path in TRACKED if path.parts[-2] == "schemas"], ids=_id)
def test_schemas_have_a_config(path: pathlib.Path) -> None:
    assert list(path.parents[1].glob(f"{path.stem}.*"))


def test_the_workflow_runs_targets_and_scenarios_that_exist() -> None:
    jobs = _yaml(ROOT / ".github" / "workflows" / "ci.yml")["jobs"]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z0-9-]+):", makefile, re.MULTILINE))
    assert {job["env"]["TARGET"] for job in jobs.values()} <= targets
    scenarios = {path.parent.name for path in ROOT.glob("molecule/*/molecule.yml")}
    assert set(jobs["molecule"]["strategy"]["matrix"]["scenario"]) == scenarios
    assert set(re.findall(r"^SCENARIOS := (.+)$", makefile, re.MULTILINE)[0].split()) == scenarios
