"""The hunks of a patch, and patches of some of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import unidiff

from regrade.datasets.patch_forms import NOWHERE, unquoted
from regrade.datasets.patches import Patch

MARKER = "\\"
"""Type of the line `\\ No newline at end of file`, which concerns the line before it."""


@dataclass(frozen=True, kw_only=True)
class Hunk:
    """The smallest piece of a patch that can be written without the others.

    A hunk of an edited file, or one change in it; the creation, deletion or copy of a whole file, or a binary file; or
    the renaming or mode change of a file whose hunks are separate pieces.
    """

    path: str
    """Path after the patch; before it, for a deleted file."""
    what: str
    """Empty for a hunk of an edited file; else the change of the file, such as `new file` or `renamed from a.py`."""
    line: int
    """First changed line, in the numbering of the base (1-based); 0 if it concerns the whole file."""
    added: int
    """Lines added."""
    removed: int
    """Lines removed."""
    text: str
    """Its text in the patch."""

    @property
    def name(self) -> str:
        """`calc.py:12`, or `calc.py (new file)`."""
        return f"{self.path} ({self.what})" if self.what else f"{self.path}:{self.line}"

    @property
    def changed_lines(self) -> int:
        return self.added + self.removed


@dataclass(frozen=True)
class SplitPatch:
    """A patch split into hunks."""

    patch: Patch
    hunks: tuple[Hunk, ...]
    """In the order of the patch."""
    inseparable: tuple[frozenset[int], ...]
    """Indexes of the hunks in several entries for one file: a later entry continues from an earlier one."""
    _entries: tuple[_FileEntry, ...]

    def subset(self, chosen: Collection[int]) -> Patch:
        """The patch of the hunks at these indexes: for all of them the patch itself, for none the empty patch.

        Line numbers after the patch take the omitted hunks into account.
        """
        indexes = frozenset(chosen)
        if len(indexes) == len(self.hunks):
            return self.patch
        return Patch("".join(entry.written(indexes) for entry in self._entries))


def split_patch(patch: Patch, *, fine: bool = False) -> SplitPatch:
    """The hunks of a patch; the empty patch has none.

    Args:
        fine: also split hunks at each unchanged line between changes.

    Raises:
        PatchError: the text is not a unified diff.
    """
    if not patch.files:  # raises the PatchError
        return SplitPatch(patch, (), (), ())
    hunks: list[Hunk] = []
    entries = []
    for file in unidiff.PatchSet(patch.plain.text):
        entry = _file_entry(file, len(hunks), fine)
        entries.append(entry)
        hunks.extend(entry.pieces())
    return SplitPatch(patch, tuple(hunks), tuple(_inseparable(entries)), tuple(entries))


@dataclass(frozen=True, kw_only=True)
class _FileEntry:
    """One file's entry in a patch."""

    file: unidiff.PatchedFile
    source: str
    """With its prefix, or /dev/null."""
    target: str
    notes: tuple[str, ...]
    """Git's lines between `diff --git` and the hunks."""
    head: int | None
    """Index of the piece that concerns the whole file; None if there are only hunks."""
    parts: tuple[_SplitHunk, ...]
    """Its hunks."""

    @property
    def indexes(self) -> set[int]:
        """The indexes of all its pieces."""
        inside = {index for part in self.parts for index in part.indexes if index is not None}
        return inside if self.head is None else inside | {self.head}

    @property
    def paths(self) -> set[str]:
        return {unquoted(name)[2:] for name in (self.source, self.target) if name != NOWHERE}

    def pieces(self) -> Iterator[Hunk]:
        path = unquoted(self.source if self.target == NOWHERE else self.target)[2:]
        if self.indexes == {self.head}:
            text, added, removed = self.written(frozenset(self.indexes)), self.file.added, self.file.removed
            yield Hunk(path=path, what=self._what(), line=0, added=added, removed=removed, text=text)
            return
        if self.head is not None:
            text = self._header(self.source, self.target, self.notes, bool(self.file))
            yield Hunk(path=path, what=self._what(), line=0, added=0, removed=0, text=text)
        for part in self.parts:
            for index in dict.fromkeys(index for index in part.indexes if index is not None):
                added, removed = part.count(index)
                line, text = part.first_line(index), part.written(frozenset({index}), 0)[0]
                yield Hunk(path=path, what="", line=line, added=added, removed=removed, text=text)

    def written(self, chosen: frozenset[int]) -> str:
        """The entry with the pieces at these indexes; empty if it has none of them."""
        texts, dropped = [], 0
        for part in self.parts:
            text, gain = part.written(chosen, dropped)
            texts.append(text)
            dropped += gain
        body = "".join(texts)
        if self.head in chosen:
            return self._header(self.source, self.target, self.notes, bool(body)) + body
        if not body:
            return ""
        target = self.target if self.head is None else _side(self.source, "b")
        return self._header(self.source, target, (), True) + body

    def _header(self, source: str, target: str, notes: Sequence[str], has_hunks: bool) -> str:
        names = (
            _side(target, "a") if source == NOWHERE else source,
            _side(source, "b") if target == NOWHERE else target,
        )
        sides = f"--- {source}\n+++ {target}\n" if has_hunks else ""
        return f"diff --git {' '.join(names)}\n{''.join(notes)}{sides}"

    def _what(self) -> str:
        if self.source == NOWHERE:
            return "new file"
        if self.target == NOWHERE:
            return "deleted file"
        notes = "".join(self.notes)
        old, new = unquoted(self.source)[2:], unquoted(self.target)[2:]
        if "copy from " in notes:
            return f"copied from {old}"
        if old != new:
            return f"renamed from {old}"
        return "binary file" if "GIT binary patch" in notes or "Binary files" in notes else "mode of the file"


