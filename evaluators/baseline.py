"""What a tree's tests say without any patch: which pass every time, and which functions each of them executes."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

from regrade.datasets.caches import default_cache
from regrade.datasets.errors import UserError
from regrade.datasets.tasks import Limits, TestSuite, Tree
from regrade.evaluators.environments import installed_packages, python_for, toolchain
from regrade.evaluators.executions import collection_errors, ending, statuses
from regrade.evaluators.sandboxes import Sandbox, SandboxError, choose
from regrade.evaluators.scratch import remove, scratch_folder
from regrade.evaluators.workers import Preparation, Reply, Request, Worker, WorkerDied
from regrade.evaluators.workspaces import is_protected
from regrade.rewards.evidence import End, TestOutcome, TestStatus

REACH_FACTOR = 20
"""The measure of reach runs every test in a process of its own, under a profiler: it may take this much longer."""

SHORT_SECONDS = 2.0
"""Tests that take less than this together are not shared out: starting further workers would take longer."""

BYTECODE = "bytecode"
"""Name of the scratch folder in which the first run leaves byte code for the others."""


@dataclass(frozen=True)
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
    """Functions executed on import or collection (see `TestSuite.imported`)."""
    seconds: float
    """Wall time of the slowest run."""
    file_seconds: Mapping[str, float]
    """See `TestSuite.seconds`; of the slowest run."""
    collection_errors: Mapping[str, str]
    """File -> why its tests could not be collected."""

    def applied_to(self, suite: TestSuite) -> TestSuite:
        """The suite with what was measured."""
        return replace(suite, reach=self.reach, imported=self.imported, seconds=self.file_seconds)


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
        progress: called with (runs done, runs in all, the measure included).

    Raises:
        UserError: no test could be run; says why.
    """
    limits = limits or Limits(wall_seconds=600.0)
    bench = _Bench(
        sandbox or choose(),
        python_for(requirements, cache or default_cache()),
        scratch_folder(),
        limits,
        installed_packages(suite, tree.root),
        toolchain(suite.runner),
    )
    if progress:
        progress(0, runs + 1)
    try:
        (bench.scratch / BYTECODE).mkdir()
        (bench.scratch / BYTECODE).chmod(0o777)
        with bench.worker("runs") as worker:
            replies = []
            for number in range(runs):
                reply = worker.run(tree, Request(suite, limits), Preparation(BYTECODE))
                replies.append(_checked(reply, limits, bench.python))
                if progress:
                    progress(number + 1, runs + 1)
        measured = _measured_reach(bench, tree, suite, _shares(tree, replies[-1], workers or os.cpu_count() or 1))
        if progress:
            progress(runs + 1, runs + 1)
    except (SandboxError, WorkerDied, OSError) as error:
        raise UserError(
            f"the tests can't be run, the sandbox fails ({error}): try another one with --sandbox, see `regrade doctor`"
        ) from error
    finally:
        remove(bench.scratch)
    return _summary(replies, measured, suite)


@dataclass(frozen=True)
class _Bench:
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


def _measured_reach(bench: _Bench, tree: Tree, suite: TestSuite, shares: list[tuple[str, ...]]) -> list[Reply]:
    """What each test executes, measured by a worker for each share of the test files."""
    slow = replace(bench.limits, wall_seconds=bench.limits.wall_seconds * REACH_FACTOR)

    def measure(number: int, paths: tuple[str, ...]) -> Reply:
        with bench.worker(f"reach-{number}") as worker:
            request = Request(suite, slow, paths=paths, reach=True)
            return worker.run(tree, request, Preparation(BYTECODE))

    with ThreadPoolExecutor(len(shares)) as pool:
        return list(pool.map(measure, range(len(shares)), shares))


