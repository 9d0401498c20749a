"""What a policy is asked, and one recorded attempt of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Task


@dataclass(frozen=True)
class Sampling:
    """How often and how boldly each task is tried. Temperature 0 is greedy (then one sample is all there is)."""

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
    """Empty when the policy changed nothing or its answer could not be read."""
    prompt: str = ""
    completion: str = ""
    well_formed: bool = True
    """Could the answer be read at all?"""
    tokens: int = 0
    """Tokens generated."""
    seconds: float = 0.0
    """Share of the wall time of generation."""
    lost: str = ""
    """Why there is no answer, where that is not the policy's doing (its endpoint died): the attempt is then unscored,
    never a zero, and is made again when the evaluation is run again. Empty: there is one."""


class Policy(Protocol):
    """Whatever proposes patches. It is handed tasks without their reference (`Task.without_reference`)."""

    @property
    def name(self) -> str: ...

    def propose(self, tasks: Sequence[Task], samplings: Sequence[Sampling], seed: int) -> Iterator[Rollout]:
        """Yield `samples` rollouts per task and sampling, in any order."""
        ...


@dataclass(frozen=True)
class Trial:
    """One attempt that is still to be made."""

    task: Task
    temperature: float
    sample: int


Keep = Callable[[Trial, Rollout], None]
"""Is told of an answer as soon as it is there, by any thread."""


@runtime_checkable
class TrialPolicy(Policy, Protocol):
    """A policy whose attempts cost the same one by one, so that a stopped evaluation asks for the missing ones alone.

    (A local model is better asked for all attempts at a task together: its prompt is then read once.)
    """

    def attempt(self, trials: Sequence[Trial], seed: int, keep: Keep) -> Iterator[Rollout]:
        """Yield one rollout per trial, in any order; `keep` each as soon as it is there, before it is asked for."""
        ...


def trials(tasks: Sequence[Task], samplings: Sequence[Sampling]) -> list[Trial]:
    """Every attempt that the samplings ask for, task by task; without references."""
    numbered = [(sampling.temperature, sample) for sampling in samplings for sample in range(sampling.samples)]
    hidden = [task.without_reference() for task in tasks]
    return [Trial(task, temperature, sample) for task in hidden for temperature, sample in numbered]
