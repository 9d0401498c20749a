"""The tree of an agent: a repository's files at the base, with edits in memory that can be undone.

Nothing is written to a disk, so no path can lead out of the repository, and ten trees of one task cost no copies.
"""

from __future__ import annotations

import stat
from collections import Counter
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import NamedTuple

from regrade.datasets.applying import parents
from regrade.datasets.patch_forms import is_cache
from regrade.datasets.patches import LARGEST_MB, Patch, PatchError, check_path
from regrade.datasets.tasks import IGNORED_DIRECTORIES, Tree, is_ignored
from regrade.datasets.text_diffs import unified_diff_of

LARGEST_FILE = 4_000_000
"""Bytes of a file that can be read, searched, edited and deleted."""
LARGEST_RECORD_MB = 32
"""Of the diffs of all states that the tree was in, which the record of the episode keeps."""


class ToolMistakeError(RuntimeError):
    """The agent's own mistake: the message becomes the observation."""


class _FileEdit(NamedTuple):
    """What became of a file."""

    text: str | None
    """None: deleted."""
    diff: str


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
        self._folders = Counter(folder for path in self._base_paths for folder in parents(path))
        """Folder -> files below it."""
        self._edits: dict[str, str | None] = {}
        self._diffs: dict[str, str] = {}
        """Edited path -> its entry in the patch."""
        self._history: list[tuple[str, _FileEdit | None]] = []
        """Of each change, the path and its edit before (None: as at the base)."""
        self._patch = Patch("")
        self.states = {self._patch.digest: self._patch}
        """Digest -> patch of each state that the tree was in."""
        self._record = 0

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
        before, old = self._edit(path), self._base_text(path)
        diff = unified_diff_of(path, old, text)
        patch = self._patch_with(path, diff)
        is_new = patch.digest not in self.states
        if not patch.is_short:
            raise ToolMistakeError(f"all changes together may have {LARGEST_MB} MB as a diff: change less")
        if is_new and self._record + len(patch.text) > LARGEST_RECORD_MB << 20:
            raise ToolMistakeError(
                f"the diffs after each of your changes together may have {LARGEST_RECORD_MB} MB: change no more"
            )
        self._record += len(patch.text) if is_new else 0
        self._history.append((path, before))
        self._set(path, _FileEdit(text, diff) if text != old else None, patch)

    def _edit(self, path: str) -> _FileEdit | None:
        return _FileEdit(self._edits[path], self._diffs[path]) if path in self._edits else None

    def _set(self, path: str, edit: _FileEdit | None, patch: Patch) -> None:
        was_there = self.exists(path)
        if edit is None:
            self._edits.pop(path, None)
            self._diffs.pop(path, None)
        else:
            self._edits[path], self._diffs[path] = edit
        change = self.exists(path) - was_there
        for folder in parents(path) if change else ():
            self._folders[folder] += change
        self._patch = self.states.setdefault(patch.digest, patch)

    def _patch_with(self, path: str, diff: str) -> Patch:
        """The patch if the entry of a path were this one. The diffs of the other files are known."""
        diffs = {**self._diffs, path: diff}
        return Patch("".join(diffs[each] for each in sorted(diffs)))

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
        if any(map(self.exists, parents(path))):
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
        return self._folders[path] > 0

    def undo(self) -> bool:
        """Take back the last change; False if there is none."""
        if not self._history:
            return False
        path, edit = self._history.pop()
        self._set(path, edit, self._patch_with(path, "" if edit is None else edit.diff))
        return True

    @property
    def patch(self) -> Patch:
        """From the base to this tree."""
        return self._patch
