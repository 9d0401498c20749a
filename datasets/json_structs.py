"""Values of JSON or TOML files as the structs that declare their fields.

A refused value becomes a `UserError` of one line: the place, the key, what is expected and what was found.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, NamedTuple, TypeVar

import msgspec
from msgspec import inspect

from regrade.datasets.errors import UserError
from regrade.datasets.json_text import shown

T = TypeVar("T")

LARGEST = 10**9
"""No number in a task is larger: seconds, megabytes, processes, lines."""

Plain = Annotated[str, msgspec.Meta(pattern=r"^[^\0\ud800-\udfff]*\Z")]
"""Text that may become a file's name or a program's argument."""
Natural = Annotated[int, msgspec.Meta(ge=0, le=LARGEST)]
Positive = Annotated[int, msgspec.Meta(ge=1, le=LARGEST)]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=LARGEST)]

_AT = re.compile(r" - at (?:`key` in )?`\$(?P<path>[^`]*)`\Z")
_STEP = re.compile(r"\.(?P<field>\w+)|\[(?P<index>\d+)\]")
_BOUNDS = {"gt": "above", "ge": "of at least", "lt": "below", "le": "at most"}
_MANY = {
    inspect.StrType: "strings", inspect.IntType: "integers", inspect.StructType: "objects", inspect.DictType: "objects"
}  # fmt: skip


def converted(value: object, kind: type[T], where: str, advice: str = "") -> T:
    """The value as a struct or dataclass.

    Args:
        where: the file and the place in it.
        advice: what to do about a wrong value, if its description isn't enough.

    Raises:
        UserError: the value does not fit.
    """
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        problem = _problem(value, kind, where, str(error))
        raise UserError(f"{problem}; {advice}" if advice else problem) from error
    except UnicodeEncodeError as error:  # a lone surrogate, in a key or where no string belongs
        encoded = json.dumps(value, ensure_ascii=False, default=str).encode("utf-8", "replace")
        converted(json.loads(encoded), kind, where, advice)
        raise UserError(f"{where}: a key holds half a surrogate pair, which is no text") from error


class _Found(NamedTuple):
    """What stands at a path, and the type that is declared for it."""

    value: Any
    kind: Any


def _problem(value: object, kind: type, where: str, message: str) -> str:
    is_key = isinstance(value, dict) and any(
        message.endswith(f"field `{key}`") for key in value
    )  # it may read as a path
    match = None if is_key else _AT.search(message)
    path = match["path"].removesuffix("[...]") if match else ""
    found = _at(path, _Found(value, inspect.type_info(kind)))
    fields = {field.encode_name: field for each in _alternatives(found.kind) for field in getattr(each, "fields", ())}
    if message.startswith("Object contains unknown field"):
        unknown = next((key for key in found.value if key not in fields), "")
        known = ", ".join(sorted(fields))
        return f"{_joined(where, path)}: unknown key {unknown!r}; known keys: {known}"
    if message.startswith("Object missing required field"):
        missing = next(name for name, field in fields.items() if field.required and name not in found.value)
        return f"{_joined(where, path)}: {missing!r} must be {_expected(fields[missing].type)}; the key is missing"
    place, _, key = path.rpartition(".")
    if not key:
        return f"{where}: expected {_expected(found.kind)}, found {shown(found.value)}"
    return f"{_joined(where, place)}: {key!r} must be {_expected(found.kind)}; found {shown(found.value)}"


def _joined(where: str, path: str) -> str:
    return f"{where}, {path.removeprefix('.')}" if path else where


def _at(path: str, found: _Found) -> _Found:
    for step in _STEP.finditer(path):
        found = _below(found, step["field"], step["index"])
    return found


def _below(found: _Found, field: str | None, index: str | None) -> _Found:
    """One step further down."""
    for kind in _alternatives(found.kind):
        if index is not None and hasattr(kind, "item_type"):
            return _Found(found.value[int(index)], kind.item_type)
        for known in getattr(kind, "fields", ()):
            if known.encode_name == field:
                return _Found(found.value[field], known.type)
    return found


def _alternatives(kind: Any) -> tuple[Any, ...]:
    return kind.types if isinstance(kind, inspect.UnionType) else (kind,)


def _expected(kind: Any) -> str:
    """A type in words, as they follow "must be"."""
    match kind:
        case inspect.UnionType():
            return " or ".join(map(_expected, kind.types))
        case inspect.StrType():
            free = " free of NUL characters and lone surrogates" if kind.pattern else ""
            return f"a string{free}{' that is not empty' if kind.min_length else ''}"
        case inspect.IntType():
            return f"an integer{_bounds(kind)}"
        case inspect.FloatType():
            return f"a number{_bounds(kind)}"
        case inspect.BoolType():
            return "true or false"
        case inspect.NoneType():
            return "null"
        case inspect.LiteralType():
            return f"one of {', '.join(map(repr, kind.values))}"
        case inspect.ListType() | inspect.VarTupleType():
            return f"a list of {_MANY.get(type(kind.item_type), 'values')}"
        case inspect.DictType() if not isinstance(kind.value_type, inspect.AnyType):
            return f"a JSON object whose values are each {_expected(kind.value_type)}"
        case _:
            return "a JSON object"


def _bounds(kind: inspect.IntType | inspect.FloatType) -> str:
    given = [(words, getattr(kind, name)) for name, words in _BOUNDS.items() if getattr(kind, name) is not None]
    listed = [f"{words} {bound:,.15g}" if isinstance(bound, float) else f"{words} {bound:,}" for words, bound in given]
    return f" {' and '.join(listed)}" if listed else ""
