# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Secrets and personal data out of an event, before it is hashed and written.

What is found is replaced by ``[REDACTED:kind:pseudonym]``. The rules are data (``logging_rules`` in configs/logging.yml,
described in docs/redaction.md). An event is looked at as a whole: a cheap search for keywords over all of its texts
decides which rules' expressions run at all, and for most events none does.
"""

from __future__ import annotations

import binascii
import bisect
import dataclasses
import itertools
import math
import re
import time
import typing as t
from pathlib import Path

from ansible_collections.dockersandbox.guardrails.plugins.module_utils import expressions, known_secrets, pseudonyms

MARK = re.compile(r"\[REDACTED:[a-z0-9-]{1,48}:[0-9a-f]{12}\]", re.ASCII)
HOST_SECRET = "host-secret"  # noqa: S105 - what a hit is called
UNCHECKED = "unchecked"

MOST_DEPTH = 64
# Characters looked at for one event, each expression's run over a text counted, and what a match costs: about a second.
WORK = 24 << 20
_MATCH_WORK = 100
_HIT_WORK = 400
_PLACE_WORK = 8
ROUNDS = 6
_DECODED = 3  # codings inside each other
_VIEWS = 24  # readings of one text
_SHORT = 40  # texts up to this length are remembered when nothing is in them
_REMEMBERED = 4096
_BIG_INT = 10**11

_RULE_KEYS = {
    "id": str,
    "description": str,
    "regex": str,
    "keywords": list,
    "shapes": list,
    "entropy": (int, float),
    "secret_group": int,
    "allowlist": dict,
    "check": str,
    "personal": bool,
    "base64": bool,
    "field": str,
    "enabled": bool,
}
_ID = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,46}[a-z0-9])?", re.ASCII)


class RedactionError(ValueError):
    """Rules cannot be used, or an event cannot be looked at; each of *problems* is one line."""

    def __init__(self, problems: t.Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = list(problems)


class _TooMuch(Exception):
    """The work that one event may cause is done."""


# --- check digits


def card(text: str) -> int:
    """Return how much of *text* from its start is a card number with its check digit (ISO/IEC 7812-1), or 0.

    Of several lengths that would do, one that ends where a group of digits does; the longest of these.
    """
    places = [place for place, char in enumerate(text) if char.isdigit()]
    digits = [int(text[place]) for place in places]
    for size in range(min(19, len(digits)), 11, -1):
        whole_group = size == len(digits) or places[size] > places[size - 1] + 1
        doubled = (sum(divmod(2 * digit, 10)) for digit in digits[size - 2 :: -2])
        if whole_group and len(set(digits[:size])) > 1 and (sum(doubled) + sum(digits[size - 1 :: -2])) % 10 == 0:
            return places[size - 1] + 1
    return 0


def iban(text: str) -> int:
    """Return how much of *text* from its start is an account number with its check digits (ISO 13616), or 0."""
    places = [place for place, char in enumerate(text) if not char.isspace()]
    plain = "".join(text[place] for place in places)
    size = _IBAN_SIZES.get(plain[:2], len(plain))
    sound = 15 <= size <= len(plain) and int("".join(str(int(char, 36)) for char in plain[4:size] + plain[:4])) % 97 == 1
    return places[size - 1] + 1 if sound else 0


# The lengths in the registry of ISO 13616.
_IBAN_SIZES = {
    country: size
    for size, countries in {
        15: "NO",
        16: "BE",
        18: "DK FI FK FO GL NL SD",
        19: "MK SI",
        20: "AT BA EE KZ LT LU MN XK",
        21: "CH HR LI LV",
        22: "BG BH CR DE GB GE IE ME RS VA",
        23: "AE GI IL IQ OM SO TL",
        24: "AD CZ ES MD PK RO SA SE SK TN VG",
        25: "LY PT ST",
        26: "IS TR",
        27: "BI DJ FR GR IT MC MR SM",
        28: "AL AZ BY CY DO GT HN HU LB NI PL SV",
        29: "BR EG PS QA UA",
        30: "JO KW MU YE",
        31: "MT SC",
        32: "LC",
        33: "RU",
    }.items()
    for country in countries.split()
}

CHECKS: dict[str, t.Callable[[str], int]] = {"card": card, "iban": iban}


def entropy(text: str) -> float:
    """Return Shannon's entropy of the characters of *text*, in bits a character."""
    size = len(text)
    return -sum(count / size * math.log2(count / size) for count in map(text.count, set(text))) if size else 0.0


# --- rules


@dataclasses.dataclass(frozen=True)
class Rule:
    """One rule, checked and compiled; the fields are those of the configuration."""

    id: str
    pattern: re.Pattern[str] | None = None
    keywords: tuple[str, ...] = ()
    shapes: tuple[str, ...] = ()
    entropy: float = 0.0
    secret_group: int = 0
    allowed: tuple[re.Pattern[str], ...] = ()
    stopwords: tuple[str, ...] = ()
    check: t.Callable[[str], int] | None = None
    group: str = "secret"
    base64: bool = False
    field: re.Pattern[str] | None = None
    leads: bool = False  # every match begins with one of the keywords

    def accepted(self, secret: str) -> int:
        """Return how much of *secret*, found by the expression, is one: 0 when it is allowed, too regular, or fails its check."""
        if (self.entropy and entropy(secret) < self.entropy) or self.allows(secret):
            return 0
        return self.check(secret) if self.check else len(secret)

    def allows(self, secret: str) -> bool:
        """Return whether the allowlist has *secret*."""
        low = secret.lower()
        return any(word in low for word in self.stopwords) or any(pattern.search(secret) for pattern in self.allowed)


