# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Budgets: whose money, how much of it, and for how long. Money is whole micro-dollars everywhere.

A call has *subjects*: the run, sandbox, team, model and host that it is for, and ``total``, which is everything. A budget
holds for one subject, or with the name ``*`` for each of its kind apart.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import re
import typing as t
import zoneinfo

SCOPES = ("run", "sandbox", "team", "model", "host", "total")
WINDOWS = ("hour", "day", "month", "ever")
MODES = ("hard", "soft")
EACH = "*"
DOLLAR = 1_000_000
MOST = 1_000_000_000_000 * DOLLAR  # what fits into a ledger's 64 bits with room to add up
# Every time zone of today is a multiple of this away from UTC, so that any window is a sum of whole buckets.
BUCKET = 900
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?")
_SUBJECT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,127}")
_KEYS = ("name", "scope", "subject", "limit", "window", "zone", "mode")


class BudgetError(ValueError):
    """Budgets that cannot be; each of *problems* is one line."""

    def __init__(self, problems: t.Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = list(problems)


@dataclasses.dataclass(frozen=True)
class Budget:
    """At most *limit* micro-dollars in each *window* (of the time *zone*) for *subject* (``*``: each one) of *scope*."""

    name: str
    scope: str
    subject: str
    limit: int
    window: str
    zone: str
    mode: str

    @property
    def hard(self) -> bool:
        """Whether a call that does not fit is refused; else it is only told of."""
        return self.mode == "hard"

    def subject_of(self, subjects: t.Mapping[str, str]) -> str | None:
        """Return the ledger's word for who pays of a call with *subjects* (scope → name); None when the budget is not for it."""
        if self.scope == "total":
            return "total"
        name = subjects.get(self.scope)
        return f"{self.scope}:{name}" if name is not None and self.subject in (EACH, name) else None

    def start(self, at: int) -> int:
        """Return when the window that *at* lies in began; both are seconds since 1970 UTC."""
        return window(self.window, self.zone, at)[0]

    def end(self, at: int) -> int | None:
        """Return when the window that *at* lies in ends; None when it never does."""
        return window(self.window, self.zone, at)[1]

    def declared(self) -> dict[str, t.Any]:
        """Return the budget as an operator writes it."""
        return {**dataclasses.asdict(self), "limit": dollars(self.limit)}


def keys_of(subjects: t.Mapping[str, str]) -> list[str]:
    """Return the ledger's words for everyone who pays of a call with *subjects*."""
    return [*(f"{scope}:{name}" for scope, name in sorted(subjects.items())), "total"]


def window(kind: str, zone: str, at: int) -> tuple[int, int | None]:
    """Return when the window of *kind* that *at* lies in began and when it ends, in seconds since 1970 UTC."""
    if kind == "ever":
        return 0, None
    place = _place(zone)
    local = datetime.datetime.fromtimestamp(at, place)
    if kind == "hour":
        # The hour that a change of the clock repeats is two windows.
        offset = int(local.utcoffset().total_seconds())  # type: ignore[union-attr]
        start = (at + offset) // 3600 * 3600 - offset
        return start, start + 3600
    first = local.date() if kind == "day" else local.date().replace(day=1)
    after = first + datetime.timedelta(days=1) if kind == "day" else (first + datetime.timedelta(days=31)).replace(day=1)
    return _midnight(first, place), _midnight(after, place)


def _place(zone: str) -> datetime.tzinfo:
    # A small host has no table of time zones, and needs none for this one.
    return datetime.UTC if zone == "UTC" else zoneinfo.ZoneInfo(zone)


def _midnight(day: datetime.date, place: datetime.tzinfo) -> int:
    return int(datetime.datetime.combine(day, datetime.time(), place).timestamp())


def micro(value: t.Any) -> int:
    """Return the micro-dollars in an amount of dollars such as ``5``, ``"0.25"`` or 2.5.

    Raises ValueError with a text that can follow the name of what was wrong.
    """
    try:
        amount = None if isinstance(value, bool) else decimal.Decimal(str(value).strip().removeprefix("$"))
    except decimal.InvalidOperation:
        amount = None
    if amount is None or not amount.is_finite():
        raise ValueError(f"{value!r} is not an amount of dollars: write a number such as 5 or 0.25")
    if amount < 0 or amount * DOLLAR > MOST:
        raise ValueError(f"{value!r} is not an amount from 0 to {MOST // DOLLAR} dollars")
    if amount * DOLLAR != int(amount * DOLLAR):
        raise ValueError(f"{value!r} has more than six decimals: a millionth of a dollar is the least there is")
    return int(amount * DOLLAR)


def dollars(amount: int) -> str:
    """Return *amount* micro-dollars in dollars, exactly, with two decimals at the least."""
    whole, rest = divmod(abs(amount), DOLLAR)
    decimals = f"{rest:06d}".rstrip("0").ljust(2, "0")
    return f"{'-' if amount < 0 else ''}{whole}.{decimals}"


def parse(declared: t.Any) -> list[Budget]:
    """Return the budgets that an operator *declared*, a list of mappings, in the order of their names.

    *scope* is needed, and *limit*, *name*; *subject* is ``*``, *window* ``day`` (of a run: ``ever``), *zone* ``UTC`` and *mode*
    ``hard`` unless they are given. Raises BudgetError with all that is wrong.
    """
    if not isinstance(declared, list):
        raise BudgetError([f"budgets: {declared!r} is not a list"])
    found: dict[str, Budget] = {}
    problems: list[str] = []
    for index, item in enumerate(declared):
        where = f"budgets[{index}]"
        if not isinstance(item, dict):
            problems.append(f"{where}: {item!r} is not a mapping with name, scope and limit")
            continue
        wrong = [f"{where}.{key}: is not known; there is {', '.join(_KEYS)}" for key in sorted(map(str, item)) if key not in _KEYS]
        values: dict[str, t.Any] = {}
        for key in _KEYS:
            try:
                values[key] = _READERS[key](item.get(key), item)
            except ValueError as error:
                wrong.append(f"{where}.{key}: {error}")
        if not wrong and values["name"] in found:
            wrong.append(f"{where}.name: {values['name']} is there twice")
        if wrong:
            problems += wrong
        else:
            found[values["name"]] = Budget(**values)
    if problems:
        raise BudgetError(problems)
    return [found[name] for name in sorted(found)]


def _read_name(value: t.Any, _item: dict[str, t.Any]) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise ValueError(f"{value!r} is not a name: 1 to 64 of a-z, 0-9 and -, with no - at either end")
    return value


def _read_scope(value: t.Any, _item: dict[str, t.Any]) -> str:
    return _choice(value, SCOPES)


def _read_subject(value: t.Any, item: dict[str, t.Any]) -> str:
    if item.get("scope") == "total" and value not in (None, EACH):
        raise ValueError(f"{value!r}: a total has no subject")
    if value in (None, EACH):
        return EACH
    if not isinstance(value, str) or not _SUBJECT.fullmatch(value):
        raise ValueError(f"{value!r} is not the name of a {item.get('scope')}, nor {EACH} for each")
    # Models are one whatever the case they are asked for in.
    return value.lower() if item.get("scope") == "model" else value


def _read_limit(value: t.Any, _item: dict[str, t.Any]) -> int:
    if value is None:
        raise ValueError("is missing: the dollars that may be spent in a window")
    return micro(value)


def _read_window(value: t.Any, item: dict[str, t.Any]) -> str:
    return _choice("ever" if item.get("scope") == "run" and value is None else value, WINDOWS, "day")


def _read_zone(value: t.Any, _item: dict[str, t.Any]) -> str:
    name = "UTC" if value is None else value
    try:
        _place(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, TypeError, OSError):
        raise ValueError(f"{name!r} is not a time zone that is known here, such as UTC or Europe/Berlin; tables of zones are in the package tzdata") from None
    return str(name)


def _read_mode(value: t.Any, _item: dict[str, t.Any]) -> str:
    return _choice(value, MODES, "hard")


def _choice(value: t.Any, words: t.Sequence[str], default: str | None = None) -> str:
    word = default if value is None else value
    if word not in words:
        raise ValueError(f"{value!r} is not one of {', '.join(words)}")
    return str(word)


_READERS: dict[str, t.Callable[[t.Any, dict[str, t.Any]], t.Any]] = {
    "name": _read_name,
    "scope": _read_scope,
    "subject": _read_subject,
    "limit": _read_limit,
    "window": _read_window,
    "zone": _read_zone,
    "mode": _read_mode,
}
