"""Conversion of values to plain data for the other process (format: `plain_values.py`)."""

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
    global_named,
    special_method,
)


class Packer:
    """Packs the values of one message; what can be changed in place becomes a node of `nodes`."""

    def __init__(self, side: Side, shared: list[Any] | None = None) -> None:
        """`shared`: the values of the nodes that the other side already has, in order."""
        self._side = side
        self._values: list[Any] = list(shared or ())
        self._positions = {id(value): position for position, value in enumerate(self._values)}
        self.first = len(self._values)
        self.nodes: list[Packed] = []

    @property
    def values(self) -> list[Any]:
        """The values of the nodes, by position."""
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
            return [kind.__name__, [self.pack(item) for item in value]]
        for name, constant in CONSTANTS.items():
            if value is constant:
                return ["constant", name]
        if kind in BY_ARGUMENTS:
            name = f"{kind.__module__}.{kind.__qualname__}"
            return ["value", name, [self.pack(item) for item in BY_ARGUMENTS[kind](value)]]
        return self._shared(value)

    def _shared(self, value: Any) -> Packed:
        if id(value) in self._positions:
            return ["node", self._positions[id(value)]]
        reference = self._side.reference_of(value)
        if reference is not None:
            return ["number", *reference]
        kind = type(value)
        if kind in CONTAINERS:
            return self._node(value)
        if isinstance(value, BaseException):
            return self.pack_error(value)
        if isinstance(value, types.ModuleType):
            raise UncrossableError(f"the module {value.__name__}")
        if isinstance(value, types.TracebackType):  # meaningless on the other side
            return None
        named = self._named(value)
        if named is not None:
            return named
        is_builtin_too = self._side.name == "candidate" and isinstance(value, (*CONTAINERS, *FIXED))
        if is_builtin_too or self._side.class_names(kind):
            return self._instance(value)
        return self._by_number(value)

    def _named(self, value: Any) -> Packed | None:
        is_trusted = self._side.name == "tests"
        if isinstance(value, type | types.FunctionType | types.BuiltinFunctionType):
            module, name = str(getattr(value, "__module__", "")), str(getattr(value, "__qualname__", ""))
            is_method = isinstance(getattr(value, "__self__", None), types.ModuleType | None) is False
            is_local = not (is_trusted or isinstance(value, type) or self._side.was_named(value))
            may_be_named = not is_method and not is_local
            if may_be_named and self._side.may_name(module) and global_named(module, name) is value:
                self._side.note_named(value)
                return ["global", module, name]
            return None
        if is_trusted and type(value) is functools.partial:
            parts = [self.pack(item) for item in (value.func, value.args, value.keywords)]
            return ["partial", *parts]
        if is_trusted and isinstance(value, types.MethodType) and self._side.is_own_class(type(value.__self__)):
            return ["method", self.pack(value.__self__), value.__name__]
        is_subclass_instance = isinstance(value, FIXED) and not isinstance(value, enum.Enum)
        if is_subclass_instance or not self._side.is_own_class(type(value)) or not attributes_of(value):
            sentinel = self._side.sentinel(value)
            return None if sentinel is None else ["global", *sentinel]
        return None

    def _instance(self, value: Any) -> Packed:
        if isinstance(value, enum.Enum):
            base = next((builtin for builtin in FIXED if isinstance(value, builtin)), None)
            plain = None if base is None else self.pack(_as(base, value))
            return ["member", self._classes(value), value.name, plain]
        return self._node(value)

    def _classes(self, value: Any) -> list[Packed]:
        """The names of the value's class and of its bases, among which the other side takes the first that it has."""
        names = self._side.class_names(type(value))
        _, more, _ = self._side.received(value)
        return [["global", *name] for name in (*names, *more)]

    def _by_number(self, value: Any) -> Packed:
        traits: Packed
        kind, traits = "opaque", sorted(name for name in SPECIAL if special_method(value, name) is not None)
        if isinstance(value, type) and issubclass(value, BaseException):
            kind, traits = "error", [[base.__module__, base.__qualname__] for base in self._shared_bases(value)]
        elif isinstance(value, CODE) or (self._side.name == "candidate" and callable(value)):
            attributes = sorted(name for name in getattr(value, "__dict__", ()) if not name.startswith("__"))
            kind, traits = "callable", {"parameters": _parameters(value), "attributes": attributes}
        elif self._side.name == "candidate":  # its objects may return any result
            if "__next__" not in traits:
                raise UncrossableError(f"an object of {type(value).__module__}.{type(value).__qualname__}")
            kind, traits = "iterator", []
        return ["number", self._side.name, self._side.number(value), kind, traits]

    def pack_error(self, error: BaseException) -> Packed:
        """Packs the classes that both sides have, so that a test can expect any of them."""
        kinds = [packed for kind in self._shared_bases(type(error)) for packed in self._names_of_error(kind)]
        if self._side.reference_of(type(error)) or not self._side.may_name(type(error).__module__):
            kinds.insert(0, self.pack(type(error)))
        arguments: Packed
        try:
            arguments = [self.pack(item) for item in error.args]
            state = self.pack(dict(error.__dict__))
        except UncrossableError:
            arguments, state = [str(error)], ["node", self._add_node({})]
        origin = getattr(error, "__regrade_origin__", None)
        if self._side.name == "tests":
            origin = self._side.number(error)
        return ["error", kinds, arguments, state, origin]

    def _names_of_error(self, kind: type) -> list[Packed]:
        others = [["global", *name] for name in self._side.other_names(kind)]
        return [self.pack(kind), *others]

    def _shared_bases(self, kind: type) -> list[type]:
        """The classes of an error that the other side also has."""
        return [
            base
            for base in kind.__mro__
            if self._side.may_name(base.__module__) and global_named(base.__module__, base.__qualname__) is base
        ]

    def _node(self, value: Any) -> Packed:
        position = self._add_value(value)
        self.nodes.append(None)
        self.nodes[position - self.first] = self.content(value)
        return ["node", position]

    def _add_value(self, value: Any) -> int:
        position = len(self._values)
        self._values.append(value)  # keeps its id unique
        self._positions[id(value)] = position
        return position

    def _add_node(self, value: Any) -> int:
        position: int = self._node(value)[1]
        return position

    def content(self, value: Any) -> Packed:
        """Content of a node: `[tag, classes, inner, state]`."""
        base = next((builtin for builtin in (*CONTAINERS, *FIXED) if isinstance(value, builtin)), object)
        own = self._classes(value) or None
        inner = self._inner(value, base)
        state = None
        if own is not None:
            attributes = [*attributes_of(value), *self._side.received(value)[2]]
            state = [[name, self.pack(attribute)] for name, attribute in attributes]
            state += [
                [name, packed]
                for name, attribute in self._side.computed(value)
                for packed in self._if_it_crosses(attribute)
            ]
        return ["object" if base is object else base.__name__, own, inner, state]

    def _if_it_crosses(self, value: Any) -> list[Packed]:
        """The packed value; nothing if it can't cross, and then no node of it stays."""
        before = (len(self._values), len(self.nodes))
        try:
            return [self.pack(value)]
        except UncrossableError:
            for dropped in self._values[before[0] :]:
                self._positions.pop(id(dropped), None)
            del self._values[before[0] :], self.nodes[before[1] :]
            return []

    def _inner(self, value: Any, base: Any) -> Packed:
        if base is object:
            return None
        if issubclass(base, dict):
            pairs = [[self.pack(key), self.pack(item)] for key, item in base.items(value)]
            return [self.pack(value.default_factory), pairs] if base is collections.defaultdict else pairs
        if base is collections.deque:
            return [value.maxlen, [self.pack(item) for item in base.__iter__(value)]]
        if base is bytearray:
            return value.decode("latin-1")
        if base in (list, set):
            return [self.pack(item) for item in base.__iter__(value)]
        return self.pack(_as(base, value))


