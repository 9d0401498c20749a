"""Folders that hold exactly one tree at a time for a worker."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

from regrade.datasets.applying import parents
from regrade.datasets.globs import is_protected
from regrade.datasets.tasks import Tree

PRISTINE_TIME = 1_000_000_000
"""Modification time of every file that is as in `Tree.root`: byte code of it stays valid from folder to folder."""
REPLACED_TIME = 1_100_000_000
"""Modification time of every other file: byte code of the pristine file is never taken for it."""


class Folder:
    """A folder that holds exactly one tree at a time, laid anew before each candidate.

    A candidate may write anywhere in it, but where it is another user than this one it can neither change nor replace
    protected files: those are this user's, in folders from which nobody else may take what is not his. Before the next
    tree is laid every entry is compared with what was laid, by inode, size, mode, modification and change time (the
    last can't be set by a program), and what differs is laid again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._root: Path | None = None
        self._protected: tuple[str, ...] = ()
        self._guarded: set[str] = set()
        """Folders above protected files; empty: the root."""
        self._laid: dict[str, tuple[int, ...]] = {}
        self._replaced: dict[str, str] = {}
        self._removed: frozenset[str] = frozenset()
        path.mkdir(parents=True, exist_ok=True)

    def lay(self, tree: Tree, protected: tuple[str, ...] = ()) -> None:
        """Make the folder hold `tree` and nothing else.

        Args:
            protected: globs of the files that candidates can't change.

        Raises:
            OSError: the disk is full, say.
        """
        if self._root != tree.root or self._protected != protected:
            self._protected = protected
            self._lay_all(tree)
        else:
            self._restore()
        self._switch(tree)

    def _lay_all(self, tree: Tree) -> None:
        self._root = None
        self._empty()
        self._laid, self._replaced, self._removed = {}, {}, tree.removed
        self._guarded.clear()
        for path in Tree(tree.root, removed=tree.removed).paths():
            self._copy(tree.root, path)
        self._root = tree.root

    def _restore(self) -> None:
        """Undo whatever the last candidate did to the folder."""
        self.path.chmod(self._mode_of(""))
        found, folders = self._scan()
        wanted_folders = {parent for path in self._laid for parent in parents(path)}
        for path in sorted(folders - wanted_folders):
            if (self.path / path).exists():  # not yet gone with its parent
                shutil.rmtree(self.path / path)
        for path in found.keys() - self._laid.keys():
            (self.path / path).unlink(missing_ok=True)
        for path in [path for path, mark in self._laid.items() if found.get(path) != mark]:
            self._write(path, self._replaced[path]) if path in self._replaced else self._copy(self._pristine(), path)

    def _switch(self, tree: Tree) -> None:
        """From the tree that is laid to another one of the same root."""
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
        found: dict[str, tuple[int, ...]] = {}
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
                        found[path] = _mark(entry.stat(follow_symlinks=False))
        return found, folders

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
        if is_protected(path, self._protected):
            self._guard(path)
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        target.unlink(missing_ok=True)
        with target.open("xb") as file:
            file.write(content)
        mode = 0o777 if executable else 0o666
        target.chmod(mode & ~0o022 if is_protected(path, self._protected) else mode)
        os.utime(target, (time, time))
        self._laid[path] = _mark(target.lstat())

    def _make_folders(self, path: str) -> None:
        for parent in parents(path):
            folder = self.path / parent
            if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
                folder.unlink()
            if not folder.exists():
                folder.mkdir()
                folder.chmod(self._mode_of(parent))

    def _mode_of(self, folder: str) -> int:
        return 0o1777 if folder in self._guarded else 0o777

    def _guard(self, path: str) -> None:
        """Let nobody else take the file away, nor a folder that it lies in."""
        for folder in ("", *parents(path)):
            if folder not in self._guarded:
                self._guarded.add(folder)
                (self.path / folder).chmod(0o1777)

    def _delete(self, path: str) -> None:
        (self.path / path).unlink(missing_ok=True)
        self._laid.pop(path, None)

    def _empty(self) -> None:
        self.path.chmod(0o777)
        for entry in os.scandir(self.path):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                Path(entry.path).unlink()


def _mark(status: os.stat_result) -> tuple[int, ...]:
    return (status.st_ino, status.st_size, status.st_mode, status.st_mtime_ns, status.st_ctime_ns)
