"""Byte-compilation of the changed Python files. (The sandbox checks that they import.)"""

from __future__ import annotations

from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Task, Tree
from regrade.evaluators.static.files import changed_files
from regrade.evaluators.static.syntax import compile_error
from regrade.rewards.evidence import BuildRun


def probe(before: Tree, after: Tree, patch: Patch, task: Task) -> BuildRun:  # noqa: ARG001 (every probe has this signature)
    """Byte-compiles every changed Python file; the evidence names the first error that the patch introduces.

    The current interpreter compiles. It also made the task's environment, so that both accept the same syntax.
    """
    checked_files, first_error = 0, ""
    for file in changed_files(before, after, task):
        if not file.is_python or file.after is None:
            continue
        checked_files += 1
        error = compile_error(file.after, file.path)
        compiled_before = file.before is None or compile_error(file.before, file.old_path) is None
        if error and compiled_before and not first_error:
            first_error = error
    return BuildRun(ok=not first_error, checked_files=checked_files, error=first_error)
