"""Parts of an evaluation's tasks: by repository, source, difficulty, and distance between symptom and cause.

Every trait is known before any policy has tried the task. (Difficulty by how a policy fared would make that policy look
bad on the hard ones by construction.)

| trait | meaning |
|-|-|
| repository | as in the rows |
| source | where the task came from: `mutation`, `local`, ... |
| difficulty | what the task says of itself, else the size of its reference (one line: of the function around it) |
| distance | imports on the shortest way from a FAIL_TO_PASS test's file to a file that the reference changes |
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from regrade.datasets.patches import PatchError
from regrade.datasets.tasks import Task
from regrade.evaluators.static.dependencies.distance import seen_by_failing_tests

TRAITS = ("repository", "source", "difficulty", "distance")
UNKNOWN = "unknown"
FAR = 3
"""From so many imports on, all distances are one slice."""
MANY_LINES = 10
LONG_FUNCTION, LONGER_FUNCTION = 10, 30


def traits_of(tasks: Iterable[Task], known: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Task id -> its source, difficulty and distance.

    Args:
        known: what a run has of its tasks (`Run.tasks`); those that are there, unchanged, are not looked at again.
    """
    return {task.id: _traits(task, known.get(task.id, {})) for task in tasks}


def slices(rows: pd.DataFrame, tasks: Mapping[str, Mapping[str, Any]], trait: str) -> dict[str, pd.DataFrame]:
    """Value of a trait -> the rows of its tasks; values in order, by size where they have one.

    Args:
        tasks: what a run has of its tasks (`Run.tasks`).
    """
    if trait == "repository":
        values = rows["repository"]
    else:
        values = rows["task"].map(lambda task: str(tasks.get(task, {}).get(trait, UNKNOWN)))
    return {value: rows[values == value] for value in sorted(set(values), key=_order)}


def varying_traits(rows: pd.DataFrame, tasks: Mapping[str, Mapping[str, Any]]) -> Sequence[str]:
    """The traits by which these tasks differ."""
    return [trait for trait in TRAITS if len(slices(rows.drop_duplicates("task"), tasks, trait)) > 1]


def _traits(task: Task, known: Mapping[str, Any]) -> dict[str, Any]:
    if known.get("digest") == task.digest and {"source", "difficulty", "distance"} <= known.keys():
        return {name: known[name] for name in ("source", "difficulty", "distance")}
    return {"source": task.source, "difficulty": difficulty(task), "distance": distance(task)}


def difficulty(task: Task) -> str:
    """A word for it (see the module's table); `unknown` without a reference that can be read."""
    if task.difficulty:
        return task.difficulty
    try:
        files, lines = (len(task.reference.files), task.reference.changed_lines) if task.reference else (0, 0)
    except PatchError:
        files = 0
    if not files:
        return UNKNOWN
    if files > 1:
        return "several files"
    if lines > MANY_LINES:
        return f"more than {MANY_LINES} lines"
    if lines > 2:
        return f"up to {MANY_LINES} lines"
    if task.target is None:
        return "one line"
    shown = task.target.last_line - task.target.first_line + 1
    if shown > LONGER_FUNCTION:
        return f"one line, function of more than {LONGER_FUNCTION} lines"
    return f"one line, function of up to {LONG_FUNCTION if shown <= LONG_FUNCTION else LONGER_FUNCTION} lines"


def distance(task: Task) -> str:
    """Imports between symptom and cause: `0` (the test's own file), `1`, `2`, `3 or more`; `unknown` if no way is seen.

    The cause is what the reference changes, else the file of the task's target.
    """
    try:
        causes = {file.path for file in task.reference.files} if task.reference else set()
    except PatchError:
        causes = set()
    if not causes and task.target:
        causes = {task.target.file}
    seen = seen_by_failing_tests(task) if causes else {}
    hops = min((seen[path] for path in causes if path in seen), default=None)
    if hops is None:
        return UNKNOWN
    return f"{FAR} or more" if hops >= FAR else str(hops)


_SIZES = (
    "0", "1", "2", f"{FAR} or more", "one line", f"one line, function of up to {LONG_FUNCTION} lines",
    f"one line, function of up to {LONGER_FUNCTION} lines", f"one line, function of more than {LONGER_FUNCTION} lines",
    f"up to {MANY_LINES} lines", f"more than {MANY_LINES} lines", "several files", UNKNOWN,
)  # fmt: skip


def _order(value: str) -> tuple[int, str]:
    return (_SIZES.index(value), "") if value in _SIZES else (-1, value)
