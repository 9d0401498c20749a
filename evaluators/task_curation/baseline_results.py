"""What the runs of a suite without a patch say: its stable and flaky tests, and the reach of each test."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import date

from regrade.datasets.node_ids import file_of
from regrade.datasets.tasks import TestSuite, Tree
from regrade.evaluators.execution.hanging_tests import slow_tests
from regrade.evaluators.execution.records import (
    ConfigurationRecord,
    ImportedRecord,
    ReachRecord,
    SourcesRecord,
    TestRecord,
    TestSources,
    UnmeasuredRecord,
)
from regrade.evaluators.execution.replies import collection_errors, statuses
from regrade.evaluators.execution.worker import Reply
from regrade.evaluators.task_curation.classified_files import ClassifiedFiles, classify_files
from regrade.rewards.evidence import TestOutcome, TestStatus


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """The state of a suite before any patch."""

    stable: tuple[str, ...]
    """Tests that passed in every run, in the order of the suite."""
    flaky: tuple[str, ...]
    """Tests that passed in some runs, and tests with a volatile id: it contains today's date or a memory address, as
    ids made from parameters may, or some run lacks it, or numbers the ids of its function otherwise. Later runs would
    not contain it, and it would count as broken.
    """
    failing: tuple[str, ...]
    """Tests that passed in no run (failed, skipped, expected to fail), with the same id in every run."""
    outcomes: Mapping[str, TestOutcome]
    """The outcome of every test in the last run."""
    reach: Mapping[str, tuple[str, ...]]
    """`file::qualified.function` -> the stable and failing tests that execute it (see `TestSuite.reach`)."""
    imported: frozenset[str]
    """Functions executed and files read on import or collection (see `TestSuite.imported`)."""
    companions: Mapping[str, str]
    """Stable tests that don't pass by themselves (see `TestSuite.companions`)."""
    unmeasured: str
    """Why the reach of the tests is unknown; empty if it is known."""
    seconds: float
    """Wall time of the slowest run, in seconds."""
    file_seconds: Mapping[str, float]
    """See `TestSuite.seconds`; from the slowest run."""
    slow_tests: Mapping[str, float]
    """See `TestSuite.slow`."""
    collection_errors: Mapping[str, str]
    """File -> reason why its tests could not be collected."""
    files: ClassifiedFiles = field(default_factory=ClassifiedFiles)
    """The files that decide the tests, and code under test with the name of such a file."""
    configuration: str | None = None
    """See `TestSuite.configuration`."""

    def applied_to(self, suite: TestSuite) -> TestSuite:
        """The suite with these measurements."""
        return replace(
            suite,
            reach=self.reach,
            imported=self.imported,
            companions=self.companions,
            seconds=self.file_seconds,
            **asdict(self.files),
            configuration=self.configuration,
            slow=self.slow_tests,
        )


@dataclass(frozen=True)
class MeasuredFiles:
    """The measurements of some test files."""

    apart: Mapping[str, Reply]
    """File -> a run of this file alone."""
    reach: Reply


def summary(replies: list[Reply], measured: list[MeasuredFiles], tree: Tree, suite: TestSuite) -> Baseline:
    today = date.today()
    files = classify_files(tree, suite, sources_of(replies))
    suite = replace(suite, **asdict(files))
    outcomes = [statuses(reply) for reply in replies]
    tests = list(dict.fromkeys(test for run in outcomes for test in run))
    passes = {test: sum(run[test].status is TestStatus.PASSED for run in outcomes if test in run) for test in tests}
    renumbered = _renumbered(outcomes, today)
    volatile = {test for test in tests if is_volatile_id(test, today) or test.partition("[")[0] in renumbered}
    stable = [test for test in tests if passes[test] == len(replies) and test not in volatile]
    stable_tests = set(stable)
    failing = {
        test: None
        for test in tests
        if passes[test] == 0 and all(test in run for run in outcomes) and test not in volatile
    }
    measures = [share.reach for share in measured]
    is_complete = all(measure.of(ImportedRecord) for measure in measures)
    unmeasured = next((record.reason for measure in measures for record in measure.of(UnmeasuredRecord)), "")
    unmeasured = unmeasured or ("" if is_complete else "the measurement was cut short")
    reach, imported = ({}, frozenset[str]()) if unmeasured else _reach(measures, tests, suite)
    if reach and not any(_selects_tests(key, imported) for key in reach):
        unmeasured = "all code that the tests execute is also executed, or read as text, on import"
    slowest = max(replies, key=seconds_of)
    return Baseline(
        stable=tuple(stable),
        flaky=tuple(test for test in tests if test not in stable_tests and test not in failing),
        failing=tuple(failing),
        outcomes=outcomes[-1],
        reach=reach,
        imported=imported,
        companions=_companions(measured, stable) if measured else {},
        unmeasured=unmeasured,
        seconds=seconds_of(slowest),
        file_seconds={**file_seconds_of(slowest), "": _other_seconds(slowest)},
        slow_tests=slow_tests(replies),
        collection_errors=collection_errors(replies[-1]),
        files=files,
        configuration=_configuration(replies[0]),
    )


