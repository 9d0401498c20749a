"""A patch applied to a task's tree."""

from __future__ import annotations

from dataclasses import dataclass

from regrade.datasets.applying import changed_files, text_of, with_changes
from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Task, Tree
from regrade.evaluators.execution.inline_tests import with_pristine_tests
from regrade.evaluators.static.docstrings import with_pristine_docstrings


@dataclass(frozen=True)
class Workspace:
    """A task's files with a patch applied."""

    before: Tree
    after: Tree
    ignored: tuple[str, ...] = ()
    """Files of the patch that are not applied, because they decide the verdict."""


def prepare(task: Task, patch: Patch) -> Workspace:
    """Apply the patch to the task's base, strictly, and restore protected files from the pristine tree.

    Raises:
        PatchError: the patch does not apply; with the reason.
    """
    files = changed_files(task.base, patch)
    ignored = tuple(sorted(path for path in files if task.suite.protects(path)))
    applied = {path: text for path, text in files.items() if path not in ignored}
    if task.suite.runner == "cargo":
        for path, text in applied.items():
            if path.endswith(".rs") and text is not None:
                applied[path] = with_pristine_tests(text_of(task.base, path), text)
    for path in applied.keys() & set(task.suite.doctest_files):
        text = applied[path]
        if text is not None:
            applied[path] = with_pristine_docstrings(text_of(task.base, path) or "", text)
    return Workspace(task.base, with_changes(task.base, applied), ignored)