def rules_of(config: t.Mapping[str, t.Any], trial: bool = True) -> list[Rule]:
    """Return the rules of *config* that are switched on; raises RedactionError with a line for each problem, by rule."""
    problems: list[str] = []
    rules: list[Rule] = []
    listed = config.get("logging_rules")
    switched = config.get("logging_rules_enabled") or {}
    if not isinstance(listed, list) or not listed:
        raise RedactionError(["logging_rules: a list of rules is needed; docs/redaction.md describes them"])
    if not isinstance(switched, dict) or any(not isinstance(value, bool) for value in switched.values()):
        raise RedactionError(["logging_rules_enabled: write the id of a rule and true or false, such as ip-address: true"])
    everywhere = _allowlist(config.get("logging_allowlist"), "logging_allowlist", problems, trial)
    ids: set[str] = set()
    for number, entry in enumerate(listed, 1):
        name = entry.get("id") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not _ID.fullmatch(name) or name in (HOST_SECRET, UNCHECKED):
            problems.append(f"logging_rules: rule {number} has no usable id (small letters, digits and -, at most 48): {name!r}")
        elif name in ids:
            problems.append(f"logging_rules: {name} is there twice: give one another id")
        else:
            ids.add(name)
            rule = _rule(entry, everywhere, problems, trial)
            if rule and switched.get(name, entry.get("enabled", True)):
                rules.append(rule)
    problems += [f"logging_rules_enabled: there is no rule {name!r}" for name in switched if name not in ids]
    if problems:
        raise RedactionError(problems)
    return rules


_Allowlist = tuple[tuple[re.Pattern[str], ...], tuple[str, ...]]


def _rule(entry: t.Mapping[str, t.Any], everywhere: _Allowlist, problems: list[str], trial: bool) -> Rule | None:
    where = f"logging_rules: {entry['id']}"
    before = len(problems)
    for key, value in entry.items():
        kind: t.Any = _RULE_KEYS.get(key)
        if kind is None:
            problems.append(f"{where}: {key!r} is no part of a rule; these are: {', '.join(_RULE_KEYS)}")
        elif not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            problems.append(f"{where}: {key} is {value!r}, which is of the wrong type")
    if len(problems) > before:
        return None
    if "regex" not in entry and "field" not in entry:
        problems.append(f"{where}: has neither regex nor field")
    words = {key: tuple(entry.get(key, ())) for key in ("keywords", "shapes")}
    for key, values in words.items():
        if any(not isinstance(word, str) or not 1 <= len(word) <= 64 for word in values):
            problems.append(f"{where}: {key} are texts of 1 to 64 characters")
        elif key == "keywords" and any(word != word.lower() or "\n" in word for word in values):
            problems.append(f"{where}: keywords are in small letters")
    if "regex" in entry and not any(words.values()):
        problems.append(f"{where}: needs keywords (or shapes), without which its expression would run on every text")
    check = entry.get("check")
    if check is not None and check not in CHECKS:
        problems.append(f"{where}: there is no check {check!r}; there are: {', '.join(CHECKS)}")
    pattern = _pattern(entry.get("regex"), f"{where}: regex", problems, trial)
    group = entry.get("secret_group", 0)
    if pattern is not None and not 0 <= group <= pattern.groups:
        problems.append(f"{where}: secret_group is {group}, but regex has {pattern.groups} groups")
    field = _pattern(entry.get("field"), f"{where}: field", problems, trial)
    allowed, stopwords = _allowlist(entry.get("allowlist"), f"{where}: allowlist", problems, trial)
    if len(problems) > before:
        return None
    return Rule(
        id=entry["id"],
        pattern=pattern,
        keywords=words["keywords"],
        shapes=words["shapes"],
        entropy=float(entry.get("entropy", 0)),
        secret_group=group,
        allowed=allowed + everywhere[0],
        stopwords=stopwords + everywhere[1],
        check=CHECKS[check] if check else None,
        group="personal" if entry.get("personal") else "secret",
        base64=entry.get("base64", False),
        field=field,
        leads=pattern is not None and all(one.startswith(words["keywords"]) for one in expressions.beginnings(pattern.pattern)),
    )


def _pattern(expression: t.Any, where: str, problems: list[str], trial: bool) -> re.Pattern[str] | None:
    if expression is None:
        return None
    try:
        return expressions.compile_checked(expression, trial=trial)
    except expressions.ExpressionError as error:
        problems.append(f"{where} {error}")
        return None


