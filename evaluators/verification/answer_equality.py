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
        return _same(call[1], one, other)
    except (TypeError, ValueError, LookupError, AttributeError, RecursionError):
        return False  # not of the form of an answer, or nested too deeply


def _same(sent: list[Packed], one: Any, other: Any) -> bool:
    if not isinstance(other, dict) or one.keys() - {"values"} != other.keys() - {"values"}:
        return False
    if "value" not in one:
        return bool(one == other)
    comparison = _AnswerComparison(sent, one, other)
    if one["raised"] is not other["raised"] or not comparison.changes(one["changes"], other["changes"]):
        return False
    if not one["raised"] and ("values" in one or "values" in other):
        items = (_items(sent, one), _items(sent, other))
        if items[0] is not None and items[1] is not None:
            return _same_items((one, other), items)
    return comparison.alike(one["value"], other["value"])


def _items(sent: list[Packed], answer: Any) -> tuple[list[Any], bool] | None:
    """What a test gets that iterates over an answer, and is it all; None: the answer is no plain sequence.

    A test that passes with an iterator in place of a list, or the reverse, only iterates.
    """
    if "values" in answer:
        values = [{**value, "known": answer.get("known")} for value in answer["values"]]
        is_over = bool(values) and values[-1].get("raised") is True
        return (values[:-1] if is_over and _is_end(values[-1]) else values), is_over
    packed = answer["value"]
    if isinstance(packed, list) and packed[0] == "node" and packed[1] >= len(sent):
        name, own, inner, _ = answer["nodes"][packed[1] - len(sent)]
        packed = ["tuple", inner] if name == "list" and own is None else packed
    if isinstance(packed, list) and packed[0] == "tuple":
        whole = {**answer, "nodes": [*sent, *answer["nodes"]]}
        return [{**whole, "value": item} for item in packed[1]], True
    return None


def _is_end(answer: Any) -> bool:
    """Is it the end of an iterator?"""
    return isinstance(answer["value"], list) and ["global", "builtins", "StopIteration"] in answer["value"][1]


def _same_items(answers: tuple[Any, Any], items: Any) -> bool:
    (one, is_whole), (other, is_its_whole) = items
    if "values" in answers[0] and "values" in answers[1]:
        return is_whole == is_its_whole and _each(lambda *pair: _same([], *pair), one, other)
    if is_whole and is_its_whole and len(one) != len(other):
        return False
    if not is_whole or not is_its_whole:  # of an iterator, only the first values were requested
        if len(one if is_whole else other) < len(other if is_whole else one):
            return False
        number = min(len(one), len(other))
        one, other = one[:number], other[:number]
    return all(
        _AnswerComparison([], mine, its).alike(mine["value"], its["value"]) and mine["raised"] is its["raised"]
        for mine, its in zip(one, other, strict=True)
    )


def _each(alike: Callable[[Any, Any], bool], one: Any, other: Any) -> bool:
    is_list = isinstance(one, list) and isinstance(other, list)
    return is_list and len(one) == len(other) and all(map(alike, one, other))


def _known(sent: list[Packed], answers: tuple[Any, Any]) -> Callable[[str, str], bool]:
    """Does the tests' side have a class of that module and name? It sent instances, and says so of the answers."""
    if any(answer.get("known") is None for answer in answers):
        return lambda *_: True
    names = {(module, name) for answer in answers for module, name in answer["known"]}
    names |= {(own[0][1], own[0][2]) for _, own, *_ in sent if own}
    return lambda *name: name in names


