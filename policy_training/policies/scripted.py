"""Scripted controls: a policy that changes nothing, and one that applies the reference patch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from regrade.datasets.errors import UserError
from regrade.datasets.patches import Patch
from regrade.datasets.rollouts import Rollout, Sampling, trials
from regrade.datasets.tasks import Task

NO_OP = ("no-op", "noop")
REFERENCE = "reference"


@dataclass(frozen=True)
class NoOp:
    """Control: changes nothing. It breaks nothing and fixes nothing, so no metric may rank it first."""

    name: str = "no-op"

    def propose(self, tasks: Sequence[Task], samplings: Sequence[Sampling], seed: int) -> Iterator[Rollout]:
        for trial in trials(tasks, samplings):
            yield trial.rollout(self.name, seed, None)


@dataclass(frozen=True)
class Reference:
    """Control: applies the reference patch, from tasks with their reference, which no real policy gets."""

    patches: dict[str, Patch]
    name: str = "reference"

    @classmethod
    def of(cls, tasks: Sequence[Task]) -> Reference:
        return cls({task.id: task.reference for task in tasks if task.reference is not None})

    def propose(self, tasks: Sequence[Task], samplings: Sequence[Sampling], seed: int) -> Iterator[Rollout]:
        for trial in trials(tasks, samplings):
            name = trial.task.id
            if name not in self.patches:
                raise UserError(f"task {name!r} has no reference patch: leave it out, or evaluate another policy")
            yield trial.rollout(self.name, seed, self.patches[name])
