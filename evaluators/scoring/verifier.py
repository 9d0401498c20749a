"""Verification in a scorer: the reference of each task is verified once, by the first calling thread."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import fields, replace
from typing import TYPE_CHECKING, TypeVar

from regrade.datasets.container_images import ContainerImage
from regrade.datasets.patches import Patch, PatchError
from regrade.datasets.tasks import Task
from regrade.evaluators.execution.replies import UNREACHED
from regrade.evaluators.execution.selection import selected_tests
from regrade.evaluators.execution.worker import WorkerDiedError, without_candidate
from regrade.evaluators.execution.workspaces import Workspace, prepare
from regrade.evaluators.sandboxes import SandboxError
from regrade.evaluators.scoring.jobs import DistinctJob
from regrade.evaluators.scoring.planner import Planner
from regrade.evaluators.scoring.static_workers import BACK_OFF
from regrade.evaluators.scoring.worker_pool import WorkerPool
from regrade.rewards.assurance_level import AssuranceLevel
from regrade.rewards.evidence import DefaultVerification, TestRun, Verification

if TYPE_CHECKING:
    from regrade.evaluators.verification.reference_verification import ReferenceVerification, WorkerSet

logger = logging.getLogger(__name__)
ResultT = TypeVar("ResultT")
NOT_CONFINED = "the plain process does not confine a candidate"
COLD = "each patch runs in a new container of its image, where no second process can verify it"
PRINTED = "the outcomes are read from what the test command prints, and a patch can print too"
OTHER_RUNNER = "only the code under pytest tests can run in another process"


def level_of(image: ContainerImage) -> AssuranceLevel:
    """The level of verdicts that nothing verifies."""
    return AssuranceLevel.IN_PROCESS if image.traits.is_sealed else AssuranceLevel.UNSEALED


class Verifier:
    """Verifies with the calling thread's pair of workers."""

    def __init__(self, worker_pool: WorkerPool, planner: Planner) -> None:
        self._worker_pool = worker_pool
        self._planner = planner
        self._calibrations: dict[str, ReferenceVerification | None] = {}
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._lock = threading.Lock()

    def verify(self, job: DistinctJob, workspace: Workspace) -> Verification:
        """The assurance level of the verdict of the job's TestRun.

        Raises:
            SandboxError, OSError, WorkerDiedError: see `Worker.run`.
        """
        return self._unverifiable(job) or self._verified(job, workspace, self._calibration)

    def verify_by_default(self, job: DistinctJob, workspace: Workspace) -> DefaultVerification:
        """The same, but only where it costs less than the tests, and without held-out inputs.

        A task with a recorded level is verified for that level, whatever it costs.
        """
        from regrade.evaluators.verification import default_level
        from regrade.evaluators.verification.assurance_levels import NO_TEST_TO_VERIFY

        task, run = job.task, job.records[TestRun]
        if not run.fixed:
            return DefaultVerification(level=max(AssuranceLevel), reachable="", why=NO_TEST_TO_VERIFY)
        if task.assurance:
            return _by_default(self.verify(job, workspace), required=task.assurance, is_recorded=True)
        unverifiable = self._unverifiable(job)
        if unverifiable is not None:
            return _by_default(unverifiable)
        # The cost is that of the reference: otherwise a patch could choose by what it changes whether it is verified.
        reference = _reference_workspace(task)
        reached = len(_reached(task, reference or workspace))
        in_process = Verification(level=AssuranceLevel.IN_PROCESS, reachable="")
        least = default_level.STRONGEST if reference is not None else AssuranceLevel.TRIPWIRED
        if not default_level.is_affordable(least, task, reached):
            return _by_default(replace(in_process, why=default_level.too_expensive(least, task, reached)))
        calibration = self._calibration(job, self.workers(task), with_inputs=False)
        if calibration is None:
            return _by_default(self._verified(job, workspace, lambda *_: None))
        level = calibration.level(task)
        if level == AssuranceLevel.IN_PROCESS:
            test, why = calibration.untested[0]
            why = f"the reference reaches no level above it: {test}: {why}"
            return _by_default(replace(in_process, reachable=level, why=why))
        if not default_level.is_affordable(level, task, reached):
            why = default_level.too_expensive(level, task, reached)
            return _by_default(replace(in_process, reachable=level, why=why))
        return _by_default(self._verified(job, workspace, lambda *_: calibration), required=level)

    def _unverifiable(self, job: DistinctJob) -> Verification | None:
        if not self._worker_pool.is_isolated(job.task):
            return Verification(level=AssuranceLevel.UNCONFINED, reachable=AssuranceLevel.UNCONFINED, why=NOT_CONFINED)
        image = job.task.suite.image
        if image is not None and not self._worker_pool.is_warm(job.task):
            level = level_of(image)
            return Verification(level=level, reachable=level, why=COLD if image.traits.is_sealed else PRINTED)
        if job.task.suite.runner != "pytest":
            return Verification(level=AssuranceLevel.IN_PROCESS, reachable=AssuranceLevel.IN_PROCESS, why=OTHER_RUNNER)
        return None

    def use(self, task: Task, function: Callable[[WorkerSet], ResultT]) -> ResultT:
        """Call a function with the calling thread's workers; it is retried after failures of the infrastructure.

        Raises:
            SandboxError, OSError, WorkerDiedError: every call failed.
        """
        for pause in BACK_OFF:
            try:
                return function(self.workers(task))
            except (SandboxError, OSError, WorkerDiedError) as error:
                if self._worker_pool.is_stopped:
                    raise
                logger.warning("retry in %.1f s: task %s: %s", pause, task.id, error)
                time.sleep(pause)
        return function(self.workers(task))

    def workers(self, task: Task) -> WorkerSet:
        """The calling thread's workers for the task's environment."""
        from regrade.evaluators.verification.reference_verification import WorkerSet

        return WorkerSet(
            self._worker_pool.pair(task), self._worker_pool.worker(task), self._worker_pool.preparation(task)
        )

    def _verified(
        self,
        job: DistinctJob,
        workspace: Workspace,
        calibrate: Callable[[DistinctJob, WorkerSet], ReferenceVerification | None],
    ) -> Verification:
        from regrade.evaluators.verification.assurance_levels import verify

        task, run = job.task, job.records[TestRun]
        workers = self.workers(task)
        calibration = calibrate(job, workers) if run.fixed else None
        started = time.monotonic()
        verification = verify(workers, task, workspace, _of_reached(task, workspace, run), calibration)
        seconds = time.monotonic() - started
        logger.debug("verified: task %s: %s, %.2f s", task.id, verification.level, seconds)
        return replace(verification, seconds=round(seconds, 4))

    def _calibration(
        self, job: DistinctJob, workers: WorkerSet, *, with_inputs: bool = True
    ) -> ReferenceVerification | None:
        if job.task.reference is None:
            return None
        key = f"{job.task_key} {job.task.reference.digest} {with_inputs}"
        with self._lock:
            lock = self._locks[key]
        with lock:
            if key not in self._calibrations:
                self._calibrations[key] = self._load_or_calibrate(job, job.task.reference, workers, with_inputs)
            return self._calibrations[key]

    def _load_or_calibrate(
        self, job: DistinctJob, reference: Patch, workers: WorkerSet, with_inputs: bool
    ) -> ReferenceVerification | None:
        from regrade.evaluators.verification.reference_verification import (
            ReferenceVerification,
            ReferenceWithoutInputs,
            verify_reference,
        )

        task = job.task
        try:
            workspace = prepare(task, reference)
        except PatchError:
            return None
        reference_job = DistinctJob(task=task, patch=reference, task_key=job.task_key, records={}, missing=())
        kind = ReferenceVerification if with_inputs else ReferenceWithoutInputs
        stored: ReferenceVerification | None = self._planner.load(reference_job, kind)
        logger.debug("calibration %s: task %s", "measured anew" if stored is None else "from the store", task.id)
        if stored is not None:
            return stored
        with without_candidate():
            calibration = verify_reference(workers, task, workspace, _reached(task, workspace), with_inputs=with_inputs)
        with contextlib.suppress(sqlite3.Error):  # it is still valid for this scorer
            self._planner.store(reference_job, kind, calibration, reachable=True)
        return calibration


def _by_default(verification: Verification, required: str = "", *, is_recorded: bool = False) -> DefaultVerification:
    values = {field.name: getattr(verification, field.name) for field in fields(Verification)}
    return DefaultVerification(**values, required=required, is_recorded=is_recorded)


def _reference_workspace(task: Task) -> Workspace | None:
    """The task with its reference applied; None if it has none that applies."""
    try:
        return None if task.reference is None else prepare(task, task.reference)
    except PatchError:
        return None


def _reached(task: Task, workspace: Workspace) -> frozenset[str]:
    """The tests that the change in the workspace can reach."""
    return selected_tests(task, workspace) or frozenset(task.tests)


def _of_reached(task: Task, workspace: Workspace, run: TestRun) -> TestRun:
    """The run without the outcomes of tests that the patch can't reach: there is nothing to verify in them."""
    reached = _reached(task, workspace)
    outcomes = {test: outcome if test in reached else UNREACHED for test, outcome in run.outcomes.items()}
    return replace(run, outcomes=outcomes)
