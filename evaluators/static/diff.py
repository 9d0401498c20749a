"""The size of a patch: changed lines and files."""

from __future__ import annotations

from dataclasses import replace

from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Task, Tree
from regrade.evaluators.static.files import changed_files
from regrade.evaluators.static.reference import of_reference
from regrade.rewards.evidence import Diff


def probe(before: Tree, after: Tree, patch: Patch, task: Task) -> Diff:
    """The lines and files that the patch changes, without protected files (the run restores those).

    A patch that does not apply changes nothing. A renamed or binary file counts as a file without lines.

    Raises:
        PatchError: the patch cannot be parsed.
    """
    diff = _measure(before, after, patch, task)
    reference = of_reference(_measure, before, task)
    return replace(diff, reference_lines=reference.changed_lines if reference is not None else None)


def _measure(before: Tree, after: Tree, patch: Patch, task: Task) -> Diff:
    paths = {file.path for file in changed_files(before, after, patch, task)}
    files = [file for file in patch.files if file.path in paths]
    return Diff(
        added_lines=sum(len(file.added) for file in files),
        removed_lines=sum(len(file.removed) for file in files),
        files=tuple(dict.fromkeys(file.path for file in files)),
    )
