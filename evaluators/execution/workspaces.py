"""A patch applied to a task's tree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from regrade.datasets.applying import changed_files, parents, text_of, with_changes
from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Task, Tree
from regrade.evaluators.execution.inline_tests import with_pristine_tests
from regrade.evaluators.static.docstrings import with_pristine_docstrings
from regrade.evaluators.static.languages import language_of


@dataclass(frozen=True)
class Workspace:
    """A task's files with a patch applied."""

    before: Tree
    after: Tree
    ignored: tuple[str, ...] = ()
    """Files of the patch that are not applied, because they decide the verdict."""
    restored: Mapping[str, str] = field(default_factory=dict)
    """Those of them that are no code and lie outside of the folders of tests, with the text of the patch: a test may
    compare them with the code under test."""


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
    folders = {path.rpartition("/")[0] for path in task.suite.test_files if path.endswith(".py")} - {""}
    restored = {
        path: text
        for path in ignored
        if (text := files[path]) is not None and _may_be_compared(task, path) and folders.isdisjoint(parents(path))
    }
    return Workspace(task.base, with_changes(task.base, applied), ignored, restored)


def _may_be_compared(task: Task, path: str) -> bool:
    return language_of(path) is None and text_of(task.base, path) is not None
