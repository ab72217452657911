# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Seals and keys, with real signatures, real files and real kills."""

from __future__ import annotations

import base64
import itertools
import json
import os
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import canonical, seal
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.seal import SealError
from kills import killed

ONE = canonical.sha256_hex(b"one")


def test_pae_is_that_of_the_dsse_protocol() -> None:
    expected = b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    assert seal.pae("http://example.com/HelloWorld", b"hello world") == expected
    assert seal.pae("é", b"") == b"DSSEv1 2 \xc3\xa9 0 "


def test_openssl_agrees_on_key_id_and_signature(tmp_path: Path) -> None:
    key = tmp_path / "host.key"
    seal.ensure_key(key)
    public, private = seal.load_public(seal.public_of(key)), seal.load_private(key)
    der = subprocess.run(["openssl", "pkey", "-in", key, "-pubout", "-outform", "DER"], capture_output=True, check=True).stdout
    assert canonical.sha256_hex(der) == public.keyid == private.public.keyid
    envelope = seal.sign(seal.statement({"a": ONE}, "gate", {}), private)
    (tmp_path / "signed").write_bytes(seal.pae(envelope["payloadType"], base64.b64decode(envelope["payload"])))
    (tmp_path / "signature").write_bytes(base64.b64decode(envelope["signatures"][0]["sig"]))
    command = ["openssl", "pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", "host.pub", "-in", "signed"]
    subprocess.run([*command, "-sigfile", "signature"], cwd=tmp_path, check=True)


def test_statement_has_the_form_of_in_toto_v1() -> None:
    envelope = seal.sign(seal.statement({"b": ONE, "a": ONE}, "gate", {"phase": "env"}), seal.generate())
    assert json.loads(base64.b64decode(envelope["payload"])) == {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "a", "digest": {"sha256": ONE}}, {"name": "b", "digest": {"sha256": ONE}}],
        "predicateType": "urn:dockersandbox:guardrails:gate:v1",
        "predicate": {"phase": "env"},
    }
    assert envelope["payloadType"] == "application/vnd.in-toto+json"


def other_payload(envelope: dict[str, t.Any]) -> None:
    made = seal.statement({"a": ONE}, "gate", {"phase": "other"})
    envelope["payload"] = base64.b64encode(canonical.dumps(made)).decode()


def other_signature(envelope: dict[str, t.Any]) -> None:
    envelope["signatures"][0]["sig"] = base64.b64encode(bytes(64)).decode()


def short_signature(envelope: dict[str, t.Any]) -> None:
    envelope["signatures"][0]["sig"] = "AAAA"


def other_signer(envelope: dict[str, t.Any]) -> None:
    envelope |= seal.sign(seal.statement({"a": ONE}, "gate", {"phase": "env"}), seal.generate())


def stolen_name(envelope: dict[str, t.Any]) -> None:
    keyid = envelope["signatures"][0]["keyid"]
    other_signer(envelope)
    envelope["signatures"][0]["keyid"] = keyid


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (other_payload, "its signature does not fit its content"),
        (other_signature, "its signature does not fit its content"),
        (short_signature, "its signature does not fit its content"),
        (stolen_name, "its signature does not fit its content"),
        (other_signer, "it is not signed with this host's key"),
        (lambda envelope: envelope.update(signatures=[]), "(signed with: none)"),
        (lambda envelope: envelope.update(payloadType="text/plain"), "its payload type is 'text/plain'"),
        (lambda envelope: envelope.update(payload="%"), "it is not a DSSE envelope"),
        (lambda envelope: envelope.pop("signatures"), "it is not a DSSE envelope"),
    ],
)
def test_a_changed_envelope_is_refused(change: t.Callable[[dict[str, t.Any]], None], text: str) -> None:
    private = seal.generate()
    made = seal.statement({"a": ONE}, "gate", {"phase": "env"})
    envelope = seal.sign(made, private)
    assert seal.verify(envelope, private.public) == made
    change(envelope)
    with pytest.raises(SealError) as refused:
        seal.verify(envelope, private.public)
    assert text in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("payload", [b"[]", b"{}", b"\xff", b'{"_type":"x","predicate":{},"subject":[]}'])
