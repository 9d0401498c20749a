"""Held-out inputs: what a patch's functions answer where no test looks, beside what the reference patch's answer.

Inputs are drawn by Hypothesis from calls that the tests were seen to make: containers and scalars like theirs, while
what else crosses (instances of the repository's classes, functions by name) stays as it was seen, since a state that no
code ever made says nothing. Only inputs count that the reference answers without an error, and the same each time.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from regrade.evaluators.inside.plain import FIXED, Packed

Call = tuple[list[Packed], list[Packed]]
"""Arguments (module, key, positional, keywords) and nodes, as they cross (see `regrade.evaluators.inside.plain`)."""
INPUTS = 40
"""How many new inputs of a function are tried."""
FEWEST = 8
"""With fewer inputs that the reference answers, nothing is said."""
TOLERANCE = 1e-9
"""Relative: sums in another order are no other answer."""
CONTAINERS = ("list", "dict", "set", "deque", "OrderedDict")
FIXED_NAMES = frozenset(base.__name__ for base in FIXED)
LARGEST_MEMBER = 1000
"""Values in one member of a set that is compared: a candidate's may hold themselves many times over."""
VARIED_TEXT, VARIED_NUMBER = 40, 3
MOST_SHOWN, MOST_LETTERS = 5, 60
"""Of the parts of a container, and of a text, that an error shows: one that holds itself many times has no end."""


@dataclass(frozen=True)
class Leaf:
    """A value that is not looked into, with the nodes that it needs."""

    packed: Packed
    nodes: tuple[Packed, ...] = ()


@dataclass(frozen=True)
class Inner:
    """A plain container."""

    name: str
    parts: tuple[Any, ...]
    """Trees; of a dict pairs of trees."""


Tree = Leaf | Inner


@dataclass(frozen=True)
class Difference:
    """An input to which the patch answers something else than the reference."""

    function: str
    arguments: str
    expected: str
    found: str

    def __str__(self) -> str:
        return f"{self.function}{self.arguments}: {self.found} instead of {self.expected}"


def new_inputs(calls: Sequence[Call], number: int) -> list[Call]:
    """Inputs like those of the calls, and none of them; the same for the same calls and number."""
    by_function: dict[str, list[Call]] = {}
    for call in calls:
        by_function.setdefault(f"{call[0][0]}:{call[0][1]}", []).append(call)
    found: list[Call] = []
    for name in sorted(by_function):
        found += _inputs_of(by_function[name], number)
    return found


