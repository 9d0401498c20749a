"""The tree of an agent: a repository's files at the base, with edits in memory that can be undone.

Nothing is written to a disk, so no path can lead out of the repository, and ten trees of one task cost no copies.
"""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import PurePosixPath

from regrade.datasets.applying import parents
from regrade.datasets.patch_forms import is_cache
from regrade.datasets.patches import LARGEST_MB, Patch, PatchError, check_path
from regrade.datasets.tasks import IGNORED_DIRECTORIES, Tree, is_ignored

LARGEST_FILE = 4_000_000
"""Bytes of a file that can be read, searched, edited and deleted."""


class ToolMistakeError(RuntimeError):
    """The agent's own mistake: the message becomes the observation."""


class EditedTree:
    """The files that an agent sees, and its edits."""

    def __init__(self, base: Tree, is_hidden: Callable[[str], bool]) -> None:
        """
        Args:
            is_hidden: of a path; a hidden file does not exist for the agent, and cannot be created.
        """
        self.base = base
        self._is_hidden = is_hidden
        self._base_paths = frozenset(path for path in base.paths() if not is_hidden(path))
        self._edits: dict[str, str | None] = {}
        self._history: list[dict[str, str | None]] = []
        self._patch = Patch("")

    def paths(self) -> list[str]:
        """All files, sorted."""
        written = {path for path, text in self._edits.items() if text is not None}
        deleted = self._edits.keys() - written
        return sorted((self._base_paths | written) - deleted)

    def exists(self, path: str) -> bool:
        if path in self._edits:
            return self._edits[path] is not None
        return path in self._base_paths

    def read(self, path: str) -> str:
        """The text of a file.

        Raises:
            ToolMistakeError: there is no such file, or it is no text, or too large.
        """
        if not self.exists(path):
            raise ToolMistakeError(self._missing(path))
        edited = self._edits.get(path)
        if edited is not None:
            return edited
        self._check_size(path)
        text = self.base.read(path)
        if "\0" in text:
            raise ToolMistakeError(f"{path} is no text file")
        return text

    def _check_size(self, path: str) -> None:
        replaced = self.base.replaced.get(path)
        size = (self.base.root / path).lstat().st_size if replaced is None else len(replaced)
        if size > LARGEST_FILE:
            raise ToolMistakeError(f"{path} has {size:,} bytes; files above {LARGEST_FILE:,} bytes cannot be opened")

    def _missing(self, path: str) -> str:
        name = PurePosixPath(path).name
        near = [each for each in self.paths() if PurePosixPath(each).name == name][:3]
        hint = f"; did you mean {' or '.join(near)}?" if near else "; see list_files"
        return f"there is no file {path!r}{hint}"

    def write(self, path: str, text: str | None) -> None:
        """Set the text of a file, or delete it (None); `undo` takes it back.

        Raises:
            ToolMistakeError: the path is outside of the repository, names a folder, or the text is too large.
        """
        if text is not None:
            self._check_new(path)
            self._check_text(text)
        elif not self.exists(path):
            raise ToolMistakeError(self._missing(path))
        if path in self._base_paths:
            self._check_size(path)
        edits = {**self._edits, path: text}
        if text == self._base_text(path):
            del edits[path]
        patch = self._difference(edits)
        if not patch.is_short:
            raise ToolMistakeError(f"all changes together may have {LARGEST_MB} MB as a diff: change less")
        self._history.append(self._edits)
        self._edits, self._patch = edits, patch

    def _base_text(self, path: str) -> str | None:
        """None if the agent sees no such file at the base: what lies there is none of its business."""
        return self.base.read(path) if path in self._base_paths else None

    def _check_text(self, text: str) -> None:
        if len(text) > LARGEST_FILE:
            raise ToolMistakeError(f"the text has {len(text):,} characters; at most {LARGEST_FILE:,} are allowed")
        try:
            text.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            raise ToolMistakeError("the text has half of a surrogate pair, which no file can hold") from None

    def _check_new(self, path: str) -> None:
        if self.exists(path):
            return
        pure = PurePosixPath(path)
        is_reserved = any(part.lower() == ".git" or part in IGNORED_DIRECTORIES for part in pure.parts)
        if not is_reserved:
            try:
                check_path(path)
                is_sound = path.encode("utf-8").decode().isprintable()
            except (PatchError, UnicodeEncodeError):
                is_sound = False
            if not is_sound or path != str(pure) or path == ".":
                raise ToolMistakeError(f"{path!r} is no path in the repository: give one like src/new_module.py")
        if is_reserved or is_cache(path) or self._is_hidden(path) or self._is_taken(path):
            raise ToolMistakeError(f"{path!r} cannot be created: that place is reserved")
        folders = set(parents(path))
        if any(each in folders for each in self.paths()):
            raise ToolMistakeError(f"{path!r} cannot be created: a part of its path is a file")
        if self._is_folder(path):
            raise ToolMistakeError(f"{path!r} is a folder")

    def _is_taken(self, path: str) -> bool:
        """Is there a link on the way, or at the place itself something that is no part of the tree, such as a pipe?"""
        for place in (*parents(path), path):
            try:
                mode = (self.base.root / place).lstat().st_mode
            except OSError:  # nothing, nor anything below it
                return False
            if stat.S_ISDIR(mode) and place != path:
                if is_ignored(str((self.base.root / place).parent), PurePosixPath(place).name):
                    return True
            elif place not in self._base_paths and place not in self.base.removed and not self._is_folder(place):
                return True
        return False

    def _is_folder(self, path: str) -> bool:
        return any(each.startswith(f"{path}/") for each in self.paths())

    def undo(self) -> bool:
        """Take back the last change; False if there is none."""
        if not self._history:
            return False
        self._edits = self._history.pop()
        self._patch = self._difference(self._edits)
        return True

    @property
    def patch(self) -> Patch:
        """From the base to this tree."""
        return self._patch

    def _difference(self, edits: dict[str, str | None]) -> Patch:
        before, after = {}, {}
        for path, text in edits.items():
            old = self._base_text(path)
            if old is not None:
                before[path] = old
            if text is not None:
                after[path] = text
        return Patch.between(before, after)
