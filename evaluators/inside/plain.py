"""Values as plain data: how a call crosses between the tests' process and the candidate's.

What crosses by value is rebuilt on the other side from JSON alone: numbers, texts, containers, instances of the
repository's own classes as class and state, exceptions, and what the standard library has of plain values. Classes and
functions that both sides have cross by name. Callables and iterators cross as numbers, by which the other side calls
back. Nothing is unpickled, and no code crosses.

A value is a JSON scalar or a list that begins with a tag. What can be changed in place stands in a table of nodes, so
that identity, cycles and changes made by the other side survive: see `Packer`.
"""

from __future__ import annotations

import collections
import datetime
import decimal
import enum
import fractions
import functools
import inspect
import json
import operator
import pathlib
import re
import sys
import types
import uuid
from collections.abc import Callable
from typing import Any, Protocol

Packed = Any
"""None, a bool, an int, a finite float, a str, or `[tag, ...]`."""
HEAP_TYPE = 1 << 9
"""Flag of classes that are not built into the interpreter, whose `__new__` would be code of the repository."""
LONGEST_INTEGER = 1 << 12
"""In bits: Python reads no integer of more digits from JSON."""
CONTAINERS: tuple[type, ...] = (
    collections.OrderedDict,
    collections.defaultdict,
    collections.Counter,
    dict,
    list,
    collections.deque,
    set,
    bytearray,
)
"""What is changed in place. A type stands before its bases."""
FIXED: tuple[type, ...] = (tuple, str, bytes, frozenset, int, float)
"""Of which classes of the repository may be subclasses whose content is given once."""
BY_ARGUMENTS: dict[type, Callable[[Any], tuple[Any, ...]]] = {
    range: lambda value: (value.start, value.stop, value.step),
    slice: lambda value: (value.start, value.stop, value.step),
    complex: lambda value: (value.real, value.imag),
    decimal.Decimal: lambda value: (str(value),),
    fractions.Fraction: lambda value: (value.numerator, value.denominator),
    datetime.timedelta: lambda value: (value.days, value.seconds, value.microseconds),
    datetime.date: lambda value: (value.year, value.month, value.day),
    datetime.datetime: lambda value: (*value.timetuple()[:6], value.microsecond, value.tzinfo),
    datetime.time: lambda value: (value.hour, value.minute, value.second, value.microsecond, value.tzinfo),
    datetime.timezone: lambda value: value.__getinitargs__(),
    uuid.UUID: lambda value: (str(value),),
    pathlib.PurePosixPath: lambda value: (str(value),),
    pathlib.PosixPath: lambda value: (str(value),),
    re.Pattern: lambda value: (value.pattern, value.flags),
    re.Match: lambda value: (value.re, value.string, value.pos, value.endpos),
    operator.itemgetter: lambda value: value.__reduce__()[1],
    operator.attrgetter: lambda value: value.__reduce__()[1],
}
"""Types of the standard library whose values are made of a few others."""
BY_NAME = {f"{kind.__module__}.{kind.__qualname__}": kind for kind in BY_ARGUMENTS}
MAKERS: dict[type, Callable[..., Any]] = {
    re.Pattern: re.compile,
    re.Match: lambda pattern, string, start, end: pattern.search(string, start, end),
}
CODE = (types.FunctionType, types.BuiltinFunctionType, types.MethodType, type, functools.partial)
CONSTANTS = {"ellipsis": ..., "not implemented": NotImplemented}
NOT_NAMED = frozenset({"pytest", "_pytest", "unittest", "regrade", "__main__"})
"""Packages whose classes a candidate may not name: an object that equals everything is one of unittest.mock's."""
_SPECIAL = """
    __eq__ __ne__ __lt__ __le__ __gt__ __ge__ __hash__ __bool__ __len__ __iter__ __next__ __getitem__ __contains__
    __add__ __radd__ __sub__ __rsub__ __mul__ __rmul__ __truediv__ __rtruediv__ __floordiv__ __mod__ __pow__ __neg__
    __abs__ __int__ __float__ __index__ __str__ __repr__ __format__ __call__ __enter__ __exit__ __reversed__
    __length_hint__ __setitem__ __delitem__ __iadd__ __or__ __ror__ __and__ __rand__ __xor__ __divmod__ __invert__
    __pos__
"""
SPECIAL = frozenset(_SPECIAL.split())
"""What a candidate may do to an object of the tests that does not cross by value."""
_GIVEN = """
    builtins operator math functools itertools collections collections.abc datetime decimal fractions re string typing
    numbers pathlib uuid _operator _collections _functools _collections_abc
"""
GIVEN = frozenset(_GIVEN.split())
"""Modules of the standard library whose classes and functions a candidate may name."""