def changes(packer: Packer, nodes: list[Packed]) -> list[Packed]:
    """`[position, content]` of the received nodes that have changed since."""
    changed = []
    for position, node in enumerate(nodes):
        now = packer.content(packer.values[position])
        if _canonical(now) != _canonical(node):
            changed.append([position, now])
    return changed


def _canonical(node: Packed) -> str:
    """The content without the names of its class, of which each side has others."""
    name, _, inner, state = node
    return json.dumps([name, sorted(map(json.dumps, inner)) if name == "set" else inner, state and sorted(state)])


def _parameters(function: Any) -> list[Packed] | None:
    """Name, kind and presence of a default of each parameter: some code inspects the signature of a function."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return None
    return [[item.name, int(item.kind), item.default is not item.empty] for item in signature.parameters.values()]


def attributes_of(value: Any) -> list[tuple[str, Any]]:
    """Attributes of an instance: of its `__dict__`, and its slots."""
    attributes = list(getattr(value, "__dict__", {}).items())
    for kind in type(value).__mro__:
        for name, member in vars(kind).items():
            if isinstance(member, types.MemberDescriptorType):
                try:
                    attributes.append((name, member.__get__(value, type(value))))
                except AttributeError:  # not set
                    continue
    return attributes


def _as(base: Any, value: Any) -> Any:
    """The content of an instance of a subclass, as a value of the base."""
    if base is tuple:
        return tuple(tuple.__iter__(value))
    if base is frozenset:
        return frozenset(frozenset.__iter__(value))
    if base is str:
        return str.__str__(value)
    if base is bytes:
        return bytes(bytes.__iter__(value))
    return base.__add__(value, 0) if base is int else float.__add__(value, 0.0)
