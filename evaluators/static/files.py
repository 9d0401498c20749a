"""The unprotected files that a patch changes, before and after it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice

from regrade.datasets.globs import is_protected
from regrade.datasets.patches import Patch, PatchedFile
from regrade.datasets.tasks import Task, Tree
from regrade.evaluators.static.languages import Language, language_of

LARGEST = 2_000_000
"""Most characters of a file that a static probe reads; a larger file counts as unparsable."""


@dataclass(frozen=True)
class ChangedFile:
    """One file that the patch changes. At most one of the two texts is None."""

    path: str
    """Path after the patch; of a deleted file, the path before it."""
    old_path: str
    """Path before the patch; the same as `path` unless the file was renamed."""
    before: str | None
    """None: the patch creates the file."""
    after: str | None
    """None: the patch deletes it."""

    @property
    def language(self) -> Language | None:
        """None if the dependency graph does not read the language."""
        return language_of(self.path)

    @property
    def is_python(self) -> bool:
        return self.path.endswith(".py") or (self.after is None and self.old_path.endswith(".py"))

    def becomes_unsound(self, is_sound: Callable[[str, str], bool]) -> bool:
        """Does the patch turn a sound file, or a new one, into an unsound one? `is_sound` gets text and path."""
        was_sound = self.before is None or is_sound(self.before, self.old_path)
        return self.after is not None and was_sound and not is_sound(self.after, self.path)


@dataclass(frozen=True)
class TreeKey:
    """A tree as a cache key: two are equal if their contents are."""

    digest: str
    tree: Tree = field(compare=False)


def is_unprotected(path: str, task: Task) -> bool:
    """False for files that the run takes from the pristine tree: editing them has no effect."""
    return not is_protected(path, task.suite.protected)


def unprotected_files(patch: Patch, task: Task) -> list[PatchedFile]:
    """The files of the patch without the protected ones. Raises PatchError if the patch cannot be parsed."""
    return [file for file in patch.files if is_unprotected(file.path, task)]


def changed_files(before: Tree, after: Tree, patch: Patch, task: Task) -> list[ChangedFile]:
    """The unprotected files whose text or path the patch changes, one entry a path."""
    changes: dict[str, ChangedFile] = {}
    for file in unprotected_files(patch, task):
        old = file.old_path or file.path
        # The run restores a protected file that the patch moves: the file at the new path is a new one.
        old_text = read(before, old) if is_unprotected(old, task) else None
        new_text = None if file.is_deleted else read(after, file.path)
        if old_text != new_text or old != file.path:
            changes[file.path] = ChangedFile(file.path, old, old_text, new_text)
    return [change for change in changes.values() if change.before is not None or change.after is not None]


def read(tree: Tree, path: str) -> str | None:
    """The text of a file, or None without one (a folder, a missing file, a broken link)."""
    try:
        return tree.read(path)
    except OSError:
        return None


def patched_text(text: str | None, file: PatchedFile) -> str:
    """The text of one file after the patch, computed from its hunks alone (for files that the run restores)."""
    removed = {number for number, _ in file.removed}
    old = (line for number, line in enumerate((text or "").split("\n"), start=1) if number not in removed)
    lines: list[str] = []
    for number, line in sorted(file.added):
        lines.extend(islice(old, max(0, number - 1 - len(lines))))
        lines.append(line)
    return "\n".join([*lines, *old])