def _allowlist(entry: t.Any, where: str, problems: list[str], trial: bool) -> _Allowlist:
    entry = {} if entry is None else entry
    sound = isinstance(entry, dict) and set(entry) <= {"regexes", "stopwords"}
    if not sound or any(not isinstance(one, list) or any(not isinstance(text, str) for text in one) for one in entry.values()):
        problems.append(f"{where}: is a mapping with regexes and stopwords, both lists of texts")
        return (), ()
    found = [_pattern(text, f"{where}: {text!r}", problems, trial) for text in entry.get("regexes", ())]
    return tuple(one for one in found if one), tuple(word.lower() for word in entry.get("stopwords", ()))


_FIELD_NAME = re.compile(r"[A-Za-z0-9_. -]{1,64}", re.ASCII).fullmatch


# --- which rules a text needs

_SHAPE = bytes(
    ord("0" if chr(code).isdigit() else "A" if chr(code).isupper() else "a" if chr(code).islower() else "-" if chr(code) in " .-\t\r\n" else chr(code))
    if code < 128
    else ord("?")
    for code in range(256)
)


_HEX = re.compile(r"[0-9a-f-]+", re.ASCII).fullmatch
_DIGEST = re.compile(r"[0-9a-f]{32,128}", re.ASCII).fullmatch


class _Prefilter:
    """One search for the keywords of all rules: a trie as an expression, a fifth of the time of a plain alternation."""

    def __init__(self, rules: t.Sequence[Rule]) -> None:
        self.rules_of: dict[str, set[int]] = {}
        self.shapes: dict[bytes, set[int]] = {}
        for number, rule in enumerate(rules):
            for word in rule.keywords:
                self.rules_of.setdefault(word, set()).add(number)
            for shape in rule.shapes:
                self.shapes.setdefault(shape.encode(), set()).add(number)
        # Words with blanks, and such as may be in a digest, are looked for one by one.
        self.apart = [word for word in self.rules_of if " " in word or _HEX(word)]
        # A digest has digits and some letters, and nothing else.
        self._in_digests = [word for word in self.apart if word.isalnum()], [shape for shape in self.shapes if not shape.strip(b"0a")]
        # Parts of texts (between blanks) that have no keyword: most parts of most events are met again and again.
        self.quiet: set[str] = set()
        words = sorted(set(self.rules_of).difference(self.apart))
        self.search = re.compile(_trie(words)).findall if words else None
        # The search finds words that do not overlap, the longest first. What may hide in or begin in one:
        self.within: dict[str, set[str]] = {}
        self.beside: dict[str, list[str]] = {}
        for word in words:
            self.within[word] = {other for other in words if other in word}
            ends = {word[start:] for start in range(1, len(word))}
            self.beside[word] = [other for other in words if other not in word and any(other.startswith(end) for end in ends)]

    def words(self, text: str) -> tuple[set[str], list[bytes]]:
        """Return the keywords and the shapes that are in *text*."""
        low = text.lower()
        found = {word for word in self.apart if word in low}
        new = [one for one in set(low.split()).difference(self.quiet) if not _DIGEST(one)]
        if new and self.search is not None:
            for word in set(self.search("\n".join(new))):
                found |= self.within[word]
                found.update(other for other in self.beside[word] if other in low)
            if len(self.quiet) > _REMEMBERED:
                self.quiet.clear()
            self.quiet.update(one for one in new if len(one) <= _SHORT and not any(word in one for word in found))
        coded = _shape(text)
        return found, [shape for shape in self.shapes if shape in coded]

    def in_digests(self, text: str) -> bool:
        """Return whether *text*, digests with line ends between them, has any of these: what :meth:`words` says in a quarter of the time."""
        words, shapes = self._in_digests
        return any(map(text.__contains__, words)) or any(map(_shape(text).__contains__, shapes))

    def among(self, words: tuple[set[str], list[bytes]], text: str) -> set[int]:
        """Return the numbers of the rules that those of *words* call for that are in *text*."""
        found: set[int] = set()
        if words[0]:
            low = text.lower()
            for word in words[0]:
                if word in low:
                    found |= self.rules_of[word]
        if words[1]:
            coded = _shape(text)
            for shape in words[1]:
                if shape in coded:
                    found |= self.shapes[shape]
        return found


def _shape(text: str) -> bytes:
    return text.encode("ascii", "replace").translate(_SHAPE, b"()")


def _trie(words: t.Iterable[str]) -> str:
    tree: dict[str, t.Any] = {}
    for word in words:
        node = tree
        for char in word:
            node = node.setdefault(char, {})
        node[""] = {}
    return _trie_text(tree)


def _trie_text(node: dict[str, t.Any]) -> str:
    branches = [re.escape(char) + _trie_text(below) for char, below in sorted(node.items()) if char]
    if not branches:
        return ""
    text = branches[0] if len(branches) == 1 and "" not in node else f"(?:{'|'.join(branches)})"
    return f"{text}?" if "" in node else text


# --- how else a text can be read

