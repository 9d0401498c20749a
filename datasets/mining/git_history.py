"""The history of a repository, read from a clone with git's own programs.

The settings of a repository can name programs (filters, transports, monitors). None of them is started: objects are
read through an empty repository of our own, and a clone starts outside of any repository.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from regrade.datasets.errors import UserError

CLONE_SECONDS = 1800
GIT_SECONDS = 300
PLAIN_FILES = frozenset({"100644", "100755"})
"""Modes of plain files, as git writes them."""
_LOCATIONS = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR", "GIT_NAMESPACE")
"""Variables that point git to another repository; a hook of git, for example, runs with them."""
_AS_STORED = "* -text !eol -ident -filter !working-tree-encoding\n"
"""These attributes come before those of the files: an exported file has the bytes of its blob."""
_CONFIGURATION = ("core.hooksPath=/dev/null", "core.fsmonitor=false", "core.autocrlf=false", "gc.auto=0")


@dataclass(frozen=True)
class FileChange:
    """One file that a commit changes. A renamed file is a deleted and an added one."""

    path: str
    before: str | None
    """Blob of the content before; None: the commit adds the file."""
    after: str | None
    """Blob of the content after; None: the commit deletes the file."""
    is_plain: bool
    """Is it a plain file, no link and no submodule, before and after?"""


@dataclass(frozen=True, kw_only=True)
class Commit:
    """A commit with one parent."""

    sha: str
    parent: str
    subject: str
    """First line of the message."""
    date: str
    """Of the committer, `YYYY-MM-DD`."""


class GitHistory:
    """The commits of a clone. Only its objects are used, never its settings."""

    def __init__(self, folder: Path, head: str, remedy: str = "") -> None:
        """
        Args:
            folder: the bare repository, or the `.git` of one.
            remedy: what to do if the clone is damaged; empty: for a copy in the cache.
        """
        self.folder = folder
        self.head = head
        """The newest commit of the default branch."""
        self._remedy = remedy or (
            "delete that folder, so that it is cloned again; if that does not help, the repository itself is damaged: "
            "pass its files without .git"
        )
        self._shell: tempfile.TemporaryDirectory[str] | None = None

    def commits(self, most: int) -> Iterator[Commit]:
        """The newest commits that have one parent, the newest first."""
        form = "%H%x00%P%x00%cs%x00%s%x00"
        options = ["--no-merges", f"--max-count={most}", f"--format={form}", self.head]
        fields = (
            self._git("log", "--no-color", *options).decode("utf-8", "replace").replace("\x00\n", "\x00").split("\x00")
        )
        for sha, parent, date, subject in zip(*(iter(fields),) * 4, strict=False):
            if parent and " " not in parent:
                yield Commit(sha=sha, parent=parent, subject=subject, date=date)

    def changes(self, commit: Commit) -> list[FileChange]:
        """The files that a commit changes, sorted by path."""
        output = self._git("diff-tree", "-r", "-z", "--raw", "--no-renames", "--no-abbrev", commit.parent, commit.sha)
        fields = output.decode("utf-8", "surrogateescape").split("\0")
        found = []
        for header, path in zip(fields[::2], fields[1::2], strict=False):
            mode, new_mode, before, after, _ = header.removeprefix(":").split(" ")
            modes = {each for each in (mode, new_mode) if each.strip("0")}
            found.append(FileChange(path, _blob(before), _blob(after), is_plain=modes <= PLAIN_FILES))
        return sorted(found, key=lambda change: change.path)

    def read(self, blob: str) -> str | None:
        """The text of a blob; None if it is binary."""
        content = self._git("cat-file", "blob", blob)
        if b"\0" in content:
            return None
        try:
            return content.decode("utf-8")
        except UnicodeDecodeError:
            return None

    def resolved(self, name: str) -> str | None:
        """The whole id of a commit, of the beginning of an id, or of `ID^`, its parent; None: there is none."""
        done = self._run("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
        return None if done.returncode else done.stdout.decode().strip()

    def export(self, sha: str, folder: Path) -> None:
        """Write the files of a commit into a new folder, without any history. It appears in one rename.

        Raises:
            UserError: the clone is damaged.
        """
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".export-") as name:
            files = Path(name, "files")
            files.mkdir()
            index = {"GIT_INDEX_FILE": str(Path(name, "index")), "GIT_WORK_TREE": str(files)}
            self._git("read-tree", sha, environment=index)
            self._git("checkout-index", "--all", "--force", environment=index)
            _drop_empty_folders(files)
            appear(files, folder)

    def _git(self, *arguments: str, environment: Mapping[str, str] | None = None) -> bytes:
        done = self._run(*arguments, environment=environment)
        if done.returncode:
            why = _last_line(done.stderr)
            raise UserError(f"git can't read the history in {self.folder} ({why}): {self._remedy}")
        return done.stdout

    def _run(self, *arguments: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[bytes]:
        command = ["git", f"--git-dir={self._git_dir()}"]
        for setting in _CONFIGURATION:
            command += ["-c", setting]
        # Nothing of the user's configuration may run a filter on the files.
        plain = {
            "PATH": os.environ.get("PATH", os.defpath),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_OBJECT_DIRECTORY": str(self.folder.resolve() / "objects"),
        }
        try:
            return subprocess.run(
                [*command, *arguments],
                capture_output=True,
                check=False,
                timeout=GIT_SECONDS,
                env={**plain, "LC_ALL": "C", **(environment or {})},
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise UserError(f"git could not read {self.folder}: {error}") from error

    def _git_dir(self) -> str:
        """A repository without objects and settings of its own, through which the objects of the clone are read."""
        if self._shell is None:
            self._shell = tempfile.TemporaryDirectory(prefix="regrade-git-")
            folder = Path(self._shell.name)
            for name in ("objects", "refs", "info"):
                (folder / name).mkdir()
            (folder / "HEAD").write_text("ref: refs/heads/none\n", "utf-8")
            (folder / "config").write_text(_plain_settings(self.folder), "utf-8")
            (folder / "info" / "attributes").write_text(_AS_STORED, "utf-8")
            if (self.folder / "shallow").is_file():
                shutil.copyfile(self.folder / "shallow", folder / "shallow")
        return self._shell.name


def _plain_settings(folder: Path) -> str:
    """Settings of an empty repository with the same kind of object ids."""
    options = ["--file", str(folder.resolve() / "config"), "--no-includes", "--get", "extensions.objectformat"]
    done = subprocess.run(["git", "config", *options], capture_output=True, text=True, check=False, cwd="/")
    if done.stdout.strip() != "sha256":
        return "[core]\nrepositoryformatversion = 0\nbare = true\n"
    return "[core]\nrepositoryformatversion = 1\nbare = true\n[extensions]\nobjectformat = sha256\n"


def clone(source: str, folder: Path) -> GitHistory:
    """The history of a URL or of a local clone, copied once into `folder`; an existing copy is used as it is.

    The user's own settings of git apply, such as credentials. git asks for no password.

    Raises:
        UserError: git is not installed, the source cannot be cloned, or it has no commit.
    """
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".clone-") as name:
            copy = Path(name, "copy.git")
            _clone(source, copy)
            _head(copy, source)
            appear(copy, folder)
    return GitHistory(folder, _head(folder, source))


def remote_head(source: str) -> str:
    """The newest commit of the default branch of a URL or a local clone.

    Raises:
        UserError: git is not installed, the source can't be reached, or it has no commit.
    """
    lines = _user_git("ls-remote", "--quiet", "--", _absolute(source), "HEAD", source=source).split()
    if not lines:
        raise UserError(f"{source} has no commit: pass a repository with a history, or a plain folder")
    return lines[0]


def _clone(source: str, copy: Path) -> None:
    options = ["--quiet", "--bare", "--no-hardlinks", "--template="]
    _user_git("clone", *options, "--", _absolute(source), str(copy.absolute()), source=source)


def _user_git(*arguments: str, source: str) -> str:
    """The output of a git command with the user's own settings, and none of the repository around this process."""
    settings = ["-c", "protocol.ext.allow=never", "-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false"]
    try:
        with tempfile.TemporaryDirectory(prefix="regrade-git-") as outside:
            done = subprocess.run(
                ["git", *settings, *arguments],
                capture_output=True,
                stdin=subprocess.DEVNULL,
                check=False,
                timeout=CLONE_SECONDS,
                cwd=outside,
                env={
                    **_environment(),
                    "GIT_TERMINAL_PROMPT": "0",
                    "GIT_CEILING_DIRECTORIES": str(Path(outside).parent),
                },
            )
    except FileNotFoundError as error:
        raise UserError("git is not installed: install git, or pass a folder without history") from error
    except subprocess.TimeoutExpired as error:
        raise UserError(
            f"{source} was not cloned within {CLONE_SECONDS} s: clone it yourself, and pass that folder"
        ) from error
    if done.returncode:
        raise UserError(f"{source} cannot be cloned: {_last_line(done.stderr)}")
    return done.stdout.decode("utf-8", "replace")


