"""A patch: a unified diff with a digest, parsed strictly."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath

from regrade.datasets.errors import PatchError as PatchError
from regrade.datasets.errors import UserError
from regrade.datasets.patch_forms import plain_diff
from regrade.datasets.plain_diffs import NOWHERE, DiffEntry, PlainDiff
from regrade.datasets.text_diffs import unified_diff_of

LARGEST_MB = 4
"""The size limit of a patch. No hand or model writes a larger change of code; parsing it would take minutes."""
LONGEST_PATH, LONGEST_NAME = 1000, 255
"""Limits in bytes that every file system accepts below the folder of a sandbox."""


@dataclass(frozen=True)
class Patch:
    """A unified diff over repository-relative POSIX paths. The empty text is the empty patch."""

    text: str

    def __post_init__(self) -> None:
        if not isinstance(self.text, str):
            value = " ".join(repr(self.text)[:80].split())
            raise UserError(f"a patch is the text of a unified diff, not {value}: pass the result of read_text()")
        try:
            self.text.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError as error:
            raise PatchError(
                f"character {error.start + 1} of the patch is a lone surrogate, which is not valid text: decode the "
                'patch with errors="surrogateescape"'
            ) from error

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the text; equal patches share all evidence."""
        return hashlib.sha256(self.text.encode("utf-8", "surrogateescape")).hexdigest()

    @property
    def is_short(self) -> bool:
        """Is its size within the limit?"""
        return len(self.text) <= LARGEST_MB << 20

    def check_size(self) -> None:
        """Raises PatchError: its size is beyond the limit."""
        if not self.is_short:
            raise PatchError(f"the patch has {len(self.text) / (1 << 20):.1f} MB; the limit is {LARGEST_MB} MB")

    @cached_property
    def is_empty(self) -> bool:
        """Does its text change no file? Caches are no change. (What it changes in a tree: `applying.changed_files`.)"""
        if not self.text.strip():
            return True
        try:
            return not self.plain.text
        except PatchError:
            return False

    @property
    def files(self) -> tuple[PatchedFile, ...]:
        """The files that the patch changes, parsed.

        Raises:
            PatchError: the text is not a unified diff, or a path leaves the repository.
        """
        return self._parsed

    @property
    def notes(self) -> tuple[str, ...]:
        """One line for each repair of a malformed patch, and for the caches that are left out (docs/patches.md).

        Raises:
            PatchError: see `files`.
        """
        return self.plain.repairs + self.plain.omissions

    @cached_property
    def plain(self) -> PlainDiff:
        """The patch as every reader and `git apply` get it, however it was written.

        Raises:
            PatchError: see `files`.
        """
        return self.read()

    def read(self, level: int | None = None) -> PlainDiff:
        """The patch as a plain diff; see `plain_diff`."""
        self.check_size()
        plain = plain_diff(self.text, level)
        for entry in plain.entries:
            if entry.is_submodule:
                raise PatchError(f"{entry.names[-1]!r} is a submodule: only plain files may be patched")
        return plain

    @cached_property
    def _parsed(self) -> tuple[PatchedFile, ...]:
        return parsed_files(self.plain)

    @property
    def changed_lines(self) -> int:
        """Lines added plus lines removed."""
        return sum(len(file.added) + len(file.removed) for file in self.files)

    @classmethod
    def between(cls, before: dict[str, str], after: dict[str, str]) -> Patch:
        """The patch from the texts `before` to the texts `after` (path -> text; a missing path is a missing file)."""
        paths = sorted(before.keys() | after.keys())
        return cls("".join(unified_diff_of(path, before.get(path), after.get(path)) for path in paths))


@dataclass(frozen=True)
class PatchedFile:
    """One file of a patch."""

    path: str
    """Repository-relative path after the patch (before it, for a deleted file)."""
    old_path: str | None
    """Repository-relative path before the patch; None for a new file."""
    is_deleted: bool
    added: tuple[tuple[int, str], ...]
    """(1-based line number after the patch, text without newline) of each added line."""
    removed: tuple[tuple[int, str], ...]
    """(1-based line number before the patch, text without newline) of each removed line."""


def parsed_files(plain: PlainDiff) -> tuple[PatchedFile, ...]:
    """The files of a plain diff. Raises PatchError: see `Patch.files`."""
    return tuple(map(_patched_file, plain.entries))


def _patched_file(entry: DiffEntry) -> PatchedFile:
    # By the header alone, as in git: an empty file still is a file.
    for name in entry.names:
        check_path(name)
    is_deleted = entry.new == NOWHERE
    old = None if entry.old == NOWHERE else entry.old
    return PatchedFile(
        path=(old or "") if is_deleted else entry.new,
        old_path=old,
        is_deleted=is_deleted,
        added=tuple(line for hunk in entry.hunks for line in hunk.numbered("+")),
        removed=tuple(line for hunk in entry.hunks for line in hunk.numbered("-")),
    )


def is_safe(name: str) -> bool:
    """Does the path stay in the repository, outside .git?"""
    pure = PurePosixPath(name)
    return not (pure.is_absolute() or ".." in pure.parts or ".git" in pure.parts or "\0" in name)


def check_path(name: str) -> None:
    """Raises PatchError: the path leaves the repository, or is too long."""
    pure = PurePosixPath(name)
    if not is_safe(name):
        raise PatchError(
            f"the path {name!r} leaves the repository or enters .git: a patch may touch only the repository's own files"
        )
    longest = max((len(part.encode("utf-8", "surrogatepass")) for part in pure.parts), default=0)
    if len(name.encode("utf-8", "surrogatepass")) > LONGEST_PATH or longest > LONGEST_NAME:
        raise PatchError(f"the path {name[:40]!r}... is too long (limits: {LONGEST_PATH} bytes, {LONGEST_NAME} a name)")
