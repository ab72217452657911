# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The proof that the gateway of LLM calls does what it is for, from the sockets that sandboxes have. No real money is spent on it."""

from __future__ import annotations

import http.client
import json
import os
import time
import typing as t

from ansible_collections.dockersandbox.guardrails.plugins.module_utils import llm, llm_access, services
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.docker_api import Connection
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.places import Places

REASON = "x-guardrails-reason"
_CALL = "x-guardrails-call"
_SECONDS = 30  # for an answer
_SETTLED = 10  # for a call to be settled
_PAUSE = 0.05
# What a gateway that refuses all for now answers: a budget that is spent, a limit, a stop.
_CLOSED = frozenset({402, 403, 429})


class ProofError(Exception):
    """The gateway does not do what it is for; one line."""


class Answer(t.NamedTuple):
    """What came back: its status, its headers in small letters, its body."""

    status: int
    headers: dict[str, str]
    body: bytes


class Proof(t.NamedTuple):
    """What was seen: how many *sandboxes* are heard and how a call fared, by its *outcome*: ``charged`` with *micro_dollars* of the
    simulated provider, ``refused`` with the *reason*, or ``not made``, where it would cost real money."""

    sandboxes: int
    simulated: list[str]
    outcome: str
    micro_dollars: int
    reason: str


def ask(path: str, method: str, where: str, token: str, body: dict[str, t.Any] | None = None) -> Answer:
    """Ask at the socket *path*, as an agent in its sandbox does. Raises ProofError when nobody answers."""
    connection = Connection(path, _SECONDS)
    try:
        content = None if body is None else json.dumps(body).encode()
        connection.request(method, where, content, {"Authorization": f"Bearer {token}", "Content-Type": "application/json"})
        answer = connection.getresponse()
        return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
    except (OSError, http.client.HTTPException) as error:
        raise ProofError(f"{path}: the gateway does not answer: {error or type(error).__name__}; see: docker logs guardrails-llm") from None
    finally:
        connection.close()


def prove(places: Places, sandboxes: t.Sequence[str]) -> Proof:
    """Show that every sandbox is heard with its own token alone and on no other path, and that a call is charged to the micro-dollar.

    A call is made where the provider is simulated, and of one sandbox only. Raises ProofError, LockError, RecorderError.
    """
    tokens = llm_access.read_tokens(places)
    for name in sandboxes:
        if name not in tokens:
            raise ProofError(f"sandbox {name}: has no token: run site.yml --tags cost")
        _heard(places, name, tokens)
    simulated = llm.simulated(llm.command(places.run, "status"))
    if "anthropic" not in simulated or not sandboxes:
        return Proof(len(sandboxes), simulated, "not made", 0, "")
    return _charged(places, sandboxes[0], tokens[sandboxes[0]], simulated, len(sandboxes))


def _socket(places: Places, name: str) -> str:
    return os.path.join(services.sandboxes_folder(places, llm.NAME), name, f"{llm.NAME}.sock")


def _heard(places: Places, name: str, tokens: t.Mapping[str, str]) -> None:
    path = _socket(places, name)
    others = [token for other, token in tokens.items() if other != name]
    for token in ["none", *others[:1]]:
        answer = ask(path, "GET", "/v1/models", token)
        if answer.status != 401:
            raise ProofError(f"sandbox {name}: a token that is not its own is answered with {answer.status}, not 401")
    answer = ask(path, "POST", "/v1/files", tokens[name], {})
    if answer.status != 404 and answer.status not in _CLOSED:
        raise ProofError(f"sandbox {name}: a path that is not served is answered with {answer.status}, not 404")


def _charged(places: Places, name: str, token: str, simulated: list[str], count: int) -> Proof:
    before = _spent(places, name)
    body = {"model": "simulated-small", "max_tokens": 16, "messages": [{"role": "user", "content": f"A proof at {time.time_ns()}."}]}
    answer = ask(_socket(places, name), "POST", "/v1/messages", token, body)
    if answer.status in _CLOSED:
        return Proof(count, simulated, "refused", 0, answer.headers.get(REASON, ""))
    if answer.status != 200:
        raise ProofError(f"sandbox {name}: a call to the simulated provider is answered with {answer.status}: {answer.headers.get(REASON, 'no reason')}")
    call = answer.headers.get(_CALL, "")
    account = json.loads(ask(simulator_socket(places), "GET", "/account", "").body)
    charged = [entry["micro_dollars"] for entry in account["calls"] if entry["id"] == call]
    if len(charged) != 1:
        raise ProofError(f"sandbox {name}: the simulated provider charged the call {call} {len(charged)} times, not once")
    deadline = time.monotonic() + _SETTLED
    while (spent := _spent(places, name)) < before + charged[0]:
        if time.monotonic() > deadline:
            raise ProofError(f"sandbox {name}: the provider charged {charged[0]} micro-dollars for a call, of which the ledger has {spent - before}")
        time.sleep(_PAUSE)
    return Proof(count, simulated, "charged", charged[0], "")


def simulator_socket(places: Places) -> str:
    """Return the socket of the simulated provider, which the gateway has mounted."""
    return os.path.join(services.run_folder(places, "simulator"), llm.NAME, "simulator.sock")


def _spent(places: Places, name: str) -> int:
    known: llm.Spend = llm.command(places.run, "spend")["spend"]
    return known["sandbox"].get(name, {"spent": 0})["spent"]
