"""The baseline of a suite: the tests that always pass without a patch, and the reach of each test."""

from __future__ import annotations

import itertools
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

from regrade.datasets.caches import default_cache, full_disk
from regrade.datasets.errors import UserError
from regrade.datasets.globs import is_protected
from regrade.datasets.node_ids import file_of
from regrade.datasets.tasks import Limits, TestSuite, Tree
from regrade.evaluators.execution.environments import installed_packages, python_for, toolchain
from regrade.evaluators.execution.records import ImportedRecord, ReachRecord, TestRecord, UnmeasuredRecord
from regrade.evaluators.execution.run_tests import collection_errors, ending, statuses
from regrade.evaluators.execution.worker import Preparation, Reply, Request, Worker, WorkerDiedError
from regrade.evaluators.sandboxes import Sandbox, SandboxError, choose
from regrade.evaluators.sandboxes.scratch import remove, scratch_folder
from regrade.rewards.evidence import End, TestOutcome, TestStatus

REACH_FACTOR = 20
"""The measurement of reach runs every test in its own process, under a profiler: its time limit is this much longer."""

SHORT_SECONDS = 2.0
"""A suite that takes less than this is not divided: starting further workers would take longer."""

SHARES_A_WORKER = 16
"""Maximum number of shares per worker of a long suite, so that its measurement shows progress."""

