# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the providers' protocols look from outside: their paths, headers, and errors in each one's own JSON."""

from __future__ import annotations

import functools
import re
import typing as t
import urllib.parse

import msgspec

from dockersandbox.llm.calls import Refusal, Wire

Family = t.Literal["anthropic", "openai"]
# What may be called: method and path → what it is.
ROUTES: dict[tuple[str, str], Wire | t.Literal["count", "models"]] = {
    ("POST", "/v1/messages"): "messages",
    ("POST", "/v1/messages/count_tokens"): "count",
    ("POST", "/v1/chat/completions"): "chat",
    ("POST", "/v1/responses"): "responses",
    ("GET", "/v1/models"): "models",
}
# Of a request only these headers go on: none of them says where to, or in whose name.
SENT_ON = ("accept", "anthropic-version", "anthropic-beta", "openai-beta", "user-agent")
# Of an answer these come back, and what begins so: nothing of whose account it was.
_BACK = frozenset(
    """
    content-type content-encoding retry-after retry-after-ms request-id x-request-id x-should-retry openai-processing-ms
    openai-version openai-model
    """.split()
)
_BACK_PREFIXES = ("anthropic-ratelimit-", "x-ratelimit-")
# What asks for a longer context than a model has.
_LONGER = re.compile(r"context-\d+[km]-.*", re.IGNORECASE)
_VERSION = re.compile(r"v\d+(?:(?:alpha|beta)\d*)?")
REASON = "x-guardrails-reason"
CALL = "x-guardrails-call"
LIMITED = "x-guardrails-max-tokens"
WARNING = "x-guardrails-warning"

_ANTHROPIC = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    413: "request_too_large",
    429: "rate_limit_error",
    502: "api_error",
    503: "overloaded_error",
    504: "timeout_error",
}
_OPENAI = {
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    404: "invalid_request_error",
    429: "rate_limit_error",
    502: "server_error",
    503: "server_error",
    504: "server_error",
}


def base(url: str) -> str:
    """Return where the paths behind /v1 of a provider at *url* begin: some name it with the version of its interface, and some without."""
    path = urllib.parse.urlsplit(url).path
    return url.rstrip("/") + ("" if any(map(_VERSION.fullmatch, path.split("/"))) else "/v1")


def family(path: str, headers: t.Mapping[str, str]) -> Family:
    """Return whose protocol a request speaks."""
    if path.startswith("/v1/messages") or (not path.startswith(("/v1/chat", "/v1/responses")) and "anthropic-version" in headers):
        return "anthropic"
    return "openai"


def token(headers: t.Mapping[str, str]) -> str:
    """Return the token that a request carries."""
    if key := headers.get("x-api-key"):
        return key
    word, _blank, rest = headers.get("authorization", "").partition(" ")
    return rest.strip() if word.lower() == "bearer" else ""


def error(kind: Family, refusal: Refusal) -> bytes:
    """Return the body of an answer that refuses a call."""
    text = str(refusal)
    if kind == "anthropic":
        word = _ANTHROPIC.get(refusal.status, "api_error")
        return msgspec.json.encode({"type": "error", "error": {"type": word, "message": text, "reason": refusal.reason}})
    word = _OPENAI.get(refusal.status, "invalid_request_error")
    return msgspec.json.encode({"error": {"message": text, "type": word, "param": None, "code": refusal.reason}})


def error_event(kind: Family, refusal: Refusal) -> bytes:
    """Return the event that ends a stream which is cut."""
    name = b"event: error\n" if kind == "anthropic" else b""
    return name + b"data: " + error(kind, refusal) + b"\n\n"


def credentials(kind: Family, key: str) -> dict[str, str]:
    """Return the headers that carry the real key."""
    if not key:
        return {}
    return {"x-api-key": key} if kind == "anthropic" else {"authorization": f"Bearer {key}"}


def betas(words: str) -> tuple[str, bool]:
    """Return the *words* of the header ``anthropic-beta`` that do not ask for a longer context, and whether others do."""
    asked = words.split(",")
    kept = [word for word in asked if not _LONGER.fullmatch(word.strip())]
    return ",".join(kept), len(kept) < len(asked)


def back(headers: t.Mapping[str, str]) -> dict[str, str]:
    """Return the headers of an upstream's answer that come back."""
    return {name: value for name, value in headers.items() if _comes_back(name)}


@functools.lru_cache(1024)
def _comes_back(name: str) -> bool:
    low = name.lower()
    return low in _BACK or low.startswith(_BACK_PREFIXES)
