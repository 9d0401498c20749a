"""The recipe that `regrade train` follows: that of an algorithm or a file, with the options of the command."""

from __future__ import annotations

from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from regrade.cli.options import agent_limits
from regrade.cli.training_options import (
    PPO_LEARNING_RATE,
    SAMPLES,
    TEMPERATURE,
    Algorithm,
    Credit,
    Generation,
    Shaping,
    TrainingOptions,
)
from regrade.datasets.errors import UserError

if TYPE_CHECKING:
    from regrade.policy_training.environments.agent_policy import AgentFormat
    from regrade.policy_training.environments.agent_tools import EpisodeLimits
    from regrade.policy_training.environments.step_rewards import StepRewards
    from regrade.policy_training.recipe_files import TrainingRecipe
    from regrade.policy_training.trainers.settings import TrainerSettings


def recipe_of(options: TrainingOptions) -> TrainingRecipe:
    """The recipe of the options, with a limit.

    Raises:
        UserError: there is no such algorithm or recipe, or options do not go together.
    """
    if options.split == "held_out":
        raise UserError(
            "--split held_out: these tasks are for the verdict, and nothing is trained on them; choose another"
        )
    limits = agent_limits(options.turns, options.test_runs)
    base = base_recipe(options.what)
    if base.algorithm == "sft" and options.reward is not None:
        raise UserError("sft learns from reference patches and executes nothing: leave out --reward")
    if options.demonstrations is not None and (options.tasks is not None or options.limit is not None):
        raise UserError("--demonstrations has all that sft learns: leave out --tasks and --limit")
    recipe = replace(base, **_given(options))
    if recipe.needs_limit and recipe.steps is None and recipe.minutes is None:
        raise UserError("no limit for the training: give --steps, --minutes or both")
    step_rewards = _step_rewards(recipe.step_rewards, options)
    _check_agent_options(base.algorithm, options.generation or "shared", step_rewards)
    settings = overridden(
        recipe.settings,
        options.learning_rate,
        options.samples,
        options.temperature,
        options.generation,
        _credit(options.shaping),
    )
    agent = _agent(recipe, limits, options.action_tokens)
    return replace(recipe, step_rewards=step_rewards, settings=settings, agent=agent)


def _given(options: TrainingOptions) -> dict[str, Any]:
    """Field of a recipe -> its value, where an option gives the whole of it."""
    given: dict[str, Any] = {
        name: getattr(options, name)
        for name in ("model", "split", "limit", "steps", "minutes", "demonstrations", "reward", "save_every", "seed")
    }
    given |= {"tasks": None if options.tasks is None else str(options.tasks), "lora_rank": options.lora}
    given["gradient_checkpointing"] = options.gradient_checkpointing or None
    return {name: value for name, value in given.items() if value is not None}


def _credit(shaping: Shaping | None) -> Credit | None:
    return None if shaping is None else "trajectory" if shaping == "none" else "step"


def base_recipe(what: str) -> TrainingRecipe:
    """The recipe of that name, or that of an algorithm with the defaults of this command.

    Raises:
        UserError: there is no such algorithm, no such file, or something is wrong in it.
    """
    from regrade.policy_training.recipe_files import TrainingRecipe, read_recipe

    algorithms = get_args(Algorithm)
    if what in algorithms:
        return TrainingRecipe(settings=defaults_of(what))  # type: ignore[arg-type]
    if what.endswith(".toml") or Path(what).exists():
        return read_recipe(what)
    close = get_close_matches(what, algorithms, n=1)
    guess = f" (did you mean {close[0]}?)" if close else ""
    raise UserError(
        f"unknown algorithm {what!r}{guess}: choose one of {', '.join(algorithms)}, or give a recipe, a file that ends "
        "in .toml"
    )


def _step_rewards(base: StepRewards | None, options: TrainingOptions) -> StepRewards | None:
    """Those of a recipe with the options of the command; None: nothing is paid."""
    from regrade.policy_training.environments.step_rewards import StepRewards

    found = base or StepRewards()
    costs, shaping = found.costs, options.shaping
    costs = costs if options.turn_cost is None else replace(costs, turn=options.turn_cost)
    costs = costs if options.test_cost is None else replace(costs, test_run=options.test_cost)
    found = replace(found, costs=costs, shaping=found.shaping if shaping is None else shaping)
    pays = found.shaping != "none" or costs.turn or costs.test_run or costs.unreadable or costs.refused
    return found if pays else None


