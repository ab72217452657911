# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What reaches the operator's terminal, as lines of the host's own."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import json
import types
import unicodedata
from importlib.machinery import SourceFileLoader
from unittest import mock

from security.arena import ROOT
from security.cases import Scene, case


def _command() -> types.ModuleType:
    loader = SourceFileLoader("sandbox_command", str(ROOT / "bin" / "sandbox"))
    spec = importlib.util.spec_from_loader("sandbox_command", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def _odd(text: str) -> str:
    """Return the first character of *text* that a terminal would obey or that hides or turns others."""
    return next((f"U+{ord(char):04X}" for char in text if char != "\n" and unicodedata.category(char) in ("Cc", "Cf", "Zl", "Zp", "Cs")), "")


NAMES = """
import os
os.chdir("/workspace")
for name in (b"\\x1b]0;owned\\x07/.bashrc", b"\\x1b[2J\\rsandbox: all is well/Makefile", "\\u202ecod.sh/.envrc".encode(),
             b"\\x9b31m/.vimrc", b"new\\nline/.bashrc", b"\\xff\\xfe/.profile"):
    os.makedirs(os.path.dirname(b"./" + name), exist_ok=True)
    open(name, "w").close()
import socket
socket.socket(socket.AF_UNIX).bind(b"\\x1b[31msocket\\n")
"""


@case("names of files that act on the terminal which shows the summary of a run", "names made printable")
def summary(scene: Scene) -> str:
    command = _command()
    argv = ["python3", "-c", NAMES]
    options = argparse.Namespace(action="run", name=scene.box.of, originals=str(scene.arena.tree), json=False, timeout=60, argv=argv)
    errors = io.StringIO()
    with scene.weak_host(), mock.patch.object(command, "Console", _Quiet), contextlib.redirect_stderr(errors):
        command.do_run(scene.box.host, options)
    said = errors.getvalue()
    if _odd(said):
        return f"{_odd(said)} was printed"
    ours = all(line.startswith("sandbox: ") for line in said.splitlines())
    return "" if ours and said.count("look before use") >= 5 else f"lines of the sandbox's own: {said!r}"


class _Quiet:
    """A console without a terminal."""

    tty = False
    stdin = False

    def __init__(self, *_given: object) -> None:
        """Nothing is to be prepared."""

    def start(self, *_given: object) -> None:
        """Nothing is passed on."""

    def write(self, _kind: int, _data: bytes) -> None:
        """What the command writes is its own, and passed through as ssh does."""

    def stop(self) -> None:
        """Nothing is to be given back."""


@case("the same in what machines read: JSON of the result, metadata of the bundle")
def records(scene: Scene) -> str:
    made = scene.run(["python3", "-c", NAMES])
    told = json.dumps(vars(made))
    if _odd(told):
        return f"{_odd(told)} in the result"
    with open(f"{made.bundle}/metadata.jsonl", encoding="utf-8", newline="\n") as file:
        lines = file.read().split("\n")[:-1]
    with contextlib.suppress(ValueError):
        for line in lines:
            json.loads(line)
        return ""
    return "a line is no record"
