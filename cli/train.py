"""`regrade train`: train a model by one algorithm."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from regrade.cli.console import progress
from regrade.cli.evaluate import Limit, Split, TaskSource, choose_tasks
from regrade.cli.options import SandboxName, Workers
from regrade.datasets.errors import UserError

if TYPE_CHECKING:
    from regrade.policy_training.trainers.settings import TrainerSettings

Algorithm = Literal["sft", "expert-iteration", "grpo", "rloo", "ppo", "reward-model"]


PPO_LEARNING_RATE = 1e-5
"""Default of this command; the other algorithms have that of their settings."""


def train(
    algorithm: Annotated[Algorithm, typer.Argument(help="Training algorithm.")],
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder of the run: log, manifest and checkpoint.")],
    model: Annotated[
        str, typer.Option(help="smollm2-135m, the folder of a checkpoint, or a model on the hub.")
    ] = "smollm2-135m",
    tasks: TaskSource = None,
    split: Split = None,
    limit: Limit = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Number of optimizer steps.")] = None,
    minutes: Annotated[float | None, typer.Option(min=0.01, help="Wall time.")] = None,
    learning_rate: Annotated[float | None, typer.Option(min=0.0, help="Default: that of the algorithm.")] = None,
    samples: Annotated[int, typer.Option(min=2, help="Attempts per task (not for sft and ppo).")] = 8,
    temperature: Annotated[float, typer.Option(min=0.01, help="Sampling temperature (not for sft and ppo).")] = 1.0,
    save_every: Annotated[
        int | None, typer.Option(min=1, help="Steps between additional checkpoints, for evaluate --checkpoints.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of all random choices.")] = 0,
    sandbox: SandboxName = "auto",
    workers: Workers = None,
) -> None:
    """Train a model by one algorithm.

    Prints the folder of the checkpoint.

    sft learns from the reference patches of the tasks (default: the split `demonstrations`), all other algorithms from
    executed tests only (default: `tests_only`). Give --steps, --minutes or both; training stops at the first limit.
    """
    if steps is None and minutes is None:
        raise UserError("no end of training: give --steps, --minutes or both")
    from regrade.evaluators.scoring.scorer import Scorer
    from regrade.policy_training.train import TrainingPlan
    from regrade.policy_training.train import train as run_training
    from regrade.policy_training.trainers.callbacks import Budget

    if tasks is None and split is None:
        split = "demonstrations" if algorithm == "sft" else "tests_only"
    chosen = choose_tasks(tasks, split, limit, seed)
    budget = Budget(steps, None if minutes is None else 60 * minutes)
    settings = settings_of(algorithm, learning_rate, samples, temperature)
    plan = TrainingPlan(settings=settings, model=model, budget=budget, seed=seed, save_every=save_every)
    with Scorer(sandbox=sandbox, workers=workers) as scorer, progress(algorithm) as report:
        checkpoint = run_training(plan, chosen, scorer, out, progress=report)
    typer.echo(checkpoint)


def settings_of(algorithm: Algorithm, learning_rate: float | None, samples: int, temperature: float) -> TrainerSettings:
    """The algorithm's settings with the options that apply to it.

    Raises:
        UserError: an option is out of its range.
    """
    from regrade.datasets.rollouts import Sampling
    from regrade.policy_training.trainers import settings as trainers

    sampling = Sampling(temperature, samples)
    settings: TrainerSettings
    match algorithm:
        case "sft":
            settings = trainers.SFTSettings()
        case "expert-iteration":
            iteration = trainers.ExpertIterationSettings(sampling=sampling)
            sft = replace(iteration.sft, learning_rate=learning_rate or iteration.sft.learning_rate)
            return replace(iteration, sft=sft)
        case "grpo" | "rloo":
            settings = trainers.OnlineSettings(algorithm=algorithm, samples_per_prompt=samples, temperature=temperature)
        case "ppo":
            settings = trainers.PPOSettings(learning_rate=PPO_LEARNING_RATE)
        case "reward-model":
            settings = trainers.RewardModelSettings(sampling=sampling)
    return replace(settings, learning_rate=learning_rate) if learning_rate else settings