def test_a_signed_payload_that_is_no_statement_is_refused(payload: bytes) -> None:
    private = seal.generate()
    signature = private.handle.sign(seal.pae(seal.PAYLOAD_TYPE, payload))
    envelope = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": seal.PAYLOAD_TYPE,
        "signatures": [{"keyid": private.public.keyid, "sig": base64.b64encode(signature).decode()}],
    }
    with pytest.raises(SealError, match="not an in-toto Statement"):
        seal.verify(envelope, private.public)


@pytest.mark.parametrize("predicate", [{"load": 0.5}, {"name": "\udcff"}, {"when": {1}}])
def test_what_has_no_canonical_form_is_not_sealed(predicate: dict[str, t.Any]) -> None:
    with pytest.raises(SealError, match="this cannot be sealed"):
        seal.sign(seal.statement({}, "gate", predicate), seal.generate())


def test_a_chain_of_rotations_ties_old_and_new() -> None:
    keys = [seal.generate() for _round in range(4)]
    chain = [seal.rotation(old, new) for old, new in itertools.pairwise(keys)]
    sealed = [seal.sign(seal.statement({}, "gate", {}), key) for key in keys]
    for anchor in keys:
        for envelope in sealed:
            assert seal.verify(envelope, anchor.public, reversed(chain))
    # Without its middle link the two ends are strangers.
    with pytest.raises(SealError, match="not signed with this host's key"):
        seal.verify(sealed[0], keys[3].public, [chain[0], chain[2]])


@pytest.mark.parametrize("forger", ["old", "new"])
def test_a_rotation_needs_both_signatures(forger: str) -> None:
    mine, theirs = seal.generate(), seal.generate()
    pair = {"old": (mine, theirs), "new": (theirs, mine)}[forger]
    forged = seal.rotation(*pair)
    forged["signatures"] = [item for item in forged["signatures"] if item["keyid"] == theirs.public.keyid]
    envelope = seal.sign(seal.statement({}, "gate", {}), theirs)
    with pytest.raises(SealError, match="not signed with this host's key"):
        seal.verify(envelope, mine.public, [forged])


def test_key_on_disk(tmp_path: Path) -> None:
    key = tmp_path / "keys/host.key"
    assert seal.ensure_key(key, check=True) == f"Made the host key {key}"
    assert not key.parent.exists()
    assert seal.ensure_key(key) == f"Made the host key {key}"
    assert key.stat().st_mode & 0o7777 == 0o600
    assert seal.public_of(key).stat().st_mode & 0o7777 == 0o644
    before = key.read_bytes()
    assert seal.ensure_key(key) is None
    assert key.read_bytes() == before


def key_open(key: Path) -> None:
    key.chmod(0o640)


def key_garbled(key: Path) -> None:
    key.write_text("evil")


def key_of_another_kind(key: Path) -> None:
    subprocess.run(["openssl", "genpkey", "-algorithm", "x25519", "-out", key], check=True)


def key_gone(key: Path) -> None:
    key.unlink()


def public_foreign(key: Path) -> None:
    seal.public_of(key).write_bytes(seal.generate().public.pem)


