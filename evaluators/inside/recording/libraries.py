"""Functions of installed libraries that the code under test replaces, where the tests use them: they draw their data by
`random`, or compare with `statistics`.

Line: `["altered", [names]]`, as soon as some are found.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Callable, Iterable, Iterator
from time import monotonic
from types import FunctionType, ModuleType
from typing import Any

PAUSE = 0.05
"""Seconds between two checks, which take a millisecond or two."""
OF_FUNCTIONS = ("__code__", "__defaults__", "__kwdefaults__")


class LibraryWatch:
    """What some libraries contain before code of the tree is imported, and what of it differs later."""

    def __init__(self, names: Iterable[str], write: Callable[[str], None]) -> None:
        self._write = write
        self._entries = [entry for name in names for entry in _entries(name)]
        self._found: set[str] = set()
        self._next = 0.0

    def check(self, *, at_once: bool = False) -> None:
        """Report what has been replaced since, each name once; unless the last check was just before."""
        now = monotonic()
        if not self._entries or (now < self._next and not at_once):
            return
        self._next = now + PAUSE
        found = {
            f"{place}.{name}" for place, read, owner, name, value in self._entries if read(owner, name) is not value
        }
        new = sorted(found - self._found)
        if new:
            self._found |= found
            # Not by `json.dumps`, which may be among them.
            self._write(f'["altered", [{", ".join(map(_quoted, new))}]]')


Entry = tuple[str, Callable[..., Any], Any, str, Any]
"""Name of the owner, how to read it, owner, name and value."""


def _entries(name: str) -> Iterator[Entry]:
    """What the module contains: functions, classes with their methods, modules below it with theirs."""
    with contextlib.suppress(BaseException):
        importlib.import_module(name)
    module = sys.modules.get(name)
    if not isinstance(module, ModuleType):
        return
    below = [
        part
        for part in list(vars(module).values())
        if isinstance(part, ModuleType) and part.__name__.startswith(f"{name}.")
    ]
    for each in (module, *below):
        for inner, value in list(vars(each).items()):
            if callable(value) or isinstance(value, ModuleType):
                yield from _entries_of(each.__name__, vars(each), inner, value)
            if isinstance(value, type) and value.__module__.partition(".")[0].lstrip("_") == name.partition(".")[0]:
                for part, member in list(vars(value).items()):
                    if callable(member) or hasattr(member, "__get__"):
                        yield from _entries_of(f"{each.__name__}.{inner}", vars(value), part, member)


def _entries_of(place: str, owner: Any, name: str, value: Any) -> Iterator[Entry]:
    yield place, _in_dict, owner, name, value
    if isinstance(value, FunctionType):
        for part in OF_FUNCTIONS:
            yield f"{place}.{name}", getattr, value, part, getattr(value, part)


def _in_dict(owner: Any, name: str) -> Any:
    return owner.get(name)


def _quoted(name: str) -> str:
    return '"' + "".join(letter if letter.isalnum() or letter in "._" else "?" for letter in name) + '"'
