"""The sizes of the main job: what `regrade demo` and `regrade demo --quick` do."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from regrade.datasets.rollouts import Sampling
from regrade.policy_training.trainers.settings import (
    ExpertIterationSettings,
    OnlineSettings,
    RewardModelSettings,
    SFTSettings,
)

FROZEN = 0.5
"""Share of the layers that SFT and reinforcement learning leave alone: a step takes half the time, and validation is no
worse."""
EXPLORATION_TEMPERATURE = 0.8


def _expert_iteration() -> ExpertIterationSettings:
    """2 attempts per task: an answer to another task teaches more than another attempt at the same one."""
    return ExpertIterationSettings(
        sampling=Sampling(EXPLORATION_TEMPERATURE, 2), sft=SFTSettings(learning_rate=4e-5, batch_size=4, frozen=FROZEN)
    )


def _grpo() -> OnlineSettings:
    return OnlineSettings(
        algorithm="grpo",
        learning_rate=4e-5,
        prompts_per_step=4,
        samples_per_prompt=6,
        steps_per_generation=12,
        temperature=EXPLORATION_TEMPERATURE,
        frozen=FROZEN,
    )


@dataclass(frozen=True, kw_only=True)
class DemoSettings:
    """All choices of the main job. Counts, not times, wherever possible, so that a run can be repeated."""

    max_prompt_tokens: int = 110
    """Longest prompt of a task, in tokens: on two CPU cores the time of a step grows with them. Default: 110."""
    repositories: int | None = None
    """Repositories per split, those with the most tasks; None: all. The first patch of each waits some seconds for its
    test environment. Default: None."""
    demonstrations: int = 195
    """Tasks whose reference SFT learns from. Default: 195."""
    tests_only: int = 280
    """Tasks for reinforcement learning, which never reads their references. Default: 280."""
    validation: int = 40
    """Tasks that select temperatures and end SFT. Default: 40."""
    held_out: int = 200
    """Tasks of the verdict. Default: 200."""
    scripted: int = 25
    """Held-out tasks for the scripted controls. Default: 25."""

    sft: SFTSettings = field(default_factory=lambda: SFTSettings(learning_rate=1.5e-4, batch_size=4, frozen=FROZEN))
    """Of the baseline."""
    sft_steps: int = 150
    """Optimizer steps of the baseline, at most. Default: 150."""
    check_every: int = 50
    """Optimizer steps between validations, which end SFT at its plateau. Default: 50."""

    expert_iteration: ExpertIterationSettings = field(default_factory=_expert_iteration)
    """Its `sft` also trains the equal-time control and the upper bound."""
    rounds: int = 2
    """Rounds of expert iteration. Default: 2."""
    tasks_per_round: int = 140
    """Default: 140."""
    round_steps: int = 16
    """Optimizer steps per round. Default: 16."""

    grpo: OnlineSettings = field(default_factory=_grpo)
    grpo_steps: int = 36
    """Optimizer steps. Default: 36."""

    upper_bound_steps: int = 30
    """Optimizer steps of the SFT that reads all references. Default: 30."""
    reward_model: RewardModelSettings = field(default_factory=lambda: RewardModelSettings(preferences=48))
    reward_model_steps: int = 2
    """Optimizer steps. Default: 2."""

    temperatures: tuple[float, ...] = (0.2, 0.6)
    """Of the validation: each policy is judged at its own best one, and greedily. Default: 0.2 and 0.6."""
    validation_samples: int = 2
    """Attempts per validation task and temperature. Default: 2."""
    held_out_samples: int = 4
    """Attempts per held-out task at the best temperature. Default: 4."""


FULL = DemoSettings()
QUICK = DemoSettings(
    max_prompt_tokens=90, repositories=2, demonstrations=24, tests_only=24, validation=8, held_out=12, scripted=6,
    sft_steps=3, check_every=3,
    expert_iteration=replace(FULL.expert_iteration, sampling=Sampling(EXPLORATION_TEMPERATURE, 4)),
    rounds=1, tasks_per_round=8, round_steps=2,
    grpo=replace(FULL.grpo, prompts_per_step=2, samples_per_prompt=4, steps_per_generation=2), grpo_steps=2,
    upper_bound_steps=2, reward_model=replace(FULL.reward_model, preferences=16),
    validation_samples=1, held_out_samples=2,
)  # fmt: skip
