"""Suites that are held collected, so that a patch of function bodies costs little more than its tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from regrade.datasets.tasks import Task, Tree
from regrade.evaluators.workers import Preparation, Reply, Request, Worker, WorkerDied

WORTH_IT = 3
"""To collect a whole suite costs as much as some candidates: it is done for the third one."""
KEPT = 3
"""How many suites one thread holds; each is a process with all that its tests import."""


@dataclass
class _Suite:
    worker: Worker | None = None
    asked: int = 0
    problem: str = ""


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
        if not suite.worker.is_holding:
            pristine = replace(task.base, replaced={}, known={})
            try:
                suite.problem = suite.worker.hold(pristine, task.suite, task.limits, preparation)
            except WorkerDied as error:
                if error.killed:
                    raise
                suite.problem = str(error)  # a suite that can't be collected whole is none of the patch's doing
            if suite.problem:
                return None
        return suite.worker.run_held(tree, request, preparation)

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
