"""The verdict on a folder that an agent has edited: the patch from the task's base to it."""

from __future__ import annotations

import shutil
from pathlib import Path

from regrade.datasets.errors import UserError
from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Task
from regrade.evaluators.sandboxes.scratch import remove, scratch_folder
from regrade.policy_training.adapters.verdicts import Answer, Verdict, Verdicts
from regrade.policy_training.policies.tree_copies import FreshCopy


def patch_of_tree(task: Task, folder: Path) -> Patch:
    """The difference from the base of a task to a folder. Its git repository, caches, virtual environments and new
    files that its `.gitignore` matches are left out.

    Raises:
        UserError: the folder does not exist, or git is not installed.
        OSError: the folder cannot be read, or the disk is full.
    """
    if not folder.is_dir():
        raise UserError(f"no folder {str(folder)!r} to judge: name the repository that the agent edited")
    root = scratch_folder()
    try:
        copy = FreshCopy(task.base, root)
        remove(copy.folder)
        shutil.copytree(folder, copy.folder, symlinks=True, ignore=shutil.ignore_patterns(".git"))
        return copy.patch()
    finally:
        remove(root)


def verdict_of_tree(verdicts: Verdicts, task_id: str, folder: Path) -> Verdict:
    """The verdict on the folder as an answer to the task; unscored if it cannot be read.

    Raises:
        UserError: the task is unknown, the folder does not exist, or git is not installed.
    """
    task = verdicts.task(task_id)
    try:
        answer = Answer(task_id, patch=patch_of_tree(task, folder).text)
    except OSError as error:
        answer = Answer(task_id, patch="", lost=f"the folder {str(folder)!r} cannot be read: {error}")
    (verdict,) = verdicts.of([answer])
    return verdict
