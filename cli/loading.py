"""Load the tasks of a command, with a progress display for the download of their packages, and patches for them."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from regrade.cli.console import activities, one_line, progress
from regrade.datasets.errors import UserError

if TYPE_CHECKING:
    from regrade.datasets.patches import Patch
    from regrade.datasets.tasks import Task


def load(source: str, split: str | None) -> list[Task]:
    """The tasks of a source. Raises UserError."""
    from regrade.datasets.sources import load_tasks

    with activities() as report:

        def told(done: int, total: int) -> None:
            report("downloading packages", done, total)
            if done == total:
                report("making the tasks", 0, 0)

        return load_tasks(source, split=split, progress=told)


def load_to_learn(source: str, split: str | None, default: str) -> list[Task]:
    """The tasks of a source that a model may learn from: where they have splits, those of one of them.

    Args:
        default: the split if `split` is None and the tasks have splits.

    Raises:
        UserError: as `load`; the split is kept for the verdict; the source has splits, and not the default one.
    """
    from regrade.datasets.sources import split_names

    if split == "held_out":
        raise UserError("--split held_out: these tasks are for the verdict, and nothing is trained on them")
    names = split_names(source) if split is None else ()
    if not names:
        return load(source, split)
    if default not in names:
        raise UserError(
            f"{source} has no task in the split {default!r}, from which this learns: choose another with --split, of "
            f"{', '.join(name for name in names if name != 'held_out') or 'a set that has one'}"
        )
    tasks = load(source, default)
    if not is_ready_made(Path(source)):
        note = f"note: learns from the {len(tasks)} tasks of the split {default!r}; --split chooses another"
        typer.echo(note, err=True)
    return tasks


def load_one(source: str, task_id: str) -> Task:
    """The task with this id. Raises UserError."""
    from regrade.datasets.sources import load_task

    with progress("downloading the package") as report:
        return load_task(source, task_id, progress=report)


def measured(tasks: list[Task], sandbox: str, tell: Callable[[str], None] | None = None) -> list[Task]:
    """The tasks, with measured PASS_TO_PASS tests where their file names none. Raises UserError.

    Args:
        tell: called with notes; None: prints them to standard error.
    """
    from regrade.evaluators.task_curation.measured_tasks import with_pass_to_pass

    tell = tell or (lambda note: typer.echo(f"note: {one_line(note)}", err=True))
    if not any(task.is_unmeasured for task in tasks):
        return with_pass_to_pass(tasks, tell=tell)
    with progress("running the unchanged tests") as report:
        return with_pass_to_pass(tasks, sandbox=sandbox, progress=report, tell=tell)


def is_ready_made(tasks: Path | None) -> bool:
    """Are the tasks ready-made ones, by default the builtin ones, so that only one split of them is for this use?"""
    from regrade.datasets.sources import READY_MADE

    return tasks is None or str(tasks) in READY_MADE


def limited(tasks: list[Task], limit: int | None, seed: int) -> list[Task]:
    """At most `limit` tasks, drawn by the seed; None: all."""
    if limit is None or limit >= len(tasks):
        return tasks
    return random.Random(seed).sample(sorted(tasks, key=lambda task: task.id), limit)


def proposed_patches(files: Sequence[Path], tasks: Sequence[Task]) -> dict[str, list[Patch]]:
    """Task -> the patches that predictions propose for it. Raises UserError if they are for other tasks."""
    from regrade.datasets.formats.predictions import read_predictions

    if not files:
        return {}
    read = read_predictions(files)
    read.check_known([task.id for task in tasks])
    for line in read.broken:
        typer.echo(f"note: {one_line(line)}", err=True)
    found = defaultdict(list)
    for predictions in read.models:
        for instance, patch in predictions.patches.items():
            found[instance].append(patch)
    return dict(found)
