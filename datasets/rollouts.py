"""Policies, their sampling settings, and rollouts: recorded attempts at tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from regrade.datasets.episodes import Episode
from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Task


@dataclass(frozen=True)
class Sampling:
    """Temperature and number of samples a task. Temperature 0 is greedy: further samples are equal to the first."""

    temperature: float
    samples: int


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """One attempt at one task."""

    task_id: str
    policy: str
    temperature: float
    sample: int
    seed: int
    patch: Patch
    """Empty if the policy changed nothing, or its answer could not be parsed."""
    prompt: str = ""
    completion: str = ""
    well_formed: bool = True
    """Could the answer be parsed?"""
    tokens: int = 0
    """Generated tokens."""
    seconds: float = 0.0
    """Share of the wall time of generation."""
    log_probability: float | None = None
    """Of the answer under the policy at its temperature (greedy: at 1), the mean over its tokens; None: unknown."""
    lost: str = ""
    """The reason, which the policy did not cause, why there is no answer, or none that counts (its endpoint died; the
    tests that it asked for could not be run). The attempt is then unscored, never 0, and the next run of the evaluation
    repeats it. Empty: there is an answer."""
    episode: Episode | None = None
    """The record of an agent's steps; None: the policy answered once."""


class Policy(Protocol):
    """A source of patches. It receives tasks without their reference (`Task.without_reference`)."""

    @property
    def name(self) -> str: ...

    def propose(self, tasks: Sequence[Task], samplings: Sequence[Sampling], seed: int) -> Iterator[Rollout]:
        """Yield `samples` rollouts per task and sampling, in any order."""
        ...


@runtime_checkable
class PolicyWithoutScorer(Policy, Protocol):
    """A policy that runs tests while it works, and gets the scorer of whoever lets it work."""

    def with_scorer(self, scorer: Any) -> Policy: ...


@dataclass(frozen=True)
class Trial:
    """One pending attempt."""

    task: Task
    temperature: float
    sample: int

    def rollout(self, policy: str, seed: int, patch: Patch | None, **more: Any) -> Rollout:
        """The record of the attempt, once it is made. `patch`: None: it changed nothing; `more`: further fields."""
        return Rollout(
            task_id=self.task.id,
            policy=policy,
            temperature=self.temperature,
            sample=self.sample,
            seed=seed,
            patch=patch or Patch(""),
            **more,
        )


Keep = Callable[[Trial, Rollout], None]
"""Records an answer as soon as it arrives; called from any thread."""


@runtime_checkable
class TrialPolicy(Policy, Protocol):
    """A policy whose attempts cost the same one by one, so that a resumed evaluation requests only the missing ones.

    (A local model is faster with all attempts at a task together: it then processes the prompt once.)
    """

    def attempt(self, trials: Sequence[Trial], seed: int, keep: Keep) -> Iterator[Rollout]:
        """Yield one rollout per trial, in any order; call `keep` for each as soon as it arrives, before yielding it."""
        ...


def trials(tasks: Sequence[Task], samplings: Sequence[Sampling]) -> list[Trial]:
    """All attempts of the samplings, task by task, without references."""
    samples = [(sampling.temperature, sample) for sampling in samplings for sample in range(sampling.samples)]
    hidden = [task.without_reference() for task in tasks]
    return [Trial(task, temperature, sample) for task in hidden for temperature, sample in samples]
