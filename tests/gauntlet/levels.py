"""The assurance levels in the gauntlet. A new level is one more entry of `LEVELS`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from regrade.evaluators.sandboxes import Sandbox
from regrade.evaluators.scoring.scorer import Scorer
from regrade.rewards import Reward, assured, builds, tests, untampered
from regrade.rewards.evidence import Verification

REWARD: Reward = tests.only_if(builds, untampered)


@dataclass(frozen=True)
class Level:
    """An assurance level, with a scorer and a reward that requires it."""

    name: str
    make: Callable[[Sandbox, Path, int], Scorer]
    """(sandbox, cache, workers)"""
    reward: Reward = REWARD

    @property
    def is_required(self) -> bool:
        """Does the reward require it? Otherwise every score has it."""
        return Verification in self.reward.needs


def _scorer(sandbox: Sandbox, cache: Path, workers: int) -> Scorer:
    return Scorer(sandbox=sandbox, cache=cache, workers=workers)


LEVELS = (
    Level("in-process", _scorer),
    *(Level(name, _scorer, REWARD.only_if(assured(name))) for name in ("tripwired", "out-of-process", "held-out")),
)