_JSON = re.compile(r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}|[\"'\\/bfnrt])", re.ASCII)
_JSON_SHORT = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_URL = re.compile(r"(?:%[89a-fA-F][0-9a-fA-F])+|%[0-7][0-9a-fA-F]", re.ASCII)
# In a list, the next text that is an option or a setting is no part of the text before.
_OPTION = re.compile(r"--?[A-Za-z]?[a-z][a-z0-9-]*(?=[\s=]|$)|-[A-Z](?=\s|$)|--", re.ASCII)
_SETTING = re.compile(r"[\w.-]{1,64}(?:[ \t]{0,4}:|(?:=|[ \t]{1,4}=[ \t]{0,4})[\"']?[\w$/{<\[-])", re.ASCII)
# What a token that was complete on its line may have taken from the next: a word, the name of a setting, an option.
_WORD = re.compile(r"[\s\\]*[A-Za-z]?[a-z]{0,6}", re.ASCII)
_NAME = re.compile(r"[\s\\]*[\w.-]{1,64}", re.ASCII)
_NEXT_OPTION = re.compile(r"[\s\\]*(?:--?[a-z]|(?:[A-Z][A-Z_]{2,40}|[a-z][a-z_.-]{2,40})[=:])", re.ASCII)
# Between two words of prose there is no token.
_PROSE_END = re.compile(r"(?:^|[\s(\"'])[A-Za-z]?[a-z]{0,20}[.:]?$", re.ASCII)
_PROSE = re.compile(r"[A-Za-z]?[a-z]{0,20}[.,:;)\"'?!]{0,3}(?:\s|$)", re.ASCII)
_IN_TOKEN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_+/=.~%@:-")
_BASE64 = re.compile(r"(?<![A-Za-z0-9+/_-])([A-Za-z0-9+/_-]{20,})={0,2}", re.ASCII)
_PRINTED = re.compile(rb"(?:[\x20-\x7e\n\r\t]|[\xc3-\xdf][\x80-\xbf]|[\xe1-\xef][\x80-\xbf]{2}){12,}")

_Piece = tuple[int, int, int, int]


@dataclasses.dataclass(frozen=True)
class _View:
    """A text read in another way, with where each of its pieces came from: (start, end) here, (start, end) there."""

    text: str
    pieces: list[_Piece]
    parent: _View | None
    how: str = ""  # escapes, breaks or base64
    coded: bool = False  # under base64, here or before

    def source(self, start: int, end: int) -> tuple[int, int]:
        """Return the span in the first text that the span (*start*, *end*) of this one was read from."""
        if self.parent is None:
            return start, end
        begin = self.pieces[bisect.bisect_right(self.pieces, start, key=lambda piece: piece[1])]
        last = self.pieces[bisect.bisect_left(self.pieces, end, key=lambda piece: piece[0]) - 1]
        plain = begin[1] - begin[0] == begin[3] - begin[2]
        first = begin[2] + (start - begin[0] if plain else 0)
        plain = last[1] - last[0] == last[3] - last[2]
        return self.parent.source(first, last[3] - (last[1] - end if plain else 0))


_Reading = tuple[str, list[_Piece]]


def _pieced(parts: t.Iterable[tuple[str, int, int]]) -> _Reading:
    """Return the text made of *parts*: what is read, and from where to where it was read."""
    out: list[str] = []
    pieces: list[_Piece] = []
    here = 0
    for part, begin, end in parts:
        if part:
            out.append(part)
            pieces.append((here, here + len(part), begin, end))
            here += len(part)
    return "".join(out), pieces


def _substituted(text: str, pattern: re.Pattern[str], replace: t.Callable[[str], str]) -> t.Iterator[_Reading]:
    parts: list[tuple[str, int, int]] = []
    there = 0
    for match in pattern.finditer(text):
        parts.append((text[there : match.start()], there, match.start()))
        parts.append((replace(match[0]), match.start(), match.end()))
        there = match.end()
    if there:
        yield _pieced([*parts, (text[there:], there, len(text))])


def _from_json(found: str) -> str:
    kind, digits = found[1], found[2:]
    if kind not in "ux":
        return _JSON_SHORT.get(kind, kind)
    if len(digits) > 4:  # a pair of surrogates
        return chr(0x10000 + ((int(digits[:4], 16) & 0x3FF) << 10) + (int(digits[6:], 16) & 0x3FF))
    return chr(int(digits, 16))


def _from_url(found: str) -> str:
    return bytes.fromhex(found.replace("%", "")).decode("utf-8", "replace")


def _own_line(text: str, start: int, end: int) -> bool:
    """Return whether what a hit took from the next line, *start* to *end* of *text*, is likely to be something else."""
    tail = text[start:end]
    named = text[end : end + 8].lstrip(" \t")[:1]
    return bool(_WORD.fullmatch(tail) or (named in ("=", ":") and _NAME.fullmatch(tail)) or _NEXT_OPTION.match(tail))


def _breaks(text: str, listed: bool) -> list[tuple[int, int, int]]:
    """Return the line breaks of *text* that may be inside of a token: the number of the line, and from where to where.

    *listed*: the lines are the texts of a list.
    """
    breaks = []
    there = 0
    for number, (line, following) in enumerate(itertools.pairwise(text.split("\n"))):
        left, right = line.rstrip(" \t\r\\"), following.lstrip(" \t")
        start, there = there + len(left), there + len(line) + 1
        if not left or not right or left[-1] not in _IN_TOKEN or right[0] not in _IN_TOKEN or (_PROSE_END.search(left) and _PROSE.match(right)):
            continue
        if not listed or not (_OPTION.match(right) or _OPTION.fullmatch(left) or _SETTING.match(right)):
            breaks.append((number, start, there + len(following) - len(right)))
    return breaks


