"""Verification in a scorer: the reference of each task is verified once, by the first calling thread."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
import time
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

from regrade.datasets.patches import Patch, PatchError
from regrade.evaluators.execution.selection import selected_tests
from regrade.evaluators.execution.worker import without_candidate
from regrade.evaluators.execution.workspaces import Workspace, prepare
from regrade.evaluators.scoring.jobs import DistinctJob
from regrade.evaluators.scoring.planner import Planner
from regrade.evaluators.scoring.worker_pool import WorkerPool
from regrade.rewards.assurance_level import AssuranceLevel
from regrade.rewards.evidence import TestRun, Verification

if TYPE_CHECKING:
    from regrade.evaluators.verification.assurance_levels import ReferenceVerification, WorkerSet

logger = logging.getLogger(__name__)
NOT_CONFINED = "the plain process does not confine a candidate"
OTHER_RUNNER = "only the code under pytest tests can run in another process"


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
        from regrade.evaluators.verification.assurance_levels import WorkerSet, verify

        task, run = job.task, job.records[TestRun]
        if not self._worker_pool.isolated:
            return Verification(level=AssuranceLevel.UNCONFINED, reachable=AssuranceLevel.UNCONFINED, why=NOT_CONFINED)
        if task.suite.runner != "pytest":
            return Verification(level=AssuranceLevel.IN_PROCESS, reachable=AssuranceLevel.IN_PROCESS, why=OTHER_RUNNER)
        workers = WorkerSet(
            self._worker_pool.pair(task), self._worker_pool.worker(task), self._worker_pool.preparation(task)
        )
        calibration = self._calibration(job, workers) if run.fixed else None
        started = time.monotonic()
        verification = verify(workers, task, workspace, run, calibration)
        seconds = time.monotonic() - started
        logger.debug("verified: task %s: %s, %.2f s", task.id, verification.level, seconds)
        return replace(verification, seconds=round(seconds, 4))

    def _calibration(self, job: DistinctJob, workers: WorkerSet) -> ReferenceVerification | None:
        if job.task.reference is None:
            return None
        key = f"{job.task_key} {job.task.reference.digest}"
        with self._lock:
            lock = self._locks[key]
        with lock:
            if key not in self._calibrations:
                self._calibrations[key] = self._load_or_calibrate(job, job.task.reference, workers)
            return self._calibrations[key]

    def _load_or_calibrate(
        self, job: DistinctJob, reference: Patch, workers: WorkerSet
    ) -> ReferenceVerification | None:
        from regrade.evaluators.verification.assurance_levels import ReferenceVerification, verify_reference

        task = job.task
        try:
            workspace = prepare(task, reference)
        except PatchError:
            return None
        reference_job = DistinctJob(task=task, patch=reference, task_key=job.task_key, records={}, missing=())
        stored: ReferenceVerification | None = self._planner.load(reference_job, ReferenceVerification)
        logger.debug("calibration %s: task %s", "measured anew" if stored is None else "from the store", task.id)
        if stored is not None:
            return stored
        tests = selected_tests(task, workspace) or frozenset(task.tests)
        with without_candidate():
            calibration = verify_reference(workers, task, workspace, tests)
        with contextlib.suppress(sqlite3.Error):  # it is still valid for this scorer
            self._planner.store(reference_job, ReferenceVerification, calibration, reachable=True)
        return calibration
