"""Attempts of a policy with their verdicts: sample, execute, reward, and store them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from regrade.datasets.applying import changed_files
from regrade.datasets.patches import Patch, PatchError
from regrade.datasets.rollouts import Policy, Rollout, Sampling
from regrade.datasets.syntax_trees import parse_or_none
from regrade.datasets.tasks import Task
from regrade.evaluators.evaluation.stored_rollouts import stored_rollouts
from regrade.evaluators.execution.untestable import as_failure
from regrade.evaluators.scoring.scorer import Scorer
from regrade.evaluators.storage.journal import append, write_atomically
from regrade.policy_training.environments.stops import CascadeStage, Stop
from regrade.policy_training.environments.training_reward import TrainingReward
from regrade.rewards.breakdown import Breakdown
from regrade.rewards.errors import described_attempt, errors_of_attempt
from regrade.rewards.evidence import End, EvidenceSet, Integrity, TestRun


@dataclass(frozen=True)
class Attempt:
    """One rollout with its test results and its training value."""

    rollout: Rollout
    run: TestRun | None
    """None: not executed, or unscored for a reason that the policy did not cause."""
    reward: float | None
    """`TrainingReward.value`, or None if unscored."""
    compiles: bool = True
    """False: it leaves a Python file that does not compile."""
    tampering: tuple[str, ...] = ()
    """Kinds of conclusive signs that it tampers with the evaluation."""
    is_empty: bool = False
    """Does its patch leave the tree as it is?"""
    breakdown: Breakdown | None = None
    """The verdict of the reward; None if the attempt was not executed."""
    cause: str = ""
    """What is paid a value of its own, one of `TrainingReward.prices`; empty: the reward is paid."""
    stop: Stop | None = None
    """What a cascade knew of it when it stopped before the whole execution: `run` is then None."""

    @property
    def stage(self) -> CascadeStage | None:
        """What answered; None: nothing did."""
        if self.stop is not None:
            return self.stop.stage
        if self.run is None:
            return CascadeStage.STATIC if self.reward is not None else None
        return CascadeStage.FULL if self.run.scope == "full" else CascadeStage.IMPACTED

    @property
    def broke(self) -> bool:
        """Does it break a test, or fail to compile? A patch that does not apply changes nothing, and breaks nothing."""
        if self.stop is not None and self.stop.broke:
            return True
        if self.run is None or self.run.end is End.NOT_APPLIED:
            return not self.compiles
        return not self.compiles or bool(self.run.broken)

    @property
    def verified(self) -> bool:
        """Is it a clean fix, by execution, without tampering with the evaluation?"""
        fixed = self.run is not None and self.run.resolved and self.run.end is End.COMPLETED
        return fixed and not self.tampering


@dataclass(frozen=True)
class ScoredAnswer:
    """An executed attempt, as training data of a reward model."""

    task_id: str
    prompt: str
    completion: str
    reward: float
    verified: bool
    patch: str | None = None
    """None: a file of an older version lacks it."""
    policy: str = ""
    fixes: bool | None = None
    """Do all FAIL_TO_PASS tests pass, without tampering? None: not executed."""
    breaks: bool | None = None
    builds: bool | None = None
    """False if a Python file does not compile. None: it compiles, and whether it imports is unknown."""
    log_probability: float | None = None
    """See `Rollout`."""


def scored_answers(attempts: Sequence[Attempt]) -> list[ScoredAnswer]:
    """The attempts that have a reward, in order, without those that a cascade stopped: nothing learns from a charge."""
    return [
        _scored_answer(attempt, attempt.reward)
        for attempt in attempts
        if attempt.reward is not None and attempt.stop is None
    ]


def _scored_answer(attempt: Attempt, reward: float) -> ScoredAnswer:
    rollout, run = attempt.rollout, attempt.run
    is_known = run is not None or not attempt.compiles or attempt.is_empty
    fixed = run is not None and bool(run.fail_to_pass) and len(run.fixed) == len(run.fail_to_pass)
    return ScoredAnswer(
        rollout.task_id,
        rollout.prompt,
        rollout.completion,
        reward,
        attempt.verified,
        patch=rollout.patch.text,
        policy=rollout.policy,
        fixes=fixed and not attempt.tampering if is_known else None,
        breaks=attempt.broke or _ended_early(run) if is_known else None,
        builds=None if attempt.compiles else False,
        log_probability=rollout.log_probability,
    )


def _ended_early(run: TestRun | None) -> bool:
    return run is not None and run.end not in (End.COMPLETED, End.NOT_APPLIED)


def write_attempts(path: Path, attempts: Sequence[Attempt]) -> None:
    """Write the scored attempts as JSON lines, all or none."""
    lines = [json.dumps(asdict(answer), ensure_ascii=False) for answer in scored_answers(attempts)]
    write_atomically(path, "".join(line + "\n" for line in lines))


def append_attempts(path: Path, attempts: Sequence[Attempt]) -> None:
    """Append the scored attempts of a batch as JSON lines, each patch of a task once."""
    distinct = {(attempt.rollout.task_id, attempt.rollout.patch.digest): attempt for attempt in attempts}
    append(path, [asdict(answer) for answer in scored_answers(list(distinct.values()))])


def read_attempts(path: Path) -> list[ScoredAnswer]:
    """The answers in a file of `write_attempts`."""
    return [ScoredAnswer(**json.loads(line)) for line in path.read_text(encoding="utf-8").split("\n") if line]


@dataclass(frozen=True)
class WallSeconds:
    """Wall time of the two parts of `gather`, in seconds."""

    generation: float
    execution: float


def judge(
    rollouts: Sequence[Rollout],
    tasks: dict[str, Task],
    scorer: Scorer,
    reward: TrainingReward,
    progress: Callable[[int, int], None] | None = None,
) -> list[Attempt]:
    """Execute the patches of rollouts and reward each; one attempt per rollout, in their order.

    Equal patches of a task are executed once, and those without a change or that do not compile never, if the training
    reward has a value for them. A lost attempt is unscored.
    """
    return [each.attempt for each in judge_with_evidence(rollouts, tasks, scorer, reward, needs_of(reward), progress)]


class JudgedAttempt(NamedTuple):
    """An attempt, and the evidence that it is judged by."""

    attempt: Attempt
    evidence: EvidenceSet | None
    """None: it was not executed."""


def judge_with_evidence(
    rollouts: Sequence[Rollout],
    tasks: Mapping[str, Task],
    scorer: Scorer,
    reward: TrainingReward,
    needs: Collection[type],
    progress: Callable[[int, int], None] | None = None,
) -> list[JudgedAttempt]:
    """As `judge`, with the evidence. `needs`: its types, at least those of the reward."""
    found = candidates(rollouts, tasks, reward)
    jobs = [(tasks[each.rollout.task_id], each.rollout.patch) for each in found if each.runs]
    gathered = iter(scorer.gather(jobs, needs, reachable=True, progress=progress) if jobs else [])
    judged = []
    for each in found:
        evidence = as_failure(tasks[each.rollout.task_id], next(gathered)) if each.runs else None
        judged.append(JudgedAttempt(attempt_of(each, evidence, reward), evidence))
    return judged


AttemptJudge = Callable[
    [Sequence[Rollout], dict[str, Task], Scorer, TrainingReward, Callable[[int, int], None] | None], list[Attempt]
]
"""`judge`, or what stands for it, such as the same method of a cascade."""


def needs_of(reward: TrainingReward) -> frozenset[type]:
    """The evidence that an executed attempt is judged by."""
    return reward.reward.needs | {TestRun, Integrity}


@dataclass(frozen=True)
class CandidateAttempt:
    """A rollout, and what is known of its patch before anything runs."""

    rollout: Rollout
    is_empty: bool
    """Is the tree after it the same?"""
    compiles: bool
    """Does each patched Python file parse?"""
    runs: bool
    """Must it be executed, as what it is paid is not known yet?"""

    @property
    def key(self) -> tuple[str, str]:
        """Equal for candidates that are the same job."""
        return self.rollout.task_id, self.rollout.patch.digest


def candidates(
    rollouts: Sequence[Rollout], tasks: Mapping[str, Task], reward: TrainingReward
) -> list[CandidateAttempt]:
    """Of each rollout, in order. Equal patches of a task are read once."""
    distinct = {(rollout.task_id, rollout.patch.digest): rollout.patch for rollout in rollouts}
    changes = {(task_id, digest): _changes(tasks[task_id], patch) for (task_id, digest), patch in distinct.items()}
    found = []
    for rollout in rollouts:
        is_empty, compiles = changes[rollout.task_id, rollout.patch.digest]
        is_known = reward.has_own_value(is_empty=is_empty, compiles=compiles)
        found.append(
            CandidateAttempt(rollout, is_empty, compiles, rollout.well_formed and not rollout.lost and not is_known)
        )
    return found


def attempt_of(candidate: CandidateAttempt, evidence: EvidenceSet | None, reward: TrainingReward) -> Attempt:
    """The attempt, paid by its evidence. None: it was not executed."""
    rollout = candidate.rollout
    if rollout.lost:
        return Attempt(rollout, None, None, candidate.compiles, is_empty=candidate.is_empty)
    records = {} if evidence is None else evidence.records
    run, integrity = records.get(TestRun), records.get(Integrity)
    with errors_of_attempt(described_attempt(rollout.policy, rollout.task_id, rollout.temperature, rollout.sample)):
        breakdown = None if evidence is None else reward.reward.evaluate(evidence)
    tampering = integrity.kinds if isinstance(integrity, Integrity) else ()
    value, cause = reward.payment(
        breakdown,
        run,
        well_formed=rollout.well_formed,
        is_empty=candidate.is_empty,
        compiles=candidate.compiles,
        tampered=bool(tampering) if integrity is not None or evidence is None else None,
    )
    return Attempt(
        rollout,
        run,
        value,
        candidate.compiles,
        tampering,
        is_empty=candidate.is_empty,
        breakdown=breakdown,
        cause=cause,
    )


def _changes(task: Task, patch: Patch) -> tuple[bool, bool]:
    """(is the tree after it the same, does each patched Python file parse).

    The scorer handles a patch that does not apply (it reports it) or cannot be applied, for example because the disk
    is full (it retries).
    """
    try:
        changed = changed_files(task.base, patch)
    except (PatchError, OSError):
        return patch.is_empty, True
    texts = [text for path, text in changed.items() if path.endswith(".py") and text is not None]
    return not changed, all(parse_or_none(text) is not None for text in texts)


def gather(
    policy: Policy,
    tasks: Sequence[Task],
    sampling: Sampling,
    seed: int,
    scorer: Scorer,
    reward: TrainingReward,
    progress: Callable[[str, int, int], None] | None = None,
    *,
    judged_by: AttemptJudge = judge,
    stored: Path | None = None,
) -> tuple[list[Attempt], WallSeconds]:
    """Sample attempts of a policy at every task, and execute them; in the order of the tasks, whichever ended first.

    Args:
        progress: called with the stage (`sampling`, `executing`), and the numbers of done and of all attempts.
        judged_by: what judges them. Default: `judge`, which executes all.
        stored: file of what is sampled, from which a killed process goes on. (What is executed is in the store of the
            scorer.) Default: None: nothing is stored.
    """
    began = time.monotonic()
    rollouts = []
    expected = len(tasks) * sampling.samples
    if stored is None:
        proposed = policy.propose([task.without_reference() for task in tasks], [sampling], seed)
    else:
        proposed = stored_rollouts(policy, tasks, [sampling], seed, stored)
    for rollout in proposed:
        rollouts.append(rollout)
        if progress is not None:
            progress("sampling", len(rollouts), expected)
    places = {task.id: place for place, task in enumerate(tasks)}
    rollouts.sort(key=lambda rollout: (places[rollout.task_id], rollout.sample))
    sampled = time.monotonic()

    def executed(done: int, total: int) -> None:
        if progress is not None:
            progress("executing", done, total)

    attempts = judged_by(rollouts, {task.id: task for task in tasks}, scorer, reward, executed)
    return attempts, WallSeconds(sampled - began, time.monotonic() - sampled)
