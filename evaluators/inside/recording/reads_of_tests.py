"""Which files of tests the code under test opens while the tests run: their source contains the expected values.

Lines: `["read", path, by]`, as soon as it happens; `by` is the code that opened the file, empty for code of the tests
themselves. An import of a test by a test is none. Python's audit events name the code. The kernel also counts what they
don't show (inotify(7)): a program that was started, a library in C, a path relative to a descriptor. Such an event is
attributed to OTHER.

A read proves nothing: a traceback quotes the source of each frame, also those of tests. `execution/unreadable_tests.py`
finds out whether a test passes only by it.
"""

from __future__ import annotations

import contextlib
import linecache
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from importlib.util import cache_from_source
from json.encoder import encode_basestring_ascii as quoted
from pathlib import Path
from types import FrameType
from typing import Any

from _pytest.assertion.rewrite import PYC_TAIL, get_cache_dir

from regrade.evaluators.inside.recording.reading import FileOpenings

OTHER = "another process or a library"
THREAD = "a thread"
RUNNER = ("/_pytest/", "/pluggy/", "/regrade/evaluators/inside/")
"""Parts of the file names of code that reads tests for their report."""


class ReadsOfTests:
    """Watches one session. An audit hook cannot be removed: for a process that ends with the session."""

    def __init__(self, write: Callable[[str], None], root: str, files: Iterable[str]) -> None:
        """
        Args:
            files: files of tests, relative to the root, as far as they exist.
        """
        self._write, self._folder = write, f"{root}/"
        self._files = {place: path for path in files for place in (self._folder + path, *_compiled(root, path))}
        self._places: dict[tuple[int, int], str] = {}
        for place in self._files:
            identity = _identity(place)
            if identity is not None:
                self._places[identity] = place
        self._reported: set[tuple[str, str]] = set()
        self._shown: Counter[str] = Counter()
        self._opened: Counter[str] = Counter()
        if self._places:
            # Byte code may lie in a folder that other candidates use at the same time.
            self._openings = FileOpenings(self._folder + path for path in self._files.values())
            sys.addaudithook(self._note)

    def check(self) -> None:
        """Compare the events of Python with those of the kernel; forget source that the runner has read for a report,
        which another reader would not have to open."""
        if not self._places:
            return
        self._opened.update(self._openings.opened())
        for place in self._opened - self._shown:
            self._report(self._files[place], OTHER)
        for place in self._files.keys() & linecache.cache.keys():
            del linecache.cache[place]

    def _note(self, event: str, arguments: tuple[Any, ...]) -> None:
        """An audit hook. It must never raise: an exception would prevent the audited operation."""
        if event == "open" and isinstance(arguments[0], (str, bytes)):
            with contextlib.suppress(Exception):
                self._note_opening(arguments[0])

    def _note_opening(self, name: str | bytes) -> None:
        place = self._places.get(_identity(name) or (0, 0))
        if place is not None:
            self._shown[place] += 1
            by = self._reader(sys._getframe(2))
            if by is not None:
                self._report(self._files[place], by)

    def _reader(self, frame: FrameType | None) -> str | None:
        """The innermost code of the tree that is running; empty: code of tests; None: they are imported, or the runner
        alone is running."""
        is_runner = is_import = False
        while frame is not None:
            name = frame.f_code.co_filename
            if name in self._files and _is_of_module(frame, name):
                return None if is_import else ""
            if name.startswith(self._folder):
                return f"{name[len(self._folder) :]}:{frame.f_lineno}"
            is_runner = is_runner or any(part in name for part in RUNNER)
            is_import = is_import or frame.f_code.co_name == "exec_module"
            frame = frame.f_back
        return None if is_runner else THREAD

    def _report(self, path: str, by: str) -> None:
        if (path, by) not in self._reported:
            self._reported.add((path, by))
            self._write(f'["read", {quoted(path)}, {quoted(by[-200:])}]')


def _compiled(root: str, path: str) -> Iterator[str]:
    """Where the byte code of a file may lie: pytest's, and Python's."""
    file = Path(root, path)
    yield str(get_cache_dir(file) / f"{file.stem}{PYC_TAIL}")
    yield cache_from_source(str(file))


def _is_of_module(frame: FrameType, file: str) -> bool:
    """Is it code of the module that was imported from the file, and not code that only claims its name?"""
    modules = list(sys.modules.values())
    return any(vars(module) is frame.f_globals for module in modules if getattr(module, "__file__", None) == file)


def _identity(path: str | bytes) -> tuple[int, int] | None:
    """Device and inode, whichever path leads there."""
    try:
        found = os.stat(path)  # noqa: PTH116 (quick)
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino
