"""Judges attempts in stages: what is read, the FAIL_TO_PASS tests, their files, then all that the change can reach.

`Cascade.judge` stands for `environments.attempts.judge`. A stage stops an attempt if the tests after it cannot change
what the attempt is paid (EXACT), or by no more than the declared charge: then it broke something, and only how much is
unknown (SEVERITY), or it fixed nothing and broke nothing in the files of its FAIL_TO_PASS tests (NOTHING_BROKEN). An
attempt that may be a clean fix is never stopped.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from regrade.datasets.patches import Patch
from regrade.datasets.rollouts import Rollout
from regrade.datasets.tasks import Task
from regrade.evaluators.execution.untestable import as_failure
from regrade.evaluators.scoring.probes import EXECUTED, VERIFICATIONS
from regrade.evaluators.scoring.scorer import Scorer
from regrade.evaluators.storage.digests import key_of
from regrade.policy_training.cascade.audits import Audit, Audits
from regrade.policy_training.cascade.pay_bounds import charged_run, completed, other_executions, pay_of, pay_range
from regrade.policy_training.cascade.settings import CascadeSettings
from regrade.policy_training.cascade.spared import JobRecord, numbers_of
from regrade.policy_training.environments.attempts import Attempt, Candidate, attempt_of, candidates, needs_of
from regrade.policy_training.environments.stops import Ground, Stage, Stop
from regrade.policy_training.environments.training_reward import TrainingReward
from regrade.rewards.evidence import (
    BuildRun,
    End,
    EvidenceSet,
    FailToPassRun,
    Integrity,
    PartialRun,
    TestFileRun,
    TestOutcome,
    TestRun,
    TestStatus,
)

RUNS: Mapping[Stage, type[PartialRun]] = {Stage.FAIL_TO_PASS: FailToPassRun, Stage.FILE: TestFileRun}
"""The stages that run some of the tests, in their order."""
Key = tuple[str, str]
"""Of a job: the task's id, the patch's digest."""


@dataclass
class _Job:
    """One distinct patch of one task on its way through the stages."""

    task: Task
    candidate: Candidate
    static: EvidenceSet = field(default_factory=EvidenceSet)
    seen: dict[Stage, PartialRun] = field(default_factory=dict)
    stop: Stop | None = None
    evidence: EvidenceSet | None = None
    """Of its execution."""
    audited: bool = False

    @property
    def patch(self) -> Patch:
        return self.candidate.rollout.patch


class Cascade:
    """Judges the attempts of one training. Several threads may call `judge`."""

    def __init__(self, settings: CascadeSettings, seed: int = 0) -> None:
        """
        Args:
            seed: of the audits.
        """
        self.settings = settings
        self.seed = seed
        self.audits = Audits(settings.max_wrong)
        self._lock = threading.Lock()
        self._records: list[JobRecord] = []

    @property
    def fell_back(self) -> bool:
        """Is everything executed, because too many stops were wrong?"""
        return self.audits.are_too_wrong

    def judge(
        self,
        rollouts: Sequence[Rollout],
        tasks: dict[str, Task],
        scorer: Scorer,
        reward: TrainingReward,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[Attempt]:
        """As `environments.attempts.judge`, but attempts that a stage stops are not executed."""
        found = candidates(rollouts, tasks, reward)
        jobs: dict[Key, _Job] = {}
        for each in found:
            if each.runs and each.key not in jobs:
                jobs[each.key] = _Job(tasks[each.rollout.task_id], each)
        if not self.fell_back:
            self._run_stages(list(jobs.values()), scorer, reward)
        to_run = [job for job in jobs.values() if job.stop is None or job.audited]
        self._execute(to_run, scorer, reward, len(jobs), progress)
        attempts = [self._attempt(each, jobs.get(each.key) if each.runs else None, reward) for each in found]
        by_job = {each.key: attempt for each, attempt in zip(found, attempts, strict=True) if each.runs}
        self._note(jobs, by_job, reward)
        return attempts

    def take_numbers(self) -> dict[str, float]:
        """What the cascade did since the last call, for the training log, as `cascade/...`."""
        with self._lock:
            records, self._records = self._records, []
        return {**numbers_of(records), **self.audits.numbers()}

    def state_dict(self) -> dict[str, object]:
        """What a training that goes on after a kill must know."""
        return self.audits.state_dict()

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        self.audits.load_state_dict(state)

    # ------------------------------------------------------------ the stages

    def _run_stages(self, jobs: list[_Job], scorer: Scorer, reward: TrainingReward) -> None:
        self._read(jobs, scorer, reward)
        for stage, kind in RUNS.items():
            open_jobs = [job for job in jobs if job.stop is None and self._is_worthwhile(stage, job, reward)]
            if not open_jobs:
                continue
            gathered = scorer.gather([(job.task, job.patch) for job in open_jobs], {kind})
            for job, evidence in zip(open_jobs, gathered, strict=True):
                seen = as_failure(job.task, evidence).records.get(kind)
                if isinstance(seen, PartialRun):  # else the infrastructure failed: the execution tries again
                    job.seen[stage] = seen
                    self._decide(stage, job, seen, reward)
        for job in jobs:
            job.audited = job.stop is not None and self._is_audited(job)

    def _read(self, jobs: list[_Job], scorer: Scorer, reward: TrainingReward) -> None:
        """The static evidence, and the attempts that it decides."""
        kinds = needs_of(reward) - EXECUTED
        gathered = scorer.gather([(job.task, job.patch) for job in jobs], kinds) if jobs else []
        for job, evidence in zip(jobs, gathered, strict=True):
            job.static = evidence
            integrity = evidence.records.get(Integrity)
            if isinstance(integrity, Integrity) and integrity.kinds:
                nothing = PartialRun(outcomes={}, unrun=job.task.pass_to_pass)
                self._stop_if_exact(Stage.STATIC, job, nothing, reward)

    def _is_worthwhile(self, stage: Stage, job: _Job, reward: TrainingReward) -> bool:
        """Can any result of this stage stop the attempt?"""
        task = job.task
        if not task.fail_to_pass or any(not seen.failing(task.fail_to_pass) for seen in job.seen.values()):
            return False  # nothing to look at first; or its FAIL_TO_PASS tests pass, so that all the others count
        failed = dict.fromkeys(task.fail_to_pass, TestOutcome(TestStatus.FAILED))
        results = [PartialRun(outcomes=failed, unrun=task.pass_to_pass)]
        if stage is Stage.FILE and task.pass_to_pass:
            first, *others = task.pass_to_pass
            broken = {**failed, first: TestOutcome(TestStatus.FAILED)}
            results.append(PartialRun(outcomes=broken, unrun=tuple(others)))
        return any(self._stop(stage, job, each, reward) is not None for each in results)

    def _decide(self, stage: Stage, job: _Job, seen: PartialRun, reward: TrainingReward) -> None:
        if not seen.unrun and not reward.reward.needs & {BuildRun, *VERIFICATIONS}:
            run = completed(job.task, seen, TestStatus.PASSED)  # nothing is left to run, so this is the whole run
            job.evidence = replace(job.static, records={**job.static.records, TestRun: run})
        else:
            job.stop = self._stop(stage, job, seen, reward)

    def _stop(self, stage: Stage, job: _Job, seen: PartialRun, reward: TrainingReward) -> Stop | None:
        """The stop of a stage with this result; None: the attempt goes on."""
        task = job.task
        broke = bool(seen.failing(task.pass_to_pass)) or seen.end is not End.COMPLETED
        if not seen.failing(task.fail_to_pass) and not broke:
            return None  # it may be a clean fix
        pays = pay_range(reward, task, job.candidate, job.static, seen)
        if pays is None:
            return None
        if pays.is_exact:
            return Stop(stage, Ground.EXACT, pays.low, pays.high, broke, seen)
        if stage is not Stage.FILE or pays.width > self.settings.charge + 1e-9:
            return None
        if broke and self.settings.severity is None:
            return None
        ground = Ground.SEVERITY if broke else Ground.NOTHING_BROKEN
        return Stop(stage, ground, pays.low, pays.high, broke, seen)

    def _stop_if_exact(self, stage: Stage, job: _Job, seen: PartialRun, reward: TrainingReward) -> None:
        pays = pay_range(reward, job.task, job.candidate, job.static, seen)
        if pays is not None and pays.is_exact:
            job.stop = Stop(stage, Ground.EXACT, pays.low, pays.high, broke=False, seen=seen)

    def _is_audited(self, job: _Job) -> bool:
        """By the patch and the seed alone, so that a run repeats."""
        digest = key_of([str(self.seed), job.task.id, job.patch.digest, "cascade audit"]).hex()
        return int(digest[:8], 16) < self.settings.audit * 16**8

    # ------------------------------------------------------------ the execution

    def _execute(
        self,
        jobs: list[_Job],
        scorer: Scorer,
        reward: TrainingReward,
        total: int,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        """Run all tests that the changes can reach, of audited attempts the whole suite."""
        done = total - len(jobs)
        if progress is not None:
            progress(done, total)
        for reachable in (True, False):
            chosen = [job for job in jobs if job.audited is not reachable and job.evidence is None]
            if not chosen:
                continue

            def told(now: int, _total: int, before: int = done) -> None:
                if progress is not None:
                    progress(before + now, total)

            pairs = [(job.task, job.patch) for job in chosen]
            gathered = scorer.gather(pairs, needs_of(reward), reachable=reachable, progress=told)
            for job, evidence in zip(chosen, gathered, strict=True):
                job.evidence = as_failure(job.task, evidence)
            done += len(chosen)

    def _attempt(self, candidate: Candidate, job: _Job | None, reward: TrainingReward) -> Attempt:
        if job is None or job.evidence is not None:
            return attempt_of(candidate, None if job is None else job.evidence, reward)
        return self._stopped(candidate, job, reward)

    def _stopped(self, candidate: Candidate, job: _Job, reward: TrainingReward) -> Attempt:
        """An attempt that is paid by what a stage saw."""
        assert job.stop is not None
        seen = job.stop.seen or PartialRun(outcomes={}, unrun=job.task.pass_to_pass)
        run = charged_run(job.task, seen, self.settings.severity or 0.0)
        pay = pay_of(reward, candidate, job.static, run, next(other_executions(reward.reward, run)))
        integrity = job.static.records.get(Integrity)
        return Attempt(
            candidate.rollout,
            None,
            None if pay is None else pay.value,
            candidate.compiles,
            integrity.kinds if isinstance(integrity, Integrity) else (),
            is_empty=candidate.is_empty,
            breakdown=None if pay is None else pay.breakdown,
            cause="" if pay is None else pay.cause,
            stop=job.stop,
        )

    def _note(self, jobs: Mapping[Key, _Job], attempts: Mapping[Key, Attempt], reward: TrainingReward) -> None:
        """Remember what was run, and what the audits found."""
        records = []
        for key, job in jobs.items():
            attempt = attempts[key]
            if job.audited and job.stop is not None and attempt.reward is not None:
                paid = self._stopped(job.candidate, job, reward).reward
                if paid is not None:
                    is_wrong = abs(attempt.reward - paid) > self.settings.tolerance
                    self.audits.add(Audit(job.stop.stage, job.stop.ground, paid, attempt.reward, is_wrong))
            records.append(JobRecord(job.task, tuple(job.seen.values()), job.stop, attempt.run, job.audited))
        with self._lock:
            self._records.extend(records)
