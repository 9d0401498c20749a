"""Judges attempts in stages: what is read, the FAIL_TO_PASS tests, their files, then all that the change can reach.

`Cascade.judge` stands for `environments.attempts.judge`. A stage stops an attempt if the tests after it cannot change
what the attempt is paid (EXACT), or by no more than the declared charge: then it broke something, and only how much is
unknown (SEVERITY), or it fixed nothing and broke nothing in the files of its FAIL_TO_PASS tests (NOTHING_BROKEN). An
attempt that may be a clean fix is never stopped.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from regrade.datasets.node_ids import file_of
from regrade.datasets.patches import Patch, PatchError
from regrade.datasets.rollouts import Rollout
from regrade.datasets.tasks import Task
from regrade.evaluators.execution.selection import selected_tests
from regrade.evaluators.execution.untestable import as_failure
from regrade.evaluators.execution.workspaces import prepare
from regrade.evaluators.scoring.probes import EXECUTED
from regrade.evaluators.scoring.scorer import Scorer
from regrade.evaluators.storage.digests import key_of
from regrade.policy_training.cascade.audits import StopAudit, StopAudits
from regrade.policy_training.cascade.outlook import expected_pay, supposed_pay, supposed_run, sure_outcome
from regrade.policy_training.cascade.pay_bounds import (
    ROUNDING,
    charged_run,
    other_executions,
    pay_of,
    pay_range,
)
from regrade.policy_training.cascade.settings import CascadeSettings, ModelAnswers
from regrade.policy_training.cascade.spared import JobRecord, can_pay_off, numbers_of
from regrade.policy_training.environments.attempts import (
    Attempt,
    CandidateAttempt,
    attempt_of,
    candidates,
    judge,
    needs_of,
)
from regrade.policy_training.environments.stops import CascadeStage, Ground, Stop
from regrade.policy_training.environments.training_reward import TrainingReward
from regrade.rewards.evidence import (
    End,
    EvidenceSet,
    FailToPassRun,
    Integrity,
    PartialRun,
    Prediction,
    TestFileRun,
    TestOutcome,
    TestStatus,
)
from regrade.rewards.reward_model_folders import prediction_of

RUNS: Mapping[CascadeStage, type[PartialRun]] = {
    CascadeStage.FAIL_TO_PASS: FailToPassRun,
    CascadeStage.FILE: TestFileRun,
}
"""The stages that run some of the tests, in their order."""
Key = tuple[str, str]
"""Of a job: the task's id, the patch's digest."""


@dataclass
class _StagedJob:
    """One distinct patch of one task on its way through the stages."""

    task: Task
    candidate: CandidateAttempt
    static: EvidenceSet = field(default_factory=EvidenceSet)
    seen: dict[CascadeStage, PartialRun] = field(default_factory=dict)
    stop: Stop | None = None
    evidence: EvidenceSet | None = None
    """Of its execution."""
    audited: bool = False

    @property
    def patch(self) -> Patch:
        return self.candidate.rollout.patch

    @property
    def is_open(self) -> bool:
        return self.stop is None

    @cached_property
    def nothing_ran(self) -> PartialRun:
        """What is known before any test has run: which tests the change can reach."""
        try:
            selected = selected_tests(self.task, prepare(self.task, self.patch))
        except (PatchError, OSError):  # as little can be reached as is known; the execution reports it
            selected = None
        unrun = tuple(test for test in self.task.pass_to_pass if selected is None or test in selected)
        return PartialRun(outcomes={}, unrun=unrun)

    def split_at(self, stage: CascadeStage) -> tuple[list[str], list[str]]:
        """The tests that this stage runs, and the others that the change can reach."""
        files = set(map(file_of, self.task.fail_to_pass)) if stage is CascadeStage.FILE else set()
        unrun = self.nothing_ran.unrun
        own = [*self.task.fail_to_pass, *(test for test in unrun if file_of(test) in files)]
        return own, [test for test in unrun if file_of(test) not in files]


class Cascade:
    """Judges the attempts of one training. Several threads may call `judge`."""

    def __init__(self, settings: CascadeSettings, seed: int = 0, prediction: type[Prediction] | None = None) -> None:
        """
        Args:
            seed: of the audits.
            prediction: the evidence that the reward model of `settings.model` gives. Default: None: no model is asked.
        """
        self.settings = settings
        self.seed = seed
        self.prediction = prediction
        self.audits = StopAudits(settings.max_wrong, settings.tolerance)
        self._lock = threading.Lock()
        self._records: dict[Key, JobRecord] = {}
        """Of the distinct patches since the numbers were last taken."""
        self._audited: dict[Key, StopAudit] = {}
        """Of a batch that is not settled yet."""
        self._batch = 0

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
        return self.settle(self._judge(rollouts, tasks, scorer, reward, progress), tasks, scorer, reward)

    def judge_one(self, rollout: Rollout, tasks: dict[str, Task], scorer: Scorer, reward: TrainingReward) -> Attempt:
        """Judge an attempt before the others of its batch are there; `settle` them when they are."""
        (attempt,) = self._judge([rollout], tasks, scorer, reward, None)
        return attempt

    def _judge(
        self,
        rollouts: Sequence[Rollout],
        tasks: dict[str, Task],
        scorer: Scorer,
        reward: TrainingReward,
        progress: Callable[[int, int], None] | None,
    ) -> list[Attempt]:
        found = candidates(rollouts, tasks, reward)
        jobs: dict[Key, _StagedJob] = {}
        for each in found:
            if each.runs and each.key not in jobs:
                jobs[each.key] = _StagedJob(tasks[each.rollout.task_id], each)
        if not self.fell_back:
            self._run_stages(list(jobs.values()), scorer, reward)
        to_run = [job for job in jobs.values() if job.stop is None or job.audited]
        self._execute(to_run, scorer, reward, len(jobs), progress)
        attempts = [self._attempt(each, jobs.get(each.key) if each.runs else None, reward) for each in found]
        by_job = {each.key: attempt for each, attempt in zip(found, attempts, strict=True) if each.runs}
        self._note(jobs, by_job, reward)
        return attempts

    def settle(
        self, attempts: Sequence[Attempt], tasks: dict[str, Task], scorer: Scorer, reward: TrainingReward
    ) -> list[Attempt]:
        """The attempts of a batch, in which groups without variance are executed where a model was sure of an attempt:
        equal pay teaches nothing, and the execution may tell them apart. Its audits count from now on."""
        self._count_audits(attempts)
        groups: dict[str, list[Attempt]] = {}
        for attempt in attempts:
            groups.setdefault(attempt.rollout.task_id, []).append(attempt)
        flat = {name for name, group in groups.items() if len(group) > 1 and _is_flat(group)}
        doubtful = [
            index
            for index, attempt in enumerate(attempts)
            if attempt.rollout.task_id in flat and attempt.stop is not None and attempt.stop.ground is Ground.PREDICTED
        ]
        settled = list(attempts)
        rollouts = [attempts[index].rollout for index in doubtful]
        for index, executed in zip(doubtful, judge(rollouts, tasks, scorer, reward), strict=True):
            settled[index] = executed
            self._note_execution(executed)
        return settled

    def take_numbers(self) -> dict[str, float]:
        """What the cascade did since the last call, for the training log, as `cascade/...`."""
        with self._lock:
            records, self._records = list(self._records.values()), {}
            self._batch += 1
        return {**numbers_of(records), **self.audits.take_numbers()}

    def state_dict(self) -> dict[str, Any]:
        """What a training that goes on after a kill must know."""
        return {"audits": self.audits.state_dict(), "batch": self._batch}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.audits.load_state_dict(state["audits"])
        self._batch = state["batch"]

    # ------------------------------------------------------------ the stages

    @property
    def _asks(self) -> ModelAnswers | None:
        """What the model is asked; None: nothing."""
        return None if self.prediction is None or self.audits.have_parted else self.settings.model_answers

    def _run_stages(self, jobs: list[_StagedJob], scorer: Scorer, reward: TrainingReward) -> None:
        self._read(jobs, scorer, reward)
        if self._asks in ("failures", "all"):
            self._ask(jobs, scorer, reward)
        for stage, kind in RUNS.items():
            open_jobs = [job for job in jobs if job.is_open and self._is_worthwhile(stage, job, reward)]
            if not open_jobs:
                continue
            gathered = scorer.gather([(job.task, job.patch) for job in open_jobs], {kind})
            for job, evidence in zip(open_jobs, gathered, strict=True):
                seen = as_failure(job.task, evidence).records.get(kind)
                if isinstance(seen, PartialRun):  # else the infrastructure failed: the execution tries again
                    job.seen[stage] = seen
                    job.stop = self._stop(stage, job, seen, reward)
        if self._asks == "rest":
            self._ask([job for job in jobs if CascadeStage.FILE in job.seen], scorer, reward)
        for job in jobs:
            job.audited = job.stop is not None and self._is_audited(job)

    def _read(self, jobs: list[_StagedJob], scorer: Scorer, reward: TrainingReward) -> None:
        """The static evidence, and the attempts that it decides."""
        kinds = needs_of(reward) - EXECUTED
        gathered = scorer.gather([(job.task, job.patch) for job in jobs], kinds) if jobs else []
        for job, evidence in zip(jobs, gathered, strict=True):
            job.static = evidence
            integrity = evidence.records.get(Integrity)
            if isinstance(integrity, Integrity) and integrity.kinds:
                self._stop_if_exact(CascadeStage.STATIC, job, job.nothing_ran, reward)

    def _is_worthwhile(self, stage: CascadeStage, job: _StagedJob, reward: TrainingReward) -> bool:
        """Can a result of this stage stop the attempt, and does that spare more than the stage costs?"""
        task = job.task
        if not task.fail_to_pass or any(not seen.failing(task.fail_to_pass) for seen in job.seen.values()):
            return False  # nothing to look at first; or its FAIL_TO_PASS tests pass, so that all the others count
        if not can_pay_off(task, *job.split_at(stage)):
            return False
        failed = dict.fromkeys(task.fail_to_pass, TestOutcome(TestStatus.FAILED))
        results = [PartialRun(outcomes=failed, unrun=job.nothing_ran.unrun)]
        if stage is CascadeStage.FILE:
            first, *others = job.nothing_ran.unrun
            broken = {**failed, first: TestOutcome(TestStatus.FAILED)}
            results.append(PartialRun(outcomes=broken, unrun=tuple(others)))
        return any(self._stop(stage, job, each, reward) is not None for each in results)

    def _stop(self, stage: CascadeStage, job: _StagedJob, seen: PartialRun, reward: TrainingReward) -> Stop | None:
        """The stop of a stage with this result; None: the attempt goes on."""
        task = job.task
        broke = bool(seen.failing(task.pass_to_pass)) or seen.end is not End.COMPLETED
        broke = broke and seen.end is not End.NOT_APPLIED
        if not seen.failing(task.fail_to_pass) and not broke:
            return None  # it may be a clean fix
        pays = pay_range(reward, task, job.candidate, job.static, seen)
        if pays is None:
            return None
        if pays.is_exact:
            return Stop(stage, Ground.EXACT, pays.low, pays.high, broke, seen)
        if stage is not CascadeStage.FILE or pays.width > self.settings.charge + 1e-9:
            return None
        if broke and self.settings.severity is None:
            return None
        ground = Ground.SEVERITY if broke else Ground.NOTHING_BROKEN
        return Stop(stage, ground, pays.low, pays.high, broke, seen)

    def _ask(self, jobs: list[_StagedJob], scorer: Scorer, reward: TrainingReward) -> None:
        """Stop the attempts that are open and of which the model is sure; with `all`, each that it can read."""
        kind = self.prediction
        open_jobs = [job for job in jobs if job.is_open and job.task.fail_to_pass]
        if kind is None or not open_jobs:
            return
        gathered = scorer.gather([(job.task, job.patch) for job in open_jobs], {kind})
        for job, evidence in zip(open_jobs, gathered, strict=True):
            prediction = evidence.records.get(kind)
            if isinstance(prediction, Prediction):
                self._believe(job, prediction, reward)

    def _believe(self, job: _StagedJob, prediction: Prediction, reward: TrainingReward) -> None:
        settings, seen = self.settings, job.seen.get(CascadeStage.FILE)
        severity = settings.severity or 0.0
        known = seen or job.nothing_ran
        pays = pay_range(reward, job.task, job.candidate, job.static, known)
        if pays is None:
            return
        if settings.model_answers == "all":
            paid = expected_pay(reward, job.task, job.candidate, job.static, prediction, severity)
            outcome = None
        else:
            outcome = sure_outcome(prediction, seen, job.task, settings.unsure)
            if outcome is None or outcome.fixes:  # a model certifies nothing
                return
            run = supposed_run(job.task, known, outcome, severity)
            paid = supposed_pay(reward, job.candidate, job.static, run)
        if paid is None:
            return
        broke = outcome is not None and outcome.breaks
        ground = Ground.EXPECTED if outcome is None else Ground.PREDICTED
        job.stop = Stop(CascadeStage.MODEL, ground, pays.low, pays.high, broke, known, prediction, paid)

    def _stop_if_exact(self, stage: CascadeStage, job: _StagedJob, seen: PartialRun, reward: TrainingReward) -> None:
        pays = pay_range(reward, job.task, job.candidate, job.static, seen)
        if pays is not None and pays.is_exact:
            job.stop = Stop(stage, Ground.EXACT, pays.low, pays.high, broke=False, seen=seen)

    def _is_audited(self, job: _StagedJob) -> bool:
        """Drawn anew in each batch, by the seed, so that a run repeats."""
        digest = key_of([str(self.seed), str(self._batch), job.task.id, job.patch.digest, "cascade audit"]).hex()
        return int(digest[:8], 16) < self.settings.audit * 16**8

    # ------------------------------------------------------------ the execution

    def _execute(
        self,
        jobs: list[_StagedJob],
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
            chosen = [job for job in jobs if job.audited is not reachable]
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

    def _attempt(self, candidate: CandidateAttempt, job: _StagedJob | None, reward: TrainingReward) -> Attempt:
        if job is None or job.evidence is not None:
            return attempt_of(candidate, None if job is None else job.evidence, reward)
        return self._stopped(candidate, job, reward)

    def _stopped(self, candidate: CandidateAttempt, job: _StagedJob, reward: TrainingReward) -> Attempt:
        """An attempt that is paid by what a stage saw."""
        assert job.stop is not None
        integrity = job.static.records.get(Integrity)
        tampering = integrity.kinds if isinstance(integrity, Integrity) else ()
        if job.stop.paid is not None:
            return Attempt(
                candidate.rollout,
                None,
                job.stop.paid,
                candidate.compiles,
                tampering,
                is_empty=candidate.is_empty,
                stop=job.stop,
            )
        run = charged_run(job.task, job.stop.seen, self.settings.severity or 0.0)
        pay = pay_of(reward, candidate, job.static, run, next(other_executions(reward.reward, run)))
        return Attempt(
            candidate.rollout,
            None,
            None if pay is None else pay.value,
            candidate.compiles,
            tampering,
            is_empty=candidate.is_empty,
            breakdown=None if pay is None else pay.breakdown,
            cause="" if pay is None else pay.cause,
            stop=job.stop,
        )

    def _note(self, jobs: Mapping[Key, _StagedJob], attempts: Mapping[Key, Attempt], reward: TrainingReward) -> None:
        """Remember what was run, and what the audits found."""
        records, audits = {}, {}
        for key, job in jobs.items():
            attempt = attempts[key]
            if job.audited and job.stop is not None and attempt.reward is not None:
                paid = self._stopped(job.candidate, job, reward).reward
                if paid is not None:
                    audits[key] = StopAudit(job.stop.stage, job.stop.ground, paid, attempt.reward)
            records[key] = JobRecord(job.task, tuple(job.seen.values()), job.stop, attempt.run, job.audited)
        with self._lock:
            self._records |= records
            self._audited |= audits

    def _count_audits(self, attempts: Sequence[Attempt]) -> None:
        """Each audit as often as the batch has its patch: what counts are the attempts."""
        with self._lock:
            audited, self._audited = self._audited, {}
        counts = Counter((attempt.rollout.task_id, attempt.rollout.patch.digest) for attempt in attempts)
        for key, audit in audited.items():
            self.audits.add(replace(audit, attempts=max(1, counts[key])))

    def _note_execution(self, attempt: Attempt) -> None:
        """Of an attempt whose record says that it was stopped."""
        key = attempt.rollout.task_id, attempt.rollout.patch.digest
        with self._lock:
            if key in self._records:
                self._records[key] = replace(self._records[key], run=attempt.run)


def _is_flat(group: Sequence[Attempt]) -> bool:
    """Are all attempts paid the same?"""
    values = [attempt.reward for attempt in group if attempt.reward is not None]
    return len(values) == len(group) and max(values) - min(values) <= ROUNDING


def cascade_of(settings: CascadeSettings, seed: int = 0) -> Cascade:
    """A cascade with its reward model.

    Raises:
        UserError: the folder of the model contains none.
    """
    return Cascade(settings, seed, None if settings.model is None else prediction_of(settings.model))