def public_garbled(key: Path) -> None:
    seal.public_of(key).write_text("evil")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (key_open, "host.key: its mode is 0640, so others may have read it"),
        (key_garbled, "host.key: is not a private Ed25519 key"),
        (key_of_another_kind, "host.key: is not a private Ed25519 key"),
        (key_gone, "host.key: the key is gone"),
        (public_foreign, "host.pub: is not the public half of"),
        (public_garbled, "host.pub: is not a public Ed25519 key"),
    ],
)
def test_a_wrong_key_is_named_and_left_alone(tmp_path: Path, change: t.Callable[[Path], None], text: str) -> None:
    key = tmp_path / "host.key"
    seal.ensure_key(key)
    change(key)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(SealError) as refused:
        seal.ensure_key(key)
    assert text in str(refused.value) and "\n" not in str(refused.value)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_rotation_on_disk_keeps_old_seals_valid(tmp_path: Path) -> None:
    key, sealed = tmp_path / "host.key", tmp_path / "x.seal.json"
    seal.ensure_key(key)
    seal.write(sealed, seal.sign(seal.statement({}, "gate", {"n": 1}), seal.load_private(key)))
    for _round in range(3):
        seal.rotate(key)
        assert seal.ensure_key(key) is None
        assert seal.verify_file(sealed, seal.public_of(key))["predicate"] == {"n": 1}
    assert len(seal.rotations(seal.public_of(key))) == 3
    seal.rotations_of(key).unlink()
    with pytest.raises(SealError, match=r"x\.seal\.json: it is not signed with this host's key"):
        seal.verify_file(sealed, seal.public_of(key))


@pytest.mark.parametrize("action", [seal.ensure_key, seal.rotate])
def test_kill_at_every_step_is_completed_by_the_next_run(tmp_path: Path, action: t.Callable[[Path], object]) -> None:
    step = 0
    while True:
        step += 1
        key, sealed = tmp_path / str(step) / "host.key", tmp_path / str(step) / "x.seal.json"
        if action is seal.rotate:
            seal.ensure_key(key)
            seal.write(sealed, seal.sign(seal.statement({}, "gate", {}), seal.load_private(key)))
        was_killed = killed(step, lambda: action(key))  # noqa: B023 - called at once
        seal.ensure_key(key)
        assert seal.ensure_key(key) is None
        if action is seal.rotate:
            assert seal.verify_file(sealed, seal.public_of(key))
        if not was_killed:
            break
    assert step > 4


def test_subjects_are_checked(tmp_path: Path) -> None:
    key, sealed = tmp_path / "host.key", tmp_path / "x.seal.json"
    seal.ensure_key(key)
    (tmp_path / "near").write_bytes(b"one")
    far = tmp_path / "far"
    far.write_bytes(b"one")
    made = seal.statement({"near": ONE, str(far): ONE}, "tree", {})
    digest = seal.write(sealed, seal.sign(made, seal.load_private(key)))
    assert digest == canonical.sha256_hex(sealed.read_bytes())
    assert seal.verify_file(sealed, seal.public_of(key), "tree") == made
    with pytest.raises(SealError, match="it is a seal of urn:dockersandbox:guardrails:tree:v1, not of"):
        seal.verify_file(sealed, seal.public_of(key), "gate")
    far.write_bytes(b"two")
    with pytest.raises(SealError, match=r"/far changed after it was sealed \(sha256 3fc4ccfe7458…, sealed 7692c3ad3540…\)"):
        seal.verify_file(sealed, seal.public_of(key))
    far.unlink()
    with pytest.raises(SealError, match="/far is gone; it was sealed"):
        seal.verify_file(sealed, seal.public_of(key))


@pytest.mark.parametrize("content", [None, b"", b"[]", b"\xff"])
def test_a_seal_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    sealed = tmp_path / "x.seal.json"
    if content is not None:
        sealed.write_bytes(content)
    with pytest.raises(SealError, match=r"^/.*x\.seal\.json: "):
        seal.read(sealed)


def test_without_the_library_one_line_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "cryptography").mkdir()
    (tmp_path / "cryptography/__init__.py").write_text("raise ImportError\n")
    script = f"from {seal.__name__} import *\ntry: generate()\nexcept CryptographyMissing as error: print(error)"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"PYTHONPATH": ":".join([str(tmp_path), *sys.path])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("python3-cryptography is not installed on this host") and done.stdout.count("\n") == 1
