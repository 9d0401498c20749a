"""Load the tasks of a command, with a progress display for the download of their packages."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from regrade.cli.console import progress

if TYPE_CHECKING:
    from regrade.datasets.tasks import Task


def load(source: str, split: str | None) -> list[Task]:
    """The tasks of a source. Raises UserError."""
    from regrade.datasets.sources import load_tasks

    with progress("downloading packages") as report:
        return load_tasks(source, split=split, progress=report)


def load_one(source: str, task_id: str) -> Task:
    """The task with this id. Raises UserError."""
    from regrade.datasets.sources import load_task

    with progress("downloading the package") as report:
        return load_task(source, task_id, progress=report)


def limited(tasks: list[Task], limit: int | None, seed: int) -> list[Task]:
    """At most `limit` tasks, drawn by the seed; None: all."""
    if limit is None or limit >= len(tasks):
        return tasks
    return random.Random(seed).sample(sorted(tasks, key=lambda task: task.id), limit)
