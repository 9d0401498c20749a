"""Verification as a scorer does it: what the reference shows about a task is found out once, by whoever asks first."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
import time
from collections import defaultdict
from dataclasses import replace

from regrade.datasets.patches import Patch, PatchError
from regrade.evaluators.execution.selection import selected_tests
from regrade.evaluators.execution.workspaces import Workspace, prepare
from regrade.evaluators.scoring.jobs import DistinctJob
from regrade.evaluators.scoring.planner import Planner
from regrade.evaluators.scoring.worker_pool import Crew
from regrade.evaluators.verification.assurance_levels import ReferenceVerification, WorkerSet, verify, verify_reference
from regrade.rewards.assurance_level import AssuranceLevel
from regrade.rewards.evidence import TestRun, Verification

logger = logging.getLogger(__name__)
NOT_CONFINED = "the plain process keeps a candidate from nothing"
OTHER_RUNNER = "only tests that pytest runs can be split from what they test"


class Verifier:
    """Verifies with the pair of workers of the thread that asks."""

    def __init__(self, crew: Crew, planner: Planner) -> None:
        self._crew = crew
        self._planner = planner
        self._calibrations: dict[str, ReferenceVerification | None] = {}
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._lock = threading.Lock()

    def verify(self, job: DistinctJob, workspace: Workspace) -> Verification:
        """How sure the verdict of the job's TestRun is.

        Raises:
            SandboxError, OSError, WorkerDiedError: see `Worker.run`.
        """
        task, run = job.task, job.records[TestRun]
        if not self._crew.isolated:
            return Verification(level=AssuranceLevel.UNCONFINED, reachable=AssuranceLevel.UNCONFINED, why=NOT_CONFINED)
        if task.suite.runner != "pytest":
            return Verification(level=AssuranceLevel.IN_PROCESS, reachable=AssuranceLevel.IN_PROCESS, why=OTHER_RUNNER)
        calibration = self._calibration(job) if run.fixed else None
        workers = WorkerSet(self._crew.pair(task), self._crew.worker(task), self._crew.preparation(task))
        started = time.monotonic()
        found = verify(workers, task, workspace, run, calibration)
        seconds = time.monotonic() - started
        logger.debug("verified: task %s: %s, %.2f s", task.id, found.level, seconds)
        return replace(found, seconds=round(seconds, 4))

    def _calibration(self, job: DistinctJob) -> ReferenceVerification | None:
        if job.task.reference is None:
            return None
        key = f"{job.task_key} {job.task.reference.digest}"
        with self._lock:
            lock = self._locks[key]
        with lock:
            if key not in self._calibrations:
                self._calibrations[key] = self._calibrated(job, job.task.reference)
            return self._calibrations[key]

    def _calibrated(self, job: DistinctJob, reference: Patch) -> ReferenceVerification | None:
        task = job.task
        try:
            workspace = prepare(task, reference)
        except PatchError:
            return None
        own = DistinctJob(task=task, patch=reference, task_key=job.task_key, records={}, missing=())
        known: ReferenceVerification | None = self._planner.kept(own, ReferenceVerification)
        logger.debug("calibration %s: task %s", "measured anew" if known is None else "from the store", task.id)
        if known is not None:
            return known
        wanted = selected_tests(task, workspace) or frozenset(task.fail_to_pass + task.pass_to_pass)
        found = verify_reference(self._crew.pair(task), task, workspace, wanted, self._crew.preparation(task))
        with contextlib.suppress(sqlite3.Error):  # it is still good for this scorer
            self._planner.keep(own, ReferenceVerification, found, reachable=True)
        return found
