"""A gate on the assurance level of a verdict."""

from __future__ import annotations

from dataclasses import dataclass

from regrade.rewards.algebra import Judgement, Reward
from regrade.rewards.assurance_level import AssuranceLevel
from regrade.rewards.errors import RewardError
from regrade.rewards.evidence import EvidenceSet, Verification


@dataclass(frozen=True)
class Assured(Reward):
    """1 if the verdict reaches the level, else 0."""

    level: AssuranceLevel

    @property
    def name(self) -> str:
        return f"assured({self.level})"

    @property
    def needs(self) -> frozenset[type]:
        return frozenset({Verification})

    def judge(self, evidence: EvidenceSet) -> Judgement:
        verification: Verification = evidence.records[Verification]
        if verification.reaches(self.level):
            return Judgement(1.0, f"{verification.level}: {verification.why}")
        is_out_of_reach = verification.reachable in [level for level in AssuranceLevel if level < self.level]
        advice = ""
        if is_out_of_reach:
            advice = f"; no patch of this task can reach more than {verification.reachable}: require that at most"
        elif not verification.reachable and self.level is AssuranceLevel.HELD_OUT:
            advice = "; held-out compares with a reference patch, and the task has none: add one, or require less"
        return Judgement(0.0, f"{verification.level} only: {verification.why}{advice}")


def assured(level: AssuranceLevel | str) -> Assured:
    """1 if the verdict reaches `level`, one of `tripwired`, `out-of-process` and `held-out`, else 0.

    A gate: `tests.only_if(assured("out-of-process"))`. It also closes if the task does not allow that level, because an
    unverifiable verdict must not pay; `regrade doctor TASKS` reports which tasks allow it.

    Raises:
        RewardError: unknown level.
    """
    if level not in list(AssuranceLevel):
        raise RewardError(f"assured({level!r}): unknown level; choose one of {', '.join(AssuranceLevel)}")
    return Assured(AssuranceLevel(level))
