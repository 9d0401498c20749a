"""The hunks of a patch, and patches made of some of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

import unidiff

from regrade.datasets.patches import Patch, unquoted

NOWHERE = "/dev/null"
MARKER = "\\"
"""Type of the line that says that the one before has no newline."""


@dataclass(frozen=True, kw_only=True)
class Hunk:
    """The smallest piece of a patch that can be written down without the others.

    A hunk of an edited file, or one of its changes; what happens to a whole file (it is created, deleted, copied or
    binary); or the renaming, or the change of mode, of a file whose hunks are pieces of their own.
    """

    path: str
    """Path after the patch; before it, for a deleted file."""
    what: str
    """Empty for a hunk of an edited file; else what happens to the file, such as `new file` or `renamed from a.py`."""
    line: int
    """First line that it changes, as numbered in the base (1-based); 0 where it is about the whole file."""
    added: int
    """Lines added."""
    removed: int
    """Lines removed."""
    text: str
    """As it stands in the patch."""

    @property
    def name(self) -> str:
        """`calc.py:12`, or `calc.py (new file)`."""
        return f"{self.path} ({self.what})" if self.what else f"{self.path}:{self.line}"

    @property
    def changed_lines(self) -> int:
        return self.added + self.removed


@dataclass(frozen=True)
class SplitPatch:
    """A patch taken apart."""

    patch: Patch
    hunks: tuple[Hunk, ...]
    """In the order of the patch."""
    inseparable: tuple[frozenset[int], ...]
    """Places of hunks that lie in several entries about one file: the later entry starts from what the earlier left."""
    _blocks: tuple[_FileEntry, ...]

    def subset(self, chosen: Collection[int]) -> Patch:
        """The patch of the hunks at these places. Of all of them it is the patch itself, of none the empty one.

        Line numbers after the patch are those that hold without the hunks that are left out.
        """
        wanted = frozenset(chosen)
        if len(wanted) == len(self.hunks):
            return self.patch
        return Patch("".join(block.written(wanted) for block in self._blocks))


def split_patch(patch: Patch, *, fine: bool = False) -> SplitPatch:
    """The hunks of a patch; none of the empty one.

    Args:
        fine: take hunks apart as well, wherever unchanged lines lie between changes.

    Raises:
        PatchError: the text is no unified diff.
    """
    if not patch.files:  # which also says what is wrong with the text
        return SplitPatch(patch, (), (), ())
    hunks: list[Hunk] = []
    blocks = []
    files = unidiff.PatchSet(patch.text)
    for file in files:
        block = _block(file, len(hunks), patch.has_prefixes, fine)
        blocks.append(block)
        hunks.extend(block.pieces())
    return SplitPatch(patch, tuple(hunks), tuple(_entangled(blocks)), tuple(blocks))


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
    """Place of the piece that is about the file; None where there are only hunks."""
    parts: tuple[_SplitHunk, ...]
    """Its hunks."""

    @property
    def places(self) -> set[int]:
        """Of all its pieces."""
        inside = {place for part in self.parts for place in part.places if place is not None}
        return inside if self.head is None else inside | {self.head}

    @property
    def paths(self) -> set[str]:
        return {unquoted(name)[2:] for name in (self.source, self.target) if name != NOWHERE}

    def pieces(self) -> Iterator[Hunk]:
        path = unquoted(self.source if self.target == NOWHERE else self.target)[2:]
        places = sorted(self.places)
        if places == [self.head]:
            yield Hunk(
                path=path,
                what=self._what(),
                line=0,
                added=self.file.added,
                removed=self.file.removed,
                text=self.written(frozenset(places)),
            )
            return
        if self.head is not None:
            yield Hunk(
                path=path,
                what=self._what(),
                line=0,
                added=0,
                removed=0,
                text=self._header(self.source, self.target, self.notes, bool(self.file)),
            )
        for part in self.parts:
            for place in dict.fromkeys(place for place in part.places if place is not None):
                added, removed = part.count(place)
                yield Hunk(
                    path=path,
                    what="",
                    line=part.first_line(place),
                    added=added,
                    removed=removed,
                    text=part.written(frozenset({place}), 0)[0],
                )

    def written(self, chosen: frozenset[int]) -> str:
        """The entry with the pieces at these places; empty where there are none."""
        kept, dropped = [], 0
        for part in self.parts:
            text, lost = part.written(chosen, dropped)
            kept.append(text)
            dropped += lost
        body = "".join(kept)
        if self.head in chosen:
            return self._header(self.source, self.target, self.notes, bool(body)) + body
        if not body:
            return ""
        target = self.target if self.head is None else _side(self.source, "b", prefixed=True)
        return self._header(self.source, target, (), True) + body

    def _header(self, source: str, target: str, notes: Sequence[str], has_hunks: bool) -> str:
        names = (
            _side(target, "a", prefixed=True) if source == NOWHERE else source,
            _side(source, "b", prefixed=True) if target == NOWHERE else target,
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
    """A hunk, and to which piece each of its lines belongs."""

    hunk: unidiff.Hunk
    places: tuple[int | None, ...]
    """Place of the piece of each line; None for an unchanged one."""

    def count(self, place: int) -> tuple[int, int]:
        """Lines that a piece adds, and that it removes."""
        mine = [line for line, other in zip(self.hunk, self.places, strict=True) if other == place]
        return sum(line.is_added for line in mine), sum(line.is_removed for line in mine)

    def first_line(self, place: int) -> int:
        """The first line in the base that a piece removes, or before which it puts its first one."""
        line = self.hunk.source_start + (0 if self.hunk.source_length else 1)
        before = self.hunk[: self.places.index(place)]
        return int(line + sum(each.is_context or each.is_removed for each in before))

    def written(self, chosen: frozenset[int], dropped: int) -> tuple[str, int]:
        """The hunk with the chosen pieces, and how many lines more all of it adds; empty where there are none.

        Args:
            dropped: by how many lines what stands before it in the file adds less than in the whole patch.
        """
        lines = list(self._lines(chosen))
        gain = self.hunk.added - self.hunk.removed
        if not chosen & {*self.places}:
            return "", gain
        length = sum(line[0] in " +" for line in lines)
        section = f" {self.hunk.section_header}" if self.hunk.section_header else ""
        old = f"-{self.hunk.source_start},{self.hunk.source_length}"
        head = f"@@ {old} +{self.hunk.target_start - dropped},{length} @@{section}\n"
        return head + "".join(lines), gain - (length - self.hunk.source_length)

    def _lines(self, chosen: frozenset[int]) -> Iterator[str]:
        """What a piece that is left out would remove stays, and what it would add is not there."""
        is_kept = True
        for line, place in zip(self.hunk, self.places, strict=True):
            kind = line.line_type
            if kind == MARKER:  # it is about the line before
                kept = kind if is_kept else ""
            elif place is None or place in chosen:
                kept = kind
            else:
                kept = " " if line.is_removed else ""
            is_kept = bool(kept)
            if kept:  # none either for the empty line that may stand behind a hunk
                yield f"{kept}{line.value}" if line.value.endswith("\n") else f"{kept}{line.value}\n"


def _part(hunk: unidiff.Hunk, first: int, fine: bool) -> _SplitHunk:
    """A hunk as one piece, or its runs of changed lines as one each; their places begin at `first`."""
    places: list[int | None] = []
    place, is_within = first, False
    for line in hunk:
        if line.line_type == MARKER:
            places.append(places[-1] if places else None)
            continue
        changed = line.is_added or line.is_removed
        if fine and is_within and not changed:
            place += 1
        is_within = changed
        places.append(place if changed else None)
    return _SplitHunk(hunk, tuple(places))


def _block(file: unidiff.PatchedFile, first: int, prefixed: bool, fine: bool) -> _FileEntry:
    source, target = (
        name if name == NOWHERE else _side(name, letter, prefixed=prefixed)
        for letter, name in (("a", file.source_file), ("b", file.target_file))
    )
    notes = tuple(str(line) for line in (file.patch_info or ())[1:])
    if not notes and NOWHERE in (source, target):
        notes = ("new file mode 100644\n" if source == NOWHERE else "deleted file mode 100644\n",)
    is_edit = NOWHERE not in (source, target) and unquoted(source)[2:] == unquoted(target)[2:]
    has_mode = any(line.startswith(("old mode ", "new mode ")) for line in notes)
    is_renamed = any(line.startswith("rename from ") for line in notes)
    if not file or not (is_edit or is_renamed):
        return _FileEntry(
            file=file,
            source=source,
            target=target,
            notes=notes,
            head=first,
            parts=tuple(_SplitHunk(hunk, (first,) * len(hunk)) for hunk in file),
        )
    head = first if has_mode or is_renamed else None
    notes = tuple(line for line in notes if not line.startswith("index "))  # the blobs are other ones in a part
    parts: list[_SplitHunk] = []
    start = first + (head is not None)
    for hunk in file:
        parts.append(_part(hunk, start, fine))
        start = max((place for place in parts[-1].places if place is not None), default=start - 1) + 1
    return _FileEntry(
        file=file, source=source, target=target, notes=notes if head is not None else (), head=head, parts=tuple(parts)
    )


def _side(name: str, letter: str, *, prefixed: bool) -> str:
    """The name of a file with another prefix, or with one, in quotes where it stands in some."""
    mark = '"' if name.startswith('"') else ""
    bare = name[len(mark) + (2 if prefixed else 0) :]
    return f"{mark}{letter}/{bare}"


def _entangled(blocks: Iterable[_FileEntry]) -> Iterator[frozenset[int]]:
    """Places of the hunks of entries that name one path between them."""
    by_path: dict[str, set[int]] = defaultdict(set)
    for number, block in enumerate(blocks := tuple(blocks)):
        for path in block.paths:
            by_path[path].add(number)
    linked: list[set[int]] = []
    for numbers in by_path.values():
        meeting = [each for each in linked if each & numbers]
        linked = [each for each in linked if not each & numbers] + [set().union(numbers, *meeting)]
    for numbers in sorted(linked, key=min):
        if len(numbers) > 1:
            mine = [blocks[number] for number in numbers]
            yield frozenset().union(*(block.places for block in mine))
