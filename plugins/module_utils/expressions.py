# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Regular expressions from a configuration: those whose time could run away are refused before they are used.

Python's matcher backtracks. What it can try from one place of a text is bounded by the product of the choices that are
open when it fails; a choice is open where what follows a repetition (or an alternative) may begin with the same
character as the repetition itself. The analysis walks the parsed expression, as one does for the automaton of Glushkov:
for each position the set of characters that may follow is kept, and where two sets overlap the choices multiply.
"""

from __future__ import annotations

import dataclasses
import re
import time
import typing as t
from re import _constants as sre  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]

MOST_CHOICES = 10_000  # ways to try from one place
MOST_LENGTH = 40_000  # characters that one match can have
TRIAL_LENGTH = 16384
TRIAL_TIME = 5e-6  # seconds of processor time a character; sound expressions take less than a tenth of it

_OTHER = 1 << 128  # every character beyond ASCII
_ALL = (1 << 129) - 1
_CAP = 1 << 62


class ExpressionError(ValueError):
    """An expression is not usable; the text is one line that says why, and follows the expression's name."""


def compile_checked(expression: str, flags: int = re.ASCII, trial: bool = True) -> re.Pattern[str]:
    """Return *expression* compiled; raises ExpressionError when it is invalid or its time is not bounded.

    With *trial* it is also run on texts made to keep it busy (some milliseconds), as a second opinion on the analysis.
    """
    try:
        tree = parser.parse(expression, flags)
        pattern = re.compile(expression, flags)
    except (re.error, RecursionError, OverflowError) as error:
        raise ExpressionError(f"is not a regular expression: {error}") from error
    walk = _Walk(tree.state.flags)
    part = walk.sequence(tree)
    if part.choices > MOST_CHOICES:
        raise ExpressionError(
            "can backtrack without end: a repetition inside a repetition, or two beside each other, may match the same text; "
            "let them begin with different characters, or set lower bounds"
        )
    if part.most > MOST_LENGTH:
        raise ExpressionError(f"can match {part.most} characters; {MOST_LENGTH} are the most: set lower bounds")
    if part.least == 0:
        raise ExpressionError("matches the empty text")
    if trial:
        _try(pattern, walk.sets, part.sample, part.most)
    return pattern


@dataclasses.dataclass
class _Part:
    """What a piece of an expression can match: lengths, where it begins and ends, and how many ways there are."""

    least: int = 0
    most: int = 0
    first: int = 0  # characters it can begin with, a bit each
    last: frozenset[int] = frozenset()  # positions it can end with
    choices: int = 1
    firm: bool = False  # what it matched is not given up again (possessive, atomic)
    assertion: bool = False  # consumes nothing
    sample: str = ""  # one text that it matches, but for assertions

    @property
    def nullable(self) -> bool:
        return self.least == 0

    @property
    def spread(self) -> int:
        return 1 if self.firm else self.most - self.least + 1


def _both_cases(mask: int) -> int:
    for upper in range(65, 91):
        if mask >> upper & 1 or mask >> (upper + 32) & 1:
            mask |= 1 << upper | 1 << (upper + 32)
    return mask


def _bit(code: int) -> int:
    return 1 << code if code < 128 else _OTHER


def _range(low: int, high: int) -> int:
    mask = _OTHER if high > 127 else 0
    for code in range(low, min(high, 127) + 1):
        mask |= 1 << code
    return mask


def _matching(expression: str) -> int:
    return sum(1 << code for code in range(128) if re.match(expression, chr(code), re.ASCII))


_CATEGORIES = {
    sre.CATEGORY_DIGIT: _matching(r"\d"),
    sre.CATEGORY_SPACE: _matching(r"\s"),
    sre.CATEGORY_WORD: _matching(r"\w"),
}
_CATEGORIES |= {
    sre.CATEGORY_NOT_DIGIT: _ALL & ~_CATEGORIES[sre.CATEGORY_DIGIT],
    sre.CATEGORY_NOT_SPACE: _ALL & ~_CATEGORIES[sre.CATEGORY_SPACE],
    sre.CATEGORY_NOT_WORD: _ALL & ~_CATEGORIES[sre.CATEGORY_WORD],
}


