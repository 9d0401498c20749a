"""What a policy is asked, and one recorded attempt of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Task


@dataclass(frozen=True)
class Sampling:
    """How often and how boldly each task is tried. Temperature 0 is greedy (then one sample is all there is)."""

    temperature: float
    samples: int


@dataclass(frozen=True)
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


class Policy(Protocol):
    """Whatever proposes patches. It is handed tasks without their reference (`Task.without_reference`)."""

    @property
    def name(self) -> str: ...

    def propose(self, tasks: Sequence[Task], samplings: Sequence[Sampling], seed: int) -> Iterator[Rollout]:
        """Yield `samples` rollouts per task and sampling, in any order."""
        ...
