"""Values made plain data: what one side of a split run sends to the other (`plain.py` says how it looks)."""

from __future__ import annotations

import collections
import enum
import functools
import inspect
import json
import types
from typing import Any

from regrade.evaluators.inside.remote_calls.plain_values import (
    BY_ARGUMENTS,
    CODE,
    CONSTANTS,
    CONTAINERS,
    FIXED,
    LONGEST_INTEGER,
    SPECIAL,
    Packed,
    Side,
    UncrossableError,
    found_by_name,
    special,
)


class Packer:
    """Packs the values of one message; what can be changed in place becomes a node of `nodes`."""

    def __init__(self, side: Side, known: list[Any] | None = None) -> None:
        """`known`: the values of nodes that the other side has already, by their places."""
        self._side = side
        self._values: list[Any] = list(known or ())
        self._places = {id(value): place for place, value in enumerate(self._values)}
        self.first = len(self._values)
        self.nodes: list[Packed] = []

    @property
    def values(self) -> list[Any]:
        """Of the nodes, by their places."""
        return self._values

    def pack(self, value: Any) -> Packed:
        """Raises UncrossableError."""
        kind = type(value)
        if value is None or kind is bool or kind is str:
            return value
        if kind is int:
            if value.bit_length() > LONGEST_INTEGER:
                raise UncrossableError("an integer of more than a thousand digits")
            return value
        if kind is float:
            return value if value - value == 0 else ["float", repr(value)]
        if kind is bytes:
            return ["bytes", value.decode("latin-1")]
        if kind is tuple or kind is frozenset:
            return [kind.__name__, [self.pack(each) for each in value]]
        for name, constant in CONSTANTS.items():
            if value is constant:
                return ["constant", name]
        if kind in BY_ARGUMENTS:
            name = f"{kind.__module__}.{kind.__qualname__}"
            return ["value", name, [self.pack(each) for each in BY_ARGUMENTS[kind](value)]]
        return self._shared(value)

    def _shared(self, value: Any) -> Packed:
        if id(value) in self._places:
            return ["node", self._places[id(value)]]
        stand_in = self._side.known_by(value)
        if stand_in is not None:
            return ["number", *stand_in]
        kind = type(value)
        if kind in CONTAINERS:
            return self._node(value)
        if isinstance(value, BaseException):
            return self.pack_error(value)
        if isinstance(value, types.ModuleType):
            raise UncrossableError(f"the module {value.__name__}")
        if isinstance(value, types.TracebackType):  # nothing of it means anything on the other side
            return None
        named = self._named(value)
        if named is not None:
            return named
        is_builtin_too = self._side.name == "candidate" and isinstance(value, (*CONTAINERS, *FIXED))
        if is_builtin_too or self._side.is_own_class(kind):
            return self._instance(value)
        return self._by_number(value)

    def _named(self, value: Any) -> Packed | None:
        is_trusted = self._side.name == "tests"
        if isinstance(value, type | types.FunctionType | types.BuiltinFunctionType):
            module, name = str(getattr(value, "__module__", "")), str(getattr(value, "__qualname__", ""))
            is_method = isinstance(getattr(value, "__self__", None), types.ModuleType | None) is False
            is_kept = not (is_trusted or isinstance(value, type) or self._side.was_named(value))
            may_be_named = not is_method and not is_kept
            if may_be_named and self._side.may_name(module) and found_by_name(module, name) is value:
                self._side.note_named(value)
                return ["global", module, name]
            return None
        if is_trusted and type(value) is functools.partial:
            parts = [self.pack(each) for each in (value.func, value.args, value.keywords)]
            return ["partial", *parts]
        if is_trusted and isinstance(value, types.MethodType) and self._side.is_own_class(type(value.__self__)):
            return ["method", self.pack(value.__self__), value.__name__]
        is_told_apart = isinstance(value, FIXED) and not isinstance(value, enum.Enum)
        if is_told_apart or not self._side.is_own_class(type(value)) or not _state(value):
            sentinel = self._side.sentinel(value)
            return None if sentinel is None else ["global", *sentinel]
        return None

    def _instance(self, value: Any) -> Packed:
        if isinstance(value, enum.Enum):
            return ["member", self.pack(type(value)), value.name]
        return self._node(value)

    def _by_number(self, value: Any) -> Packed:
        looks: Packed
        kind, looks = "opaque", sorted(name for name in SPECIAL if special(value, name) is not None)
        if isinstance(value, type) and issubclass(value, BaseException):
            kind, looks = "error", [[each.__module__, each.__qualname__] for each in self._known_kinds(value)]
        elif isinstance(value, CODE) or (self._side.name == "candidate" and callable(value)):
            attributes = sorted(name for name in getattr(value, "__dict__", ()) if not name.startswith("__"))
            kind, looks = "callable", {"parameters": _parameters(value), "attributes": attributes}
        elif self._side.name == "candidate":  # whose objects answer as the candidate likes
            if "__next__" not in looks:
                raise UncrossableError(f"an object of {type(value).__module__}.{type(value).__qualname__}")
            kind, looks = "iterator", []
        return ["number", self._side.name, self._side.number(value), kind, looks]

    def pack_error(self, error: BaseException) -> Packed:
        """By the first of its classes that both sides have, so that a test may expect one of its bases."""
        kinds = [self.pack(kind) for kind in self._known_kinds(type(error))]
        if self._side.known_by(type(error)) or not self._side.may_name(type(error).__module__):
            kinds.insert(0, self.pack(type(error)))
        arguments: Packed
        try:
            arguments = [self.pack(each) for each in error.args]
            state = self.pack(dict(error.__dict__))
        except UncrossableError:
            arguments, state = [str(error)], ["node", self._add_node({})]
        origin = getattr(error, "__regrade_origin__", None)
        if self._side.name == "tests":
            origin = self._side.number(error)
        return ["error", kinds, arguments, state, origin]

    def _known_kinds(self, kind: type) -> list[type]:
        """Of the classes that an error is of, those that the other side has as well."""
        return [
            each
            for each in kind.__mro__
            if self._side.may_name(each.__module__) and found_by_name(each.__module__, each.__qualname__) is each
        ]

    def _node(self, value: Any) -> Packed:
        place = self._add_place(value)
        self.nodes.append(None)
        self.nodes[place - self.first] = self.content(value)
        return ["node", place]

    def _add_place(self, value: Any) -> int:
        place = len(self._values)
        self._values.append(value)  # and so it lives as long as its id counts
        self._places[id(value)] = place
        return place

    def _add_node(self, value: Any) -> int:
        place: int = self._node(value)[1]
        return place

    def content(self, value: Any) -> Packed:
        """What is in a node, after `[tag, class]`."""
        kind = type(value)
        base = next((each for each in (*CONTAINERS, *FIXED) if isinstance(value, each)), object)
        own = self.pack(kind) if self._side.is_own_class(kind) else None
        inner = self._inner(value, base)
        state = None if own is None else [[name, self.pack(each)] for name, each in _state(value)]
        return ["object" if base is object else base.__name__, own, inner, state]

    def _inner(self, value: Any, base: Any) -> Packed:
        if base is object:
            return None
        if issubclass(base, dict):
            pairs = [[self.pack(key), self.pack(each)] for key, each in base.items(value)]
            return [self.pack(value.default_factory), pairs] if base is collections.defaultdict else pairs
        if base is collections.deque:
            return [value.maxlen, [self.pack(each) for each in base.__iter__(value)]]
        if base is bytearray:
            return value.decode("latin-1")
        if base in (list, set):
            return [self.pack(each) for each in base.__iter__(value)]
        return self.pack(_as(base, value))


