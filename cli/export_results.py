"""`regrade export`: the results of a run in the formats of other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from regrade.cli.export_trajectories import export_trajectories
from regrade.cli.options import MOST, Seed, creatable
from regrade.datasets.errors import UserError
from regrade.datasets.plurals import counted


def export_results(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="SOURCE...",
            help="Folder of a run; several for preferences and sft; for atif also a file or folder of trajectories.",
        ),
    ],
    form: Annotated[
        Literal["swe-bench", "preferences", "sft", "atif"],
        typer.Option(
            "--format",
            help="swe-bench: predictions, report.json, summary; preferences, sft: a Hugging Face dataset of patches; "
            "atif: trajectories as ATIF 1.7, the format of Harbor and NeMo Gym.",
        ),
    ],
    out: Annotated[Path, typer.Option(file_okay=False, callback=creatable, help="Folder to write, or to replace.")],
    predictions: Annotated[
        Literal["jsonl", "list", "dict"],
        typer.Option(help="swe-bench: predictions as JSON lines, a JSON list, or an object keyed by instance."),
    ] = "jsonl",
    pairs_per_task: Annotated[
        int, typer.Option(min=1, max=MOST, help="preferences: maximum number of pairs of a task.")
    ] = 8,
    held_out: Annotated[
        float, typer.Option(min=0, max=0.9, help="preferences, sft: share of the functions in the split `test`.")
    ] = 0.0,
    seed: Seed = 0,
) -> None:
    """Write the results of a run in the format of another program. Nothing is executed.

    swe-bench writes a folder for each policy, temperature, sample and seed. `regrade import` reads it. preferences
    pairs attempts at one task with different rewards; sft takes the clean fixes. Both have a card, and
    `datasets.load_dataset` loads them. atif writes a file an attempt. It converts the trajectories of mini-swe-agent,
    SWE-agent, OpenHands and Inspect; those of Regrade's own agents keep the tree after each step, and are read back
    whole.
    """
    if len(runs) > 1 and form in ("swe-bench", "atif"):
        raise UserError(f"--format {form} takes one source, found {len(runs)}: export each into a folder of its own")
    if form == "atif":
        export_trajectories(runs[0], out)
        return
    from regrade.evaluators.storage.labelled_attempts import open_attempts
    from regrade.evaluators.storage.run import Run

    if form == "swe-bench":
        from regrade.evaluators.storage.exported_results import write_results

        for each in write_results(Run.open(runs[0]), out, predictions):
            found = counted(each.predictions, "prediction")
            typer.echo(f"{out / each.folder}: {found}, {each.resolved} resolved")
        return
    from regrade.policy_training.reward_models.shared_datasets import write_shared_dataset

    made = write_shared_dataset(open_attempts(runs), out, form, per_task=pairs_per_task, held_out=held_out, seed=seed)
    listed = ", ".join(f"{split} {count}" for split, count in made.rows.items())
    typer.echo(f"{out}: {counted(sum(made.rows.values()), 'row')} ({listed})")
