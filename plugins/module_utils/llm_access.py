# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What opens the gateway of LLM calls: the real keys, which it alone reads, and a token for each sandbox, worth nothing elsewhere.

A token is asked for on top of the socket that a call comes in on, and is good for that one alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import secrets
import typing as t

from ansible_collections.dockersandbox.guardrails.plugins.module_utils import llm, lock, services
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.places import Places

PHASE = "cost"
FAMILIES = ("anthropic", "openai")
_PORT = 4000  # on 127.0.0.1 in a sandbox
_BYTES = 24


class AccessError(ValueError):
    """A key or a token that cannot be; the text is one line for the operator."""


def keys_folder(places: Places) -> pathlib.Path:
    """Return the folder of the providers' keys, which the gateway has mounted."""
    return pathlib.Path(places.home, ".state", "keys", llm.NAME)


def key_path(places: Places, family: str) -> pathlib.Path:
    """Return the file of the key for one *family* of protocols."""
    return keys_folder(places) / f"{family}.key"


def key_file(places: Places, family: str, key: str, gid: int) -> lock.Wanted:
    """Return *key* as the file to author, "" as none: for root to write, and the group *gid* to read. Raises AccessError."""
    if key and not (key.isascii() and key.isprintable() and " " not in key and len(key) <= 4096):
        raise AccessError(f"{family}_key: is not a key: one line of visible characters is due")
    return lock.Wanted(key_path(places, family), f"{key}\n".encode() if key else None, 0o640, 0, gid)


def tokens_path(places: Places) -> pathlib.Path:
    """Return the file of the sandboxes' tokens, which is root's."""
    return pathlib.Path(places.home, ".state", "keys", f"{llm.NAME}-tokens.json")


def read_tokens(places: Places) -> dict[str, str]:
    """Return the tokens by sandbox, none while there is no file. Raises LockError."""
    path = tokens_path(places)
    problem = lock.check(path)
    if problem and problem.kind == "absent":
        return {}
    if problem:
        raise lock.LockError(str(problem))
    return t.cast("dict[str, str]", json.loads(path.read_bytes()))


def tokens_of(sandboxes: t.Iterable[str], known: t.Mapping[str, str]) -> dict[str, str]:
    """Return a token for each of *sandboxes*: the one that it has, or a new one."""
    return {name: known.get(name) or f"sandbox-{secrets.token_hex(_BYTES)}" for name in sandboxes}


def tokens_file(places: Places, tokens: t.Mapping[str, str]) -> lock.Wanted:
    """Return *tokens* as the file to author."""
    return lock.Wanted(tokens_path(places), (json.dumps(tokens, indent=2, sort_keys=True) + "\n").encode(), 0o600, 0, 0)


def digest(token: str) -> str:
    """Return what the gateway knows of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


def part(places: Places, tokens: t.Mapping[str, str]) -> dict[str, t.Any]:
    """Return what the phase adds to each sandbox: the gateway's socket, the port that leads to it, and where agents look for it."""
    folder = services.sandboxes_folder(places, llm.NAME)
    return {
        "sandboxes": {
            name: {
                "environment": {
                    "ANTHROPIC_BASE_URL": f"http://127.0.0.1:{_PORT}",
                    "ANTHROPIC_AUTH_TOKEN": token,
                    "OPENAI_BASE_URL": f"http://127.0.0.1:{_PORT}/v1",
                    "OPENAI_API_KEY": token,
                },
                "mounts": [{"bind": f"{folder}/{name}", "target": llm.FOLDER}],
                "forwards": {str(_PORT): os.path.join(llm.FOLDER, f"{llm.NAME}.sock")},
            }
            for name, token in sorted(tokens.items())
        }
    }
