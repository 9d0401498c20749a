"""Fresh copies of a task's tree for programs that edit files, and the patches of their edits.

A second git repository, which the program cannot see, computes the patch: the program may commit to, rewrite or delete
the repository in the copy.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
from pathlib import Path

from regrade.datasets.errors import UserError
from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Tree, is_ignored
from regrade.evaluators.execution.folders import Folder
from regrade.evaluators.sandboxes.scratch import remove

AS_THEY_ARE = "* -text !eol !filter !ident !working-tree-encoding !diff\n"
"""Attributes that override those of the tree: contents are compared byte by byte, without line ending conversion."""
WHO = {"GIT_AUTHOR_NAME": "base", "GIT_AUTHOR_EMAIL": "base@localhost", "GIT_AUTHOR_DATE": "2000-01-01T00:00:00Z"}
GIT_SECONDS = 300.0


class FreshCopy:
    """A tree's files in a folder, as the one commit of a git repository.

    Symbolic links are left out, as in test runs. Changes of file modes are ignored.
    """

    def __init__(self, base: Tree, root: Path) -> None:
        """Raises UserError if git is not installed; OSError if git fails, for example because the disk is full."""
        self._base = base
        self._root = root
        self._repository = root / "base.git"
        self.folder = root / "tree"
        self._begin()
        shutil.copytree(self._repository, self.folder / ".git")

    def _begin(self) -> None:
        Folder(self.folder).write_tree(self._base)
        _forget_repositories(self.folder)
        self._git("init", "--quiet", "--initial-branch=main")
        for name, value in (("core.fileMode", "false"), ("core.quotePath", "false"), ("core.bare", "false")):
            self._git("config", name, value)
        (self._repository / "info").mkdir(exist_ok=True)
        (self._repository / "info" / "attributes").write_text(AS_THEY_ARE)
        self._exclude()
        self._git("add", "--all", "--force")
        self._git("commit", "--quiet", "--allow-empty", "--no-verify", "--message=base")

    def patch(self) -> Patch:
        """The difference from the base. New files that the tree's own `.gitignore` matches are left out."""
        if self.folder.is_symlink() or not self.folder.is_dir():  # the program deleted the folder itself
            self.folder.unlink(missing_ok=True)
            self.folder.mkdir(parents=True)
        if not self._repository.is_dir():  # the program deleted the hidden repository
            self._begin_again()
        remove(self.folder / ".git")
        _make_readable(self.folder)
        _forget_repositories(self.folder)
        self._exclude()
        self._git("add", "--all")
        diff = self._git("diff", "--cached", "--binary", "--no-renames", "--no-ext-diff", "--no-color", "HEAD")
        return Patch(diff.decode("utf-8", "surrogateescape"))

    def _exclude(self) -> None:
        """Exclude new files in folders that are no part of a repository, such as a virtual environment."""
        paths = []
        for parent, folders, _ in os.walk(self.folder):
            ignored = [name for name in folders if is_ignored(parent, name)]
            paths += [Path(parent, name).relative_to(self.folder).as_posix() for name in ignored]
            folders[:] = [name for name in folders if name not in ignored]
        lines = ["/" + re.sub(r"([*?\[\\ ])", r"\\\1", path) + "/\n" for path in sorted(paths) if "\n" not in path]
        (self._repository / "info" / "exclude").write_text("".join(lines), "utf-8", "surrogateescape")

    def _begin_again(self) -> None:
        aside = self._root / "aside"
        self.folder.rename(aside)
        self._begin()
        remove(self.folder)
        aside.rename(self.folder)

    def _git(self, *arguments: str) -> bytes:
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self._repository.parent),
            "LC_ALL": "C",
            "GIT_DIR": str(self._repository),
            "GIT_WORK_TREE": str(self.folder),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            **WHO,
            **{name.replace("AUTHOR", "COMMITTER"): value for name, value in WHO.items()},
        }
        try:
            done = subprocess.run(
                ["git", *arguments],
                cwd=self.folder,
                env=environment,
                capture_output=True,
                timeout=GIT_SECONDS,
                check=True,
            )
        except FileNotFoundError as error:
            raise UserError("policies that are commands need git, which is not installed") from error
        except subprocess.CalledProcessError as error:
            reason = error.stderr.decode("utf-8", "replace").strip()
            raise OSError(f"git {arguments[0]} failed in {self.folder}: {reason}") from error
        return done.stdout


def _make_readable(folder: Path) -> None:
    """Restore read permissions, and remove pipes, sockets and devices: git reads regular files only."""
    folder.chmod(0o700)
    for parent, folders, files in os.walk(folder):
        for name in folders:
            path = Path(parent, name)
            if not path.is_symlink():
                path.chmod(0o700)  # before the walk enters it
        for name in files:
            path = Path(parent, name)
            mode = path.lstat().st_mode
            if stat.S_ISREG(mode):
                path.chmod(mode | stat.S_IRUSR)
            elif not stat.S_ISLNK(mode):
                path.unlink()


def _forget_repositories(folder: Path) -> None:
    """Remove every .git, at any depth: git treats a folder that contains one as a separate repository."""
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name == ".git" or not is_ignored(parent, name)]
        if ".git" in files:
            Path(parent, ".git").unlink()
        if ".git" in folders:
            folders.remove(".git")
            repository = Path(parent, ".git")
            repository.unlink() if repository.is_symlink() else remove(repository)
