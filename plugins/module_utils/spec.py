# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an operator may declare of a sandbox, and what is wrong with a declaration, without touching the host."""

from __future__ import annotations

import dataclasses
import decimal
import re
import typing as t

NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?")
_SIZE = re.compile(r"([1-9][0-9]{0,14})([kmgt]?)", re.ASCII)
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}

LEAST_MEMORY = 64 << 20  # a shell with git and Python in it
LEAST_TMPFS = 1 << 20
LEAST_WORKING_SET = 300 << 20  # what mkfs.xfs takes at the least
WORKING_SET = "4g"
MOST_PIDS = 32768  # the kernel's pid_max where nothing raised it
LEAST_GVISOR_PIDS = 128  # gVisor's own threads, some 40 of them, count towards the cap


class SpecError(ValueError):
    """A declaration is wrong; each of *problems* is one line."""

    def __init__(self, problems: t.Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = list(problems)


@dataclasses.dataclass(frozen=True)
class Sandbox:
    """One declared sandbox. Sizes are bytes, *cpus* is in billionths of a processor."""

    name: str
    originals: str
    preset: str
    memory: int
    nano_cpus: int
    pids: int
    open_files: int
    file_size: int
    tmp_size: int
    home_size: int
    working_set: int
    run_as: str
    runtime: str


def size(value: t.Any) -> int:
    """Return the bytes in a size such as ``512m`` or ``2g`` (powers of 1024) or a whole number of bytes.

    Raises ValueError with a text that can follow the name of what was wrong.
    """
    match = None if isinstance(value, (bool, float)) else _SIZE.fullmatch(str(value).lower())
    if match is None:
        raise ValueError(f"{value!r} is not a size: write a whole number above 0 with k, m, g or t, such as 512m")
    return int(match[1]) * _UNITS[match[2]]


def _least(least: int) -> t.Callable[[t.Any], int]:
    def parse(value: t.Any) -> int:
        number = size(value)
        if number < least:
            raise ValueError(f"{value!r} is too little: at least {human(least)}")
        return number

    return parse


def _count(least: int, most: int) -> t.Callable[[t.Any], int]:
    def parse(value: t.Any) -> int:
        text = str(value)
        if isinstance(value, bool) or not re.fullmatch(r"[0-9]{1,9}", text, re.ASCII) or not least <= int(text) <= most:
            raise ValueError(f"{value!r} is not a whole number from {least} to {most}")
        return int(text)

    return parse


def processors(value: t.Any) -> int:
    """Return a number of processors such as ``1.5`` in billionths of one; ValueError as :func:`size` raises it."""
    try:
        number = decimal.Decimal(str(value))
        usable = not isinstance(value, bool) and number.is_finite() and decimal.Decimal("0.01") <= number <= 1024
    except decimal.InvalidOperation:
        usable = False
    if not usable:
        raise ValueError(f"{value!r} is not a number of processors from 0.01 to 1024, such as 1.5")
    return int(number * 1_000_000_000)


def _name(value: t.Any) -> str:
    if not isinstance(value, str) or not NAME.fullmatch(value):
        shown = repr(value) if len(str(value)) <= 40 else f"{str(value)[:37]!r}… ({len(str(value))} characters)"
        raise ValueError(f"{shown} is not a sandbox name: 1 to 32 of a-z, 0-9 and -, with no - at either end")
    return value


def _originals(value: t.Any) -> str:
    return originals_path(value)


def originals_path(value: t.Any) -> str:
    """Return *value* if it is a path that a mount can carry: absolute, plain, no colon, comma or control character."""
    if not isinstance(value, str) or not value.startswith("/"):
        raise ValueError(f"{value!r} is not an absolute path")
    for char, word in ((":", "a colon"), (",", "a comma"), ("\\", "a backslash"), ('"', "a double quote")):
        if char in value:
            raise ValueError(f"{value!r} has {word}, which the options of a mount cannot carry: rename or bind it elsewhere")
    if not value.isprintable():
        raise ValueError(f"{value!r} has a control character: rename it or bind it elsewhere")
    if any(part in ("", ".", "..") for part in value.rstrip("/").split("/")[1:]):
        raise ValueError(f"{value!r} is not a plain path: leave out empty parts, . and ..")
    return value.rstrip("/") or "/"


def _choice(*words: str) -> t.Callable[[t.Any], str]:
    def parse(value: t.Any) -> str:
        if value not in words:
            raise ValueError(f"{value!r} is not one of {', '.join(words)}")
        return str(value)

    return parse


# The one table of what a declaration may hold: parser, and the default where there is one.
_FIELDS: dict[str, tuple[str, t.Callable[[t.Any], t.Any], t.Any]] = {
    "name": ("name", _name, None),
    "originals": ("originals", _originals, None),
    "preset": ("preset", str, "generic"),
    "memory": ("memory", _least(LEAST_MEMORY), "2g"),
    "cpus": ("nano_cpus", processors, "1"),
    "pids": ("pids", _count(16, MOST_PIDS), 256),
    "open_files": ("open_files", _count(64, 1_000_000), 4096),
    "file_size": ("file_size", _least(LEAST_TMPFS), "4g"),
    "tmp_size": ("tmp_size", _least(LEAST_TMPFS), "256m"),
    "home_size": ("home_size", _least(LEAST_TMPFS), "256m"),
    "working_set": ("working_set", _least(LEAST_WORKING_SET), WORKING_SET),
    "run_as": ("run_as", _choice("own", "owner"), "own"),
    "runtime": ("runtime", _choice("runc", "gvisor"), "runc"),
}


def parse(declarations: t.Any, presets: t.Collection[str]) -> list[Sandbox]:
    """Return the sandboxes declared, in the order of their names.

    *declarations* is a list of mappings as in ``configs/sandboxes.yml``; *presets* are the names of the package presets
    there are. Raises SpecError with every problem there is, each in one line that names the sandbox and the key.
    """
    if not isinstance(declarations, (list, tuple)):
        raise SpecError([f"sandboxes: a list is due, not {type(declarations).__name__}"])
    problems: list[str] = []
    found: dict[str, Sandbox] = {}
    for index, declaration in enumerate(declarations):
        where = f"sandboxes[{index}]"
        if not isinstance(declaration, t.Mapping):
            problems.append(f"{where}: a mapping with a name is due, not {type(declaration).__name__}")
            continue
        values: dict[str, t.Any] = {}
        before = len(problems)
        if isinstance(declaration.get("name"), str) and NAME.fullmatch(declaration["name"]):
            where = f"sandbox {declaration['name']}"
        for key in sorted(set(map(str, declaration)) - set(_FIELDS)):
            problems.append(f"{where}: {key} is not a key of a sandbox: use {', '.join(_FIELDS)}")
        for key, (field, parser, default) in _FIELDS.items():
            value = declaration.get(key, default)
            try:
                if value is None:
                    raise ValueError("missing")
                values[field] = parser(value)
                if key == "preset" and values[field] not in presets:
                    raise ValueError(f"{value!r} is not a preset there is: use {', '.join(sorted(presets))}")
            except ValueError as error:
                problems.append(f"{where}: {key}: {error}")
        if values.get("runtime") == "gvisor" and values.get("pids", LEAST_GVISOR_PIDS) < LEAST_GVISOR_PIDS:
            problems.append(f"{where}: pids: {values['pids']} is too little under gvisor, whose own threads count: at least {LEAST_GVISOR_PIDS}")
        if len(problems) == before:
            sandbox = Sandbox(**values)
            if sandbox.name in found:
                problems.append(f"sandbox {sandbox.name}: declared twice: give each sandbox a name of its own")
            found[sandbox.name] = sandbox
    if problems:
        raise SpecError(problems)
    return [found[name] for name in sorted(found)]


def argv(value: t.Any) -> list[str]:
    """Return *value* if it is a command: a list of at least one text, no NUL in any; ValueError in one line if not."""
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"argv: a list of texts is due, such as [\"ls\", \"-l\"], not {type(value).__name__}")
    if not value:
        raise ValueError("argv: the command is empty: give at least the program to run")
    for index, word in enumerate(value):
        if not isinstance(word, str):
            raise ValueError(f"argv[{index}]: a text is due, not {type(word).__name__}")
        if "\0" in word:
            raise ValueError(f"argv[{index}]: has a NUL character, which no command can carry")
        if any("\ud800" <= char <= "\udfff" for char in word):
            raise ValueError(f"argv[{index}]: is not UTF-8: the engine takes no other text")
    if not value[0]:
        raise ValueError("argv[0]: the program's name is empty")
    return list(value)


def seconds(value: t.Any) -> int:
    """Return *value* if it is a time that a command may take, in seconds up to 30 days; ValueError in one line if not."""
    try:
        return _count(1, 30 * 86400)(value)
    except ValueError as error:
        raise ValueError(f"timeout: {error} seconds") from error


def human(count: int) -> str:
    """Return bytes as people write them: the largest unit that divides evenly, as :func:`size` reads it."""
    for unit in ("t", "g", "m", "k"):
        if count and count % _UNITS[unit] == 0:
            return f"{count // _UNITS[unit]}{unit}"
    return str(count)
