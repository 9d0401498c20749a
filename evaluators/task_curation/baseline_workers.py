"""The workers of a baseline: runs of the whole suite, and measurements of what each test executes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from queue import SimpleQueue

from regrade.datasets.errors import UserError
from regrade.datasets.node_ids import file_of
from regrade.datasets.tasks import Limits, TestSuite, Tree
from regrade.evaluators.execution.activity import Listener
from regrade.evaluators.execution.hanging_tests import limits_at_base, run_past_hanging_tests
from regrade.evaluators.execution.records import (
    ImportedRecord,
    TestRecord,
)
from regrade.evaluators.execution.replies import collection_errors, ending, imported_copies, statuses
from regrade.evaluators.execution.warm_start import early_modules
from regrade.evaluators.execution.worker import Preparation, Reply, Request, Worker
from regrade.evaluators.execution.worker_environments import WorkerEnvironment
from regrade.evaluators.inside.origins import RUNNER
from regrade.evaluators.task_curation.baseline_results import MeasuredFiles, file_seconds_of, sources_of
from regrade.evaluators.task_curation.tested_code import untested_code
from regrade.rewards.evidence import End

REACH_FACTOR = 20
"""The measurement of reach runs every test in its own process, under a profiler: its time limit is this much longer."""

SHORT_SECONDS = 1.0
"""A suite that takes less than this is not divided: starting further workers would take longer."""

FORK_SECONDS = 0.01
"""CPU time of a process for each test, beside the test's own: what a measurement of many short tests takes."""

SHARES_A_WORKER = 16
"""Maximum number of shares per worker of a long suite, so that its measurement shows progress."""

BYTECODE = "bytecode"
"""Name of the scratch folder with the byte code that the first run writes and later runs read."""

ReportingJob = Callable[[Callable[[], None]], None]
"""Called with a function that reports each finished step."""


@dataclass(frozen=True, kw_only=True)
class WorkerSettings:
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
class ReachPart:
    """What one worker measures at a time."""

    paths: tuple[str, ...] = ()
    """Test files; empty: all."""
    part: tuple[int, int] = (0, 1)
    """See `Request.part`."""


class BaselineWorkers(ExitStack):
    """The workers of one baseline, one per thread. After an error or Ctrl-C, all are killed."""

    def __init__(self, settings: WorkerSettings, tree: Tree, suite: TestSuite) -> None:
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
            and (path := untested_code(self._tree, self._suite, sources_of([reply]), reply))
        ):
            raise UserError(
                f"the tests execute none of the repository's code (nothing of {path}, for example), so no patch would "
                "be tested: they may import another copy of it. Name the folder of its modules with "
                "`python_path=FOLDER`, or uninstall the copy from the environment of the tests "
                f"({self._settings.environment.python})"
            )
        return reply

    def measure(
        self, share: ReachPart, passing: Mapping[str, float], hanging: Collection[str], name: str = ""
    ) -> MeasuredFiles:
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
        return MeasuredFiles(apart, worker.run(self._tree, request, preparation))

    def finish(self, jobs: Sequence[ReportingJob], steps: int, threads: int) -> Iterator[int]:
        """Run the jobs, in order, in threads. Yield the index of the job for each finished step that it reports.

        Raises the first error of a job, when all jobs have ended.
        """
        events: SimpleQueue[BaseException | int] = SimpleQueue()

        def run(index: int, job: ReportingJob) -> None:
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


def shares_of(tree: Tree, reply: Reply, workers: int) -> list[ReachPart]:
    """The test files in shares of about equal duration; all of them, but each for a part of their tests, if there are
    fewer files than workers; one share for all if the measurement is short."""
    seconds = file_seconds_of(reply)
    longest = SHORT_SECONDS
    for record in reply.of(TestRecord):
        seconds[file_of(record.id)] += FORK_SECONDS
        longest = max(longest, float(record.seconds))
    parts = min(int(sum(seconds.values()) / longest), workers)
    if len(seconds) < parts:
        return [ReachPart(part=(index, parts)) for index in range(parts)]
    count = min(int(sum(seconds.values()) / SHORT_SECONDS), SHARES_A_WORKER * workers, len(seconds))
    if count < 1 or any(not (tree.root / path).is_file() for path in seconds):
        return [ReachPart()]
    shares: list[list[str]] = [[] for _ in range(count)]
    loads = [0.0] * len(shares)
    for path, took in sorted(seconds.items(), key=lambda entry: -entry[1]):
        least = loads.index(min(loads))
        shares[least].append(path)
        loads[least] += took
    return [ReachPart(tuple(share)) for share in shares]


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
