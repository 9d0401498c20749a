"""Are two answers to a call equal? Compares answers of a patch's functions with those of the reference's."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from regrade.evaluators.inside.remote_calls.plain_values import FIXED, Packed

if TYPE_CHECKING:
    from regrade.evaluators.verification.held_out_inputs import Call

TOLERANCE = 1e-9
"""Relative: a sum in another order is an equal answer."""
FIXED_NAMES = frozenset(base.__name__ for base in FIXED)
LARGEST_MEMBER = 1000
"""Values in one member of a compared set: a candidate's may contain itself many times."""
MOST_SHOWN, MOST_LETTERS = 5, 60
"""Parts of a container, and letters of a text, that a message shows: a recursive container has no end."""


@dataclass(frozen=True)
class AnswerMismatch:
    """An input that the patch and the reference answer differently."""

    function: str
    arguments: str
    expected: str
    answer: str

    def __str__(self) -> str:
        return f"{self.function}{self.arguments}: {self.answer} instead of {self.expected}"


def usable_inputs(inputs: Sequence[Call], answers: Sequence[Any], repeated: Sequence[Any]) -> list[int]:
    """Indices of the inputs that the reference answers twice without an error, by a deterministic function.

    A function with different answers to any one input is random: its other answers may be equal by chance.
    """
    answered = [
        (index, function_of(call), are_same(call, one, other))
        for index, (call, one, other) in enumerate(zip(inputs, answers, repeated, strict=False))
        if one.get("raised") is False and other.get("raised") is False
    ]
    random = {function for _, function, is_same in answered if not is_same}
    return [index for index, function, _ in answered if function not in random]


def function_of(call: Call) -> str:
    """Module and name of the called function."""
    (module, key, *_), _ = call
    return f"{module}.{key.partition('#')[0]}"


def find_mismatches(inputs: Sequence[Call], expected: Sequence[Any], answers: Sequence[Any]) -> list[AnswerMismatch]:
    """The inputs with an unexpected answer, or without an answer.

    Args:
        answers: in the order of the inputs; may be shorter.
    """
    mismatches = []
    missing = [{"gone": "no answer"}] * (len(inputs) - len(answers))
    for call, right, answer in zip(inputs, expected, [*answers, *missing], strict=False):
        if not are_same(call, right, answer):
            shown = (_answer_shown(one, call[1]) for one in (right, answer))
            mismatches.append(AnswerMismatch(function_of(call), _shown(call), *shown))
    return mismatches


def are_same(call: Call, one: Any, other: Any) -> bool:
    """Are two answers to a call equal, as far as a test can observe?

    The order of sets and dicts, the numbers of functions and the last digits of floats are ignored. An instance of a
    class that a patch adds counts as one of its base class, which the tests see.

    Args:
        one: the reference's.
        other: the candidate's, of any form.
    """
    try:
        return _same(len(call[1]), one, other)
    except (TypeError, ValueError, LookupError, AttributeError, RecursionError):
        return False  # not of the form of an answer, or nested too deeply


def _same(n_sent: int, one: Any, other: Any) -> bool:
    if not isinstance(other, dict) or one.keys() != other.keys():
        return False
    if "value" not in one:
        return bool(one == other)
    comparison = _AnswerComparison(n_sent, one["nodes"], other["nodes"])
    return (
        one["raised"] is other["raised"]
        and comparison.alike(one["value"], other["value"])
        and comparison.changes(one["changes"], other["changes"])
        and _each(lambda *pair: _same(0, *pair), one.get("values", []), other.get("values", []))
    )


def _each(alike: Callable[[Any, Any], bool], one: Any, other: Any) -> bool:
    is_list = isinstance(one, list) and isinstance(other, list)
    return is_list and len(one) == len(other) and all(map(alike, one, other))