def _environment() -> dict[str, str]:
    """The user's environment, without variables that point git to another repository; messages are in English."""
    return {**{name: value for name, value in os.environ.items() if name not in _LOCATIONS}, "LC_ALL": "C"}


def _absolute(source: str) -> str:
    """A source that does not depend on the current folder."""
    path = Path(source)
    return str(path.absolute()) if path.exists() else source


def _head(folder: Path, source: str) -> str:
    """The newest commit of the default branch. Raises UserError: there is none."""
    command = ["git", f"--git-dir={folder}", "rev-parse", "--verify", "--quiet", "HEAD^{commit}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=GIT_SECONDS, env=_environment())
    if done.returncode:
        raise UserError(f"{source} has no commit: pass a repository with a history, or a plain folder")
    return done.stdout.strip()


def is_clone(folder: Path) -> bool:
    """Is the folder a bare repository of git, or the `.git` of one?"""
    return (folder / "HEAD").is_file() and (folder / "objects").is_dir() and (folder / "refs").is_dir()


def tracked_files(folder: Path) -> list[str] | None:
    """The files of a working tree that git does not ignore; None if it is no working tree, or git is missing."""
    if not (folder / ".git").exists():
        return None
    options = ["-c", "core.fsmonitor=false", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    # No object is fetched: the transport is a setting of the repository.
    environment = {**_environment(), "GIT_ALLOW_PROTOCOL": "none"}
    command = ["git", "-C", str(folder), *options]
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=GIT_SECONDS, env=environment)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode:
        return None
    return sorted(filter(None, done.stdout.decode("utf-8", "surrogateescape").split("\0")))


def appear(made: Path, folder: Path) -> None:
    """Rename a completed folder to its name, unless another process was first."""
    try:
        made.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
        shutil.rmtree(made, ignore_errors=True)


def _drop_empty_folders(root: Path) -> None:
    """Those of submodules, whose files are elsewhere."""
    for folder, directories, names in os.walk(root, topdown=False):
        if not directories and not names and Path(folder) != root:
            Path(folder).rmdir()


def _blob(sha: str) -> str | None:
    return sha if sha.strip("0") else None


def _last_line(errors: bytes) -> str:
    lines = [line for line in errors.decode("utf-8", "replace").splitlines() if line.strip()]
    named = [line for line in lines if line.startswith(("fatal:", "error:"))]
    return (named or lines or ["git failed without a message"])[0][:300].removeprefix("fatal: ").strip()
