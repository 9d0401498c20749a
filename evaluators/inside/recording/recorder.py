"""A pytest plugin that writes the outcome of each test as one JSON line when the test ends.

Lines: `["configuration", path, own]` (the configuration file of pytest, empty without one; the same relative to the
root, null outside of it), `["collect", id of a node that failed to collect, message]`, `["collected", count]` before
the tests, `["started", id]` before and `["test", id, status, seconds, message]` after each test, and `["fixtures", id,
seconds]` for a set-up or tear-down that takes long. `["tampered", what, by]`:
see `tampering_watch.py`; `["read", path, by]`: see `reads_of_tests.py`. Lines written before a crash are preserved.
"""

from __future__ import annotations

import glob
import json
import linecache
import os
import re
from collections.abc import Callable, Collection, Generator, Iterable
from json.encoder import encode_basestring_ascii as quoted
from typing import Any

import pytest

from regrade.evaluators.inside.recording.chance import fix_hypothesis, seed
from regrade.evaluators.inside.recording.doctests import explain, restore_examples
from regrade.evaluators.inside.recording.libraries import LibraryWatch
from regrade.evaluators.inside.recording.node_ids import file_of
from regrade.evaluators.inside.recording.reads_of_tests import ReadsOfTests
from regrade.evaluators.inside.recording.tampering_watch import TamperingWatch

LONGEST_MESSAGE = 500
ADDRESS = re.compile(r"0x[0-9a-f]{6,}|0x[0-9a-f]*(?=\.\.\.|\[\d+ chars\])|(?:(?<=\.\.\.)|(?<=chars\]))x?[0-9a-f]+(?=>)")
"""Addresses of objects, also those that pytest or unittest truncate: they differ between runs."""
SLOW_SECONDS = 1.0
"""A set-up or tear-down that takes longer is recorded: it may be that of a fixture which other tests share."""
RANK = {"passed": 0, "xfailed": 1, "skipped": 2, "failed": 3, "error": 4}
"""The highest status among a test's set-up, call, tear-down and subtests is its status."""


