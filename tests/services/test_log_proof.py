# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The proof that phase ``logging`` makes: it holds of a recorder that does its work, and of no other."""

from __future__ import annotations

import contextlib
import json
import re
import typing as t
from pathlib import Path

import pytest
import recorders
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import chain, log_proof, seal, services
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.places import Places

# Of those in configs/logging.yml, as far as the proof has a sample for them.
RULES = {
    "logging_rules": [
        {"id": "aws-access-key", "regex": "(?<![A-Za-z0-9])AKIA[A-Z2-7]{16}(?![A-Za-z0-9])", "keywords": ["akia"]},
        {"id": "age-key", "regex": "AGE-SECRET-KEY-1[0-9A-Z]{58}", "keywords": ["age-secret-key-1"]},
    ]
}


@pytest.fixture
def at(tmp_path: Path) -> Places:
    """The places of a host whose recorder keeps its key where the helper of these tests has it."""
    made = Places(str(tmp_path / "home"), str(tmp_path / "data"), str(tmp_path / "run"))
    keys = Path(made.log_key).parent
    keys.parent.mkdir(parents=True)
    (tmp_path / "keys").mkdir()
    keys.symlink_to(tmp_path / "keys")
    configured(made, RULES)
    return made


def configured(at: Places, rules: dict[str, t.Any]) -> None:
    """Have the host say that its recorder has *rules*."""
    path = services.config_path(at, "recorder")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"redaction": rules}), encoding="utf-8")


def running(at: Places, rules: dict[str, t.Any]) -> contextlib.AbstractContextManager[recorders.Recorder]:
    return recorders.running(Path(at.run).parent, logs=Path(at.logs), redaction=rules, head=1)


def test_a_recorder_that_does_its_work_is_proven_again_and_again(at: Places) -> None:
    with running(at, RULES) as recorder:
        first = log_proof.prove(at)
        recorder.command("rotate")
        recorder.command("seal")
        second = log_proof.prove(at)
        assert first.rules == second.rules == ["age-key", "aws-access-key"]
        assert first.chain_uid == second.chain_uid
        assert first.seq <= first.head < second.seq <= second.head
        assert "AKIA" not in b"\n".join(chain.lines(recorder.logs)).decode()


def test_a_recorder_that_has_not_the_rules_it_should_have_is_found(at: Places) -> None:
    with running(at, recorders.RULES), pytest.raises(log_proof.ProofError, match="holds a secret that the rule (aws-access-key|age-key) must take out"):
        log_proof.prove(at)


def test_rules_without_a_sample_cannot_be_proven(at: Places) -> None:
    configured(at, {**RULES, "logging_rules_enabled": {"age-key": False, "aws-access-key": False}})
    with running(at, RULES), pytest.raises(log_proof.ProofError, match="none of private-key, aws-access-key, age-key is on"):
        log_proof.prove(at)


def _flip(live: Path) -> None:
    content = live.read_bytes()
    live.write_bytes(content.replace(b"recorder.start", b"recorder.Start", 1))


def _drop(live: Path) -> None:
    live.write_bytes(b"".join(live.read_bytes().splitlines(keepends=True)[1:]))


@pytest.mark.parametrize("spoil", [_flip, _drop])
def test_a_log_that_was_tampered_with_is_found(at: Places, spoil: t.Callable[[Path], None]) -> None:
    with running(at, RULES) as recorder:
        log_proof.prove(at)
        recorder.stop()
        spoil(recorder.logs / chain.LIVE)
        # The recorder itself may find it too, and then records nothing.
        recorder.start()
        with pytest.raises(Exception, match=re.escape(str(recorder.logs)) + r"|nothing is recorded"):
            log_proof.prove(at)


def test_a_head_by_another_key_is_found(at: Places) -> None:
    with running(at, RULES):
        log_proof.prove(at)
        Path(at.log_public).write_bytes(seal.generate().public.pem)
        with pytest.raises(seal.SealError, match="not signed with"):
            log_proof.prove(at)
