"""Was a repository edited since it was found out which of its tests pass?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from regrade.datasets.globs import is_protected
from regrade.datasets.plurals import listed
from regrade.datasets.tasks import Task
from regrade.evaluators.static.languages import language_of

SHOWN = 3
"""Names of files in a complaint."""


def edited_files(task: Task, now: Mapping[str, str]) -> list[str]:
    """The files that may decide what the task's tests say, and are no longer as they were.

    Those are source, tests and configuration, and whatever lies in a folder beside source: not a log at the root of the
    repository, into which the very program that scores may be writing.

    Args:
        now: path -> digest of each file, as `Tree.known`.
    """
    known = task.base.known
    changed = {path for path in known.keys() | now.keys() if known.get(path) != now.get(path)} - task.base.removed
    if not changed:
        return []
    folders = {path.rpartition("/")[0] for path in known if language_of(path) is not None} - {""}
    return sorted(
        path
        for path in changed
        if language_of(path) is not None
        or is_protected(path, task.suite.protected)
        or not folders.isdisjoint(map(str, PurePosixPath(path).parents))
    )


def complaint(task: Task, edited: Sequence[str], *, is_newer: bool) -> str:
    """What is wrong, and what to do.

    Args:
        is_newer: the task is of the repository as it lies there now, and the scorer's view of it is not.
    """
    what = f"{listed(edited, SHOWN)} changed"
    if is_newer:
        when, advice = "while this Scorer was in use", "score the task with a new Scorer"
    else:
        when = "after the task was made of it"
        advice = "other tests may pass now, so make the task again (local_task, or the same command)"
    return f"the repository {str(task.base.root)!r} was edited {when} ({what}): {advice}"
