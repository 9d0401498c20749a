"""Runs the tests in one sandbox and the candidate's code in another, so that the candidate can't reach the tests."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regrade.datasets.node_ids import file_of
from regrade.datasets.tasks import Task, Tree
from regrade.evaluators.execution.records import (
    AnswerRecord,
    CalledRecord,
    CrossedRecord,
    LikenessRecord,
    UnrecordedRecord,
)
from regrade.evaluators.execution.replies import collection_errors, ending, statuses
from regrade.evaluators.execution.run_tests import test_files, wall_seconds
from regrade.evaluators.execution.selection import with_companions
from regrade.evaluators.execution.worker import (
    UNPREPARED,
    Preparation,
    Reply,
    Request,
    Worker,
    WorkerDiedError,
    without_candidate,
)
from regrade.evaluators.execution.workspaces import Workspace
from regrade.evaluators.verification.boundaries import Boundary, FileBoundary, computed_attributes
from regrade.evaluators.verification.function_forms import FunctionForm
from regrade.rewards.evidence import End, TestStatus

if TYPE_CHECKING:
    from regrade.evaluators.verification.held_out_inputs import Call

INPUT_SECONDS = 2.0
NO_CALL = "it calls none of the functions that the patch changes"
"""Reason why a failure of a test there is no evidence."""
SHUTDOWN_SECONDS = 2.0
"""Time for the candidate's process to exit after the tests."""


@dataclass(frozen=True, kw_only=True)
class TwoProcessRun:
    """The outcomes of the tests, from a process without the candidate's code."""

    passed: frozenset[str]
    called: frozenset[str]
    """Tests that called a function of the candidate."""
    failed: Mapping[str, str]
    """Test -> its message, if every remote call worked."""
    inconclusive: Mapping[str, str]
    """Test -> reason why its outcome is no evidence."""
    answered: tuple[tuple[Call, Any], ...]
    """Remote calls in order, each once, with their answers."""
    unrecorded: frozenset[str]
    """Keys of functions with further calls."""
    cpu_seconds: float
    seconds: float

    def without(self, keys: frozenset[str]) -> TwoProcessRun:
        """Without the calls of these functions."""
        return replace(self, answered=tuple(each for each in self.answered if each[0][0][1] not in keys))


