"""`regrade reward-model`: execute attempts, train a reward model on them, and test it on repositories it never saw."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from regrade.cli.console import print_json, progress, stderr, stdout_to_stderr
from regrade.cli.extras import training_libraries
from regrade.cli.loading import limited, load, measured
from regrade.cli.options import LARGEST_SEED, BuiltinSplit, Limit, RewardName, SandboxName, Workers, creatable
from regrade.datasets.errors import UserError

if TYPE_CHECKING:
    from regrade.datasets.tasks import Task
    from regrade.evaluators.storage.labelled_attempts import LabelledAttempt
    from regrade.policy_training.reward_models.attempt_splits import AttemptSplit
    from regrade.policy_training.reward_models.quality import Quality

app = typer.Typer(
    help="Execute attempts, train a reward model on them, and test it.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)
ModelKind = Literal["static", "language"]
Runs = Annotated[
    list[Path],
    typer.Argument(metavar="RUN...", help="Folders of runs with executed attempts: evaluations or trainings."),
]
Seed = Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Seed of all random choices.")]
HeldOut = Annotated[
    list[str] | None,
    typer.Option(
        "--held-out",
        metavar="REPOSITORY",
        help="Repository to test on, never to train on. Repeat for more. Default: the held-out ready-made packages.",
    ),
]
TaskSource = Annotated[
    str | None,
    typer.Option("--tasks", help="builtin, cross-module or a task file: the files that a language model reads."),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]


@app.command()
def attempts(
    out: Annotated[
        Path, typer.Option(file_okay=False, callback=creatable, help="Folder of the run. The same command resumes it.")
    ],
    tasks: Annotated[str, typer.Option(help="builtin, cross-module, or a task file with references.")] = "builtin",
    split: BuiltinSplit = None,
    limit: Limit = None,
    seed: Seed = 0,
    reward: RewardName = "default",
    sandbox: SandboxName = "auto",
    workers: Workers = None,
) -> None:
    """Execute patches by rule: no change, the reference, further bugs, nearly right fixes, rewrites and cheats.

    Up to 13 patches a task. Of each patch, the tests run that it can reach. All 2001 ready-made tasks make more than
    20,000 attempts. The run is an evaluation: `regrade rescore` and `regrade report` read it too.
    """
    from regrade.evaluators.scoring.scorer import Scorer
    from regrade.evaluators.storage.run import Run
    from regrade.policy_training.reward_models.executed_attempts import execute_attempts
    from regrade.rewards.loading import load_reward

    with stdout_to_stderr():
        chosen_reward = load_reward(reward)
    chosen = measured(limited(load(tasks, split), limit, seed), sandbox)
    if not any(task.reference is not None for task in chosen):
        raise UserError(f"no task of {tasks!r} has a reference patch, from which patches are made: give other tasks")
    began = time.monotonic()
    scoring = Scorer(sandbox=sandbox, workers=workers)
    with Run.started(out) as run, run.writing(), stdout_to_stderr(), scoring as scorer:
        run.record_continuation()
        run.update(sandbox=scorer.sandbox.name, assurance=scorer.assurance, seeds={"evaluation": seed})
        run.record_tasks(chosen)
        count = execute_attempts(run, chosen, scorer, reward=chosen_reward, seed=seed, stage=progress, note=_note)
        executed, seconds = scorer.stats.executions, time.monotonic() - began
    _note(f"{count} attempts at {len(chosen)} tasks; this command executed {executed} in {seconds:.0f} s")
    typer.echo(out)


@app.command()
def train(
    runs: Runs,
    out: Annotated[Path, typer.Option(file_okay=False, callback=creatable, help="Folder of the reward model.")],
    kind: Annotated[
        ModelKind,
        typer.Option(
            help="static: gradient boosting over static evidence, without a language model; language: heads on the "
            "activations of one, which reads the files of --tasks."
        ),
    ] = "static",
    tasks: TaskSource = None,
    base: Annotated[
        str, typer.Option(help="Of language: smollm2-135m, a checkpoint, or a causal language model on the hub.")
    ] = "smollm2-135m",
    recipe: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="Of language: a recipe of reward-model, for its settings and limits."),
    ] = None,
    held_out: HeldOut = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Train a reward model on the executed attempts of runs, and test it on held-out repositories.

    Writes the model and its card, model_card.md, with the test. `regrade train reward-model` samples and executes the
    attempts of a policy itself.
    """
    from regrade.policy_training.reward_models.attempt_splits import HELD_OUT, split_by_repository

    _check_options(kind, tasks, recipe)
    found = _attempts(runs, load(tasks, None) if tasks else None)
    split = split_by_repository(found, frozenset(held_out) if held_out else HELD_OUT)
    with progress(f"training a {kind} reward model") as report:
        if kind == "static":
            report(0, 1)
            quality = _train_static(split, out, seed)
            report(1, 1)
        else:
            quality = _train_language(split, out, base, recipe, seed, report)
    _print(quality, json)
    _note(f"model card: {out / 'model_card.md'}")
    typer.echo(out, err=json)


