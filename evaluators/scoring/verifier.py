"""Verification as a scorer does it: what the reference shows about a task is found out once, by whoever asks first."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections import defaultdict
from dataclasses import replace

from regrade.datasets.patches import Patch, PatchError
from regrade.evaluators.execution.selection import selected_tests
from regrade.evaluators.execution.workspaces import Workspace, prepare
from regrade.evaluators.scoring.jobs import Work
from regrade.evaluators.scoring.planner import Planner
from regrade.evaluators.scoring.worker_pool import Crew
from regrade.evaluators.verification.assurance_levels import Calibration, Means, calibrate, verify
from regrade.rewards.assurance_level import AssuranceLevel
from regrade.rewards.evidence import TestRun, Verification

NOT_CONFINED = "the plain process keeps a candidate from nothing"
OTHER_RUNNER = "only tests that pytest runs can be split from what they test"


class Verifier:
    """Verifies with the pair of workers of the thread that asks."""

    def __init__(self, crew: Crew, planner: Planner) -> None:
        self._crew = crew
        self._planner = planner
        self._calibrations: dict[str, Calibration | None] = {}
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._lock = threading.Lock()

    def verify(self, work: Work, workspace: Workspace) -> Verification:
        """How sure the verdict of the work's TestRun is.

        Raises:
            SandboxError, OSError, WorkerDiedError: see `Worker.run`.
        """
        task, run = work.task, work.records[TestRun]
        if not self._crew.isolated:
            return Verification(AssuranceLevel.UNCONFINED, AssuranceLevel.UNCONFINED, why=NOT_CONFINED)
        if task.suite.runner != "pytest":
            return Verification(AssuranceLevel.IN_PROCESS, AssuranceLevel.IN_PROCESS, why=OTHER_RUNNER)
        calibration = self._calibration(work) if run.fixed else None
        means = Means(self._crew.pair(task), self._crew.worker(task), self._crew.preparation(task))
        started = time.monotonic()
        found = verify(means, task, workspace, run, calibration)
        return replace(found, seconds=round(time.monotonic() - started, 4))

    def _calibration(self, work: Work) -> Calibration | None:
        if work.task.reference is None:
            return None
        key = f"{work.task_key} {work.task.reference.digest}"
        with self._lock:
            lock = self._locks[key]
        with lock:
            if key not in self._calibrations:
                self._calibrations[key] = self._calibrated(work, work.task.reference)
            return self._calibrations[key]

    def _calibrated(self, work: Work, reference: Patch) -> Calibration | None:
        task = work.task
        try:
            workspace = prepare(task, reference)
        except PatchError:
            return None
        own = Work(task, reference, work.task_key, {}, ())
        known: Calibration | None = self._planner.kept(own, Calibration)
        if known is not None:
            return known
        wanted = selected_tests(task, workspace) or frozenset(task.fail_to_pass + task.pass_to_pass)
        found = calibrate(self._crew.pair(task), task, workspace, wanted, self._crew.preparation(task))
        with contextlib.suppress(sqlite3.Error):  # it is still good for this scorer
            self._planner.keep(own, Calibration, found, reachable=True)
        return found
