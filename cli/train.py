"""`regrade train`: train a model with one algorithm."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import typer

from regrade.cli.console import progress, stderr
from regrade.cli.evaluate import TaskSource
from regrade.cli.extras import check_training_libraries, training_libraries
from regrade.cli.jobs import model_probes
from regrade.cli.loading import is_ready_made, limited, load, measured
from regrade.cli.options import (
    LARGEST_SEED,
    MOST,
    Limit,
    RewardModelFolder,
    SandboxName,
    TestRuns,
    Turns,
    Workers,
    agent_limits,
    creatable,
)
from regrade.datasets.errors import UserError

if TYPE_CHECKING:
    from regrade.datasets.tasks import Task
    from regrade.policy_training.environments.agent_policy import AgentFormat
    from regrade.policy_training.environments.agent_tools import EpisodeLimits
    from regrade.policy_training.environments.step_rewards import StepRewards
    from regrade.policy_training.recipe_files import TrainingRecipe
    from regrade.policy_training.trainers.settings import TrainerSettings

Algorithm = Literal["sft", "expert-iteration", "grpo", "rloo", "reinforce", "ppo", "reward-model"]
Credit = Literal["trajectory", "step"]
Shaping = Literal["none", "seen", "measured"]
Generation = Literal["shared", "trl", "vllm"]
Tracker = Literal["tensorboard", "trackio", "wandb"]
LARGEST_RATE, LARGEST_COST, MOST_MINUTES = 1000.0, 1000.0, 1e7
PROBE_TASKS = 32
"""Ready-made tasks of the held-out probe."""
SAMPLES, TEMPERATURE, PPO_LEARNING_RATE = 8, 1.0, 1e-5
"""Defaults of this command with an algorithm. All other defaults are those of the settings."""
RATES = "1e-4 for sft, 5e-5 for expert-iteration and reward-model, 2e-5 for grpo, rloo and reinforce, 1e-5 for ppo"


@contextmanager
def _together() -> Iterator[None]:
    """Of several processes that `accelerate launch` started, one prints what all refuse."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    with training_libraries("`regrade train`"):
        from regrade.policy_training.trainers.processes import together
    with together():
        yield