class Recorder:
    """Records outcomes after `begin`."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._write: Callable[[str], None] = _discard
        self._selected: frozenset[str] | None = None
        self._skipped: frozenset[str] = frozenset()
        self._doctests: dict[str, str] = {}
        self._library_watch = LibraryWatch((), _discard)
        self.further_paths: list[str] = []
        """Files to collect in addition to the paths of the repository's configuration."""
        self._status: dict[str, str] = {}
        self._seconds: dict[str, float] = {}
        self._messages: dict[str, str] = {}
        self._watch: TamperingWatch | None = None
        self._reads = ReadsOfTests(_discard, root, ())
        self._file = ""

    def begin(
        self,
        write: Callable[[str], None],
        selected: Collection[str] | None,
        skipped: Collection[str] = (),
        doctests: Iterable[tuple[str, str]] = (),
        libraries: Iterable[str] = (),
        *,
        watched: bool = False,
        sources: Iterable[str] = (),
    ) -> None:
        """Start recording.

        Args:
            selected: ids of tests or their files; every other test is deselected (None: none is).
            skipped: ids of tests that are deselected in any case.
            doctests: ids of tests in docstrings, and the examples that they get (see `doctests.py`).
            libraries: modules whose functions the code under test should not replace (see `libraries.py`).
            watched: report tampering too.
            sources: files of tests; report if the code under test opens one.
        """
        self._write = write
        self._selected = None if selected is None else frozenset(selected)
        self._skipped = frozenset(skipped)
        self._doctests = dict(doctests)
        self._watch = TamperingWatch(write, self._root, RANK) if watched else None
        self._library_watch = LibraryWatch(libraries, write)
        self._reads = ReadsOfTests(write, self._root, sources)
        fix_hypothesis()
        seed("collection")

    def pytest_configure(self, config: pytest.Config) -> None:
        path, root = str(config.inipath or ""), f"{self._root}/"
        own = path[len(root) :] if path.startswith(root) else None
        self._write(json.dumps(["configuration", path, own if path else ""]))
        # pytest walks only the folders of its arguments; of an argument that lies in another one, pytest 8 collects
        # that one alone.
        config.getini("python_files").extend(glob.escape(os.path.join(self._root, path)) for path in self.further_paths)  # noqa: PTH118 (quick)
        walked = [os.path.abspath(argument.partition("::")[0]) for argument in config.args]  # noqa: PTH100 (quick)
        for path in self.further_paths:
            if not any(f"{self._root}/{path}".startswith(f"{folder}/") for folder in walked):
                config.args.append(path)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        restore_examples(items if self._doctests else [], self._doctests)
        if self._selected is None and not self._skipped:
            return
        remaining = [item for item in items if self._is_selected(item.nodeid)]
        if len(remaining) < len(items):
            identities = set(map(id, remaining))
            config.hook.pytest_deselected(items=[item for item in items if id(item) not in identities])
            items[:] = remaining

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._write(f'["collected", {len(session.items)}]')
        if self._watch is not None:
            self._watch.collected(session.items)
        self._library_watch.check(at_once=True)
        self._reads.check()

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self._watch is not None:
            self._watch.finished(session.config.hook)
        self._library_watch.check(at_once=True)
        self._reads.check()

    def _is_selected(self, test: str) -> bool:
        if test in self._skipped:
            return False
        return self._selected is None or test in self._selected or file_of(test) in self._selected

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._write(f'["started", {quoted(nodeid)}]')
        file = file_of(nodeid)
        if file != self._file and self._watch is not None:
            self._file = file
            self._watch.compare()
        seed(nodeid)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[Any]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        raised = call.excinfo
        report = yield
        if self._watch is not None:
            self._watch.reported(item, call, raised, report)
        if report.failed:
            self._messages.setdefault(item.nodeid, self._explain(item, call, report))
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        status = _status(report)
        before = self._status.get(report.nodeid, "passed")
        self._status[report.nodeid] = status if RANK[status] > RANK[before] else before
        self._seconds[report.nodeid] = self._seconds.get(report.nodeid, 0.0) + report.duration
        if report.when != "call" and report.duration > SLOW_SECONDS:
            self._write(f'["fixtures", {quoted(report.nodeid)}, {report.duration:.4f}]')

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self._library_watch.check()
        self._reads.check()
        status = self._status.pop(nodeid, "error")
        seconds = self._seconds.pop(nodeid, 0.0)
        message = self._messages.pop(nodeid, "")
        message = message if status in ("failed", "error") else ""
        # Not by `json.dumps`, which the code under test may have replaced.
        self._write(f'["test", {quoted(nodeid)}, {quoted(status)}, {seconds:.4f}, {quoted(message)}]')

    def pytest_exception_interact(self, call: pytest.CallInfo[Any]) -> None:
        """End the session at a conftest.py that fails to import, as pytest itself does for one that it loads early."""
        if call.excinfo is not None and call.excinfo.typename == "ConftestImportFailure":
            self._write(json.dumps(["left", f"ConftestImportFailure: {call.excinfo.value}"[:LONGEST_MESSAGE]]))
            os._exit(int(pytest.ExitCode.USAGE_ERROR))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._write(json.dumps(["collect", report.nodeid, _last_error(report.longreprtext)]))

    def _explain(self, item: pytest.Item, call: pytest.CallInfo[Any], report: pytest.TestReport) -> str:
        """`file:line: source line` of the innermost frame in the test's own file, and the first lines of the error."""
        excinfo = call.excinfo
        if excinfo is None:
            return str(report.longrepr)[:LONGEST_MESSAGE]
        if isinstance(item, pytest.DoctestItem) and (message := explain(excinfo.value, self._root)):
            return ADDRESS.sub("0x...", message)[:LONGEST_MESSAGE]
        lines = excinfo.exconly(tryshort=True).strip().splitlines()[:3] or [excinfo.typename]
        location = ""
        for entry in excinfo.traceback:
            if str(entry.path) == str(item.path):
                source = linecache.getline(str(entry.path), entry.lineno + 1).strip()
                location = f"{os.path.relpath(entry.path, self._root)}:{entry.lineno + 1}: {source}\n"
        return ADDRESS.sub("0x...", location + "\n".join(lines))[:LONGEST_MESSAGE]


def _discard(_line: str) -> None:
    """The writer before `begin`."""


def _status(report: pytest.TestReport) -> str:
    if report.skipped:
        return "xfailed" if hasattr(report, "wasxfail") else "skipped"
    if report.failed:
        return "failed" if report.when == "call" else "error"
    return "passed"


def _last_error(text: str) -> str:
    """The line with the error in a traceback printed by pytest."""
    errors = [line[1:].strip() for line in text.splitlines() if line.startswith("E ")]
    return (errors[-1] if errors else text.strip()[-LONGEST_MESSAGE:])[:LONGEST_MESSAGE]
