"""A patch applied to a task's tree, and folders that hold exactly one tree for a worker."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from regrade.datasets.globs import is_protected
from regrade.datasets.patches import Patch, PatchError
from regrade.datasets.tasks import Task, Tree
from regrade.evaluators.inline_tests import with_pristine_tests

PRISTINE_TIME = 1_000_000_000
"""Modification time of every file that is as in `Tree.root`: byte code of it stays valid from folder to folder."""
REPLACED_TIME = 1_100_000_000
"""Modification time of every other file: byte code of the pristine file is never taken for it."""


@dataclass(frozen=True)
class Workspace:
    """A task's files with a patch applied."""

    before: Tree
    after: Tree
    ignored: tuple[str, ...] = ()
    """Files of the patch that were left as they are in the pristine tree, because they decide the verdict."""


def prepare(task: Task, patch: Patch) -> Workspace:
    """Apply the patch to the task's base, strictly, and take protected files from the pristine tree.

    Raises:
        PatchError: the patch does not apply; says why.
    """
    files = _applied(task.base, patch)
    ignored = tuple(sorted(path for path in files if is_protected(path, task.suite.protected)))
    kept = {path: text for path, text in files.items() if path not in ignored}
    if task.suite.runner == "cargo":
        for path, text in kept.items():
            if path.endswith(".rs") and text is not None:
                kept[path] = with_pristine_tests(_text(_content(task.base, path)), text)
    after = task.base.with_files({path: text for path, text in kept.items() if text is not None})
    after = after.without(path for path, text in kept.items() if text is None)
    return Workspace(task.base, after, ignored)


def _applied(base: Tree, patch: Patch) -> dict[str, str | None]:
    """Path -> text after the patch (None: deleted) of the files that it changes, by `git apply` in an empty folder."""
    if patch.is_empty:
        return {}
    touched = {path for file in patch.files for path in (file.path, file.old_path) if path}
    for path in touched:
        if path not in base.replaced and (base.root / path).is_symlink():
            raise PatchError(f"{path!r} is a link in the repository: only plain files may be patched")
    with tempfile.TemporaryDirectory(prefix="regrade-apply-") as name:
        folder = Path(name, "tree")
        folder.mkdir()
        before: dict[str, bytes] = {}
        for path in touched:
            content = _content(base, path)
            if content is not None:
                before[path] = content
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_bytes(content)
        _git_apply(folder, patch)
        after = _files_in(folder)
    changed = {
        path: _text(after.get(path)) for path in before.keys() | after.keys() if before.get(path) != after.get(path)
    }
    _check_readable(patch, before, after)
    for path in changed.keys() - before.keys():
        _check_free(base, path, gone={name for name, text in changed.items() if text is None})
    return changed


def _check_readable(patch: Patch, before: Mapping[str, bytes], after: Mapping[str, bytes]) -> None:
    """A change of text must come as lines: what a binary patch does can neither be read nor be judged."""
    for file in patch.files:
        old, new = before.get(file.old_path or file.path), after.get(file.path)
        if file.added or file.removed or old == new or not (old or new):
            continue
        if file.is_deleted or not any(b"\0" in (content or b"") for content in (old, new)):
            raise PatchError(
                f"{file.path!r} is text and comes as a binary patch, which nobody can read: use `git diff --text`"
            )


def _check_free(base: Tree, path: str, gone: set[str]) -> None:
    """A created file must stand where no file or folder is. `git apply` sees only the files that the patch names."""
    if _content(base, path) is not None:
        raise PatchError(f"the patch creates {path!r}, which exists: make the patch against the task's base")
    if (base.root / path).is_dir() or any(name.startswith(f"{path}/") for name in base.replaced):
        raise PatchError(f"the patch creates the file {path!r}, and there is a folder of that name")
    for parent in _parents(path):
        if parent not in gone and _content(base, parent) is not None:
            raise PatchError(f"the patch creates {path!r}, and {parent!r} is a file, not a folder")


def _content(base: Tree, path: str) -> bytes | None:
    if path in base.replaced:
        return base.replaced[path].encode("utf-8", "surrogateescape")
    source = base.root / path
    if path in base.removed or source.is_symlink() or not source.is_file():
        return None
    if not source.resolve().is_relative_to(base.root.resolve()):
        raise PatchError(
            f"{path!r} leads out of the repository through a link: a patch may touch only the repository's own files"
        )
    return source.read_bytes()


def _text(content: bytes | None) -> str | None:
    return None if content is None else content.decode("utf-8", "surrogateescape")


def _git_apply(folder: Path, patch: Patch) -> None:
    # Without a repository around it and without any configuration of the user's.
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "GIT_CEILING_DIRECTORIES": str(folder.parent),
        "LC_ALL": "C",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "HOME": str(folder.parent),
    }
    try:
        done = subprocess.run(
            ["git", "apply", "--whitespace=nowarn", f"-p{int(patch.has_prefixes)}", "-"],
            cwd=folder,
            env=environment,
            input=patch.text.encode("utf-8", "surrogateescape"),
            capture_output=True,
            timeout=60,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise PatchError("git apply did not end within 60 s: the patch is too large") from error
    if done.returncode:
        reasons = done.stderr.decode("utf-8", "replace").replace("error: ", "").strip().splitlines()
        raise PatchError(f"the patch does not apply to the task's base: {'; '.join(reasons[:3]) or 'git apply failed'}")


def _files_in(folder: Path) -> dict[str, bytes]:
    found = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            relative = path.relative_to(folder).as_posix()
            if path.is_symlink() or not path.is_file():
                raise PatchError(f"the patch makes {relative!r} a link: only plain files may be patched")
            found[relative] = path.read_bytes()
    return found


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
        wanted_folders = {parent for path in self._laid for parent in _parents(path)}
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
        for parent in _parents(path):
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
        for folder in ("", *_parents(path)):
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


def _parents(path: str) -> list[str]:
    """`a/b/c.py` -> `a`, `a/b`."""
    parts = path.split("/")[:-1]
    return ["/".join(parts[: count + 1]) for count in range(len(parts))]


def _mark(status: os.stat_result) -> tuple[int, ...]:
    return (status.st_ino, status.st_size, status.st_mode, status.st_mtime_ns, status.st_ctime_ns)
