"""The tree of an agent: a repository's files at the base, with edits in memory that can be undone.

Nothing is written to a disk, so no path can lead out of the repository, and ten trees of one task cost no copies.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePosixPath

from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Tree

LARGEST_FILE = 4_000_000
"""Bytes of a file that can be read, searched and edited."""


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
        size = self._size(path)
        if size > LARGEST_FILE:
            raise ToolMistakeError(f"{path} has {size:,} bytes; files above {LARGEST_FILE:,} bytes cannot be opened")
        text = self.base.read(path)
        if "\0" in text:
            raise ToolMistakeError(f"{path} is no text file")
        return text

    def _size(self, path: str) -> int:
        if path in self.base.replaced:
            return len(self.base.replaced[path])
        return (self.base.root / path).lstat().st_size

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
            if len(text) > LARGEST_FILE:
                raise ToolMistakeError(f"the text has {len(text):,} characters; at most {LARGEST_FILE:,} are allowed")
        elif not self.exists(path):
            raise ToolMistakeError(self._missing(path))
        self._history.append(dict(self._edits))
        self._edits[path] = text
        if text == self.base.read_or_none(path) if path in self._base_paths else text is None:
            del self._edits[path]

    def _check_new(self, path: str) -> None:
        if self.exists(path):
            return
        pure = PurePosixPath(path)
        is_inside = path == str(pure) and not pure.is_absolute() and ".." not in pure.parts and path != "."
        if not is_inside or "\0" in path or any(ord(character) < 32 for character in path) or len(path) > 255:
            raise ToolMistakeError(f"{path!r} is no path in the repository: give one like src/new_module.py")
        if pure.parts[0] == ".git" or self._is_hidden(path):
            raise ToolMistakeError(f"{path!r} cannot be created: that place is reserved")
        folders = {str(parent) for parent in pure.parents}
        if any(each in folders for each in self.paths()):
            raise ToolMistakeError(f"{path!r} cannot be created: a part of its path is a file")
        if any(each.startswith(f"{path}/") for each in self.paths()):
            raise ToolMistakeError(f"{path!r} is a folder")

    def undo(self) -> bool:
        """Take back the last change; False if there is none."""
        if not self._history:
            return False
        self._edits = self._history.pop()
        return True

    @property
    def patch(self) -> Patch:
        """From the base to this tree."""
        before, after = {}, {}
        for path, text in self._edits.items():
            old = self.base.read_or_none(path)
            if old is not None:
                before[path] = old
            if text is not None:
                after[path] = text
        return Patch.between(before, after)
