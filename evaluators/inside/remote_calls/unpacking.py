"""Conversion of plain data to values, or to proxies of objects of the other process (format: `plain_values.py`)."""

from __future__ import annotations

import collections
import enum
import functools
import operator
import types
from collections.abc import Callable
from typing import Any

from regrade.evaluators.inside.remote_calls.plain_values import (
    CONSTANTS,
    CONTAINERS,
    FIXED,
    HEAP_TYPE,
    MAKERS,
    TYPES_BY_NAME,
    Packed,
    Side,
    UncrossableError,
    replaces_method,
)

_BASES: dict[str, type] = {base.__name__: base for base in (*CONTAINERS, *FIXED, object)}
_FIXED_NAMES = frozenset(base.__name__ for base in FIXED)


class Unpacker:
    """Unpacks the values of one message."""

    def __init__(self, side: Side, nodes: list[Packed], shared: list[Any] | None = None) -> None:
        self._side = side
        self._first = len(shared or ())
        self._nodes = nodes
        self.values: list[Any] = [*(shared or ()), *[None] * len(nodes)]
        self._is_made = [False] * len(nodes)

    def unpack(self, packed: Packed) -> Any:
        """Raises UncrossableError: the data is not in the format of `Packer`."""
        try:
            return self._unpack(packed)
        except (TypeError, ValueError, LookupError, AttributeError, RecursionError, OverflowError) as error:
            raise UncrossableError(f"invalid value received: {type(error).__name__}: {str(error)[:200]}") from None

    def change(self, changed: list[Packed]) -> None:
        """Apply the changes that the other side made to shared values. Raises UncrossableError."""
        try:
            for position, node in sorted(changed, key=operator.itemgetter(0), reverse=True):  # inner ones first
                if not 0 <= position < self._first:
                    raise ValueError("not a shared value")
                value = self.values[position]
                if node[3] is not None and hasattr(value, "__dict__"):
                    value.__dict__.clear()
                self._fill(value, node)
        except (TypeError, ValueError, LookupError, AttributeError, RecursionError, OverflowError) as error:
            raise UncrossableError(f"invalid change received: {type(error).__name__}: {str(error)[:200]}") from None

    def _unpack(self, packed: Packed) -> Any:
        if not isinstance(packed, list):
            return packed
        tag, *rest = packed
        unpack: Callable[..., Any] = getattr(self, f"_{tag}_value", self._unknown)
        return unpack(*rest)

    def _unknown(self, *_: Any) -> Any:
        raise ValueError("an unknown tag")

    def _float_value(self, text: str) -> float:
        return float(text)

    def _bytes_value(self, text: str) -> bytes:
        return text.encode("latin-1")

    def _tuple_value(self, values: list[Packed]) -> tuple[Any, ...]:
        return tuple([self._unpack(item) for item in values])

    def _frozenset_value(self, values: list[Packed]) -> frozenset[Any]:
        return frozenset([self._unpack(item) for item in values])

    def _constant_value(self, name: str) -> Any:
        return CONSTANTS[name]

    def _value_value(self, name: str, arguments: list[Packed]) -> Any:
        kind = TYPES_BY_NAME[name]
        return MAKERS.get(kind, kind)(*[self._unpack(item) for item in arguments])

    def _number_value(self, side: str, number: int, kind: str, traits: Packed) -> Any:
        return self._side.proxy(side, number, kind, traits)

    def _global_value(self, module: str, name: str) -> Any:
        return self._side.resolve(module, name)

    def _partial_value(self, function: Packed, arguments: Packed, keywords: Packed) -> Any:
        self._only_from_the_tests()
        return functools.partial(self._unpack(function), *self._unpack(arguments), **self._unpack(keywords))

    def _method_value(self, owner: Packed, name: str) -> Any:
        self._only_from_the_tests()
        value = self._unpack(owner)
        if not self._side.is_own_class(type(value)):
            raise ValueError("a method of a class outside the repository")
        return types.MethodType(getattr(type(value), name), value)

    def _only_from_the_tests(self) -> None:
        """Functions of a candidate stay on its side: the tests' side calls them by number."""
        if self._side.name == "tests":
            raise ValueError("a function")

    def _member_value(self, classes: list[Packed], name: str, plain: Packed) -> Any:
        """A member of an enumeration that this side has, or the plain value that it equals."""
        kind = self._first_class(classes, enum.Enum)
        if kind is not None and name in kind.__members__:
            return kind[name]
        if plain is None:
            raise ValueError(f"the member {name} of an unknown enumeration")
        return self._unpack(plain)

    def _error_value(self, kinds: list[Packed], arguments: list[Packed], state: Packed, origin: int | None) -> Any:
        if origin is not None and self._side.name == "tests":
            error = self._side.proxy("tests", origin, "", None)
            if isinstance(error, BaseException):
                return error
        for packed in kinds:
            try:
                kind = self._unpack(packed)
            except UncrossableError:
                continue
            if isinstance(kind, type) and issubclass(kind, Exception | SystemExit):
                break
        else:
            kind = RuntimeError
        values = [self._unpack(item) for item in arguments]
        error = kind(*values) if kind.__module__ == "builtins" else kind.__new__(kind, *values)
        error.args = tuple(values)
        error.__dict__.update(self._unpack(state))
        if origin is not None:
            error.__regrade_origin__ = origin
        return error

    def _node_value(self, position: int) -> Any:
        index = position - self._first
        if index < 0:
            return self.values[position]
        if not self._is_made[index]:
            self._is_made[index] = True
            node = self._nodes[index]
            self.values[position] = self._shell(node)
            if node[0] not in _FIXED_NAMES or node[3]:
                self._fill(self.values[position], node)
        return self.values[position]

    def _own_class(self, packed: Packed) -> Any:
        kind = self._unpack(packed)
        if not isinstance(kind, type) or not self._side.is_own_class(kind):
            raise ValueError("not a class of the repository")
        return kind

    def _first_class(self, classes: list[Packed], base: type) -> Any:
        """The first class that this side has, if it is one of the base; None: there is none."""
        for packed in classes:
            try:
                kind = self._own_class(packed)
            except (UncrossableError, ValueError):
                continue
            if issubclass(kind, base):
                return kind
        return None

    def _class_of(self, node: Packed, base: Any) -> Any:
        """The class of an instance; on the tests' side, which lacks classes that a patch adds, its builtin base."""
        own = node[1]
        if own is None:
            return base
        is_extended = self._side.name == "candidate" and len(own) > 1
        kind = self._first_class([*own[1:], own[0]] if is_extended else own, object)
        if kind is None and (base is object or self._side.name == "candidate"):
            raise ValueError(f"an instance of {own[0][2]}, which is no class of the repository here")
        return base if kind is None else kind

    def _shell(self, node: Packed) -> Any:
        """The value of a node without its content."""
        name, _, inner, state = node
        base: Any = _BASES[name]
        kind = self._class_of(node, base)
        if base is object and issubclass(kind, tuple):  # a patch made another kind of class of a named tuple
            attributes = dict(state)
            return tuple.__new__(kind, [self._unpack(attributes[field]) for field in kind._fields])
        if base is tuple and not issubclass(kind, tuple):
            shell = object.__new__(kind)
            for attribute, item in zip(kind.__match_args__, inner[1], strict=True):
                self._set(shell, attribute, self._unpack(item))
            return shell
        if not issubclass(kind, base):
            raise ValueError(f"{kind.__qualname__} is not a subclass of {name}")
        if base in FIXED:
            return base.__new__(kind, self._unpack(inner))
        static: Any = next(builtin for builtin in kind.__mro__ if not builtin.__flags__ & HEAP_TYPE)
        shell = static.__new__(kind)
        if base is collections.deque:
            collections.deque.__init__(shell, (), inner[0])
        elif base is not object and base is not collections.Counter:
            base.__init__(shell)
        return shell

    def _set(self, value: Any, attribute: str, content: Any) -> bool:
        """Set an attribute past the code of the class; False: the class has no place for it."""
        slot = getattr(type(value), attribute, None)
        if isinstance(slot, types.MemberDescriptorType):
            slot.__set__(value, content)
        elif hasattr(value, "__dict__"):
            value.__dict__[attribute] = content
        else:
            return False
        return True

    def _note_class(self, value: Any, own: list[Packed], unfit: list[tuple[str, Any]]) -> None:
        """Note what the other side needs to take the value for an instance of its own class."""
        kind = type(value)
        if self._side.name == "candidate":
            if len(own) > 1 and self._first_class(own[:1], object) is not kind:
                self._side.note_extended(value)
        else:
            is_first = own[0][1:] == [kind.__module__, kind.__qualname__]
            names = [] if is_first else [(name[1], name[2]) for name in own]
            if names or unfit or any(self._side.received(value)[1:]):
                self._side.note_received(value, names, unfit)

    def _fill(self, value: Any, node: Packed) -> None:
        name, own, inner, state = node
        base: Any = _BASES[name]
        if isinstance(value, tuple) is not issubclass(base, tuple):
            return  # made of its fields
        if base not in type(value).__mro__:
            raise ValueError(f"not an instance of {name}")
        unfit: list[tuple[str, Any]] = []
        for attribute, packed in (state or ()) if type(value) is not base else ():
            if self._side.name == "tests" and replaces_method(value, attribute):
                kind = type(value).__qualname__
                raise UncrossableError(f"an instance of {kind} has {attribute} as an attribute, in place of a method")
            if not self._side.is_computed(value, attribute):
                content = self._unpack(packed)
                if not self._set(value, attribute, content):
                    unfit.append((attribute, content))
        if own is not None and type(value) is not base:
            self._note_class(value, own, unfit)
        if base in (object, *FIXED):
            return
        if base is bytearray:
            value[:] = inner.encode("latin-1")
            return
        if base is collections.defaultdict:
            factory, inner = inner
            value.default_factory = self._unpack(factory)
        if base is collections.deque:
            inner = inner[1]
        if issubclass(base, dict):
            pairs = [(self._unpack(key), self._unpack(item)) for key, item in inner]
            base.clear(value)
            setter = collections.OrderedDict if base is collections.OrderedDict else dict
            for key, item in pairs:
                setter.__setitem__(value, key, item)
            return
        values = [self._unpack(item) for item in inner]
        base.clear(value)
        (base.update if base is set else base.extend)(value, values)
