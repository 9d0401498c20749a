"""The measures of a task's reference patch, the yardstick for the size of a candidate."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from regrade.datasets.applying import apply_patch
from regrade.datasets.patches import PatchError
from regrade.datasets.tasks import Task, Tree

E = TypeVar("E")


def of_reference(measure: Callable[[Tree, Tree, Task], E], before: Tree, task: Task) -> E | None:
    """The measure of the reference patch; None if the task has none, or if it does not apply."""
    if task.reference is None:
        return None
    try:
        return measure(before, apply_patch(before, task.reference), task)
    except PatchError:
        return None