def changes(packer: Packer, nodes: list[Packed]) -> list[Packed]:
    """`[place, content]` of the known nodes that are no longer as they came."""
    found = []
    for place, node in enumerate(nodes):
        now = packer.content(packer.values[place])
        if _canonical(now) != _canonical(node):
            found.append([place, now])
    return found


def _canonical(node: Packed) -> str:
    if node[0] == "set":
        return json.dumps([node[0], node[1], sorted(map(json.dumps, node[2])), node[3]])
    return json.dumps(node)


def _parameters(function: Any) -> list[Packed] | None:
    """Name, kind and whether there is a default, of each parameter: some code calls a function by what it takes."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return None
    return [[each.name, int(each.kind), each.default is not each.empty] for each in signature.parameters.values()]


def _state(value: Any) -> list[tuple[str, Any]]:
    """Attributes of an instance: those in its `__dict__`, and its slots."""
    found = list(getattr(value, "__dict__", {}).items())
    for kind in type(value).__mro__:
        for name, member in vars(kind).items():
            if isinstance(member, types.MemberDescriptorType):
                try:
                    found.append((name, member.__get__(value, type(value))))
                except AttributeError:  # not set
                    continue
    return found


def _as(base: Any, value: Any) -> Any:
    """The content of an instance of a subclass, as the type that it is a subclass of."""
    if base is tuple:
        return tuple(tuple.__iter__(value))
    if base is frozenset:
        return frozenset(frozenset.__iter__(value))
    if base is str:
        return str.__str__(value)
    if base is bytes:
        return bytes(bytes.__iter__(value))
    return base.__add__(value, 0) if base is int else float.__add__(value, 0.0)
