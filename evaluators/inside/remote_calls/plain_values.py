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


class UncrossableError(BaseException):
    """A value can't cross, or what is asked of one that did. No test may take it for an error that it expects."""


class Side(Protocol):
    """What packers and proxies need of the connection."""

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

    def ask(self, operation: str, *arguments: Any) -> Any:
        """Have the other side perform an operation on a value that it keeps."""

    def sentinel(self, value: Any) -> tuple[str, str] | None:
        """Module and name of a global of the repository that is this very object."""

    def resolve(self, module: str, name: str) -> Any:
        """What the other side named. Raises UncrossableError."""

    def number(self, value: Any) -> int:
        """By which the other side may call the value."""

    def known_by(self, value: Any) -> tuple[str, int, str, Packed] | None:
        """Side, number, kind and looks of a value that is a stand-in for one of the other side."""

    def stand_in(self, side: str, number: int, kind: str, looks: Packed) -> Any:
        """The value with that number if it is this side's own, else a stand-in that looks like it."""


def replaces_method(value: Any, name: str) -> bool:
    """Would an attribute of that name stand in place of a method of the value's class?"""
    method = getattr(type(value), name, None)
    return callable(method) and not isinstance(method, type)


def found_by_name(module: str, name: str) -> Any:
    value: Any = sys.modules.get(module)
    for part in name.split("."):
        value = getattr(value, part, None) if part != "<locals>" else None
    return value


def special(value: Any, name: str) -> Any:
    """The method by which an operator is carried out; None: there is none. A class has others for itself."""
    found = (vars(kind)[name] for kind in type(value).__mro__ if name in vars(kind))
    return next(found, None)
