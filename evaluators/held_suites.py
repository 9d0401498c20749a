"""Suites that are held collected, so that a patch of function bodies costs little more than its tests."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from regrade.datasets.tasks import Task, Tree
from regrade.evaluators.workers import Preparation, Reply, Request, Worker, WorkerDied

WORTH_IT = 3
"""To collect a whole suite costs as much as some candidates: it is done for the third one."""
KEPT = 3
"""How many suites one thread holds; each is a process with all that its tests import."""
OLDEST_SECONDS = 20.0
"""What a suite saw of the clock on import is as old as it is held. In a run of the whole suite it gets as old as that
takes; a suite is held for so long, or for these seconds, before it is collected again."""
FAILING = frozenset({"failed", "error"})


@dataclass
class _Suite:
    worker: Worker | None = None
    asked: int = 0
    problem: str = ""
    since: float = 0.0
    """When it was collected."""
    trusted: set[str] = field(default_factory=set)
    """Tests that were seen to pass unchanged in a fork."""
    doubted: set[str] = field(default_factory=set)
    """Those that were not: a fork is another process than the one that imported them, and some tests ask for that."""


class HeldSuites:
    """The suites that one thread of a scorer holds."""

    def __init__(self, make_worker: Callable[[Task], Worker]) -> None:
        self._make_worker = make_worker
        self._suites: dict[object, _Suite] = {}

    def run(self, task: Task, tree: Tree, request: Request, preparation: Preparation) -> Reply | None:
        """The reply of a candidate that was forked from its suite; None: it must run from the start.

        Raises:
            SandboxError, OSError, WorkerDied: see `Worker.run`.
        """
        if request.changes is None:
            return None
        suite = self._suite(task)
        suite.asked += 1
        if suite.problem or suite.asked < WORTH_IT:
            return None
        if suite.worker is None:
            self._make_room()
            suite.worker = self._make_worker(task)
        pristine = replace(task.base, replaced={}, known={})
        if not suite.worker.is_holding or time.monotonic() - suite.since > _oldest(task):
            suite.since = time.monotonic()
            try:
                suite.problem = suite.worker.hold(pristine, task.suite, task.limits, preparation)
            except WorkerDied as error:
                if error.killed:
                    raise
                suite.problem = str(error)  # a suite that can't be collected whole is none of the patch's doing
            if suite.problem:
                return None
        reply = suite.worker.run_held(tree, request, preparation)
        return None if reply is None else self._believed(suite, task, pristine, request, preparation, reply)

    def _believed(
        self, suite: _Suite, task: Task, pristine: Tree, request: Request, preparation: Preparation, reply: Reply
    ) -> Reply | None:
        """The reply, if what fails in it passes in a fork of the same suite where nothing is changed; else None."""
        assert suite.worker is not None
        passing = {*task.pass_to_pass, *(task.fail_to_pass if task.base.replaced else ())}
        failing = passing.intersection(record[1] for record in reply.records if _tells_a_failure(record))
        unknown = frozenset(failing - suite.trusted - suite.doubted)
        if unknown:
            asked = replace(request, select=unknown, changes=())
            unchanged = suite.worker.run_held(pristine, asked, preparation)
            if unchanged is None:
                return None
            passed = {record[1] for record in unchanged.records if record[0] == "test" and record[2] == "passed"}
            suite.trusted |= unknown & passed
            suite.doubted |= unknown - passed
            reply = replace(reply, cpu_seconds=reply.cpu_seconds + unchanged.cpu_seconds)
        return None if failing & suite.doubted else reply

    def _suite(self, task: Task) -> _Suite:
        """The task's suite, as the one that was used last."""
        key = (task.requirements, task.base.root, task.base.removed, task.suite)
        suite = self._suites.pop(key, None) or _Suite()
        self._suites[key] = suite
        return suite

    def _make_room(self) -> None:
        holding = [suite for suite in self._suites.values() if suite.worker is not None]
        for suite in holding[: max(0, len(holding) - KEPT + 1)]:
            assert suite.worker is not None
            suite.worker.close()
            suite.worker, suite.asked = None, 0


def _oldest(task: Task) -> float:
    return max(OLDEST_SECONDS, sum((task.suite.seconds or {}).values()))


def _tells_a_failure(record: list[Any]) -> bool:
    return record[0] == "test" and len(record) == 5 and isinstance(record[1], str) and record[2] in FAILING
