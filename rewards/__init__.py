"""Evidence, rewards and their algebra. Pure: nothing here runs code, a subprocess or a model."""

from regrade.rewards.algebra import Reward, minimum, reward
from regrade.rewards.breakdown import Breakdown, Part, Role
from regrade.rewards.builtin import builtin_rewards, default
from regrade.rewards.components import builds, complexity, impact, resolved, small_diff, style, tests, untampered
from regrade.rewards.errors import RewardError
from regrade.rewards.evidence import (
    BuildRun,
    ComplexityDelta,
    Diff,
    End,
    EvidenceSet,
    Finding,
    FunctionComplexity,
    Impact,
    ImpactedModule,
    Integrity,
    LintDelta,
    Tampering,
    TestOutcome,
    TestRun,
    TestStatus,
)
from regrade.rewards.loading import load_reward
from regrade.rewards.score import Score

__all__ = [
    "Breakdown",
    "BuildRun",
    "ComplexityDelta",
    "Diff",
    "End",
    "EvidenceSet",
    "Finding",
    "FunctionComplexity",
    "Impact",
    "ImpactedModule",
    "Integrity",
    "LintDelta",
    "Part",
    "Reward",
    "RewardError",
    "Role",
    "Score",
    "Tampering",
    "TestOutcome",
    "TestRun",
    "TestStatus",
    "builds",
    "builtin_rewards",
    "complexity",
    "default",
    "impact",
    "load_reward",
    "minimum",
    "resolved",
    "reward",
    "small_diff",
    "style",
    "tests",
    "untampered",
]
