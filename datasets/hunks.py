"""The hunks of a patch, and patches of some of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from regrade.datasets.patches import Patch
from regrade.datasets.plain_diffs import NOWHERE, SIDES, DiffEntry, DiffHunk, git_header, line_counts, side

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
    for diff_entry in patch.plain.entries:
        entry = _file_entry(diff_entry, len(hunks), fine)
        entries.append(entry)
        hunks.extend(entry.pieces())
    return SplitPatch(patch, tuple(hunks), tuple(_inseparable(entries)), tuple(entries))


@dataclass(frozen=True, kw_only=True)
class _FileEntry:
    """One file's entry in a patch."""

    entry: DiffEntry
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
        return {*self.entry.names}

    def pieces(self) -> Iterator[Hunk]:
        path = self.entry.names[-1]
        if self.indexes == {self.head}:
            text = self.written(frozenset(self.indexes))
            added, removed = (sum(getattr(hunk, kind) for hunk in self.entry.hunks) for kind in ("added", "removed"))
            yield Hunk(path=path, what=self._what(), line=0, added=added, removed=removed, text=text)
            return
        if self.head is not None:
            text = self._header(self.entry.new, self.notes, bool(self.entry.hunks))
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
            return self._header(self.entry.new, self.notes, bool(body)) + body
        if not body:
            return ""
        return self._header(self.entry.new if self.head is None else self.entry.old, (), True) + body

    def _header(self, new: str, notes: Sequence[str], has_hunks: bool) -> str:
        old = self.entry.old
        sides = [f"--- {side('a', old)}", f"+++ {side('b', new)}"] if has_hunks else []
        return "".join(f"{line}\n" for line in (git_header(old, new), *notes, *sides))

    def _what(self) -> str:
        old, new = self.entry.old, self.entry.new
        if old == NOWHERE:
            return "new file"
        if new == NOWHERE:
            return "deleted file"
        if any(line.startswith("copy from ") for line in self.notes):
            return f"copied from {old}"
        if old != new:
            return f"renamed from {old}"
        return "binary file" if self.entry.binary else "mode of the file"


@dataclass(frozen=True)
class _SplitHunk:
    """A hunk, and the piece of each of its lines."""

    hunk: DiffHunk
    indexes: tuple[int | None, ...]
    """Index of the piece of each line; None for an unchanged line."""

    def count(self, index: int) -> tuple[int, int]:
        """(added lines, removed lines) of a piece."""
        lines = [line for line, owner in zip(self.hunk.lines, self.indexes, strict=True) if owner == index]
        return sum(line[0] == "+" for line in lines), sum(line[0] == "-" for line in lines)

    def first_line(self, index: int) -> int:
        """The line in the base that a piece first removes, or before which it first inserts."""
        start = self.hunk.old_start + (0 if self.hunk.counts[0] else 1)
        return start + line_counts(self.hunk.lines[: self.indexes.index(index)])[0]

    def written(self, chosen: frozenset[int], dropped: int) -> tuple[str, int]:
        """(the hunk with the chosen pieces, the net added lines of the omitted ones); an empty text without any piece.

        Args:
            dropped: net added lines of the omitted pieces before the hunk in the file.
        """
        lines = list(self._lines(chosen))
        gain = self.hunk.added - self.hunk.removed
        if not chosen & {*self.indexes}:
            return "", gain
        length, old_length = line_counts(lines)[1], self.hunk.counts[0]
        new = f"+{self.hunk.new_start - dropped},{length}"
        head = f"@@ -{self.hunk.old_start},{old_length} {new} @@{self.hunk.section}\n"
        return head + "".join(f"{line}\n" for line in lines), gain - (length - old_length)

    def _lines(self, chosen: frozenset[int]) -> Iterator[str]:
        """The lines of the hunk: an omitted piece's removed lines as context, and its added lines omitted."""
        is_written = True
        for line, index in zip(self.hunk.lines, self.indexes, strict=True):
            kind = line[0]
            if kind == MARKER:  # it concerns the line before
                sign = kind if is_written else ""
            elif index is None or index in chosen:
                sign = kind
            else:
                sign = " " if kind == "-" else ""
            is_written = bool(sign)
            if sign:
                yield f"{sign}{line[1:]}"


def _split_hunk(hunk: DiffHunk, first: int, fine: bool) -> _SplitHunk:
    """A hunk as one piece or, if `fine`, as one piece a run of changed lines; the first index is `first`."""
    indexes: list[int | None] = []
    index, is_within = first, False
    for line in hunk.lines:
        if line[0] == MARKER:
            indexes.append(indexes[-1] if indexes else None)
            continue
        is_changed = line[0] in SIDES
        if fine and is_within and not is_changed:
            index += 1
        is_within = is_changed
        indexes.append(index if is_changed else None)
    return _SplitHunk(hunk, tuple(indexes))


def _file_entry(entry: DiffEntry, first: int, fine: bool) -> _FileEntry:
    notes = (*entry.extended, *entry.binary)
    if not notes and len(entry.names) == 1:
        notes = ("new file mode 100644" if entry.old == NOWHERE else "deleted file mode 100644",)
    has_mode = any(line.startswith(("old mode ", "new mode ")) for line in notes)
    is_renamed = any(line.startswith("rename from ") for line in notes)
    if not entry.hunks or not (entry.old == entry.new or is_renamed):
        parts = [_SplitHunk(hunk, (first,) * len(hunk.lines)) for hunk in entry.hunks]
        return _FileEntry(entry=entry, notes=notes, head=first, parts=tuple(parts))
    head = first if has_mode or is_renamed else None
    notes = tuple(line for line in notes if not line.startswith("index "))  # a subset has other blobs
    parts = []
    start = first + (head is not None)
    for hunk in entry.hunks:
        parts.append(_split_hunk(hunk, start, fine))
        start = max((index for index in parts[-1].indexes if index is not None), default=start - 1) + 1
    return _FileEntry(entry=entry, notes=notes if head is not None else (), head=head, parts=tuple(parts))


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
