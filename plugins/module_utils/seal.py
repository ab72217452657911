# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Seals: in-toto statements in DSSE envelopes, signed with an Ed25519 key.

There are two: the host key, ``host.key`` (PEM, root only), and the log key, ``log.key`` (the recorder only). Beside a key
are its public half, ``host.pub``, and, once it was rotated, ``host.rotations.jsonl``. Each rotation is signed by both keys,
so neither a thief of the old key nor a maker of a new one can write it alone.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
import time
import typing as t
from pathlib import Path

from ansible_collections.dockersandbox.guardrails.plugins.module_utils import atomic, canonical, lock

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
SUFFIX = ".seal.json"

Statement = dict[str, t.Any]
Envelope = dict[str, t.Any]
Where: t.TypeAlias = "str | Path"


class _Kind(t.NamedTuple):
    maker: str
    replace: str


# By the first word of a key's file name: who makes it, and what gives a new one when it is lost.
_KINDS = {
    "host": _Kind("the bootstrap phase", "delete the public half to have a new key made and everything sealed again"),
    "log": _Kind("the recorder", "go on with a new chain: reset-chain on the recorder's admin.sock"),
}


class SealError(Exception):
    """A seal or key that does not hold; the text is one line for the operator."""


class CryptographyMissing(SealError):
    """Signatures cannot be made or checked, because the library for them is not there (yet)."""


class PublicKey(t.NamedTuple):
    """One Ed25519 public key: its PEM, its id (sha256 of its DER SubjectPublicKeyInfo, hexadecimal), and whose it is."""

    pem: bytes
    keyid: str
    handle: t.Any
    word: str = "host"

    def accepts(self, signature: bytes, data: bytes) -> bool:
        """Return whether *signature* is this key's over *data*."""
        try:
            self.handle.verify(signature, data)
        except _crypto().InvalidSignature:
            return False
        return True


class PrivateKey(t.NamedTuple):
    """One Ed25519 private key and its public half."""

    pem: bytes
    public: PublicKey
    handle: t.Any


class _Crypto(t.NamedTuple):
    serialization: t.Any
    ed25519: t.Any
    InvalidSignature: type[Exception]


def _crypto() -> _Crypto:
    # Late, because a first run in check mode happens before anything installed the library.
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError:
        raise CryptographyMissing(
            "python3-cryptography is not installed on this host; the bootstrap phase installs it, or run: apt-get install python3-cryptography"
        ) from None
    return _Crypto(serialization, ed25519, InvalidSignature)


