"""The held-out probe of a training: clean fixes and breakage on tasks that it does not learn from, by execution."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev

from regrade.datasets.rollouts import Sampling
from regrade.datasets.tasks import Task
from regrade.evaluators.scoring.scorer import Scorer
from regrade.policy_training.environments.agent_policy import AgentFormat, AgentPolicy
from regrade.policy_training.environments.attempts import gather
from regrade.policy_training.environments.training_reward import DEFAULT_TRAINING_REWARD
from regrade.policy_training.policies.local_model import ModelPolicy
from regrade.policy_training.policies.models import LanguageModel


@dataclass(frozen=True)
class ProbeResult:
    """What a probe measured."""

    values: Mapping[str, float]
    """Per task, greater is better; an unscored task is missing."""
    numbers: Mapping[str, float] = field(default_factory=dict)
    """For the training log."""

    @property
    def score(self) -> float:
        """The mean; NaN without a scored task."""
        return fmean(self.values.values()) if self.values else math.nan

    def drop_from(self, better: ProbeResult) -> tuple[float, float]:
        """By how much the score is lower, over the tasks of both, and the standard error of this paired difference."""
        drops = [better.values[name] - value for name, value in self.values.items() if name in better.values]
        if not drops:
            return 0.0, 0.0
        return fmean(drops), stdev(drops) / math.sqrt(len(drops)) if len(drops) > 1 else 0.0


Probe = Callable[[], ProbeResult]
"""Measures the present weights."""


def executed_probe(
    language_model: LanguageModel, tasks: Sequence[Task], scorer: Scorer, agent: AgentFormat | None = None
) -> Probe:
    """One greedy attempt per task, executed: 1 for a clean fix, less 1 for breakage.

    Args:
        agent: of an agent. Default: None: the policy answers once.
    """
    policy = ModelPolicy(language_model, "probe")
    sampler = policy if agent is None else AgentPolicy(language_model, scorer, "probe", agent)

    def probe() -> ProbeResult:
        attempts, _ = gather(sampler, tasks, Sampling(0.0, 1), 0, scorer, DEFAULT_TRAINING_REWARD)
        scored = [attempt for attempt in attempts if attempt.reward is not None]
        if not scored:
            return ProbeResult({})
        return ProbeResult(
            {attempt.rollout.task_id: float(attempt.verified) - float(attempt.broke) for attempt in scored},
            {
                "probe/fix_and_clean": fmean(attempt.verified for attempt in scored),
                "probe/breakage": fmean(attempt.broke for attempt in scored),
            },
        )

    return probe