class _AnswerComparison:
    """Compares two answers to one call by the content of their nodes, not by the nodes' numbers."""

    def __init__(self, sent: list[Packed], one: Any, other: Any) -> None:
        """`sent`: the nodes that were sent with the call."""
        self._sent = sent
        self._n_sent = len(sent)
        self._nodes = (one["nodes"], other["nodes"])
        self._changes = (dict(one.get("changes", ())), dict(other.get("changes", ())))
        self._is_known = _known(sent, (one, other))
        self._matched: dict[int, int] = {}

    def _plain(self, side: int, packed: Packed) -> Packed:
        """An immutable value without its class; a member of an enumeration that the tests lack as what it equals."""
        if isinstance(packed, list) and packed[0] == "member":
            kind = self._class(packed[1])
            return packed[3] if kind is None and packed[3] is not None else ["member", kind, packed[2]]
        for _ in self._nodes[side]:
            is_node = isinstance(packed, list) and packed[0] == "node" and packed[1] >= self._n_sent
            if not is_node or self._nodes[side][packed[1] - self._n_sent][0] not in FIXED_NAMES:
                break
            packed = self._nodes[side][packed[1] - self._n_sent][2]
        return packed

    def _class(self, names: Packed) -> Packed:
        """The class by which the tests know a value: the first that they have; None: there is none."""
        return next((name for name in names or () if name[0] == "global" and self._is_known(*name[1:])), None)

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
        fields = (self._fields(0, one), self._fields(1, other))
        if fields[0] is not None and fields[1] is not None and fields[0][0] != fields[1][0]:
            return self.alike(fields[0][1], fields[1][1]) and _each(self.alike, fields[0][2], fields[1][2])
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
            kinds = (self._class(one[1]), self._class(other[1]))
            return kinds[0] == kinds[1] and _each(self.alike, one[2], other[2]) and self.alike(one[3], other[3])
        return all(map(self.alike, one[1:], other[1:]))

    def _node(self, one: int, other: int) -> bool:
        if one < self._n_sent and one == other:
            return True
        if one in self._matched:
            return self._matched[one] == other
        self._matched[one] = other
        return self._content(self._content_of(0, one), self._content_of(1, other))

    def _content_of(self, side: int, position: int) -> Packed:
        """That of a sent value as the call left it: an equal copy is as good an answer."""
        if position >= self._n_sent:
            return self._nodes[side][position - self._n_sent]
        return self._changes[side].get(position, self._sent[position])

    def _fields(self, side: int, packed: Packed) -> tuple[str, Packed, list[Packed]] | None:
        """Kind, class and values of a named tuple, or of an instance; None: it is neither."""
        if not isinstance(packed, list) or packed[0] != "node" or packed[1] < self._n_sent:
            return None
        name, own, inner, state = self._nodes[side][packed[1] - self._n_sent]
        kind = self._class(own)
        if kind is None or name not in ("tuple", "object"):
            return None
        return name, kind, inner[1] if name == "tuple" else [value for _, value in state]

    def changes(self, one: Any, other: Any) -> bool:
        """Are the sent values alike after both calls? One that a call left alone is as it was sent."""
        ours, its = dict(one), dict(other)
        return all(
            self._content(ours.get(place, self._sent[place]), its.get(place, self._sent[place]))
            for place in {*ours, *its}
        )

    def _content(self, one: Packed, other: Packed) -> bool:
        name, own, inner, state = one
        its_name, its_own, its_inner, its_state = other
        kind, its_kind = self._class(own), self._class(its_own)
        if name == "object" and kind is its_kind is None:
            kind, its_kind = own and own[0], its_own and its_own[0]
        if name != its_name or kind != its_kind or not self._inner(name, inner, its_inner):
            return False
        return kind is None or self._same_state(state, its_state)

    def _same_state(self, one: list[Packed], other: list[Packed]) -> bool:
        """Has the other instance the attributes of the reference's? It may have more."""
        its = dict(other)
        return all(name in its and self.alike(value, its[name]) for name, value in one)

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
            return f"<{_end_of(own[0])}>"
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
    if tag == "member":
        return f"<{_end_of(packed[:3])}>"
    return _end_of(packed) if tag in ("float", "bytes", "constant", "global") else f"<{_end_of([tag])}>"


def _end_of(packed: list[Packed]) -> str:
    """Its last part, a name."""
    return packed[-1][:MOST_LETTERS] if isinstance(packed[-1], str) else "..."
