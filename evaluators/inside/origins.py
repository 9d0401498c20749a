"""Which copy of a module is imported: that of the tree or one installed elsewhere; that of the tests or another."""

from __future__ import annotations

import os
import sys
from collections.abc import Container, Iterable, Mapping
from typing import Any

RUNNER = frozenset({"pytest", "_pytest", "regrade"})
"""The programs that run the tests can't be replaced while they run."""
MOST = 20
_opened_copies: dict[str, str] = {}
"""Name of a module of the tree -> a file of an installed copy that was opened."""


def forget_other_copies(own: Iterable[str], root: str) -> None:
    """Unload each module of the tree that was imported from elsewhere (pytest, a plugin or the worker needed it): the
    next import takes the tree's. Modules that hold the other copy continue to use it."""
    for name in own:
        top = name.partition(".")[0]
        if top in RUNNER or (not _is_elsewhere(name, root) and not _is_namespace(top, name)):
            continue
        unloaded = top if _is_namespace(top, name) else name
        for loaded in [loaded for loaded in sys.modules if loaded == unloaded or loaded.startswith(f"{unloaded}.")]:
            del sys.modules[loaded]


def watch_copies(own: Iterable[str], root: str) -> None:
    """Notice from now on when a file of an installed copy of the tree's modules is opened: no import does that, but its
    text may be executed as the tree's own. Copies that the runner of the tests uses are left out."""
    _opened_copies.clear()
    places: dict[str, str] = {}
    names = [name for name in own if "." not in name]
    for folder in (folder for folder in sys.path if not f"{folder}/".startswith(f"{root}/")):
        try:
            entries = frozenset(os.listdir(folder))  # noqa: PTH208 (quick)
        except OSError:
            continue
        places |= {f"{folder}/{name}/": name for name in names if name in entries}
        places |= {f"{folder}/{name}.py": name for name in names if f"{name}.py" in entries}
    loaded = [_file(name) for name in list(sys.modules)] if places else []
    used = {place for place in places if any(file.startswith(place) for file in loaded)}
    prefixes = tuple(place for place in places if place not in used)
    if not prefixes:
        return

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str) and arguments[0].startswith(prefixes):
            place = next(place for place in prefixes if arguments[0].startswith(place))
            _opened_copies[places[place]] = arguments[0]

    sys.addaudithook(note)


def opened_copies() -> dict[str, str]:
    """Name of a module of the tree -> a file of its installed copy that was opened since `watch_copies`."""
    return dict(_opened_copies)


def elsewhere(own: Iterable[str], root: str) -> list[list[str]]:
    """(name, file) of modules of the tree that were imported from outside of it."""
    found = [[name, _file(name)] for name in own if not name.startswith("regrade") and _is_elsewhere(name, root)]
    return found[:MOST]


def replaced(tests: Mapping[str, str], foreign: Iterable[str], allowed: Container[str], root: str) -> list[list[str]]:
    """(name, file) of modules that stand in for those which the tests import at the base: modules of tests that don't
    come from one of the allowed files, and modules from outside of the tree that come from within it."""
    found = []
    for name in tests:
        if name in sys.modules:
            file = os.path.realpath(_file(name)) if _file(name) else ""
            if not file.startswith(f"{root}/") or file[len(root) + 1 :] not in allowed:
                found.append([name, _file(name) or "the code under test"])
    found += [
        [name, _file(name)]
        for name in foreign
        if "." not in name and os.path.realpath(_file(name)).startswith(f"{root}/")
    ]
    return found[:MOST]


def is_any_loaded(own: Iterable[str]) -> bool:
    """Is a module with the name of one of the tree's loaded?"""
    return any(name in sys.modules for name in own if name.partition(".")[0] not in RUNNER)


def imported_elsewhere(root: str, before: Container[str]) -> list[str]:
    """Modules imported since `before` from outside the tree, in import order; without those whose assertions pytest
    rewrites on import (plugins): it warns about a plugin that was imported before, and a warning may be an error."""
    from _pytest.assertion.rewrite import AssertionRewritingHook

    own = {
        name.partition(".")[0]
        for name, module in list(sys.modules.items())
        if str(getattr(module, "__file__", None) or "").startswith(f"{root}/")
    }
    return [
        name
        for name, module in list(sys.modules.items())
        if name not in before
        and name.partition(".")[0] not in own
        and not isinstance(getattr(module, "__loader__", None), AssertionRewritingHook)
    ]


def _is_elsewhere(name: str, root: str) -> bool:
    file = _file(name)
    return bool(file) and not file.startswith(f"{root}/")


def _is_namespace(top: str, name: str) -> bool:
    """Is the name a member of a namespace package that is loaded, perhaps without the tree's portion?"""
    return top != name and top in sys.modules and not _file(top)


def _file(name: str) -> str:
    file = getattr(sys.modules.get(name), "__file__", None)
    return file if isinstance(file, str) else ""
