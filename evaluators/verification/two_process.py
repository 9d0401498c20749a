"""Tests in one sandbox, the candidate's code in another: what a patch does, seen from where it can't reach."""

from __future__ import annotations

import ast
import contextlib
import secrets
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from regrade.datasets.globs import is_protected
from regrade.datasets.node_ids import file_of
from regrade.datasets.syntax_trees import parse_or_none
from regrade.datasets.tasks import Task, Tree
from regrade.evaluators.execution.function_bodies import documented
from regrade.evaluators.execution.records import (
    AnswerRecord,
    CalledRecord,
    CrossedRecord,
    UnwatchedRecord,
    WatchedRecord,
)
from regrade.evaluators.execution.run_tests import collection_errors, ending, statuses, test_files, wall_seconds
from regrade.evaluators.execution.selection import with_companions
from regrade.evaluators.execution.worker import UNPREPARED, Preparation, Reply, Request, Worker, WorkerDiedError
from regrade.evaluators.execution.workspaces import Workspace
from regrade.evaluators.inside.remote_calls.boundary import functions
from regrade.evaluators.verification.held_out_inputs import Call
from regrade.rewards.evidence import End, TestStatus

JUDGES = frozenset(
    f"__{name}__" for name in ("eq", "ne", "lt", "le", "gt", "ge", "contains", "bool", "hash", "instancecheck")
)
"""Methods that are given what a test expects, and tell it whether that holds."""
PARTING_SECONDS = 2.0
"""For the candidate's process to notice that the tests are done."""


@dataclass(frozen=True)
class Cut:
    """The functions of one file at which the candidate's code begins."""

    cut: Mapping[str, bool]
    """Key (see `regrade.evaluators.inside.remote_calls.boundary.functions`) of each function that the patch changes ->
    are its parameters as they were?"""
    added: tuple[str, ...] = ()
    """Keys of those that it adds."""


@dataclass(frozen=True)
class Boundary:
    """Where the candidate's code begins."""

    files: Mapping[str, Cut]
    beyond: tuple[str, ...] = ()
    """What the patch changes that no function at the boundary holds, in words: the tests' side has the base's."""


@dataclass(frozen=True, kw_only=True)
class TwoProcessRun:
    """What became of the tests, told by a process that holds none of the candidate's code."""

    passed: frozenset[str]
    failed: Mapping[str, str]
    """Test -> its message, where every call crossed."""
    uncrossed: Mapping[str, str]
    """Test -> why nothing can be told."""
    calls: tuple[Call, ...]
    """What functions at the boundary were asked, where that was observed and crosses by value alone."""
    watched: tuple[tuple[Call, Any], ...]
    """What watched functions were asked and answered."""
    unwatched: tuple[str, ...]
    """The keys of those of which not all can be told."""
    cpu_seconds: float
    seconds: float


def boundary_of(task: Task, workspace: Workspace) -> Boundary:
    """The functions that the patch changes or adds in Python files that are no tests."""
    files: dict[str, Cut] = {}
    beyond: list[str] = []
    changed = {
        path: text for path, text in workspace.after.replaced.items() if workspace.before.replaced.get(path) != text
    }
    for path, text in changed.items():
        if is_protected(path, task.suite.protected):
            continue
        old = _parsed(workspace.before, path) if path.endswith(".py") else None
        new = parse_or_none(text) if old is not None else None
        if old is None or new is None:
            beyond.append(path)
            continue
        cut, frame = _cut(old, new)
        if cut.cut or cut.added:
            files[path] = cut
        if frame:
            beyond.append(f"{path}, outside of functions")
    beyond += sorted(workspace.after.removed - workspace.before.removed)
    return Boundary(files, tuple(beyond))


def boundary_at(workspace: Workspace, boundary: Boundary) -> Boundary:
    """The same functions for another workspace of the same task, in which their parameters may be others."""
    files = {}
    for path, cut in boundary.files.items():
        before, after = (_parameters(_parsed(tree, path)) for tree in (workspace.before, workspace.after))
        kept = {key: keep and after.get(key, before[key]) == before[key] for key, keep in cut.cut.items()}
        files[path] = replace(cut, cut=kept)
    return Boundary(files, boundary.beyond)