BYTECODE = "bytecode"
"""Name of the scratch folder with the byte code that the first run writes and later runs read."""


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """The state of a suite before any patch."""

    stable: tuple[str, ...]
    """Tests that passed in every run, in the order of the suite."""
    flaky: tuple[str, ...]
    """Tests that passed in some runs, and tests with a volatile id: it contains today's date or a memory address, as
    ids made from parameters may, or some run lacks it. Later runs would not contain it, and it would count as broken.
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
    collection_errors: Mapping[str, str]
    """File -> reason why its tests could not be collected."""

    def applied_to(self, suite: TestSuite) -> TestSuite:
        """The suite with these measurements."""
        return replace(
            suite, reach=self.reach, imported=self.imported, companions=self.companions, seconds=self.file_seconds
        )


def baseline(
    tree: Tree,
    suite: TestSuite,
    requirements: tuple[str, ...] = (),
    limits: Limits | None = None,
    *,
    runs: int = 3,
    workers: int | None = None,
    sandbox: Sandbox | None = None,
    cache: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Baseline:
    """Run the suite `runs` times and measure its reach once.

    Args:
        workers: number of workers that measure reach; None: the number of cores. The measured reach of a test may
            depend on the tests collected with it (they may fill a cache), so 1 is the reproducible choice.
        progress: called with (steps done, total steps): the runs, and the shares of the measurement.

    Raises:
        UserError: no test could be run; the message names the reason.
    """
    limits = limits or Limits(wall_seconds=600.0)
    settings = _WorkerSettings(
        sandbox=sandbox or choose(),
        python=python_for(requirements, cache or default_cache()),
        scratch=scratch_folder(),
        limits=limits,
        packages=installed_packages(suite, tree.root),
        tools=toolchain(suite.runner),
    )
    report = progress or _ignore_progress
    steps = runs + (suite.runner == "pytest")  # a preliminary total, until the number of shares is known
    report(0, steps)
    try:
        replies = _run_suite(settings, tree, suite, runs, lambda done: report(done, steps))
        workers = workers or os.cpu_count() or 1
        shares = _shares(tree, replies[-1], workers) if suite.runner == "pytest" else []
        measured = []
        for share in _measure_shares(settings, tree, suite, shares, _passing(replies), workers):
            measured.append(share)
            report(runs + len(measured), runs + len(shares))
    except (SandboxError, WorkerDiedError, OSError) as error:
        advice = full_disk(error) or "choose another one with --sandbox, see `regrade doctor`"
        raise UserError(f"the tests can't be run because the sandbox failed ({error}): {advice}") from error
    finally:
        remove(settings.scratch)
    return _summary(replies, measured, suite)


def _run_suite(
    settings: _WorkerSettings, tree: Tree, suite: TestSuite, runs: int, report: Callable[[int], None]
) -> list[Reply]:
    """The replies of all runs. Reports the number of finished runs."""
    (settings.scratch / BYTECODE).mkdir()
    (settings.scratch / BYTECODE).chmod(0o777)
    replies = []
    with settings.worker("runs") as worker:
        for number in range(runs):
            reply = worker.run(tree, Request(suite=suite, limits=settings.limits), Preparation(BYTECODE))
            replies.append(_checked(reply, settings.limits, settings.python))
            report(number + 1)
    return replies


@dataclass(frozen=True, kw_only=True)
class _WorkerSettings:
    """The settings of all workers of one baseline."""

    sandbox: Sandbox
    python: Path
    scratch: Path
    limits: Limits
    packages: Path | None
    tools: Path | None

    def worker(self, name: str) -> Worker:
        folder = self.scratch / name
        folder.mkdir()
        return Worker(
            self.sandbox,
            self.python,
            folder,
            self.scratch / BYTECODE,
            writable_bytecode=True,
            limits=self.limits,
            packages=self.packages,
            tools=self.tools,
        )


@dataclass(frozen=True)
class _MeasuredFiles:
    """The measurements of some test files."""

    apart: Mapping[str, Reply]
    """File -> a run of this file alone."""
    reach: Reply


def _measure_shares(
    settings: _WorkerSettings,
    tree: Tree,
    suite: TestSuite,
    shares: list[tuple[str, ...]],
    passing: Mapping[str, float],
    workers: int,
) -> Iterator[_MeasuredFiles]:
    """Measure the reach of each test, and whether it passes without other files, share by share."""
    slow = replace(settings.limits, wall_seconds=settings.limits.wall_seconds * REACH_FACTOR)
    preparation = Preparation(BYTECODE)
    local = threading.local()
    numbers = itertools.count()
    with ExitStack() as started:

        def measure(paths: tuple[str, ...]) -> _MeasuredFiles:
            if not hasattr(local, "worker"):
                local.worker = started.enter_context(settings.worker(f"reach-{next(numbers)}"))
            files = paths or tuple({file_of(test): None for test in passing})
            # First, to compile all imports: after that, only a test that reads a source file opens it.
            apart = {
                path: local.worker.run(tree, Request(suite=suite, limits=settings.limits, paths=(path,)), preparation)
                for path in files
            }
            request = Request(suite=suite, limits=slow, paths=paths, reach=passing)
            return _MeasuredFiles(apart, local.worker.run(tree, request, preparation))

        with ThreadPoolExecutor(max(1, min(workers, len(shares)))) as pool:
            yield from pool.map(measure, shares)


def _shares(tree: Tree, reply: Reply, workers: int) -> list[tuple[str, ...]]:
    """The test files in shares of about equal duration; one empty share, for all files, if the suite is short."""
    seconds = _file_seconds(reply)
    count = min(int(sum(seconds.values()) / SHORT_SECONDS), SHARES_A_WORKER * workers, len(seconds))
    if count < 1 or any(not (tree.root / path).is_file() for path in seconds):
        return [()]
    shares: list[list[str]] = [[] for _ in range(count)]
    loads = [0.0] * len(shares)
    for path, took in sorted(seconds.items(), key=lambda entry: -entry[1]):
        least = loads.index(min(loads))
        shares[least].append(path)
        loads[least] += took
    return [tuple(share) for share in shares]


def _other_seconds(reply: Reply) -> float:
    """Seconds of a run outside of its tests, plus its longest test, whose time may include a shared fixture."""
    longest = max((float(record.seconds) for record in reply.of(TestRecord)), default=0)
    return max(0.0, reply.seconds - sum(_file_seconds(reply).values())) + longest


def _file_seconds(reply: Reply) -> dict[str, float]:
    """Test file -> total seconds of its tests."""
    seconds: dict[str, float] = {}
    for record in reply.of(TestRecord):
        path = file_of(record.id)
        seconds[path] = seconds.get(path, 0.0) + float(record.seconds)
    return {path: round(took, 3) for path, took in seconds.items()}


def _passing(replies: list[Reply]) -> dict[str, float]:
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


def _ignore_progress(done: int, total: int) -> None:
    """No progress callback."""


class UnusableOptionsError(UserError):
    """pytest does not know an option in the repository's configuration."""


