"""From a task and a workspace to what its tests and imports say, by way of a worker."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from regrade.datasets.node_ids import file_of
from regrade.datasets.tasks import Task
from regrade.evaluators.execution.records import (
    CheckedRecord,
    CollectRecord,
    DoneRecord,
    ImportRecord,
    LeftRecord,
    TestRecord,
    WheelRecord,
)
from regrade.evaluators.execution.selection import in_company, selected_tests
from regrade.evaluators.execution.worker import UNPREPARED, Preparation, Reply, Request, Worker
from regrade.evaluators.execution.workspaces import Workspace
from regrade.rewards.evidence import End, TestOutcome, TestRun, TestStatus

logger = logging.getLogger(__name__)
LONGEST_DETAIL = 500
SHORTEST_LIMIT, SLACK = 30.0, 5.0
"""Tests may take `SLACK` times as long as they take without the patch, and at least `SHORTEST_LIMIT` seconds."""
FINISHED = (0, 1, 5)
"""Exit statuses of pytest that mean that the session ran to its end: all passed, some failed, no tests."""
PASSED = TestOutcome(TestStatus.PASSED)
MISSING = TestOutcome(TestStatus.MISSING)
UNREACHED = TestOutcome(TestStatus.UNREACHED)
UNDOUBTED = (TestStatus.PASSED, TestStatus.UNREACHED)
"""What the selected tests say of one that does not fail by what was changed."""


@dataclass(frozen=True)
class SelectionAudit:
    """What a run of everything found beyond the tests that were selected."""

    caught: int
    """PASS_TO_PASS tests that the patch breaks, among the selected ones."""
    missed: tuple[str, ...]
    """Those that it breaks among the others."""


@dataclass(frozen=True)
class SuiteExecution:
    """The evidence of one or more runs, and what it cost."""

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
    """Run the task's tests on the workspace.

    The tests that can reach the change come first. The rest runs too where the change may reach anything, or once
    FAIL_TO_PASS all pass and nothing is broken.

    Args:
        reachable: leave the rest out even then.
        audit: run the rest whatever the selected tests say, to see what the selection missed. The evidence is then
            that of everything only if something was missed, so that an audit changes no verdict that was right.

    Raises:
        SandboxError, OSError, WorkerDiedError: see `Worker.run`.
    """
    everything = frozenset(task.fail_to_pass + task.pass_to_pass)
    selected = selected_tests(task, workspace)
    if selected is None:
        selected = everything
    rest = everything - selected
    logger.debug("test selection: task %s: %d of %d tests", task.id, len(selected), len(everything))
    reply = _run(worker, task, workspace, selected, preparation)
    first = SuiteExecution(_evidence(task, reply, selected, "reachable" if rest else "full"), reply.cpu_seconds)
    ended = first.run.end is End.COMPLETED
    if not (rest and ended and (audit or (first.run.resolved and not reachable))):
        return first
    whole = _run_everything(worker, task, workspace, first, preparation)
    if not audit:
        return whole
    missed = tuple(test for test in whole.run.broken if test in rest)
    kept = whole.run if missed or (first.run.resolved and not reachable) else first.run
    return SuiteExecution(kept, whole.cpu_seconds, SelectionAudit(len(first.run.broken), missed))


def _run_everything(
    worker: Worker, task: Task, workspace: Workspace, first: SuiteExecution, preparation: Preparation
) -> SuiteExecution:
    """All tests in their order, after the selected ones: what one leaves behind may be what another one finds."""
    everything = frozenset(task.fail_to_pass + task.pass_to_pass)
    reply = _run(worker, task, workspace, everything, preparation)
    run = _evidence(task, reply, everything, "full")
    cpu, seconds = first.cpu_seconds + reply.cpu_seconds, first.run.seconds + run.seconds
    doubtful = {
        test
        for test, outcome in run.outcomes.items()
        if outcome.status is not TestStatus.PASSED and first.run.outcomes[test].status in UNDOUBTED
    }
    if not doubtful:
        return SuiteExecution(replace(run, seconds=seconds), cpu)
    # These passed before, or execute nothing of what changed, so the patch can hardly be why one fails: a clock on a
    # busy machine can. What fails twice counts.
    reply = _run(worker, task, workspace, everything, preparation)
    again = _evidence(task, reply, everything, "full")
    outcomes = {test: again.outcomes[test] if test in doubtful else outcome for test, outcome in run.outcomes.items()}
    confirmed = replace(again, outcomes=outcomes, seconds=seconds + again.seconds)
    return SuiteExecution(confirmed, cpu + reply.cpu_seconds)


def run_tests_cold(worker: Worker, task: Task, workspace: Workspace) -> SuiteExecution:
    """Run the whole suite at once, in a sandbox and an interpreter started for it: the reference for `run_tests`.

    Raises:
        SandboxError, OSError, WorkerDiedError: see `Worker.run`.
    """
    everything = frozenset(task.fail_to_pass + task.pass_to_pass)
    reply = _run(worker, task, workspace, everything, cold=True)
    return SuiteExecution(_evidence(task, reply, everything, "full"), reply.cpu_seconds)


def not_applied(task: Task, reason: str) -> TestRun:
    """The evidence on a patch that does not apply: nothing ran, so every test is missing."""
    outcomes = dict.fromkeys(task.fail_to_pass + task.pass_to_pass, MISSING)
    return TestRun(
        outcomes=outcomes,
        fail_to_pass=task.fail_to_pass,
        pass_to_pass=task.pass_to_pass,
        end=End.NOT_APPLIED,
        detail=reason[:LONGEST_DETAIL],
    )


def failing_imports(
    worker: Worker, task: Task, workspace: Workspace, modules: tuple[str, ...], preparation: Preparation = UNPREPARED
) -> dict[str, str]:
    """Module -> error of those that can't be imported, each in the order given, all in one process."""
    reply = worker.run(
        workspace.after, Request(suite=task.suite, limits=task.limits, kind="imports", modules=modules), preparation
    )
    errors = {record.module: str(record.error) for record in reply.of(ImportRecord)}
    end, detail = ending(reply, task.limits.wall_seconds)
    if end is not End.COMPLETED:
        errors[""] = detail
    return errors


