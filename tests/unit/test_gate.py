# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The step gate on real homes with real keys."""

from __future__ import annotations

import os
import re
import typing as t
from pathlib import Path

import modules
import pytest
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import gate, lock, seal
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.gate import GateError
from kills import killed

CHAIN: list[tuple[str, list[str]]] = [("bootstrap", []), ("env", ["bootstrap"]), ("fs", ["bootstrap", "env"])]


def config(home: Path, phase: str) -> Path:
    return home / "configs" / f"{phase}.json"


def key(home: Path) -> Path:
    return home / ".state/keys/host.key"


def write(home: Path, phase: str, content: bytes = b"{}\n") -> str:
    path = config(home, phase)
    path.parent.mkdir(exist_ok=True)
    lock.write_locked(path, content)
    return str(path)


def close(home: Path, phase: str, needs: list[str], **more: t.Any) -> gate.Closing:
    return gate.close_gate(str(home), phase, needs, [str(config(home, phase))], {"image": "sha256:1"}, **more)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with the first three phases sealed."""
    seal.ensure_key(key(tmp_path))
    for phase, needs in CHAIN:
        write(tmp_path, phase)
        close(tmp_path, phase, needs)
    return tmp_path


def opened(home: Path, phase: str = "fs", **more: t.Any) -> list[str]:
    return gate.open_gate(str(home), phase, dict(CHAIN)[phase], [str(config(home, phase))], **more)


def everything(home: Path) -> dict[str, tuple[bytes, int]]:
    return {str(path): (path.read_bytes(), path.stat().st_ino) for path in home.rglob("*") if path.is_file()}


def test_sealed_phases_open_the_gate(home: Path) -> None:
    found = opened(home)
    assert [re.sub(r"\d", "9", line) for line in found] == [
        "bootstrap was sealed 9999-99-99T99:99:99Z",
        "env was sealed 9999-99-99T99:99:99Z",
    ]
    states = gate.status(str(home))
    assert [item.phase for item in states] == list(gate.PHASES)
    assert [item.phase for item in states if item.state == "sealed"] == ["bootstrap", "env", "fs"]


def test_the_list_of_sealings(home: Path) -> None:
    path = gate.progress_path(str(home))
    lines = [line for line in path.read_text().splitlines() if line.startswith("- ")]
    assert lock.check(path) is None
    for (phase, _needs), line in zip(CHAIN, lines, strict=True):
        digest = lock.digest_of(gate.seal_path(str(home), phase))
        assert re.fullmatch(rf"- \d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\dZ P{gate.PHASES[phase]} {phase} sealed sha256:{digest}", line)


def test_closing_again_writes_nothing(home: Path) -> None:
    before = everything(home)
    for phase, needs in CHAIN:
        for check in (True, False):
            closing = close(home, phase, needs, check=check)
            assert closing.actions == [] and closing.before == closing.after
    assert everything(home) == before


@pytest.mark.parametrize("what", ["file", "facts", "needs"])
def test_closing_seals_again_when_anything_differs(home: Path, what: str) -> None:
    arguments: dict[str, t.Any] = {"needs": ["bootstrap"], "facts": {"image": "sha256:1"}}
    if what == "file":
        write(home, "env", b"[]\n")
    elif what == "facts":
        arguments["facts"] = {"image": "sha256:2"}
    else:
        arguments["needs"] = []
    before = everything(home)
    results = []
    for check in (True, False):
        results.append(gate.close_gate(str(home), "env", files=[str(config(home, "env"))], check=check, **arguments))
        assert (everything(home) == before) == check
    assert results[0] == results[1] and len(results[0].actions) == 2
    # A needed phase that was sealed anew is fine for those that need it.
    assert opened(home)
    assert close(home, "fs", ["bootstrap", "env"]).actions[0].startswith("Sealed fs: its files, facts or needed phases")


def seal_gone(home: Path) -> None:
    gate.seal_path(str(home), "env").unlink()


def two_seals_gone(home: Path) -> None:
    seal_gone(home)
    gate.seal_path(str(home), "bootstrap").unlink()


def file_changed(home: Path) -> None:
    config(home, "env").write_bytes(b"evil")


def file_gone(home: Path) -> None:
    config(home, "env").unlink()


def own_file_changed(home: Path) -> None:
    config(home, "fs").write_bytes(b"evil")


def seals_swapped(home: Path) -> None:
    path = gate.seal_path(str(home), "env")
    path.write_bytes(gate.seal_path(str(home), "bootstrap").read_bytes())


def seal_by_another(home: Path) -> None:
    made = seal.statement({}, "gate", {"phase": "env", "time": "now"})
    seal.write(gate.seal_path(str(home), "env"), seal.sign(made, seal.generate()))


def own_seal_by_another(home: Path) -> None:
    made = seal.statement({}, "gate", {"phase": "fs", "time": "now"})
    seal.write(gate.seal_path(str(home), "fs"), seal.sign(made, seal.generate()))


def seal_cut(home: Path) -> None:
    path = gate.seal_path(str(home), "env")
    path.write_bytes(path.read_bytes()[:-20])


def public_key_gone(home: Path) -> None:
    seal.public_of(key(home)).unlink()


RUN_ENV = 'run "ansible-playbook playbooks/site.yml --tags env"'


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (seal_gone, f"fs needs env, which is not sealed on this host: {RUN_ENV} first"),
        (two_seals_gone, "fs needs bootstrap, which is not sealed on this host: run"),
        (file_changed, "configs/env.json changed after it was sealed (sha256 b5c1fb2efc6d…, sealed ca3d163bab05…)"),
        (file_gone, "configs/env.json is gone; it was sealed"),
        (own_file_changed, "fs: {home}/configs/fs.json: its sha256 is"),
        (seals_swapped, "env: {home}/.state/seals/env.json is a seal of something else (bootstrap)"),
        (seal_by_another, "env: {home}/.state/seals/env.json: it is not signed with this host's key"),
        (own_seal_by_another, "fs: {home}/.state/seals/fs.json: it is not signed with this host's key"),
        (seal_cut, "env: {home}/.state/seals/env.json: is not a DSSE envelope"),
        (public_key_gone, "host.pub: the host's public key is missing"),
    ],
)
def test_the_gate_stays_shut_in_one_line(home: Path, change: t.Callable[[Path], None], text: str) -> None:
    change(home)
    with pytest.raises(GateError) as refused:
        opened(home)
    assert text.format(home=home) in str(refused.value) and "\n" not in str(refused.value)
    # In check mode just the same, as long as no earlier task would change it.
    with pytest.raises(GateError):
        opened(home, predicted=["network"])


def test_an_interrupted_write_of_the_phase_itself_is_no_tampering(home: Path) -> None:
    path = config(home, "fs")
    path.with_name("fs.json.sha256.new").write_bytes(lock.line(b"fs.json", "0" * 64))
    assert opened(home)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"phase": "fs", "needs": ["fs"]}, "fs cannot need itself"),
        ({"phase": "fs", "needs": ["nowhere"]}, "there is no phase nowhere; the phases are: bootstrap, env,"),
        ({"phase": "fs", "facts": {"load": 0.5}}, "fs: its facts cannot be sealed"),
        ({"phase": "fs", "files": ["/nowhere/x"]}, "fs cannot be sealed: /nowhere/x is missing"),
        ({"phase": "cost", "needs": ["policy"]}, "cost needs policy, which is not sealed on this host"),
    ],
)
def test_what_cannot_be_sealed(home: Path, arguments: dict[str, t.Any], text: str) -> None:
    before = everything(home)
    with pytest.raises(GateError, match=re.escape(text)):
        gate.close_gate(**{"home": str(home), "needs": [], "files": [], "facts": {}} | arguments)
    assert everything(home) == before


def test_a_tampered_list_of_sealings_stops_the_closing(home: Path) -> None:
    with gate.progress_path(str(home)).open("a") as file:
        file.write("- evil\n")
    before = everything(home)
    write(home, "env")
    with pytest.raises(GateError, match=r"docker_sandbox_progress\.md: its sha256 is"):
        close(home, "env", ["bootstrap"])
    assert everything(home).keys() == before.keys()


def test_kill_at_every_step_of_closing_ends_in_the_same_list(tmp_path: Path) -> None:
    step = 0
    while True:
        step += 1
        home = tmp_path / str(step)
        seal.ensure_key(key(home))
        write(home, "bootstrap")
        was_killed = killed(step, lambda: close(home, "bootstrap", []))  # noqa: B023 - called at once
        close(home, "bootstrap", [])
        assert close(home, "bootstrap", []).actions == []
        assert gate.progress_path(str(home)).read_text().count("P0 bootstrap sealed") == 1
        assert gate.verified(str(home), "bootstrap")
        if not was_killed:
            break
    assert step > 6


# --- the module


def run(home: Path, phase: str, state: str, check: bool = False, **more: t.Any) -> dict[str, t.Any]:
    arguments = {
        "needs": dict(CHAIN)[phase],
        "files": [str(config(home, phase))],
        "facts": {"image": "sha256:1"},
    } | more
    return modules.run("step_gate", check, home=str(home), phase=phase, state=state, **arguments)


def test_check_mode_on_a_bare_host_predicts_phase_after_phase(tmp_path: Path) -> None:
    alone = run(tmp_path, "fs", "open", check=True)
    assert alone["failed"] and alone["msg"].startswith("fs needs bootstrap, which is not sealed on this host: run")
    predicted: list[str] = []
    for phase, _needs in CHAIN:
        assert not run(tmp_path, phase, "open", check=True, predicted=predicted)["failed"]
        done = run(tmp_path, phase, "closed", check=True, predicted=predicted)
        assert done["changed"]
        predicted = done["ansible_facts"]["guardrails_gates"]
    assert predicted == ["bootstrap", "env", "fs"]
    assert list(tmp_path.iterdir()) == []
    # For real a prediction opens nothing.
    assert run(tmp_path, "fs", "open", predicted=predicted)["failed"]


def test_the_module_closes_once(tmp_path: Path) -> None:
    seal.ensure_key(key(tmp_path))
    write(tmp_path, "bootstrap")
    first, second, checked = (run(tmp_path, "bootstrap", "closed", check=check) for check in (False, False, True))
    assert first["changed"] and first["actions"] == [
        "Sealed bootstrap: it had no seal",
        f"Noted bootstrap in {tmp_path}/.state/docker_sandbox_progress.md",
    ]
    assert first["diff"]["before"] == "" and '"phase": "bootstrap"' in first["diff"]["after"]
    for again in (second, checked):
        assert not again["changed"] and "diff" not in again and "ansible_facts" not in again
    assert run(tmp_path, "env", "open")["actions"][0].startswith("bootstrap was sealed ")


def test_a_needed_phase_that_would_be_sealed_anew_is_predicted_too(home: Path) -> None:
    write(home, "env", b"[]\n")
    done = run(home, "env", "closed", check=True)
    predicted = done["ansible_facts"]["guardrails_gates"]
    assert predicted == ["env"]
    assert run(home, "fs", "closed", check=True, predicted=predicted)["changed"]
    assert run(home, "env", "closed")["changed"] and run(home, "fs", "closed")["changed"]


def test_seals_are_readable_by_all_and_written_by_their_owner_only(home: Path) -> None:
    assert {os.stat(path).st_mode & 0o7777 for path in (home / ".state/seals").iterdir()} == {0o644}


def test_seals_name_the_version_of_the_collection() -> None:
    galaxy = Path(__file__).resolve().parents[2] / "galaxy.yml"
    assert f"\nversion: {gate.VERSION}\n" in galaxy.read_text()
