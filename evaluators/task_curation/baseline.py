"""The baseline of a suite: the tests that always pass without a patch, and the reach of each test."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from regrade.datasets.caches import default_cache, full_disk
from regrade.datasets.errors import UserError
from regrade.datasets.node_ids import file_of
from regrade.datasets.tasks import Limits, TestSuite, Tree
from regrade.evaluators.execution.activity import listener
from regrade.evaluators.execution.environments import python_for, toolchain
from regrade.evaluators.execution.image_environments import ImageEnvironments
from regrade.evaluators.execution.packages import installed_packages
from regrade.evaluators.execution.records import (
    DoneRecord,
)
from regrade.evaluators.execution.warm_start import store_preparation
from regrade.evaluators.execution.worker import Reply, WorkerDiedError
from regrade.evaluators.execution.worker_environments import WorkerEnvironment, image_environment
from regrade.evaluators.sandboxes import Sandbox, SandboxError, choose
from regrade.evaluators.sandboxes.scratch import remove, scratch_folder
from regrade.evaluators.task_curation.baseline_results import Baseline, MeasuredFiles, passing_tests, summary
from regrade.evaluators.task_curation.baseline_workers import (
    BYTECODE,
    BaselineWorkers,
    ReportingJob,
    WorkerSettings,
    shares_of,
)

FEW_RUNS = 4
"""Up to this number of runs, importing what all of them import beforehand, and a trial of that, takes longer."""


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
        found = summary(ended.replies, ended.measured, tree, suite)
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
    measured: list[MeasuredFiles]
    modules: tuple[str, ...] | None
    """See `early_modules`; None: unknown."""


def _store(settings: WorkerSettings, tree: Tree, suite: TestSuite, ended: _EndedRuns, folder: Path) -> None:
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
) -> WorkerSettings:
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
    return WorkerSettings(environment=environment, scratch=scratch, limits=limits, listener=listener())


def _run_and_measure(
    settings: WorkerSettings,
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
    with BaselineWorkers(settings, tree, suite) as started:
        first = started.worker("runs")
        replies = [started.run_suite(first, [], f"base run 1 of {runs}")]
        shares = shares_of(tree, replies[0], workers) if is_measured else []
        passing = passing_tests(replies)
        has_many_runs = runs + is_measured + len(set(map(file_of, passing))) > FEW_RUNS
        if suite.runner == "pytest" and settings.is_warm and (is_prepared or has_many_runs):
            started.import_early(first, replies[0])
        measured: list[MeasuredFiles | None] = [None] * len(shares)

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
        jobs: list[ReportingJob] = [run_again, *(partial(measure, number) for number in range(len(shares)))]
        done = [1, 0]  # runs, and shares
        for job in started.finish(jobs, runs - 1 + len(shares), min(workers, len(jobs))):
            done[job > 0] += 1
            report(done[0] + (done[1] == len(shares) > 0), steps)
    return _EndedRuns(
        replies=replies, measured=[share for share in measured if share is not None], modules=started.modules
    )


def _ignore_progress(done: int, total: int) -> None:
    """No progress callback."""