def _agent(recipe: TrainingRecipe, limits: EpisodeLimits | None, action_tokens: int | None) -> AgentFormat | None:
    """That of a recipe with the options of the command; None: neither has one."""
    from regrade.policy_training.environments.agent_policy import AgentFormat

    agent = recipe.agent
    if limits is not None and agent is None:
        agent = AgentFormat(limits)
    elif limits is not None and agent is not None:
        changed = replace(agent.limits, turns=limits.turns, test_runs=limits.test_runs)
        is_default = agent == AgentFormat(agent.limits, agent.max_action_tokens)  # tokens that follow from the turns
        agent = replace(agent, limits=changed, max_tokens=0 if is_default else agent.max_tokens)
    if action_tokens is not None:
        agent = agent or AgentFormat.of_checkpoint(Path(recipe.model))
        room = max(agent.max_tokens, 2 * action_tokens * agent.limits.turns)
        agent = AgentFormat(agent.limits, action_tokens, room)
    return agent


def _check_agent_options(algorithm: Algorithm, generation: Generation, step_rewards: StepRewards | None) -> None:
    """Raises UserError for options that the algorithm has not."""
    shaping = "none" if step_rewards is None else step_rewards.shaping
    if generation != "shared" and algorithm not in ("grpo", "rloo"):
        raise UserError(f"{algorithm} has no choice of --generation: leave it out")
    if step_rewards is not None and algorithm not in ("grpo", "rloo", "reinforce", "ppo"):
        raise UserError(f"{algorithm} pays no steps: leave out --turn-cost, --test-cost and --shaping")
    if shaping != "none" and algorithm in ("rloo", "reinforce"):
        raise UserError(
            f"{algorithm} compares whole episodes, to which shaping adds nothing: leave out --shaping, or use grpo"
        )
    if shaping != "none" and generation != "shared":
        raise UserError(f"TRL itself knows no rewards of steps: leave out --shaping or --generation {generation}")


def defaults_of(algorithm: Algorithm) -> TrainerSettings:
    """The settings of `regrade train ALGORITHM` without options."""
    from regrade.datasets.rollouts import Sampling
    from regrade.policy_training.trainers import settings as trainers

    match algorithm:
        case "sft":
            return trainers.SFTSettings()
        case "expert-iteration":
            return trainers.ExpertIterationSettings(sampling=Sampling(TEMPERATURE, SAMPLES))
        case "grpo" | "rloo" | "reinforce":
            return trainers.OnlineSettings(algorithm=algorithm, samples_per_prompt=SAMPLES, temperature=TEMPERATURE)
        case "ppo":
            return trainers.PPOSettings(learning_rate=PPO_LEARNING_RATE, temperature=TEMPERATURE)
        case "reward-model":
            return trainers.RewardModelSettings(sampling=Sampling(TEMPERATURE, SAMPLES))


def overridden(
    settings: TrainerSettings,
    learning_rate: float | None,
    samples: int | None,
    temperature: float | None,
    generation: Generation | None = None,
    credit: Credit | None = None,
) -> TrainerSettings:
    """The settings with the options of the command; None: not given.

    Raises:
        UserError: an option is out of its range, or the algorithm has no such setting.
    """
    from regrade.policy_training.trainers import settings as trainers

    if isinstance(settings, trainers.SFTSettings) and (samples is not None or temperature is not None):
        raise UserError("sft samples no attempts: leave out --samples and --temperature")
    if isinstance(settings, trainers.ExpertIterationSettings | trainers.RewardModelSettings):
        sampling = settings.sampling
        sampling = sampling if samples is None else replace(sampling, samples=samples)
        sampling = sampling if temperature is None else replace(sampling, temperature=temperature)
        settings = replace(settings, sampling=sampling)
        samples = temperature = None
    if isinstance(settings, trainers.ExpertIterationSettings):
        sft = settings.sft if learning_rate is None else replace(settings.sft, learning_rate=learning_rate)
        return replace(settings, sft=sft)
    given: dict[str, Any] = {
        "learning_rate": learning_rate, "samples_per_prompt": samples, "temperature": temperature
    }  # fmt: skip
    if isinstance(settings, trainers.OnlineSettings):
        given |= {"generation": generation, "credit": credit}
    changed: TrainerSettings = replace(settings, **{name: value for name, value in given.items() if value is not None})
    return changed
