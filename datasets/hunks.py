"""The hunks of a patch, and patches made of some of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

import unidiff

from regrade.datasets.patches import Patch, unquoted

NOWHERE = "/dev/null"


@dataclass(frozen=True)
class Hunk:
    """The smallest piece of a patch that can be written down without the others.

    A hunk of an edited file; what happens to a whole file (it is created, deleted, copied or binary); or the renaming,
    or the change of mode, of a file whose hunks are pieces of their own.
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
    _blocks: tuple[_Block, ...]

    def subset(self, chosen: Collection[int]) -> Patch:
        """The patch of the hunks at these places. Of all of them it is the patch itself, of none the empty one.

        Line numbers after the patch are those that hold without the hunks that are left out.
        """
        wanted = frozenset(chosen)
        if len(wanted) == len(self.hunks):
            return self.patch
        return Patch("".join(block.written(wanted) for block in self._blocks))


def split_patch(patch: Patch) -> SplitPatch:
    """The hunks of a patch; none of the empty one.

    Raises:
        PatchError: the text is no unified diff.
    """
    if not patch.files:  # which also says what is wrong with the text
        return SplitPatch(patch, (), (), ())
    hunks: list[Hunk] = []
    blocks = []
    files = unidiff.PatchSet(patch.text)
    for file in files:
        block = _block(file, len(hunks), patch.has_prefixes)
        blocks.append(block)
        hunks.extend(block.pieces())
    return SplitPatch(patch, tuple(hunks), tuple(_entangled(blocks)), tuple(blocks))


@dataclass(frozen=True)
class _Block:
    """One file's entry in a patch."""

    file: unidiff.PatchedFile
    source: str
    """With its prefix, or /dev/null."""
    target: str
    notes: tuple[str, ...]
    """Git's lines between `diff --git` and the hunks."""
    head: int | None
    """Place of the piece that is about the file; None where there are only hunks."""
    places: tuple[int, ...]
    """Place of each hunk; that of the head where the file is one piece."""

    @property
    def is_one(self) -> bool:
        """Is the whole entry one piece?"""
        return self.head is not None and all(place == self.head for place in self.places)

    @property
    def paths(self) -> set[str]:
        return {unquoted(name)[2:] for name in (self.source, self.target) if name != NOWHERE}

    def pieces(self) -> Iterator[Hunk]:
        path = unquoted(self.source if self.target == NOWHERE else self.target)[2:]
        if self.is_one:
            added, removed = self.file.added, self.file.removed
            yield Hunk(path, self._what(), 0, added, removed, self.written(frozenset({self.head or 0})))
            return
        if self.head is not None:
            yield Hunk(path, self._what(), 0, 0, 0, self._header(self.source, self.target, self.notes, bool(self.file)))
        for hunk in self.file:
            yield Hunk(path, "", _first_line(hunk), hunk.added, hunk.removed, _text(hunk, hunk.target_start))

    def written(self, chosen: frozenset[int]) -> str:
        """The entry with the hunks at these places; empty where there are none."""
        kept, dropped = [], 0
        for place, hunk in zip(self.places, self.file, strict=True):
            if place in chosen:
                kept.append(_text(hunk, hunk.target_start - dropped))
            else:
                dropped += hunk.added - hunk.removed
        if self.head in chosen:
            return self._header(self.source, self.target, self.notes, bool(kept)) + "".join(kept)
        if not kept:
            return ""
        target = self.target if self.head is None else _side(self.source, "b", prefixed=True)
        return self._header(self.source, target, (), True) + "".join(kept)

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


def _block(file: unidiff.PatchedFile, first: int, prefixed: bool) -> _Block:
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
    if file and (is_edit or is_renamed):
        head = first if has_mode or is_renamed else None
        start = first + (head is not None)
        places = tuple(range(start, start + len(file)))
        if head is not None:
            notes = tuple(line for line in notes if not line.startswith("index "))  # the blobs are other ones now
        return _Block(file, source, target, notes if head is not None else (), head, places)
    return _Block(file, source, target, notes, first, (first,) * len(file))


def _side(name: str, letter: str, *, prefixed: bool) -> str:
    """The name of a file with another prefix, or with one, in quotes where it stands in some."""
    mark = '"' if name.startswith('"') else ""
    bare = name[len(mark) + (2 if prefixed else 0) :]
    return f"{mark}{letter}/{bare}"


def _text(hunk: unidiff.Hunk, target_start: int) -> str:
    lines = [str(line) for line in hunk if line.line_type]  # without a type: an empty line behind the hunk
    section = f" {hunk.section_header}" if hunk.section_header else ""
    head = f"@@ -{hunk.source_start},{hunk.source_length} +{target_start},{hunk.target_length} @@{section}\n"
    return head + "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)


def _first_line(hunk: unidiff.Hunk) -> int:
    """The first removed line, or the line before which the first new one stands."""
    line = hunk.source_start + (0 if hunk.source_length else 1)
    for each in hunk:
        if not each.is_context:
            break
        line += 1
    return int(line)


def _entangled(blocks: Iterable[_Block]) -> Iterator[frozenset[int]]:
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
            yield frozenset(place for block in mine for place in (*block.places, block.head) if place is not None)
