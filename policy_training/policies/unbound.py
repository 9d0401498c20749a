"""An agent that is known before the scorer that runs its tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from regrade.datasets.errors import UserError
from regrade.datasets.rollouts import Policy, Rollout, Sampling
from regrade.datasets.tasks import Task


@dataclass(frozen=True)
class UnboundAgent:
    """An agent without a scorer; an evaluation gives it its own."""

    name: str
    make: Callable[[Any], Policy]
    """The agent with a scorer."""

    def with_scorer(self, scorer: Any) -> Policy:
        return self.make(scorer)

    def propose(self, tasks: Sequence[Task], samplings: Sequence[Sampling], seed: int) -> Iterator[Rollout]:
        """
        Raises:
            UserError: always.
        """
        del tasks, samplings, seed
        raise UserError(f"policy {self.name!r} is an agent that runs tests: pass load_policy(..., scorer=SCORER)")
