# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Egress tokens: short-lived leave for one sandbox to reach one destination beyond its rules.

A token is kept as its sha256 and in memory only: with the process that minted it, it is gone, and with it what was left of it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import secrets
import typing as t

from ansible_collections.dockersandbox.guardrails.plugins.module_utils import allowlist
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.allowlist import Decision, Request, Rule

PREFIX = "egt_"
LONGEST = 86400  # seconds
MOST = 1000  # tokens that live at one time


@dataclasses.dataclass
class Token:
    """A token that was minted. *until* is in seconds since 1970; *uses* and *bytes* are what is left, None without a limit."""

    id: str
    sandbox: str
    rule: Rule
    until: float
    uses: int | None
    bytes: int | None
    reason: str
    revoked: bool = False

    def problem(self, sandbox: str, now: float) -> str:
        """Return in one line why the token is of no use to *sandbox* now; empty when it is."""
        if self.sandbox != sandbox:
            return "the token is another sandbox's"
        if self.revoked:
            return "the token was revoked"
        if now >= self.until:
            return "the token has expired"
        if self.bytes is not None and self.bytes <= 0:
            return "the bytes of the token are used up"
        return ""

    def status(self) -> dict[str, t.Any]:
        """Return what an operator is told of the token."""
        return {
            "id": self.id,
            "sandbox": self.sandbox,
            "rule": self.rule.id,
            "until": int(self.until),
            "uses": self.uses,
            "bytes": self.bytes,
            "reason": self.reason,
        }


def digest(secret: str) -> str:
    """Return the form in which a token is stored."""
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


class Tokens:
    """The tokens that live."""

    def __init__(self) -> None:
        self._known: dict[str, Token] = {}

    def mint(
        self, sandbox: str, rule: dict[str, t.Any], seconds: int, uses: int | None, bytes_: int | None, reason: str, now: float
    ) -> tuple[str, Token]:
        """Return a new secret and its token. ValueError in one line for what cannot be meant.

        *rule* is a rule as in the allowlist, of a single host.
        """
        self._known = {key: token for key, token in self._known.items() if now < token.until and not token.revoked}
        if len(self._known) >= MOST:
            raise ValueError(f"{MOST} tokens live: revoke some")
        if not 1 <= seconds <= LONGEST:
            raise ValueError(f"seconds: {seconds} is not from 1 to {LONGEST}")
        for key, value in (("uses", uses), ("bytes", bytes_)):
            if value is not None and value < 1:
                raise ValueError(f"{key}: {value} is less than 1: leave it out for no limit")
        if not reason.strip():
            raise ValueError("reason: is empty: say why this is allowed")
        problems: list[str] = []
        this = secrets.token_hex(6)
        made = allowlist.rules(f"token-{this}", "token", [rule], (), problems)
        if problems:
            raise ValueError("; ".join(problems))
        if made[0].suffix:
            raise ValueError("host: is a wildcard: a token is for one host")
        secret = PREFIX + secrets.token_urlsafe(24)
        token = Token(this, sandbox, made[0], now + seconds, uses, bytes_, reason)
        self._known[digest(secret)] = token
        return secret, token

    def decide(self, secret: str, sandbox: str, request: Request, now: float) -> tuple[Decision, Token | None]:
        """Return what *secret* decides over a request, and the token when it allows it. Uses up nothing."""
        token = self._known.get(digest(secret))
        if token is None:
            return Decision(None, allowlist.DEFAULT, "no rule allows this, and the token is not known"), None
        problem = token.problem(sandbox, now)
        if not problem and token.uses is not None and token.uses <= 0:
            problem = "the uses of the token are used up"
        if not problem and not token.rule.covers(request.host):
            problem = "the token is for another host"
        if problem:
            return Decision(None, token.rule.id, problem), None
        decision = allowlist.judge(token.rule, request)
        return decision, token if decision.rule else None

    def revoke(self, this: str) -> Token | None:
        """Make the token with the id *this* useless at once; None when there is none."""
        for token in self._known.values():
            if token.id == this:
                token.revoked = True
                return token
        return None

    def living(self, now: float) -> list[Token]:
        """Return the tokens that are of use to somebody, in the order of their ids."""
        return sorted((token for token in self._known.values() if not token.problem(token.sandbox, now)), key=lambda token: token.id)
