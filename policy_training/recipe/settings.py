"""The choices of the recipe: SFT to its plateau, for agents SFT on executed traces, expert iteration, GRPO, and how its
policies are judged."""

from __future__ import annotations

from dataclasses import dataclass, field

from regrade.datasets.rollouts import Sampling
from regrade.evaluators.evaluation.sweeps import Sweep
from regrade.policy_training.trainers.settings import ExpertIterationSettings, OnlineSettings, SFTSettings

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
class Recipe:
    """Counts, not times, wherever possible, so that a run can be repeated."""

    max_prompt_tokens: int = 110
    """Longest prompt of a task, in tokens: on two CPU cores the time of a step grows with them. Default: 110."""
    repositories: int | None = None
    """Repositories per split, those with the most tasks; None: all. The first patch of each waits some seconds for its
    test environment. Default: None."""
    validation: int = 40
    """Tasks that select temperatures and end SFT. Default: 40."""
    held_out: int = 200
    """Tasks of the verdict. Default: 200."""

    sft: SFTSettings = field(default_factory=lambda: SFTSettings(learning_rate=1.5e-4, batch_size=4, frozen=FROZEN))
    """Of the baseline."""
    sft_steps: int = 150
    """Optimizer steps of the baseline, at most. Default: 150."""
    check_every: int = 50
    """Optimizer steps between validations, which end SFT at its plateau. Default: 50."""

    turns: int = 8
    """Of an agent: actions of an episode, at most. Default: 8."""
    test_runs: int = 3
    """Of an agent: of the tests that it is shown, those of the FAIL_TO_PASS test's file. Default: 3."""
    episode_tokens: int = 400
    """Of an agent's episode after its prompt, actions and observations together. Default: 400."""
    agent_sft: SFTSettings = field(default_factory=lambda: SFTSettings(learning_rate=1e-4, batch_size=4, frozen=FROZEN))
    """Of the agent's baseline, which continues from the baseline on executed traces of the same demonstrations."""
    agent_sft_steps: int = 100
    """Optimizer steps of the agent's baseline, at most. Default: 100."""

    expert_iteration: ExpertIterationSettings = field(default_factory=_expert_iteration)
    """Its `sft` also trains the equal-time control and the upper bound."""
    rounds: int = 2
    """Rounds of expert iteration. Default: 2."""
    task_shares: int = 2
    """Disjoint shares of the tests-only tasks; each round takes the next one. Default: 2."""
    round_steps: int = 16
    """Optimizer steps per round. Default: 16."""

    grpo: OnlineSettings = field(default_factory=_grpo)
    grpo_steps: int = 36
    """Optimizer steps. Default: 36."""

    temperatures: tuple[float, ...] = (0.2, 0.6)
    """Of the validation: each policy is judged at its own best one. Default: 0.2 and 0.6."""
    validation_samples: int = 2
    """Attempts per validation task and temperature. Default: 2."""
    held_out_samples: int = 4
    """Attempts per held-out task at the best temperature. Default: 4."""

    @property
    def sweep(self) -> Sweep:
        """One attempt at each other temperature shows the trade-off between fixes and breakage."""
        return Sweep(self.temperatures, self.held_out_samples, 1, self.validation_samples, with_greedy=True)
