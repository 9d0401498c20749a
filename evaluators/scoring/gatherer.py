"""Gathers the missing evidence of one patch, with retries after failures of the infrastructure."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from regrade.datasets.caches import full_disk
from regrade.datasets.patches import PatchError
from regrade.datasets.tasks import Task
from regrade.datasets.visible_text import visible
from regrade.evaluators.execution.builds import Builder
from regrade.evaluators.execution.native_code import StaleExtensionError
from regrade.evaluators.execution.run_tests import not_applied, run_tests, run_tests_cold
from regrade.evaluators.execution.untestable import UNTESTABLE, failure
from regrade.evaluators.execution.worker import WorkerDiedError
from regrade.evaluators.execution.workspaces import Workspace, prepare
from regrade.evaluators.sandboxes import SandboxError
from regrade.evaluators.scoring.jobs import Batch, DistinctJob
from regrade.evaluators.scoring.own_probes import OwnProbe, passed_evidence
from regrade.evaluators.scoring.probes import EXECUTED, STATIC, VERIFICATIONS, StaticProbe
from regrade.evaluators.scoring.static_workers import StaticWorkers
from regrade.evaluators.scoring.stats import Tally
from regrade.evaluators.scoring.verifier import Verifier
from regrade.evaluators.scoring.worker_pool import WorkerPool
from regrade.evaluators.storage.digests import key_of
from regrade.rewards.assurance_level import AssuranceLevel
from regrade.rewards.evidence import BuildRun, DefaultVerification, TestRun, Verification

logger = logging.getLogger(__name__)
Executed = TestRun | BuildRun | Verification

BACK_OFF = (0.5, 2.0, 8.0)
"""Seconds before each retry after a failure of the infrastructure, or after the death of a sandbox.

