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
    language_model: LanguageModel,
    tasks: Sequence[Task],
    scorer: Scorer,
    agent: AgentFormat | None = None,
    *,
    samples: int = 1,
) -> Probe:
    """Attempts at each task, executed: the share of clean fixes, less that of breakage.

    Args:
        agent: of an agent. Default: None: the policy answers once.
        samples: attempts per task, sampled at temperature 1 with the same seed each time. Default: 1: a greedy one,
            which shows a change only when it is the likeliest answer.
    """
    sampling = Sampling(0.0, 1) if samples == 1 else Sampling(1.0, samples)
    policy = ModelPolicy(language_model, "probe")
    sampler = policy if agent is None else AgentPolicy(language_model, scorer, "probe", agent)

    def probe() -> ProbeResult:
        attempts, _ = gather(sampler, tasks, sampling, 0, scorer, DEFAULT_TRAINING_REWARD)
        scored = [attempt for attempt in attempts if attempt.reward is not None]
        if not scored:
            return ProbeResult({})
        values: dict[str, list[float]] = {}
        for attempt in scored:
            values.setdefault(attempt.rollout.task_id, []).append(float(attempt.verified) - float(attempt.broke))
        return ProbeResult(
            {name: fmean(each) for name, each in values.items()},
            {
                "probe/fix_and_clean": fmean(attempt.verified for attempt in scored),
                "probe/breakage": fmean(attempt.broke for attempt in scored),
            },
        )

    return probe