def _without_breaks(text: str, listed: bool) -> t.Iterator[_Reading]:
    """Yield the lines of *text* that may have a token broken between them, joined: at all such breaks, and at every other one.

    The latter since a token of two lines may end where the next line begins with a letter.
    """
    breaks = _breaks(text, listed)
    starts = list(itertools.accumulate((len(line) + 1 for line in text.split("\n")), initial=0)) if breaks else []
    for chosen in (breaks, breaks[::2], breaks[1::2]) if len(breaks) > 1 else (breaks,) if breaks else ():
        parts = []
        # With a few lines before, since the name of what is broken may be there.
        begin = starts[max(0, chosen[0][0] - 3)]
        for (number, start, end), later in itertools.zip_longest(chosen, chosen[1:]):
            parts.append((text[begin:start], begin, start))
            begin = end
            if later is None or later[0] > number + 1:
                # The last of the lines that belong together, with its own break.
                stop = min(starts[number + 2], len(text))
                parts.append((text[begin:stop], begin, stop))
                begin = max(stop, starts[max(0, later[0] - 3)]) if later else stop
        yield _pieced(parts)


def _from_base64(text: str) -> t.Iterator[_Reading]:
    parts: list[tuple[str, int, int]] = []
    for match in _BASE64.finditer(text):
        run = match[1].translate(_STANDARD)
        if run.islower() or run.isupper() or run.isdigit():
            continue  # digests, ids, paths and words: of text in base64 each three bytes have a capital nearly always
        for offset in range(4):
            part = run[offset : len(run) - (len(run) - offset) % 4] + _rest(run, offset)
            for printed in _PRINTED.finditer(binascii.a2b_base64(part)):
                parts.append((printed[0].decode("utf-8", "replace") + "\n", match.start(), match.end()))
    if parts:
        yield _pieced(parts)


_STANDARD = str.maketrans("-_", "+/")


def _rest(run: str, offset: int) -> str:
    """Return the last, incomplete group of *run*, padded; one character alone says nothing."""
    left = (len(run) - offset) % 4
    return run[len(run) - left :] + "=" * (4 - left) if left > 1 else ""


def _views(text: str, listed: bool) -> list[_View]:
    """Return the readings of *text*, itself first: escapes, URL codes, broken lines and base64 undone, three deep."""
    views = [_View(text, [], None)]
    seen = {text}
    begin = 0
    for _depth in range(_DECODED):
        level = views[begin:]
        begin = len(views)
        for view in level:
            for (found, pieces), how in _readings(view, listed and view.parent is None):
                if found not in seen and len(views) < _VIEWS:
                    seen.add(found)
                    views.append(_View(found, pieces, view, how, view.coded or how == "base64"))
    return views


def _readings(view: _View, listed: bool) -> t.Iterator[tuple[_Reading, str]]:
    text = view.text
    # What joins lines comes after what makes them.
    if view.how != "breaks":
        if "\\" in text:
            yield from ((found, "escapes") for found in _substituted(text, _JSON, _from_json))
        if "%" in text:
            yield from ((found, "escapes") for found in _substituted(text, _URL, _from_url))
        if "\n" in text:
            yield from ((found, "breaks") for found in _without_breaks(text, listed))
    if len(text) >= 20 and not text.islower() and not text.isupper():
        yield from ((found, "base64") for found in _from_base64(text))


def _has_readings(text: str) -> bool:
    if "\\" in text or "%" in text or "\n" in text:
        return True
    return len(text) >= 20 and not text.islower() and not text.isupper() and _BASE64.search(text) is not None


# --- events


class _Hit(t.NamedTuple):
    start: int
    end: int
    rule: int
    secret: str