class WorkerPair:
    """Two warm workers that share a folder for sockets. Not for use by several threads at once."""

    def __init__(self, tests: Worker, candidate: Worker, channel: Path) -> None:
        """`channel`: the folder for sockets, mounted in both sandboxes and writable by every user."""
        self._tests = tests
        self._candidate = candidate
        self._channel = channel
        self._is_over = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="regrade-candidate")

    def close(self) -> None:
        self._tests.close()
        self._candidate.close()
        self._thread.shutdown()

    def kill(self) -> None:
        """From another thread: kill both, so that a run in progress raises WorkerDiedError."""
        self._tests.kill()
        self._candidate.kill()

    def run(
        self,
        task: Task,
        workspace: Workspace,
        boundary: Boundary,
        test_ids: frozenset[str],
        preparation: Preparation = UNPREPARED,
    ) -> TwoProcessRun:
        """Run some of the task's tests on the base tree, where calls of the boundary's functions are remote calls.

        Raises:
            SandboxError, OSError, WorkerDiedError: see `Worker.run`.
        """
        select = with_companions(task, test_ids)
        paths = task.suite.paths if select is None else test_files((*task.fail_to_pass, *task.pass_to_pass), test_ids)
        limits = replace(task.limits, wall_seconds=wall_seconds(task, test_ids))
        crossing = _remote_calls(task, boundary.files)
        request = Request(suite=task.suite, limits=limits, paths=paths, select=select, crossing=crossing)
        reply, cpu_seconds = self._run_both(workspace, request, preparation)
        return _two_process_run(reply, test_ids, limits.wall_seconds, cpu_seconds)

    def answers(
        self,
        task: Task,
        workspace: Workspace,
        boundary: Boundary,
        inputs: Sequence[Call],
        preparation: Preparation = UNPREPARED,
        input_seconds: float = INPUT_SECONDS,
    ) -> list[Any]:
        """The raw answers of the workspace's functions to inputs; fewer than inputs if the process stopped.

        Args:
            input_seconds: time limit of one input.

        Raises:
            SandboxError, OSError, WorkerDiedError: see `Worker.run`.
        """
        crossing = _remote_calls(task, boundary.files) | {"inputs": list(inputs), "input_seconds": input_seconds}
        request = Request(suite=task.suite, limits=task.limits, kind="inputs", crossing=crossing)
        reply, _ = self._run_both(workspace, request, preparation)
        return [record.answer for record in reply.of(AnswerRecord)]

    def likeness(
        self, task: Task, tree: Tree, crossing: Mapping[str, Any], preparation: Preparation = UNPREPARED
    ) -> list[str]:
        """The problem of each answer of a candidate; fewer than answers if the run stopped.

        Args:
            tree: whose classes the instances have; no candidate's.
            crossing: see `regrade.evaluators.inside.remote_calls.likeness`.

        Raises:
            SandboxError, OSError, WorkerDiedError: see `Worker.run`.
        """
        request = Request(suite=task.suite, limits=task.limits, kind="likeness", crossing={**crossing, "socket": ""})
        with without_candidate():
            reply = self._tests.run(tree, request, preparation)
        return [record.problem for record in reply.of(LikenessRecord)]

    def _run_both(self, workspace: Workspace, request: Request, preparation: Preparation) -> tuple[Reply, float]:
        """The reply of the tests' worker, and the CPU seconds of both workers."""
        socket = secrets.token_hex(8)
        assert request.crossing is not None
        crossing = {**request.crossing, "socket": socket, "computed": computed_attributes(workspace)}
        request = replace(request, crossing=crossing)
        for_candidate = replace(request, kind="candidate", paths=(), select=None, crossing={**crossing, "inputs": []})
        tree = workspace.after.without(crossing["hidden"])
        self._is_over = False
        future = self._thread.submit(self._serve, tree, for_candidate, preparation)
        future.add_done_callback(self._kill_tests_if_failed)
        try:
            with without_candidate():  # whose code is in the other sandbox
                reply = self._tests.run(workspace.before, request, preparation)
        except BaseException:
            self._is_over = True
            self._candidate.kill()
            raise
        finally:
            try:
                candidate = future.result(SHUTDOWN_SECONDS)
            except TimeoutError:
                self._is_over = True
                self._candidate.kill()
                candidate = future.result()
            finally:
                if self._is_over:
                    self._candidate.close()  # otherwise the next run would start with a dead sandbox
                with contextlib.suppress(OSError):
                    (self._channel / socket).unlink()
        return reply, reply.cpu_seconds + (candidate.cpu_seconds if candidate else 0.0)

    def _kill_tests_if_failed(self, served: Future[Reply | None]) -> None:
        """Kill the tests, which would wait for a failed candidate."""
        if served.exception() is not None:
            self._tests.kill()

    def _serve(self, tree: Tree, request: Request, preparation: Preparation) -> Reply | None:
        """The candidate's reply; None: its sandbox was killed since the tests are over.

        Raises:
            SandboxError, OSError, WorkerDiedError: see `Worker.run`. A dead sandbox is no answer to the tests: who
                killed it, only retries can show.
        """
        try:
            return self._candidate.run(tree, request, preparation)
        except WorkerDiedError:
            if self._is_over:
                return None
            raise


def _remote_calls(task: Task, files: Mapping[str, FileBoundary]) -> dict[str, Any]:
    return {
        "files": {
            path: {"cut": _plain_forms(file.changed), "added": _plain_forms(file.added)} for path, file in files.items()
        },
        "hidden": [path for path in task.base.paths() if task.suite.protects(path)],
    }


def _plain_forms(forms: Mapping[str, FunctionForm]) -> dict[str, dict[str, Any]]:
    return {key: form.plain() for key, form in forms.items()}


def _two_process_run(reply: Reply, tests: frozenset[str], limit: float, cpu_seconds: float) -> TwoProcessRun:
    end, detail = ending(reply, limit)
    outcomes = statuses(reply)
    remote_calls = {record.test: (record.calls, record.problem) for record in reply.of(CrossedRecord)}
    uncollected = collection_errors(reply)
    passed: set[str] = set()
    failed: dict[str, str] = {}
    inconclusive: dict[str, str] = {}
    for test in tests:
        missing = uncollected.get(file_of(test)) or ("it was not run" if end is End.COMPLETED else detail)
        n_calls, problem = remote_calls.get(test, (0, missing))
        outcome = outcomes.get(test)
        if problem:
            inconclusive[test] = problem
        elif outcome is not None and outcome.status is TestStatus.PASSED:
            passed.add(test)
        elif n_calls:
            failed[test] = "" if outcome is None else outcome.message
        else:
            inconclusive[test] = NO_CALL
    answered = tuple(((record.arguments, record.nodes), record.answer) for record in reply.of(CalledRecord))
    return TwoProcessRun(
        passed=frozenset(passed),
        called=frozenset(test for test, (n_calls, _) in remote_calls.items() if n_calls),
        failed=failed,
        inconclusive=inconclusive,
        answered=answered,
        unrecorded=frozenset(record.key for record in reply.of(UnrecordedRecord)),
        cpu_seconds=cpu_seconds,
        seconds=reply.seconds,
    )