def now() -> str:
    """Return the time in UTC as every record of this collection writes it, such as 2026-11-24T10:00:00Z."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


# --- keys


def word_of(path: Where) -> str:
    """Return whose key the file at *path* holds, a half or what led to it: ``host`` or ``log``."""
    return Path(path).name.partition(".")[0]


def generate(word: str = "host") -> PrivateKey:
    """Return a new key."""
    return _private(_crypto().ed25519.Ed25519PrivateKey.generate(), word)


def _private(handle: t.Any, word: str) -> PrivateKey:
    forms = _crypto().serialization
    pem = handle.private_bytes(forms.Encoding.PEM, forms.PrivateFormat.PKCS8, forms.NoEncryption())
    return PrivateKey(pem, _public(handle.public_key(), word), handle)


def _public(handle: t.Any, word: str) -> PublicKey:
    forms = _crypto().serialization
    info = forms.PublicFormat.SubjectPublicKeyInfo
    der = handle.public_bytes(forms.Encoding.DER, info)
    return PublicKey(handle.public_bytes(forms.Encoding.PEM, info), hashlib.sha256(der).hexdigest(), handle, word)


def _kind(word: str) -> _Kind:
    return _KINDS.get(word, _KINDS["host"])


def load_private(path: Where) -> PrivateKey:
    """Return the private key at *path*. Raises SealError when it is missing, no Ed25519 key, or open to others."""
    word = word_of(path)
    content = _content(path, f"the {word} key is missing; {_kind(word).maker} makes it")
    found = atomic.owner(Path(path))
    if found and found[0] & 0o077:
        raise SealError(f"{path}: its mode is {found[0]:04o}, so others may have read it; rotate the key, then chmod 0600")
    crypto = _crypto()
    try:
        handle = crypto.serialization.load_pem_private_key(content, None)
    except (ValueError, TypeError):
        handle = None
    if not isinstance(handle, crypto.ed25519.Ed25519PrivateKey):
        raise SealError(f"{path}: is not a private Ed25519 key in PEM; restore it")
    return _private(handle, word)


def load_public(path: Where) -> PublicKey:
    """Return the public key at *path*. Raises SealError when it is missing or no Ed25519 key."""
    word = word_of(path)
    return parse_public(_content(path, f"the {word}'s public key is missing; {_kind(word).maker} writes it"), str(path), word)


def parse_public(pem: bytes, where: str, word: str = "host") -> PublicKey:
    """Return the public key in *pem*; *where* names it in a SealError, *word* says whose it is."""
    crypto = _crypto()
    try:
        handle = crypto.serialization.load_pem_public_key(pem)
    except ValueError:
        handle = None
    if not isinstance(handle, crypto.ed25519.Ed25519PublicKey):
        raise SealError(f"{where}: is not a public Ed25519 key in PEM; restore it")
    return _public(handle, word)


def _content(path: Where, missing: str) -> bytes:
    try:
        content = atomic.read(Path(path), limit=1 << 20)
    except OSError as error:
        raise SealError(f"{path}: cannot be read: {atomic.reason(error)}") from None
    if content is None:
        raise SealError(f"{path}: {missing}")
    return content


def public_of(key: Where) -> Path:
    """Return where the public half of the private key at *key* is."""
    return Path(key).with_suffix(".pub")


def rotations_of(public: Where) -> Path:
    """Return where the rotations that led to the key at *public* (or its private half) are."""
    return Path(public).with_suffix(".rotations.jsonl")


def ensure_key(key: Where, check: bool = False) -> str | None:
    """Make the key and its public half if they are not there; return what was (with *check*: would be) done.

    Completes a creation or rotation that was killed. Raises SealError when one half is missing or foreign: that is
    never repaired silently, because every seal rests on it.
    """
    key, public, word = Path(key), public_of(key), word_of(key)
    try:
        there = key.exists(), public.exists()
        if there == (False, True):
            raise SealError(
                f"{key}: the key is gone, its public half {public} is there; restore the key, or {_kind(word).replace}"
            )
        if not there[0]:
            if not check:
                key.parent.mkdir(parents=True, exist_ok=True)
                made = generate(word)
                atomic.write(key, made.pem, 0o600)
                atomic.write(public, made.public.pem, 0o644)
            return f"Made the {word} key {key}"
        if _spare(key).exists():
            if not check:
                rotate(key)
            return f"Completed the interrupted rotation of the {word} key {key}"
        private = load_private(key)
        if there[1]:
            found = load_public(public)
            if found.keyid == private.public.keyid:
                return None
            if private.public.keyid not in trusted(found, rotations(public)):
                raise SealError(f"{public}: is not the public half of {key}; restore whichever was changed")
        if not check:
            atomic.write(public, private.public.pem, 0o644)
    except OSError as error:
        raise SealError(f"{error.filename or key}: {atomic.reason(error)}") from None
    return f"Wrote the public half {public} of the {word} key"


def _spare(key: Path) -> Path:
    return key.with_name(key.name + ".new")


def rotate(key: Where) -> Envelope:
    """Replace the private key at *key* by a new one; return the rotation, signed by both keys.

    Seals by the old key stay valid. When the old key was stolen that is wrong: then delete the file of rotations after
    the rotation and seal everything again. A call that was killed is completed by the next.
    """
    key = Path(key)
    old, spare, chain = load_private(key), _spare(key), rotations(public_of(key))
    if not spare.exists():
        atomic.write(spare, generate(word_of(key)).pem, 0o600)
    new = load_private(spare)
    made = rotation(old, new)
    known = [envelope for envelope in chain if _keyids(envelope) == _keyids(made)]
    if known:
        made = known[0]
    else:
        atomic.write(rotations_of(key), b"".join(canonical.dumps(item) + b"\n" for item in [*chain, made]), 0o644)
    spare.replace(key)
    atomic.sync_folder(key.parent)
    atomic.write(public_of(key), new.public.pem, 0o644)
    return made


def rotation(old: PrivateKey, new: PrivateKey) -> Envelope:
    """Return the statement that *new* follows *old*, signed by both."""
    predicate = {"old": old.public.pem.decode(), "new": new.public.pem.decode(), "time": now()}
    made = statement({f"{old.public.word}.pub": canonical.sha256_hex(new.public.pem)}, "rotation", predicate)
    return sign(made, old) | {"signatures": sign(made, old)["signatures"] + sign(made, new)["signatures"]}


def rotations(public: Where) -> list[Envelope]:
    """Return the rotations recorded beside the key at *public*; none when it never was rotated. Raises SealError."""
    path = rotations_of(public)
    try:
        return [json.loads(text) for text in (atomic.read(path) or b"").splitlines()]
    except (OSError, ValueError) as error:
        raise SealError(f"{path}: cannot be read: {error}; restore it") from None


def _keyids(envelope: Envelope) -> list[str]:
    return [signature["keyid"] for signature in envelope["signatures"]]


def trusted(public: PublicKey, chain: t.Iterable[Envelope]) -> dict[str, PublicKey]:
    """Return by id the keys that *public* stands for: itself, and what rotations signed by both ends tie to it."""
    pairs = []
    for envelope in chain:
        payload, signatures = _opened(envelope)
        predicate = _statement(payload)["predicate"]
        old, new = (parse_public(str(predicate.get(end)).encode(), f"a rotation's {end} key", public.word) for end in ("old", "new"))
        signed = pae(PAYLOAD_TYPE, payload)
        if all(key.accepts(signatures.get(key.keyid, b""), signed) for key in (old, new)):
            pairs.append((old, new))
    found = {public.keyid: public}
    for _round in pairs:
        for one, other in pairs:
            if one.keyid in found or other.keyid in found:
                found |= {one.keyid: one, other.keyid: other}
    return found


# --- statements and envelopes


def predicate_type(kind: str) -> str:
    """Return the URI that names what a seal of *kind* (a word such as ``gate`` or ``tree``) says."""
    return f"urn:dockersandbox:guardrails:{kind}:v1"


def statement(subjects: t.Mapping[str, str], kind: str, predicate: t.Mapping[str, t.Any]) -> Statement:
    """Return an in-toto Statement v1: *subjects* maps names to sha256 (hexadecimal), *predicate* is what is said."""
    for name, digest in subjects.items():
        if not re.fullmatch(r"[0-9a-f]{64}", digest):
            raise SealError(f"subject {name!r}: {digest!r} is not a sha256")
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": subjects[name]}} for name in sorted(subjects)],
        "predicateType": predicate_type(kind),
        "predicate": dict(predicate),
    }


def subjects(made: Statement) -> dict[str, str]:
    """Return the subjects of a statement: name to sha256."""
    return {subject["name"]: subject["digest"]["sha256"] for subject in made["subject"]}


def pae(payload_type: str, payload: bytes) -> bytes:
    """Return the bytes that a DSSE signature covers (pre-authentication encoding of the DSSE v1 protocol)."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def sign(made: Statement, private: PrivateKey) -> Envelope:
    """Return the DSSE envelope of *made*. Raises SealError for what canonical JSON cannot hold, such as a float."""
    try:
        payload = canonical.dumps(made)
    except (ValueError, TypeError) as error:
        raise SealError(f"this cannot be sealed: {error}") from None
    signature = private.handle.sign(pae(PAYLOAD_TYPE, payload))
    return {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [{"keyid": private.public.keyid, "sig": base64.b64encode(signature).decode()}],
    }


