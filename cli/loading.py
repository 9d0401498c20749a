"""Tasks for a command, with progress while their packages are fetched."""

from __future__ import annotations

from typing import TYPE_CHECKING

from regrade.cli.console import progress

if TYPE_CHECKING:
    from regrade.datasets.tasks import Task


def load(source: str, split: str | None) -> list[Task]:
    """The tasks of a source, with progress while packages are fetched. Raises UserError."""
    from regrade.datasets.sources import load_tasks

    with progress("fetching packages") as tell:
        return load_tasks(source, split=split, progress=tell)


def load_one(source: str, task_id: str) -> Task:
    """The task of that id. Raises UserError."""
    from regrade.datasets.sources import load_task

    with progress("fetching its package") as tell:
        return load_task(source, task_id, progress=tell)