class _AnswerComparison:
    """Compares two answers to one call by the content of their nodes, not by the nodes' numbers."""

    def __init__(self, n_sent: int, one: list[Packed], other: list[Packed]) -> None:
        """`n_sent`: number of nodes that were sent with the call."""
        self._n_sent = n_sent
        self._nodes = (one, other)
        self._matched: dict[int, int] = {}

    def _plain(self, side: int, packed: Packed) -> Packed:
        """An immutable value without its class."""
        for _ in self._nodes[side]:
            is_node = isinstance(packed, list) and packed[0] == "node" and packed[1] >= self._n_sent
            if not is_node or self._nodes[side][packed[1] - self._n_sent][0] not in FIXED_NAMES:
                break
            packed = self._nodes[side][packed[1] - self._n_sent][2]
        return packed

    def _members(self, side: int, values: list[Packed]) -> list[str]:
        """The members of a set as sorted JSON. Raises ValueError if one is too large."""
        left = 0

        def whole(packed: Packed) -> Packed:
            nonlocal left
            left -= 1
            if left < 0:
                raise ValueError("a member of a set that is too large")
            packed = self._plain(side, packed)
            return [whole(part) for part in packed] if isinstance(packed, list) else packed

        members = []
        for value in values:
            left = LARGEST_MEMBER
            members.append(json.dumps(whole(value)))
        return sorted(members)

    def alike(self, one: Packed, other: Packed) -> bool:
        one, other = self._plain(0, one), self._plain(1, other)
        if isinstance(one, float) and isinstance(other, float):
            return math.isclose(one, other, rel_tol=TOLERANCE) or one == other
        if not isinstance(one, list):
            return type(one) is type(other) and bool(one == other)
        if not isinstance(other, list) or len(one) != len(other) or one[0] != other[0]:
            return False
        tag = one[0]
        if tag == "node":
            return self._node(one[1], other[1])
        if tag == "number":
            return bool(one[1] == other[1] and one[3] == other[3])
        if tag == "frozenset":
            return self._members(0, one[1]) == self._members(1, other[1])
        if tag == "tuple":
            return _each(self.alike, one[1], other[1])
        if tag == "value":
            return bool(one[1] == other[1]) and _each(self.alike, one[2], other[2])
        if tag == "error":
            lists = all(_each(self.alike, *pair) for pair in zip(one[1:3], other[1:3], strict=True))
            return lists and self.alike(one[3], other[3])
        return all(map(self.alike, one[1:], other[1:]))

    def _node(self, one: int, other: int) -> bool:
        if one < self._n_sent or other < self._n_sent:
            return one == other
        if one in self._matched:
            return self._matched[one] == other
        self._matched[one] = other
        return self._content(self._nodes[0][one - self._n_sent], self._nodes[1][other - self._n_sent])

    def changes(self, one: Any, other: Any) -> bool:
        return _each(lambda mine, its: mine[0] == its[0] and self._content(mine[1], its[1]), one, other)

    def _content(self, one: Packed, other: Packed) -> bool:
        name, own, inner, state = one
        its_name, its_own, its_inner, its_state = other
        same_state = state is its_state is None or _each(self._pair, sorted(state, key=str), sorted(its_state, key=str))
        return name == its_name and self.alike(own, its_own) and self._inner(name, inner, its_inner) and same_state

    def _pair(self, one: Packed, other: Packed) -> bool:
        return _each(self.alike, one, other)

    def _inner(self, name: str, one: Packed, other: Packed) -> bool:
        if name == "set":
            return self._members(0, one) == self._members(1, other)
        if name == "list":
            return _each(self.alike, one, other)
        if name == "OrderedDict":
            return _each(self._pair, one, other)
        if name in ("dict", "Counter"):
            return _each(self._pair, _by_key(one), _by_key(other))
        if name == "defaultdict":
            return self.alike(one[0], other[0]) and _each(self._pair, _by_key(one[1]), _by_key(other[1]))
        if name == "deque":
            return bool(one[0] == other[0]) and _each(self.alike, one[1], other[1])
        return self.alike(one, other)


def _by_key(pairs: list[Packed]) -> list[Packed]:
    """The pairs in an order independent of that of insertion, which the equality of dicts ignores."""
    dumped = [(json.dumps(key), value) for key, value in pairs]
    if any('["node", ' in key for key, _ in dumped):
        return pairs
    return [[key, value] for key, value in sorted(dumped, key=lambda pair: pair[0])]


def _shown(call: Call) -> str:
    arguments, nodes = call
    positional = [_text(argument, nodes) for argument in arguments[2][1]]
    named = [f"{json.loads(json.dumps(key))}={_text(value, nodes)}" for key, value in nodes[arguments[3][1]][2]]
    return f"({', '.join([*positional, *named])})"[:200]


def _answer_shown(answer: Any, sent: list[Packed]) -> str:
    """`sent`: the nodes that were sent with the call."""
    try:
        return _answer_text(answer, sent)[:120]
    except (TypeError, ValueError, LookupError, AttributeError, RecursionError):
        return "a malformed answer"  # a candidate's process can answer anything


def _answer_text(answer: Any, sent: list[Packed]) -> str:
    if "value" not in answer:
        return str(answer.get("gone") or answer.get("uncrossable"))
    if answer.get("values") is not None:
        parts = [_text(value.get("value"), value.get("nodes", [])) for value in answer["values"][:MOST_SHOWN]]
        return f"an iterator of {', '.join(parts)}"
    text = _text(answer["value"], [*sent, *answer["nodes"]])
    return f"raised {text}" if answer["raised"] else text


def _text(packed: Packed, nodes: list[Packed], depth: int = 0) -> str:
    if not isinstance(packed, list) or depth > 4:
        return repr(packed)[:MOST_LETTERS] if not isinstance(packed, list) else "..."

    def several(values: list[Packed]) -> str:
        return ", ".join(_text(value, nodes, depth + 1) for value in values[:MOST_SHOWN])

    tag = packed[0]
    if tag == "node" and isinstance(packed[1], int) and packed[1] < len(nodes):
        name, own, inner, _ = nodes[packed[1]]
        if own is not None:
            return f"<{_end_of(own)}>"
        if name in ("dict", "OrderedDict"):
            pairs = [
                f"{_text(key, nodes, depth + 1)}: {_text(value, nodes, depth + 1)}" for key, value in inner[:MOST_SHOWN]
            ]
            return f"{{{', '.join(pairs)}}}"
        parts = several(inner) if name in ("list", "set") else name
        return f"{{{parts}}}" if name == "set" else f"[{parts}]"
    if tag in ("tuple", "frozenset"):
        return f"({several(packed[1])})"
    if tag == "error":
        return _end_of(packed[1][0]) if packed[1] else "an error"
    if tag == "value":
        return f"{packed[1][-MOST_LETTERS:].rpartition('.')[2]}({several(packed[2])})"
    return _end_of(packed) if tag in ("float", "bytes", "constant", "global", "member") else f"<{_end_of([tag])}>"


def _end_of(packed: list[Packed]) -> str:
    """Its last part, a name."""
    return packed[-1][:MOST_LETTERS] if isinstance(packed[-1], str) else "..."
