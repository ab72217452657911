# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The smallest values that schemas take."""

from __future__ import annotations

import typing as t

import jsonschema
import pytest

from dockersandbox.simulator import shapes

NAMED = {"properties": {"b": {"type": "null"}}, "required": ["b"]}
TREE = {
    "$defs": {
        "Node": {
            "type": "object",
            "properties": {"value": {"type": "number"}, "next": {"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}]}},
            "required": ["value", "next"],
        }
    },
    "$ref": "#/$defs/Node",
}


@pytest.mark.parametrize(
    ("schema", "wanted"),
    [
        ({"type": "string"}, shapes.TEXT),
        ({"type": "string", "minLength": 12}, f"{shapes.TEXT}..."),
        ({"type": "string", "maxLength": 3}, "sim"),
        ({"type": "string", "format": "date"}, "2000-01-01"),
        ({"type": ["null", "string"]}, None),
        ({"type": "integer"}, 0),
        ({"type": "integer", "minimum": 3.5}, 4),
        ({"type": "integer", "exclusiveMinimum": 4}, 5),
        ({"type": "number", "maximum": -2.5}, -2.5),
        ({"type": "number", "exclusiveMaximum": 0}, -0.5),
        ({"type": "integer", "minimum": 7, "multipleOf": 5}, 10),
        ({"type": "boolean"}, False),
        ({"enum": ["a  b", 2]}, "a  b"),
        ({"const": {"x": 1}}, {"x": 1}),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 2}, [0, 0]),
        ({"type": "array"}, []),
        ({"properties": {"a": {"type": "integer"}, "b": {}}, "required": ["a"]}, {"a": 0}),
        ({"oneOf": [{"type": "array", "minItems": 5000}, {"type": "integer", "minimum": 2}]}, 2),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, None),
        ({"type": "object", "allOf": [{"properties": {"a": {"type": "integer"}}, "required": ["a"]}, NAMED]}, {"a": 0, "b": None}),
        ({"$ref": "#/definitions/a~1b", "definitions": {"a/b": {"type": "integer", "minimum": 9}}}, 9),
    ],
)
def test_example(schema: dict[str, t.Any], wanted: t.Any) -> None:
    made = shapes.example(schema)
    assert made == wanted
    jsonschema.validate(made, schema)


def test_what_refers_to_itself_ends_where_it_may() -> None:
    made = shapes.example(TREE)
    jsonschema.validate(made, TREE)
    assert made == {"value": 0, "next": None}


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"$ref": "https://example.invalid/other.json"},
        {"$ref": "#/definitions/none"},
        {"type": "array", "minItems": 10**9},
        {"type": "array", "minItems": 900, "items": {"type": "array", "minItems": 900}},
        {"type": "string", "minLength": 10**12},
        {"type": "string", "minLength": "x"},
        {"allOf": [3]},
        {"anyOf": [{"$ref": "#"}, {"$ref": "#"}]},
        {"anyOf": [{"$ref": "#"}] * 5000},
        {"type": "string", "description": "x" * 120_000},
    ],
)
def test_what_has_no_small_value_is_given_up(schema: dict[str, t.Any]) -> None:
    with pytest.raises(shapes.Unmade):
        shapes.example(schema)


def test_a_step_that_is_next_to_nothing_is_left() -> None:
    assert shapes.example({"type": "number", "minimum": 5, "exclusiveMaximum": 9, "multipleOf": 5e-324}) == 5


@pytest.mark.parametrize("limit", [10**400, -(10**400), float("nan"), float("inf"), True, "3", None, [1]])
def test_limits_that_are_none_are_left(limit: t.Any) -> None:
    assert shapes.example({"type": "integer", "minimum": limit, "multipleOf": limit, "exclusiveMaximum": limit}) == 0