def _char_of(mask: int) -> str:
    """Return a character of *mask*, a letter or digit where there is one."""
    for code in (*range(97, 123), *range(65, 91), *range(48, 58), *range(32, 127), 10):
        if mask >> code & 1:
            return chr(code)
    return "\u00e9" if mask & _OTHER else "\x00"


class _Walk:
    """The walk over one parsed expression; positions are numbered as they are met."""

    def __init__(self, flags: int) -> None:
        self.flags = flags
        self.follow: list[int] = []
        self.sets: set[int] = set()

    def sequence(self, items: t.Iterable[tuple[t.Any, t.Any]]) -> _Part:
        parts = [self.item(op, argument) for op, argument in items]
        whole = _Part(sample="".join(part.sample for part in parts)[:2048])
        after, tail, looked_at = 0, True, False
        # Backwards, since what may come next decides whether a piece has choices.
        for part in reversed(parts):
            if part.assertion:
                # Nothing is consumed here; but what stands before may be tried again in all of its lengths.
                whole.choices = min(_CAP, whole.choices * part.choices)
                looked_at = True
                continue
            if looked_at or any(self.follow[position] & after for position in part.last) or (part.nullable and part.first & after):
                whole.choices = min(_CAP, whole.choices * part.spread)
            whole.choices = min(_CAP, whole.choices * part.choices)
            for position in part.last:
                self.follow[position] |= after
            if tail:
                whole.last |= part.last
                tail = part.nullable
            after = part.first | (after if part.nullable else 0)
            looked_at = looked_at and part.nullable
            whole.least += part.least
            whole.most += part.most
        whole.first = after
        return whole

    def char(self, mask: int) -> _Part:
        if self.flags & re.IGNORECASE:
            mask = _both_cases(mask)
        self.sets.add(mask)
        self.follow.append(0)
        return _Part(1, 1, mask, frozenset([len(self.follow) - 1]), sample=_char_of(mask))

    def item(self, op: t.Any, argument: t.Any) -> _Part:
        if op is sre.LITERAL:
            return self.char(_bit(argument))
        if op is sre.NOT_LITERAL:
            return self.char(_ALL & ~_bit(argument))
        if op is sre.ANY:
            return self.char(_ALL if self.flags & re.DOTALL else _ALL & ~_bit(10))
        if op is sre.IN:
            return self.char(self.members(argument))
        if op is sre.BRANCH:
            return self.branch([self.sequence(one) for one in argument[1]])
        if op is sre.SUBPATTERN:
            _group, added, removed, inner = argument
            before, self.flags = self.flags, (self.flags | added) & ~removed
            part = self.sequence(inner)
            self.flags = before
            return part
        if op is sre.ATOMIC_GROUP:
            return dataclasses.replace(self.sequence(argument), firm=True)
        if op in (sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT):
            return self.repeat(op is sre.POSSESSIVE_REPEAT, *argument)
        if op in (sre.ASSERT, sre.ASSERT_NOT):
            return _Part(choices=self.sequence(argument[1]).choices, assertion=True)
        if op is sre.AT:
            return _Part(assertion=True)
        raise ExpressionError(f"has a {str(op).lower().replace('_', ' ')}, which is not supported here: write it without")

    def members(self, items: t.Iterable[tuple[t.Any, t.Any]]) -> int:
        mask, negated = 0, False
        for op, argument in items:
            if op is sre.NEGATE:
                negated = True
            elif op is sre.LITERAL:
                mask |= _bit(argument)
            elif op is sre.RANGE:
                mask |= _range(*argument)
            else:
                mask |= _CATEGORIES[argument]
        if self.flags & re.IGNORECASE:
            mask = _both_cases(mask)
        # A negated set may have any other character, also beyond ASCII.
        return (_ALL & ~mask) | _OTHER if negated else mask

    def branch(self, parts: list[_Part]) -> _Part:
        whole = _Part(min(part.least for part in parts), max(part.most for part in parts), sample=max((part.sample for part in parts), key=len))
        ways = 0
        for part in parts:
            overlapping = sum(1 for other in parts if other is not part and other.first & part.first)
            ways = max(ways, overlapping + 1)
            whole.first |= part.first
            whole.last |= part.last
        whole.choices = min(_CAP, ways * max(part.choices for part in parts))
        return whole

    def repeat(self, possessive: bool, low: int, high: int, inner: t.Any) -> _Part:
        if high is sre.MAXREPEAT:
            raise ExpressionError("repeats without an upper bound: write {0,50} for * and {1,50} for +, with the bound that fits")
        body = self.sequence(inner)
        whole = _Part(body.least * low, body.most * high, body.first, body.last, body.choices, possessive)
        whole.sample = (body.sample * high)[:2048]
        if high > 1:
            choices = body.choices
            if body.nullable or any(self.follow[position] & body.first for position in body.last):
                choices *= max(2, body.spread)
            # Capped before it is raised: no number here needs more than 62 bits.
            whole.choices = min(_CAP, choices ** min(high, 62)) if choices > 1 else 1
            # After the last of a fixed number there is no other one to choose.
            for position in body.last if low < high else ():
                self.follow[position] |= body.first
        return whole


