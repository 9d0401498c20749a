"""`regrade train`: train a model with one algorithm."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from regrade.cli.console import activities, stderr, stdout_to_stderr
from regrade.cli.extras import check_training_libraries, training_libraries
from regrade.cli.loading import is_ready_made, limited, load, load_to_learn, measured
from regrade.cli.options import takes
from regrade.cli.training_options import PROBE_TASKS, TrainingOptions
from regrade.cli.training_recipe import recipe_of
from regrade.datasets.errors import UserError

if TYPE_CHECKING:
    from regrade.datasets.tasks import Task
    from regrade.evaluators.storage.run import Run
    from regrade.policy_training.recipe_files import TrainingRecipe
    from regrade.policy_training.training_plan import TrainingPlan


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


@takes(TrainingOptions)
@_together()
def train(options: TrainingOptions) -> None:
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
    recipe = recipe_of(options)
    check_training_libraries("`regrade train`")
    if options.track is not None:  # before tasks are made
        from regrade.policy_training.trainers.tracking import check_trackers

        check_trackers((options.track,))
    loaded = _tasks_to_learn(recipe)
    with training_libraries("`regrade train`"):  # they take seconds to import
        from regrade.policy_training.train import train as run_training
        from regrade.policy_training.trainers.processes import is_main, on_this_machine
    from regrade.evaluators.scoring.scorer import Scorer
    from regrade.evaluators.storage.run import Run

    algorithm, out, sandbox = recipe.algorithm, options.out, options.sandbox
    with stdout_to_stderr():  # a reward's file may print
        plan = _plan(recipe, options)
    chosen = measured(loaded, sandbox)
    was_finished = (out / "manifest.json").exists() and Run.open(out).finished(algorithm)
    workers = options.workers or max(1, (os.cpu_count() or 1) // on_this_machine())
    if not is_main():  # of several processes: it plays and judges its share, and says and writes nothing
        with stdout_to_stderr(), Scorer(sandbox=sandbox, workers=workers) as scorer:
            run_training(plan, chosen, scorer, out)
        return
    with stdout_to_stderr(), Scorer(sandbox=sandbox, workers=workers) as scorer, activities() as report:

        def told(what: str, done: int, total: int) -> None:
            report(f"{algorithm}: {what}", done, total)

        told("loading the model", 0, 0)
        checkpoint = run_training(plan, chosen, scorer, out, progress=told, tell=_tell)
    if loaded and (algorithm != "sft" or plan.agent is not None):  # otherwise nothing was executed
        _tell(f"assurance: {scorer.assurance.not_excluded}")
    _tell_of_end(out, algorithm, was_finished=was_finished)
    typer.echo(checkpoint)


def _plan(recipe: TrainingRecipe, options: TrainingOptions) -> TrainingPlan:
    """What the recipe and the options ask for, checked before any test is run."""
    from regrade.policy_training.environments.reward_check import check_teaches
    from regrade.policy_training.policies.models import check_model
    from regrade.policy_training.trainers.resuming import ResumePoints
    from regrade.policy_training.training_plan import TrainingPlan

    plan = TrainingPlan.of(recipe)
    check_model(plan.model)
    if recipe.algorithm != "sft":
        check_teaches(plan.reward)
    has_probe = recipe.algorithm != "reward-model"
    plan = replace(
        plan,
        probe_tasks=measured(_probe_tasks(options.probe, recipe), options.sandbox) if has_probe else (),
        resume=ResumePoints(options.resume_every),
        track=() if options.track is None else (options.track,),
    )
    if plan.step_rewards is not None and plan.agent is None:
        raise UserError("--turn-cost, --test-cost and --shaping pay the steps of an agent: give --turns too")
    return plan


def _tell_of_end(out: Path, algorithm: str, *, was_finished: bool) -> None:
    """What was learned, and where to read on."""
    from regrade.evaluators.storage.run import Run

    if was_finished:  # and it was this one: another is refused
        _tell(f"{out} holds this training, finished: nothing is trained")
    if note := vain_note(Run.open(out), algorithm):
        _tell(f"note: {note}")
    is_audited = algorithm not in ("sft", "reward-model")
    taught = f"; what each component taught: regrade rewards audit {out}" if is_audited else ""
    _tell(f"all curves: regrade report {out}{taught}")


def vain_note(run: Run, algorithm: str) -> str:
    """A sentence about a training that compared attempts and found no difference; empty for all others."""
    from regrade.evaluators.analysis.training_audit import audit_training

    if algorithm not in ("grpo", "rloo"):
        return ""
    audits = {audited.phase: audited for audited in audit_training(run)}
    audited = audits.get(algorithm)
    if audited is None or not audited.groups or audited.different_groups:
        return ""
    shares = [row["malformed"] for row in run.training()[algorithm] if row.get("malformed") is not None]
    unread = f" ({sum(shares) / len(shares):.0%} of them could not be read)" if shares else ""
    return (
        f"nothing was learned: at each of {audited.groups} times a task was tried, all attempts were paid the same"
        f"{unread}; train by sft first, choose easier tasks, or make more attempts (--samples)"
    )


def _tasks_to_learn(recipe: TrainingRecipe) -> list[Task]:
    """None for a file of demonstrations, which has all that is learned."""
    if recipe.demonstrations is not None:
        return []
    default = "demonstrations" if recipe.algorithm == "sft" else "tests_only"
    return limited(load_to_learn(recipe.tasks or "builtin", recipe.split, default), recipe.limit, recipe.seed)


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