def check_errors(worker: Worker, task: Task, workspace: Workspace, files: tuple[str, ...]) -> dict[str, str]:
    """File -> why its language's own command refuses it (empty: it does not), of those that have such a command."""
    reply = worker.run(workspace.after, Request(suite=task.suite, limits=task.limits, kind="check", paths=files))
    end, detail = ending(reply, task.limits.wall_seconds)
    found = {record.file: str(record.error) for record in reply.of(CheckedRecord)}
    return found if end is End.COMPLETED else {**found, files[0]: detail}


def wheel_error(worker: Worker, task: Task, workspace: Workspace) -> str:
    """Why the wheel can't be built, in the environment of the task; empty where it can."""
    reply = worker.run(workspace.after, Request(suite=task.suite, limits=task.limits, kind="wheel"))
    end, detail = ending(reply, task.limits.wall_seconds)
    if end is not End.COMPLETED:
        return detail
    found = reply.of(WheelRecord)
    if not found:
        return "the backend left without a word"
    return "" if found[-1].outcome == "built" else _clip(str(found[-1].detail))


def ending(reply: Reply, wall_seconds: float) -> tuple[End, str]:
    """How an execution ended, and why in words."""
    last = reply.records[-1] if reply.records else None
    if reply.stopped == "timeout":
        return End.TIMEOUT, _timeout_in_words(wall_seconds, reply.seconds)
    if reply.stopped == "memory":
        return End.MEMORY, "its processes used more memory than allowed"
    if reply.stopped:
        return End.CRASHED, f"stopped: it used more {reply.stopped} than allowed"
    if isinstance(last, DoneRecord) and last.status in FINISHED and reply.status == last.status:
        return End.COMPLETED, ""
    if isinstance(last, LeftRecord):
        return End.CRASHED, _clip(f"the test session was left by {last.error}")
    if reply.status < 0:
        return End.CRASHED, f"killed by signal {-reply.status} ({_signal_name(-reply.status)})"
    if isinstance(last, DoneRecord):
        return End.CRASHED, _clip(f"pytest stopped with status {last.status}: {reply.output.strip()}")
    return End.CRASHED, f"the process left with status {reply.status} before it had reported"


