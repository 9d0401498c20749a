"""Slices of an evaluation's tasks by trait: repository, source, difficulty, distance between symptom and cause.

Every trait is independent of the policies. (A policy would be bad at hard tasks by construction if its own results
defined difficulty.)

| trait | meaning |
|-|-|
| repository | as in the rows |
| source | origin of the task: `mutation`, `local`, ... |
| difficulty | the task's own field, else the size of its reference (one line: of the enclosing function) |
| distance | imports on the shortest path from a FAIL_TO_PASS test's file to a file that the reference changes |
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from regrade.datasets.patches import PatchError
from regrade.datasets.tasks import Task
from regrade.evaluators.static.dependencies.distance import seen_by_failing_tests
from regrade.evaluators.static.files import ChangedFile, patched_files

TRAITS = ("repository", "source", "difficulty", "distance")
UNKNOWN = "unknown"
FAR = 3
"""All distances from this number of imports on are one slice."""
MANY_LINES = 10
LONG_FUNCTION, LONGER_FUNCTION = 10, 30


def traits_of(tasks: Iterable[Task], recorded: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Task id -> its source, difficulty and distance.

    Args:
        recorded: descriptions of tasks (`Run.tasks`); the traits of unchanged tasks are copied from there.
    """
    return {task.id: _traits(task, recorded.get(task.id, {})) for task in tasks}


def slices(rows: pd.DataFrame, tasks: Mapping[str, Mapping[str, Any]], trait: str) -> dict[str, pd.DataFrame]:
    """Value of a trait -> the rows of its tasks. Values with a size are sorted by size, others by name.

    Args:
        tasks: descriptions of the tasks (`Run.tasks`).
    """
    if trait == "repository":
        values = rows["repository"]
    else:
        values = rows["task"].map(lambda task: str(tasks.get(task, {}).get(trait, UNKNOWN)))
    return {value: rows[values == value] for value in sorted(set(values), key=_order)}


def varying_traits(rows: pd.DataFrame, tasks: Mapping[str, Mapping[str, Any]]) -> Sequence[str]:
    """The traits with several values among these tasks."""
    return [trait for trait in TRAITS if len(slices(rows.drop_duplicates("task"), tasks, trait)) > 1]


def _traits(task: Task, recorded: Mapping[str, Any]) -> dict[str, Any]:
    if recorded.get("digest") == task.digest and {"source", "difficulty", "distance"} <= recorded.keys():
        return {name: recorded[name] for name in ("source", "difficulty", "distance")}
    return {"source": task.source, "difficulty": difficulty(task), "distance": distance(task)}


def difficulty(task: Task) -> str:
    """Difficulty (see the module's table); `unknown` without a valid reference."""
    if task.difficulty:
        return task.difficulty
    files = _reference_files(task)
    if not files:
        return UNKNOWN
    if len(files) > 1:
        return "several files"
    lines = len(files[0].removed) + len(files[0].added)
    if lines > MANY_LINES:
        return f"more than {MANY_LINES} lines"
    if lines > 2:
        return f"up to {MANY_LINES} lines"
    if task.target is None:
        return "one line"
    length = task.target.last_line - task.target.first_line + 1
    if length > LONGER_FUNCTION:
        return f"one line, function of more than {LONGER_FUNCTION} lines"
    return f"one line, function of up to {LONG_FUNCTION if length <= LONG_FUNCTION else LONGER_FUNCTION} lines"


def distance(task: Task) -> str:
    """Imports between symptom and cause: `0` (the test's own file), `1`, `2`, `3 or more`; `unknown` without a path.

    The cause is a file that the reference changes, else the file of the task's target.
    """
    causes = {file.old_path for file in _reference_files(task)}
    if not causes and task.target:
        causes = {task.target.file}
    distances = seen_by_failing_tests(task) if causes else {}
    hops = min((distances[path] for path in causes if path in distances), default=None)
    if hops is None:
        return UNKNOWN
    return f"{FAR} or more" if hops >= FAR else str(hops)


def _reference_files(task: Task) -> list[ChangedFile]:
    """The files that the reference changes; none without a reference that applies."""
    if task.reference is None:
        return []
    try:
        return patched_files(task.base, task.reference)
    except (PatchError, OSError):
        return []


_SIZES = (
    "0", "1", "2", f"{FAR} or more", "one line", f"one line, function of up to {LONG_FUNCTION} lines",
    f"one line, function of up to {LONGER_FUNCTION} lines", f"one line, function of more than {LONGER_FUNCTION} lines",
    f"up to {MANY_LINES} lines", f"more than {MANY_LINES} lines", "several files", UNKNOWN,
)  # fmt: skip


def _order(value: str) -> tuple[int, str]:
    return (_SIZES.index(value), "") if value in _SIZES else (-1, value)
