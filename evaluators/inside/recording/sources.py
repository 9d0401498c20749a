"""A pytest plugin that records the files which the tests of a suite come from.

One line at the end of the session: `["sources", {"collected": [...], "used": [...], "doctests": [[file, id, examples],
...], "modules": [[name, file], ...], "foreign": [...], "importers": [[file, [importer, ...]], ...], "opened": [[file,
[opener, ...], [caller, ...]], ...], "executed": [...], "has_processes": true}]`, paths relative to the root.

- `collected` has the files of the collected tests and every conftest.py; `used` those that define their functions and
  fixtures, and plugins; `doctests` the tests in docstrings of modules.
- `modules` has all imported modules of the tree, `foreign` the names of imported modules from elsewhere: top-level
  ones, members of packages of the tree, and modules of the tree of which an installed copy was opened.
- `importers` has the files whose code started to run as a module, each with the file that imported it first
  (OTHER_CODE, PYTEST: none of the tree did).
- `opened` has the other files and folders that code of the tree opened, each with the files of that code, and with all
  files of the tree that called it.
- `executed` has the files whose code ran as a module or by `exec`.
- `has_processes`: did a process start, which may have run any code?
"""

from __future__ import annotations

import inspect
import json
import os
import sys
from collections.abc import Callable, Container, Iterator
from typing import Any

import pytest

from regrade.evaluators.inside import origins
from regrade.evaluators.inside.recording.doctests import examples_of

PROCESSES = frozenset(
    {"subprocess.Popen", "os.system", "os.posix_spawn", "os.spawn", "os.exec", "os.fork", "pty.spawn"}
)
"""Audit events of the start of a process."""
FILES = frozenset({"open", "ctypes.dlopen", "sqlite3.connect", "os.listdir", "os.scandir"})
"""Audit events that read a file or folder, their first argument. (A module that is imported is opened as well.)"""
OTHER_CODE, PYTEST = "*", ""
"""Importers that are no file of the tree: a library, such as a web framework that loads an application by its name; and
pytest, which imports tests, conftest.py files, plugins and the packages above them."""
RUNNER = ("/_pytest/", "/pluggy/", "/pytest/", "importlib", "/regrade/evaluators/inside/")
"""Parts of the file names of code that imports on behalf of its caller."""


