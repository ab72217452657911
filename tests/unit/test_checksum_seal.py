# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The checksum_seal module, run as Ansible runs it."""

from __future__ import annotations

import typing as t
from pathlib import Path

import modules
import pytest
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import gate, lock, manifest, places, seal


def run(home: Path, check: bool = False, **arguments: t.Any) -> dict[str, t.Any]:
    return modules.run("checksum_seal", check, home=str(home), **arguments)


def everything(home: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in home.rglob("*") if path.is_file()}


def threefold(home: Path, **arguments: t.Any) -> dict[str, t.Any]:
    """Run in check mode, for real, and again; return the real answer."""
    before = everything(home)
    predicted = run(home, check=True, **arguments)
    assert everything(home) == before
    done = run(home, **arguments)
    assert (predicted["changed"], predicted["actions"]) == (done["changed"], done["actions"])
    assert predicted["diff"] == done["diff"] and done["changed"]
    after = everything(home)
    for check in (True, False):
        again = run(home, check, **arguments)
        assert (again["changed"], again["actions"]) == (False, [])
    assert everything(home) == after
    return done


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with a key, a locked file, a sealed tree and a sealed phase."""
    home = tmp_path / "home"
    seal.ensure_key(home / ".state/keys/host.key")
    lock.write_locked(home / "locked", b"one")
    tree = home / "tree"
    (tree / "a").mkdir(parents=True)
    (tree / "a/b").write_bytes(b"one")
    (tree / "c").write_bytes(b"")
    run(home, tree=str(tree), manifest=str(home / "manifest.jsonl"))
    gate.close_gate(str(home), "bootstrap", [], [str(home / "locked")], {})
    return home


@pytest.mark.parametrize(
    ("folder", "foreign"),
    [
        ("/var/lib/dockersandbox/sandboxes/default/delta", True),
        ("/var/lib/dockersandbox/sandboxes/default", False),
        ("/var/lib/dockersandbox/sandboxes/default/baseline/delta", False),
        ("/opt/DockerSandboxApp/exports/default/20261124T111206Z-0ae8/files", True),
        ("/opt/DockerSandboxApp/exports/default/20261124T111206Z-0ae8", False),
        ("/opt/DockerSandboxApp/files", False),
    ],
)
def test_where_a_lock_or_a_seal_proves_nothing(folder: str, foreign: bool) -> None:
    assert places.Places().foreign(folder) is foreign


def test_what_a_sandbox_wrote_is_not_verified(home: Path) -> None:
    bundle = home / "exports/default/run"
    deep = bundle / "files" / "/".join(["d"] * 900)
    before = run(home, verify=str(home))
    deep.mkdir(parents=True)
    for name in ("a.sha256", "seal.json", "b.seal.json"):
        (bundle / "files" / name).write_text("planted", encoding="ascii")
    assert run(home, verify=str(home)) == before and not before["failed"]
    (bundle / "seal.json").write_text("planted", encoding="ascii")
    assert len(run(home, verify=str(home))["problems"]) == 1


def test_the_log_has_a_key_of_its_own(home: Path) -> None:
    before = run(home, verify=str(home))
    segment = home / "observability/claude-sandbox/logs/ct-0000000000000001.jsonl.gz.seal.json"
    segment.parent.mkdir(parents=True)
    seal.write(segment, seal.sign(seal.statement({}, "log-segment", {}), seal.generate("log")))
    assert run(home, verify=str(home)) == before and not before["failed"]
    segment.rename(home / segment.name)
    assert len(run(home, verify=str(home))["problems"]) == 1


def test_key(tmp_path: Path) -> None:
    assert threefold(tmp_path, key="present")["actions"] == [f"Made the host key {tmp_path}/.state/keys/host.key"]


def test_paths(tmp_path: Path) -> None:
    paths = [str(tmp_path / name) for name in ("a", "b")]
    for path in map(Path, paths):
        path.write_bytes(b"one")
    assert threefold(tmp_path, paths=paths)["actions"] == [f"Locked {path}" for path in paths]
    Path(paths[1]).write_bytes(b"two")
    for check in (True, False):
        refused = run(tmp_path, check, paths=paths)
        assert refused["failed"] and refused["msg"].startswith(f"{paths[1]}: its sha256 is ")


def test_tree(tmp_path: Path) -> None:
    seal.ensure_key(tmp_path / ".state/keys/host.key")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/x").write_bytes(b"one")
    target = tmp_path / "out/manifest.jsonl"
    arguments = {"tree": str(tmp_path / "tree"), "manifest": str(target)}
    found = manifest.build(tmp_path / "tree")
    done = threefold(tmp_path, **arguments)
    assert done["actions"] == [f"Sealed {tmp_path}/tree as {found.digest}: 2 entries, 3 bytes"]
    made = seal.verify_file(target.with_name("manifest.jsonl.seal.json"), tmp_path / ".state/keys/host.pub", "tree")
    assert seal.subjects(made) == {"manifest.jsonl": found.digest}
    # A manifest that was written just before a kill vouches for nothing.
    target.with_name("manifest.jsonl.seal.json").unlink()
    assert run(tmp_path, False, **arguments)["changed"]


def change_file(home: Path) -> None:
    (home / "locked").write_bytes(b"evil")


def change_tree(home: Path) -> None:
    (home / "tree/a/b").write_bytes(b"evil")


def add_to_tree(home: Path) -> None:
    (home / "tree/extra").touch()


def change_manifest(home: Path) -> None:
    with (home / "manifest.jsonl").open("ab") as file:
        file.write(b"\n")


def change_seal(home: Path) -> None:
    path = home / "manifest.jsonl.seal.json"
    path.write_bytes(path.read_bytes().replace(b'"payload":"e', b'"payload":"f'))


def change_gate(home: Path) -> None:
    made = seal.statement({}, "gate", {"phase": "bootstrap"})
    seal.write(home / ".state/seals/bootstrap.json", seal.sign(made, seal.generate()))


@pytest.mark.parametrize(
    ("change", "texts"),
    [
        (change_file, ["{home}/locked: its sha256 is b5c1fb2efc6d", "bootstrap: {home}/locked changed after it was sealed"]),
        (change_tree, ["{home}/tree is not what was sealed: changed a/b (size 3 → 4, sha256 7692c3ad3540… → b5c1f"]),
        (add_to_tree, ["{home}/tree is not what was sealed: added extra (file)"]),
        (change_manifest, ["{home}/manifest.jsonl changed after it was sealed"]),
        (change_seal, ["{home}/manifest.jsonl.seal.json: its signature does not fit its content"]),
        (change_gate, ["bootstrap: {home}/.state/seals/bootstrap.json: it is not signed with this host's key"]),
    ],
)
def test_verify_names_each_that_differs(home: Path, change: t.Callable[[Path], None], texts: list[str]) -> None:
    # The file, and the list of sealings; the tree, and the phase.
    whole = run(home, verify=str(home))
    assert (whole["failed"], whole["changed"], whole["locks"], whole["seals"]) == (False, False, 2, 2)
    change(home)
    before = everything(home)
    refused = run(home, verify=str(home))
    assert refused["failed"] and len(refused["problems"]) == len(texts)
    for problem, text in zip(refused["problems"], texts, strict=True):
        assert problem.startswith(text.format(home=home)) and "\n" not in problem
    assert everything(home) == before
    if change in {change_tree, add_to_tree, change_manifest, change_seal}:
        again = run(home, False, tree=str(home / "tree"), manifest=str(home / "manifest.jsonl"))
        assert again["failed"] and again["msg"] == refused["problems"][0]
    assert everything(home) == before


def test_all_that_differs_is_named_at_once(home: Path) -> None:
    for change in (change_file, change_tree, change_gate):
        change(home)
    assert len(run(home, verify=str(home))["problems"]) == 3


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"tree": "/nowhere", "manifest": "/nowhere/m"}, "manifest: /nowhere/m is inside the tree /nowhere"),
        ({"tree": "/nowhere", "manifest": "/m"}, "/nowhere: No such file or directory"),
        ({"tree": "/nowhere"}, "parameters are required together: tree, manifest"),
        ({"paths": ["/nowhere"]}, "/nowhere: there is no such file"),
        ({"verify": "/nowhere"}, "/nowhere: No such file or directory"),
        ({"verify": "/", "key": "present"}, "parameters are mutually exclusive: verify|key"),
        ({"key": "absent"}, "value of key must be one of: present"),
    ],
)
def test_bad_input_is_one_line(tmp_path: Path, arguments: dict[str, t.Any], text: str) -> None:
    done = run(tmp_path, **arguments)
    assert done["failed"] and text in done["msg"] and "\n" not in done["msg"]
