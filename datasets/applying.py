"""Applying a patch to a tree in memory: strictly, without offsets or fuzz."""

from __future__ import annotations

from itertools import pairwise

import unidiff

from regrade.datasets.patches import Patch, PatchError
from regrade.datasets.tasks import Tree


def apply_patch(tree: Tree, patch: Patch) -> Tree:
    """The tree with the patch applied.

    Raises:
        PatchError: the patch cannot be read, or a hunk is not found exactly where it says.
    """
    if not patch.files:
        return tree
    contents = zip(patch.files, unidiff.PatchSet(patch.text), strict=True)
    for file, hunks in contents:
        if file.old_path is None and (tree.root / file.path).exists():
            raise PatchError(f"{file.path} is to be created, but it exists")
        old = "" if file.old_path is None else _read(tree, file.old_path)
        new = _applied(old, hunks, file.path)
        if file.is_deleted or (file.old_path is not None and file.old_path != file.path):
            tree = tree.without([file.old_path or file.path])
        if not file.is_deleted:
            tree = tree.with_files({file.path: new})
    return tree


def _read(tree: Tree, path: str) -> str:
    try:
        return tree.read(path)
    except OSError as error:
        raise PatchError(f"there is no file {path} to change") from error


def _applied(old: str, hunks: unidiff.PatchedFile, path: str) -> str:
    lines = old.split("\n")
    result: list[str] = []
    done = 0
    for hunk in hunks:
        # A hunk without old lines stands after the line that it names.
        start = hunk.source_start - 1 if hunk.source_length else hunk.source_start
        before = [line.value.rstrip("\n") for line in hunk if line.is_removed or line.is_context]
        if start < done or lines[start : start + len(before)] != before:
            raise PatchError(f"the hunk at line {hunk.source_start} of {path} does not match the file")
        result += lines[done:start]
        result += [line.value.rstrip("\n") for line in hunk if line.is_added or line.is_context]
        done = start + len(before)
    whole = [*result, *lines[done:]]
    text = "\n".join(whole)
    unfinished = _without_newline(hunks)
    if "+" in unfinished or " " in unfinished:
        return text.removesuffix("\n")
    # Only the old last line lacked its newline: every line that is left has one now.
    return f"{text}\n" if unfinished and whole else text


def _without_newline(hunks: unidiff.PatchedFile) -> set[str]:
    """Types (`-`, `+`, ` `) of the lines that `\\ No newline at end of file` follows."""
    lines = [line for hunk in hunks for line in hunk]
    return {line.line_type for line, following in pairwise(lines) if following.line_type == "\\"}