def _shares(tree: Tree, reply: Reply, count: int) -> list[tuple[str, ...]]:
    """The test files in up to `count` shares that take about as long; one, without names, where they take little."""
    seconds = _file_seconds(reply)
    if sum(seconds.values()) < SHORT_SECONDS or any(not (tree.root / path).is_file() for path in seconds):
        return [()]
    shares: list[list[str]] = [[] for _ in range(min(count, len(seconds)))]
    loads = [0.0] * len(shares)
    for path, took in sorted(seconds.items(), key=lambda entry: -entry[1]):
        least = loads.index(min(loads))
        shares[least].append(path)
        loads[least] += took
    return [tuple(share) for share in shares]


def _other_seconds(reply: Reply) -> float:
    """What a run takes beside its tests, and its longest test: a fixture that others use as well may be in its time."""
    longest = max((float(record[3]) for record in reply.records if record[0] == "test" and len(record) == 5), default=0)
    return max(0.0, reply.seconds - sum(_file_seconds(reply).values())) + longest


def _file_seconds(reply: Reply) -> dict[str, float]:
    """Test file -> seconds that its tests took."""
    seconds: dict[str, float] = {}
    for record in reply.records:
        if record[0] == "test" and len(record) == 5:
            path = str(record[1]).split("::")[0]
            seconds[path] = seconds.get(path, 0.0) + float(record[3])
    return {path: round(took, 3) for path, took in seconds.items()}


class UnusableOptions(UserError):
    """pytest does not know one of the options that the repository's configuration gives it."""


def _checked(reply: Reply, limits: Limits, python: Path) -> Reply:
    end, detail = ending(reply, limits.wall_seconds)
    if "unrecognized arguments" in detail:
        raise UnusableOptions(f"the tests can't be run with the options of the repository's configuration: {detail}")
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


def _summary(replies: list[Reply], measured: list[Reply], suite: TestSuite) -> Baseline:
    today = date.today()
    outcomes = [statuses(reply) for reply in replies]
    tests = list(dict.fromkeys(test for run in outcomes for test in run))
    passes = {test: sum(run[test].status is TestStatus.PASSED for run in outcomes if test in run) for test in tests}
    stable = [test for test in tests if passes[test] == len(replies) and not names_its_moment(test, today)]
    kept = set(stable)
    reach, imported = _reach(measured, tests, suite)
    slowest = max(replies, key=lambda reply: reply.seconds)
    return Baseline(
        stable=tuple(stable),
        flaky=tuple(test for test in tests if passes[test] and test not in kept),
        failing=tuple(test for test in tests if passes[test] == 0),
        outcomes=outcomes[-1],
        reach=reach,
        imported=imported,
        seconds=slowest.seconds,
        file_seconds={**_file_seconds(slowest), "": _other_seconds(slowest)},
        collection_errors=collection_errors(replies[-1]),
    )


def names_its_moment(test_id: str, today: date) -> bool:
    """Does a test id hold the date of the day, or an address in memory?"""
    dates = (today.strftime(form) for form in ("%Y-%m-%d", "%Y%m%d", "%Y/%m/%d", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y"))
    return any(text in test_id for text in dates) or re.search(r" at 0x[0-9a-f]{6,}", test_id) is not None


def _reach(
    measured: list[Reply], tests: list[str], suite: TestSuite
) -> tuple[dict[str, tuple[str, ...]], frozenset[str]]:
    imported: set[str] = set()
    records = [record for reply in measured for record in reply.records]
    if not all(any(record[0] == "imported" for record in reply.records) for reply in measured):
        return {}, frozenset()  # nothing is known of any function, so every change needs the whole suite
    by_test: dict[str, set[str]] = {}
    for record in records:
        if record[0] == "imported" and len(record) == 2:
            imported.update(record[1])
        elif record[0] == "reach" and len(record) == 4 and not record[3]:
            by_test.setdefault(record[1], set()).update(record[2])
    by_function: dict[str, list[str]] = {}
    functions = {function for keys in by_test.values() for function in keys} | imported
    for function in sorted(functions):
        if not is_protected(function.split("::", 1)[0], suite.protected):
            # A test that could not be measured may execute anything.
            by_function[function] = [test for test in tests if test not in by_test or function in by_test[test]]
    kept = frozenset(function for function in imported if function in by_function)
    return {function: tuple(found) for function, found in by_function.items()}, kept
