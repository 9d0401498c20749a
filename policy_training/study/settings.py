"""The sizes of a study: what `regrade study` and `regrade study --quick` do."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from regrade.policy_training.recipe.settings import Recipe


@dataclass(frozen=True, kw_only=True)
class StudySettings(Recipe):
    """All choices of a study: the two axes of its grid, and the recipe of each cell."""

    source: Literal["builtin", "cross-module"] = "builtin"
    """The ready-made tasks: short ones, or those of which a wrong fix breaks tests of other modules, which the shown
    tests miss. Default: `builtin`."""
    agents: tuple[bool, ...] = (False, True)
    """Policies that answer once, and agents of several turns. Default: both."""
    demonstrations: tuple[int, ...] = (16, 32, 64, 128, 195)
    """Tasks whose references SFT learns from; the largest is all tasks with a short prompt. Default: 16, 32, 64, 128
    and 195."""
    tests_only: tuple[int, ...] = (70, 140, 280, 546)
    """Tasks for reinforcement learning. At each number of demonstrations the largest one; the others at `few` alone.
    Default: 70, 140, 280 and 546."""
    few: int = 32
    """Demonstrations of the curve over tests-only tasks. Default: 32."""
    seeds: tuple[int, ...] = (0, 1)
    """Each draws its own tasks to learn from, and all else. Default: 0 and 1."""


FULL = StudySettings(held_out=250, check_every=20, grpo_steps=36)
CROSS_MODULE = replace(
    FULL, source="cross-module", max_prompt_tokens=250, demonstrations=(8, 16, 32, 48), tests_only=(40, 80, 160),
    few=16, validation=16, held_out=150,
)  # fmt: skip
QUICK = StudySettings(
    agents=(False,), demonstrations=(4, 8), tests_only=(12, 24), few=4, seeds=(0,),
    max_prompt_tokens=90, repositories=2, validation=8, held_out=12, sft_steps=3, check_every=3,
    turns=4, test_runs=1, episode_tokens=200, agent_sft_steps=3,
    expert_iteration=replace(FULL.expert_iteration, sampling=replace(FULL.expert_iteration.sampling, samples=2)),
    rounds=1, task_shares=3, round_steps=2,
    grpo=replace(FULL.grpo, prompts_per_step=2, samples_per_prompt=4, steps_per_generation=2), grpo_steps=2,
    validation_samples=1, held_out_samples=2,
)  # fmt: skip
"""Every part for real; its figures are noise."""
