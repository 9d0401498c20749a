"""The baseline of a suite: the tests that always pass without a patch, and the reach of each test."""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from functools import partial
from pathlib import Path
from queue import SimpleQueue

from regrade.datasets.caches import default_cache, full_disk
from regrade.datasets.errors import UserError
from regrade.datasets.node_ids import file_of
from regrade.datasets.tasks import Limits, TestSuite, Tree
from regrade.evaluators.execution.activity import Listener, listener
from regrade.evaluators.execution.environments import python_for, toolchain
from regrade.evaluators.execution.hanging_tests import limits_at_base, run_past_hanging_tests, slow_tests
from regrade.evaluators.execution.image_environments import ImageEnvironments
from regrade.evaluators.execution.packages import installed_packages
from regrade.evaluators.execution.records import (
    ConfigurationRecord,
    DoneRecord,
    ImportedRecord,
    ReachRecord,
    SourcesRecord,
    TestRecord,
    TestSources,
    UnmeasuredRecord,
)
from regrade.evaluators.execution.replies import collection_errors, ending, imported_copies, statuses
from regrade.evaluators.execution.warm_start import early_modules, store_preparation
from regrade.evaluators.execution.worker import Preparation, Reply, Request, Worker, WorkerDiedError
from regrade.evaluators.execution.worker_environments import WorkerEnvironment, image_environment
from regrade.evaluators.inside.origins import RUNNER
from regrade.evaluators.sandboxes import Sandbox, SandboxError, choose
from regrade.evaluators.sandboxes.scratch import remove, scratch_folder
from regrade.evaluators.task_curation.classified_files import ClassifiedFiles, classify_files
from regrade.evaluators.task_curation.tested_code import untested_code
from regrade.rewards.evidence import End, TestOutcome, TestStatus

REACH_FACTOR = 20
"""The measurement of reach runs every test in its own process, under a profiler: its time limit is this much longer."""

SHORT_SECONDS = 1.0
"""A suite that takes less than this is not divided: starting further workers would take longer."""

FORK_SECONDS = 0.01
"""CPU time of a process for each test, beside the test's own: what a measurement of many short tests takes."""

FEW_RUNS = 4
"""Up to this number of runs, importing what all of them import beforehand, and a trial of that, takes longer."""

SHARES_A_WORKER = 16
"""Maximum number of shares per worker of a long suite, so that its measurement shows progress."""

BYTECODE = "bytecode"
"""Name of the scratch folder with the byte code that the first run writes and later runs read."""

_Job = Callable[[Callable[[], None]], None]
"""Called with a function that reports each finished step."""


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


def baseline(
    tree: Tree,
    suite: TestSuite,
    requirements: tuple[str, ...] = (),
    limits: Limits | None = None,
    *,
    runs: int = 3,
    reach: bool = True,
    workers: int | None = None,
    sandbox: Sandbox | None = None,
    cache: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    preparations: Path | None = None,
) -> Baseline:
    """Run the suite `runs` times and measure its reach once.

    Args:
        reach: False: its reach is not measured, and is empty.
        workers: number of workers that measure reach; None: the number of cores. The measured reach of a test may
            depend on the tests collected with it (they may fill a cache), so 1 is the reproducible choice.
        progress: called with (steps done, total steps): the runs, and the measurement.
        preparations: the folder (see `bytecode_folder`) to store the preparation of the suite in, for its candidates;
            None: it is not stored.

    Raises:
        UserError: no test could be run; the message names the reason.
    """
    limits = limits or Limits(wall_seconds=600.0)
    settings = _worker_settings(tree, suite, requirements, limits, sandbox, cache or default_cache())
    is_whole = not tree.replaced and not tree.removed  # as is the tree in the key of a preparation
    is_prepared = preparations is not None and settings.environment.sandbox.isolated and is_whole
    workers = workers or os.cpu_count() or 1
    try:
        workers = workers if reach else 0
        ended = _run_and_measure(settings, tree, suite, runs, workers, progress or _ignore_progress, is_prepared)
        found = _summary(ended.replies, ended.measured, tree, suite)
        if preparations is not None and is_prepared:
            _store(settings, tree, found.applied_to(suite), ended, preparations)
        return found
    except (SandboxError, WorkerDiedError, OSError) as error:
        advice = full_disk(error) or "choose another one with `sandbox=NAME`, see `regrade doctor`"
        raise UserError(f"the tests can't be run because the sandbox failed ({error}): {advice}") from error
    finally:
        remove(settings.scratch)


