"""The shape of a patch."""

from __future__ import annotations

from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Task, Tree
from regrade.evaluators.static.files import counted
from regrade.rewards.evidence import Diff


def probe(before: Tree, after: Tree, patch: Patch, task: Task) -> Diff:  # noqa: ARG001 (every probe has this signature)
    """Lines and files of the patch, those left out that the run takes from the pristine tree.

    Raises:
        PatchError: the text is no patch.
    """
    files = counted(patch, task)
    return Diff(
        added_lines=sum(len(file.added) for file in files),
        removed_lines=sum(len(file.removed) for file in files),
        files=tuple(dict.fromkeys(file.path for file in files)),
    )