class Uncrossable(BaseException):
    """A value can't cross, or what is asked of one that did. No test may take it for an error that it expects."""


class Side(Protocol):
    """What a packer needs of the connection."""

    name: str
    """`tests` or `candidate`."""

    def is_own_class(self, kind: type) -> bool:
        """Is it a class of the repository, under the name that it has?"""

    def may_name(self, module: str) -> bool:
        """Can the other side have a module of that name?"""

    def note_named(self, value: Any) -> None:
        """The value crossed by its name."""

    def was_named(self, value: Any) -> bool:
        """Did it? Then it may come back in the same way."""

    def sentinel(self, value: Any) -> tuple[str, str] | None:
        """Module and name of a global of the repository that is this very object."""

    def resolve(self, module: str, name: str) -> Any:
        """What the other side named. Raises Uncrossable."""

    def number(self, value: Any) -> int:
        """By which the other side may call the value."""

    def known_by(self, value: Any) -> tuple[str, int, str, Packed] | None:
        """Side, number, kind and looks of a value that is a stand-in for one of the other side."""

    def stand_in(self, side: str, number: int, kind: str, looks: Packed) -> Any:
        """The value with that number if it is this side's own, else a stand-in that looks like it."""


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
        """Raises Uncrossable."""
        kind = type(value)
        if value is None or kind is bool or kind is str:
            return value
        if kind is int:
            if value.bit_length() > LONGEST_INTEGER:
                raise Uncrossable("an integer of more than a thousand digits")
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
            raise Uncrossable(f"the module {value.__name__}")
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
            if may_be_named and self._side.may_name(module) and _found(module, name) is value:
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
                raise Uncrossable(f"an object of {type(value).__module__}.{type(value).__qualname__}")
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
        except Uncrossable:
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
            if self._side.may_name(each.__module__) and _found(each.__module__, each.__qualname__) is each
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


