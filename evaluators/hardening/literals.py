"""Values that crossed between two processes (`plain_values`), written as Python source."""

from __future__ import annotations

from collections.abc import Sequence

from regrade.evaluators.inside.remote_calls.plain_values import Packed

DEEPEST = 12
"""Levels of a value that is written out; a recursive one has no end."""
LONGEST = 2000
"""Characters of one value."""
BRACKETS = {"list": ("[", "]"), "set": ("{", "}")}


class NoLiteralError(ValueError):
    """The value has no literal: an object, a function, a float that is not finite, a recursive container."""


def literal(packed: Packed, nodes: Sequence[Packed]) -> str:
    """The source of a value.

    Args:
        nodes: the table of the value's mutable parts.

    Raises:
        NoLiteralError: see there.
    """
    text = _literal(packed, nodes, 0)
    if len(text) > LONGEST:
        raise NoLiteralError("it is too long")
    return text


def has_float(packed: Packed, nodes: Sequence[Packed], depth: int = 0) -> bool:
    """Is a part of it a float? Its last digits may differ between right answers."""
    if isinstance(packed, float):
        return True
    if not isinstance(packed, list) or depth > DEEPEST:
        return False
    parts = nodes[packed[1]] if packed[0] == "node" else packed
    return any(has_float(part, nodes, depth + 1) for part in _flat(parts))


def _flat(parts: Packed) -> list[Packed]:
    found = []
    for part in parts if isinstance(parts, list) else []:
        is_value = isinstance(part, list) and bool(part) and isinstance(part[0], str)
        found += [part] if is_value or not isinstance(part, list) else _flat(part)
    return found


def _literal(packed: Packed, nodes: Sequence[Packed], depth: int) -> str:
    if depth > DEEPEST:
        raise NoLiteralError("it is nested too deeply")
    if packed is None or isinstance(packed, bool | int | float | str):
        return repr(packed)
    tag = packed[0]
    if tag == "tuple":
        parts = [_literal(part, nodes, depth + 1) for part in packed[1]]
        return f"({', '.join(parts)}{',' if len(parts) == 1 else ''})"
    if tag == "frozenset":
        return f"frozenset([{', '.join(_literal(part, nodes, depth + 1) for part in packed[1])}])"
    if tag == "node":
        return _container(nodes[packed[1]], nodes, depth)
    raise NoLiteralError(f"a {tag}")


def _container(node: Packed, nodes: Sequence[Packed], depth: int) -> str:
    name, own, inner, state = node
    if own is not None or state:
        raise NoLiteralError(f"a class of the repository that extends {name}")
    if name == "dict":
        pairs = (f"{_literal(key, nodes, depth + 1)}: {_literal(value, nodes, depth + 1)}" for key, value in inner)
        return f"{{{', '.join(pairs)}}}"
    if name not in BRACKETS:
        raise NoLiteralError(f"a {name}")
    if name == "set" and not inner:
        return "set()"
    first, last = BRACKETS[name]
    return f"{first}{', '.join(_literal(part, nodes, depth + 1) for part in inner)}{last}"
