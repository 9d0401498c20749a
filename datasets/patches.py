"""A patch: a unified diff with a digest, parsed strictly."""

from __future__ import annotations

import difflib
import hashlib
import io
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath

import unidiff

from regrade.datasets.errors import UserError

LARGEST_MB = 4
"""The size limit of a patch. No hand or model writes a larger change of code; parsing it would take minutes."""
LONGEST_PATH, LONGEST_NAME = 1000, 255
"""Limits in bytes that every file system accepts below the folder of a sandbox."""
_SUBMODULE = re.compile(
    r"^(?:new file mode|new mode|old mode|deleted file mode) 160000$|^index \S+ 160000$", re.MULTILINE
)

_ESCAPE = re.compile(rb'\\([0-3][0-7]{2}|[abtnvfr"\\])')
_ESCAPES = dict(
    zip((bytes([sign]) for sign in b'abtnvfr"\\'), (bytes([sign]) for sign in b'\a\b\t\n\v\f\r"\\'), strict=True)
)
"""The escapes in names that git quotes (its quote.c)."""


class PatchError(ValueError):
    """The text is not an applicable patch; the message states the problem, the place and the remedy."""


@dataclass(frozen=True)
class Patch:
    """A unified diff over repository-relative POSIX paths. The empty text is the empty patch."""

    text: str

    def __post_init__(self) -> None:
        if not isinstance(self.text, str):
            value = " ".join(repr(self.text)[:80].split())
            raise UserError(f"a patch is the text of a unified diff, not {value}: pass the result of read_text()")

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the text; equal patches share all evidence."""
        return hashlib.sha256(self.text.encode("utf-8", "surrogateescape")).hexdigest()

    @property
    def is_short(self) -> bool:
        """Is its size within the limit?"""
        return len(self.text) <= LARGEST_MB << 20

    @property
    def is_empty(self) -> bool:
        return not self.text.strip()

    @property
    def files(self) -> tuple[PatchedFile, ...]:
        """The files that the patch changes, parsed.

        Raises:
            PatchError: the text is not a unified diff, or a path leaves the repository.
        """
        return self._parsed[0]

    @property
    def has_prefixes(self) -> bool:
        """Do the names of files begin with git's `a/` and `b/`? The output of plain `diff -u` has no such prefixes.

        Raises:
            PatchError: see `files`.
        """
        return self._parsed[1]

    @cached_property
    def _parsed(self) -> tuple[tuple[PatchedFile, ...], bool]:
        if self.is_empty:
            return (), True
        if not self.is_short:
            raise PatchError(f"the patch has {len(self.text) / (1 << 20):.1f} MB; the limit is {LARGEST_MB} MB")
        if _SUBMODULE.search(self.text):
            raise PatchError("the patch changes a submodule: only plain files may be patched")
        try:
            parsed = unidiff.PatchSet(self.text)
        except (unidiff.UnidiffParseError, ValueError) as error:
            raise PatchError(f"not a unified diff: {error}") from error
        if not parsed:
            raise PatchError("no file header (`--- a/FILE`, `+++ b/FILE`): expected a unified diff, such as git prints")
        return tuple(_patched_file(file) for file in parsed), all(map(_is_prefixed, parsed))

    @property
    def changed_lines(self) -> int:
        """Lines added plus lines removed."""
        return sum(len(file.added) + len(file.removed) for file in self.files)

    @classmethod
    def between(cls, before: dict[str, str], after: dict[str, str]) -> Patch:
        """The patch from the texts `before` to the texts `after` (path -> text; a missing path is a missing file)."""
        pairs = [(path, before.get(path), after.get(path)) for path in sorted(before.keys() | after.keys())]
        return cls("".join(_unified(path, old, new) for path, old, new in pairs if old != new))


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


def _patched_file(file: unidiff.PatchedFile) -> PatchedFile:
    # By the header alone, as in git: an empty file still is a file.
    is_deleted = file.target_file == "/dev/null"
    if is_deleted and file.source_file == "/dev/null":
        raise PatchError("a file's header names /dev/null on both sides: it must name the file on one of them")
    old = None if file.source_file == "/dev/null" else _safe(file.source_file, "a/")
    new = _safe(file.target_file, "b/") if not is_deleted else (old or "")
    lines = [line for hunk in file for line in hunk]
    return PatchedFile(
        path=new,
        old_path=old,
        is_deleted=is_deleted,
        added=tuple((line.target_line_no, line.value.rstrip("\n")) for line in lines if line.is_added),
        removed=tuple((line.source_line_no, line.value.rstrip("\n")) for line in lines if line.is_removed),
    )


def unquoted(name: str) -> str:
    """A name without git's quotes and escapes, which git uses for letters beyond ASCII, for example."""
    if len(name) < 2 or not name.startswith('"') or not name.endswith('"'):
        return name
    escaped = name[1:-1].encode("utf-8", "surrogateescape")
    return _ESCAPE.sub(_unescape, escaped).decode("utf-8", "surrogateescape")


def _unescape(escape: re.Match[bytes]) -> bytes:
    sign = escape[1]
    return bytes([int(sign, 8)]) if sign.isdigit() else _ESCAPES[sign]


def _is_prefixed(file: unidiff.PatchedFile) -> bool:
    names = ((unquoted(file.source_file), "a/"), (unquoted(file.target_file), "b/"))
    return all(name.startswith((prefix, "/dev/null")) for name, prefix in names)


def _safe(path: str, prefix: str) -> str:
    name = unquoted(path).removeprefix(prefix)
    pure = PurePosixPath(name)
    if name.endswith("\r"):
        raise PatchError("its lines end in CR LF, which `git apply` rejects in headers: convert it with `dos2unix`")
    if pure.is_absolute() or ".." in pure.parts or ".git" in pure.parts or "\0" in name:
        raise PatchError(
            f"the path {name!r} leaves the repository or enters .git: a patch may touch only the repository's own files"
        )
    longest = max((len(part.encode("utf-8", "surrogatepass")) for part in pure.parts), default=0)
    if len(name.encode("utf-8", "surrogatepass")) > LONGEST_PATH or longest > LONGEST_NAME:
        raise PatchError(f"the path {name[:40]!r}... is too long (limits: {LONGEST_PATH} bytes, {LONGEST_NAME} a name)")
    return str(pure)


def _unified(path: str, old: str | None, new: str | None) -> str:
    header_old = f"a/{path}" if old is not None else "/dev/null"
    header_new = f"b/{path}" if new is not None else "/dev/null"
    lines = difflib.unified_diff(_lines(old or ""), _lines(new or ""), header_old, header_new)
    text = "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)
    mode = "new file mode 100644\n" if old is None else "deleted file mode 100644\n" if new is None else ""
    return f"diff --git a/{path} b/{path}\n{mode}{text}"


def _lines(text: str) -> list[str]:
    """Lines with their newlines. As in git, a form feed or a carriage return does not end a line."""
    return io.StringIO(text, newline="\n").readlines()
