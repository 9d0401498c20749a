"""The folder of a worker that contains exactly one tree at a time."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

from regrade.datasets.applying import parents
from regrade.datasets.globs import NONE_PROTECTED, ProtectedFiles
from regrade.datasets.tasks import Tree

PRISTINE_TIME = 1_000_000_000
"""Modification time of every file that is unchanged from `Tree.root`: its byte code is valid in every folder."""
REPLACED_TIME = 1_100_000_000
"""Modification time of every other file: byte code of the pristine file is not valid for it."""


class Folder:
    """A folder that contains exactly one tree at a time, restored before each candidate.

    A candidate may write anywhere in it, but under a user id of its own it can neither change nor replace protected
    files: this user owns them, in sticky folders. Before the next tree is written, every entry is compared with the
    written one by inode, size, mode, modification and change time (no program can set the last), and rewritten if it
    differs.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._root: Path | None = None
        self._protected = NONE_PROTECTED
        self._sticky: set[str] = set()
        """Folders above protected files; the empty name is the root."""
        self._written: dict[str, tuple[int, ...]] = {}
        self._replaced: dict[str, str] = {}
        self._removed: frozenset[str] = frozenset()
        path.mkdir(parents=True, exist_ok=True)

    def write_tree(self, tree: Tree, protected: ProtectedFiles = NONE_PROTECTED) -> None:
        """Make `tree` the only content of the folder.

        Args:
            protected: the files that candidates can't change.

        Raises:
            OSError: the disk is full, for example.
        """
        if self._root != tree.root or self._protected != protected:
            self._protected = protected
            self._write_all(tree)
        else:
            self._restore()
        self._switch(tree)

    def _write_all(self, tree: Tree) -> None:
        self._root = None
        self._empty()
        self._written, self._replaced, self._removed = {}, {}, tree.removed
        self._sticky.clear()
        for path in Tree(tree.root, removed=tree.removed).paths():
            self._copy(tree.root, path)
        self._root = tree.root

    def _restore(self) -> None:
        """Undo the changes of the last candidate."""
        self.path.chmod(self._mode_of(""))
        marks, folders = self._scan()
        tree_folders = {parent for path in self._written for parent in parents(path)}
        for path in sorted(folders - tree_folders):
            if (self.path / path).exists():  # not yet removed with its parent
                shutil.rmtree(self.path / path)
        for path in marks.keys() - self._written.keys():
            (self.path / path).unlink(missing_ok=True)
        for path in [path for path, mark in self._written.items() if marks.get(path) != mark]:
            self._write(path, self._replaced[path]) if path in self._replaced else self._copy(self._pristine(), path)

    def _switch(self, tree: Tree) -> None:
        """Change the written tree to another one of the same root."""
        root = self._pristine()
        for path in self._replaced.keys() - tree.replaced.keys() - tree.removed:
            self._copy(root, path) if (root / path).is_file() else self._delete(path)
        for path in tree.removed - self._removed:
            self._delete(path)
        for path in self._removed - tree.removed - tree.replaced.keys():
            self._copy(root, path)
        for path, text in tree.replaced.items():
            if self._replaced.get(path) != text:
                self._write(path, text)
        self._replaced, self._removed = dict(tree.replaced), tree.removed

    def _pristine(self) -> Path:
        assert self._root is not None
        return self._root

    def _scan(self) -> tuple[dict[str, tuple[int, ...]], set[str]]:
        marks: dict[str, tuple[int, ...]] = {}
        folders: set[str] = set()
        waiting = [""]
        while waiting:
            parent = waiting.pop()
            with os.scandir(self.path / parent) as entries:
                for entry in entries:
                    path = f"{parent}/{entry.name}" if parent else entry.name
                    if entry.is_dir(follow_symlinks=False):
                        folders.add(path)
                        waiting.append(path)
                        if stat.S_IMODE(entry.stat(follow_symlinks=False).st_mode) != self._mode_of(path):
                            Path(entry.path).chmod(self._mode_of(path))
                    else:
                        marks[path] = _mark(entry.stat(follow_symlinks=False))
        return marks, folders

    def _copy(self, root: Path, path: str) -> None:
        source = root / path
        self._put(path, source.read_bytes(), PRISTINE_TIME, executable=bool(source.stat().st_mode & 0o100))

    def _write(self, path: str, text: str) -> None:
        source = self._pristine() / path
        executable = source.is_file() and bool(source.stat().st_mode & 0o100)
        self._put(path, text.encode("utf-8", "surrogateescape"), REPLACED_TIME, executable=executable)

    def _put(self, path: str, content: bytes, time: int, *, executable: bool) -> None:
        target = self.path / path
        self._make_folders(path)
        if self._protected.contains(path):
            self._make_sticky(path)
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        target.unlink(missing_ok=True)
        with target.open("xb") as file:
            file.write(content)
        mode = 0o777 if executable else 0o666
        target.chmod(mode & ~0o022 if self._protected.contains(path) else mode)
        os.utime(target, (time, time))
        self._written[path] = _mark(target.lstat())

    def _make_folders(self, path: str) -> None:
        for parent in parents(path):
            folder = self.path / parent
            if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
                folder.unlink()
            if not folder.exists():
                folder.mkdir()
                folder.chmod(self._mode_of(parent))

    def _mode_of(self, folder: str) -> int:
        return 0o1777 if folder in self._sticky else 0o777

    def _make_sticky(self, path: str) -> None:
        """Make the folders of a file sticky, so that no other user can remove or rename it or a folder above it."""
        for folder in ("", *parents(path)):
            if folder not in self._sticky:
                self._sticky.add(folder)
                (self.path / folder).chmod(0o1777)

    def _delete(self, path: str) -> None:
        """Delete a file, and the folders that then are empty, as git does."""
        (self.path / path).unlink(missing_ok=True)
        self._written.pop(path, None)
        for parent in reversed(parents(path)):
            try:
                (self.path / parent).rmdir()
            except OSError:  # it is not empty
                return

    def _empty(self) -> None:
        self.path.chmod(0o777)
        for entry in os.scandir(self.path):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                Path(entry.path).unlink()


def _mark(status: os.stat_result) -> tuple[int, ...]:
    return (status.st_ino, status.st_size, status.st_mode, status.st_mtime_ns, status.st_ctime_ns)