def _checked(reply: Reply, limits: Limits, python: Path) -> Reply:
    end, detail = ending(reply, limits.wall_seconds)
    if "unrecognized arguments" in detail:
        raise UnusableOptionsError(
            f"the tests can't be run with the options in the repository's configuration: {detail}"
        )
    if end is End.TIMEOUT:
        raise UserError(
            f"the tests can't be run at the base: they were {detail}; set a longer limit with --time-limit SECONDS, or "
            "skip tests that never end"
        )
    if end is not End.COMPLETED:
        raise UserError(f"the tests can't be run at the base ({end.value}): {detail}")
    if not statuses(reply):
        reasons = "; ".join(f"{node}: {why}" for node, why in collection_errors(reply).items())
        lacking = "ModuleNotFoundError" in reasons
        advice = f" (tests run with {python}: install their dependencies in a virtual environment .venv beside them)"
        where = "" if reasons else "; name the files or folders that hold the tests with --tests PATH"
        raise UserError(
            f"no test was found: {reasons or reply.output.strip()[-300:]}{advice if lacking else ''}{where}"
        )
    return reply


def _summary(replies: list[Reply], measured: list[_MeasuredFiles], suite: TestSuite) -> Baseline:
    today = date.today()
    outcomes = [statuses(reply) for reply in replies]
    tests = list(dict.fromkeys(test for run in outcomes for test in run))
    passes = {test: sum(run[test].status is TestStatus.PASSED for run in outcomes if test in run) for test in tests}
    stable = [test for test in tests if passes[test] == len(replies) and not is_volatile_id(test, today)]
    stable_tests = set(stable)
    failing = {
        test: None
        for test in tests
        if passes[test] == 0 and all(test in run for run in outcomes) and not is_volatile_id(test, today)
    }
    measures = [share.reach for share in measured]
    is_complete = all(measure.of(ImportedRecord) for measure in measures)
    unmeasured = next((record.reason for measure in measures for record in measure.of(UnmeasuredRecord)), "")
    unmeasured = unmeasured or ("" if is_complete else "the measurement was cut short")
    reach, imported = ({}, frozenset[str]()) if unmeasured else _reach(measures, tests, suite)
    if reach and not any(_selects_tests(key, imported) for key in reach):
        unmeasured = "all code that the tests execute is also executed, or read as text, on import"
    slowest = max(replies, key=lambda reply: reply.seconds)
    return Baseline(
        stable=tuple(stable),
        flaky=tuple(test for test in tests if test not in stable_tests and test not in failing),
        failing=tuple(failing),
        outcomes=outcomes[-1],
        reach=reach,
        imported=imported,
        companions=_companions(measured, stable) if measured else {},
        unmeasured=unmeasured,
        seconds=slowest.seconds,
        file_seconds={**_file_seconds(slowest), "": _other_seconds(slowest)},
        collection_errors=collection_errors(replies[-1]),
    )


def is_volatile_id(test_id: str, today: date) -> bool:
    """Does a test id contain today's date or a memory address?"""
    dates = (today.strftime(form) for form in ("%Y-%m-%d", "%Y%m%d", "%Y/%m/%d", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y"))
    return any(text in test_id for text in dates) or re.search(r" at 0x[0-9a-f]{6,}", test_id) is not None


def _selects_tests(key: str, imported: frozenset[str]) -> bool:
    """Is it a function whose change reaches only some of the tests?"""
    return "::" in key and imported.isdisjoint((key, file_of(key)))


def _companions(measured: list[_MeasuredFiles], stable: list[str]) -> dict[str, str]:
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
        if not is_protected(file_of(function), suite.protected):
            # A test that could not be measured may execute anything.
            by_function[function] = [test for test in tests if test not in by_test or function in by_test[test]]
    imported_functions = frozenset(function for function in imported if function in by_function)
    return {function: tuple(ids) for function, ids in by_function.items()}, imported_functions
