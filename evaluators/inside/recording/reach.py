"""A pytest plugin that measures the reach of each test: the functions that it executes and the files that it reads.

Each test runs in its own fork of the state after collection, so that no cache or fixture of an earlier test hides a
dependency. A test whose code escapes the measurement (it starts a process, or disables the profiler) is opaque: it may
reach everything. A test that passes in the suite but not alone is repeated after the other tests of its file, and also
depends on the functions that they execute.

Lines: `["unmeasured", reason]`, if forks can't measure reach; `["reach", id, [keys], opaque, alone]` for each test,
where `alone` means that it passes without the others of its file; and at the end `["imported", [keys]]`, the functions
and files that ran or were read before and between the tests. A key is `file::qualified.name`, the name cut at the
outermost function, or a file that was opened and not imported.
"""

from __future__ import annotations

import _thread
import contextlib
import doctest
import gc
import json
import linecache
import os
import signal
import sys
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

import pytest

from regrade.evaluators.inside.children import Child
from regrade.evaluators.inside.recording.node_ids import file_of
from regrade.evaluators.inside.recording.profiling import Escapes, make_watch
from regrade.evaluators.inside.recording.reading import OpenedFiles

CO_OPTIMIZED = 0x1
"""Flag of the code of functions; modules and class bodies lack it."""
SHORTEST_LIMIT, SLACK = 20.0, 50.0
"""Time limit of a measured test: `SLACK` times its time in the suite, and at least `SHORTEST_LIMIT` seconds."""


class _Measurement(NamedTuple):
    """Measured reach and outcomes of the tests of one fork."""

    keys: Sequence[str] = ()
    is_opaque: bool = True
    passed: frozenset[str] = frozenset()
    is_complete: bool = False


