"""Predictions that were made elsewhere, as a policy: nothing is asked, and every task has an attempt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from regrade.datasets.formats.predictions import Predictions
from regrade.datasets.patches import Patch
from regrade.datasets.rollouts import Rollout, Sampling
from regrade.datasets.tasks import Task


@dataclass(frozen=True)
class Recorded:
    """What a model proposed. A task that it proposed nothing for counts as one that it left as it was."""

    predictions: Predictions
    is_incomplete: bool = False
    """Is a missing prediction perhaps one that could not be read? It is then unscored."""

    @property
    def name(self) -> str:
        return self.predictions.model

    def propose(self, tasks: Sequence[Task], samplings: Sequence[Sampling], seed: int) -> Iterator[Rollout]:
        for task in tasks:
            patch = self.predictions.patches.get(task.id)
            lost = self.predictions.doubtful.get(task.id, "")
            if patch is None and not lost and self.is_incomplete:
                lost = "no prediction was found, and some could not be read"
            for sampling in samplings:
                for sample in range(sampling.samples):
                    yield Rollout(task.id, self.name, sampling.temperature, sample, seed, patch or Patch(""), lost=lost)
