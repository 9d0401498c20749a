"""A gate for how sure a verdict is."""

from __future__ import annotations

from dataclasses import dataclass

from regrade.rewards.algebra import Judgement, Reward
from regrade.rewards.assurance_level import AssuranceLevel
from regrade.rewards.errors import RewardError
from regrade.rewards.evidence import EvidenceSet, Verification


@dataclass(frozen=True)
class Assured(Reward):
    """1 if the verdict has the level or a stronger one, else 0."""

    level: AssuranceLevel

    @property
    def name(self) -> str:
        return f"assured({self.level})"

    @property
    def needs(self) -> frozenset[type]:
        return frozenset({Verification})

    def judge(self, evidence: EvidenceSet) -> Judgement:
        found: Verification = evidence.records[Verification]
        if found.reaches(self.level):
            return Judgement(1.0, f"{found.level}: {found.why}")
        out_of_reach = found.reachable in [level for level in AssuranceLevel if level < self.level]
        beyond = f"; no patch of this task gets beyond {found.reachable}" if out_of_reach else ""
        return Judgement(0.0, f"{found.level} only: {found.why}{beyond}")


def assured(level: AssuranceLevel | str) -> Assured:
    """1 if the verdict is as sure as `level` says, one of `tripwired`, `out-of-process` and `held-out`, else 0.

    A gate: `tests.only_if(assured("out-of-process"))`. It also closes where the task itself does not allow that level,
    since what can't be verified is not to be paid for: `regrade doctor TASKS` tells which tasks allow it.

    Raises:
        RewardError: there is no such level.
    """
    if level not in list(AssuranceLevel):
        raise RewardError(f"assured({level!r}): the levels are {', '.join(AssuranceLevel)}")
    return Assured(AssuranceLevel(level))