def _timeout_in_words(limit: float, passed: float) -> str:
    """Time for which it waited for a core does not count (see `inside/watching.py`), and so more may have passed."""
    said = f"stopped at the limit of {limit:g} s"
    if passed < 1.1 * limit + 1.0:
        return said
    return f"{said}, {passed:.0f} s after its start: what it waited for a core of a busy machine does not count"


def statuses(reply: Reply) -> dict[str, TestOutcome]:
    """Test id -> outcome, as far as reported. Of several for one id, which only forgery makes, the worst counts."""
    found: dict[str, TestOutcome] = {}
    for record in reply.of(TestRecord):
        if record.status in _STATUS:
            # Without its seconds, which differ from run to run: equal runs are equal evidence.
            passed = record.status == "passed"
            if not passed or record.id not in found:
                found[record.id] = PASSED if passed else TestOutcome(_STATUS[record.status], str(record.message))
    return found


_STATUS = {status.value: status for status in TestStatus if status not in (TestStatus.MISSING, TestStatus.UNREACHED)}


def collection_errors(reply: Reply) -> dict[str, str]:
    """Node that could not be collected -> the error."""
    return {record.node: str(record.message) for record in reply.of(CollectRecord)}


def _run(
    worker: Worker,
    task: Task,
    workspace: Workspace,
    wanted: frozenset[str],
    preparation: Preparation = UNPREPARED,
    *,
    cold: bool = False,
) -> Reply:
    files = test_files((*task.fail_to_pass, *task.pass_to_pass), wanted)
    # pytest runs nothing at all when one of the files that it is given is gone.
    there = tuple(path for path in files if path in workspace.after.replaced or _exists(workspace, path))
    limits = replace(task.limits, wall_seconds=wall_seconds(task, wanted))
    select = in_company(task, wanted)
    paths = task.suite.paths if select is None else there or files
    request = Request(suite=task.suite, limits=limits, paths=paths, select=select, cold=cold)
    return worker.run(workspace.after, request, preparation)


def wall_seconds(task: Task, wanted: frozenset[str]) -> float:
    """The limit for some of the tests: a patch that never ends is not waited for as long as for the whole suite."""
    seconds = task.suite.seconds
    everything = (*task.fail_to_pass, *task.pass_to_pass)
    alone = in_company(task, wanted) is not None
    files = ("", *test_files(everything, wanted if alone else frozenset(everything)))
    if seconds is None or any(path not in seconds for path in files):
        return task.limits.wall_seconds
    return min(task.limits.wall_seconds, max(SHORTEST_LIMIT, SLACK * sum(seconds[path] for path in files)))


def _exists(workspace: Workspace, path: str) -> bool:
    return path not in workspace.after.removed and (workspace.after.root / path).is_file()


def test_files(ids: Iterable[str], wanted: frozenset[str]) -> tuple[str, ...]:
    """The files of the wanted tests, in the order of `ids`."""
    return tuple(dict.fromkeys(file_of(test) for test in ids if test in wanted))


test_files.__test__ = False  # type: ignore[attr-defined]  # not a test


def _evidence(task: Task, reply: Reply, wanted: frozenset[str], scope: str) -> TestRun:
    end, detail = ending(reply, wall_seconds(task, wanted))
    found = statuses(reply)
    uncollected = collection_errors(reply)
    outcomes = {}
    for test in task.fail_to_pass + task.pass_to_pass:
        if test not in wanted:
            outcomes[test] = UNREACHED
        else:
            outcomes[test] = found.get(test) or _unreported(test, uncollected)
    return TestRun(
        outcomes=outcomes,
        fail_to_pass=task.fail_to_pass,
        pass_to_pass=task.pass_to_pass,
        end=end,
        detail=detail,
        scope=scope,
        seconds=round(reply.seconds, 4),
    )


def _unreported(test: str, uncollected: Mapping[str, str]) -> TestOutcome:
    node = test
    while node:
        if node in uncollected:
            return TestOutcome(TestStatus.ERROR, uncollected[node])
        node = node.rpartition("::")[0]
    return MISSING


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"


def _clip(text: str) -> str:
    return text if len(text) <= LONGEST_DETAIL else f"{text[: LONGEST_DETAIL // 2]} ... {text[-LONGEST_DETAIL // 2 :]}"