def without_judges(boundary: Boundary) -> Boundary:
    """Without what tests judge by: there the tests' side keeps the base's."""
    files = {}
    for path, cut in boundary.files.items():
        kept = {key: keep for key, keep in cut.cut.items() if not _judges(key)}
        added = tuple(key for key in cut.added if not _judges(key))
        if kept or added:
            files[path] = Cut(kept, added)
    return Boundary(files, boundary.beyond)


def _judges(key: str) -> bool:
    name = key.partition("#")[0].rpartition(".")[2]
    return name in JUDGES or name.lstrip("_").startswith(("assert", "pytest_"))


def joined(one: Boundary, other: Boundary) -> Boundary:
    """All functions of both."""
    files = dict(one.files)
    for path, cut in other.files.items():
        mine = files.get(path, Cut({}))
        files[path] = Cut({**mine.cut, **cut.cut}, tuple(dict.fromkeys((*mine.added, *cut.added))))
    return Boundary(files, other.beyond)


def keys_beyond(one: Boundary, other: Boundary) -> frozenset[str]:
    """Of the functions of one those that are not of the other."""
    return frozenset(
        key
        for path, cut in one.files.items()
        for key in (*cut.cut, *cut.added)
        if path not in other.files or key not in (*other.files[path].cut, *other.files[path].added)
    )


def _parameters(tree: ast.Module | None) -> dict[str, str]:
    return {} if tree is None else {key: ast.dump(function.args) for key, function, _ in functions(tree)}


def _cut(old: ast.Module, new: ast.Module) -> tuple[Cut, bool]:
    """And whether anything else differs."""
    before = {key: function for key, function, _ in functions(old)}
    after = {key: (function, home) for key, function, home in functions(new)}
    cut: dict[str, bool] = {}
    added = []
    for key, (function, home) in after.items():
        if key not in before:
            home.body = [each for each in home.body if each is not function]
            added.append(key)
        elif ast.dump(before[key]) != ast.dump(function):
            cut[key] = ast.dump(before[key].args) == ast.dump(function.args)
    for function in (*before.values(), *(each for each, _ in after.values())):
        function.body = function.body[: documented(function)]
        function.args = ast.arguments([], [], None, [], [], None, [])
    return Cut(cut, tuple(added)), ast.dump(old) != ast.dump(new)


def _parsed(tree: Tree, path: str) -> ast.Module | None:
    text = tree.read_or_none(path)
    return None if text is None else parse_or_none(text)


