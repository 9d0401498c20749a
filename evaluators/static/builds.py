"""Does the patched source still byte-compile? (That it imports is found out in the sandbox.)"""

from __future__ import annotations

from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Task, Tree
from regrade.evaluators.static.files import changed_files
from regrade.evaluators.static.syntax import compile_error
from regrade.rewards.evidence import BuildRun


def probe(before: Tree, after: Tree, patch: Patch, task: Task) -> BuildRun:
    """Byte-compiles every changed Python file.

    A file that did not compile before the patch either is no fault of the patch. The interpreter that runs regrade
    compiles; it is the one that made the task's environment, so the two agree on the language.

    Raises:
        PatchError: the text is no patch.
    """
    checked, error = 0, ""
    for file in changed_files(before, after, patch, task):
        if not file.is_python or file.after is None:
            continue
        checked += 1
        problem = compile_error(file.after, file.path)
        was_sound = file.before is None or compile_error(file.before, file.old_path) is None
        if problem and was_sound and not error:
            error = problem
    return BuildRun(ok=not error, checked_files=checked, error=error)
