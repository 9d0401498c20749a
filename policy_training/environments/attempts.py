"""Attempts of a policy with their verdicts: sample, execute, reward, and store them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from regrade.datasets.applying import changed_files
from regrade.datasets.patches import Patch, PatchError
from regrade.datasets.rollouts import Policy, Rollout, Sampling
from regrade.datasets.syntax_trees import parse_or_none
from regrade.datasets.tasks import Task
from regrade.evaluators.evaluation.stored_rollouts import stored_rollouts
from regrade.evaluators.execution.untestable import as_failure
from regrade.evaluators.scoring.scorer import Scorer
from regrade.evaluators.storage.journal import write_atomically
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

    @property
    def broke(self) -> bool:
        """Does it break a test, or fail to compile?"""
        return not self.compiles or (self.run is not None and bool(self.run.broken))

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


def scored_answers(attempts: Sequence[Attempt]) -> list[ScoredAnswer]:
    """The attempts that have a reward, in order."""
    return [
        ScoredAnswer(a.rollout.task_id, a.rollout.prompt, a.rollout.completion, a.reward, a.verified)
        for a in attempts
        if a.reward is not None
    ]


def write_attempts(path: Path, attempts: Sequence[Attempt]) -> None:
    """Write the scored attempts as JSON lines, all or none."""
    lines = [json.dumps(asdict(answer), ensure_ascii=False) for answer in scored_answers(attempts)]
    write_atomically(path, "".join(line + "\n" for line in lines))


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
    distinct = {(rollout.task_id, rollout.patch.digest): rollout.patch for rollout in rollouts}
    changes = {(task_id, digest): _changes(tasks[task_id], patch) for (task_id, digest), patch in distinct.items()}
    found = [changes[rollout.task_id, rollout.patch.digest] for rollout in rollouts]
    to_run = [
        rollout.well_formed
        and not rollout.lost
        and not reward.has_own_value(is_empty=each.is_empty, compiles=each.compiles)
        for rollout, each in zip(rollouts, found, strict=True)
    ]
    jobs = [(tasks[rollout.task_id], rollout.patch) for rollout, runs in zip(rollouts, to_run, strict=True) if runs]
    needs = reward.reward.needs | {TestRun, Integrity}
    evidence = iter(scorer.gather(jobs, needs, reachable=True, progress=progress) if jobs else [])
    attempts = []
    for rollout, change, runs in zip(rollouts, found, to_run, strict=True):
        records = as_failure(tasks[rollout.task_id], next(evidence)) if runs else EvidenceSet()
        attempts.append(_attempt(rollout, change, records, reward, executed=runs))
    return attempts


def _attempt(
    rollout: Rollout, change: _Changes, evidence: EvidenceSet, reward: TrainingReward, *, executed: bool
) -> Attempt:
    if rollout.lost:
        return Attempt(rollout, None, None, change.compiles, is_empty=change.is_empty)
    run, integrity = evidence.records.get(TestRun), evidence.records.get(Integrity)
    with errors_of_attempt(described_attempt(rollout.policy, rollout.task_id, rollout.temperature, rollout.sample)):
        breakdown = reward.reward.evaluate(evidence) if executed else None
    tampering = integrity.kinds if isinstance(integrity, Integrity) else ()
    value, cause = reward.payment(
        breakdown,
        run,
        well_formed=rollout.well_formed,
        is_empty=change.is_empty,
        compiles=change.compiles,
        tampered=bool(tampering) if integrity is not None or not executed else None,
    )
    return Attempt(
        rollout,
        run,
        value,
        change.compiles,
        tampering,
        is_empty=change.is_empty,
        breakdown=breakdown,
        cause=cause,
    )


@dataclass(frozen=True)
class _Changes:
    """What is known of a patch before it runs."""

    is_empty: bool
    """Is the tree after it the same?"""
    compiles: bool
    """Does each patched Python file parse?"""


def _changes(task: Task, patch: Patch) -> _Changes:
    """The scorer handles a patch that does not apply (it reports it) or cannot be applied, for example because the disk
    is full (it retries)."""
    try:
        changed = changed_files(task.base, patch)
    except (PatchError, OSError):
        return _Changes(is_empty=patch.is_empty, compiles=True)
    texts = [text for path, text in changed.items() if path.endswith(".py") and text is not None]
    return _Changes(is_empty=not changed, compiles=all(parse_or_none(text) is not None for text in texts))


def gather(
    policy: Policy,
    tasks: Sequence[Task],
    sampling: Sampling,
    seed: int,
    scorer: Scorer,
    reward: TrainingReward,
    progress: Callable[[str, int, int], None] | None = None,
    *,
    stored: Path | None = None,
) -> tuple[list[Attempt], WallSeconds]:
    """Sample attempts of a policy at every task, and execute them; in the order of the tasks, whichever ended first.

    Args:
        progress: called with the stage (`sampling`, `executing`), and the numbers of done and of all attempts.
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

    attempts = judge(rollouts, {task.id: task for task in tasks}, scorer, reward, executed)
    return attempts, WallSeconds(sampled - began, time.monotonic() - sampled)
