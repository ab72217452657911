# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The event: one record of the log, and what of it a sender may say.

A sender says what happened (:func:`check`); the recorder adds where it stands in the log (:func:`stamped`). A record is one
line of canonical JSON, chained by ``prev_sha256``: the sha256 of the line before, without its newline. Names are those of
OCSF 1.9 where it has one.
"""

from __future__ import annotations

import functools
import re
import time
import typing as t

from ansible_collections.dockersandbox.guardrails.plugins.module_utils import canonical

VERSION = 1
GENESIS = "0" * 64  # the prev_sha256 of a chain's first record
INTEGERS = (1 << 53) - 1  # what every reader of JSON holds exactly
DECISIONS = frozenset({"allow", "deny"})
# The event classes of OCSF 1.9 that describe what happens on a host with sandboxes.
CLASSES = frozenset(
    """
    account_change api_activity application_error application_lifecycle authentication authorize_session base_event
    compliance_finding config_state datastore_activity detection_finding device_config_state device_config_state_change
    dns_activity email_activity entity_management event_log_activity file_activity file_hosting group_management
    http_activity incident_finding inventory_info kernel_activity memory_activity module_activity network_activity
    network_file_activity network_remediation_activity process_activity process_remediation_activity
    remediation_activity scan_activity scheduled_job_activity script_activity ssh_activity tunnel_activity user_access
    vulnerability_finding web_resources_activity
    """.split()
)
# What the recorder adds.
STAMPED = frozenset({"v", "seq", "time", "chain_uid", "prev_sha256", "sender", "redactions"})
REQUIRED = ("action", "class")

_DEPTH = 8  # levels of a resource
_ITEMS = 4096  # of an object or list

_Check = t.Callable[[t.Any], "str | None"]


class EventError(Exception):
    """An event that cannot be recorded; the text is one line that begins with the field."""


def check(event: t.Mapping[str, t.Any]) -> None:
    """Check what a sender says. A field that is None counts as absent. Raises EventError."""
    for name in REQUIRED:
        if event.get(name) is None:
            raise EventError(f"{name}: it is missing; every event has {' and '.join(REQUIRED)}")
    for name, value in event.items():
        checked = _FIELDS.get(name)
        if checked is None:
            raise EventError(_unknown(name))
        if value is not None and (problem := checked(value)):
            raise EventError(f"{name}{problem}")


def stamped(
    event: t.Mapping[str, t.Any], redactions: t.Mapping[str, int], sender: str, seq: int, when: str, chain_uid: str, prev_sha256: str
) -> dict[str, t.Any]:
    """Return the record of a checked and redacted *event*, which has an ``id``; the rest is where it stands in the log.

    *redactions* is how many secrets of each kind were taken out.
    """
    record = {name: value for name, value in event.items() if value is not None}
    record["v"] = VERSION
    record["seq"] = seq
    record["time"] = when
    record["chain_uid"] = chain_uid
    record["prev_sha256"] = prev_sha256
    record["sender"] = sender
    if redactions:
        record["redactions"] = redactions
    return record


def line(record: t.Mapping[str, t.Any]) -> bytes:
    """Return a record as it stands in the log, without a newline."""
    return canonical.dumps(record)


def text_time(nanoseconds: int) -> str:
    """Return a time since the epoch as records have it: UTC, such as ``2026-11-24T10:00:00.000000Z``.

    The width is fixed: of two such texts the later time is the greater text.
    """
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest // 1000:06d}Z"


def _unknown(name: str) -> str:
    shown = canonical.printable(str(name)[:64].encode("utf-8", "backslashreplace"))
    if name in STAMPED:
        return f"{shown}: the recorder writes it; leave it out"
    return f"{shown}: there is no such field; what has no field of its own goes into detail"


def _text(longest: int, pattern: str = "", hint: str = "") -> _Check:
    matches = re.compile(pattern).fullmatch if pattern else str.isascii

    def checked(value: t.Any) -> str | None:
        # What is right, which nearly all is, is known at once.
        if isinstance(value, str) and len(value) <= longest and matches(value):
            return None
        if not isinstance(value, str):
            return f": it is {_kind(value)}, not a text"
        if len(value) > longest:
            return f": it has {len(value)} characters; {longest} is the most"
        return f": {_shown(value)} is not {hint}" if pattern else _encodable(value)

    return checked


def _encodable(value: str) -> str | None:
    try:
        value.encode()
    except UnicodeEncodeError:
        return f": {_shown(value)} has a lone surrogate, which UTF-8 has no form for"
    return None


def _one_of(words: frozenset[str]) -> _Check:
    def checked(value: t.Any) -> str | None:
        if isinstance(value, str) and value in words:
            return None
        return f": {_shown(value)} is none of {', '.join(sorted(words))}"

    return checked


def _texts(longest: int) -> _Check:
    def checked(value: t.Any) -> str | None:
        if not isinstance(value, list):
            return f": it is {_kind(value)}, not a list"
        if len(value) > longest:
            return f": it has {len(value)} items; {longest} is the most"
        for number, item in enumerate(value):
            if not _plain(item) and (problem := _any_text(item)):
                return f"[{number}]{problem}"
        return None

    return checked


def _any_text(value: t.Any) -> str | None:
    return _encodable(value) if isinstance(value, str) else f": it is {_kind(value)}, not a text"


def _plain(value: t.Any) -> bool:
    """Return whether *value* is a text of the kind that nearly all are."""
    return isinstance(value, str) and value.isascii()


# ASCII alone, so that every way of sorting keys is the same.
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")


@functools.lru_cache(4096)
def _key(name: str) -> bool:
    return _KEY.fullmatch(name) is not None


def _scalar(value: t.Any) -> str | None:
    kind = type(value)
    if kind is str:
        return None if value.isascii() else _encodable(value)
    if kind is bool:
        return None
    if kind is int:
        return None if -INTEGERS <= value <= INTEGERS else f": {_shown(value)} is beyond 53 bits, which not every reader of JSON holds; use text"
    if kind is float:
        return f": {_shown(value)} is no integer; use another unit, or text"
    return f": it is {_kind(value)}, not a text, an integer or a boolean"


def _flat(value: t.Any) -> str | None:
    if not isinstance(value, dict):
        return f": it is {_kind(value)}, not an object"
    if len(value) > _ITEMS:
        return f": it has {len(value)} fields; {_ITEMS} is the most"
    for name, item in value.items():
        if not _key(name):
            return f": {_shown(name)} is no field's name"
        # What is right, which nearly all is, is known at once.
        kind = type(item)
        if (kind is str and item.isascii()) or (kind is int and -INTEGERS <= item <= INTEGERS):
            continue
        if problem := _scalar(item):
            return f".{name}{problem}"
    return None


def _actor(value: t.Any) -> str | None:
    if problem := _flat(value):
        return problem
    return None if isinstance(value.get("type"), str) else ".type: it is missing, or no text"


def _resource(value: t.Any) -> str | None:
    if isinstance(value, str):
        return _scalar(value)
    return _nested(value, _DEPTH) if isinstance(value, dict) else f": it is {_kind(value)}, not a text or an object"


def _nested(value: t.Any, depth: int) -> str | None:
    kind = type(value)
    if kind is not dict and kind is not list:
        return None if value is None else _scalar(value)
    if not depth:
        return f": it is nested deeper than {_DEPTH} levels"
    if len(value) > _ITEMS:
        return f": it has {len(value)} items; {_ITEMS} is the most"
    if kind is list:
        for number, item in enumerate(value):
            if problem := _nested(item, depth - 1):
                return f"[{number}]{problem}"
        return None
    for name, item in value.items():
        if not isinstance(name, str) or not _key(name):
            return f": {_shown(name)} is no field's name"
        if not _plain(item) and (problem := _nested(item, depth - 1)):
            return f".{name}{problem}"
    return None


def _kind(value: t.Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "a boolean", int: "an integer", float: "a number", type(None): "null"}
    return names.get(type(value), f"a {type(value).__name__}")


def _shown(value: t.Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    cut = canonical.printable(text[:48].encode("utf-8", "backslashreplace"))
    return f"'{cut}'" + ("…" if len(text) > 48 else "")


_WORD = ("[a-z][a-z0-9_]*", "a word of a-z, 0-9 and _")
_DIGEST = _text(64, "[0-9a-f]{64}", "a sha256 in hexadecimal")
_NAME = _text(128, r"[\x21-\x7e]+", "a name of visible ASCII characters")

_FIELDS: dict[str, _Check] = {
    "id": _text(32, "[0-9a-f]{32}", "32 hexadecimal digits"),
    "action": _text(64, r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+", "two or more words with dots between, such as run.start"),
    "class": _one_of(CLASSES),
    "actor": _actor,
    "sandbox": _text(64, "[a-z0-9]([a-z0-9.-]*[a-z0-9])?", "a sandbox's name"),
    "resource": _resource,
    "argv": _texts(_ITEMS),
    "request_sha256": _DIGEST,
    "decision": _one_of(DECISIONS),
    "policy_ids": _texts(256),
    "policy_sha256": _DIGEST,
    "permit_id": _NAME,
    "approval_id": _NAME,
    "reason": _text(1 << 16),
    "data_class": _text(32, *_WORD),
    "outcome": _text(32, *_WORD),
    "trace_id": _NAME,
    "detail": _flat,
}
