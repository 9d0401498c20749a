"""The text of a patch and the lines that it changes."""

from __future__ import annotations

from collections.abc import Collection

import unidiff

from regrade.datasets.patches import Patch, PatchError
from regrade.datasets.tasks import Task, Tree
from regrade.evaluators.static.files import changed_files
from regrade.evaluators.static.line_changes import changed_numbers
from regrade.rewards.evidence import ChangedLines, PatchText


def probe(before: Tree, after: Tree, patch: Patch, task: Task) -> PatchText:
    """The lines by which the files differ, as in `Diff`: also those of a renamed or copied file that no hunk shows."""
    files = changed_files(before, after, task)
    return PatchText(patch.text, tuple(ChangedLines(file.path, file.added, file.removed) for file in files))


def as_written(patch: Patch, files: Collection[str]) -> PatchText:
    """The same from the text of the patch alone, without a tree: the lines by which the sides of its hunks differ.

    Args:
        files: paths of the unprotected files that the patch changes.
    """
    try:
        sections = list(zip(patch.files, unidiff.PatchSet(patch.plain.text), strict=True))
    except PatchError:
        return PatchText("", ())
    changed = [_changed_lines(file.path, hunks) for file, hunks in sections if file.path in files]
    return PatchText(patch.text, tuple(sorted(changed, key=lambda each: each.file)))


def _changed_lines(path: str, hunks: unidiff.PatchedFile) -> ChangedLines:
    added: list[tuple[int, str]] = []
    removed: list[tuple[int, str]] = []
    for hunk in hunks:
        old = [(line.source_line_no, line.value.rstrip("\n")) for line in hunk if line.is_context or line.is_removed]
        new = [(line.target_line_no, line.value.rstrip("\n")) for line in hunk if line.is_context or line.is_added]
        gone, come = changed_numbers([text for _, text in old], [text for _, text in new])
        removed += [old[number - 1] for number in gone]
        added += [new[number - 1] for number in come]
    return ChangedLines(path, tuple(added), tuple(removed))
