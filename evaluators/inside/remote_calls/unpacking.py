"""Conversion of plain data to values, or to proxies of objects of the other process (format: `plain_values.py`)."""

from __future__ import annotations

import collections
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

    def _member_value(self, kind: Packed, name: str) -> Any:
        return self._own_class(kind)[name]

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

    def _class_of(self, packed: Packed, base: Any) -> Any:
        """The class of an instance; on the tests' side, which lacks classes that a patch adds, its builtin base."""
        try:
            return self._own_class(packed)
        except (UncrossableError, ValueError):
            if base is object or self._side.name == "candidate":
                raise
            return base

    def _shell(self, node: Packed) -> Any:
        """The value of a node without its content."""
        name, own, inner, _ = node
        base: Any = _BASES[name]
        kind = base if own is None else self._class_of(own, base)
        if not issubclass(kind, base):
            raise ValueError(f"{kind.__qualname__} is not a subclass of {name}")
        if base in FIXED:
            return base.__new__(kind, self._unpack(inner))
        static: Any = next(builtin for builtin in kind.__mro__ if not builtin.__flags__ & HEAP_TYPE)
        shell: Any = static.__new__(kind)
        if base is collections.deque:
            collections.deque.__init__(shell, (), inner[0])
        elif base is not object and base is not collections.Counter:
            base.__init__(shell)
        return shell

    def _fill(self, value: Any, node: Packed) -> None:
        name, _, inner, state = node
        base: Any = _BASES[name]
        if base not in type(value).__mro__:
            raise ValueError(f"not an instance of {name}")
        for attribute, packed in (state or ()) if type(value) is not base else ():
            slot = getattr(type(value), attribute, None)
            if self._side.name == "tests" and replaces_method(value, attribute):
                raise ValueError(f"{attribute}, in place of a method of {type(value).__qualname__}")
            if isinstance(slot, types.MemberDescriptorType):
                slot.__set__(value, self._unpack(packed))
            else:
                value.__dict__[attribute] = self._unpack(packed)
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
