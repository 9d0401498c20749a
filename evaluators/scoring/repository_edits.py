"""Detects edits of a repository since its baseline was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from regrade.datasets.plurals import listed
from regrade.datasets.tasks import Task
from regrade.evaluators.static.languages import language_of

SHOWN = 3
"""Number of files that a message names."""


def edited_files(task: Task, now: Mapping[str, str]) -> list[str]:
    """The changed files that may affect the task's tests.

    These are source, tests, configuration and every file in a folder beside source, but not a log at the root of the
    repository, which the scoring program itself may write.

    Args:
        now: path -> digest of each file, as `Tree.known`.
    """
    before = task.base.known
    changed = {path for path in before.keys() | now.keys() if before.get(path) != now.get(path)} - task.base.removed
    if not changed:
        return []
    folders = {path.rpartition("/")[0] for path in before if language_of(path) is not None} - {""}
    return sorted(
        path
        for path in changed
        if language_of(path) is not None
        or task.suite.protects(path)
        or not folders.isdisjoint(map(str, PurePosixPath(path).parents))
    )


def edit_message(task: Task, edited: Sequence[str], *, is_newer: bool) -> str:
    """The error message, with the remedy.

    Args:
        is_newer: the task matches the current working tree, and the scorer's view of it is stale.
    """
    what = f"{listed(edited, SHOWN)} changed"
    if is_newer:
        when, advice = "while this Scorer was in use", "score the task with a new Scorer"
    else:
        when = "after the task was created from it"
        advice = "other tests may pass now, so create the task again (local_task, or the same command)"
    return f"the repository {str(task.base.root)!r} was edited {when} ({what}): {advice}"
