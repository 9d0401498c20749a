"""Writes base trees as commits of a bare git repository: one branch a task, no history, the same id for the same files.

`git fast-import` stores each distinct file once, and runs no code of a repository.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from regrade.datasets.errors import UserError
from regrade.datasets.mining.git_history import GIT_SECONDS
from regrade.datasets.tasks import Tree

AUTHOR = "Regrade <regrade@invalid> 0 +0000"
"""Nothing in a commit depends on the machine or on the time."""
MARKS = "marks"


def write_base_commits(folder: Path, bases: Mapping[str, Tree]) -> dict[str, str]:
    """Write each tree as a commit without parents on a branch of its own.

    Args:
        folder: of the new bare repository.
        bases: name of the branch -> the tree.

    Returns:
        Name of the branch -> id of its commit.

    Raises:
        UserError: git is not installed, or refuses a name.
        OSError: the disk is full, for example.
    """
    _git("init", "--bare", "--quiet", "--template=", "--initial-branch=main", str(folder))
    stream = _Stream()
    marks = {name: stream.add(name, tree) for name, tree in bases.items()}
    marks_file = folder / MARKS
    _git(
        f"--git-dir={folder}",
        "-c",
        "fastimport.unpackLimit=0",
        "fast-import",
        "--quiet",
        f"--export-marks={marks_file}",
        written=b"".join(stream.parts),
    )
    known = dict(line.removeprefix(":").split(" ") for line in marks_file.read_text().splitlines())
    marks_file.unlink()
    if bases:
        (folder / "HEAD").write_text(f"ref: refs/heads/{next(iter(bases))}\n")
    return {name: known[str(mark)] for name, mark in marks.items()}


class _Stream:
    """The input of fast-import."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self._blobs: dict[bytes, int] = {}
        self._mark = 0

    def add(self, branch: str, tree: Tree) -> int:
        """Add a commit; its mark."""
        lines = [line for path in tree.paths() for line in self._file(tree, path)]
        self._mark += 1
        message = b"Base of the task\n"
        self.parts.append(
            f"commit refs/heads/{branch}\nmark :{self._mark}\nauthor {AUTHOR}\ncommitter {AUTHOR}\n"
            f"data {len(message)}\n".encode()
            + message
            + b"".join(lines)
            + b"\n"
        )
        return self._mark

    def _file(self, tree: Tree, path: str) -> Iterator[bytes]:
        mode = "100755" if is_executable(tree, path) else "100644"
        content = content_of(tree, path)
        if content not in self._blobs:
            self._mark += 1
            self._blobs[content] = self._mark
            self.parts.append(f"blob\nmark :{self._mark}\ndata {len(content)}\n".encode() + content + b"\n")
        yield f"M {mode} :{self._blobs[content]} ".encode() + _quoted(path) + b"\n"


def content_of(tree: Tree, path: str) -> bytes:
    """The bytes of a file of a tree."""
    if path in tree.replaced:
        return tree.replaced[path].encode("utf-8", "surrogateescape")
    return (tree.root / path).read_bytes()


def is_executable(tree: Tree, path: str) -> bool:
    """Is the file executable? A replaced file keeps its mode."""
    file = tree.root / path
    return file.is_file() and os.access(file, os.X_OK)


def _quoted(path: str) -> bytes:
    raw = path.encode("utf-8", "surrogateescape")
    for plain, escaped in ((b"\\", b"\\\\"), (b'"', b'\\"'), (b"\n", b"\\n")):
        raw = raw.replace(plain, escaped)
    return b'"' + raw + b'"'


def _git(*arguments: str, written: bytes = b"") -> bytes:
    plain = {"PATH": os.environ.get("PATH", os.defpath), "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull}
    try:
        done = subprocess.run(
            ["git", *arguments],
            input=written,
            capture_output=True,
            check=False,
            timeout=GIT_SECONDS,
            env={**plain, "LC_ALL": "C"},
        )
    except FileNotFoundError as error:
        raise UserError("git is not installed, and the base of a task is a commit: install git") from error
    if done.returncode:
        why = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise UserError(f"git can't write the bases of the tasks: {(why or ['no message'])[0][:300]}")
    return done.stdout