@dataclass(frozen=True, kw_only=True)
class _EndedRuns:
    """All runs of a baseline."""

    replies: list[Reply]
    measured: list[_MeasuredFiles]
    modules: tuple[str, ...] | None
    """See `early_modules`; None: unknown."""


def _store(settings: _WorkerSettings, tree: Tree, suite: TestSuite, ended: _EndedRuns, folder: Path) -> None:
    """Store the preparation of the suite. A run that was stopped may have left damaged byte code."""
    of_files = [reply for share in ended.measured for reply in (share.reach, *share.apart.values())]
    if ended.modules is not None and all(reply.of(DoneRecord) for reply in (*ended.replies, *of_files)):
        with contextlib.suppress(OSError):  # such as a full disk: the first candidate needs it, and says so
            # The mounted folder, and in it that of the preparation.
            written = settings.scratch / BYTECODE / BYTECODE
            store_preparation(tree, suite, written, ended.replies[0], ended.modules, folder)


def _worker_settings(
    tree: Tree,
    suite: TestSuite,
    requirements: tuple[str, ...],
    limits: Limits,
    sandbox: Sandbox | None,
    cache: Path,
) -> _WorkerSettings:
    packages = installed_packages(suite, tree.root, cache)
    if suite.image is None:
        python, tools = python_for(requirements, cache), toolchain(suite.runner)
        plain = WorkerEnvironment(sandbox or choose(), python, packages=packages, tools=tools)
    else:
        try:
            plain = image_environment(suite.image, ImageEnvironments(cache).facts(suite.image), packages=packages)
        except SandboxError as error:
            raise UserError(str(error)) from error
    scratch = scratch_folder()
    environment = replace(plain, bytecode=scratch / BYTECODE)
    return _WorkerSettings(environment=environment, scratch=scratch, limits=limits, listener=listener())


def _run_and_measure(
    settings: _WorkerSettings,
    tree: Tree,
    suite: TestSuite,
    runs: int,
    workers: int,
    report: Callable[[int, int], None],
    is_prepared: bool,
) -> _EndedRuns:
    """The replies of all runs, and the measured shares of the test files; without workers, nothing is measured.

    The first run has the machine to itself: it writes the byte code, and its tests that pass are measured. With several
    workers, the measurement takes place beside the further runs, as the tests of patches run beside each other: a test
    that fails on a busy machine is flaky. The slowest run then includes that load, so the limits that follow from it
    only get longer. The further runs have another interpreter: the order of a set may depend on addresses (`hash(None)`
    does before Python 3.12), and ids made from such a set then differ between interpreters, as those of patches do.
    """
    (settings.scratch / BYTECODE).mkdir()
    (settings.scratch / BYTECODE).chmod(0o777)
    is_measured = suite.runner == "pytest" and workers > 0 and settings.is_warm
    steps = runs + is_measured
    report(0, steps)
    with _BaselineWorkers(settings, tree, suite) as started:
        first = started.worker("runs")
        replies = [started.run_suite(first, [], f"base run 1 of {runs}")]
        shares = _shares(tree, replies[0], workers) if is_measured else []
        passing = _passing(replies)
        has_many_runs = runs + is_measured + len(set(map(file_of, passing))) > FEW_RUNS
        if suite.runner == "pytest" and settings.is_warm and (is_prepared or has_many_runs):
            started.import_early(first, replies[0])
        measured: list[_MeasuredFiles | None] = [None] * len(shares)

        def run_again(report_run: Callable[[], None]) -> None:
            again = started.worker("runs-again") if shares and runs > 1 else first
            for number in range(2, runs + 1):
                replies.append(started.run_suite(again, replies[:1], f"base run {number} of {runs}"))
                report_run()
            started.give_back(again)

        if shares and runs > 1:
            started.give_back(first)  # the measurement uses it

        def measure(number: int, report_share: Callable[[], None]) -> None:
            name = f", part {number + 1} of {len(shares)}" if len(shares) > 1 else ""
            measured[number] = started.measure(shares[number], passing, replies[0].hanging, name)
            report_share()

        report(1, steps)
        jobs: list[_Job] = [run_again, *(partial(measure, number) for number in range(len(shares)))]
        done = [1, 0]  # runs, and shares
        for job in started.finish(jobs, runs - 1 + len(shares), min(workers, len(jobs))):
            done[job > 0] += 1
            report(done[0] + (done[1] == len(shares) > 0), steps)
    return _EndedRuns(
        replies=replies, measured=[share for share in measured if share is not None], modules=started.modules
    )


