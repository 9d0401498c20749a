"""The format of values that cross between the tests' process and the candidate's.

Values that the other side rebuilds from JSON alone: numbers, texts, containers, instances of the repository's own
classes as class and state, exceptions, and plain values of the standard library. Classes and functions that both sides
have cross by name. Callables and iterators cross as numbers, by which the other side calls back. Nothing is unpickled,
and no code crosses.

A value is a JSON scalar or a list that begins with a tag. Mutable values are in a table of nodes, which preserves
identity, cycles and changes made by the other side: see `Packer`.
"""

from __future__ import annotations

import collections
import datetime
import decimal
import fractions
import functools
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
"""Flag of classes that are not built into the interpreter: their `__new__` may be code of the repository."""
LONGEST_INTEGER = 1 << 12
"""In bits: `json` refuses integers of more digits."""
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
"""Mutable types. A type precedes its bases."""
FIXED: tuple[type, ...] = (tuple, str, bytes, frozenset, int, float)
"""Immutable types that classes of the repository may subclass."""
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
"""Types of the standard library -> the arguments that rebuild a value."""
TYPES_BY_NAME = {f"{kind.__module__}.{kind.__qualname__}": kind for kind in BY_ARGUMENTS}
MAKERS: dict[type, Callable[..., Any]] = {
    re.Pattern: re.compile,
    re.Match: lambda pattern, string, start, end: pattern.search(string, start, end),
}
CODE = (types.FunctionType, types.BuiltinFunctionType, types.MethodType, type, functools.partial)
CONSTANTS = {"ellipsis": ..., "not implemented": NotImplemented}
UNNAMEABLE = frozenset({"pytest", "_pytest", "unittest", "doctest", "bdb", "pdb", "hypothesis", "regrade", "__main__"})
"""Packages whose classes a candidate may not name: unittest.mock has an object that equals everything, and some errors
of the others end a test without a failure."""
_SPECIAL = """
    __eq__ __ne__ __lt__ __le__ __gt__ __ge__ __hash__ __bool__ __len__ __iter__ __next__ __getitem__ __contains__
    __add__ __radd__ __sub__ __rsub__ __mul__ __rmul__ __truediv__ __rtruediv__ __floordiv__ __mod__ __pow__ __neg__
    __abs__ __int__ __float__ __index__ __str__ __repr__ __format__ __call__ __enter__ __exit__ __reversed__
    __length_hint__ __setitem__ __delitem__ __iadd__ __or__ __ror__ __and__ __rand__ __xor__ __divmod__ __invert__
    __pos__
"""
SPECIAL = frozenset(_SPECIAL.split())
"""Operators that a candidate may apply to an object of the tests that does not cross by value."""
_NAMEABLE = """
    builtins operator math functools itertools collections collections.abc datetime decimal fractions re string typing
    numbers pathlib uuid _operator _collections _functools _collections_abc
"""
NAMEABLE = frozenset(_NAMEABLE.split())
"""Modules of the standard library whose classes and functions a candidate may name."""


class UncrossableError(BaseException):
    """A value or an operation can't cross. A BaseException, so that no test takes it for an expected error."""


class Side(Protocol):
    """The interface of the connection that packers and proxies use."""

    name: str
    """`tests` or `candidate`."""

    def is_own_class(self, kind: type) -> bool:
        """Is it a class of the repository that its name resolves to?"""

    def class_names(self, kind: type) -> list[tuple[str, str]]:
        """Modules and names by which the other side may know a class of the repository: on the candidate's side also
        those of its bases, and other names of each, since a patch may extend, move and rename classes."""

    def other_names(self, kind: type) -> list[tuple[str, str]]:
        """Other modules and names of a class of the candidate."""

    def received(self, value: Any) -> tuple[Any, list[tuple[str, str]], list[tuple[str, Any]]]:
        """The value, the names of its class on the candidate's side, and its attributes that do not fit here."""

    def note_received(self, value: Any, names: list[tuple[str, str]], attributes: list[tuple[str, Any]]) -> None:
        """Record the same, to send it back."""

    def note_extended(self, value: Any) -> None:
        """Record that the tests have the value as one of a base of its class."""

    def computed(self, value: Any) -> list[tuple[str, Any]]:
        """Attributes that the base stored in instances, and that a property of the patch computes."""

    def is_computed(self, value: Any, name: str) -> bool:
        """Is it such an attribute?"""

    def may_name(self, module: str) -> bool:
        """Can the other side have a module of that name?"""

    def note_named(self, value: Any) -> None:
        """Record that the value crossed by name."""

    def was_named(self, value: Any) -> bool:
        """Did it cross by name? Then it may return by name."""

    def request(self, operation: str, *arguments: Any) -> Any:
        """Perform an operation on a value of the other side."""

    def sentinel(self, value: Any) -> tuple[str, str] | None:
        """Module and name of the global of the repository that is identical to the value."""

    def resolve(self, module: str, name: str) -> Any:
        """The value that the other side named. Raises UncrossableError."""

    def number(self, value: Any) -> int:
        """The number by which the other side refers to the value."""

    def reference_of(self, value: Any) -> tuple[str, int, str, Packed] | None:
        """Side, number, kind and traits of a proxy; None: the value is not a proxy."""

    def proxy(self, side: str, number: int, kind: str, traits: Packed) -> Any:
        """The value with that number if it is on this side; otherwise a proxy with its traits."""


def replaces_method(value: Any, name: str) -> bool:
    """Would an attribute of that name replace a method of the value's class?"""
    method = getattr(type(value), name, None)
    return callable(method) and not isinstance(method, type)


def global_named(module: str, name: str) -> Any:
    value: Any = sys.modules.get(module)
    for part in name.split("."):
        value = getattr(value, part, None) if part != "<locals>" else None
    return value


def special_method(value: Any, name: str) -> Any:
    """The special method of the value's class; None: there is none."""
    methods = (vars(kind)[name] for kind in type(value).__mro__ if name in vars(kind))
    return next(methods, None)
