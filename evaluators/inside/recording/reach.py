"""A pytest plugin that finds out what each test depends on: the functions that it executes, the files that it reads.

Each test runs in a fork of its own from the state after collection, so that neither a cache that an earlier test filled
nor a fixture that an earlier test set up hides what it depends on. A test whose work escapes the watch (it starts
another process, or turns the watch off) is opaque: it may reach everything. One that passes in the suite and not by
itself is tried behind the other tests of its file, and depends on what they execute, too.

Lines: `["unmeasured", why]`, where forks would tell nothing; `["reach", id, [keys], opaque, alone]` for each test,
where `alone` says that it passes without the others of its file; and at the end `["imported", [keys]]`, what ran or was
read before and between the tests. A key is `file::qualified.name`, the name cut at the outermost function, or a file
that was opened and not imported.
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
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

import pytest

from regrade.evaluators.inside.children import Child
from regrade.evaluators.inside.recording.node_ids import file_of
from regrade.evaluators.inside.recording.profiling import Escapes, make_watch
from regrade.evaluators.inside.recording.reading import Readings

CO_OPTIMIZED = 0x1
"""Flag of the code of functions; modules and class bodies lack it."""
SHORTEST_LIMIT, SLACK = 20.0, 50.0
"""A test that is watched may take `SLACK` times as long as in the suite, and at least `SHORTEST_LIMIT` seconds."""


class _Seen(NamedTuple):
    """What was seen of some tests in one fork."""

    keys: Sequence[str] = ()
    opaque: bool = True
    passed: frozenset[str] = frozenset()
    ended: bool = False


class ReachRecorder:
    """Install before anything of the repository is imported."""

    def __init__(self, write: Callable[[str], None], root: str, passing: Mapping[str, float]) -> None:
        """`passing`: the tests that pass in the suite, and their seconds there."""
        self._write = write
        self._root = root.rstrip("/") + "/"
        self._passing = passing
        self._failed: set[str] = set()
        self._ran: set[str] = set()
        self._read: set[str] = set()
        self._places: dict[str, str] = {}
        self._together: dict[str, _Seen] = {}
        self._problem = ""
        try:
            self._readings = Readings(root)
        except OSError as error:
            self._problem = str(error)
        self._process = os.getpid()
        self._let_doctest_count_lines()
        self._escapes = Escapes()
        self._watch = make_watch()
        self._watch.start()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection_modifyitems(self) -> Generator[None, None, None]:
        """Here Hypothesis looks for constants in every file of the tree, whatever its tests use."""
        with self._unnoticed():
            return (yield)

    @contextlib.contextmanager
    def _unnoticed(self) -> Iterator[None]:
        """What is opened in the meantime tells nothing of any test."""
        if self._problem or os.getpid() != self._process:
            yield
            return
        self._read |= self._readings.opened()
        try:
            yield
        finally:
            self._readings.opened()

    def _let_doctest_count_lines(self) -> None:
        """Where doctests are collected, every file is read for the numbers of their lines."""
        finder: Any = doctest.DocTestFinder
        find = finder.find

        def found(*arguments: Any, **options: Any) -> Any:
            with self._unnoticed():
                tests = find(*arguments, **options)
                linecache.clearcache()  # else nobody would be seen to read it later
                return tests

        finder.find = found

    def pytest_collection_finish(self) -> None:
        if _thread._count() > 0:  # of Python's: those of libraries run none of its code
            self._problem = "a thread is started on import, which a fork would lack"
        elif self._escapes.begun():
            self._problem = "another process is started on import"
        # So that a fork does not touch, and thereby copy, all that lives here.
        gc.collect()
        gc.freeze()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        files: dict[str, list[pytest.Item]] = {}
        for item in session.items:
            files.setdefault(file_of(item.nodeid), []).append(item)
        try:
            for item in session.items if not self._problem else ():
                self._measure(item, files[file_of(item.nodeid)])
        except OSError as error:  # of the readings
            self._problem = str(error)
        return True

    def pytest_sessionfinish(self) -> None:
        if not self._problem:
            try:
                self._read |= self._readings.opened()
            except OSError as error:
                self._problem = str(error)
        if self._problem:
            self._write(json.dumps(["unmeasured", self._problem]))
        self._write(json.dumps(["imported", self._keys(self._read)]))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """In a fork."""
        self._ran.add(report.nodeid)
        if not report.passed or hasattr(report, "wasxfail"):
            self._failed.add(report.nodeid)

    def _measure(self, item: pytest.Item, neighbours: list[pytest.Item]) -> None:
        test = item.nodeid
        limit = max(SHORTEST_LIMIT, SLACK * self._passing.get(test, 0.0))
        seen, alone = self._fork([item], limit), True
        if test in self._passing and not seen.ended:
            alone = False
        elif test in self._passing and test not in seen.passed:
            # Is it the watch that it can't bear, or does it need others before it?
            alone = test in self._fork([item], limit, watched=False).passed
            together = _Seen() if alone else self._behind(neighbours)
            keys = sorted({*seen.keys, *together.keys})
            seen = _Seen(keys, together.opaque or test not in together.passed)
        self._write(json.dumps(["reach", test, seen.keys, seen.opaque, alone]))

    def _behind(self, items: list[pytest.Item]) -> _Seen:
        """What is seen of all tests of a file in their order."""
        file = file_of(items[0].nodeid)
        if file not in self._together:
            limit = sum(max(1.0, SLACK * self._passing.get(item.nodeid, 0.0)) for item in items)
            self._together[file] = self._fork(items, max(SHORTEST_LIMIT, limit))
        return self._together[file]

    def _fork(self, items: list[pytest.Item], limit: float, *, watched: bool = True) -> _Seen:
        self._read |= self._readings.opened()
        result = os.memfd_create("reach")
        try:
            child = os.fork()
            if child == 0:
                self._run(items, result, watched=watched)
            in_time = _waited(child, limit)
            read = self._readings.opened()
            text = os.pread(result, os.fstat(result).st_size, 0)
        finally:
            os.close(result)
        if not in_time or not text:
            return _Seen()
        keys, opaque, passed = json.loads(text)
        return _Seen(sorted({*keys, *self._files(read)}), opaque, frozenset(passed), ended=True)

    def _run(self, items: list[pytest.Item], result: int, *, watched: bool) -> NoReturn:
        """In the child: run tests and leave."""
        seen: list[Any] = [[], True, []]
        try:
            self._escapes.start()
            if watched:
                self._watch.start()
            else:
                self._watch.stop()
            for item, after in zip(items, [*items[1:], None], strict=True):
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=after)
            unbroken = watched and self._watch.stop()
            seen = [self._keys(()), not unbroken or self._escapes.heard(), sorted(self._ran - self._failed)]
        finally:
            os.write(result, json.dumps(seen).encode())
            os._exit(0)

    def _keys(self, read: set[str] | tuple[()]) -> list[str]:
        keys = set()
        for code in self._watch.codes():
            place = self._place(code.co_filename) if code.co_flags & CO_OPTIMIZED else ""
            if place:
                keys.add(f"{place}::{code.co_qualname.split('.<locals>')[0]}")
        return sorted(keys | self._files(read))

    def _files(self, read: set[str] | tuple[()]) -> set[str]:
        """Those of which a patch of function bodies may be a patch."""
        return {path for path in read if path.endswith(".py")}

    def _place(self, name: str) -> str:
        """The file of some code, relative to the root, whatever the path that it was loaded by; empty: of elsewhere."""
        if name not in self._places:
            path = os.path.realpath(os.path.join(self._root, name))  # noqa: PTH118 (quick)
            is_own = path.startswith(self._root) and path.endswith(".py")
            self._places[name] = path[len(self._root) :] if is_own else ""
        return self._places[name]


def _waited(child: int, seconds: float) -> bool:
    """Wait for a child. False: it was killed, since it took longer."""
    with Child(child) as waiting:
        in_time, _ = waiting.wait(seconds)
    if not in_time:
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return in_time