def verify(envelope: Envelope, public: PublicKey, chain: t.Iterable[Envelope] = ()) -> Statement:
    """Return the statement in *envelope* once a signature by *public*, or a key that *chain* ties to it, holds.

    Raises SealError with one line otherwise.
    """
    return verify_by(envelope, trusted(public, chain), public)


def verify_by(envelope: Envelope, keys: t.Mapping[str, PublicKey], public: PublicKey) -> Statement:
    """Do what :func:`verify` does for many envelopes: *keys* is what :func:`trusted` returned for *public*."""
    payload, signatures = _opened(envelope)
    known = signatures.keys() & keys.keys()
    if not known:
        ids = ", ".join(sorted(keyid[:12] for keyid in signatures)) or "none"
        raise SealError(f"it is not signed with this {public.word}'s key {public.keyid[:12]}… (signed with: {ids})")
    signed = pae(PAYLOAD_TYPE, payload)
    if not any(keys[keyid].accepts(signatures[keyid], signed) for keyid in known):
        raise SealError("its signature does not fit its content: one of them was changed")
    return _statement(payload)


def payload(envelope: Envelope) -> bytes:
    """Return what an envelope holds, whoever signed it: nobody vouches for it. Raises SealError."""
    return _opened(envelope)[0]


def _opened(envelope: t.Any) -> tuple[bytes, dict[str, bytes]]:
    """Return the payload of an envelope that nobody vouches for yet, and its signatures by key id."""
    try:
        if envelope["payloadType"] != PAYLOAD_TYPE:
            raise SealError(f"its payload type is {envelope['payloadType']!r}, not {PAYLOAD_TYPE}")
        signatures = {str(item["keyid"]): _decoded(item["sig"]) for item in envelope["signatures"]}
        return _decoded(envelope["payload"]), signatures
    except (KeyError, TypeError, ValueError, binascii.Error):
        raise SealError("it is not a DSSE envelope") from None


