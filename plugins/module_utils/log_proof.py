# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a running recorder does what it is for: an event is sent, and what became of it is looked at on the disk.

Its made-up secret must not be there, its record must follow the one before it, a signed head must cover it, and in a copy
one flipped bit must be found. The rest of the log is proven by :mod:`chain_verify`, which reads all of it.
"""

from __future__ import annotations

import base64
import json
import secrets
import time
import typing as t
from pathlib import Path

from ansible_collections.dockersandbox.guardrails.plugins.module_utils import chain, recorder, redaction, seal, services
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.places import Places

HEADS = 30  # seconds in which a head must cover a record
_PAUSE = 0.1

_CAPITALS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


# A made-up secret for some of the rules, by their ids.
SAMPLES: dict[str, t.Callable[[], str]] = {
    "private-key": lambda: (
        f"-----BEGIN PRIVATE KEY-----\n{base64.b64encode(secrets.token_bytes(48)).decode()}\n-----END PRIVATE KEY-----"
    ),
    "aws-access-key": lambda: "AKIA" + "".join(secrets.choice(_CAPITALS) for _letter in range(16)),
    "age-key": lambda: "AGE-SECRET-KEY-1" + "".join(secrets.choice(_CAPITALS) for _letter in range(58)),
}


class ProofError(Exception):
    """What the recorder does not do; the text is one line."""


class Proof(t.NamedTuple):
    """What was proven: the chain, the number of the event's record, the record that a head covers, the rules that took secrets out."""

    chain_uid: str
    seq: int
    head: int
    rules: list[str]


def prove(places: Places) -> Proof:
    """Send an event to the recorder of this host and prove what became of it. Raises ProofError, RecorderError, OSError."""
    planted = _planted(places)
    event = {"action": "log.verify", "class": "event_log_activity", "actor": {"type": "system", "name": "logging"}, "resource": planted}
    ack = recorder.record(places.run, event)
    head = _head(places, ack.seq)
    live = Path(places.logs, chain.LIVE)
    content = live.read_bytes()
    scanned = chain.scan(str(live), [content], _before(places), wanted={head.seq})
    if scanned.breaks:
        raise ProofError(str(scanned.breaks[0]))
    if scanned.at.get(head.seq, head).sha256 != head.sha256:
        raise ProofError(f"{live}: record {head.seq} is not the one that the head was made of")
    _redacted(_line(places, ack, content), ack, planted)
    _flipped(content.splitlines(keepends=True)[: head.seq - scanned.first + 1], scanned, head)
    return Proof(scanned.chain_uid, ack.seq, head.seq, sorted(planted))


def _planted(places: Places) -> dict[str, str]:
    path = services.config_path(places, services.RECORDER)
    rules = {rule.id for rule in redaction.rules_of(json.loads(path.read_bytes())["redaction"], trial=False)}
    found = {name: make() for name, make in SAMPLES.items() if name in rules}
    if not found:
        raise ProofError(f"logging_rules: none of {', '.join(SAMPLES)} is on, without which redaction cannot be proven: switch one on")
    return found


def _head(places: Places, seq: int) -> chain.Link:
    """Wait for a head that covers record *seq*, and return what it says."""
    deadline = time.monotonic() + HEADS
    by = chain.signer(places.log_public)
    while True:
        link = chain.opened_head(seal.read(Path(places.logs, chain.HEAD)), by)[1]
        if link.seq >= seq:
            return link
        if time.monotonic() > deadline:
            raise ProofError(f"{places.logs}/{chain.HEAD}: goes to record {link.seq}; record {seq} has no head after {HEADS} s")
        time.sleep(_PAUSE)


def _before(places: Places) -> chain.Link | None:
    """Return the record before the live file's first, None when it cannot be told yet: a segment is being sealed."""
    here = chain.contents(Path(places.logs))
    if here.raw:
        return None
    if not here.seals:
        return chain.START
    return chain.read_seal(here.seals[max(here.seals)], chain.signer(places.log_public)).last


def _line(places: Places, ack: recorder.Ack, live: bytes) -> bytes:
    """Return the record of an acknowledged event, from the content of the *live* file or, when that was rotated, from the log."""
    wanted = f'"id":"{ack.id}"'.encode()
    for lines in (live.splitlines(), chain.lines(Path(places.logs))):
        for line in lines:
            if wanted in line:
                return line
    raise ProofError(f"{places.logs}: there is no record {ack.seq}, though the recorder has acknowledged it")


def _redacted(line: bytes, ack: recorder.Ack, planted: dict[str, str]) -> None:
    record = json.loads(line)
    if record["seq"] != ack.seq:
        raise ProofError(f"the record of event {ack.id} has the number {record['seq']}; {ack.seq} was acknowledged")
    said = json.dumps(record)
    for rule, secret in planted.items():
        # Long pieces of it count too: a rule may leave the armour of a key.
        if any(piece in said for piece in secret.splitlines() if "-----" not in piece):
            raise ProofError(f"record {ack.seq} holds a secret that the rule {rule} must take out")
    if not record.get("redactions"):
        raise ProofError(f"record {ack.seq} does not say what was taken out of it")


def _flipped(covered: list[bytes], whole: chain.Scan, head: chain.Link) -> None:
    """Prove that in a copy of the lines that *head* covers one flipped bit is found, wherever it is."""
    if not covered:
        return
    copy = bytearray(b"".join(covered))
    copy[secrets.randbelow(len(copy))] ^= 1 << secrets.randbelow(8)
    found = chain.scan("the copy", [bytes(copy)], chain.Link(whole.first - 1, whole.first_prev), head)
    if not found.breaks and not found.torn:
        raise ProofError(f"{whole.path}: a bit that was flipped in a copy was not found")
