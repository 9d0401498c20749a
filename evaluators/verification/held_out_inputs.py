"""Held-out inputs: calls that no test makes, on which a patch's functions are compared with the reference's.

Hypothesis draws them from the calls of the tests: containers and scalars are varied, near and far, at edges and in
structure, and arguments of several calls are combined. Other arguments (instances of the repository's classes,
functions by name) stay as in the tests, since a state that no code has made is no evidence. Only inputs count that the
reference answers without an error, and twice equally.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from regrade.datasets.reproducible_draws import reproducible_draws
from regrade.evaluators.inside.remote_calls.plain_values import Packed

Call = tuple[list[Packed], list[Packed]]
"""Arguments (module, key, positional, keywords) and nodes of a remote call (see
`regrade.evaluators.inside.remote_calls.plain_values`).
"""
RECORDED_CALLS = 60
"""Calls of each function from which inputs are drawn."""
INPUTS_PER_FUNCTION = 100
"""New inputs for each function."""
MIN_INPUTS = 8
"""Fewer inputs that the reference answers are no evidence."""
CONTAINERS = ("list", "dict", "set", "deque", "OrderedDict")
VARIED_TEXT, VARIED_NUMBER, VARIED_LENGTH = 40, 3, 6
EDGES = (0, 1, -1, 2, 10, 100, 255, 256, 1000)
WIDE_NUMBERS = st.one_of([st.integers(-(1 << bits) // 4, 1 << bits) for bits in (4, 6, 8, 10, 12)])
"""No wider: many functions loop as often, or take so much memory."""
TEXT_CHANGES: tuple[Callable[[str], str], ...] = (
    str.upper,
    str.lower,
    str.title,
    str.strip,
    lambda text: text[::-1],
    lambda text: text[: len(text) // 2],
)
WIDE_FLOATS = st.one_of(st.sampled_from([0.0, -0.0, 0.5, -1.5, 1e-9, 1e6]), st.floats(-1e4, 1e4, width=32))
"""Without infinities and NaN."""


@dataclass(frozen=True)
class Leaf:
    """A value without varied parts, with the nodes that it needs."""

    packed: Packed
    nodes: tuple[Packed, ...] = ()


@dataclass(frozen=True)
class Inner:
    """A plain container."""

    name: str
    parts: tuple[Any, ...]
    """Trees; for a dict, pairs of trees."""


ValueTree = Leaf | Inner


def generate_inputs(calls: Sequence[Call], number: int) -> list[Call]:
    """Generate inputs similar to the calls, but different from each of them; deterministic.

    Args:
        number: at most, for each function.
    """
    by_function: dict[str, list[Call]] = {}
    for call in calls:
        by_function.setdefault(f"{call[0][0]}:{call[0][1]}", []).append(call)
    return [call for name in sorted(by_function) for call in _inputs_of(by_function[name], number)]


def _inputs_of(calls: list[Call], number: int) -> list[Call]:
    seen = {json.dumps(call) for call in calls}
    trees = [tuple(_tree(packed, nodes) for packed in arguments[2:]) for arguments, nodes in calls]
    pool = _ValuePool()
    for pair in trees:
        for tree in pair:
            pool.add(tree)
    strategy = st.sampled_from(trees).flatmap(lambda pair: st.tuples(*[pool.arguments(trees, pair, n) for n in (0, 1)]))
    inputs: list[Call] = []

    @seed(0)
    @settings(
        max_examples=2 * number,
        database=None,
        deadline=None,
        derandomize=False,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def draw(pair: tuple[ValueTree, ValueTree]) -> None:
        nodes: list[Packed] = []
        arguments = [*calls[0][0][:2], *[_packed(tree, nodes) for tree in pair]]
        if json.dumps([arguments, nodes]) not in seen and len(inputs) < number:
            seen.add(json.dumps([arguments, nodes]))
            inputs.append((arguments, nodes))

    with reproducible_draws():
        draw()
    return inputs


class _ValuePool:
    """The scalars of the calls by type, from which new inputs are drawn."""

    def __init__(self) -> None:
        self._texts: set[str] = {""}
        self._numbers: set[int] = set(EDGES)
        self._strategies: dict[int, tuple[ValueTree, st.SearchStrategy[ValueTree]]] = {}
        """By the id of a tree, which is kept so that its id stays unique."""

    def add(self, tree: ValueTree) -> None:
        if isinstance(tree, Inner):
            for part in tree.parts:
                for subtree in part if tree.name in ("dict", "OrderedDict") else (part,):
                    self.add(subtree)
        elif isinstance(tree.packed, str):
            self._texts.add(tree.packed)
        elif type(tree.packed) is int:
            self._numbers.add(tree.packed)

    def arguments(self, calls: Sequence[Sequence[Any]], call: Sequence[Any], place: int) -> st.SearchStrategy[Any]:
        """The positional (place 0) or named (1) arguments of a call, varied, or those that other calls have there."""
        tree: Inner = call[place]
        others = [other[place] for other in calls if len(other[place].parts) == len(tree.parts)]
        if place == 1:
            others = [other for other in others if _names(other) == _names(tree)]
        varied: list[st.SearchStrategy[Any]] = []
        for number in range(len(tree.parts)):
            alike = [other.parts[number] for other in others]
            if place == 1:
                varied.append(st.tuples(st.just(tree.parts[number][0]), self._like_any([value for _, value in alike])))
            else:
                varied.append(self._like_any(alike))
        return st.tuples(*varied).map(lambda drawn: Inner(tree.name, tuple(drawn)))

    def _like_any(self, trees: Sequence[ValueTree]) -> st.SearchStrategy[ValueTree]:
        return st.sampled_from(trees).flatmap(lambda tree: self.like(tree))

    def like(self, tree: ValueTree) -> st.SearchStrategy[ValueTree]:
        """Trees similar to this one."""
        if id(tree) not in self._strategies:  # most of the time is that of making strategies
            self._strategies[id(tree)] = (tree, self._like(tree))
        return self._strategies[id(tree)][1]

    def _like(self, tree: ValueTree) -> st.SearchStrategy[ValueTree]:
        if isinstance(tree, Leaf):
            return self._scalar(tree)
        if tree.name in ("dict", "OrderedDict"):
            return self._mapping(tree)
        alike = [self.like(part) for part in tree.parts]
        same_length = st.tuples(*alike)
        if not alike or (tree.name == "tuple" and len({_kind(part) for part in tree.parts}) > 1):
            return same_length.map(lambda parts: Inner(tree.name, tuple(parts)))
        some = st.lists(st.one_of(alike[:8]), max_size=len(alike) + VARIED_LENGTH).map(tuple)
        ordered = st.permutations(tree.parts[:VARIED_TEXT]).map(tuple)
        doubled = st.lists(st.sampled_from(tree.parts), max_size=len(alike) + VARIED_LENGTH).map(tuple)
        return st.one_of(same_length, some, ordered, doubled).map(lambda parts: Inner(tree.name, tuple(parts)))

    def _mapping(self, tree: Inner) -> st.SearchStrategy[ValueTree]:
        if not tree.parts:
            return st.just(tree)
        pairs = [st.tuples(st.just(key), self.like(value)) for key, value in tree.parts]
        new = st.tuples(
            st.one_of([self.like(key) for key, _ in tree.parts[:8]]),
            st.one_of([self.like(value) for _, value in tree.parts[:8]]),
        )
        some = st.lists(st.sampled_from(range(len(pairs))), unique=True).flatmap(
            lambda indices: st.tuples(*[pairs[index] for index in indices], *([new] if len(indices) % 2 else []))
        )
        return some.map(lambda drawn: Inner(tree.name, tuple(drawn)))

    def _scalar(self, leaf: Leaf) -> st.SearchStrategy[ValueTree]:
        value = leaf.packed
        same = st.just(leaf)
        if isinstance(value, bool):
            return st.booleans().map(Leaf)
        if isinstance(value, int):
            near = st.integers(value - VARIED_NUMBER, value + VARIED_NUMBER)
            return st.one_of(near, st.sampled_from(sorted(self._numbers)), st.integers(0, 20), WIDE_NUMBERS).map(Leaf)
        if isinstance(value, float):
            near_value = st.floats(value - VARIED_NUMBER, value + VARIED_NUMBER, allow_nan=False, allow_infinity=False)
            return st.one_of(same, near_value.map(Leaf), WIDE_FLOATS.map(Leaf))
        if isinstance(value, str):
            return self._text(value).map(Leaf)
        return same

    def _text(self, value: str) -> st.SearchStrategy[str]:
        letters = "".join(sorted(set("".join(self._texts)) | set("ab")))
        made = st.text(letters, max_size=min(VARIED_TEXT, len(value) + VARIED_NUMBER))
        used = st.sampled_from(sorted(self._texts))
        joined = st.tuples(used, st.sampled_from(["", " ", "\n", "-"]), used).map("".join)
        changed = st.tuples(used, st.sampled_from(TEXT_CHANGES)).map(lambda pair: pair[1](pair[0]))
        return st.one_of(used, made, joined, changed, st.text(max_size=VARIED_LENGTH))


def _names(arguments: Inner) -> list[Any]:
    """The names of named arguments."""
    return [_comparable(name) for name, _ in arguments.parts]


def _kind(tree: ValueTree) -> str:
    return tree.name if isinstance(tree, Inner) else type(tree.packed).__name__


# ---------------------------------------------------------------- values as trees, and back


def _tree(packed: Packed, nodes: list[Packed], above: frozenset[int] = frozenset()) -> ValueTree:
    if isinstance(packed, list) and packed[0] == "tuple":
        return Inner("tuple", tuple(_tree(part, nodes, above) for part in packed[1]))
    if isinstance(packed, list) and packed[0] == "node" and packed[1] not in above:
        name, own, inner, _ = nodes[packed[1]]
        below = above | {packed[1]}
        if own is None and name in ("dict", "OrderedDict"):
            pairs = tuple((_tree(key, nodes, below), _tree(value, nodes, below)) for key, value in inner)
            return Inner(name, pairs)
        if own is None and name in ("list", "set"):
            return Inner(name, tuple(_tree(part, nodes, below) for part in inner))
    own_nodes: list[Packed] = []
    return Leaf(_moved(packed, nodes, {}, own_nodes), tuple(own_nodes))


def _packed(tree: ValueTree, nodes: list[Packed]) -> Packed:
    if isinstance(tree, Leaf):
        return _moved(tree.packed, list(tree.nodes), {}, nodes)
    if tree.name == "tuple":
        return ["tuple", [_packed(part, nodes) for part in tree.parts]]
    number = len(nodes)
    nodes.append(None)
    if tree.name in ("dict", "OrderedDict"):
        unique = {json.dumps(_comparable(key)): (key, value) for key, value in tree.parts}
        inner = [[_packed(key, nodes), _packed(value, nodes)] for key, value in unique.values()]
    else:
        parts: Iterable[ValueTree] = tree.parts
        if tree.name == "set":
            parts = {json.dumps(_comparable(part)): part for part in tree.parts}.values()
        inner = [_packed(part, nodes) for part in parts]
    nodes[number] = [tree.name, None, inner, None]
    return ["node", number]


def _comparable(tree: ValueTree) -> Any:
    if isinstance(tree, Leaf):
        return [tree.packed, tree.nodes]
    return [
        tree.name,
        [[_comparable(one) for one in part] if isinstance(part, tuple) else _comparable(part) for part in tree.parts],
    ]


def _moved(packed: Packed, nodes: list[Packed], moved: dict[int, int], into: list[Packed]) -> Packed:
    """The value, with its nodes appended to `into` and renumbered; `moved`: old number -> new number."""

    def node(number: int) -> Packed:
        if number not in moved:
            moved[number] = len(into)
            into.append(None)
            into[moved[number]] = _content(nodes[number], lambda part: _moved(part, nodes, moved, into))
        return ["node", moved[number]]

    return _rebuilt(packed, node, lambda part: _moved(part, nodes, moved, into))


def _rebuilt(packed: Packed, node: Callable[[int], Packed], move: Callable[[Packed], Packed]) -> Packed:
    """The value with its parts moved, by its tag."""
    if not isinstance(packed, list):
        return packed
    tag = packed[0]
    if tag == "node":
        return node(packed[1])
    if tag in ("tuple", "frozenset"):
        return [tag, [move(part) for part in packed[1]]]
    if tag == "value":
        return [tag, packed[1], [move(part) for part in packed[2]]]
    if tag == "partial":
        return [tag, *[move(part) for part in packed[1:]]]
    if tag == "method":
        return [tag, move(packed[1]), packed[2]]
    if tag == "error":
        kinds, arguments, state, origin = packed[1:]
        return [tag, [move(part) for part in kinds], [move(part) for part in arguments], move(state), origin]
    return packed


def _content(content: Packed, move: Callable[[Packed], Packed]) -> Packed:
    name, own, inner, state = content
    if inner is not None and name in ("dict", "OrderedDict", "Counter"):
        inner = [[move(key), move(value)] for key, value in inner]
    elif name == "defaultdict":
        inner = [move(inner[0]), [[move(key), move(value)] for key, value in inner[1]]]
    elif name == "deque":
        inner = [inner[0], [move(part) for part in inner[1]]]
    elif name in ("list", "set"):
        inner = [move(part) for part in inner]
    elif name not in ("bytearray", "object"):
        inner = move(inner)
    return [name, own, inner, state and [[key, move(value)] for key, value in state]]
