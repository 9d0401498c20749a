"""`regrade train`: train a model with one algorithm."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

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
    ModelName,
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
    from regrade.policy_training.trainers.settings import TrainerSettings

Algorithm = Literal["sft", "expert-iteration", "grpo", "rloo", "ppo", "reward-model"]
Shaping = Literal["none", "seen", "measured"]
Generation = Literal["shared", "trl", "vllm"]
Tracker = Literal["tensorboard", "trackio", "wandb"]
LARGEST_RATE, LARGEST_COST, MOST_MINUTES = 1000.0, 1000.0, 1e7
SAMPLES, TEMPERATURE, PPO_LEARNING_RATE = 8, 1.0, 1e-5
"""Defaults of this command. All other defaults are those of the settings."""


def train(
    algorithm: Annotated[Algorithm, typer.Argument(metavar="ALGORITHM", help="Training algorithm.")],
    out: Annotated[
        Path,
        typer.Option(file_okay=False, callback=creatable, help="Folder of the run: log, manifest and checkpoints."),
    ],
    model: ModelName = "smollm2-135m",
    tasks: TaskSource = None,
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
        float | None,
        typer.Option(min=0.0, max=LARGEST_RATE, help="Peak learning rate. Default: that of the algorithm."),
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
        float,
        typer.Option(min=0.0, max=LARGEST_COST, help="Taken from an agent's reward per action (grpo, rloo, ppo)."),
    ] = 0.0,
    test_cost: Annotated[
        float, typer.Option(min=0.0, max=LARGEST_COST, help="Taken from an agent's reward per test run, likewise.")
    ] = 0.0,
    shaping: Annotated[
        Shaping,
        typer.Option(
            help="Pay an agent's steps by the state of the tests after each (grpo, ppo): `seen`, as its test runs "
            "showed; `measured`, by executing each tree. It changes when reward comes, not which policy is best."
        ),
    ] = "none",
    generation: Annotated[
        Generation,
        typer.Option(help="What samples attempts in grpo and rloo: Regrade's sampler, TRL itself, or TRL with vLLM."),
    ] = "shared",
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
    seed: Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Seed of all random choices.")] = 0,
    sandbox: SandboxName = "auto",
    workers: Workers = None,
) -> None:
    """Train a model with one algorithm.

    sft learns from the reference patches of the tasks, all other algorithms from executed tests only. Their verdicts
    are in-process: any verification costs more than the tests that a patch can reach.

    With --turns, the model becomes an agent. sft then learns executed demonstrations: a right edit, tested and handed
    in, and wrong edits that are tested, taken back and put right; grpo, rloo and ppo learn from whole episodes, whose
    patches at the end are executed.

    Needs --steps, --minutes or both; training stops at the first limit. Prints the folder of the checkpoint. The same
    command goes on with a training that was killed, and does nothing when it is finished. `regrade
    evaluate --checkpoints` evaluates the checkpoints of --save-every.
    """
    if steps is None and minutes is None:
        raise UserError("no limit for the training: give --steps, --minutes or both")
    if split == "held_out":
        raise UserError(
            "--split held_out: these tasks are for the verdict, and nothing is trained on them; choose another"
        )
    if algorithm == "sft" and reward is not None:
        raise UserError("sft learns from reference patches and executes nothing: leave out --reward")
    limits = agent_limits(turns, test_runs)
    pays_steps = bool(turn_cost or test_cost or shaping != "none")
    _check_agent_options(algorithm, generation, shaping, pays_steps=pays_steps)
    settings = settings_of(
        algorithm, learning_rate, samples, temperature, generation, "trajectory" if shaping == "none" else "step"
    )
    check_training_libraries("`regrade train`")
    if split is None and is_ready_made(tasks):
        split = "demonstrations" if algorithm == "sft" else "tests_only"
    loaded = []
    if demonstrations is None:
        loaded = limited(load("builtin" if tasks is None else str(tasks), split), limit, seed)
    elif tasks is not None or limit is not None:
        raise UserError("--demonstrations has all that sft learns: leave out --tasks and --limit")
    with training_libraries("`regrade train`"):  # they take seconds to import
        from regrade.policy_training.environments.agent_policy import AgentFormat
        from regrade.policy_training.environments.step_rewards import StepCosts, StepRewards
        from regrade.policy_training.environments.training_reward import DEFAULT_TRAINING_REWARD, load_training_reward
        from regrade.policy_training.train import TrainingPlan
        from regrade.policy_training.train import train as run_training
        from regrade.policy_training.trainers.callbacks import Budget
        from regrade.policy_training.trainers.resuming import ResumePoints
    from regrade.evaluators.scoring.scorer import Scorer
    from regrade.evaluators.storage.run import Run

    agent = AgentFormat.of_checkpoint(Path(model)) if limits is None else AgentFormat(limits)
    if action_tokens is not None:
        agent = AgentFormat(agent.limits, action_tokens, max(agent.max_tokens, 2 * action_tokens * agent.limits.turns))
    if pays_steps and agent.limits.turns == 1:
        raise UserError("--turn-cost, --test-cost and --shaping pay the steps of an agent: give --turns too")
    pays = DEFAULT_TRAINING_REWARD if reward is None else load_training_reward(reward)
    chosen = measured(loaded, sandbox)
    budget = Budget(steps, None if minutes is None else 60 * minutes)
    step_rewards = StepRewards(costs=StepCosts(turn=turn_cost, test_run=test_cost), shaping=shaping)
    plan = TrainingPlan(
        settings=settings,
        model=model,
        budget=budget,
        reward=pays,
        seed=seed,
        agent=agent if agent.limits.turns > 1 else None,
        demonstrations=demonstrations,
        step_rewards=step_rewards if pays_steps else None,
        save_every=save_every,
        lora_rank=lora,
        resume=ResumePoints(resume_every),
        track=() if track is None else (track,),
    )
    probes = model_probes(reward_model)
    if (out / "manifest.json").exists() and Run.open(out).finished(algorithm):
        stderr().print(f"{out} holds a finished training: nothing is trained", markup=False, soft_wrap=True)
    with Scorer(sandbox=sandbox, workers=workers, probes=probes) as scorer, progress(algorithm) as report:
        checkpoint = run_training(plan, chosen, scorer, out, progress=report)
    if loaded and (
        algorithm != "sft" or plan.agent is not None
    ):  # a policy that answers once learns from references unexecuted
        stderr().print(f"assurance: {scorer.assurance.not_excluded}", markup=False, soft_wrap=True)
    typer.echo(checkpoint)


def _check_agent_options(algorithm: Algorithm, generation: Generation, shaping: Shaping, *, pays_steps: bool) -> None:
    """Raises UserError for options that the algorithm has not."""
    if generation != "shared" and algorithm not in ("grpo", "rloo"):
        raise UserError(f"{algorithm} has no choice of --generation: leave it out")
    if pays_steps and algorithm not in ("grpo", "rloo", "ppo"):
        raise UserError(f"{algorithm} pays no steps: leave out --turn-cost, --test-cost and --shaping")
    if shaping != "none" and algorithm == "rloo":
        raise UserError("rloo compares whole episodes, to which shaping adds nothing: leave out --shaping, or use grpo")
    if shaping != "none" and generation != "shared":
        raise UserError(f"TRL itself knows no rewards of steps: leave out --shaping or --generation {generation}")


def settings_of(
    algorithm: Algorithm,
    learning_rate: float | None,
    samples: int | None,
    temperature: float | None,
    generation: Generation = "shared",
    credit: Literal["trajectory", "step"] = "trajectory",
) -> TrainerSettings:
    """The algorithm's settings with the options of the command; None: the default.

    Raises:
        UserError: an option is out of its range, or the algorithm has no such setting.
    """
    from regrade.datasets.rollouts import Sampling
    from regrade.policy_training.trainers import settings as trainers

    sampling = Sampling(TEMPERATURE if temperature is None else temperature, SAMPLES if samples is None else samples)
    settings: TrainerSettings
    match algorithm:
        case "sft":
            if samples is not None or temperature is not None:
                raise UserError("sft samples no attempts: leave out --samples and --temperature")
            settings = trainers.SFTSettings()
        case "expert-iteration":
            iteration = trainers.ExpertIterationSettings(sampling=sampling)
            sft = iteration.sft if learning_rate is None else replace(iteration.sft, learning_rate=learning_rate)
            return replace(iteration, sft=sft)
        case "grpo" | "rloo":
            settings = trainers.OnlineSettings(
                algorithm=algorithm,
                samples_per_prompt=sampling.samples,
                temperature=sampling.temperature,
                generation=generation,
                credit=credit,
            )
        case "ppo":
            settings = trainers.PPOSettings(
                learning_rate=PPO_LEARNING_RATE,
                samples_per_prompt=1 if samples is None else samples,
                temperature=sampling.temperature,
            )
        case "reward-model":
            settings = trainers.RewardModelSettings(sampling=sampling)
    return settings if learning_rate is None else replace(settings, learning_rate=learning_rate)
