"""Predictions from files, as a policy: no model is called, and every task has an attempt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from regrade.datasets.formats.predictions import Predictions
from regrade.datasets.rollouts import Rollout, Sampling, trials
from regrade.datasets.tasks import Task


@dataclass(frozen=True)
class Recorded:
    """The predictions of one model. A task without a prediction counts as an attempt without changes."""

    predictions: Predictions
    is_incomplete: bool = False
    """Could a missing prediction be an unreadable one? It is then unscored. Default: no."""

    @property
    def name(self) -> str:
        return self.predictions.model

    def propose(self, tasks: Sequence[Task], samplings: Sequence[Sampling], seed: int) -> Iterator[Rollout]:
        for trial in trials(tasks, samplings):
            patch = self.predictions.patches.get(trial.task.id)
            lost = self.predictions.doubtful.get(trial.task.id, "")
            if patch is None and not lost and self.is_incomplete:
                lost = "no prediction was found, and some could not be read"
            yield trial.rollout(self.name, seed, patch, lost=lost)
