"""Scripted policies: controls that change nothing or apply the reference patch, and further patches by rule.

The further patches are data for reward models: wrong ones, nearly right ones, rewrites and cheats (see
`regrade.datasets.mutation.further_patches`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from regrade.datasets.errors import UserError
from regrade.datasets.mutation.further_patches import cheating, mutants_of_bug, near_misses, rewritten
from regrade.datasets.patches import Patch
from regrade.datasets.rollouts import Rollout, Sampling, trials
from regrade.datasets.tasks import Task

NO_OP = ("no-op", "noop")
REFERENCE = "reference"
FURTHER: Mapping[str, Callable[[Task, int], Iterator[Patch]]] = {
    "mutants": mutants_of_bug,
    "near-misses": near_misses,
    "rewrites": rewritten,
    "cheats": cheating,
}
"""Name of a scripted policy -> its patches for a task with its reference, by a seed."""


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


@dataclass(frozen=True)
class FurtherPatches:
    """Proposes the first patches of a rule, as many a task as it has samples; fewer if the rule finds fewer."""

    tasks: Mapping[str, Task]
    """Task id -> the task with its reference, from which the patches are made."""
    name: str
    """A key of `FURTHER`."""

    @classmethod
    def of(cls, tasks: Sequence[Task], name: str) -> FurtherPatches:
        return cls({task.id: task for task in tasks}, name)

    def propose(self, tasks: Sequence[Task], samplings: Sequence[Sampling], seed: int) -> Iterator[Rollout]:
        for task in tasks:
            due = trials([task], samplings)
            patches = islice(FURTHER[self.name](self.tasks[task.id], seed), len(due))
            for trial, patch in zip(due, patches, strict=False):
                yield trial.rollout(self.name, seed, patch)
