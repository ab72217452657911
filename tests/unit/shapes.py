# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Secrets and personal data made from the shapes that the rules declare, by the rules' text alone."""

from __future__ import annotations

import collections
import functools
import math
import random
import re
import string
import typing as t

from re import _constants as sre  # type: ignore[attr-defined] # isort: skip
from re import _parser as parser  # type: ignore[attr-defined] # isort: skip

ALNUM = string.ascii_letters + string.digits
VISIBLE = "".join(chr(code) for code in range(33, 127))
CLASSES = {
    sre.CATEGORY_DIGIT: set(string.digits),
    sre.CATEGORY_SPACE: set(" "),
    sre.CATEGORY_WORD: set(ALNUM + "_"),
    sre.CATEGORY_NOT_SPACE: set(VISIBLE),
    sre.CATEGORY_NOT_DIGIT: set(VISIBLE) - set(string.digits),
    sre.CATEGORY_NOT_WORD: set(VISIBLE) - set(ALNUM + "_"),
}


IBANS = (
    ("DE", "9" * 18),
    ("GB", "A" * 4 + "9" * 14),
    ("FR", "9" * 10 + "A" * 11 + "99"),
    ("NO", "9" * 11),
    ("MT", "A" * 4 + "9" * 5 + "A" * 18),
)


def text_of(rng: random.Random, items: t.Iterable[tuple[t.Any, t.Any]]) -> str:
    """Return a random text of the parsed expression *items*; assertions are left to chance."""
    return "".join(_one(rng, op, argument) for op, argument in items)


def _one(rng: random.Random, op: t.Any, argument: t.Any) -> str:
    if op is sre.LITERAL:
        return chr(argument)
    if op is sre.NOT_LITERAL:
        return rng.choice(sorted(set(VISIBLE) - {chr(argument)}))
    if op is sre.ANY:
        return rng.choice(ALNUM)
    if op is sre.IN:
        return rng.choice(_members(tuple(argument)))
    if op is sre.BRANCH:
        return text_of(rng, rng.choice(argument[1]))
    if op is sre.SUBPATTERN:
        return text_of(rng, argument[3])
    if op is sre.ATOMIC_GROUP:
        return text_of(rng, argument)
    if op in (sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT):
        low, high, inner = argument
        count = rng.randint(low, min(high, low + rng.choice((1, 4, 24))))
        return "".join(text_of(rng, inner) for _number in range(count))
    return ""


@functools.cache
def _members(items: tuple[tuple[t.Any, t.Any], ...]) -> list[str]:
    found: set[str] = set()
    negated = False
    for op, argument in items:
        if op is sre.NEGATE:
            negated = True
        elif op is sre.LITERAL:
            found.add(chr(argument))
        elif op is sre.RANGE:
            found |= {chr(code) for code in range(argument[0], argument[1] + 1)}
        else:
            found |= CLASSES[argument]
    return sorted(set(VISIBLE) - found if negated else found)


def bits(text: str) -> float:
    """Return the entropy of *text* in bits a character."""
    return -sum(count / len(text) * math.log2(count / len(text)) for count in collections.Counter(text).values())


def _weighted(number: str) -> int:
    # Every other digit from the right counts twice, its two digits added up.
    return sum(int(one) for place, char in enumerate(reversed(number)) for one in str(int(char) * (1 + place % 2)))


def card(rng: random.Random) -> str:
    """Return a card number: an issuer's first digits, random ones, and the digit that makes the weighted sum right."""
    first, size = rng.choice((("4", 16), ("51", 16), ("2221", 16), ("37", 15), ("6011", 16), ("4", 13), ("3530", 16), ("62", 19)))
    digits = first + "".join(rng.choice(string.digits) for _number in range(size - len(first) - 1))
    last = next(digit for digit in string.digits if _weighted(digits + digit) % 10 == 0)
    number = digits + last
    blank = rng.choice(("", " ", "-"))
    cuts = (4, 10) if size == 15 else (4, 8, 12, 16)
    return blank.join(number[begin:end] for begin, end in zip((0, *cuts), (*cuts, size), strict=True) if begin < end)


def iban(rng: random.Random) -> str:
    """Return an account number whose check digits are 98 less the remainder by 97, as the standard says."""
    country, shape = rng.choice(IBANS)
    body = "".join(rng.choice(string.digits if char == "9" else string.ascii_uppercase) for char in shape)
    number = int("".join(str(string.digits.find(char) if char in string.digits else ord(char) - 55) for char in body + country + "00"))
    whole = f"{country}{98 - number % 97:02d}{body}"
    return whole if rng.random() < 0.5 else " ".join(whole[place : place + 4] for place in range(0, len(whole), 4))


def sample(rng: random.Random, rule: dict[str, t.Any], allowed: t.Sequence[str]) -> tuple[str, str]:
    """Return (text, secret) that *rule* declares: random texts are drawn until its assertions, entropy and allowlist agree."""
    if made := {"card": card, "iban": iban}.get(rule.get("check", "")):
        number = made(rng)
        return number, number
    pattern = re.compile(rule["regex"], re.ASCII)
    tree = parser.parse(rule["regex"], re.ASCII)
    refused = [re.compile(one) for one in [*allowed, *rule.get("allowlist", {}).get("regexes", [])]]
    for _try in range(2000):
        text = text_of(rng, tree)
        match = pattern.fullmatch(text)
        if match is None:
            continue
        secret = next((group for group in match.groups() if group), match[0])
        # A backslash at the end would escape what stands behind the secret, and a full stop behind it lowers its entropy.
        if not secret.endswith("\\") and bits(secret) >= rule.get("entropy", -1) + 0.2 and not any(one.search(secret) for one in refused):
            return text, secret
    raise AssertionError(f"no text of the shape of {rule['id']} was found")
