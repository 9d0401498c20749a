"""A pytest plugin that records the files which the tests of a suite come from.

One line at the end of the session: `["sources", {"collected": [...], "used": [...], "doctests": [...],
"loaded": [...], "opened": [[file, [opener, ...]], ...], "executed": [...], "foreign": [...], "has_processes": true}]`,
paths relative to the root. `collected` has the files of the collected tests and every conftest.py; `used` those that
define their functions and fixtures, and plugins; `doctests` the modules with tests in docstrings; `loaded` all imported
modules of the tree; `opened` the other files and folders that code of the tree opened, each with the files of that code
(of what a plugin opened for a test, the test's file); `executed` the files whose code ran as a module or by `exec`;
`foreign` the names of packages and modules from outside of the tree; `has_processes`: did a process start, which may
have run any code?
"""

from __future__ import annotations

import inspect
import json
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

PROCESSES = frozenset(
    {"subprocess.Popen", "os.system", "os.posix_spawn", "os.spawn", "os.exec", "os.fork", "pty.spawn"}
)
"""Audit events of the start of a process."""
FILES = frozenset({"open", "ctypes.dlopen", "sqlite3.connect", "os.listdir", "os.scandir"})
"""Audit events that read a file or folder, their first argument. (A module that is imported is opened as well.)"""


class SourcesRecorder:
    """Install it before any module of the repository is imported. An audit hook cannot be removed: for one session."""

    def __init__(self, write: Callable[[str], None], root: str) -> None:
        self._write = write
        self._root = os.path.realpath(root) + "/"
        self._collected: set[str] = set()
        self._used: set[str] = set()
        self._doctests: set[str] = set()
        self._opened: dict[str, set[str]] = {}
        self._executed: set[str] = set()
        self._has_processes = False
        self._running = ""
        """The file of the running test, relative to the root."""
        sys.addaudithook(self._note)

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, session: pytest.Session, items: list[pytest.Item]) -> None:
        for item in items:  # also those that are deselected later
            is_in_docstring = item.path.suffix == ".py" and isinstance(item, pytest.DoctestItem)
            (self._doctests if is_in_docstring else self._collected).update(self._own(str(item.path)))
            self._used.update(self._own(_file_of_code(getattr(item, "obj", None))))
        definitions = getattr(session._fixturemanager, "_arg2fixturedefs", {})
        for definition in (definition for several in definitions.values() for definition in several):
            self._used.update(self._own(_file_of_code(definition.func)))
        for plugin in session.config.pluginmanager.get_plugins():
            for file in self._own(str(getattr(plugin, "__file__", None) or "")):
                (self._collected if file.rpartition("/")[2] == "conftest.py" else self._used).add(file)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._running = nodeid.partition("::")[0]

    def pytest_runtest_logfinish(self) -> None:
        self._running = ""

    def pytest_sessionfinish(self) -> None:
        modules = [str(getattr(module, "__file__", None) or "") for module in list(sys.modules.values())]
        sources = {
            "collected": sorted(self._collected),
            "used": sorted(self._used),
            "doctests": sorted(self._doctests),
            "loaded": sorted({file for name in modules for file in self._own(name)}),
            "opened": [[file, sorted(openers)] for file, openers in sorted(self._opened.items())],
            "executed": sorted({file for name in self._executed for file in self._own(name)}),
            "foreign": sorted(_foreign_modules(self._root)),
            "has_processes": self._has_processes,
        }
        self._write(json.dumps(["sources", sources]))

    def _own(self, name: str) -> Iterator[str]:
        """The path relative to the root, of a file in the tree."""
        path = os.path.realpath(name) if name else ""
        if path.startswith(self._root):
            yield path[len(self._root) :]

    def _note(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in FILES:
            self._note_opening(arguments[0])
        elif event == "exec":
            self._executed.add(getattr(arguments[0], "co_filename", ""))
        elif event in PROCESSES:
            self._has_processes = True

    def _note_opening(self, name: object) -> None:
        if not isinstance(name, str) or name.endswith(".pyc"):
            return
        path = os.path.join(self._root, name)  # noqa: PTH118 (quick)
        if not path.startswith(self._root):
            return
        frame = sys._getframe(1)
        while frame is not None:
            if frame.f_code.co_filename.startswith(self._root):
                opener = frame.f_code.co_filename[len(self._root) :]
                self._opened.setdefault(os.path.normpath(path)[len(self._root) :], set()).add(opener)
                return
            frame = frame.f_back  # type: ignore[assignment]
        if self._running:  # a plugin's fixture, for the test
            self._opened.setdefault(os.path.normpath(path)[len(self._root) :], set()).add(self._running)


def _foreign_modules(root: str) -> set[str]:
    """Names of the packages, and of the modules outside of any, that are imported from outside of the tree."""
    return {
        name
        for name, module in list(sys.modules.items())
        if "." not in name
        and name not in sys.stdlib_module_names
        and (file := getattr(module, "__file__", None))
        and not os.path.realpath(file).startswith(root)
    }


def _file_of_code(function: Any) -> str:
    """The file that defines a function below its decorators; empty: unknown."""
    try:
        return str(inspect.unwrap(function).__code__.co_filename)
    except (AttributeError, ValueError):
        return ""