def _inputs_of(calls: list[Call], number: int) -> list[Call]:
    seen = {json.dumps(call) for call in calls}
    trees = [tuple(_tree(each, nodes) for each in arguments[2:]) for arguments, nodes in calls]
    pool = _Pool()
    for pair in trees:
        for tree in pair:
            pool.learn(tree)
    strategy = st.sampled_from(trees).flatmap(lambda pair: st.tuples(*[pool.like(tree, outer=True) for tree in pair]))
    found: list[Call] = []

    @seed(0)
    @settings(
        max_examples=4 * number,
        database=None,
        deadline=None,
        derandomize=False,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def draw(pair: tuple[Tree, Tree]) -> None:
        nodes: list[Packed] = []
        arguments = [*calls[0][0][:2], *[_packed(tree, nodes) for tree in pair]]
        if json.dumps([arguments, nodes]) not in seen and len(found) < number:
            seen.add(json.dumps([arguments, nodes]))
            found.append((arguments, nodes))

    draw()
    return found


class _Pool:
    """What the calls hold, by kind, so that new inputs are made of the like."""

    def __init__(self) -> None:
        self._texts: set[str] = {""}
        self._numbers: set[int] = {0, 1, -1}

    def learn(self, tree: Tree) -> None:
        if isinstance(tree, Inner):
            for part in tree.parts:
                for each in part if tree.name in ("dict", "OrderedDict") else (part,):
                    self.learn(each)
        elif isinstance(tree.packed, str):
            self._texts.add(tree.packed)
        elif type(tree.packed) is int:
            self._numbers.add(tree.packed)

    def like(self, tree: Tree, *, outer: bool = False) -> st.SearchStrategy[Tree]:
        """Trees like this one; `outer`: a tuple or dict of arguments, which keeps its length and its names."""
        if isinstance(tree, Leaf):
            return self._scalar(tree)
        if tree.name in ("dict", "OrderedDict"):
            return self._mapping(tree, outer=outer)
        alike = [self.like(part) for part in tree.parts]
        same_length = st.tuples(*alike)
        if outer or not alike or (tree.name == "tuple" and len({_kind(part) for part in tree.parts}) > 1):
            return same_length.map(lambda parts: Inner(tree.name, tuple(parts)))
        lists = st.lists(st.one_of(alike[:8]), max_size=len(alike) + VARIED_NUMBER).map(tuple)
        return st.one_of(same_length, lists).map(lambda parts: Inner(tree.name, tuple(parts)))

    def _mapping(self, tree: Inner, *, outer: bool) -> st.SearchStrategy[Tree]:
        pairs = [st.tuples(st.just(key), self.like(value)) for key, value in tree.parts]
        if outer or not pairs:
            return st.tuples(*pairs).map(lambda found: Inner(tree.name, tuple(found)))
        some = st.lists(st.sampled_from(range(len(pairs))), unique=True).flatmap(
            lambda places: st.tuples(*[pairs[place] for place in places])
        )
        return some.map(lambda found: Inner(tree.name, tuple(found)))

    def _scalar(self, leaf: Leaf) -> st.SearchStrategy[Tree]:
        value = leaf.packed
        same = st.just(leaf)
        if isinstance(value, bool):
            return st.booleans().map(Leaf)
        if isinstance(value, int):
            near = st.integers(value - VARIED_NUMBER, value + VARIED_NUMBER)
            return st.one_of(near, st.sampled_from(sorted(self._numbers)), st.integers(0, 20)).map(Leaf)
        if isinstance(value, float):
            near_value = st.floats(value - VARIED_NUMBER, value + VARIED_NUMBER, allow_nan=False, allow_infinity=False)
            return st.one_of(same, near_value.map(Leaf))
        if isinstance(value, str):
            letters = "".join(sorted(set("".join(self._texts)) | set("ab")))
            made = st.text(letters, max_size=min(VARIED_TEXT, len(value) + VARIED_NUMBER))
            return st.one_of(st.sampled_from(sorted(self._texts)), made).map(Leaf)
        return same


def _kind(tree: Tree) -> str:
    return tree.name if isinstance(tree, Inner) else type(tree.packed).__name__


# ---------------------------------------------------------------- values as trees, and back


def _tree(packed: Packed, nodes: list[Packed], above: frozenset[int] = frozenset()) -> Tree:
    if isinstance(packed, list) and packed[0] == "tuple":
        return Inner("tuple", tuple(_tree(each, nodes, above) for each in packed[1]))
    if isinstance(packed, list) and packed[0] == "node" and packed[1] not in above:
        name, own, inner, _ = nodes[packed[1]]
        below = above | {packed[1]}
        if own is None and name in ("dict", "OrderedDict"):
            pairs = tuple((_tree(key, nodes, below), _tree(value, nodes, below)) for key, value in inner)
            return Inner(name, pairs)
        if own is None and name in ("list", "set"):
            return Inner(name, tuple(_tree(each, nodes, below) for each in inner))
    moved: dict[int, int] = {}
    kept: list[Packed] = []
    return Leaf(_moved(packed, nodes, moved, kept), tuple(kept))


def _packed(tree: Tree, nodes: list[Packed]) -> Packed:
    if isinstance(tree, Leaf):
        return _moved(tree.packed, list(tree.nodes), {}, nodes)
    if tree.name == "tuple":
        return ["tuple", [_packed(part, nodes) for part in tree.parts]]
    place = len(nodes)
    nodes.append(None)
    if tree.name in ("dict", "OrderedDict"):
        unique = {json.dumps(_comparable(key)): (key, value) for key, value in tree.parts}
        inner = [[_packed(key, nodes), _packed(value, nodes)] for key, value in unique.values()]
    else:
        parts: Iterable[Tree] = tree.parts
        if tree.name == "set":
            parts = {json.dumps(_comparable(part)): part for part in tree.parts}.values()
        inner = [_packed(part, nodes) for part in parts]
    nodes[place] = [tree.name, None, inner, None]
    return ["node", place]


def _comparable(tree: Tree) -> Any:
    if isinstance(tree, Leaf):
        return [tree.packed, tree.nodes]
    return [
        tree.name,
        [[_comparable(each) for each in part] if isinstance(part, tuple) else _comparable(part) for part in tree.parts],
    ]


def _moved(packed: Packed, nodes: list[Packed], moved: dict[int, int], into: list[Packed]) -> Packed:
    """The value, with all nodes that it needs added to `into` under their new places."""

    def node(place: int) -> Packed:
        if place not in moved:
            moved[place] = len(into)
            into.append(None)
            into[moved[place]] = _content(nodes[place], lambda each: _moved(each, nodes, moved, into))
        return ["node", moved[place]]

    return _rebuilt(packed, node, lambda each: _moved(each, nodes, moved, into))


def _rebuilt(packed: Packed, node: Callable[[int], Packed], each: Callable[[Packed], Packed]) -> Packed:
    """The value with its parts replaced, by its tag."""
    if not isinstance(packed, list):
        return packed
    tag = packed[0]
    if tag == "node":
        return node(packed[1])
    if tag in ("tuple", "frozenset"):
        return [tag, [each(part) for part in packed[1]]]
    if tag == "value":
        return [tag, packed[1], [each(part) for part in packed[2]]]
    if tag == "partial":
        return [tag, *[each(part) for part in packed[1:]]]
    if tag in ("method", "member"):
        return [tag, each(packed[1]), packed[2]]
    if tag == "error":
        kinds, arguments, state, origin = packed[1:]
        return [tag, [each(part) for part in kinds], [each(part) for part in arguments], each(state), origin]
    return packed


def _content(content: Packed, each: Callable[[Packed], Packed]) -> Packed:
    name, own, inner, state = content
    if inner is not None and name in ("dict", "OrderedDict", "Counter"):
        inner = [[each(key), each(value)] for key, value in inner]
    elif name == "defaultdict":
        inner = [each(inner[0]), [[each(key), each(value)] for key, value in inner[1]]]
    elif name == "deque":
        inner = [inner[0], [each(part) for part in inner[1]]]
    elif name in ("list", "set"):
        inner = [each(part) for part in inner]
    elif name not in ("bytearray", "object"):
        inner = each(inner)
    return [name, None if own is None else each(own), inner, state and [[key, each(value)] for key, value in state]]


# ---------------------------------------------------------------- answers


def useful(inputs: Sequence[Call], answers: Sequence[Any], again: Sequence[Any]) -> list[int]:
    """Places of the inputs that the reference answers without an error, and twice the same."""
    return [
        place
        for place, (call, one, other) in enumerate(zip(inputs, answers, again, strict=False))
        if one.get("raised") is False and are_same(call, one, other)
    ]


def differences(
    inputs: Sequence[Call], expected: Sequence[Any], found: Sequence[Any], places: Iterable[int]
) -> list[Difference]:
    """The inputs at these places that are answered otherwise; one that is not answered is."""
    apart = []
    for place in places:
        answer = found[place] if place < len(found) else {"gone": "no answer"}
        if not are_same(inputs[place], expected[place], answer):
            (module, key, *_), _ = inputs[place]
            name = f"{module}.{key.partition('#')[0]}"
            apart.append(
                Difference(
                    name,
                    _shown(inputs[place]),
                    *(_answer_shown(each, inputs[place][1]) for each in (expected[place], answer)),
                )
            )
    return apart


def are_same(call: Call, one: Any, other: Any) -> bool:
    """Do two answers to a call say the same, as far as a test could tell?

    That is up to the order of sets and dicts, the numbers of functions and the last digits of floats. An instance of a
    class that a patch adds is to the tests what it derives from.

    Args:
        one: the reference's.
        other: whatever a candidate says.
    """
    try:
        return _same(len(call[1]), one, other)
    except (TypeError, ValueError, LookupError, AttributeError, RecursionError):
        return False  # one that is not formed as answers are, or nested more deeply than anyone could look into


def _same(known: int, one: Any, other: Any) -> bool:
    if not isinstance(other, dict) or one.keys() != other.keys():
        return False
    if "value" not in one:
        return bool(one == other)
    comparison = _Comparison(known, one["nodes"], other["nodes"])
    return (
        one["raised"] is other["raised"]
        and comparison.alike(one["value"], other["value"])
        and comparison.changes(one["changes"], other["changes"])
        and _each(lambda *pair: _same(0, *pair), one.get("values", []), other.get("values", []))
    )


def _each(alike: Callable[[Any, Any], bool], one: Any, other: Any) -> bool:
    is_list = isinstance(one, list) and isinstance(other, list)
    return is_list and len(one) == len(other) and all(map(alike, one, other))


class _Comparison:
    """Of two answers to one call, by what their nodes hold and not by where they stand."""

    def __init__(self, known: int, one: list[Packed], other: list[Packed]) -> None:
        """`known`: how many nodes came with the call."""
        self._known = known
        self._nodes = (one, other)
        self._met: dict[int, int] = {}

    def _plain(self, side: int, packed: Packed) -> Packed:
        """What is fixed by its content, without its class."""
        for _ in self._nodes[side]:
            is_node = isinstance(packed, list) and packed[0] == "node" and packed[1] >= self._known
            if not is_node or self._nodes[side][packed[1] - self._known][0] not in FIXED_NAMES:
                break
            packed = self._nodes[side][packed[1] - self._known][2]
        return packed

    def _members(self, side: int, values: list[Packed]) -> list[str]:
        """Of a set, in an order of their own. Raises ValueError where one is too large."""
        left = 0

        def whole(packed: Packed) -> Packed:
            nonlocal left
            left -= 1
            if left < 0:
                raise ValueError("a member of a set that is too large")
            packed = self._plain(side, packed)
            return [whole(each) for each in packed] if isinstance(packed, list) else packed

        found = []
        for value in values:
            left = LARGEST_MEMBER
            found.append(json.dumps(whole(value)))
        return sorted(found)

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
        if one < self._known or other < self._known:
            return one == other
        if one in self._met:
            return self._met[one] == other
        self._met[one] = other
        return self._content(self._nodes[0][one - self._known], self._nodes[1][other - self._known])

    def changes(self, one: Any, other: Any) -> bool:
        return _each(lambda mine, its: mine[0] == its[0] and self._content(mine[1], its[1]), one, other)

    def _content(self, one: Packed, other: Packed) -> bool:
        name, own, inner, state = one
        its_name, its_own, its_inner, its_state = other
        same_state = state is its_state is None or _each(self._pair, state, its_state)
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
    """In an order that does not depend on that of the insertions, which no equality of dicts looks at."""
    dumped = [(json.dumps(key), value) for key, value in pairs]
    if any('["node", ' in key for key, _ in dumped):
        return pairs
    return [[key, value] for key, value in sorted(dumped, key=lambda pair: pair[0])]


def _shown(call: Call) -> str:
    arguments, nodes = call
    positional = [_text(each, nodes) for each in arguments[2][1]]
    named = [f"{json.loads(json.dumps(key))}={_text(value, nodes)}" for key, value in nodes[arguments[3][1]][2]]
    return f"({', '.join([*positional, *named])})"[:200]


def _answer_shown(answer: Any, known: list[Packed]) -> str:
    """`known`: the nodes that came with the call."""
    try:
        return _answer_text(answer, known)[:120]
    except (TypeError, ValueError, LookupError, AttributeError, RecursionError):
        return "what is no value"  # a candidate's process answers as it likes


def _answer_text(answer: Any, known: list[Packed]) -> str:
    if "value" not in answer:
        return str(answer.get("gone") or answer.get("uncrossable"))
    if answer.get("values") is not None:
        parts = [_text(each.get("value"), each.get("nodes", [])) for each in answer["values"][:MOST_SHOWN]]
        return f"an iterator of {', '.join(parts)}"
    text = _text(answer["value"], [*known, *answer["nodes"]])
    return f"raised {text}" if answer["raised"] else text


def _text(packed: Packed, nodes: list[Packed], depth: int = 0) -> str:
    if not isinstance(packed, list) or depth > 4:
        return repr(packed)[:MOST_LETTERS] if not isinstance(packed, list) else "..."

    def several(values: list[Packed]) -> str:
        return ", ".join(_text(each, nodes, depth + 1) for each in values[:MOST_SHOWN])

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
    """The name that stands last in it."""
    return packed[-1][:MOST_LETTERS] if isinstance(packed[-1], str) else "..."