def _check_options(kind: ModelKind, tasks: str | None, recipe: Path | None) -> None:
    if kind == "language" and tasks is None:
        raise UserError("a language reward model reads the files of the tasks: give --tasks")
    if kind == "static" and (tasks is not None or recipe is not None):
        raise UserError("--tasks and --recipe are for --kind language: leave them out")


def _train_static(split: AttemptSplit, out: Path, seed: int) -> Quality | None:
    from regrade.policy_training.reward_models.static_training import train_and_test_static

    return train_and_test_static(split, out, seed=seed)


def _train_language(
    split: AttemptSplit, out: Path, base: str, recipe: Path | None, seed: int, report: Callable[[int, int], None]
) -> Quality | None:
    from regrade.policy_training.recipe_files import TrainingRecipe, read_recipe
    from regrade.policy_training.trainers.settings import RewardModelSettings

    chosen = TrainingRecipe(settings=RewardModelSettings()) if recipe is None else read_recipe(recipe)
    if not isinstance(chosen.settings, RewardModelSettings):
        raise UserError(f"{recipe} is a recipe of {chosen.algorithm}: give one of reward-model")
    if chosen.needs_limit and chosen.steps is None and chosen.minutes is None:
        raise UserError(f"{recipe} has no limit for the training: add steps, minutes or both")
    with training_libraries("a language reward model"):
        from regrade.policy_training.reward_models.language_training import train_and_test_language
        from regrade.policy_training.trainers.callbacks import Budget
    budget = Budget(chosen.steps, chosen.seconds)
    return train_and_test_language(split, out, base, chosen.settings, budget=budget, seed=seed, progress=report)


@app.command("test")
def measure(
    folder: Annotated[Path, typer.Argument(metavar="MODEL", help="Folder of a reward model.")],
    runs: Runs,
    against: Annotated[
        list[Path] | None, typer.Option(help="Folder of another reward model, a baseline. Repeat for more.")
    ] = None,
    tasks: TaskSource = None,
    report: Annotated[Path | None, typer.Option(dir_okay=False, help="File for the report in Markdown.")] = None,
    json: Json = False,
) -> None:
    """Test a reward model on the executed attempts of runs, at repositories that it never trained on."""
    from regrade.policy_training.reward_models.model_card import quality_report, write_card
    from regrade.policy_training.reward_models.patch_model import load_patch_model
    from regrade.policy_training.reward_models.quality import measure_quality
    from regrade.policy_training.reward_models.training_record import unseen

    model, rivals = load_patch_model(folder), [load_patch_model(other) for other in against or ()]
    loaded = load(tasks, None) if tasks else []
    kept, left_out = unseen([folder, *(against or ())], _attempts(runs, loaded))
    if left_out:
        _note(f"note: {left_out} attempts at repositories that a model was trained on are left out")
    quality = measure_quality(model, kept, rivals)
    text = quality_report(quality)
    if report is not None:
        write_card(report, text + "\n")
    if json:
        _print(quality, json)
    else:
        typer.echo(text)


def _attempts(runs: list[Path], tasks: list[Task] | None) -> list[LabelledAttempt]:
    from regrade.evaluators.storage.labelled_attempts import open_attempts

    return open_attempts(runs, tasks or ())


def _print(quality: Quality | None, json: bool) -> None:
    from regrade.policy_training.reward_models.model_card import quality_report
    from regrade.policy_training.reward_models.quality import to_json

    if json:
        print_json({} if quality is None else to_json(quality))
    elif quality is not None:
        typer.echo(quality_report(quality))


def _note(text: str) -> None:
    stderr().print(text, markup=False, soft_wrap=True)
