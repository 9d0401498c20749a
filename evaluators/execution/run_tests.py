"""Runs the tests of a workspace in a worker, and turns the replies into evidence."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from regrade.datasets.node_ids import file_of
from regrade.datasets.patches import PatchError
from regrade.datasets.plurals import listed
from regrade.datasets.tasks import Limits, Task, Tree
from regrade.evaluators.execution.hanging_tests import (
    MOST_STOPPED,
    hanging_at_base,
    limits_of_tests,
    run_past_hanging_tests,
)
from regrade.evaluators.execution.honest_runs import Signs
from regrade.evaluators.execution.records import (
    TamperedRecord,
)
from regrade.evaluators.execution.replies import (
    LONGEST_DETAIL,
    MISSING,
    PASSED,
    UNREACHED,
    clipped,
    collection_errors,
    ending,
    statuses,
    stopped_tests,
    unreported,
    why_void,
)
from regrade.evaluators.execution.selection import selected_tests, with_companions
from regrade.evaluators.execution.slow_machine import limit_now
from regrade.evaluators.execution.unreadable_tests import dependent_tests, reads, watched_files
from regrade.evaluators.execution.worker import UNPREPARED, Preparation, Reply, Request, Worker, without_candidate
from regrade.evaluators.execution.workspaces import Workspace, prepare
from regrade.rewards.evidence import End, PartialRun, TestFileRun, TestOutcome, TestRun, TestStatus

logger = logging.getLogger(__name__)
SHORTEST_LIMIT, SLACK = 30.0, 5.0
"""Time limit of tests: `SLACK` times their time without the patch, and at least `SHORTEST_LIMIT` seconds."""
UNDOUBTED = (TestStatus.PASSED, TestStatus.UNREACHED)
"""Outcomes of a test that contradict a failure caused by the change."""


@dataclass(frozen=True)
class SelectionAudit:
    """Regressions that a full run found, among the selected tests and beyond them."""

    caught: int
    """PASS_TO_PASS tests that the patch breaks, among the selected ones."""
    missed: tuple[str, ...]
    """PASS_TO_PASS tests that the patch breaks, among the other ones."""


@dataclass(frozen=True)
class SuiteExecution:
    """The evidence of one or more runs, and its CPU time."""

    run: TestRun
    cpu_seconds: float
    audit: SelectionAudit | None = None


def run_tests(
    worker: Worker,
    task: Task,
    workspace: Workspace,
    *,
    reachable: bool = False,
    preparation: Preparation = UNPREPARED,
    audit: bool = False,
) -> SuiteExecution:
    """Run the task's tests on the workspace. PASS_TO_PASS tests that fail only because a file was restored are not
    judged.

    Raises:
        SandboxError, OSError, WorkerDiedError: see `Worker.run`.
    """
    execution = _run_tests(worker, task, workspace, reachable=reachable, preparation=preparation, audit=audit)
    return _without_unjudged(worker, task, workspace, execution)


def _without_unjudged(
    worker: Worker, task: Task, workspace: Workspace, execution: SuiteExecution, *, cold: bool = False
) -> SuiteExecution:
    """The evidence in which a broken test is UNREACHED if it passes with the patch's version of the restored files.

    pytest's configuration stays that of the base: a copy of it, if its file is among the restored ones.
    """
    run, restored = execution.run, dict(workspace.restored)
    if run.end is not End.COMPLETED or not run.broken or not restored:
        return execution
    suite = task.suite
    if suite.configuration and suite.configuration in restored:
        copy = f"{suite.configuration.rpartition('.')[0]}-of-base.{suite.configuration.rpartition('.')[2]}"
        restored[copy] = workspace.before.read(suite.configuration)
        suite = replace(suite, configuration=copy)
    # The base runs with the same configuration, so that what its tests replace is known (see `_honest`).
    copies = {path: text for path, text in restored.items() if path not in workspace.restored}
    changed = replace(workspace, before=workspace.before.with_files(copies), after=workspace.after.with_files(restored))
    scope = "the broken tests, with the files of the patch"
    reply = _run(worker, replace(task, suite=suite), changed, frozenset(run.broken), scope=scope, cold=cold)
    if ending(reply, task.limits.wall_seconds)[0] is not End.COMPLETED:
        return execution
    passed = {test for test, outcome in statuses(reply).items() if outcome == PASSED}
    unjudged = [test for test in run.broken if test in passed]
    if not unjudged:
        return execution
    files, tests = sorted(workspace.restored), listed(unjudged, 3)
    detail = clipped(f"not judged, because they fail only with the base's {', '.join(files)}: {tests}")
    outcomes = {**run.outcomes, **dict.fromkeys(unjudged, UNREACHED)}
    run = replace(run, outcomes=outcomes, detail=detail, seconds=round(run.seconds + reply.seconds, 4))
    return replace(execution, run=run, cpu_seconds=execution.cpu_seconds + reply.cpu_seconds)


def _run_tests(
    worker: Worker,
    task: Task,
    workspace: Workspace,
    *,
    reachable: bool,
    preparation: Preparation,
    audit: bool,
) -> SuiteExecution:
    """Run the task's tests on the workspace.

    The tests that can reach the change run first. The rest runs too if the change may reach anything, or if all
    FAIL_TO_PASS tests pass without a regression.

    Args:
        reachable: never run the rest.
        audit: always run the rest, to measure what the selection missed. The evidence is that of the full run only if
            something was missed, so that an audit changes no correct verdict.

    Raises:
        SandboxError, OSError, WorkerDiedError: see `Worker.run`.
    """
    everything = frozenset(task.tests)
    selected = selected_tests(task, workspace)
    if selected is None:
        selected = everything
    rest = everything - selected
    logger.debug("test selection: task %s: %d of %d tests", task.id, len(selected), len(everything))
    scope = "the tests that it reaches" if rest else "the whole suite"
    reply = _run(worker, task, workspace, selected, preparation, scope=scope)
    cpu_seconds = reply.cpu_seconds
    if not stopped_tests(reply) <= selected:
        # Stopped in a test that ran along, and executes no changed code: a second run shows whether that was chance.
        reply = _run(worker, task, workspace, selected, preparation, scope=f"{scope}, again")
        cpu_seconds += reply.cpu_seconds
    run = _evidence(task, reply, selected, "reachable" if rest else "full")
    first = _with_confirmed_failures(worker, task, workspace, SuiteExecution(run, cpu_seconds), selected, preparation)
    is_complete = first.run.end is End.COMPLETED
    if not (rest and is_complete and (audit or (first.run.resolved and not reachable))):
        return first
    whole = _run_everything(worker, task, workspace, first, preparation)
    if not audit:
        return whole
    missed = tuple(test for test in whole.run.broken if test in rest)
    run = whole.run if missed or (first.run.resolved and not reachable) else first.run
    return SuiteExecution(run, whole.cpu_seconds, SelectionAudit(len(first.run.broken), missed))


def _with_confirmed_failures(
    worker: Worker,
    task: Task,
    workspace: Workspace,
    execution: SuiteExecution,
    tests: frozenset[str],
    preparation: Preparation,
) -> SuiteExecution:
    """If a patch is a fix but for the tests that it breaks, only those count that fail a second time.

    The broken tests passed in every run of the base. On a busy machine, one that waits for another thread or process
    fails now and then, whatever the patch is. Where a patch fixes nothing anyway, a second run would decide little.
    """
    run = execution.run
    is_fix = run.end is End.COMPLETED and len(run.fixed) == len(run.fail_to_pass)
    if not run.broken or not is_fix:
        return execution
    return _repeated(worker, task, workspace, execution, tests, frozenset(run.broken), preparation)


def _repeated(
    worker: Worker,
    task: Task,
    workspace: Workspace,
    execution: SuiteExecution,
    tests: frozenset[str],
    doubtful: frozenset[str],
    preparation: Preparation,
) -> SuiteExecution:
    """The execution with the doubtful outcomes of a second one, of all its tests: side effects of one test may change
    the outcome of another."""
    run = execution.run
    reply = _run(worker, task, workspace, tests, preparation, scope="failures once more")
    again = _evidence(task, reply, tests, run.scope)
    outcomes = {test: again.outcomes[test] if test in doubtful else outcome for test, outcome in run.outcomes.items()}
    confirmed = replace(again, outcomes=outcomes, seconds=run.seconds + again.seconds)
    return replace(execution, run=confirmed, cpu_seconds=execution.cpu_seconds + reply.cpu_seconds)


def _run_everything(
    worker: Worker, task: Task, workspace: Workspace, first: SuiteExecution, preparation: Preparation
) -> SuiteExecution:
    """Run all tests in order, after the selected ones: side effects of one test may change the outcome of another."""
    everything = frozenset(task.tests)
    reply = _run(worker, task, workspace, everything, preparation, scope="the whole suite")
    run = _evidence(task, reply, everything, "full")
    seconds = first.run.seconds + run.seconds
    whole = SuiteExecution(replace(run, seconds=seconds), first.cpu_seconds + reply.cpu_seconds)
    # These passed before, or execute no changed code, so a failure is probably flaky.
    doubtful = {
        test
        for test, outcome in run.outcomes.items()
        if outcome.status is not TestStatus.PASSED and first.run.outcomes[test].status in UNDOUBTED
    }
    if not doubtful:
        return whole
    return _repeated(worker, task, workspace, whole, everything, frozenset(doubtful), preparation)


def run_partially(
    worker: Worker,
    task: Task,
    workspace: Workspace,
    kind: type[PartialRun],
    preparation: Preparation = UNPREPARED,
    *,
    cold: bool = False,
) -> tuple[PartialRun, float]:
    """Run the FAIL_TO_PASS tests, for `TestFileRun` also those tests of their files that the change can reach.

    Returns:
        the outcomes, by the same rules as those of `run_tests`, and the CPU time in seconds.

    Raises:
        SandboxError, OSError, WorkerDiedError: see `Worker.run`.
    """
    selected = selected_tests(task, workspace)
    reachable = frozenset(task.tests) if selected is None else selected
    chosen = frozenset(task.fail_to_pass)
    if kind is TestFileRun:
        files = {file_of(test) for test in task.fail_to_pass}
        chosen |= {test for test in reachable if file_of(test) in files}
    unrun = tuple(test for test in task.pass_to_pass if test in reachable and test not in chosen)
    if not chosen:
        return kind(outcomes={}, unrun=unrun), 0.0
    scope = "the FAIL_TO_PASS tests, and those of their files" if kind is TestFileRun else "the FAIL_TO_PASS tests"
    reply = _run(worker, task, workspace, chosen, preparation, scope=scope, cold=cold)
    cpu_seconds = reply.cpu_seconds
    if not stopped_tests(reply) <= chosen:  # as in `_run_tests`
        reply = _run(worker, task, workspace, chosen, preparation, scope=f"{scope}, again", cold=cold)
        cpu_seconds += reply.cpu_seconds
    execution = SuiteExecution(_evidence(task, reply, chosen, "partial"), cpu_seconds)
    execution = _without_unjudged(worker, task, workspace, execution, cold=cold)
    run = execution.run
    partial = kind(
        outcomes={test: outcome for test, outcome in run.outcomes.items() if test in chosen},
        unrun=unrun,
        end=run.end,
        detail=run.detail,
        seconds=run.seconds,
    )
    return partial, execution.cpu_seconds


def run_tests_cold(worker: Worker, task: Task, workspace: Workspace) -> SuiteExecution:
    """Run the whole suite in a new sandbox and interpreter: the reference for `run_tests`.

    Raises:
        SandboxError, OSError, WorkerDiedError: see `Worker.run`.
    """
    everything = frozenset(task.tests)
    reply = _run(worker, task, workspace, everything, cold=True, scope="the whole suite")
    execution = SuiteExecution(_evidence(task, reply, everything, "full"), reply.cpu_seconds)
    return _without_unjudged(worker, task, workspace, execution, cold=True)


def not_applied(task: Task, reason: str) -> TestRun:
    """The evidence of a patch that does not apply: every test is missing."""
    outcomes = dict.fromkeys(task.fail_to_pass + task.pass_to_pass, MISSING)
    return TestRun(
        outcomes=outcomes,
        fail_to_pass=task.fail_to_pass,
        pass_to_pass=task.pass_to_pass,
        end=End.NOT_APPLIED,
        detail=reason[:LONGEST_DETAIL],
        unnamed=task.unnamed,
    )


def _run(
    worker: Worker,
    task: Task,
    workspace: Workspace,
    tests: frozenset[str],
    preparation: Preparation = UNPREPARED,
    *,
    scope: str,
    cold: bool = False,
) -> Reply:
    request = _request(task, workspace, tests, scope=scope, cold=cold)
    most = MOST_STOPPED + len(hanging_at_base(task) & tests)

    def run(
        tree: Tree, options: tuple[str, ...] = (), prepared: Preparation = UNPREPARED, limits: Limits = request.limits
    ) -> Reply:
        asked = replace(request, options=options, limits=limits)
        return run_past_hanging_tests(worker, tree, asked, prepared, most=most)

    def observed(limits: Limits = request.limits) -> tuple[Reply, Signs]:
        worker.take_rewritten()
        reply = run(workspace.after, prepared=preparation, limits=limits)
        return reply, _signs(reply, worker.take_rewritten())

    reply, signs = observed()
    if reply.stopped == "timeout":
        given, honest = request.limits, _honest(task, workspace)
        limit = limit_now(given.wall_seconds, honest, lambda tree: run(tree, prepared=preparation))
        if limit > given.wall_seconds:
            reply, signs = observed(replace(given, wall_seconds=limit))
            reply = replace(reply, raised_limit=limit)
    if not signs:
        return reply
    # What the tests do without the patch is no sign against it. A run that did not show it is repeated.
    runs = worker.honest_runs
    for tree in _honest(task, workspace):
        key = runs.key(tree, task.suite, tests, task.limits, preparation, cold=cold)
        if signs.beyond(runs.signs(key)):
            with without_candidate():
                without = run(tree, prepared=preparation)
            runs.add(key, task.suite, _signs(without, worker.take_rewritten()))
        signs = signs.beyond(runs.signs(key))
        if not signs:
            return reply
    by = [f"{what} (by {by})" if by else what for what, by in signs.tampered.items()]
    if signs.opened and not signs.rewritten and not signs.tampered:
        passed = {test for test, outcome in statuses(reply).items() if outcome == PASSED and test in tests}
        file, reader = min(signs.opened)
        dependent = dependent_tests(run, workspace.after, {path for path, _ in signs.opened}, passed, tree, task)
        by += [f"{test} passes only if {reader} can read {file}" for test in dependent]
        worker.take_rewritten()
    return replace(reply, rewritten=tuple(sorted(signs.rewritten)), tampered=tuple(by))


def _signs(reply: Reply, rewritten: frozenset[str]) -> Signs:
    tampered = {record.what: record.by for record in reply.of(TamperedRecord)}
    return Signs(rewritten, tampered, frozenset(reads(reply)))


def _request(task: Task, workspace: Workspace, tests: frozenset[str], *, scope: str, cold: bool) -> Request:
    files = test_files(task.tests, tests)
    # pytest runs nothing if one of its file arguments does not exist.
    existing = tuple(path for path in files if path in workspace.after.replaced or _exists(workspace, path))
    select = with_companions(task, tests)
    return Request(
        suite=task.suite,
        limits=replace(task.limits, wall_seconds=wall_seconds(task, tests)),
        paths=task.suite.paths if select is None else existing or files,
        select=select,
        skip=hanging_at_base(task) - tests,
        test_limits=limits_of_tests(task),
        cold=cold,
        watched_files=watched_files(task, tests),
        phase=f"patch of {task.id}: {scope}",
    )


def _honest(task: Task, workspace: Workspace) -> Iterator[Tree]:
    """The base, and the tree with the reference, where tests get further."""
    yield workspace.before
    if task.reference is not None:
        with contextlib.suppress(PatchError):
            yield prepare(task, task.reference).after


def wall_seconds(task: Task, tests: frozenset[str]) -> float:
    """Time limit of some of the tests: for a patch that never ends, lower than that of the whole suite."""
    seconds = task.suite.seconds
    is_separable = with_companions(task, tests) is not None
    files = ("", *test_files(task.tests, tests if is_separable else frozenset(task.tests)))
    if seconds is None or any(path not in seconds for path in files):
        return task.limits.wall_seconds
    return min(task.limits.wall_seconds, max(SHORTEST_LIMIT, SLACK * sum(seconds[path] for path in files)))


def _exists(workspace: Workspace, path: str) -> bool:
    return path not in workspace.after.removed and (workspace.after.root / path).is_file()


def test_files(ids: Iterable[str], tests: frozenset[str]) -> tuple[str, ...]:
    """The files of `tests`, in the order of `ids`."""
    return tuple(dict.fromkeys(file_of(test) for test in ids if test in tests))


test_files.__test__ = False  # type: ignore[attr-defined]  # not a test


def _evidence(task: Task, reply: Reply, tests: frozenset[str], scope: str) -> TestRun:
    end, detail = ending(reply, wall_seconds(task, tests))
    reported = statuses(reply)
    uncollected = collection_errors(reply)
    stopped = stopped_tests(reply)
    outcomes = {}
    if void := why_void(reply):
        reported = dict.fromkeys(tests, TestOutcome(TestStatus.ERROR, void))
    for test in task.fail_to_pass + task.pass_to_pass:
        if test not in tests:
            outcomes[test] = UNREACHED
        else:
            outcomes[test] = reported.get(test) or unreported(test, uncollected)
            if test in stopped and outcomes[test] is MISSING:
                outcomes[test] = replace(MISSING, message="it was running at the end of the time limit")
    return TestRun(
        outcomes=outcomes,
        fail_to_pass=task.fail_to_pass,
        pass_to_pass=task.pass_to_pass,
        end=end,
        detail=detail,
        scope=scope,
        seconds=round(reply.seconds, 4),
        unnamed=task.unnamed,
        also_fixed=tuple(test for test in task.unnamed if test in tests and reported.get(test) == PASSED),
    )