class WorkerPair:
    """Two warm workers that share a folder for sockets. Not for use by several threads at once."""

    def __init__(self, tests: Worker, candidate: Worker, channel: Path) -> None:
        """`channel`: the folder that both were given, in which every user may write."""
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
        wanted: frozenset[str],
        preparation: Preparation = UNPREPARED,
        *,
        observed: bool = False,
        watched: frozenset[str] = frozenset(),
    ) -> TwoProcessRun:
        """Run some of the task's tests on the base tree, with the candidate's functions from the other sandbox.

        Args:
            observed: tell what the functions at the boundary are asked.
            watched: keys of functions of which it is told what they are asked and answer.

        Raises:
            SandboxError, OSError, WorkerDiedError: see `Worker.run`.
        """
        select = with_companions(task, wanted)
        paths = task.suite.paths if select is None else test_files((*task.fail_to_pass, *task.pass_to_pass), wanted)
        limits = replace(task.limits, wall_seconds=wall_seconds(task, wanted))
        crossing = _crossing(task, boundary.files) | {"observed": observed, "watched": sorted(watched)}
        asked = Request(suite=task.suite, limits=limits, paths=paths, select=select, crossing=crossing)
        reply, cpu_seconds = self._both(workspace, asked, preparation)
        return _split(reply, wanted, limits.wall_seconds, cpu_seconds)

    def answers(
        self,
        task: Task,
        workspace: Workspace,
        boundary: Boundary,
        inputs: Sequence[Call],
        preparation: Preparation = UNPREPARED,
    ) -> list[Any]:
        """What the workspace's functions answer to inputs, as it came; fewer answers where the process did not go on.

        Raises:
            SandboxError, OSError, WorkerDiedError: see `Worker.run`.
        """
        crossing = _crossing(task, boundary.files) | {"inputs": list(inputs)}
        asked = Request(suite=task.suite, limits=task.limits, kind="inputs", crossing=crossing)
        reply, _ = self._both(workspace, asked, preparation)
        return [record.answer for record in reply.of(AnswerRecord)]

    def _both(self, workspace: Workspace, asked: Request, preparation: Preparation) -> tuple[Reply, float]:
        """What the tests' side says, and the CPU seconds of both."""
        socket = secrets.token_hex(8)
        assert asked.crossing is not None
        crossing = {**asked.crossing, "socket": socket}
        asked = replace(asked, crossing=crossing)
        served = replace(asked, kind="candidate", paths=(), select=None, crossing={**crossing, "inputs": []})
        tree = workspace.after.without(crossing["hidden"])
        self._is_over = False
        future = self._thread.submit(self._serve, tree, served, preparation)
        future.add_done_callback(self._end_in_vain)
        try:
            reply = self._tests.run(workspace.before, asked, preparation)
        except BaseException:
            self._is_over = True
            self._candidate.kill()
            raise
        finally:
            try:
                candidate = future.result(PARTING_SECONDS)
            except TimeoutError:
                self._is_over = True
                self._candidate.kill()
                candidate = future.result()
            finally:
                if self._is_over:
                    self._candidate.close()  # else the next run would begin with a sandbox that is dead
                with contextlib.suppress(OSError):
                    (self._channel / socket).unlink()
        return reply, reply.cpu_seconds + (candidate.cpu_seconds if candidate else 0.0)

    def _end_in_vain(self, served: Future[Reply | None]) -> None:
        """The tests would wait for a candidate that never comes."""
        if served.exception() is not None:
            self._tests.kill()

    def _serve(self, tree: Tree, request: Request, preparation: Preparation) -> Reply | None:
        """None where the candidate took its sandbox down, or is needed no longer: the tests tell what is missing.

        Raises:
            SandboxError, OSError, WorkerDiedError: it never ran or was killed, which is not its fault.
        """
        try:
            return self._candidate.run(tree, request, preparation)
        except WorkerDiedError as death:
            if death.running or self._is_over:
                return None
            raise


def _crossing(task: Task, files: Mapping[str, Cut]) -> dict[str, Any]:
    return {
        "files": {path: {"cut": dict(cut.cut), "added": list(cut.added)} for path, cut in files.items()},
        "hidden": [path for path in task.base.paths() if is_protected(path, task.suite.protected)],
        "observed": False,
        "watched": [],
    }


def _split(reply: Reply, wanted: frozenset[str], limit: float, cpu_seconds: float) -> TwoProcessRun:
    end, detail = ending(reply, limit)
    found = statuses(reply)
    crossed = {record.test: (record.calls, record.problem) for record in reply.of(CrossedRecord)}
    uncollected = collection_errors(reply)
    passed: set[str] = set()
    failed: dict[str, str] = {}
    uncrossed: dict[str, str] = {}
    for test in wanted:
        missing = uncollected.get(file_of(test)) or ("it was not run" if end is End.COMPLETED else detail)
        crossings, problem = crossed.get(test, (0, missing))
        outcome = found.get(test)
        if problem:
            uncrossed[test] = problem
        elif outcome is not None and outcome.status is TestStatus.PASSED:
            passed.add(test)
        elif crossings:
            failed[test] = "" if outcome is None else outcome.message
        else:
            uncrossed[test] = "it calls nothing that the patch changes"
    calls = tuple((record.arguments, record.nodes) for record in reply.of(CalledRecord))
    watched = tuple(((record.arguments, record.nodes), record.answer) for record in reply.of(WatchedRecord))
    unwatched = tuple(record.key for record in reply.of(UnwatchedRecord))
    return TwoProcessRun(
        passed=frozenset(passed),
        failed=failed,
        uncrossed=uncrossed,
        calls=calls,
        watched=watched,
        unwatched=unwatched,
        cpu_seconds=cpu_seconds,
        seconds=reply.seconds,
    )
