"""The measures of a task's reference patch, the yardstick for the size of a candidate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

from regrade.datasets.applying import apply_patch
from regrade.datasets.patches import PatchError
from regrade.datasets.tasks import Task, Tree

E = TypeVar("E")


def of_reference(measure: Callable[[Tree, Tree, Task], E], before: Tree, task: Task) -> E | None:
    """The measure of the reference patch; None if the task has none, or if it does not apply.

    It is taken once for all candidates of a task.
    """
    found: E | None = _measured(_ReferenceMeasure(measure, before, task))
    return found


@dataclass(frozen=True, eq=False)
class _ReferenceMeasure:
    """A measure of one task, as a cache key."""

    measure: Callable[[Tree, Tree, Task], Any]
    before: Tree
    task: Task

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, _ReferenceMeasure)
            and self.measure is other.measure
            and self.before is other.before
            and self.task is other.task
        )

    def __hash__(self) -> int:
        return hash((self.measure, id(self.before), id(self.task)))


@lru_cache(maxsize=32)
def _measured(of: _ReferenceMeasure) -> Any | None:
    if of.task.reference is None:
        return None
    try:
        return of.measure(of.before, apply_patch(of.before, of.task.reference), of.task)
    except PatchError:
        return None
