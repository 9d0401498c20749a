"""Predictions and trajectories from files, as policies: no model is called."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from regrade.datasets.formats.predictions import Predictions
from regrade.datasets.rollouts import Rollout, Sampling, trials
from regrade.datasets.tasks import Task
from regrade.datasets.trajectories.records import ForeignTrajectory


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


@dataclass(frozen=True)
class RecordedTrajectories:
    """Trajectories of one agent whose patch at the end is known. A task has as many attempts as trajectories."""

    name: str
    attempts: Mapping[str, Sequence[ForeignTrajectory]]
    """Task id -> its trajectories."""

    @property
    def most(self) -> int:
        """The largest number of attempts at one task."""
        return max(map(len, self.attempts.values()), default=0)

    def propose(self, tasks: Sequence[Task], samplings: Sequence[Sampling], seed: int) -> Iterator[Rollout]:
        for trial in trials(tasks, samplings):
            found = self.attempts.get(trial.task.id, ())
            if trial.sample < len(found):
                episode = found[trial.sample].episode
                yield trial.rollout(self.name, seed, episode.patch, episode=episode, tokens=episode.tokens)
