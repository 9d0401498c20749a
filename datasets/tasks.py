"""The nouns of a task: what an agent is asked to mend, and how one finds out whether it did."""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from regrade.datasets.patches import Patch

IGNORED_DIRECTORIES = frozenset(
    {
        ".git",
        ".hg",
        ".svn",
        ".venv",
        "venv",
        "__pycache__",
        ".mypy_cache",
        ".ruff_cache",
        ".pytest_cache",
        ".tox",
        "node_modules",
        ".hypothesis",
        ".eggs",
    }
)
EXECUTABLE, QUOTED = "x", "q"
"""What stands before a digest in the list of a tree's files. No digit of one, so that a file which is neither
executable nor oddly named has the line that it always had."""


@dataclass(frozen=True)
class Tree:
    """A repository's files at one state: a pristine folder with some files replaced.

    Nothing is ever written to `root`; workspaces are copies.
    """

    root: Path
    replaced: Mapping[str, str] = field(default_factory=dict)
    """Repository-relative path -> text that stands in place of the file in `root`."""
    removed: frozenset[str] = frozenset()
    """Repository-relative paths of files in `root` that this state lacks."""
    known: dict[str, str] = field(default_factory=dict, compare=False, repr=False)
    """Path -> SHA-256 of each file of `root`, with EXECUTABLE before it where the file is that; filled on first use.
    Trees made from one another share it, so that thousands of tasks of one package read its files once."""

    def paths(self) -> list[str]:
        """Sorted repository-relative paths of all plain files, less version control and caches."""
        found = set(self.replaced)
        for folder, directories, names in self.root.walk() if hasattr(self.root, "walk") else _walk(self.root):
            directories[:] = [name for name in directories if name not in IGNORED_DIRECTORIES]
            found.update((Path(folder) / name).relative_to(self.root).as_posix() for name in names)
        found -= self.removed
        return sorted(path for path in found if path in self.replaced or _is_plain_file(self.root / path))

    def read(self, path: str) -> str:
        """The text of a file (UTF-8; undecodable bytes are kept as surrogates). Raises FileNotFoundError."""
        if path in self.removed:
            raise FileNotFoundError(f"{path!r} is not part of this tree")
        if path in self.replaced:
            return self.replaced[path]
        return (self.root / path).read_bytes().decode("utf-8", "surrogateescape")

    def read_or_none(self, path: str) -> str | None:
        """As `read`; None where the tree has no such file."""
        try:
            return self.read(path)
        except FileNotFoundError:
            return None

    def with_files(self, files: Mapping[str, str]) -> Tree:
        """This tree with some files written."""
        return replace(self, replaced={**self.replaced, **files}, removed=self.removed - files.keys())

    def without(self, paths: Iterable[str]) -> Tree:
        """This tree with some files deleted."""
        gone = frozenset(paths)
        kept = {path: text for path, text in self.replaced.items() if path not in gone}
        return replace(self, replaced=kept, removed=self.removed | gone)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over every path, the SHA-256 of its content, and whether it is executable."""
        if not self.known:
            pristine = {path: _mark(self.root / path) for path in Tree(self.root).paths()}
            self.known.update(pristine)  # at once, so that another thread never sees half of it
        marks = self.known | {path: self._mark_of_replaced(path) for path in self.replaced}
        return _sha256("".join(_line(path, marks[path]) for path in sorted(marks.keys() - self.removed)))

    def _mark_of_replaced(self, path: str) -> str:
        """A file that is written over keeps its mode, as in a workspace."""
        known = self.known.get(path)
        is_executable = _is_executable(self.root / path) if known is None else known.startswith(EXECUTABLE)
        return (EXECUTABLE if is_executable else "") + _sha256(self.replaced[path])


def _mark(path: Path) -> str:
    return (EXECUTABLE if _is_executable(path) else "") + hashlib.sha256(path.read_bytes()).hexdigest()


def _line(path: str, mark: str) -> str:
    """No two lists of files have the same lines: a name that could end one is quoted, after a mark of its own."""
    return f"{QUOTED}{mark} {json.dumps(path)}\n" if "\n" in path else f"{mark} {path}\n"


def _is_executable(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except OSError:  # a new file
        return False
    return stat.S_ISREG(mode) and bool(mode & stat.S_IXUSR)


def _is_plain_file(path: Path) -> bool:
    """No link, and no pipe, socket or device, whose reader would wait for ever."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:  # gone since its folder was read
        return False


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _walk(root: Path) -> list[tuple[str, list[str], list[str]]]:
    import os  # Path.walk exists from Python 3.12 on

    return os.walk(root)  # type: ignore[return-value]