class _BaselineWorkers(ExitStack):
    """The workers of one baseline, one per thread. After an error or Ctrl-C, all are killed."""

    def __init__(self, settings: _WorkerSettings, tree: Tree, suite: TestSuite) -> None:
        super().__init__()
        self._settings = settings
        self._tree = tree
        self._suite = suite
        self._local = threading.local()
        self._workers: list[Worker] = []
        self._free: list[Worker] = []
        self._lock = threading.Lock()
        self._preparation = Preparation(BYTECODE)
        self.modules: tuple[str, ...] | None = None
        """See `early_modules`; None: unknown."""

    def import_early(self, worker: Worker, reply: Reply) -> None:
        """From now on, let each worker import once what the collection of the tests imports from outside of the tree,
        as the workers of patches do."""
        if reply.of(ImportedRecord):
            self.modules = early_modules(worker, self._tree, self._suite, self._settings.limits, reply)
            self._preparation = replace(self._preparation, modules=self.modules)

    def give_back(self, worker: Worker) -> None:
        """Its runs are over: whoever needs a worker next need not start one."""
        with self._lock:
            self._free.append(worker)

    def worker(self, name: str) -> Worker:
        with self._lock:
            worker = self.enter_context(self._settings.worker(name))
            self._workers.append(worker)
            return worker

    def run_suite(self, worker: Worker, earlier: list[Reply], phase: str) -> Reply:
        """A run of the whole suite, past tests that hang; the first one, without an earlier one, also records the files
        that the tests come from. Raises UserError if it was not completed."""
        limits = self._settings.limits
        test_limits = limits_at_base(limits, earlier)
        request = Request(suite=self._suite, limits=limits, test_limits=test_limits, sources=not earlier, phase=phase)
        reply = run_past_hanging_tests(worker, self._tree, request, self._preparation)
        reply = _checked(reply, limits, self._settings.environment.python)
        if (
            not earlier
            and self._settings.is_warm
            and (path := untested_code(self._tree, self._suite, _sources([reply]), reply))
        ):
            raise UserError(
                f"the tests execute none of the repository's code (nothing of {path}, for example), so no patch would "
                "be tested: they may import another copy of it. Name the folder of its modules with "
                "`python_path=FOLDER`, or uninstall the copy from the environment of the tests "
                f"({self._settings.environment.python})"
            )
        return reply

    def measure(
        self, share: _ReachPart, passing: Mapping[str, float], hanging: Collection[str], name: str = ""
    ) -> _MeasuredFiles:
        """Measure the reach of each test of a share, and whether it passes without other files; without the hanging
        tests, whose reach is unknown.

        Args:
            name: of the share, for a display.
        """
        if not hasattr(self._local, "worker"):
            with self._lock:
                free = self._free.pop() if self._free else None
            self._local.worker = free or self.worker(f"reach-{threading.get_ident()}")
        worker: Worker = self._local.worker
        limits, preparation = self._settings.limits, self._preparation
        slow = replace(limits, wall_seconds=limits.wall_seconds * REACH_FACTOR)
        files, skipped = share.paths or tuple({file_of(test): None for test in passing}), frozenset(hanging)
        # First, to compile all imports: after that, only a test that reads a source file opens it.
        alone = Request(suite=self._suite, limits=limits, skip=skipped, phase=f"each test file alone{name}")
        apart = {path: worker.run(self._tree, replace(alone, paths=(path,)), preparation) for path in files}
        request = Request(
            suite=self._suite,
            limits=slow,
            paths=share.paths,
            skip=skipped,
            reach=passing,
            part=share.part,
            phase=f"what each test executes{name}",
        )
        return _MeasuredFiles(apart, worker.run(self._tree, request, preparation))

    def finish(self, jobs: Sequence[_Job], steps: int, threads: int) -> Iterator[int]:
        """Run the jobs, in order, in threads. Yield the index of the job for each finished step that it reports.

        Raises the first error of a job, when all jobs have ended.
        """
        events: SimpleQueue[BaseException | int] = SimpleQueue()

        def run(index: int, job: _Job) -> None:
            try:
                job(lambda: events.put(index))
            except BaseException as error:
                events.put(error)

        with ThreadPoolExecutor(max(1, threads)) as pool:
            futures = [pool.submit(run, index, job) for index, job in enumerate(jobs)]
            try:
                for _ in range(steps):
                    event = events.get()
                    if isinstance(event, BaseException):
                        raise event
                    yield event
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                # A worker may be starting, and can be killed only then. `wait` alone waits for cancelled futures too.
                while running := [future for future in futures if not future.done()]:
                    wait(running, timeout=0.1)
                    for worker in self._workers:
                        worker.kill()
                raise