@_together()
def train(
    what: Annotated[
        str,
        typer.Argument(
            metavar="ALGORITHM|RECIPE.toml",
            help=f"Training algorithm, with the defaults below: {', '.join(get_args(Algorithm))}. Or a recipe file, or "
            "the name of a shipped one, such as demo-grpo.toml: an option replaces what the recipe says.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(file_okay=False, callback=creatable, help="Folder of the run: log, manifest and checkpoints."),
    ],
    model: Annotated[
        str | None,
        typer.Option(
            help="smollm2-135m, the folder of a checkpoint, or a model on the Hugging Face hub. Default: smollm2-135m."
        ),
    ] = None,
    tasks: TaskSource = None,
    probe: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="File of held-out tasks, of which nothing is learned: the stability guard probes fixes and breakage "
            "on them, and the checkpoint has the best weights by this probe. Default: none for your own tasks, "
            f"{PROBE_TASKS} of the split validation for ready-made ones.",
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="Split of the ready-made tasks: demonstrations (default for sft), tests_only (default for all other "
            "algorithms) or validation."
        ),
    ] = None,
    limit: Limit = None,
    steps: Annotated[int | None, typer.Option(min=1, max=MOST, help="Maximum number of optimizer steps.")] = None,
    minutes: Annotated[
        float | None, typer.Option(min=0.01, max=MOST_MINUTES, help="Maximum wall time, in minutes.")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(min=0.0, max=LARGEST_RATE, help=f"Peak learning rate. Default: {RATES}.")
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(min=1, max=MOST, help=f"Attempts per task, not for sft. Default: {SAMPLES}, for ppo 1."),
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(min=0.01, max=100.0, help=f"Sampling temperature, not for sft. Default: {TEMPERATURE:g}."),
    ] = None,
    turns: Turns = None,
    test_runs: TestRuns = None,
    demonstrations: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="File of `regrade tasks demonstrations` that sft learns, instead of the references of tasks.",
        ),
    ] = None,
    turn_cost: Annotated[
        float | None,
        typer.Option(
            min=0.0, max=LARGEST_COST, help="Taken from an agent's reward per action (grpo, rloo, ppo). Default: 0."
        ),
    ] = None,
    test_cost: Annotated[
        float | None,
        typer.Option(
            min=0.0, max=LARGEST_COST, help="Taken from an agent's reward per test run, likewise. Default: 0."
        ),
    ] = None,
    shaping: Annotated[
        Shaping | None,
        typer.Option(
            help="Pay an agent's steps by the state of the tests after each (grpo, ppo): `seen`, as its test runs "
            "showed; `measured`, by executing each tree. It changes when reward comes, not which policy is best. "
            "Default: none."
        ),
    ] = None,
    generation: Annotated[
        Generation | None,
        typer.Option(
            help="What samples attempts in grpo and rloo: Regrade's sampler, TRL itself, or TRL with vLLM. Default: "
            "shared, Regrade's."
        ),
    ] = None,
    reward: Annotated[
        str | None,
        typer.Option(
            help="What an attempt is paid, not for sft: a built-in reward, or FILE:NAME for your own `Reward` or "
            "`TrainingReward`. Default: 1 for a clean fix, a part for a partial one, less than nothing for breakage."
        ),
    ] = None,
    reward_model: RewardModelFolder = None,
    save_every: Annotated[
        int | None,
        typer.Option(min=1, max=MOST, help="Optimizer steps between checkpoints. Default: only the last checkpoint."),
    ] = None,
    lora: Annotated[
        int | None,
        typer.Option(min=1, max=MOST, help="Rank of the adapters (LoRA) that alone learn. Default: all weights learn."),
    ] = None,
    gradient_checkpointing: Annotated[
        bool,
        typer.Option(
            "--gradient-checkpointing",
            help="Compute again what a layer would keep for the gradient: less memory, slower passes. Adapters do so "
            "anyway.",
        ),
    ] = False,
    action_tokens: Annotated[
        int | None,
        typer.Option(
            min=1, max=MOST, help="Most tokens of an agent's action. Default: those of its checkpoint, or 40."
        ),
    ] = None,
    resume_every: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MOST,
            help="Optimizer steps between the states from which the same command goes on after a kill. Default: a "
            "state every five minutes.",
        ),
    ] = None,
    track: Annotated[
        Tracker | None,
        typer.Option(
            help="Tracker that gets the steps too, not for reward-model. wandb is offline, unless WANDB_MODE."
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, max=LARGEST_SEED, help="Seed of all random choices. Default: 0.")
    ] = None,
    sandbox: SandboxName = "auto",
    workers: Workers = None,
) -> None:
    """Train a model with one algorithm, or as a recipe says.

    sft learns from the reference patches of the tasks, all other algorithms from executed tests only. Their verdicts
    are in-process: any verification costs more than the tests that a patch can reach.

    With --turns, the model becomes an agent. sft then learns executed demonstrations: a right edit, tested and handed
    in, and wrong edits that are tested, taken back and put right; grpo, rloo, reinforce and ppo learn from whole
    episodes, whose patches at the end are executed.

    Needs --steps, --minutes or both, if no recipe has them; training stops at the first limit. Prints the folder of the
    checkpoint. The same command goes on with a training that was killed, and does nothing when it is finished. `regrade
    evaluate --checkpoints` evaluates the checkpoints of --save-every. docs/recipes.md lists the keys of a recipe,
    docs/scale.md says how to train in several processes.
    """
    if split == "held_out":
        raise UserError(
            "--split held_out: these tasks are for the verdict, and nothing is trained on them; choose another"
        )
    limits = agent_limits(turns, test_runs)
    base = base_recipe(what)
    algorithm = base.algorithm
    if algorithm == "sft" and reward is not None:
        raise UserError("sft learns from reference patches and executes nothing: leave out --reward")
    if demonstrations is not None and (tasks is not None or limit is not None):
        raise UserError("--demonstrations has all that sft learns: leave out --tasks and --limit")
    given: dict[str, Any] = {
        "model": model,
        "tasks": None if tasks is None else str(tasks),
        "split": split,
        "limit": limit,
        "steps": steps,
        "minutes": minutes,
        "demonstrations": demonstrations,
        "reward": reward,
        "save_every": save_every,
        "lora_rank": lora,
        "gradient_checkpointing": gradient_checkpointing or None,
        "seed": seed,
    }
    recipe = replace(base, **{name: value for name, value in given.items() if value is not None})
    if recipe.steps is None and recipe.minutes is None:
        raise UserError("no limit for the training: give --steps, --minutes or both")
    recipe = replace(recipe, step_rewards=_step_rewards(recipe.step_rewards, turn_cost, test_cost, shaping))
    paid = "none" if recipe.step_rewards is None else recipe.step_rewards.shaping
    _check_agent_options(algorithm, generation or "shared", paid, pays_steps=recipe.step_rewards is not None)
    credit: Credit | None = None if shaping is None else "trajectory" if shaping == "none" else "step"
    settings = overridden(recipe.settings, learning_rate, samples, temperature, generation, credit)
    recipe = replace(recipe, settings=settings, agent=_agent(recipe, limits, action_tokens))
    check_training_libraries("`regrade train`")
    source = recipe.tasks or "builtin"
    split = recipe.split
    if split is None and is_ready_made(Path(source)):
        split = "demonstrations" if algorithm == "sft" else "tests_only"
    loaded = []
    if recipe.demonstrations is None:
        loaded = limited(load(source, split), recipe.limit, recipe.seed)
    with training_libraries("`regrade train`"):  # they take seconds to import
        from regrade.policy_training.train import TrainingPlan
        from regrade.policy_training.train import train as run_training
        from regrade.policy_training.trainers.processes import is_main, on_this_machine
        from regrade.policy_training.trainers.resuming import ResumePoints
    from regrade.evaluators.scoring.scorer import Scorer
    from regrade.evaluators.storage.run import Run

    plan = replace(
        TrainingPlan.of(recipe),
        probe_tasks=() if algorithm == "reward-model" else measured(_probe_tasks(probe, recipe), sandbox),
        resume=ResumePoints(resume_every),
        track=() if track is None else (track,),
    )
    if plan.step_rewards is not None and plan.agent is None:
        raise UserError("--turn-cost, --test-cost and --shaping pay the steps of an agent: give --turns too")
    chosen = measured(loaded, sandbox)
    probes = model_probes(reward_model)
    if (out / "manifest.json").exists() and Run.open(out).finished(algorithm):
        stderr().print(f"{out} holds a finished training: nothing is trained", markup=False, soft_wrap=True)
    workers = workers or max(1, (os.cpu_count() or 1) // on_this_machine())
    if not is_main():  # of several processes: it plays and judges its share, and says and writes nothing
        with Scorer(sandbox=sandbox, workers=workers, probes=probes) as scorer:
            run_training(plan, chosen, scorer, out)
        return
    with Scorer(sandbox=sandbox, workers=workers, probes=probes) as scorer, progress(algorithm) as report:
        checkpoint = run_training(plan, chosen, scorer, out, progress=report, tell=_tell)
    if loaded and (
        algorithm != "sft" or plan.agent is not None
    ):  # a policy that answers once learns from references unexecuted
        stderr().print(f"assurance: {scorer.assurance.not_excluded}", markup=False, soft_wrap=True)
    typer.echo(checkpoint)


def _probe_tasks(probe: Path | None, recipe: TrainingRecipe) -> list[Task]:
    """Those of the file; of a training on ready-made tasks that is long enough for a probe, some of `validation`."""
    file = recipe.probe if probe is None else str(probe)
    if file is not None:
        return load(file, None)
    source, steps = recipe.tasks or "builtin", recipe.steps
    is_short = steps is not None and steps < recipe.stability.probe_every
    if is_short or recipe.split == "validation" or not is_ready_made(Path(source)):
        return []
    return limited(load(source, "validation"), PROBE_TASKS, recipe.seed)


def _tell(line: str) -> None:
    stderr().print(line, markup=False, soft_wrap=True)


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


def _step_rewards(
    base: StepRewards | None, turn_cost: float | None, test_cost: float | None, shaping: Shaping | None
) -> StepRewards | None:
    """Those of a recipe with the options of the command; None: nothing is paid."""
    from regrade.policy_training.environments.step_rewards import StepRewards

    found = base or StepRewards()
    costs = found.costs
    costs = costs if turn_cost is None else replace(costs, turn=turn_cost)
    costs = costs if test_cost is None else replace(costs, test_run=test_cost)
    found = replace(found, costs=costs, shaping=found.shaping if shaping is None else shaping)
    pays = found.shaping != "none" or costs.turn or costs.test_run or costs.unreadable
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


def _check_agent_options(algorithm: Algorithm, generation: Generation, shaping: Shaping, *, pays_steps: bool) -> None:
    """Raises UserError for options that the algorithm has not."""
    if generation != "shared" and algorithm not in ("grpo", "rloo"):
        raise UserError(f"{algorithm} has no choice of --generation: leave it out")
    if pays_steps and algorithm not in ("grpo", "rloo", "reinforce", "ppo"):
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