class ReachRecorder:
    """Install it before any module of the repository is imported."""

    def __init__(
        self, write: Callable[[str], None], root: str, passing: Mapping[str, float], part: tuple[int, int] = (0, 1)
    ) -> None:
        """
        Args:
            passing: the tests that pass in the suite, and their seconds there.
            part: (index, count): measure every `count`-th test, from this index on.
        """
        self._part = part
        self._write = write
        self._root = root.rstrip("/") + "/"
        self._passing = passing
        self._failed: set[str] = set()
        self._ran: set[str] = set()
        self._read: set[str] = set()
        self._files_of_code: dict[str, str] = {}
        self._together: dict[str, _Measurement] = {}
        self._problem = ""
        try:
            self._opened_files = OpenedFiles(root)
        except OSError as error:
            self._problem = str(error)
        self._process = os.getpid()
        self._ignore_doctest_reads()
        self._escapes = Escapes()
        self._watch = make_watch()
        self._watch.start()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection_modifyitems(self) -> Generator[None, None, None]:
        """Hypothesis reads every file of the tree in this hook, whichever its tests use: these reads are ignored."""
        with self._reads_ignored():
            return (yield)

    @contextlib.contextmanager
    def _reads_ignored(self) -> Iterator[None]:
        """Ignore the files that are opened within the context."""
        if self._problem or os.getpid() != self._process:
            yield
            return
        self._read |= self._opened_files.opened()
        try:
            yield
        finally:
            self._opened_files.opened()

    def _ignore_doctest_reads(self) -> None:
        """The collection of doctests reads every file for line numbers: these reads are ignored."""
        finder: Any = doctest.DocTestFinder
        find = finder.find

        def find_unrecorded(*arguments: Any, **options: Any) -> Any:
            with self._reads_ignored():
                tests = find(*arguments, **options)
                linecache.clearcache()  # otherwise later reads would not open the file
                return tests

        finder.find = find_unrecorded

    def pytest_collection_finish(self) -> None:
        if _thread._count() > 0:  # Python's threads: those of libraries run no Python code
            self._problem = "a thread is started on import, and a fork has no copy of it"
        elif self._escapes.has_started_processes():
            self._problem = "another process is started on import"
        for name in [code.co_filename for code in self._watch.codes()] + _module_files():
            self._file(name)  # here once, instead of in every fork
        # So that a fork's collector does not touch, and so copy, the existing objects.
        gc.collect()
        gc.freeze()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        files: dict[str, list[pytest.Item]] = {}
        for item in session.items:
            files.setdefault(file_of(item.nodeid), []).append(item)
        try:
            index, count = self._part
            for item in session.items[index::count] if not self._problem else ():
                self._measure(item, files[file_of(item.nodeid)])
        except OSError as error:  # of inotify
            self._problem = str(error)
        return True

    def pytest_sessionfinish(self) -> None:
        if not self._problem:
            try:
                self._read |= self._opened_files.opened()
            except OSError as error:
                self._problem = str(error)
        if self._problem:
            self._write(json.dumps(["unmeasured", self._problem]))
        self._write(json.dumps(["imported", self._keys(self._read)]))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Runs in a fork."""
        self._ran.add(report.nodeid)
        if not report.passed or hasattr(report, "wasxfail"):
            self._failed.add(report.nodeid)

    def _measure(self, item: pytest.Item, neighbours: list[pytest.Item]) -> None:
        test = item.nodeid
        limit = max(SHORTEST_LIMIT, SLACK * self._passing.get(test, 0.0))
        measured, alone = self._fork([item], limit), True
        if test in self._passing and not measured.is_complete:
            alone = False
        elif test in self._passing and test not in measured.passed:
            # Does it fail under the profiler, or does it depend on earlier tests?
            alone = test in self._fork([item], limit, is_measured=False).passed
            together = _Measurement() if alone else self._measure_file(neighbours)
            keys = sorted({*measured.keys, *together.keys})
            measured = _Measurement(keys, together.is_opaque or test not in together.passed)
        self._write(json.dumps(["reach", test, measured.keys, measured.is_opaque, alone]))

    def _measure_file(self, items: list[pytest.Item]) -> _Measurement:
        """The measurement of all tests of a file in their order, in one fork."""
        file = file_of(items[0].nodeid)
        if file not in self._together:
            limit = sum(max(1.0, SLACK * self._passing.get(item.nodeid, 0.0)) for item in items)
            self._together[file] = self._fork(items, max(SHORTEST_LIMIT, limit))
        return self._together[file]

    def _fork(self, items: list[pytest.Item], limit: float, *, is_measured: bool = True) -> _Measurement:
        self._read |= self._opened_files.opened()
        result = os.memfd_create("reach")
        try:
            child = os.fork()
            if child == 0:
                self._run(items, result, is_measured=is_measured)
            in_time = _wait(child, limit)
            read = self._opened_files.opened()
            text = os.pread(result, os.fstat(result).st_size, 0)
        finally:
            os.close(result)
        if not in_time or not text:
            return _Measurement()
        keys, opaque, passed = json.loads(text)
        return _Measurement(sorted({*keys, *self._files(read)}), opaque, frozenset(passed), is_complete=True)

    def _run(self, items: list[pytest.Item], result: int, *, is_measured: bool) -> NoReturn:
        """In the child: run the tests and exit."""
        fields: list[Any] = [[], True, []]
        try:
            self._escapes.start()
            if is_measured:
                self._watch.start()
            else:
                self._watch.stop()
            for item, after in zip(items, [*items[1:], None], strict=True):
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=after)
            is_whole = is_measured and self._watch.stop()
            fields = [self._keys(()), not is_whole or self._escapes.has_escaped(), sorted(self._ran - self._failed)]
        finally:
            os.write(result, json.dumps(fields).encode())
            os._exit(0)

    def _keys(self, read: set[str] | tuple[()]) -> list[str]:
        keys = set()
        for code in self._watch.codes():
            file = self._file(code.co_filename) if code.co_flags & CO_OPTIMIZED else ""
            if file:
                keys.add(f"{file}::{code.co_qualname.split('.<locals>')[0]}")
        return sorted(keys | self._files(read))

    def _files(self, read: set[str] | tuple[()]) -> set[str]:
        """The Python files: only in them can a patch change function bodies alone."""
        return {path for path in read if path.endswith(".py")}

    def _file(self, name: str) -> str:
        """The file of code, relative to the root, whichever path it was loaded from; empty: it is outside the tree."""
        if name not in self._files_of_code:
            path = os.path.realpath(os.path.join(self._root, name))  # noqa: PTH118 (quick)
            is_own = path.startswith(self._root) and path.endswith(".py")
            self._files_of_code[name] = path[len(self._root) :] if is_own else ""
        return self._files_of_code[name]


def _module_files() -> list[str]:
    """The files of the imported modules."""
    files = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    return [name for name in files if isinstance(name, str) and name.endswith(".py")]


def _wait(child: int, seconds: float) -> bool:
    """Wait for a child. False: it exceeded the limit and was killed."""
    with Child(child) as waiting:
        in_time, _ = waiting.wait(seconds)
    if not in_time:
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return in_time
