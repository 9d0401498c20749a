"""The text of a patch and the lines that it changes."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from regrade.datasets.line_changes import changed_numbers
from regrade.datasets.patches import Patch, PatchError
from regrade.datasets.plain_diffs import DiffHunk
from regrade.datasets.tasks import Task, Tree
from regrade.evaluators.static.files import changed_files
from regrade.rewards.evidence import ChangedLines, PatchText


def probe(before: Tree, after: Tree, patch: Patch, task: Task) -> PatchText:
    """The lines by which the files differ, as in `Diff`: also those of a renamed or copied file that no hunk shows."""
    files = changed_files(before, after, task)
    return PatchText(
        patch.text, tuple(_without_cr(ChangedLines(file.path, file.added, file.removed)) for file in files)
    )


def as_written(patch: Patch, files: Collection[str]) -> PatchText:
    """The same from the text of the patch alone, without a tree: the lines by which the sides of its hunks differ.

    Args:
        files: paths of the unprotected files that the patch changes.
    """
    try:
        sections = list(zip(patch.files, patch.plain.entries, strict=True))
    except PatchError:
        return PatchText("", ())
    changed = [_changed_lines(file.path, entry.hunks) for file, entry in sections if file.path in files]
    return PatchText(patch.text, tuple(sorted(map(_without_cr, changed), key=lambda each: each.file)))


def _without_cr(lines: ChangedLines) -> ChangedLines:
    """The text of a line does not depend on how the file ends its lines."""
    added, removed = (
        tuple((number, text.removesuffix("\r")) for number, text in side) for side in (lines.added, lines.removed)
    )
    return ChangedLines(lines.file, added, removed)


def _changed_lines(path: str, hunks: Sequence[DiffHunk]) -> ChangedLines:
    added: list[tuple[int, str]] = []
    removed: list[tuple[int, str]] = []
    for hunk in hunks:
        old = list(enumerate((line[1:] for line in hunk.lines if line[0] in " -"), start=hunk.old_start))
        new = list(enumerate((line[1:] for line in hunk.lines if line[0] in " +"), start=hunk.new_start))
        gone, come = changed_numbers([text for _, text in old], [text for _, text in new])
        removed += [old[number - 1] for number in gone]
        added += [new[number - 1] for number in come]
    return ChangedLines(path, tuple(added), tuple(removed))
