"""Values of JSON or TOML files as the structs that declare their fields.

A wrong value raises a `UserError` of one line: the place, the key, the expected type and the value.
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
"""Upper limit of every number in a task: seconds, megabytes, processes, lines."""

Plain = Annotated[str, msgspec.Meta(pattern=r"^[^\0\ud800-\udfff]*\Z")]
"""Text that is valid as a file's name or a program's argument."""
Natural = Annotated[int, msgspec.Meta(ge=0, le=LARGEST)]
Positive = Annotated[int, msgspec.Meta(ge=1, le=LARGEST)]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=LARGEST)]

_AT = re.compile(r" - at (?:`key` in )?`\$(?P<path>[^`]*)`\Z")
_STEP = re.compile(r"\.(?P<field>[\w-]+)|\[(?P<index>\d+)\]")
_BOUNDS = {"gt": "above", "ge": "of at least", "lt": "below", "le": "at most"}
_MANY = {
    inspect.StrType: "strings", inspect.IntType: "integers", inspect.StructType: "objects", inspect.DictType: "objects"
}  # fmt: skip


def converted(value: object, kind: type[T], where: str, advice: str = "") -> T:
    """The value as a struct or dataclass.

    Args:
        where: the file and the place in it, for the message.
        advice: the remedy for a wrong value, if its description does not suffice.

    Raises:
        UserError: the value has another form.
    """
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        problem = _problem(value, kind, where, str(error))
        raise UserError(f"{problem}; {advice}" if advice else problem) from error
    except UnicodeEncodeError as error:  # a lone surrogate, in a key or in place of another type
        encoded = json.dumps(value, ensure_ascii=False, default=str).encode("utf-8", "replace")
        converted(json.loads(encoded), kind, where, advice)
        raise UserError(f"{where}: a key contains a lone surrogate, which is not valid text") from error


class _TypedValue(NamedTuple):
    """The value at a path, and its declared type."""

    value: Any
    kind: Any


def _problem(value: object, kind: type, where: str, message: str) -> str:
    # A key may look like a path.
    is_key = isinstance(value, dict) and any(message.endswith(f"field `{key}`") for key in value)
    match = None if is_key else _AT.search(message)
    path = match["path"].removesuffix("[...]") if match else ""
    wrong = _at(path, _TypedValue(value, inspect.type_info(kind)))
    fields = {field.encode_name: field for kind in _alternatives(wrong.kind) for field in getattr(kind, "fields", ())}
    if message.startswith("Object contains unknown field"):
        unknown = next((key for key in wrong.value if key not in fields), "")
        return f"{_joined(where, path)}: unknown key {_cut(unknown)}; known keys: {', '.join(sorted(fields))}"
    if message.startswith("Object missing required field"):
        missing = next(name for name, field in fields.items() if field.required and name not in wrong.value)
        return f"{_joined(where, path)}: {missing!r} must be {_expected(fields[missing].type)}; the key is missing"
    parent, _, key = path.rpartition(".")
    if not key:
        return f"{where}: expected {_expected(wrong.kind)}, found {shown(wrong.value)}"
    return f"{_joined(where, parent)}: {key!r} must be {_expected(wrong.kind)}; found {shown(wrong.value)}"


def _cut(key: object) -> str:
    text = repr(key)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _joined(where: str, path: str) -> str:
    return f"{where}, {path.removeprefix('.')}" if path else where


def _at(path: str, node: _TypedValue) -> _TypedValue:
    for step in _STEP.finditer(path):
        node = _child(node, step["field"], step["index"])
    return node


def _child(node: _TypedValue, name: str | None, index: str | None) -> _TypedValue:
    for kind in _alternatives(node.kind):
        if index is not None and hasattr(kind, "item_type"):
            return _TypedValue(node.value[int(index)], kind.item_type)
        for field in getattr(kind, "fields", ()):
            if field.encode_name == name:
                return _TypedValue(node.value[name], field.type)
    return node


def _alternatives(kind: Any) -> tuple[Any, ...]:
    return kind.types if isinstance(kind, inspect.UnionType) else (kind,)


def _expected(kind: Any) -> str:
    """A type in words, after "must be"."""
    match kind:
        case inspect.UnionType():
            return " or ".join(map(_expected, kind.types))
        case inspect.StrType():
            limits = " without NUL characters and lone surrogates" if kind.pattern else ""
            return f"a {'non-empty ' if kind.min_length else ''}string{limits}"
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
    bounds = [(words, getattr(kind, name)) for name, words in _BOUNDS.items() if getattr(kind, name) is not None]
    listed = [f"{words} {bound:,.15g}" if isinstance(bound, float) else f"{words} {bound:,}" for words, bound in bounds]
    return f" {' and '.join(listed)}" if listed else ""