def _decoded(text: str) -> bytes:
    content = base64.b64decode(text, validate=True)
    # The last letter has bits that count for nothing: content must have one form only.
    if base64.b64encode(content).decode() != text:
        raise ValueError
    return content


def _statement(payload: bytes) -> Statement:
    try:
        made = json.loads(payload)
        good = made["_type"] == STATEMENT_TYPE and isinstance(made["predicate"], dict) and subjects(made) is not None
    except (ValueError, KeyError, TypeError):
        good = False
    if not good:
        raise SealError("its payload is not an in-toto Statement v1 with a predicate")
    return t.cast(Statement, made)


# --- files


def write(path: Where, envelope: Envelope) -> str:
    """Write *envelope* to *path* (0644), durable and whole or not at all; return the file's sha256. Raises OSError."""
    content = canonical.dumps(envelope) + b"\n"
    atomic.write(Path(path), content, 0o644)
    return canonical.sha256_hex(content)


def read(path: Where) -> Envelope:
    """Return the envelope at *path*, not verified. Raises SealError when it is missing or no JSON object."""
    try:
        envelope = json.loads(_content(path, "there is no such seal"))
    except ValueError:
        envelope = None
    if not isinstance(envelope, dict):
        raise SealError(f"{path}: is not a DSSE envelope; restore it")
    return envelope


def verify_file(path: Where, public: Where, kind: str | None = None) -> Statement:
    """Return the statement in the seal at *path* once its signature holds and every subject has its sealed sha256.

    *public* is the signer's public key; rotations beside it count. A relative subject lies beside the seal. With *kind* the seal
    must be one of that kind. Raises SealError, one line that names the seal or the subject.
    """
    envelope, key, chain = read(path), load_public(public), rotations(public)
    try:
        made = verify(envelope, key, chain)
        if kind and made["predicateType"] != predicate_type(kind):
            raise SealError(f"it is a seal of {made['predicateType']}, not of {predicate_type(kind)}")
    except SealError as error:
        raise SealError(f"{path}: {error}") from None
    for name, sealed in subjects(made).items():
        subject = Path(path).parent / name
        try:
            actual = lock.digest_of(subject)
        except OSError as error:
            raise SealError(f"{lock.show(subject)} cannot be read: {atomic.reason(error)}") from None
        if actual is None:
            raise SealError(f"{lock.show(subject)} is gone; it was sealed with sha256 {sealed[:12]}…")
        if actual != sealed:
            raise SealError(f"{lock.show(subject)} changed after it was sealed (sha256 {actual[:12]}…, sealed {sealed[:12]}…)")
    return made
