"""The options of `regrade train`, each written once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args

import typer

from regrade.cli.evaluate import TaskSource
from regrade.cli.options import (
    LARGEST_SEED,
    MOST,
    Limit,
    SandboxName,
    TestRuns,
    Turns,
    Workers,
    creatable,
)

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


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """The arguments and options of the command; None: not given."""

    what: Annotated[
        str,
        typer.Argument(
            metavar="ALGORITHM|RECIPE.toml",
            help=f"Training algorithm, with the defaults below: {', '.join(get_args(Algorithm))}. Or a recipe file, or "
            "the name of a shipped one, such as demo-grpo.toml: an option replaces what the recipe says.",
        ),
    ]
    out: Annotated[
        Path,
        typer.Option(file_okay=False, callback=creatable, help="Folder of the run: log, manifest and checkpoints."),
    ]
    model: Annotated[
        str | None,
        typer.Option(
            help="smollm2-135m, the folder of a checkpoint, or a model on the Hugging Face hub. Default: smollm2-135m."
        ),
    ] = None
    tasks: TaskSource = None
    probe: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            help="Held-out tasks, a file or a set, of which nothing is learned: the guard probes fixes and breakage "
            "on them, and the checkpoint has the best weights by this probe. Default: none for your own tasks, "
            f"{PROBE_TASKS} of the split validation for ready-made ones.",
        ),
    ] = None
    split: Annotated[
        str | None,
        typer.Option(
            help="Split of tasks that have splits: demonstrations (default for sft), tests_only (default for all other "
            "algorithms) or validation."
        ),
    ] = None
    limit: Limit = None
    steps: Annotated[int | None, typer.Option(min=1, max=MOST, help="Maximum number of optimizer steps.")] = None
    minutes: Annotated[
        float | None, typer.Option(min=0.01, max=MOST_MINUTES, help="Maximum wall time, in minutes.")
    ] = None
    learning_rate: Annotated[
        float | None, typer.Option(min=0.0, max=LARGEST_RATE, help=f"Peak learning rate. Default: {RATES}.")
    ] = None
    samples: Annotated[
        int | None,
        typer.Option(min=1, max=MOST, help=f"Attempts per task, not for sft. Default: {SAMPLES}, for ppo 1."),
    ] = None
    temperature: Annotated[
        float | None,
        typer.Option(min=0.01, max=100.0, help=f"Sampling temperature, not for sft. Default: {TEMPERATURE:g}."),
    ] = None
    turns: Turns = None
    test_runs: TestRuns = None
    demonstrations: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="File of `regrade tasks demonstrations` that sft learns, instead of the references of tasks.",
        ),
    ] = None
    turn_cost: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=LARGEST_COST,
            help="Taken from an agent's reward per action (grpo, rloo, reinforce, ppo). Default: 0.",
        ),
    ] = None
    test_cost: Annotated[
        float | None,
        typer.Option(
            min=0.0, max=LARGEST_COST, help="Taken from an agent's reward per test run, likewise. Default: 0."
        ),
    ] = None
    shaping: Annotated[
        Shaping | None,
        typer.Option(
            help="Pay an agent's steps by the state of the tests after each (grpo, ppo): `seen`, as its test runs "
            "showed; `measured`, by executing each tree. It changes when reward comes, not which policy is best. "
            "Default: none."
        ),
    ] = None
    generation: Annotated[
        Generation | None,
        typer.Option(
            help="What samples attempts in grpo and rloo: Regrade's sampler, TRL itself, or TRL with vLLM. Default: "
            "shared, Regrade's."
        ),
    ] = None
    reward: Annotated[
        str | None,
        typer.Option(
            help="What an attempt is paid, not for sft: a built-in reward, or FILE:NAME for your own `Reward` or "
            "`TrainingReward`. Default: 1 for a clean fix, a part for a partial one, less than nothing for breakage."
        ),
    ] = None
    save_every: Annotated[
        int | None,
        typer.Option(min=1, max=MOST, help="Optimizer steps between checkpoints. Default: only the last checkpoint."),
    ] = None
    lora: Annotated[
        int | None,
        typer.Option(min=1, max=MOST, help="Rank of the adapters (LoRA) that alone learn. Default: all weights learn."),
    ] = None
    gradient_checkpointing: Annotated[
        bool,
        typer.Option(
            "--gradient-checkpointing",
            help="Compute again what a layer would keep for the gradient: less memory, slower passes. Adapters do so "
            "anyway.",
        ),
    ] = False
    action_tokens: Annotated[
        int | None,
        typer.Option(
            min=1, max=MOST, help="Most tokens of an agent's action. Default: those of its checkpoint, or 40."
        ),
    ] = None
    resume_every: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MOST,
            help="Optimizer steps between the states from which the same command goes on after a kill. Default: a "
            "state every five minutes.",
        ),
    ] = None
    track: Annotated[
        Tracker | None,
        typer.Option(
            help="Tracker that gets the steps too, not for reward-model. wandb is offline, unless WANDB_MODE."
        ),
    ] = None
    seed: Annotated[
        int | None, typer.Option(min=0, max=LARGEST_SEED, help="Seed of all random choices. Default: 0.")
    ] = None
    sandbox: SandboxName = "auto"
    workers: Workers = None