def beginnings(expression: str, flags: int = re.ASCII, most: int = 512) -> set[str]:
    """Return texts of which every match of *expression* begins with one, in small letters; ``{""}`` when that says nothing."""
    return _beginnings(parser.parse(expression, flags), most)[0]


def _beginnings(items: t.Iterable[tuple[t.Any, t.Any]], most: int) -> tuple[set[str], bool]:
    """Return the beginnings, and whether they are all of what *items* match."""
    found = {""}
    for op, argument in items:
        more: set[str]
        whole = True
        if op is sre.LITERAL:
            more = {chr(argument).lower()}
        elif op is sre.IN and all(kind is sre.LITERAL for kind, _value in argument):
            more = {chr(code).lower() for _kind, code in argument}
        elif op is sre.SUBPATTERN:
            more, whole = _beginnings(argument[3], most)
        elif op is sre.BRANCH:
            parts = [_beginnings(one, most) for one in argument[1]]
            more, whole = set().union(*(part for part, _all in parts)), all(complete for _part, complete in parts)
        elif op in (sre.MAX_REPEAT, sre.MIN_REPEAT) and argument[:2] == (0, 1):
            more, whole = _beginnings(argument[2], most)
            more = more | {""}
        elif op in (sre.ASSERT, sre.ASSERT_NOT, sre.AT):
            continue
        else:
            return found, False
        if len(found) * len(more) > most:
            return found, False
        found = {one + other for one in found for other in more}
        if not whole:
            return found, False
    return found, True


def _try(pattern: re.Pattern[str], sets: t.Iterable[int], sample: str, most: int) -> None:
    """Run *pattern* on texts that keep it busy, short ones first; raises ExpressionError when one takes too long."""
    chars = dict.fromkeys(_char_of(mask) for mask in sorted(sets))
    busy = [*list(chars)[:8], *(sample[:size] for size in (2, 3, 4, 6, 8, 16, len(sample) // 2, len(sample) - 1, len(sample)))]
    length = 32
    # Doubled, so that what grows fast is known while it is still short.
    while length < max(2048, min(2 * most, TRIAL_LENGTH)):
        length *= 2
        for unit in dict.fromkeys(filter(None, busy)):
            text = (unit * (length // len(unit) + 1))[:length]
            # What is sound stays far below the limit, so that only another load on the machine makes it try again.
            if all((taken := _taken(pattern, text)) > TRIAL_TIME * length for _round in range(5)):
                raise ExpressionError(f"takes too long: {taken * 1000:.0f} ms for {length} characters such as {text[:12]!r}…")


def _taken(pattern: re.Pattern[str], text: str) -> float:
    start = time.thread_time()
    for _match in pattern.finditer(text):
        pass
    return time.thread_time() - start
