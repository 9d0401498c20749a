"""Attempts of a policy, stored as they are sampled: what a killed process sampled is not sampled again."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path

from regrade.datasets.rollouts import Policy, Rollout, Sampling, Trial, trials
from regrade.datasets.tasks import Task
from regrade.evaluators.evaluation.answers import Answers

PAUSE = 2.0
"""Seconds between two writes to the file: the most sampling that a kill loses, beside the tasks that were open."""


def stored_rollouts(
    policy: Policy, tasks: Sequence[Task], samplings: Sequence[Sampling], seed: int, path: Path
) -> Generator[Rollout, None, None]:
    """As `policy.propose`, with a file of the rollouts so far, which must be of the same policy.

    Tasks of which the file holds all attempts are not asked for again. The others are, with all of their attempts: a
    policy's draws depend on the task and on the attempt's number, so they are the same. Lost attempts are not stored.

    Raises:
        UserError: a line of the file is no attempt.
        OSError: the disk is full; the file holds what was written before.
    """
    answers = Answers(path)
    due = {_key(trial.task.id, trial.temperature, trial.sample): trial for trial in trials(tasks, samplings)}
    found = {key: answer for key, trial in due.items() if (answer := answers.get(trial, seed)) is not None}
    yield from (replace(answer, policy=policy.name) for answer in found.values())
    open_tasks = {trial.task.id for key, trial in due.items() if key not in found}
    if not open_tasks:
        return
    unwritten: list[tuple[Trial, Rollout]] = []
    written = time.monotonic()
    proposed = policy.propose([task.without_reference() for task in tasks if task.id in open_tasks], samplings, seed)
    try:
        for rollout in proposed:
            key = _key(rollout.task_id, rollout.temperature, rollout.sample)
            if key in found:
                continue
            unwritten.append((due[key], rollout))
            if time.monotonic() - written >= PAUSE:
                unwritten, batch = [], unwritten
                answers.add_all(batch)
                written = time.monotonic()
            yield rollout
    finally:
        if isinstance(proposed, Generator):
            proposed.close()
        answers.add_all(unwritten)


def _key(task_id: str, temperature: float, sample: int) -> tuple[str, float, int]:
    return task_id, float(temperature), sample