class SourcesRecorder:
    """Install it before any module of the repository is imported. An audit hook cannot be removed: for one session."""

    def __init__(self, write: Callable[[str], None], root: str) -> None:
        self._write = write
        self._root = os.path.realpath(root) + "/"
        self._collected: set[str] = set()
        self._used: set[str] = set()
        self._doctests: set[tuple[str, str, str]] = set()
        self._opened: dict[str, tuple[set[str], set[str]]] = {}
        self._importers: dict[str, set[str]] = {}
        self._executed: set[str] = set()
        self._has_processes = False
        self._before = self._at_collection = self._at_finish = frozenset(sys.modules)
        sys.addaudithook(self._note)

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, session: pytest.Session, items: list[pytest.Item]) -> None:
        for item in items:  # also those that are deselected later
            if item.path.suffix == ".py" and isinstance(item, pytest.DoctestItem):
                self._doctests.update((path, item.nodeid, examples_of(item)) for path in self._own(str(item.path)))
            else:
                self._collected.update(self._own(str(item.path)))
            self._used.update(self._own(_file_of_code(getattr(item, "obj", None))))
        definitions = getattr(session._fixturemanager, "_arg2fixturedefs", {})
        for definition in (definition for several in definitions.values() for definition in several):
            self._used.update(self._own(_file_of_code(definition.func)))
        for plugin in session.config.pluginmanager.get_plugins():
            for file in self._own(str(getattr(plugin, "__file__", None) or "")):
                (self._collected if file.rpartition("/")[2] == "conftest.py" else self._used).add(file)

    def pytest_collection_finish(self) -> None:
        self._at_collection = frozenset(sys.modules)

    def pytest_sessionfinish(self) -> None:
        files = {name: str(getattr(module, "__file__", None) or "") for name, module in list(sys.modules.items())}
        own = {name: path for name, file in files.items() for path in self._own(file)}
        sources = {
            "collected": sorted(self._collected),
            "used": sorted(self._used),
            "doctests": sorted(self._doctests),
            "modules": sorted(own.items()),
            "foreign": sorted(
                {name for name, file in files.items() if file and _is_noted(name, own)} | origins.opened_copies().keys()
            ),
            "importers": [[path, sorted(importers)] for path, importers in sorted(self._importers.items())],
            "opened": [[file, *map(sorted, code)] for file, code in sorted(self._opened.items())],
            "executed": sorted({file for name in self._executed for file in self._own(name)}),
            "has_processes": self._has_processes,
        }
        self._write(json.dumps(["sources", sources]))
        self._at_finish = frozenset(sys.modules)

    def imported(self) -> list[str]:
        """Modules from elsewhere, in order, that the collection imported, or afterwards the end of the session (plugins
        do): those that a run imports whatever its tests do. After the session."""
        modules = origins.imported_elsewhere(self._root.rstrip("/"), self._before)
        return [name for name in modules if name in self._at_collection or name not in self._at_finish]

    def _own(self, name: str) -> Iterator[str]:
        """The path relative to the root, of a file in the tree."""
        path = os.path.realpath(name) if name else ""
        if path.startswith(self._root):
            yield path[len(self._root) :]

    def _note(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in FILES:
            self._note_opening(arguments[0])
        elif event == "exec":
            self._note_execution(arguments[0])
        elif event in PROCESSES:
            self._has_processes = True

    def _note_execution(self, code: object) -> None:
        name = getattr(code, "co_filename", "")
        self._executed.add(name)
        if getattr(code, "co_name", "") == "<module>" and name.startswith(self._root):
            self._importers.setdefault(name[len(self._root) :], set()).add(self._importer())

    def _importer(self) -> str:
        frame = sys._getframe(3)
        while frame is not None:
            name = frame.f_code.co_filename
            if name.startswith(self._root):
                return name[len(self._root) :]
            if not any(part in name for part in RUNNER) and name != "<string>":
                return OTHER_CODE
            frame = frame.f_back  # type: ignore[assignment]
        return PYTEST

    def _note_opening(self, name: object) -> None:
        if isinstance(name, bytes):
            name = os.fsdecode(name)
        if not isinstance(name, str) or name.endswith(".pyc"):
            return
        path = name if name.startswith("/") else os.path.join(_working_folder(self._root), name)  # noqa: PTH118 (quick)
        if not path.startswith(self._root):
            return
        files = list(self._files_of_callers())
        if files:
            openers, callers = self._opened.setdefault(os.path.normpath(path)[len(self._root) :], (set(), set()))
            openers.add(files[0])
            callers.update(files)

    def _files_of_callers(self) -> Iterator[str]:
        """The files of the tree whose code is running, the innermost first."""
        frame = sys._getframe(3)
        while frame is not None:
            if frame.f_code.co_filename.startswith(self._root):
                yield frame.f_code.co_filename[len(self._root) :]
            frame = frame.f_back  # type: ignore[assignment]


def _is_noted(name: str, own: Container[str]) -> bool:
    """Is a module from elsewhere a top-level one, or a member of a package of the tree?"""
    return name not in own and ("." not in name or name.partition(".")[0] in own)


def _working_folder(otherwise: str) -> str:
    try:
        return os.getcwd()  # noqa: PTH109 (quick)
    except OSError:  # removed
        return otherwise


def _file_of_code(function: Any) -> str:
    """The file that defines a function below its decorators; empty: unknown."""
    try:
        return str(inspect.unwrap(function).__code__.co_filename)
    except (AttributeError, ValueError):
        return ""
