"""Gathering the evidence that is missing of one patch, again where the infrastructure failed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from regrade.datasets.caches import full_disk
from regrade.datasets.patches import PatchError
from regrade.datasets.tasks import Task
from regrade.evaluators.execution.builds import Builder
from regrade.evaluators.execution.run_tests import not_applied, run_tests, run_tests_cold
from regrade.evaluators.execution.worker import WorkerDiedError
from regrade.evaluators.execution.workspaces import Workspace, prepare
from regrade.evaluators.sandboxes import SandboxError
from regrade.evaluators.scoring.jobs import Batch, Work
from regrade.evaluators.scoring.probes import EXECUTED, StaticProbe, static_evidence
from regrade.evaluators.scoring.stats import Tally
from regrade.evaluators.scoring.verifier import Verifier
from regrade.evaluators.scoring.worker_pool import Crew
from regrade.evaluators.storage.digests import key_of
from regrade.evaluators.verification.assurance_levels import NOTHING_CLAIMED
from regrade.rewards.assurance_level import AssuranceLevel
from regrade.rewards.evidence import BuildRun, End, TestRun, Verification

Executed = TestRun | BuildRun | Verification

BACK_OFF = (0.5, 2.0, 8.0)
"""Seconds before each further attempt after a failure of the infrastructure, or after a sandbox that died.

A sandbox that died under a candidate may have been killed from outside, and the next one with it: by a machine that ran
out of memory, by somebody who cleans up. That passes; what a candidate does to its sandbox does not.
"""


class Gatherer:
    """Gathers evidence with the probes and with the worker of the thread that asks."""

    def __init__(
        self,
        crew: Crew,
        probes: Mapping[type, StaticProbe],
        tally: Tally,
        verifier: Verifier,
        *,
        audit: float,
        cold: bool,
    ) -> None:
        """
        Args:
            audit, cold: see `Scorer`.
        """
        self._crew = crew
        self._probes = probes
        self._tally = tally
        self._audit = audit
        self._cold = cold
        self._builder = Builder()
        self._verifier = verifier

    def missing(self, work: Work, batch: Batch) -> Iterator[tuple[type, Any]]:
        """Each kind of evidence that the work lacks with its record, as soon as it is there.

        What can't be gathered for no fault of the patch is left out, with the reason in `work.infrastructure`.

        Raises:
            WorkerDiedError, SandboxError, OSError: the call was stopped.
        """
        reason = ""
        try:
            workspace = self._prepared(work, batch)
        except PatchError as error:
            reason, workspace = str(error), Workspace(work.task.base, work.task.base)
        except OSError as error:  # the disk is full, say: this job is not known, the others of the call still may be
            if batch.stopped or self._crew.is_stopped:
                raise
            work.infrastructure.update(dict.fromkeys(work.missing, _in_words(error)))
            return
        for kind in work.missing:
            record = self._record(kind, work, workspace, batch, reason)
            if record is not None:
                yield kind, record

    def _prepared(self, work: Work, batch: Batch) -> Workspace:
        for seconds in BACK_OFF:
            try:
                return prepare(work.task, work.patch)
            except OSError:
                if batch.stopped or self._crew.is_stopped:
                    raise
                time.sleep(seconds)
                self._tally.add(retries=1)
        return prepare(work.task, work.patch)

    def _record(self, kind: type, work: Work, workspace: Workspace, batch: Batch, reason: str) -> Any | None:
        """One record; None where the infrastructure failed.

        Args:
            reason: why the patch does not apply; empty where it does.
        """
        task, patch = work.task, work.patch
        if kind not in EXECUTED:
            return static_evidence(self._probes[kind], kind, workspace.before, workspace.after, patch, task)
        if reason:
            return _of_no_patch(kind, task, reason)
        if kind is Verification and TestRun not in work.records:
            work.infrastructure[kind] = work.infrastructure.get(TestRun, "there is no TestRun to verify")
            return None
        return self._persistently(kind, work, batch, self._execution(kind, work, workspace, batch.reachable))

    def _execution(self, kind: type, work: Work, workspace: Workspace, reachable: bool) -> Callable[[], Executed]:
        if kind is TestRun:
            return lambda: self._tests(work, workspace, reachable)
        if kind is Verification:
            return lambda: self._verifier.verify(work, workspace)
        return lambda: self._build(work, workspace)

    def _persistently(self, kind: type, work: Work, batch: Batch, execute: Callable[[], Executed]) -> Executed | None:
        """What `execute` says, tried again after each failure of the infrastructure.

        A candidate that takes its sandbox down each time is judged by that. None where the infrastructure failed each
        time, with the reason in `work.infrastructure`.
        """
        deaths, failures = 0, 0
        while True:
            try:
                return execute()
            except (WorkerDiedError, SandboxError, OSError) as error:
                if batch.stopped or self._crew.is_stopped:
                    raise
                failure = error
            if isinstance(failure, WorkerDiedError) and failure.killed:  # for the sake of another call
                continue
            is_death = isinstance(failure, WorkerDiedError) and failure.running
            before = deaths if is_death else failures
            if before == len(BACK_OFF):
                if is_death:  # in fresh sandboxes, over some seconds: that is the candidate's doing
                    return _killer(kind, work.task, str(failure))
                work.infrastructure[kind] = _in_words(failure)
                return None
            time.sleep(BACK_OFF[before])
            deaths, failures = deaths + is_death, failures + (not is_death)
            self._tally.add(retries=1)

    def _tests(self, work: Work, workspace: Workspace, reachable: bool) -> TestRun:
        worker = self._crew.worker(work.task)
        if self._cold:
            done = run_tests_cold(worker, work.task, workspace)
        else:
            audit = int(key_of([work.task_key, work.patch.digest, "audit"]).hex()[:8], 16) < self._audit * 16**8
            preparation = self._crew.preparation(work.task)
            done = run_tests(worker, work.task, workspace, reachable=reachable, preparation=preparation, audit=audit)
        self._tally.add(executions=1, cpu_seconds=done.cpu_seconds)
        if done.audit is not None:
            missed = tuple(f"{work.task.id}: {test}" for test in done.audit.missed)
            self._tally.add(audited=1, caught=done.audit.caught, missed=missed)
        return done.run

    def _build(self, work: Work, workspace: Workspace) -> BuildRun:
        task = work.task
        build, executions = self._builder.build(
            self._crew.worker(task), task, work.patch, workspace, self._crew.preparation(task), work.task_key
        )
        self._tally.add(executions=executions)
        return build


def _of_no_patch(kind: type, task: Task, reason: str) -> Executed:
    """The evidence on what does not apply."""
    if kind is TestRun:
        return not_applied(task, reason)
    return (
        BuildRun(False, 0, reason) if kind is BuildRun else Verification(max(AssuranceLevel), "", why=NOTHING_CLAIMED)
    )


def _killer(kind: type, task: Task, reason: str) -> Executed:
    """The evidence on a candidate that takes its whole sandbox down."""
    detail = f"it took the whole sandbox down, {1 + len(BACK_OFF)} times: {reason}"[:500]
    if kind is TestRun:
        return replace(not_applied(task, detail), end=End.CRASHED)
    return BuildRun(False, 0, detail) if kind is BuildRun else Verification(AssuranceLevel.IN_PROCESS, "", why=detail)


def _in_words(failure: Exception) -> str:
    said = f"{type(failure).__name__}: {failure}"
    return "; ".join(filter(None, (said, full_disk(failure))))