class Unpacker:
    """Unpacks the values of one message."""

    def __init__(self, side: Side, nodes: list[Packed], known: list[Any] | None = None) -> None:
        self._side = side
        self._first = len(known or ())
        self._nodes = nodes
        self.values: list[Any] = [*(known or ()), *[None] * len(nodes)]
        self._made = [False] * len(nodes)
        self._filled = [False] * len(nodes)

    def unpack(self, packed: Packed) -> Any:
        """Raises Uncrossable, for whatever is not as a packer makes it."""
        try:
            return self._unpack(packed)
        except (TypeError, ValueError, LookupError, AttributeError, RecursionError, OverflowError) as error:
            raise Uncrossable(f"what came is no value: {type(error).__name__}: {str(error)[:200]}") from None

    def change(self, changed: list[Packed]) -> None:
        """Give known values the content that the other side left them with. Raises Uncrossable."""
        try:
            for place, node in sorted(changed, key=operator.itemgetter(0), reverse=True):  # inner ones first
                if not 0 <= place < self._first:
                    raise ValueError("no known value")
                value = self.values[place]
                if node[3] is not None and hasattr(value, "__dict__"):
                    value.__dict__.clear()
                self._fill(value, node)
        except (TypeError, ValueError, LookupError, AttributeError, RecursionError, OverflowError) as error:
            raise Uncrossable(f"what came is no content: {type(error).__name__}: {str(error)[:200]}") from None

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
        return tuple([self._unpack(each) for each in values])

    def _frozenset_value(self, values: list[Packed]) -> frozenset[Any]:
        return frozenset([self._unpack(each) for each in values])

    def _constant_value(self, name: str) -> Any:
        return CONSTANTS[name]

    def _value_value(self, name: str, arguments: list[Packed]) -> Any:
        kind = BY_NAME[name]
        return MAKERS.get(kind, kind)(*[self._unpack(each) for each in arguments])

    def _number_value(self, side: str, number: int, kind: str, looks: Packed) -> Any:
        return self._side.stand_in(side, number, kind, looks)

    def _global_value(self, module: str, name: str) -> Any:
        return self._side.resolve(module, name)

    def _partial_value(self, function: Packed, arguments: Packed, keywords: Packed) -> Any:
        self._only_from_the_tests()
        return functools.partial(self._unpack(function), *self._unpack(arguments), **self._unpack(keywords))

    def _method_value(self, owner: Packed, name: str) -> Any:
        self._only_from_the_tests()
        value = self._unpack(owner)
        if not self._side.is_own_class(type(value)):
            raise ValueError("a method of no class of the repository")
        return types.MethodType(getattr(type(value), name), value)

    def _only_from_the_tests(self) -> None:
        """A candidate's functions stay on its side: here they are called by number."""
        if self._side.name == "tests":
            raise ValueError("a function")

    def _member_value(self, kind: Packed, name: str) -> Any:
        return self._own_class(kind)[name]

    def _error_value(self, kinds: list[Packed], arguments: list[Packed], state: Packed, origin: int | None) -> Any:
        if origin is not None and self._side.name == "tests":
            error = self._side.stand_in("tests", origin, "", None)
            if isinstance(error, BaseException):
                return error
        for packed in kinds:
            try:
                kind = self._unpack(packed)
            except Uncrossable:
                continue
            if isinstance(kind, type) and issubclass(kind, Exception | SystemExit):
                break
        else:
            kind = RuntimeError
        values = [self._unpack(each) for each in arguments]
        error = kind(*values) if kind.__module__ == "builtins" else kind.__new__(kind, *values)
        error.args = tuple(values)
        error.__dict__.update(self._unpack(state))
        if origin is not None:
            error.__regrade_origin__ = origin
        return error

    def _node_value(self, place: int) -> Any:
        index = place - self._first
        if index < 0:
            return self.values[place]
        if not self._made[index]:
            self._made[index] = True
            node = self._nodes[index]
            self.values[place] = self._shell(node)
            if node[0] not in _FIXED_NAMES or node[3]:
                self._fill(self.values[place], node)
        return self.values[place]

    def _own_class(self, packed: Packed) -> Any:
        kind = self._unpack(packed)
        if not isinstance(kind, type) or not self._side.is_own_class(kind):
            raise ValueError("no class of the repository")
        return kind

    def _class_of(self, packed: Packed, base: Any) -> Any:
        """The class of an instance; to tests, who know no class that a patch adds, what it is a subclass of."""
        try:
            return self._own_class(packed)
        except (Uncrossable, ValueError):
            if base is object or self._side.name == "candidate":
                raise
            return base

    def _shell(self, node: Packed) -> Any:
        """The value of a node before its content."""
        name, own, inner, _ = node
        base: Any = _BASES[name]
        kind = base if own is None else self._class_of(own, base)
        if not issubclass(kind, base):
            raise ValueError(f"{kind.__qualname__} is no {name}")
        if base in FIXED:
            return base.__new__(kind, self._unpack(inner))
        static: Any = next(each for each in kind.__mro__ if not each.__flags__ & HEAP_TYPE)
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
            raise ValueError(f"no {name}")
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
            pairs = [(self._unpack(key), self._unpack(each)) for key, each in inner]
            base.clear(value)
            setter = collections.OrderedDict if base is collections.OrderedDict else dict
            for key, each in pairs:
                setter.__setitem__(value, key, each)
            return
        values = [self._unpack(each) for each in inner]
        base.clear(value)
        (base.update if base is set else base.extend)(value, values)


_BASES: dict[str, type] = {base.__name__: base for base in (*CONTAINERS, *FIXED, object)}
_FIXED_NAMES = frozenset(base.__name__ for base in FIXED)


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


def replaces_method(value: Any, name: str) -> bool:
    """Would an attribute of that name stand in place of a method of the value's class?"""
    method = getattr(type(value), name, None)
    return callable(method) and not isinstance(method, type)


def _found(module: str, name: str) -> Any:
    value: Any = sys.modules.get(module)
    for part in name.split("."):
        value = getattr(value, part, None) if part != "<locals>" else None
    return value


def special(value: Any, name: str) -> Any:
    """The method by which an operator is carried out; None: there is none. A class has others for itself."""
    found = (vars(kind)[name] for kind in type(value).__mro__ if name in vars(kind))
    return next(found, None)


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
