"""The sizes of the main job: what `regrade demo` and `regrade demo --quick` do."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DemoSettings:
    """Every choice of the main job. Counts, not clocks, wherever possible, so that a run can be repeated."""

    max_prompt_tokens: int = 110
    """Only tasks with a prompt this short are used: on two CPU cores every token of a prompt is paid for."""
    repositories: int | None = None
    """Take each split's tasks from so many repositories, those with the most; None: from all. The first patch of each
    waits some seconds for its tests to be made ready."""
    demonstrations: int = 195
    tests_only: int = 280
    validation: int = 40
    held_out: int = 200
    scripted: int = 25
    """Held-out tasks on which the scripted controls are shown."""

    sft_steps: int = 150
    sft_learning_rate: float = 1.5e-4
    batch_size: int = 4
    check_every: int = 50
    """Steps of SFT between looks at the validation tasks, which end it at its plateau."""
    frozen: float = 0.5
    """Share of the layers, from the bottom, that no phase trains: half off a step, and validation is no worse."""

    exploration_temperature: float = 0.8
    """At which tests-only tasks are tried, by expert iteration and by GRPO."""
    rounds: int = 2
    """Rounds of expert iteration."""
    tasks_per_round: int = 140
    round_samples: int = 2
    """Attempts at a task of a round: an answer of another task teaches more than another attempt at the same one."""
    round_steps: int = 16
    round_learning_rate: float = 4e-5

    group_size: int = 6
    """Attempts at a task of GRPO."""
    grpo_steps: int = 36
    grpo_learning_rate: float = 4e-5
    prompts_per_step: int = 4
    steps_per_generation: int = 12

    upper_bound_steps: int = 30
    preferences: int = 48
    reward_model_steps: int = 2

    temperatures: tuple[float, ...] = (0.2, 0.6)
    """Tried on the validation tasks; each policy is judged at its own best. Greedy is shown beside."""
    validation_samples: int = 2
    held_out_samples: int = 4


FULL = DemoSettings()
QUICK = DemoSettings(
    max_prompt_tokens=90, repositories=2, demonstrations=24, tests_only=24, validation=8, held_out=12, scripted=6,
    sft_steps=3, check_every=3, rounds=1, tasks_per_round=8, round_samples=4, group_size=4,
    round_steps=2, grpo_steps=2, prompts_per_step=2, steps_per_generation=2, upper_bound_steps=2, preferences=16,
    reward_model_steps=2, temperatures=(0.2, 0.6), validation_samples=1, held_out_samples=2,
)  # fmt: skip