@dataclass(frozen=True)
class _SplitHunk:
    """A hunk, and the piece of each of its lines."""

    hunk: unidiff.Hunk
    indexes: tuple[int | None, ...]
    """Index of the piece of each line; None for an unchanged line."""

    def count(self, index: int) -> tuple[int, int]:
        """(added lines, removed lines) of a piece."""
        lines = [line for line, owner in zip(self.hunk, self.indexes, strict=True) if owner == index]
        return sum(line.is_added for line in lines), sum(line.is_removed for line in lines)

    def first_line(self, index: int) -> int:
        """The line in the base that a piece first removes, or before which it first inserts."""
        start = self.hunk.source_start + (0 if self.hunk.source_length else 1)
        before = self.hunk[: self.indexes.index(index)]
        return int(start + sum(line.is_context or line.is_removed for line in before))

    def written(self, chosen: frozenset[int], dropped: int) -> tuple[str, int]:
        """(the hunk with the chosen pieces, the net added lines of the omitted ones); an empty text without any piece.

        Args:
            dropped: net added lines of the omitted pieces before the hunk in the file.
        """
        lines = list(self._lines(chosen))
        gain = self.hunk.added - self.hunk.removed
        if not chosen & {*self.indexes}:
            return "", gain
        length = sum(line[0] in " +" for line in lines)
        section = f" {self.hunk.section_header}" if self.hunk.section_header else ""
        old = f"-{self.hunk.source_start},{self.hunk.source_length}"
        head = f"@@ {old} +{self.hunk.target_start - dropped},{length} @@{section}\n"
        return head + "".join(lines), gain - (length - self.hunk.source_length)

    def _lines(self, chosen: frozenset[int]) -> Iterator[str]:
        """The lines of the hunk: an omitted piece's removed lines as context, and its added lines omitted."""
        is_written = True
        for line, index in zip(self.hunk, self.indexes, strict=True):
            kind = line.line_type
            if kind == MARKER:  # it concerns the line before
                sign = kind if is_written else ""
            elif index is None or index in chosen:
                sign = kind
            else:
                sign = " " if line.is_removed else ""
            is_written = bool(sign)
            if sign:  # the empty line that may follow a hunk has no sign either
                yield f"{sign}{line.value}" if line.value.endswith("\n") else f"{sign}{line.value}\n"


def _split_hunk(hunk: unidiff.Hunk, first: int, fine: bool) -> _SplitHunk:
    """A hunk as one piece or, if `fine`, as one piece a run of changed lines; the first index is `first`."""
    indexes: list[int | None] = []
    index, is_within = first, False
    for line in hunk:
        if line.line_type == MARKER:
            indexes.append(indexes[-1] if indexes else None)
            continue
        is_changed = line.is_added or line.is_removed
        if fine and is_within and not is_changed:
            index += 1
        is_within = is_changed
        indexes.append(index if is_changed else None)
    return _SplitHunk(hunk, tuple(indexes))


def _file_entry(file: unidiff.PatchedFile, first: int, fine: bool) -> _FileEntry:
    source, target = (
        name if name == NOWHERE else _side(name, letter)
        for letter, name in (("a", file.source_file), ("b", file.target_file))
    )
    notes = tuple(str(line) for line in (file.patch_info or ())[1:])
    if not notes and NOWHERE in (source, target):
        notes = ("new file mode 100644\n" if source == NOWHERE else "deleted file mode 100644\n",)
    is_edit = NOWHERE not in (source, target) and unquoted(source)[2:] == unquoted(target)[2:]
    has_mode = any(line.startswith(("old mode ", "new mode ")) for line in notes)
    is_renamed = any(line.startswith("rename from ") for line in notes)
    if not file or not (is_edit or is_renamed):
        parts = [_SplitHunk(hunk, (first,) * len(hunk)) for hunk in file]
        return _FileEntry(file=file, source=source, target=target, notes=notes, head=first, parts=tuple(parts))
    head = first if has_mode or is_renamed else None
    notes = tuple(line for line in notes if not line.startswith("index "))  # a subset has other blobs
    parts = []
    start = first + (head is not None)
    for hunk in file:
        parts.append(_split_hunk(hunk, start, fine))
        start = max((index for index in parts[-1].indexes if index is not None), default=start - 1) + 1
    return _FileEntry(
        file=file, source=source, target=target, notes=notes if head is not None else (), head=head, parts=tuple(parts)
    )


def _side(name: str, letter: str) -> str:
    """The name of a file with the prefix `letter`, in quotes if `name` has quotes."""
    quote = '"' if name.startswith('"') else ""
    bare = name[len(quote) + 2 :]
    return f"{quote}{letter}/{bare}"


def _inseparable(entries: Sequence[_FileEntry]) -> Iterator[frozenset[int]]:
    """Indexes of the hunks of entries that share a path, directly or through other entries."""
    by_path: dict[str, set[int]] = defaultdict(set)
    for number, entry in enumerate(entries):
        for path in entry.paths:
            by_path[path].add(number)
    components: list[set[int]] = []
    for numbers in by_path.values():
        touching = [component for component in components if component & numbers]
        disjoint = [component for component in components if not component & numbers]
        components = [*disjoint, set().union(numbers, *touching)]
    for component in sorted(components, key=min):
        if len(component) > 1:
            yield frozenset().union(*(entries[number].indexes for number in component))
