"""The sizes of the main job: what `regrade demo` and `regrade demo --quick` do."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from regrade.policy_training.recipe.settings import Recipe
from regrade.policy_training.trainers.settings import RewardModelSettings


@dataclass(frozen=True, kw_only=True)
class DemoSettings(Recipe):
    """All choices of the main job."""

    demonstrations: int = 32
    """Tasks whose reference SFT learns from: few, as in practice. Default: 32."""
    tests_only: int = 280
    """Tasks for reinforcement learning, which never reads their references. Default: 280."""
    scripted: int = 25
    """Held-out tasks for the scripted controls. Default: 25."""
    upper_bound_steps: int = 30
    """Optimizer steps of the SFT that reads all references. Default: 30."""
    reward_model: RewardModelSettings = field(default_factory=lambda: RewardModelSettings(attempts=600))


FULL = DemoSettings(check_every=20, held_out=350, held_out_samples=2)
QUICK = DemoSettings(
    max_prompt_tokens=90, repositories=2, demonstrations=8, tests_only=16, validation=6, held_out=8, scripted=4,
    sft_steps=3, agent_sft_steps=3, check_every=3, turns=3, test_runs=1, episode_tokens=120,
    rounds=1, task_shares=2, round_steps=2,
    grpo=replace(FULL.grpo, prompts_per_step=2, samples_per_prompt=4, steps_per_generation=2), grpo_steps=2,
    upper_bound_steps=2, reward_model=replace(FULL.reward_model, attempts=64),
    validation_samples=1, held_out_samples=2,
)  # fmt: skip
