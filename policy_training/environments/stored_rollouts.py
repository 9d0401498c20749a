"""Attempts of a policy, stored as they are sampled: what a killed process sampled is not sampled again."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from regrade.datasets.rollouts import Policy, Rollout, Sampling, Trial, trials
from regrade.datasets.tasks import Task
from regrade.evaluators.evaluation.answers import Answers

PAUSE = 2.0
"""Seconds between two writes to the file: the most sampling that a kill loses, beside the tasks that were open."""


def stored_rollouts(
    policy: Policy, tasks: Sequence[Task], sampling: Sampling, seed: int, path: Path
) -> Iterator[Rollout]:
    """As `policy.propose`, with a file of the rollouts so far, which must be of the same policy.

    Tasks of which the file holds all attempts are not asked for again. The others are, with all of their attempts: a
    policy's draws depend on the task and on the attempt's number, so they are the same. Lost attempts are not stored.

    Raises:
        UserError: a line of the file is no attempt.
        OSError: the disk is full; the file holds what was written before.
    """
    answers = Answers(path)
    wanted: dict[str, dict[int, Trial]] = {}
    for trial in trials(tasks, [sampling]):
        wanted.setdefault(trial.task.id, {})[trial.sample] = trial
    known = {
        (name, sample): replace(answer, policy=policy.name)
        for name, of_task in wanted.items()
        for sample, trial in of_task.items()
        if (answer := answers.get(trial, seed)) is not None
    }
    yield from known.values()
    missing = [task for task in tasks if any((task.id, sample) not in known for sample in wanted[task.id])]
    if not missing:
        return
    unwritten: list[tuple[Trial, Rollout]] = []
    written = time.monotonic()
    try:
        for rollout in policy.propose([task.without_reference() for task in missing], [sampling], seed):
            if (rollout.task_id, rollout.sample) in known:
                continue
            unwritten.append((wanted[rollout.task_id][rollout.sample], rollout))
            if time.monotonic() - written >= PAUSE:
                unwritten, batch = [], unwritten
                answers.add_all(batch)
                written = time.monotonic()
            yield rollout
    finally:
        answers.add_all(unwritten)
