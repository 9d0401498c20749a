"""A gate on the assurance level of a verdict."""

from __future__ import annotations

from dataclasses import dataclass

from regrade.rewards.algebra import Judgement, Reward
from regrade.rewards.assurance_level import AssuranceLevel
from regrade.rewards.errors import RewardError
from regrade.rewards.evidence import DefaultVerification, EvidenceSet, TestRun, Verification


@dataclass(frozen=True)
class Assured(Reward):
    """1 if the verdict reaches the level, else 0."""

    level: AssuranceLevel

    @property
    def name(self) -> str:
        return f"assured({self.level})"

    @property
    def needs(self) -> frozenset[type]:
        # The lowest levels depend on the sandbox and on the way to read results, which every verdict states.
        return frozenset({Verification} if self.level > AssuranceLevel.IN_PROCESS else {TestRun})

    def judge(self, evidence: EvidenceSet) -> Judgement:
        if self.level <= AssuranceLevel.IN_PROCESS:
            is_reached = evidence.assurance >= self.level
            return Judgement(float(is_reached), evidence.assurance if is_reached else f"{evidence.assurance} only")
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


@dataclass(frozen=True)
class AssuredByDefault(Reward):
    """1 unless the verification that costs less than the tests contradicts the verdict, else 0."""

    @property
    def name(self) -> str:
        return "assured"

    @property
    def needs(self) -> frozenset[type]:
        return frozenset({TestRun, DefaultVerification})

    def judge(self, evidence: EvidenceSet) -> Judgement:
        verification: DefaultVerification = evidence.records[DefaultVerification]
        run: TestRun = evidence.records[TestRun]
        if run.fixed and verification.shortfall:
            return Judgement(0.0, verification.shortfall)
        return Judgement(1.0, f"{verification.level}: {verification.why}" if run.fixed else verification.why)


BY_DEFAULT = "by default"
"""The level of a run whose tasks have the strongest that costs less than their tests."""


def not_excluded(level: str) -> str:
    """What verdicts of a run at a level, or `BY_DEFAULT`, do not exclude, in one line; empty: see docs/security.md."""
    if level == BY_DEFAULT:
        return AssuranceLevel.IN_PROCESS.not_excluded
    return AssuranceLevel(level).not_excluded if level in list(AssuranceLevel) else ""


def at_level(reward: Reward, level: str | None, *, whole_suite: bool = True) -> Reward:
    """The reward behind a gate on the assurance level of its verdicts: the one place that decides about the default.

    Args:
        level: an `AssuranceLevel`; None or `BY_DEFAULT`: the strongest that costs less than the tests, task by task
            (see `regrade.evaluators.verification.default_level`).
        whole_suite: False: only the tests that a patch can reach run. Every verification costs more than these.

    Raises:
        RewardError: unknown level.
    """
    if level is not None and level != BY_DEFAULT:
        gate = assured(level)
        return reward.only_if(gate) if gate.level > AssuranceLevel.IN_PROCESS else reward
    is_judged = TestRun in reward.needs and Verification not in reward.needs
    return reward.only_if(AssuredByDefault()) if is_judged and whole_suite else reward


def assured(level: AssuranceLevel | str) -> Assured:
    """1 if the verdict reaches `level`, one of `tripwired`, `out-of-process` and `held-out`, else 0.

    `in-process` verifies nothing; it refuses outcomes that are read from what a patch prints (`unsealed`).

    A gate: `tests.only_if(assured("out-of-process"))`. It also closes if the task does not allow that level, because an
    unverifiable verdict must not pay; `regrade doctor TASKS` reports which tasks allow it.

    Raises:
        RewardError: unknown level.
    """
    if level not in list(AssuranceLevel):
        raise RewardError(f"assured({level!r}): unknown level; choose one of {', '.join(AssuranceLevel)}")
    return Assured(AssuranceLevel(level))
