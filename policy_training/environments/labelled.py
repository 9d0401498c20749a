"""Labelled attempts of a training that runs: what its executions showed, for a reward model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from regrade.datasets.tasks import Task
from regrade.evaluators.storage.labelled_attempts import (
    LabelledAttempt,
    PatchOrigin,
    labels_of_execution,
    proposed,
)
from regrade.policy_training.environments.attempts import Attempt, scored_answers


def labelled(attempts: Sequence[Attempt], tasks: Mapping[str, Task]) -> list[LabelledAttempt]:
    """The attempts that have a reward, in order, with the files of their repositories.

    Args:
        tasks: task id -> task.
    """
    return [
        LabelledAttempt(
            **vars(proposed(tasks[attempt.rollout.task_id], attempt.rollout.patch)),
            labels=labels_of_execution(
                fixes=answer.fixes, breaks=answer.breaks, builds=answer.builds, clean=answer.verified
            ),
            reward=answer.reward,
            origin=PatchOrigin.SAMPLED,
            policy=attempt.rollout.policy,
        )
        for attempt in attempts
        for answer in scored_answers([attempt])
    ]
