"""The unprotected files that a patch changes: the difference of two trees, whatever the patch's headers name."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from pathlib import PurePosixPath

from regrade.datasets import applying
from regrade.datasets.line_changes import changed_numbers
from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Task, Tree
from regrade.evaluators.static.languages import Language, language_of

LARGEST = 2_000_000
"""Most characters of a file that a static probe reads; a larger file counts as unparsable."""
MOST_PAIRS = 10_000
"""Pairs of a created and a deleted file up to which all are compared; of more, those with one name, or one text."""
PAIRS_OF_ONE = 5
"""Of each created file then, by its name and by its text."""
SIMILAR = 0.5
"""Least share of equal lines of a renamed file, as in git."""
Texts = tuple[str | None, str | None]
"""A file's text before and after; None without the file."""
NumberedLines = tuple[tuple[int, str], ...]
"""(1-based line number, text without newline) of some lines."""


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

    @cached_property
    def _differing(self) -> tuple[NumberedLines, NumberedLines]:
        old, new = _lines(self.before), _lines(self.after)
        removed, added = changed_numbers(old, new)
        return tuple((n, old[n - 1]) for n in removed), tuple((n, new[n - 1]) for n in added)

    @property
    def removed(self) -> NumberedLines:
        """(1-based line number before the patch, text without newline) of each removed line."""
        return self._differing[0]

    @property
    def added(self) -> NumberedLines:
        """(1-based line number after the patch, text without newline) of each added line."""
        return self._differing[1]

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
    return not task.suite.protects(path)


def changed_files(before: Tree, after: Tree, task: Task) -> list[ChangedFile]:
    """The difference of two trees: the unprotected files whose text or path differs, one entry a path."""
    return [file for file in with_renames(_differing_texts(before, after)) if is_unprotected(file.path, task)]


def patched_files(base: Tree, patch: Patch) -> list[ChangedFile]:
    """All files that a patch changes, the protected ones too, one entry a path.

    Raises:
        PatchError, OSError: see `applying.apply_patch`.
    """
    return with_renames(patched_texts(base, patch))


def patched_texts(base: Tree, patch: Patch) -> dict[str, Texts]:
    """Path -> text before and after a patch, of each file that it changes. Raises as `patched_files`."""
    return {path: (read(base, path), text) for path, text in applying.changed_files(base, patch).items()}


def with_renames(texts: Mapping[str, Texts]) -> list[ChangedFile]:
    """Changed files (path -> text before, text after) as entries, sorted by path.

    As in git, a deleted and a created file are one renamed file if they share at least half of their lines.
    """
    created = [path for path, (old, new) in sorted(texts.items()) if old is None and new]
    deleted = {path: old for path, (old, new) in sorted(texts.items()) if new is None and old}
    origins = _origins({path: texts[path][1] or "" for path in created}, deleted)
    moved = set(origins.values())
    return [
        ChangedFile(path, origins.get(path, path), texts[origins[path]][0] if path in origins else old, new)
        for path, (old, new) in sorted(texts.items())
        if path not in moved and old != new
    ]


def _origins(created: Mapping[str, str], deleted: Mapping[str, str]) -> dict[str, str]:
    """New path -> old path of the renamed files: the most similar pairs first."""
    lines = {text: _line_counts(text) for text in (*created.values(), *deleted.values())}
    pairs = []
    for new, old in _candidates(created, deleted):
        after, before = lines[created[new]], lines[deleted[old]]
        similarity = (after & before).total() / max(after.total(), before.total(), 1)
        if similarity >= SIMILAR:
            pairs.append((-similarity, PurePosixPath(new).name != PurePosixPath(old).name, new, old))
    origins: dict[str, str] = {}
    moved: set[str] = set()
    for *_, new, old in sorted(pairs):
        if new not in origins and old not in moved:
            origins[new] = old
            moved.add(old)
    return origins


def _line_counts(text: str) -> Counter[str]:
    return Counter(line for line in text.split("\n") if line.strip())


def _candidates(created: Mapping[str, str], deleted: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Pairs of a created and a deleted file that may be one renamed file."""
    if len(created) * len(deleted) <= MOST_PAIRS:
        yield from product(created, deleted)
        return
    by_trait: dict[str, list[str]] = defaultdict(list)
    for old, text in deleted.items():
        for trait in {f"/{PurePosixPath(old).name}", text}:
            by_trait[trait].append(old)
    for new, text in created.items():
        for trait in {f"/{PurePosixPath(new).name}", text}:
            yield from ((new, old) for old in by_trait[trait][:PAIRS_OF_ONE])


def _differing_texts(before: Tree, after: Tree) -> dict[str, Texts]:
    touched = {*before.replaced, *after.replaced} if before.root == after.root else {*before.paths(), *after.paths()}
    texts = {}
    for path in touched | (before.removed ^ after.removed):
        old = before.replaced.get(path)
        if old is None or old != after.replaced.get(path):
            texts[path] = (read(before, path), read(after, path))
    return {path: (old, new) for path, (old, new) in texts.items() if old != new}


def read(tree: Tree, path: str) -> str | None:
    """The text of a file, or None without one (a folder, a missing file, a broken link)."""
    try:
        return tree.read(path)
    except OSError:
        return None


def _lines(text: str | None) -> list[str]:
    """As `git diff` counts them: a newline at the end begins no further line."""
    return (text or "").removesuffix("\n").split("\n") if text else []
