"""Fresh copies of a task's tree for programs that edit files, and the patch that they made there.

The patch is found with a git repository of its own that the program never sees: it may commit, rewrite or delete the
one that lies in the copy.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

from regrade.datasets.errors import UserError
from regrade.datasets.patches import Patch
from regrade.datasets.tasks import IGNORED_DIRECTORIES, Tree
from regrade.evaluators.execution.folders import Folder
from regrade.evaluators.sandboxes.scratch import remove

AS_THEY_ARE = "* -text !eol !filter !ident !working-tree-encoding !diff\n"
"""Attributes that come before a tree's own: contents are compared byte by byte, and no line ending is converted."""
WHO = {"GIT_AUTHOR_NAME": "base", "GIT_AUTHOR_EMAIL": "base@localhost", "GIT_AUTHOR_DATE": "2000-01-01T00:00:00Z"}
GIT_SECONDS = 300.0


class FreshCopy:
    """A tree's files in a folder, as the one commit of a git repository.

    Links are left out, as they are where tests run. Changes of modes count for nothing.
    """

    def __init__(self, base: Tree, root: Path) -> None:
        """Raises UserError where git can't be run; OSError when the disk is full."""
        self._base = base
        self._root = root
        self._repository = root / "base.git"
        self.folder = root / "tree"
        self._begin()
        shutil.copytree(self._repository, self.folder / ".git")

    def _begin(self) -> None:
        Folder(self.folder).lay(self._base)
        _forget_repositories(self.folder)
        self._git("init", "--quiet", "--initial-branch=main")
        for name, value in (("core.fileMode", "false"), ("core.quotePath", "false"), ("core.bare", "false")):
            self._git("config", name, value)
        ignored = "".join(f"{name}/\n" for name in sorted(IGNORED_DIRECTORIES))
        for name, text in (("attributes", AS_THEY_ARE), ("exclude", ignored)):
            (self._repository / "info").mkdir(exist_ok=True)
            (self._repository / "info" / name).write_text(text)
        self._git("add", "--all", "--force")
        self._git("commit", "--quiet", "--allow-empty", "--no-verify", "--message=base")

    def patch(self) -> Patch:
        """What differs from the base now. Files that the tree's own `.gitignore` names are left out if they are new."""
        if self.folder.is_symlink() or not self.folder.is_dir():  # the program took away the folder itself: all is gone
            self.folder.unlink(missing_ok=True)
            self.folder.mkdir(parents=True)
        if not self._repository.is_dir():  # or what lies around it
            self._begin_again()
        remove(self.folder / ".git")
        _make_readable(self.folder)
        _forget_repositories(self.folder)
        self._git("add", "--all")
        diff = self._git("diff", "--cached", "--binary", "--no-renames", "--no-ext-diff", "--no-color", "HEAD")
        return Patch(diff.decode("utf-8", "surrogateescape"))

    def _begin_again(self) -> None:
        aside = self._root / "aside"
        self.folder.rename(aside)
        self._begin()
        remove(self.folder)
        aside.rename(self.folder)

    def _git(self, *arguments: str) -> bytes:
        environment = {
            "PATH": os.environ.get("PATH", os.defpath), "HOME": str(self._repository.parent), "LC_ALL": "C",
            "GIT_DIR": str(self._repository), "GIT_WORK_TREE": str(self.folder),
            "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull,
            **WHO, **{name.replace("AUTHOR", "COMMITTER"): value for name, value in WHO.items()},
        }  # fmt: skip
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
    """Give back to ourselves what a program took away, and remove pipes, sockets and devices: git reads plain files."""
    folder.chmod(0o700)
    for parent, folders, files in os.walk(folder):
        for name in folders:
            path = Path(parent, name)
            if not path.is_symlink():
                path.chmod(0o700)  # before the walk goes into it
        for name in files:
            path = Path(parent, name)
            mode = path.lstat().st_mode
            if stat.S_ISREG(mode):
                path.chmod(mode | stat.S_IRUSR)
            elif not stat.S_ISLNK(mode):
                path.unlink()


def _forget_repositories(folder: Path) -> None:
    """Remove whatever is called .git, at any depth: git takes a folder that holds one for a repository of its own."""
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name not in IGNORED_DIRECTORIES or name == ".git"]
        if ".git" in files:
            Path(parent, ".git").unlink()
        if ".git" in folders:
            folders.remove(".git")
            repository = Path(parent, ".git")
            repository.unlink() if repository.is_symlink() else remove(repository)