def passing_tests(replies: list[Reply]) -> dict[str, float]:
    """Tests that passed in every run -> their longest duration in seconds."""
    seconds: dict[str, float] = {}
    for reply in replies:
        for record in reply.of(TestRecord):
            seconds[record.id] = max(seconds.get(record.id, 0.0), float(record.seconds))
    outcomes = [statuses(reply) for reply in replies]
    return {
        test: took
        for test, took in seconds.items()
        if all(test in run and run[test].status is TestStatus.PASSED for run in outcomes)
    }


def seconds_of(reply: Reply) -> float:
    """Seconds of a run without those of the tests that were stopped."""
    return max(0.0, reply.seconds - sum(reply.hanging.values()))


def _other_seconds(reply: Reply) -> float:
    """Seconds of a run outside of its tests, plus its longest test, whose time may include a shared fixture."""
    longest = max((float(record.seconds) for record in reply.of(TestRecord)), default=0)
    return max(0.0, seconds_of(reply) - sum(file_seconds_of(reply).values())) + longest


def file_seconds_of(reply: Reply) -> dict[str, float]:
    """Test file -> total seconds of its tests."""
    seconds: dict[str, float] = {}
    for record in reply.of(TestRecord):
        path = file_of(record.id)
        seconds[path] = seconds.get(path, 0.0) + float(record.seconds)
    return {path: round(took, 3) for path, took in seconds.items()}


def sources_of(replies: list[Reply]) -> TestSources:
    return next((record.sources for reply in replies for record in reply.of(SourcesRecord)), TestSources())


def _configuration(reply: Reply) -> str | None:
    """Path of pytest's configuration file, relative to the root; empty: none; None: it lies outside the tree."""
    return next((record.own for record in reply.of(ConfigurationRecord)), None)


def is_volatile_id(test_id: str, today: date) -> bool:
    """Does a test id contain today's date or a memory address?"""
    dates = (today.strftime(form) for form in ("%Y-%m-%d", "%Y%m%d", "%Y/%m/%d", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y"))
    return any(text in test_id for text in dates) or re.search(r" at 0x[0-9a-f]{6,}", test_id) is not None


def _renumbered(outcomes: Sequence[Mapping[str, TestOutcome]], today: date) -> set[str]:
    """Parametrized tests whose ids have other numbers in another run, since their parameters changed places."""
    runs: list[dict[str, set[str]]] = []
    for run in outcomes:
        runs.append({})
        for test in run:
            function, bracket, _ = test.partition("[")
            if bracket and not is_volatile_id(test, today):
                runs[-1].setdefault(function, set()).add(test)

    def shapes(tests: set[str]) -> list[str]:
        return sorted(re.sub(r"[0-9]+", "", test) for test in tests)

    return {
        function
        for other in runs[1:]
        for function in runs[0].keys() & other.keys()
        if runs[0][function] != other[function] and shapes(runs[0][function]) == shapes(other[function])
    }


def _selects_tests(key: str, imported: frozenset[str]) -> bool:
    """Is it a function whose change reaches only some of the tests?"""
    return "::" in key and imported.isdisjoint((key, file_of(key)))


def _companions(measured: list[MeasuredFiles], stable: list[str]) -> dict[str, str]:
    """Tests that don't pass alone -> the file with which they pass; empty: they need the whole suite."""
    apart = {path: statuses(reply) for share in measured for path, reply in share.apart.items()}
    records = [record for share in measured for record in share.reach.of(ReachRecord)]
    dependent = {record.test for record in records if not record.passes_alone}
    companions = {}
    for test in stable:
        outcome = apart.get(file_of(test), {}).get(test)
        if outcome is None or outcome.status is not TestStatus.PASSED:
            companions[test] = ""
        elif test in dependent:
            companions[test] = file_of(test)
    return companions


def _reach(
    measures: list[Reply], tests: list[str], suite: TestSuite
) -> tuple[dict[str, tuple[str, ...]], frozenset[str]]:
    imported: set[str] = set()
    by_test: dict[str, set[str]] = {}
    for measure in measures:
        for collection in measure.of(ImportedRecord):
            imported.update(collection.names)
        for record in measure.of(ReachRecord):
            if not record.is_opaque:
                by_test.setdefault(record.test, set()).update(record.keys)
    by_function: dict[str, list[str]] = {}
    functions = {function for keys in by_test.values() for function in keys} | imported
    for function in sorted(functions):
        if not suite.protects(file_of(function)):
            # A test that could not be measured may execute anything.
            by_function[function] = [test for test in tests if test not in by_test or function in by_test[test]]
    imported_functions = frozenset(function for function in imported if function in by_function)
    return {function: tuple(ids) for function, ids in by_function.items()}, imported_functions
