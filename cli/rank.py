"""`regrade rank`: rank patches for one task by a reward model, without running anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from regrade.cli import options
from regrade.cli.console import print_json, stdout, stdout_to_stderr
from regrade.cli.jobs import PatchFiles, PatchResult, ScoreRequest, find_base
from regrade.cli.score import refusal_json, refusals
from regrade.datasets.errors import UserError

if TYPE_CHECKING:
    from regrade.datasets.tasks import Task
    from regrade.rewards.evidence import Prediction

Ranked = tuple[PatchResult, "Prediction"]


@dataclass(frozen=True, kw_only=True)
class RankOptions:
    """The arguments and options of the command."""

    patches: options.Patches
    model: Annotated[Path, typer.Option("--model", metavar="FOLDER", help="Folder of a trained reward model.")]
    repo: options.Repo = Path()
    instruction: Annotated[str, typer.Option(help="What the patches are to do, for --repo.")] = ""
    fail_to_pass: options.FailToPass = None
    tasks: options.TaskFile = None
    task: options.TaskId = None
    json: options.AsJson = False


@options.takes(RankOptions)
def rank(given: RankOptions) -> None:
    """Rank patches for one task by a reward model, the best one first. Nothing is executed.

    Prints the predicted probability of a clean fix with its doubt, half the width of the 95 % interval, and the
    prediction for each component. A prediction certifies nothing: score the best patch with `regrade score`.

    If one of several patches does not apply, it is reported, the others are ranked, and the command exits with 2.
    """
    from regrade.evaluators.scoring.model_probes import load_predictor
    from regrade.rewards.reward_model_folders import read_record

    read_record(given.model)  # fails before the libraries of training are imported
    batch = PatchFiles(given.patches)
    with stdout_to_stderr():
        task = _task(given)
        batch.check(task, is_stored=given.tasks is not None or given.task is not None)
        jobs = [(task.without_reference(), patch) for patch in batch.patches.values()]
        predictions = dict(zip(batch.patches, load_predictor(given.model).predict(jobs), strict=True))
    results = batch.results()
    ranked = sorted(((results[index], each) for index, each in predictions.items()), key=_order)
    for number, (result, prediction) in enumerate(ranked, 1):
        if given.json:
            print_json({"rank": number, **_names(result), **_as_json(prediction)})
    if given.json:
        for result in results:
            if result.refusal:
                print_json({"rank": None, **_names(result), **refusal_json(result)})
    elif ranked:
        _print(ranked)
    if failure := refusals(results):
        raise UserError(failure)


def _task(given: RankOptions) -> Task:
    request = ScoreRequest(
        repo=given.repo, fail_to_pass=(), tasks=given.tasks, task=given.task, reward="", sandbox="auto", workers=None,
        reachable=False,
    )  # fmt: skip
    task = find_base(request)
    if not request.is_task:
        return replace(task, instruction=given.instruction, fail_to_pass=tuple(given.fail_to_pass or ()))
    if given.fail_to_pass or given.instruction:
        raise UserError("--fail-to-pass and --instruction apply to a repository; a task has its own: leave them out")
    return task


def _order(ranked: Ranked) -> tuple[bool, float, float]:
    """The likeliest clean fix first, of equal ones the surest, then the first; those without a prediction last."""
    _, prediction = ranked
    return prediction.resolved is None, -(prediction.resolved or 0.0), prediction.doubt


def _names(result: PatchResult) -> dict[str, Any]:
    return {"patch": result.source, "digest": result.patch.digest if result.patch is not None else None}


def _as_json(prediction: Prediction) -> dict[str, Any]:
    """The fields of the evidence; the probability of a clean fix is `resolved`."""
    return asdict(prediction)


def _print(ranked: Sequence[Ranked]) -> None:
    from rich.table import Table

    from regrade.evaluators.storage.labelled_attempts import Component

    names = dict.fromkeys(part.name for _, prediction in ranked for part in prediction.parts)
    components = [name for name in names if name != Component.CLEAN]
    table = Table("", "patch", box=None, pad_edge=False)
    for column in ("clean fix", *components, ""):
        table.add_column(column, justify="right" if column else "left")
    for number, (result, prediction) in enumerate(ranked, 1):
        parts = {part.name: part for part in prediction.parts}
        values = [
            _interval(parts[name].value, parts[name].doubt) if name in parts else ""
            for name in components
            if name != "clean"
        ]
        clean = "unknown" if prediction.resolved is None else _interval(prediction.resolved, prediction.doubt)
        table.add_row(
            str(number), result.source, clean, *values, "; ".join(filter(None, (prediction.why, prediction.cut)))
        )
    console = stdout()
    console.print(table)
    console.print("predicted, not executed: `regrade score` runs the tests", style="dim", markup=False)


def _interval(value: float, doubt: float) -> str:
    return f"{value:.2f} \N{PLUS-MINUS SIGN} {doubt:.2f}"