@dataclass(frozen=True)
class Limits:
    """What one execution of a candidate may use. Beyond it the candidate is stopped, and that is its own doing."""

    wall_seconds: float = 60.0
    memory_mb: int = 2048
    processes: int = 64
    file_mb: int = 64
    """The largest file that it may write."""


@dataclass(frozen=True, kw_only=True)
class TestSuite:
    """How the tests of a repository are run."""

    __test__ = False  # not a test class, whatever pytest thinks of its name

    python_path: tuple[str, ...] = (".",)
    """Folders, relative to the root, that come first on sys.path ("src" for a src layout)."""
    paths: tuple[str, ...] = ()
    """Files or folders given to pytest; empty: whatever the repository's own configuration collects."""
    options: tuple[str, ...] = ()
    """Further pytest options, such as `-o addopts=`."""
    protected: tuple[str, ...] = (
        "**/test_*.py",
        "**/*_test.py",
        "**/tests/**",
        "**/test/**",
        "**/conftest.py",
        "pytest.ini",
        "tox.ini",
        "setup.cfg",
        "pyproject.toml",
        "**/.coveragerc",
        "**/__tests__/**",
        "**/*.test.*",
        "**/*.spec.*",
        "**/*_test.go",
    )
    """Globs of the files that are always taken from the pristine tree (matched with the root-relative path)."""
    runner: str = "pytest"
    """`pytest`; `node` (Node's own test runner) or `cargo`, a process for each file of `paths`."""
    reach: Mapping[str, tuple[str, ...]] | None = field(default=None, compare=False, repr=False)
    """`file::qualified.function` -> ids of the tests that execute it, and file -> those that read it as text; measured
    once on the base; None: unknown."""
    imported: frozenset[str] = field(default=frozenset(), compare=False, repr=False)
    """Functions executed, and files read as text, while tests were imported or collected: all tests need them."""
    companions: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)
    """Test -> the file without whose other tests it does not pass; empty: it needs the whole suite."""
    seconds: Mapping[str, float] | None = field(default=None, compare=False, repr=False)
    """Test file -> seconds that its tests take at the base, and "" -> those that a run of all takes beside its tests,
    and those of the longest test, which may have made what others use; None: unknown."""


@dataclass(frozen=True)
class Target:
    """Where a task's bug lies (for policies that are shown one function)."""

    file: str
    function: str
    """Qualified name, such as `Cache.__getitem__`."""
    first_line: int
    """First line of the function in the base tree (1-based, decorators left out)."""
    last_line: int


@dataclass(frozen=True, kw_only=True)
class Task:
    """A repository at a base state and what is wanted of it."""

    id: str
    repository: str
    """Name of the repository or package; results are clustered and splits are made by it."""
    base: Tree
    instruction: str
    fail_to_pass: tuple[str, ...]
    """Ids of the tests that fail at the base and must pass."""
    pass_to_pass: tuple[str, ...]
    """Ids of the tests that pass at the base, repeatedly, and must keep passing: the whole suite, not a selection."""
    suite: TestSuite = TestSuite()
    requirements: tuple[str, ...] = ()
    """Pinned requirements of the environment that the tests run in; empty: the interpreter that runs regrade."""
    limits: Limits = Limits()
    source: str = "local"
    """Where the task came from: `mutation`, `local`, ..."""
    target: Target | None = None
    failure: str = ""
    """What one failing test shows at the base: its line and its error (a policy may see this)."""
    reference: Patch | None = field(default=None, repr=False)
    """The known good patch. Never shown to a policy: see `without_reference`."""
    difficulty: str = ""
    """How hard it is, in a word of whoever made it (`15 min - 1 hour`); results are sliced by it. Empty: not said."""

    def without_reference(self) -> Task:
        """The task as a policy may see it."""
        return replace(self, reference=None)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all that could change a verdict: base, tests, environment and limits (not the instruction)."""
        parts = (self.base.digest, self.fail_to_pass, self.pass_to_pass, self.suite, self.requirements, self.limits)
        return hashlib.sha256(repr(parts).encode("utf-8", "surrogateescape")).hexdigest()
