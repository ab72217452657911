# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The smallest value that a JSON Schema takes: what a simulated model answers where a request says what form its answer must have."""

from __future__ import annotations

import contextlib
import math
import typing as t

import msgspec

Schema = dict[str, t.Any]
TEXT = "simulated"
_FORMATS = {
    "date-time": "2000-01-01T00:00:00Z",
    "date": "2000-01-01",
    "time": "00:00:00Z",
    "duration": "PT0S",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "email": "simulated@example.invalid",
    "hostname": "simulated.example.invalid",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://simulated.example.invalid/",
}
# A schema can ask for more than anybody wants to read, or for itself.
_DEPTH = 32
_VALUES = 1000
_LONGEST = 10_000
_MOST_SCHEMA = 120_000  # bytes
_FAR = 10**15
_NEAR = 10**-9


class Unmade(Exception):
    """There is no value that is small enough, or what the schema says is not understood."""


def example(schema: t.Any) -> t.Any:
    """Return a small value of the form *schema*. What only narrows a text (``pattern``) is not looked at. Raises Unmade."""
    # Forms are joined with what stands beside them, each time anew.
    if len(msgspec.json.encode(schema)) > _MOST_SCHEMA:
        raise Unmade
    return _Maker(schema).made(schema, 0)


class _Maker:
    def __init__(self, root: t.Any) -> None:
        self._root = root
        self._left = _VALUES

    def made(self, schema: t.Any, depth: int) -> t.Any:
        self._left -= 1
        if depth > _DEPTH or self._left < 0:
            raise Unmade
        if not isinstance(schema, dict):
            return TEXT
        if isinstance(schema.get("$ref"), str):
            return self.made({**self._referred(schema["$ref"]), **{key: value for key, value in schema.items() if key != "$ref"}}, depth + 1)
        if "const" in schema:
            return schema["const"]
        if isinstance(schema.get("enum"), list) and schema["enum"]:
            return schema["enum"][0]
        for key in ("anyOf", "oneOf"):
            if isinstance(schema.get(key), list) and schema[key]:
                return self._first(schema, key, depth)
        if isinstance(schema.get("allOf"), list):
            return self.made(_merged([*schema["allOf"], {key: value for key, value in schema.items() if key != "allOf"}], self._referred), depth + 1)
        return self._of_kind(schema, depth)

    def _first(self, schema: Schema, key: str, depth: int) -> t.Any:
        """Return null if that is one of several forms, else a value of the first that has one: it may be the schema again, without end."""
        rest = {name: value for name, value in schema.items() if name != key}
        forms = [one for one in schema[key] if isinstance(one, dict)]
        for form in sorted(forms, key=lambda form: form.get("type") != "null"):
            if self._left < 0:
                break
            with contextlib.suppress(Unmade):
                return self.made({**rest, **form}, depth + 1)
        raise Unmade

    def _referred(self, name: str) -> Schema:
        found = self._root
        for part in name.removeprefix("#").split("/")[1:]:
            found = found.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(found, dict) else None
        if not name.startswith("#") or not isinstance(found, dict):
            raise Unmade
        return found

    def _of_kind(self, schema: Schema, depth: int) -> t.Any:
        kind = schema.get("type")
        if isinstance(kind, list):
            kind = kind[0] if kind else None
        if kind == "object" or (kind is None and "properties" in schema):
            properties = schema.get("properties")
            forms = properties if isinstance(properties, dict) else {}
            needed = schema.get("required")
            return {key: self.made(forms.get(key), depth + 1) for key in (needed if isinstance(needed, list) else []) if isinstance(key, str)}
        if kind == "array":
            return [self.made(schema.get("items"), depth + 1) for _number in range(self._count(schema, "minItems", _VALUES))]
        if kind in ("integer", "number"):
            return _number(schema, kind == "integer")
        if kind in ("boolean", "null"):
            return False if kind == "boolean" else None
        text = _FORMATS.get(str(schema.get("format")), TEXT)
        longest = schema.get("maxLength")
        text = text[:longest] if isinstance(longest, int) and longest >= 0 else text
        return text.ljust(self._count(schema, "minLength", _LONGEST), ".")

    @staticmethod
    def _count(schema: Schema, key: str, most: int) -> int:
        count = schema.get(key, 0)
        if not isinstance(count, int) or not 0 <= count <= most:
            raise Unmade
        return count


def _merged(schemas: list[t.Any], referred: t.Callable[[str], Schema]) -> Schema:
    """Return one schema of what all of *schemas* ask for."""
    whole: Schema = {}
    for schema in schemas:
        if not isinstance(schema, dict):
            raise Unmade
        one = referred(schema["$ref"]) if isinstance(schema.get("$ref"), str) else schema
        joined: Schema = {}
        if isinstance(whole.get("properties"), dict) and isinstance(one.get("properties"), dict):
            joined["properties"] = {**whole["properties"], **one["properties"]}
        if isinstance(whole.get("required"), list) and isinstance(one.get("required"), list):
            joined["required"] = [*whole["required"], *one["required"]]
        whole = {**whole, **one, **joined}
    return whole


def _number(schema: Schema, whole: bool) -> int | float:
    """Return the number nearest to 0 that *schema* allows."""
    step = _limit(schema, "multipleOf")
    low, high = _limit(schema, "minimum"), _limit(schema, "maximum")
    above, below = _limit(schema, "exclusiveMinimum"), _limit(schema, "exclusiveMaximum")
    unit = step or (1 if whole else 0.5)
    if low is None and above is not None:
        low = (math.floor(above / unit) + 1) * unit
    if high is None and below is not None:
        high = (math.ceil(below / unit) - 1) * unit
    if low is not None and low > 0:
        value = math.ceil(low / unit) * unit if step or whole else low
    elif high is not None and high < 0:
        value = math.floor(high / unit) * unit if step or whole else high
    else:
        value = 0
    return int(value) if whole else value


def _limit(schema: Schema, key: str) -> int | float | None:
    value = schema.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not -_FAR <= value <= _FAR or (key == "multipleOf" and value < _NEAR):
        return None
    return value
