# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading the log: the records that somebody looks for, as they come, and whether the log is what was written."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import json
import os
import platform
import re
import shlex
import time
import typing as t
from pathlib import Path

from ansible_collections.dockersandbox.guardrails.plugins.module_utils import acts, canonical, chain, chain_verify, shipper
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.places import Places

LIMIT = 100
PAUSE = 0.2  # seconds between two looks at what is being written
_AGO = re.compile(r"([1-9][0-9]{0,8})([smhdw])", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_COLOURS = {"failure": "31", "deny": "31", "allow": "32", "time": "2", "action": "1"}

Record = dict[str, t.Any]


def moment(text: str, now: float) -> str:
    """Return the time that *text* means as records have it: a date, a date and time (UTC unless it says so), or an age such as 2h.

    *now*: seconds since the epoch. Raises ValueError in one line.
    """
    try:
        if match := _AGO.fullmatch(text):
            when = datetime.datetime.fromtimestamp(now - int(match[1]) * _SECONDS[match[2]], datetime.UTC)
        else:
            when = datetime.datetime.fromisoformat(text)
        when = when.astimezone(datetime.UTC) if when.tzinfo else when
        return when.isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"
    except (ValueError, OverflowError, OSError):
        raise ValueError(f"{text!r} is no time: write 2026-11-24, 2026-11-24T10:00:00 (UTC), or an age such as 90s, 30m, 2h, 7d, 1w") from None


@dataclasses.dataclass(frozen=True)
class Wanted:
    """Which records are looked for; None is any. *since* and *until* are times of records, *action* a word such as run or run.start."""

    sandbox: str | None = None
    run: str | None = None
    since: str | None = None
    until: str | None = None
    kind: str | None = None
    action: str | None = None
    decision: str | None = None

    def record(self, text: bytes) -> Record | None:
        """Return the record in *text* when it is one of them; None too for what is no record, which is for the proof to tell."""
        # Most lines are others', and need not be parsed to know it.
        if any(value is not None and canonical.dumps(value) not in text for value in (self.sandbox, self.run, self.kind, self.decision)):
            return None
        try:
            record = json.loads(text)
            return record if isinstance(record["seq"], int) and self._holds(record) else None
        except (ValueError, KeyError, TypeError, RecursionError):
            return None

    def _holds(self, record: Record) -> bool:
        if self.since is not None and record["time"] < self.since:
            return False
        if self.until is not None and record["time"] >= self.until:
            return False
        if self.action is not None and not f"{record['action']}.".startswith(f"{self.action}."):
            return False
        pairs = ((self.sandbox, "sandbox"), (self.run, "trace_id"), (self.kind, "class"), (self.decision, "decision"))
        return all(value is None or record.get(name) == value for value, name in pairs)


_ANY = Wanted()


def lines(folder: Path) -> t.Iterator[bytes]:
    """Return the lines of the log in *folder*, oldest first. Raises ChainError and OSError for a log that cannot be read."""
    if not folder.is_dir():
        raise chain.ChainError(f"{folder}: there is no log on this host: run site.yml")
    return chain.lines(folder)


def newest(texts: t.Iterable[bytes], wanted: Wanted, limit: int) -> list[Record]:
    """Return the last *limit* of the records in *texts* that are *wanted*, oldest first."""
    found: collections.deque[Record] = collections.deque(maxlen=limit)
    for text in texts:
        if (record := wanted.record(text)) is not None:
            found.append(record)
    return list(found)


def follow(folder: Path, wanted: Wanted, after: int) -> t.Iterator[Record]:
    """Yield what is *wanted* of the records after number *after*, as they are written, without end. Raises ChainError and OSError."""
    while True:
        for text in _until_rotated(folder, after):
            record = _ANY.record(text)
            if record is not None and record["seq"] > after:
                after = record["seq"]
                if wanted.record(text) is not None:
                    yield record


def _until_rotated(folder: Path, after: int) -> t.Iterator[bytes]:
    """Yield lines from that of record number *after* on, or before, until the live file has become a segment."""
    with open(folder / chain.LIVE, "rb") as live:
        # Opened first: what is rotated meanwhile is read twice, rather than not at all.
        yield from _segments(folder, after)
        rest, over = b"", False
        while True:
            data = live.read(1 << 20)
            *whole, rest = (rest + data).split(b"\n")
            yield from whole
            if not data and over:
                return
            if not data and not (over := _rotated(folder / chain.LIVE, live)):
                time.sleep(PAUSE)


def _rotated(path: Path, file: t.BinaryIO) -> bool:
    try:
        return os.stat(path).st_ino != os.fstat(file.fileno()).st_ino
    except FileNotFoundError:
        return True


def _segments(folder: Path, after: int) -> t.Iterator[bytes]:
    """Yield the lines of the segments that may hold records after number *after*."""
    here = chain.contents(folder)
    segments = here.packed | here.raw
    begin = max((first for first in segments if first <= after + 1), default=0)
    for first in sorted(segments):
        if first >= begin:
            rest = b""
            for chunk in chain.chunks(segments[first]):
                *whole, rest = (rest + chunk).split(b"\n")
                yield from whole


def line(record: Record, colours: bool = False) -> str:
    """Return a record as one line for people, without a control character of whoever wrote it; *colours* are for a terminal."""

    def shown(text: str, colour: str = "") -> str:
        safe = canonical.printable(text.encode("utf-8", "backslashreplace"))
        return f"\x1b[{_COLOURS[colour]}m{safe}\x1b[0m" if colours and colour in _COLOURS else safe

    def field(name: str, value: t.Any) -> str:
        if name == "argv":
            return shlex.join(map(str, value))
        return value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)

    parts = [shown(record["time"][:23] + "Z", "time"), shown(str(record["sender"])), shown(str(record["action"]), "action")]
    parts += [shown(str(record["sandbox"]))] if record.get("sandbox") else []
    parts += [shown(record[name], record[name]) for name in ("decision", "outcome") if record.get(name) not in (None, "unknown")]
    parts += [shown(field(name, record[name])) for name in ("argv", "resource") if record.get(name)]
    parts += [shown(f"{name}={field(name, value)}") for name, value in sorted(record.get("detail", {}).items())]
    parts += [shown(f"run={record['trace_id']}")] if record.get("trace_id") else []
    parts += [shown(f"({record['reason']})")] if record.get("reason") else []
    return "  ".join(parts)


def proof(places: Places, heads: t.Iterable[Path] = ()) -> chain_verify.Report | None:
    """Prove the log of a host, with the heads that were shipped to folders and those in the files *heads* too.

    None where there is no log, nor has to be one. Raises ChainError, SealError, LockError and OSError.
    """
    folder = Path(places.logs)
    due = acts.required(places)
    if not due and (not folder.is_dir() or chain.contents(folder).empty):
        return None
    shipped = []
    for target in shipper.read_targets(places):
        if target.folder:
            heads = [*heads, *sorted(Path(target.folder).glob(f"{platform.node()}-*.heads.jsonl"))]
    for path in heads:
        shipped += chain_verify.read_heads(path)
    # After a teardown nobody signs heads any more.
    return chain_verify.verify(folder, Path(places.log_public), shipped, now=time.time() if due else None)