@dataclass(frozen=True, kw_only=True)
class _WorkerSettings:
    """The settings of all workers of one baseline."""

    environment: WorkerEnvironment
    scratch: Path
    limits: Limits
    listener: Listener | None = None

    @property
    def is_warm(self) -> bool:
        """Are runs observed in a warm interpreter?"""
        image, facts = self.environment.image, self.environment.facts
        return image is None or facts is None or facts.is_warm(image)

    def worker(self, name: str) -> Worker:
        folder = self.scratch / name
        folder.mkdir()
        return self.environment.worker(folder, limits=self.limits, listener=self.listener, writable_bytecode=True)


@dataclass(frozen=True)
class _ReachPart:
    """What one worker measures at a time."""

    paths: tuple[str, ...] = ()
    """Test files; empty: all."""
    part: tuple[int, int] = (0, 1)
    """See `Request.part`."""


@dataclass(frozen=True)
class _MeasuredFiles:
    """The measurements of some test files."""

    apart: Mapping[str, Reply]
    """File -> a run of this file alone."""
    reach: Reply


def _shares(tree: Tree, reply: Reply, workers: int) -> list[_ReachPart]:
    """The test files in shares of about equal duration; all of them, but each for a part of their tests, if there are
    fewer files than workers; one share for all if the measurement is short."""
    seconds = _file_seconds(reply)
    longest = SHORT_SECONDS
    for record in reply.of(TestRecord):
        seconds[file_of(record.id)] += FORK_SECONDS
        longest = max(longest, float(record.seconds))
    parts = min(int(sum(seconds.values()) / longest), workers)
    if len(seconds) < parts:
        return [_ReachPart(part=(index, parts)) for index in range(parts)]
    count = min(int(sum(seconds.values()) / SHORT_SECONDS), SHARES_A_WORKER * workers, len(seconds))
    if count < 1 or any(not (tree.root / path).is_file() for path in seconds):
        return [_ReachPart()]
    shares: list[list[str]] = [[] for _ in range(count)]
    loads = [0.0] * len(shares)
    for path, took in sorted(seconds.items(), key=lambda entry: -entry[1]):
        least = loads.index(min(loads))
        shares[least].append(path)
        loads[least] += took
    return [_ReachPart(tuple(share)) for share in shares]


