"""Measures the PASS_TO_PASS tests of tasks whose file names none: the tests that pass at the base in every run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from regrade.datasets.caches import default_cache, usable
from regrade.datasets.errors import UserError
from regrade.datasets.formats.task_construction import check_shown
from regrade.datasets.plurals import counted
from regrade.datasets.tasks import Task
from regrade.evaluators.execution import environments
from regrade.evaluators.execution.run_tests import SLACK
from regrade.evaluators.sandboxes import Sandbox
from regrade.evaluators.scoring.arguments import checked_amount, checked_count, checked_path, chosen_sandbox
from regrade.evaluators.scoring.environment_cache import check_pytest
from regrade.evaluators.task_curation.baseline_cache import BaselineCache
from regrade.evaluators.task_curation.chosen_tests import also_collecting
from regrade.evaluators.task_curation.fail_to_pass import resolve_fail_to_pass, unnamed_failing


def with_pass_to_pass(
    tasks: Sequence[Task],
    *,
    sandbox: str | Sandbox = "auto",
    runs: int = 3,
    cache: str | Path | None = None,
    time_limit: float = 600.0,
    progress: Callable[[int, int], None] | None = None,
    tell: Callable[[str], None] | None = None,
) -> list[Task]:
    """The tasks, in order; those that name no PASS_TO_PASS tests get the tests that pass at their base in every run.

    The result is cached, so nothing runs for an unchanged task.

    Args:
        runs: runs of the tests at the base.
        time_limit: limit of one run, in seconds.
        progress: called with (runs done, total runs), for each measured task.
        tell: called with notes: what was measured, and which tasks guard no test.

    Raises:
        UserError: the tests of a task can't be run at its base, a FAIL_TO_PASS test does not exist or fail there, or a
            shown test is none of the task's.
    """
    runs = checked_count("runs", runs) or 3
    time_limit = checked_amount("time_limit", time_limit)
    place = usable(checked_path("cache", cache) if cache else default_cache())
    unmeasured = [task for task in tasks if task.is_unmeasured]
    chosen = chosen_sandbox(sandbox) if unmeasured else None
    known = {
        id(task): _measured(task, chosen, runs=runs, cache=place, time_limit=time_limit, progress=progress)
        for task in unmeasured
        if chosen is not None
    }
    judged = [known.get(id(task), task) for task in tasks]
    for note in _notes([known[id(task)] for task in unmeasured], judged):
        if tell is not None:
            tell(note)
    return judged


def _measured(
    task: Task,
    sandbox: Sandbox,
    *,
    runs: int,
    cache: Path,
    time_limit: float,
    progress: Callable[[int, int], None] | None,
) -> Task:
    suite = also_collecting(task.suite, task.base, task.fail_to_pass)
    python = environments.python_for(task.requirements, cache)
    check_pytest(python, task.requirements)
    baselines = BaselineCache(
        requirements=task.requirements,
        python=python,
        sandbox=sandbox,
        runs=runs,
        time_limit=max(time_limit, task.limits.wall_seconds),
        test_limit=task.limits.test_seconds,
        cache=cache,
    )
    try:
        suite, baseline = baselines.get(task.base, suite, progress)
    except UserError as error:
        raise UserError(f"task {task.id!r}: {error}; or name the tests to guard with the key 'pass_to_pass'") from error
    try:
        fail_to_pass = resolve_fail_to_pass(task.fail_to_pass, baseline)
    except UserError as error:
        raise UserError(f"task {task.id!r}: {error}") from error
    pass_to_pass = tuple(test for test in baseline.stable if test not in fail_to_pass)
    unnamed = unnamed_failing(fail_to_pass, baseline)
    check_shown(task.shown.tests or (), (*fail_to_pass, *pass_to_pass, *unnamed), f"task {task.id!r}, shown")
    # The author's limit may have been meant for the FAIL_TO_PASS tests alone.
    seconds = max(task.limits.wall_seconds, round(baseline.seconds * SLACK, 1))
    return replace(
        task,
        fail_to_pass=fail_to_pass,
        pass_to_pass=pass_to_pass,
        unnamed=unnamed,
        is_unmeasured=False,
        suite=baseline.applied_to(suite),
        limits=replace(task.limits, wall_seconds=seconds),
    )


def _notes(measured: Sequence[Task], tasks: Sequence[Task]) -> list[str]:
    notes = []
    if measured:
        counts = sorted({len(task.pass_to_pass) for task in measured})
        span = f"{counts[0]} to {counts[-1]} tests" if len(counts) > 1 else counted(counts[0], "test")
        notes.append(
            f"{counted(len(measured), 'task')} without 'pass_to_pass': guarded by the tests that pass at the base "
            f"({span}), such as {measured[0].id!r}"
        )
    if bare := [task.id for task in tasks if not task.pass_to_pass]:
        notes.append(
            f"no test is guarded in {counted(len(bare), 'task')}, such as {bare[0]!r}, so breaking a passing test "
            "costs nothing: leave the key 'pass_to_pass' out to guard all tests that pass at the base"
        )
    return notes
