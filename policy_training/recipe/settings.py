"""The choices of the recipe: SFT to its plateau, for agents SFT on executed traces, expert iteration, GRPO, and how its
policies are judged. What a phase trains with stands in `policy_training/recipes/`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from regrade.evaluators.evaluation.sweeps import Sweep
from regrade.policy_training.environments.agent_policy import AgentFormat
from regrade.policy_training.environments.step_rewards import StepRewards
from regrade.policy_training.recipe_files import TrainingRecipe, read_recipe
from regrade.policy_training.trainers.settings import ExpertIterationSettings, OnlineSettings, SFTSettings

T = TypeVar("T")

PHASES: Mapping[str, TrainingRecipe] = {
    name: read_recipe(f"demo-{name}.toml") for name in ("sft", "agent-sft", "expert-iteration", "grpo")
}
"""Phase -> its recipe, which comes with the package and runs alone too: `regrade train demo-grpo.toml`."""


def _settings(phase: str, kind: type[T]) -> T:
    settings = PHASES[phase].settings
    assert isinstance(settings, kind)
    return settings


def _steps(phase: str) -> int:
    steps = PHASES[phase].steps
    assert steps is not None
    return steps


AGENT = PHASES["grpo"].agent or AgentFormat()
"""How the recipes' agents work."""


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

    sft: SFTSettings = field(default_factory=lambda: _settings("sft", SFTSettings))
    """Of the baseline."""
    sft_steps: int = _steps("sft")
    """Optimizer steps of the baseline, at most. Default: 150."""
    check_every: int = 50
    """Optimizer steps between validations, which end SFT at its plateau. Default: 50."""

    turns: int = AGENT.limits.turns
    """Of an agent: actions of an episode, at most. Default: 6."""
    test_runs: int = AGENT.limits.test_runs
    """Of an agent: of the tests that it is shown, those of the FAIL_TO_PASS test's file. Default: 2."""
    episode_tokens: int = AGENT.max_tokens
    """Of an agent's episode after its prompt, actions and observations together. Default: 400."""
    agent_sft: SFTSettings = field(default_factory=lambda: _settings("agent-sft", SFTSettings))
    """Of the agent's baseline, which continues from the baseline on executed traces of the same demonstrations."""
    agent_sft_steps: int = _steps("agent-sft")
    """Optimizer steps of the agent's baseline, at most. Default: 40."""

    expert_iteration: ExpertIterationSettings = field(
        default_factory=lambda: _settings("expert-iteration", ExpertIterationSettings)
    )
    """Its `sft` also trains the equal-time control and the upper bound."""
    rounds: int = 2
    """Rounds of expert iteration. Default: 2."""
    task_shares: int = 1
    """Disjoint shares of the tests-only tasks; each round takes the next one. Default: 1: each takes all."""
    round_steps: int = _steps("expert-iteration")
    """Optimizer steps per round. Default: 60."""

    grpo: OnlineSettings = field(default_factory=lambda: _settings("grpo", OnlineSettings))
    grpo_step_rewards: StepRewards | None = PHASES["grpo"].step_rewards
    """Of an agent."""
    grpo_steps: int = _steps("grpo")
    """Optimizer steps. Default: 24."""

    temperatures: tuple[float, ...] = (0.2, 0.6)
    """Of the validation: each policy is judged at its own best one. Default: 0.2 and 0.6."""
    validation_samples: int = 2
    """Attempts per validation task and temperature. Default: 2."""
    held_out_samples: int = 4
    """Attempts per held-out task at the best temperature. Default: 4."""

    @property
    def sweep(self) -> Sweep:
        return Sweep(self.temperatures, self.held_out_samples, validation_samples=self.validation_samples)
