"""The shape of a patch."""

from __future__ import annotations

from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Task, Tree
from regrade.evaluators.static.files import changed_files
from regrade.rewards.evidence import Diff


def probe(before: Tree, after: Tree, patch: Patch, task: Task) -> Diff:
    """Lines and files that the patch changes, those left out that the run takes from the pristine tree.

    A patch that does not apply changes nothing. A renamed or binary file counts as a file without lines.

    Raises:
        PatchError: the text is no patch.
    """
    paths = {file.path for file in changed_files(before, after, patch, task)}
    files = [file for file in patch.files if file.path in paths]
    return Diff(
        added_lines=sum(len(file.added) for file in files),
        removed_lines=sum(len(file.removed) for file in files),
        files=tuple(dict.fromkeys(file.path for file in files)),
    )