def _other_seconds(reply: Reply) -> float:
    """Seconds of a run outside of its tests, plus its longest test, whose time may include a shared fixture."""
    longest = max((float(record.seconds) for record in reply.of(TestRecord)), default=0)
    return max(0.0, _seconds(reply) - sum(_file_seconds(reply).values())) + longest


def _seconds(reply: Reply) -> float:
    """Seconds of a run without those of the tests that were stopped."""
    return max(0.0, reply.seconds - sum(reply.hanging.values()))


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
    if copies := imported_copies(reply):
        raise UserError(_other_copy_error(copies))
    if end is End.TIMEOUT:
        raise UserError(
            f"the tests can't be run at the base: they were {detail}; set a longer limit with `time_limit=SECONDS`, "
            "or a shorter one for each test with `test_limit=SECONDS` if some never end"
        )
    if end is not End.COMPLETED:
        raise UserError(f"the tests can't be run at the base ({end.value}): {detail}")
    if not statuses(reply):
        reasons = "; ".join(f"{node}: {why}" for node, why in collection_errors(reply).items())
        lacking = "ModuleNotFoundError" in reasons
        advice = f" (tests run with {python}: install their dependencies in a virtual environment .venv beside them"
        advice += "; name folders of the repository's modules other than its root with `python_path=FOLDER`)"
        where = "" if reasons else "; name the files or folders that hold the tests with `tests=PATH`"
        raise UserError(
            f"no test was found: {reasons or reply.output.strip()[-300:]}{advice if lacking else ''}{where}"
        )
    return reply


def _other_copy_error(copies: str) -> str:
    """`copies`: see `imported_copies`."""
    problem = f"the tests can't be run on the repository's code: {copies}, so no patch would be tested; "
    if copies.partition(" ")[0].partition(".")[0] in RUNNER:
        return (
            f"{problem}that module runs the tests, and can't be replaced while it does: patches of pytest itself can't "
            "be scored; if the repository only contains a copy, name the folder of its own modules with "
            "`python_path=FOLDER`"
        )
    return (
        f"{problem}uninstall that copy from the environment of the tests, or name the folder of the repository's "
        "modules with `python_path=FOLDER`"
    )


def _summary(replies: list[Reply], measured: list[_MeasuredFiles], tree: Tree, suite: TestSuite) -> Baseline:
    today = date.today()
    files = classify_files(tree, suite, _sources(replies))
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
    slowest = max(replies, key=_seconds)
    return Baseline(
        stable=tuple(stable),
        flaky=tuple(test for test in tests if test not in stable_tests and test not in failing),
        failing=tuple(failing),
        outcomes=outcomes[-1],
        reach=reach,
        imported=imported,
        companions=_companions(measured, stable) if measured else {},
        unmeasured=unmeasured,
        seconds=_seconds(slowest),
        file_seconds={**_file_seconds(slowest), "": _other_seconds(slowest)},
        slow_tests=slow_tests(replies),
        collection_errors=collection_errors(replies[-1]),
        files=files,
        configuration=_configuration(replies[0]),
    )


def _sources(replies: list[Reply]) -> TestSources:
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
        if not suite.protects(file_of(function)):
            # A test that could not be measured may execute anything.
            by_function[function] = [test for test in tests if test not in by_test or function in by_test[test]]
    imported_functions = frozenset(function for function in imported if function in by_function)
    return {function: tuple(ids) for function, ids in by_function.items()}, imported_functions
