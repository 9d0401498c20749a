"""The size of a patch: changed lines and files."""

from __future__ import annotations

from dataclasses import replace

from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Task, Tree
from regrade.evaluators.static.files import changed_files
from regrade.evaluators.static.reference import of_reference
from regrade.rewards.evidence import Diff


def probe(before: Tree, after: Tree, patch: Patch, task: Task) -> Diff:  # noqa: ARG001 (every probe has this signature)
    """The lines and files that the patch changes, without protected files (the run restores those).

    A patch that does not apply changes nothing. A renamed or binary file counts as a file without lines.
    """
    diff = _measure(before, after, task)
    reference = of_reference(_measure, before, task)
    return replace(diff, reference_lines=reference.changed_lines if reference is not None else None)


def _measure(before: Tree, after: Tree, task: Task) -> Diff:
    files = changed_files(before, after, task)
    return Diff(
        added_lines=sum(len(file.added) for file in files),
        removed_lines=sum(len(file.removed) for file in files),
        files=tuple(file.path for file in files),
    )