A sandbox may be killed from outside, and the next one too: by a machine out of memory, or by a cleanup. Such causes
pass; what a candidate does to its sandbox does not.
"""


class Gatherer:
    """Gathers evidence with the probes and with the worker of the calling thread."""

    def __init__(
        self,
        worker_pool: WorkerPool,
        probes: Mapping[type, StaticProbe],
        tally: Tally,
        verifier: Verifier,
        static_workers: StaticWorkers,
        *,
        audit: float,
        cold: bool,
    ) -> None:
        """
        Args:
            audit, cold: see `Scorer`.
        """
        self._worker_pool = worker_pool
        self._probes = probes
        self._tally = tally
        self._audit = audit
        self._cold = cold
        self._builder = Builder()
        self._verifier = verifier
        self._static_workers = static_workers

    def missing(self, job: DistinctJob, batch: Batch) -> Iterator[tuple[type, Any]]:
        """Yield each missing kind of evidence with its record, as soon as it is gathered.

        A kind that the infrastructure failed to gather is left out, with the reason in `job.infrastructure`.

        Raises:
            WorkerDiedError, SandboxError, OSError: the call was stopped.
        """
        reason = ""
        if any(kind in STATIC for kind in job.missing):
            self._static_workers.warm()
        try:
            workspace = self._workspace(job, batch)
        except PatchError as error:
            reason, workspace = str(error), Workspace(job.task.base, job.task.base)
        except OSError as error:  # such as a full disk: this job has no result, other jobs of the call still may
            if batch.stopped or self._worker_pool.is_stopped:
                raise
            job.infrastructure.update(dict.fromkeys(job.missing, _described(error)))
            return
        for kind in job.missing:
            record = self._record(kind, job, workspace, batch, reason)
            if record is not None:
                yield kind, record

    def _workspace(self, job: DistinctJob, batch: Batch) -> Workspace:
        for before, seconds in enumerate(BACK_OFF):
            try:
                return prepare(job.task, job.patch)
            except OSError as error:
                if batch.stopped or self._worker_pool.is_stopped:
                    raise
                _log_retry(job.task, before, seconds, error)
                time.sleep(seconds)
                self._tally.add(retries=1)
        return prepare(job.task, job.patch)

    def _record(self, kind: type, job: DistinctJob, workspace: Workspace, batch: Batch, reason: str) -> Any | None:
        """One record; None if the infrastructure failed.

        Args:
            reason: why the patch does not apply; empty if it applies.
        """
        task = job.task
        if kind not in EXECUTED:
            return self._static(kind, job, workspace, batch)
        if reason:
            return _unapplied_evidence(kind, task, reason)
        if kind in VERIFICATIONS and TestRun not in job.records:
            job.infrastructure[kind] = job.infrastructure.get(TestRun, "there is no TestRun to verify")
            return None
        return self._execute_with_retries(kind, job, batch, self._execution(kind, job, workspace, batch.reachable))

    def _static(self, kind: type, job: DistinctJob, workspace: Workspace, batch: Batch) -> Any | None:
        arguments = (kind, workspace.before, workspace.after, job.patch, job.task)
        probe = self._probes[kind]
        own = probe if isinstance(probe, OwnProbe) else None
        if own is None and probe is not STATIC.get(kind):  # a function that the user passed
            return passed_evidence(probe, *arguments)
        try:
            return self._static_workers.evidence(*arguments, own)
        except SandboxError as error:
            if batch.stopped or self._worker_pool.is_stopped:
                raise
            job.infrastructure[kind] = _described(error)
            return None

    def _execution(self, kind: type, job: DistinctJob, workspace: Workspace, reachable: bool) -> Callable[[], Executed]:
        if kind is TestRun:
            return lambda: self._tests(job, workspace, reachable)
        if kind is Verification:
            return lambda: self._verifier.verify(job, workspace)
        if kind is DefaultVerification:
            return lambda: self._verifier.verify_by_default(job, workspace)
        return lambda: self._build(job, workspace)

    def _execute_with_retries(
        self, kind: type, job: DistinctJob, batch: Batch, execute: Callable[[], Executed]
    ) -> Executed | None:
        """The result of `execute`, retried after each failure of the infrastructure.

        A candidate that kills its sandbox every time is judged by that. None, with the reason in `job.infrastructure`,
        if the infrastructure failed every time.
        """
        deaths, failures = 0, 0
        while True:
            try:
                return execute()
            except StaleExtensionError as error:
                job.infrastructure[kind] = f"{UNTESTABLE}{error}"
                return None
            except (WorkerDiedError, SandboxError, OSError) as error:
                if batch.stopped or self._worker_pool.is_stopped:
                    raise
                fault = error
            if isinstance(fault, WorkerDiedError) and fault.killed:  # to stop another call
                continue
            is_death = isinstance(fault, WorkerDiedError) and fault.running
            before = deaths if is_death else failures
            if before == len(BACK_OFF):
                logger.warning("no further retry: task %s, %s", job.task.id, kind.__name__)
                if is_death:  # in fresh sandboxes, over some seconds: caused by the candidate
                    return _sandbox_death_evidence(kind, job.task, str(fault))
                job.infrastructure[kind] = _described(fault)
                return None
            _log_retry(job.task, before, BACK_OFF[before], fault)
            time.sleep(BACK_OFF[before])
            deaths, failures = deaths + is_death, failures + (not is_death)
            self._tally.add(retries=1)

    def _tests(self, job: DistinctJob, workspace: Workspace, reachable: bool) -> TestRun:
        worker = self._worker_pool.worker(job.task)
        if self._cold:
            done = run_tests_cold(worker, job.task, workspace)
        else:
            audit = int(key_of([job.task_key, job.patch.digest, "audit"]).hex()[:8], 16) < self._audit * 16**8
            preparation = self._worker_pool.preparation(job.task)
            done = run_tests(worker, job.task, workspace, reachable=reachable, preparation=preparation, audit=audit)
        self._tally.add(executions=1, cpu_seconds=done.cpu_seconds)
        if done.audit is not None:
            missed = tuple(f"{job.task.id}: {test}" for test in done.audit.missed)
            self._tally.add(audited=1, caught=done.audit.caught, missed=missed)
        return done.run

    def _build(self, job: DistinctJob, workspace: Workspace) -> BuildRun:
        task = job.task
        worker, preparation = self._worker_pool.worker(task), self._worker_pool.preparation(task)
        build, executions = self._builder.build(worker, task, job.patch, workspace, preparation, job.task_key)
        self._tally.add(executions=executions)
        return build


def _unapplied_evidence(kind: type, task: Task, reason: str) -> Executed:
    """The evidence of a patch that does not apply."""
    from regrade.evaluators.verification.assurance_levels import NO_TEST_TO_VERIFY

    if kind is TestRun:
        return not_applied(task, reason)
    return (
        BuildRun(False, 0, reason)
        if kind is BuildRun
        else kind(level=max(AssuranceLevel), reachable="", why=NO_TEST_TO_VERIFY)
    )


def _sandbox_death_evidence(kind: type, task: Task, reason: str) -> Executed:
    """The evidence of a candidate that kills its whole sandbox."""
    return failure(kind, task, f"it took the whole sandbox down, {1 + len(BACK_OFF)} times: {reason}"[:500])


def _log_retry(task: Task, before: int, pause: float, failure: Exception) -> None:
    if logger.isEnabledFor(logging.WARNING):
        reason = visible(_described(failure))
        logger.warning("retry %d of %d in %.1f s: task %s: %s", before + 1, len(BACK_OFF), pause, task.id, reason)


def _described(failure: Exception) -> str:
    text = f"{type(failure).__name__}: {failure}"
    return "; ".join(filter(None, (text, full_disk(failure))))
