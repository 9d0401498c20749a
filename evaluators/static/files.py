"""The files that a patch changes, before and after it, as far as they count."""

from __future__ import annotations

from dataclasses import dataclass

from regrade.datasets.globs import is_protected
from regrade.datasets.patches import Patch, PatchedFile
from regrade.datasets.tasks import Task, Tree
from regrade.evaluators.static.languages import Language, language_of

LARGEST = 2_000_000
"""Characters of a file that a static probe still reads; a larger one counts as unparsable."""


@dataclass(frozen=True)
class ChangedFile:
    """One file that the patch changes. At least one of the two texts is there."""

    path: str
    """Path after the patch; before it, where the file is deleted."""
    old_path: str
    """Path before the patch; the same as `path` unless the file was renamed."""
    before: str | None
    """None: there was no such file."""
    after: str | None
    """None: the patch deletes it."""

    @property
    def language(self) -> Language | None:
        """None where the dependency graph does not read it."""
        return language_of(self.path)

    @property
    def is_python(self) -> bool:
        return self.path.endswith(".py") or (self.after is None and self.old_path.endswith(".py"))


def counts(path: str, task: Task) -> bool:
    """False for files that the run takes from the pristine tree, so that editing them changes nothing."""
    return not is_protected(path, task.suite.protected)


def counted(patch: Patch, task: Task) -> list[PatchedFile]:
    """The files of the patch that count. Raises PatchError where the patch cannot be parsed."""
    return [file for file in patch.files if counts(file.path, task)]


def changed_files(before: Tree, after: Tree, patch: Patch, task: Task) -> list[ChangedFile]:
    """The files whose text the patch really changes, one entry a path; protected files are left out."""
    found: dict[str, ChangedFile] = {}
    for file in counted(patch, task):
        old = file.old_path or file.path
        # A protected file that was moved away is still where it was: its copy is new.
        was = read(before, old) if counts(old, task) else None
        now = None if file.is_deleted else read(after, file.path)
        if was != now or old != file.path:
            found[file.path] = ChangedFile(file.path, old, was, now)
    return [change for change in found.values() if change.before is not None or change.after is not None]


def read(tree: Tree, path: str) -> str | None:
    """The text of a file, or None where there is none (a folder, a missing file, a link to nowhere)."""
    try:
        return tree.read(path)
    except OSError:
        return None


def patched_text(text: str | None, file: PatchedFile) -> str:
    """What the patch makes of one file, computed from its hunks alone (for files that the run keeps pristine)."""
    removed = {number for number, _ in file.removed}
    lines = [line for number, line in enumerate((text or "").split("\n"), start=1) if number not in removed]
    for number, line in sorted(file.added):
        lines.insert(number - 1, line)
    return "\n".join(lines)
