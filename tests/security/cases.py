# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a case is: an attack, and how its effect is seen from outside."""

from __future__ import annotations

import collections.abc
import contextlib
import dataclasses
import pathlib
import secrets
import typing as t
from unittest import mock

from ansible_collections.dockersandbox.guardrails.plugins.module_utils import run
from security.arena import Arena, Attack, Box, Terminal, Weakening

Judge = t.Callable[["Scene"], str]


class NotHere(Exception):
    """The machine lacks what the attack is about; the text says what."""


@dataclasses.dataclass(frozen=True)
class Case:
    """One attack. *judge* makes it and returns the evidence that it succeeded, "" when it did not.

    *group* is its class, *source* the advisory or the peer's case that it is from, if any. *falls* are the protections
    without which it must succeed; those that are empty prove nothing but that the attack was tried.
    """

    name: str
    group: str
    tries: str
    source: str
    judge: Judge
    falls: tuple[str, ...]
    long: bool


CASES: list[Case] = []


def case(tries: str, falls: str = "", *, source: str = "", long: bool = False) -> t.Callable[[Judge], Judge]:
    """Register a judge under its own name; the module is its class. *falls* are names of weakenings, joined by `` + ``."""

    def register(judge: Judge) -> Judge:
        group = judge.__module__.removeprefix("security.attacks.")
        name = judge.__name__.replace("_", "-")
        CASES.append(Case(name, group, tries, source, judge, tuple(sorted(filter(None, falls.split(" + ")))), long))
        return judge

    return register


class Scene:
    """One attack in one sandbox, *without* some protections."""

    def __init__(self, arena: Arena, box: Box, without: t.Sequence[Weakening] = ()) -> None:
        self.arena = arena
        self.box = box
        self.neighbour = arena.neighbour
        self.without = without
        self.lacks = {one.name for one in without}
        self.mark = f"mark-{secrets.token_hex(6)}"  # what the attack may plant

    def _environment(self, more: t.Mapping[str, str]) -> dict[str, str]:
        arena = self.arena
        return {
            "T": self.mark,
            "HOST_FILE": str(arena.file),
            "HOST_KEY": arena.places.host_key,
            "CANARY_PID": str(arena.canary.pid),
            "PORT": str(arena.listener.port),
            "ABSTRACT": arena.listener.abstract,
            **more,
        }

    @property
    def lies(self) -> pathlib.Path:
        """Where on the host lies what the sandbox writes to /workspace."""
        return self.arena.plain if "cap on the working set" in self.lacks else self.box.upper

    @contextlib.contextmanager
    def attack(self, script: str, *, seconds: float = 15, box: Box | None = None, more: t.Mapping[str, str] | None = None) -> collections.abc.Iterator[Attack]:
        """Run a Python *script* in the sandbox and yield it when it holds what it has got, or ended, or *seconds* are over.

        It is over, with all that it left running, when the block is.
        """
        where = box or self.box
        attack = Attack(where, script, self._environment(more or {}))
        attack.wait(seconds)
        try:
            yield attack
        finally:
            attack.let_go()
            attack.close()
            where.sweep()

    def said(self, script: str, seconds: float = 15, more: t.Mapping[str, str] | None = None) -> str:
        """Run a script to its end and return what it said."""
        with self.attack(script, seconds=seconds, more=more) as attack:
            attack.let_go()
            attack.wait(seconds, b"\0never\0")
            return attack.said.decode("utf-8", "replace")

    def stolen(self, script: str, more: t.Mapping[str, str] | None = None) -> str:
        """Return the evidence that a script printed the secret of the host."""
        return "the secret of the host was printed" if self.arena.secret in self.said(script, more=more) else ""

    @contextlib.contextmanager
    def weak_host(self) -> collections.abc.Iterator[None]:
        """Within the block the host does not do what was taken from it."""
        with contextlib.ExitStack() as stack:
            for one in self.without:
                if one.host:
                    module, name, instead = one.host
                    stack.enter_context(mock.patch.object(module, name, instead))
            yield

    def sweep(self) -> None:
        """End all in the sandbox as the end of a run does."""
        with self.weak_host():
            self.box.sweep()

    def run(self, argv: t.Sequence[str], terminal: Terminal | None = None) -> run.Result:
        """Run a command as an operator does, in a throw-away sandbox of the same kind over the same tree."""
        with self.weak_host():
            return run.run(self.box.host, self.box.of, argv, terminal or Terminal(), str(self.arena.tree))

    def kept(self, script: str, kind: str, look: t.Callable[[Box], set[t.Any]]) -> str:
        """Return what *look* finds while a script holds what it has got, and did not before: evidence of *kind*."""
        before = look(self.box)
        with self.attack(script):
            new = look(self.box) - before
        return f"{kind}: {min(map(str, new))}" if new else ""
