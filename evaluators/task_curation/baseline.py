"""What a tree's tests say without any patch: which pass every time, and what each of them depends on."""

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
"""The measure of reach runs every test in a process of its own, under a profiler: it may take this much longer."""

SHORT_SECONDS = 2.0
"""Tests that take less than this together are not shared out: starting further workers would take longer."""

SHARES_A_WORKER = 16
"""Into so many shares a long suite is divided at most, so that the measure of one shows its progress."""

BYTECODE = "bytecode"
"""Name of the scratch folder in which the first run leaves byte code for the others."""


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """The state of a suite before any patch."""

    stable: tuple[str, ...]
    """Tests that passed in every run, in the order of the suite."""
    flaky: tuple[str, ...]
    """Tests that passed in some runs, and those whose id is another one tomorrow: it holds today's date or an address
    in memory, as ids made from parameters may. By that id they would be missing, and so broken, in every later run."""
    failing: tuple[str, ...]
    """Tests that passed in no run (failed, skipped, expected to fail)."""
    outcomes: Mapping[str, TestOutcome]
    """The last run's outcome of every test."""
    reach: Mapping[str, tuple[str, ...]]
    """`file::qualified.function` -> the stable and failing tests that execute it (see `TestSuite.reach`)."""
    imported: frozenset[str]
    """Functions executed, files read, on import or collection (see `TestSuite.imported`)."""
    companions: Mapping[str, str]
    """Stable tests that don't pass by themselves (see `TestSuite.companions`)."""
    unmeasured: str
    """Why it is not known what the tests execute; empty: it is."""
    seconds: float
    """Wall time of the slowest run."""
    file_seconds: Mapping[str, float]
    """See `TestSuite.seconds`; of the slowest run."""
    collection_errors: Mapping[str, str]
    """File -> why its tests could not be collected."""

    def applied_to(self, suite: TestSuite) -> TestSuite:
        """The suite with what was measured."""
        return replace(
            suite,
            reach=self.reach,
            imported=self.imported,
            companions=self.companions,
            seconds=self.file_seconds,
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
        workers: among how many the measure is shared out; None: the number of cores. What a test is found to execute
            may depend on which others are collected with it (they may fill a cache), so one is the reproducible choice.
        progress: called with (steps done, steps in all): the runs, and the shares of the measure.

    Raises:
        UserError: no test could be run; says why.
    """
    limits = limits or Limits(wall_seconds=600.0)
    bench = _WorkerSettings(
        sandbox=sandbox or choose(),
        python=python_for(requirements, cache or default_cache()),
        scratch=scratch_folder(),
        limits=limits,
        packages=installed_packages(suite, tree.root),
        tools=toolchain(suite.runner),
    )
    tell = progress or _silent
    steps = runs + (suite.runner == "pytest")  # until it is known into how many shares the measure is divided
    tell(0, steps)
    try:
        (bench.scratch / BYTECODE).mkdir()
        (bench.scratch / BYTECODE).chmod(0o777)
        with bench.worker("runs") as worker:
            replies = []
            for number in range(runs):
                reply = worker.run(tree, Request(suite=suite, limits=limits), Preparation(BYTECODE))
                replies.append(_checked(reply, limits, bench.python))
                tell(number + 1, steps)
        workers = workers or os.cpu_count() or 1
        shares = _shares(tree, replies[-1], workers) if suite.runner == "pytest" else []
        measured = []
        for share in _measured(bench, tree, suite, shares, _passing(replies), workers):
            measured.append(share)
            tell(runs + len(measured), runs + len(shares))
    except (SandboxError, WorkerDiedError, OSError) as error:
        advice = full_disk(error) or "try another one with --sandbox, see `regrade doctor`"
        raise UserError(f"the tests can't be run, the sandbox fails ({error}): {advice}") from error
    finally:
        remove(bench.scratch)
    return _summary(replies, measured, suite)


@dataclass(frozen=True, kw_only=True)
class _WorkerSettings:
    """What the workers of one baseline share."""

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
    """What was found out of some test files."""

    apart: Mapping[str, Reply]
    """File -> a run of nothing else."""
    reach: Reply


def _measured(
    bench: _WorkerSettings,
    tree: Tree,
    suite: TestSuite,
    shares: list[tuple[str, ...]],
    passing: Mapping[str, float],
    workers: int,
) -> Iterator[_MeasuredFiles]:
    """What each test executes, and whether it passes without other files, share by share."""
    slow = replace(bench.limits, wall_seconds=bench.limits.wall_seconds * REACH_FACTOR)
    known = Preparation(BYTECODE)
    own = threading.local()
    numbers = itertools.count()
    with ExitStack() as started:

        def measure(paths: tuple[str, ...]) -> _MeasuredFiles:
            if not hasattr(own, "worker"):
                own.worker = started.enter_context(bench.worker(f"reach-{next(numbers)}"))
            files = paths or tuple({file_of(test): None for test in passing})
            # First, so that all that is imported is compiled by then, and a source that is opened is one that is read.
            apart = {
                path: own.worker.run(tree, Request(suite=suite, limits=bench.limits, paths=(path,)), known)
                for path in files
            }
            request = Request(suite=suite, limits=slow, paths=paths, reach=passing)
            return _MeasuredFiles(apart, own.worker.run(tree, request, known))

        with ThreadPoolExecutor(max(1, min(workers, len(shares)))) as pool:
            yield from pool.map(measure, shares)


def _shares(tree: Tree, reply: Reply, workers: int) -> list[tuple[str, ...]]:
    """The test files in shares that take about as long; one, without names, where they take little."""
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
    """What a run takes beside its tests, and its longest test: a fixture that others use as well may be in its time."""
    longest = max((float(record.seconds) for record in reply.of(TestRecord)), default=0)
    return max(0.0, reply.seconds - sum(_file_seconds(reply).values())) + longest


def _file_seconds(reply: Reply) -> dict[str, float]:
    """Test file -> seconds that its tests took."""
    seconds: dict[str, float] = {}
    for record in reply.of(TestRecord):
        path = file_of(record.id)
        seconds[path] = seconds.get(path, 0.0) + float(record.seconds)
    return {path: round(took, 3) for path, took in seconds.items()}


def _passing(replies: list[Reply]) -> dict[str, float]:
    """The tests that passed in every run -> their seconds in the slowest."""
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


def _silent(done: int, total: int) -> None:
    """Progress that nobody watches."""


class UnusableOptionsError(UserError):
    """pytest does not know one of the options that the repository's configuration gives it."""


def _checked(reply: Reply, limits: Limits, python: Path) -> Reply:
    end, detail = ending(reply, limits.wall_seconds)
    if "unrecognized arguments" in detail:
        raise UnusableOptionsError(
            f"the tests can't be run with the options of the repository's configuration: {detail}"
        )
    if end is End.TIMEOUT:
        raise UserError(
            f"the tests can't be run as they are: they were {detail}; give them longer with --time-limit SECONDS, or "
            "skip those that never end"
        )
    if end is not End.COMPLETED:
        raise UserError(f"the tests can't be run as they are ({end.value}): {detail}")
    if not statuses(reply):
        reasons = "; ".join(f"{node}: {why}" for node, why in collection_errors(reply).items())
        lacking = "ModuleNotFoundError" in reasons
        advice = f" (tests run with {python}: install what they need in a virtual environment .venv beside them)"
        raise UserError(f"no test was found: {reasons or reply.output.strip()[-300:]}{advice if lacking else ''}")
    return reply


def _summary(replies: list[Reply], measured: list[_MeasuredFiles], suite: TestSuite) -> Baseline:
    today = date.today()
    outcomes = [statuses(reply) for reply in replies]
    tests = list(dict.fromkeys(test for run in outcomes for test in run))
    passes = {test: sum(run[test].status is TestStatus.PASSED for run in outcomes if test in run) for test in tests}
    stable = [test for test in tests if passes[test] == len(replies) and not names_its_moment(test, today)]
    kept = set(stable)
    measures = [share.reach for share in measured]
    whole = all(measure.of(ImportedRecord) for measure in measures)
    unmeasured = next((record.reason for measure in measures for record in measure.of(UnmeasuredRecord)), "")
    unmeasured = unmeasured or ("" if whole else "the measure was cut short")
    reach, imported = ({}, frozenset[str]()) if unmeasured else _reach(measures, tests, suite)
    if reach and not any(_can_tell(place, imported) for place in reach):
        unmeasured = "whatever its tests execute is executed, or read as text, on import"
    slowest = max(replies, key=lambda reply: reply.seconds)
    return Baseline(
        stable=tuple(stable),
        flaky=tuple(test for test in tests if passes[test] and test not in kept),
        failing=tuple(test for test in tests if passes[test] == 0),
        outcomes=outcomes[-1],
        reach=reach,
        imported=imported,
        companions=_companions(measured, stable) if measured else {},
        unmeasured=unmeasured,
        seconds=slowest.seconds,
        file_seconds={**_file_seconds(slowest), "": _other_seconds(slowest)},
        collection_errors=collection_errors(replies[-1]),
    )


def names_its_moment(test_id: str, today: date) -> bool:
    """Does a test id hold the date of the day, or an address in memory?"""
    dates = (today.strftime(form) for form in ("%Y-%m-%d", "%Y%m%d", "%Y/%m/%d", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y"))
    return any(text in test_id for text in dates) or re.search(r" at 0x[0-9a-f]{6,}", test_id) is not None


def _can_tell(place: str, imported: frozenset[str]) -> bool:
    """Is it a function of which a change reaches some tests alone?"""
    return "::" in place and imported.isdisjoint((place, file_of(place)))


def _companions(measured: list[_MeasuredFiles], stable: list[str]) -> dict[str, str]:
    """The tests that don't pass alone -> the file with which they do; empty: they need the whole suite."""
    apart = {path: statuses(reply) for share in measured for path, reply in share.apart.items()}
    records = [record for share in measured for record in share.reach.of(ReachRecord)]
    with_companions = {record.test for record in records if not record.passes_alone}
    found = {}
    for test in stable:
        outcome = apart.get(file_of(test), {}).get(test)
        if outcome is None or outcome.status is not TestStatus.PASSED:
            found[test] = ""
        elif test in with_companions:
            found[test] = file_of(test)
    return found


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
    kept = frozenset(function for function in imported if function in by_function)
    return {function: tuple(found) for function, found in by_function.items()}, kept
