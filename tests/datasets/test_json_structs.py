"""Values that a struct refuses: each is described in one line that names the place, the key and both sides."""

from __future__ import annotations

import math
from typing import Any, Literal

import msgspec
import pytest

from regrade.datasets.errors import UserError
from regrade.datasets.json_structs import Natural, Plain, Positive, Seconds, converted


class Inner(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    count: Positive = 1
    parts: list[Inner] = []


class Outer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    name: Plain
    seconds: Seconds = 1.0
    line: Natural = 0
    role: Literal["judge", "control"] | None = None
    inner: Inner | None = None
    items: tuple[Inner, ...] = ()
    words: str | tuple[str, ...] = ()
    environment: dict[str, str] = {}
    is_on: bool = False


REFUSED: dict[str, tuple[Any, str]] = {
    "no object": (3, "F: expected a JSON object, found 3"),
    "missing": ({}, "F: 'name' must be a string without NUL characters and lone surrogates; the key is missing"),
    "unknown": (
        {"nme": 1},
        "F: unknown key 'nme'; known keys: environment, inner, is_on, items, line, name, role, seconds, words",
    ),
    "unknown below": ({"inner": {"cont": 1}}, "F, inner: unknown key 'cont'; known keys: count, parts"),
    "a key that reads as a path": ({"x - at `$.inner": 1, "inner": {}}, "F: unknown key 'x - at `$.inner'; known"),
    "a key of two lines": ({"a\nb": 1}, "F: unknown key 'a\\nb'; known"),
    "a key that is no text": ({"\ud800": 1}, "F: unknown key '?'; known"),
    "no text in a number's place": ({"line": "\ud800"}, "F: 'line' must be an integer of at least 0 and at most"),
    "bool": ({"line": True}, "F: 'line' must be an integer of at least 0 and at most 1,000,000,000; found true"),
    "float": ({"line": 1.0}, "F: 'line' must be an integer of at least 0 and at most 1,000,000,000; found 1.0"),
    "beyond 64 bits": ({"line": 10**30}, "F: 'line' must be an integer of at least 0 and at most 1,000,000,000; found"),
    "NaN": ({"seconds": math.nan}, "F: 'seconds' must be a number above 0 and at most 1,000,000,000; found NaN"),
    "beyond floats": ({"seconds": 10**400}, "F: 'seconds' must be a number above 0 and at most 1,000,000,000; found 1"),
    "beyond what is written": ({"seconds": 10**5000}, "F: 'seconds' must be a number above 0 and at most"),
    "null": ({"name": None}, "F: 'name' must be a string without NUL characters and lone surrogates; found null"),
    "NUL": ({"name": "a\nb\0"}, "F: 'name' must be a string without NUL characters and lone surrogates; found \"a"),
    "choice": ({"role": "boss"}, "F: 'role' must be one of 'control', 'judge' or null; found \"boss\""),
    "item": ({"items": [{}, {"count": 0}]}, "F, items[1]: 'count' must be an integer of at least 1 and at most"),
    "deep": ({"inner": {"parts": [{"parts": [3]}]}}, "F, inner.parts[0]: 'parts[0]' must be a JSON object; found 3"),
    "missing item": ({"items": 1}, "F: 'items' must be a list of objects; found 1"),
    "one or many": ({"words": 1}, "F: 'words' must be a string or a list of strings; found 1"),
    "value of a mapping": (
        {"environment": {"A": 1}},
        "F: 'environment' must be a JSON object whose values are each a string; found {\"A\": 1}",
    ),
    "flag": ({"is_on": 1}, "F: 'is_on' must be true or false; found 1"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_value_is_described_in_one_line(name: str) -> None:
    value, words = REFUSED[name]
    with pytest.raises(UserError) as caught:
        converted(value, Outer, "F")
    assert str(caught.value).startswith(words)
    assert "\n" not in str(caught.value)


def test_advice_stands_at_the_end() -> None:
    with pytest.raises(UserError, match=r"found 3; delete that row$"):
        converted(3, Outer, "F", "delete that row")


def test_a_number_may_be_written_without_a_point() -> None:
    assert converted({"name": "a\n", "seconds": 10**9}, Outer, "F").seconds == 1e9