class _Leaves:
    """The texts of an event in the order of a walk, which fields' names make secrets, and the lists of texts."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.named: list[tuple[int, int]] = []
        self.lists: list[list[int]] = []


class Redactor:
    """Takes secrets and personal data out of events. Not for several threads at once."""

    def __init__(self, rules: t.Sequence[Rule], names: pseudonyms.Pseudonyms, known: known_secrets.KnownSecrets) -> None:
        self.rules = [Rule(HOST_SECRET), *rules, Rule(UNCHECKED)]
        self.pseudonyms = names
        self._known = known
        self._prefilter = _Prefilter(self.rules)
        self._fields = [(number, rule.field) for number, rule in enumerate(self.rules) if rule.field is not None]
        self._field_cache: dict[str, int] = {}
        self._clean: set[str] = set()
        # Names of fields that are clean, and make no secret of what they hold.
        self._usual: set[str] = set()
        self._work = 0

    @classmethod
    def load(cls, config: t.Mapping[str, t.Any], keys_folder: Path, now: t.Callable[[], float] = time.time, trial: bool = True) -> Redactor:
        """Return the redactor that *config* (``logging_rules`` …) describes, with its keys below *keys_folder*.

        *now* gives seconds since 1970. *trial* also runs each expression on texts made to keep it busy (0.5 s in all).
        Raises RedactionError, KnownSecretsError, OSError.
        """
        rules = rules_of(config, trial)
        return cls(rules, pseudonyms.Pseudonyms(keys_folder / "pseudonyms", now), known_secrets.KnownSecrets(keys_folder))

    def forget(self, until: str, groups: t.Collection[str] = pseudonyms.GROUPS) -> list[str]:
        """Forget whom the pseudonyms of the months up to *until* stand for; see :func:`pseudonyms.forget`."""
        return self.pseudonyms.forget(until, groups)

    def __call__(self, event: dict[str, t.Any]) -> tuple[dict[str, t.Any], dict[str, int]]:
        """Return *event* without secrets, and how many of each kind were replaced; *event* itself is not changed.

        What was redacted is left as it is, so doing it twice changes nothing. Raises RedactionError for an event
        nested deeper than 64, PseudonymError and OSError when a key cannot be had: then nothing may be written.
        """
        self.look()
        return self.redacted(event)

    def look(self) -> None:
        """Go by the host's secrets as they are now. Raises KnownSecretsError, OSError."""
        if self._known.changed():
            self._forget_clean()

    def redacted(self, event: dict[str, t.Any]) -> tuple[dict[str, t.Any], dict[str, int]]:
        """Do what a call does with an *event* that was there before the last :meth:`look`: one for many that came together."""
        counts: dict[str, int] = {}
        self._work = WORK
        if self._nothing_in(event):
            return event, {}
        hits: dict[int, list[_Hit]] | None = None
        for turn in range(ROUNDS):
            leaves = _Leaves()
            self._collect(event, -1, leaves, 0)
            # Again only what was changed, until nothing is found in it.
            hits = self._find(leaves, hits)
            if not hits:
                break
            # What does not settle, or is too much to look through, is replaced as a whole.
            whole = self._work < 0 or turn == ROUNDS - 1
            changed = {number: self._replaced(leaves.texts[number], found, counts, whole) for number, found in hits.items()}
            event = _rebuilt(event, changed, [0])
            if whole:
                break
        return event, counts

    # --- what nearly all events are: without anything that a rule asks for

    def _nothing_in(self, event: dict[str, t.Any]) -> bool:
        """Return whether *event* has certainly no secret; the whole way to say so takes more than twice as long."""
        new: list[str] = []
        if not self._only_plain(event, new, 0):
            return False
        # A digest can be read in no other way, and is not met again.
        digests: list[str] = []
        other: list[str] = []
        for one in new:
            (digests if _DIGEST(one) else other).append(one)
        if digests and self._prefilter.in_digests("\n".join(digests)):
            return False
        if other:
            words, shapes = self._prefilter.words("\n".join(other))
            if words or shapes or any(map(_has_readings, other)):
                return False
        if new and next(self._known.find("\n".join(new)), None) is not None:
            return False
        self._remember(other)
        return True

    def _only_plain(self, value: dict[str, t.Any], new: list[str], depth: int) -> bool:
        """Add the texts in *value* that are not known as clean to *new*; return False for what these alone do not decide on."""
        if depth > MOST_DEPTH or "value" in value or "Value" in value:
            return False
        clean, fields, usual = self._clean, self._field_cache, self._usual
        for key, item in value.items():
            if key not in usual:
                if fields.get(key, 0) >= 0:
                    return False
                if key in clean:
                    usual.add(key)
                else:
                    new.append(key)
            kind = type(item)
            if kind is str:
                if item not in clean:
                    new.append(item)
            elif kind is bool or item is None:
                continue
            elif kind is int:
                if not -_BIG_INT < item < _BIG_INT:
                    return False
            elif kind is not dict or not self._only_plain(item, new, depth + 1):
                return False
        return True

    def _forget_clean(self) -> None:
        self._clean.clear()
        self._usual.clear()

    def _remember(self, texts: t.Iterable[str]) -> None:
        """Know these texts, in which nothing is, when they come again."""
        if len(self._clean) >= _REMEMBERED:
            self._forget_clean()
        self._clean.update(text for text in texts if len(text) <= _SHORT)

    # --- the walk: _collect and _rebuilt meet the same texts in the same order

    def _collect(self, value: t.Any, field: int, leaves: _Leaves, depth: int) -> None:
        kind = type(value)
        if kind is str:
            if field >= 0:
                leaves.named.append((len(leaves.texts), field))
            leaves.texts.append(value)
        elif kind is dict:
            if depth > MOST_DEPTH:
                raise RedactionError([f"the event is nested deeper than {MOST_DEPTH}"])
            pair = self._pair(value) if "value" in value or "Value" in value else -1
            for key, item in value.items():
                leaves.texts.append(key)
                known = self._field_cache.get(key)
                if known is None:
                    known = self._field(key)
                if pair >= 0 and key in ("value", "Value"):
                    known = pair
                self._collect(item, known, leaves, depth + 1)
        elif kind is list or kind is tuple:
            if depth > MOST_DEPTH:
                raise RedactionError([f"the event is nested deeper than {MOST_DEPTH}"])
            option = -1
            together = []
            for item in value:
                if isinstance(item, str):
                    together.append(len(leaves.texts))
                    self._collect(item, field if field >= 0 else -1 if item.startswith("--") else option, leaves, depth)
                    option = self._field(item.lstrip("-")) if item.startswith("-") else -1
                else:
                    self._collect(item, field, leaves, depth + 1)
            if len(together) > 1:
                leaves.lists.append(together)
        elif kind is int:
            looked = abs(value) >= (1000 if field >= 0 else _BIG_INT)
            if looked and field >= 0:
                leaves.named.append((len(leaves.texts), field))
            leaves.texts.append(str(value) if looked else "")

    def _pair(self, value: dict[str, t.Any]) -> int:
        for key in ("name", "Name", "key", "Key"):
            if isinstance(name := value.get(key), str):
                return self._field(name)
        return -1

    def _field(self, name: str) -> int:
        """Return the number of the rule by which the value of a field or option called *name* is a secret, or -1."""
        if len(name) > 64 or not _FIELD_NAME(name):
            return -1
        known = self._field_cache.get(name)
        if known is None:
            plain = re.sub(r"[^A-Za-z0-9]+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)).lower().strip("_")
            known = next((number for number, field in self._fields if field.search(plain)), -1)
            if len(self._field_cache) >= _REMEMBERED:
                self._field_cache.clear()
            self._field_cache[name] = known
        return known

    # --- finding

    def _find(self, leaves: _Leaves, only: t.Container[int] | None) -> dict[int, list[_Hit]]:
        """Return the hits of each leaf (by its number), in places of its text; *only* in what has to do with these leaves."""
        texts, clean = leaves.texts, self._clean
        units = [(text, [(0, number)]) for number, text in enumerate(texts) if text and text not in clean]
        units += [_joined(texts, together) for together in leaves.lists]
        if only is not None:
            units = [(text, segments) for text, segments in units if any(number in only for _place, number in segments)]
        hits: dict[int, list[_Hit]] = {}
        for number, rule in leaves.named:
            if only is None or number in only:
                self._add_named(hits, number, rule, texts[number])
        blob = "\n".join([unit[0] for unit in units])
        words = self._prefilter.words(blob)
        known = next(self._known.find(blob), None) is not None
        for text, segments in units:
            rules = self._prefilter.among(words, text) if words[0] or words[1] else None
            # The texts of a list are looked at on their own as well.
            readings = bool(_breaks(text, True)) if len(segments) > 1 else _has_readings(text)
            found = self._search(text, rules or set(), readings, len(segments) > 1) if rules or readings or known else []
            for hit in found:
                _spread(hit, segments, texts, hits)
            if not found and len(segments) == 1 and not _DIGEST(text):
                self._remember([text])
        return hits

    def _add_named(self, hits: dict[int, list[_Hit]], number: int, rule: int, text: str) -> None:
        if not self.rules[rule].allows(text):
            for start, end in _outside([mark.span() for mark in MARK.finditer(text)], 0, len(text), text):
                hits.setdefault(number, []).append(_Hit(start, end, rule, text[start:end]))

    def _search(self, text: str, rules: set[int], readings: bool, listed: bool) -> list[_Hit]:
        """Return the hits in *text*, by *rules* and in all of its other *readings*, in its own places."""
        found: list[_Hit] = []
        complete: dict[tuple[int, int], int] = {}
        try:
            for view in _views(text, listed) if readings else [_View(text, [], None)]:
                self._spend(len(view.text))
                for hit in self._hits(view, rules if view.parent is None else None):
                    start, end = view.source(hit.start, hit.end)
                    before = complete.setdefault((hit.rule, start), end)
                    if before >= end or view.coded or not _own_line(text, before, end):
                        found.append(_Hit(start, end, hit.rule, hit.secret))
        except _TooMuch:
            found = [_Hit(0, len(text), len(self.rules) - 1, text)]
        return found

    def _hits(self, view: _View, rules: set[int] | None) -> list[_Hit]:
        text = view.text
        marks = [mark.span() for mark in MARK.finditer(text)] if "[REDACTED:" in text else []
        # Masked, so that no rule takes the words of a mark for its own.
        plain = MARK.sub(lambda mark: "\0" * len(mark[0]), text) if marks else text
        hits = [_Hit(start, end, 0, text[start:end]) for start, end in self._known.find(plain)]
        if rules is None:
            rules = self._prefilter.among(self._prefilter.words(plain), plain)
        for number in sorted(rules):
            rule = self.rules[number]
            if rule.pattern is not None and (rule.base64 or not view.coded):
                hits += self._matches(rule, number, plain, marks)
        return hits

    def _matches(self, rule: Rule, number: int, text: str, marks: list[tuple[int, int]]) -> list[_Hit]:
        found = []
        place = 0
        following = self._following(rule, text)
        while match := following(place):
            # After what is no secret the search goes on inside of it.
            place = match.start() + 1
            group = rule.secret_group or next((index for index, one in enumerate(match.groups(), 1) if one), 0)
            start, end = match.span(group)
            for begin, stop in _outside(marks, start, end, text):
                if size := rule.accepted(text[begin:stop]):
                    found.append(_Hit(begin, begin + size, number, text[begin : begin + size]))
                    place = begin + size
                    self._spend(_HIT_WORK)
            self._spend(_MATCH_WORK + end - start)
        return found

    def _following(self, rule: Rule, text: str) -> t.Callable[[int], re.Match[str] | None]:
        """Return what gives the first match of *rule* in *text* from a place on."""
        pattern = t.cast("re.Pattern[str]", rule.pattern)
        low = text.lower() if rule.leads else ""
        if len(low) != len(text):
            self._spend(len(text))
            return lambda place: pattern.search(text, place)
        # An expression that begins with a keyword is tried where one is: finding these is many times as fast.
        places = sorted({place for word in rule.keywords for place in _places(low, word)})
        self._spend(len(text) // 8 + _PLACE_WORK * len(places))

        def following(place: int) -> re.Match[str] | None:
            for index in range(bisect.bisect_left(places, place), len(places)):
                if match := pattern.match(text, places[index]):
                    return match
            return None

        return following

    def _spend(self, work: int) -> None:
        self._work -= work
        if self._work < 0:
            raise _TooMuch

    # --- replacing

    def _replaced(self, text: str, hits: list[_Hit], counts: dict[str, int], whole: bool) -> str:
        if whole:
            hits = [_Hit(0, len(text), len(self.rules) - 1, text)]
        marks = [] if whole else [mark.span() for mark in MARK.finditer(text)]
        out = []
        place = 0
        for hit in _merged(hits, self.rules):
            for start, end in _outside(marks, hit.start, hit.end, text):
                rule = self.rules[hit.rule]
                out += [text[place:start], f"[REDACTED:{rule.id}:{self.pseudonyms.of(rule.group, hit.secret)}]"]
                counts[rule.id] = counts.get(rule.id, 0) + 1
                place = end
        return "".join(out) + text[place:]


def _places(text: str, word: str) -> t.Iterator[int]:
    place = text.find(word)
    while place >= 0:
        yield place
        place = text.find(word, place + 1)


def _joined(texts: list[str], together: list[int]) -> tuple[str, list[tuple[int, int]]]:
    """Return the texts of a list as lines, and where each begins with the number of its leaf."""
    segments = []
    place = 0
    for number in together:
        segments.append((place, number))
        place += len(texts[number]) + 1
    return "\n".join([texts[number] for number in together]), segments


def _spread(hit: _Hit, segments: list[tuple[int, int]], texts: list[str], hits: dict[int, list[_Hit]]) -> None:
    """Add to *hits* the parts of *hit*, which is in the places of a unit, by the leaves that they are in."""
    index = bisect.bisect_right(segments, hit.start, key=lambda segment: segment[0]) - 1
    for place, number in segments[index:]:
        if place >= hit.end:
            break
        start, end = max(0, hit.start - place), min(len(texts[number]), hit.end - place)
        if start < end:
            hits.setdefault(number, []).append(hit._replace(start=start, end=end))


def _outside(marks: list[tuple[int, int]], start: int, end: int, text: str) -> t.Iterator[tuple[int, int]]:
    """Yield the span (*start*, *end*), or what of it is in none of *marks* (in order) and has a letter or digit."""
    index = bisect.bisect_right(marks, start, key=lambda mark: mark[1])
    if index == len(marks) or marks[index][0] >= end:
        yield start, end
        return
    while start < end:
        mark_start, mark_end = marks[index] if index < len(marks) else (end, end)
        stop = min(mark_start, end)
        if any(char.isalnum() for char in text[start:stop]):
            yield start, stop
        start = max(mark_end, stop)
        index += 1


def _merged(hits: list[_Hit], rules: t.Sequence[Rule]) -> list[_Hit]:
    """Return *hits* in order, those that overlap as one: of the rule that comes first, and of the longest of that."""
    merged: list[_Hit] = []
    for hit in sorted(hits, key=lambda hit: (hit.start, -hit.end)):
        last = merged[-1] if merged else None
        if last is None or hit.start >= last.end:
            merged.append(hit)
            continue
        better = min(last, hit, key=lambda one: (one.rule, one.start - one.end))
        if rules[hit.rule].group == rules[last.rule].group or better.start > last.start:
            better = better._replace(start=last.start, end=max(last.end, hit.end))
        # Else it is a password before the @ of a host: that is no address.
        merged[-1] = better
    return merged


def _rebuilt(value: t.Any, changed: t.Mapping[int, str], place: list[int]) -> t.Any:
    """Return *value* with the *changed* texts (by their number in the walk; *place* holds the next number)."""
    kind = type(value)
    if kind is str or kind is int:
        place[0] += 1
        return changed.get(place[0] - 1, value)
    if kind is list or kind is tuple:
        return [_rebuilt(item, changed, place) for item in value]
    if kind is dict:
        made: dict[str, t.Any] = {}
        for key, item in value.items():
            place[0] += 1
            name = free = changed.get(place[0] - 1, key)
            number = 1
            while free in made or (free != key and free in value):
                number += 1
                free = f"{name}~{number}"
            made[free] = _rebuilt(item, changed, place)
        return made
    return value
