"""Tasks: a repository at a base state, FAIL_TO_PASS and PASS_TO_PASS tests, and the way to run them."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from regrade.datasets.container_images import ContainerImage
from regrade.datasets.globs import ProtectedFiles
from regrade.datasets.patches import Patch

IGNORED_DIRECTORIES = frozenset(
    {
        ".git",
        ".hg",
        ".svn",
        ".venv",
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
"""Marks before a file's digest in the list of a tree's files. Neither is a hexadecimal digit; a file that is neither
executable nor has a newline in its name has no mark."""


OWN_PATHS = ""
"""Among `TestSuite.paths`: the paths of the repository's own configuration."""


@dataclass(frozen=True)
class Tree:
    """A repository's files at one state: a pristine folder with some files replaced.

    `root` is never changed; workspaces are copies.
    """

    root: Path
    replaced: Mapping[str, str] = field(default_factory=dict)
    """Repository-relative path -> text that replaces the file in `root`."""
    removed: frozenset[str] = frozenset()
    """Repository-relative paths of files in `root` that this state lacks."""
    known: dict[str, str] = field(default_factory=dict, compare=False, repr=False)
    """Path -> SHA-256 of each file of `root`, after EXECUTABLE if the file is executable; filled on first use. Derived
    trees share it, so that thousands of tasks of one package read its files once."""

    def paths(self) -> list[str]:
        """Sorted repository-relative paths of all plain files, without version control and caches."""
        paths = set(self.replaced)
        for folder, directories, names in os.walk(self.root):
            directories[:] = [name for name in directories if not is_ignored(folder, name)]
            paths.update((Path(folder) / name).relative_to(self.root).as_posix() for name in names)
        paths -= self.removed
        return sorted(path for path in paths if path in self.replaced or _is_plain_file(self.root / path))

    def links(self) -> list[str]:
        """Sorted paths of the symbolic links in `root`, which are no part of the tree."""
        links = []
        for folder, directories, names in os.walk(self.root):
            directories[:] = [name for name in directories if not is_ignored(folder, name)]
            linked = [Path(folder, name) for name in (*directories, *names) if Path(folder, name).is_symlink()]
            links += [path.relative_to(self.root).as_posix() for path in linked]
        return sorted(links)

    def read(self, path: str) -> str:
        """The text of a file (UTF-8; undecodable bytes become surrogates). Raises FileNotFoundError."""
        if path in self.removed:
            raise FileNotFoundError(f"{path!r} is not part of this tree")
        if path in self.replaced:
            return self.replaced[path]
        return (self.root / path).read_bytes().decode("utf-8", "surrogateescape")

    def read_or_none(self, path: str) -> str | None:
        """As `read`; None if the tree has no such file."""
        try:
            return self.read(path)
        except FileNotFoundError:
            return None

    def with_files(self, files: Mapping[str, str]) -> Tree:
        """This tree with some files written."""
        return replace(self, replaced={**self.replaced, **files}, removed=self.removed - files.keys())

    def without(self, paths: Iterable[str]) -> Tree:
        """This tree with some files deleted."""
        removed = frozenset(paths)
        replaced = {path: text for path, text in self.replaced.items() if path not in removed}
        return replace(self, replaced=replaced, removed=self.removed | removed)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over every path, the SHA-256 of its content, and whether it is executable."""
        if not self.known:
            pristine = {path: _mark(self.root / path) for path in Tree(self.root).paths()}
            self.known.update(pristine)  # at once, so that another thread never sees a part of it
        marks = self.known | {path: self._mark_of_replaced(path) for path in self.replaced}
        return _sha256("".join(_line(path, marks[path]) for path in sorted(marks.keys() - self.removed)))

    def _mark_of_replaced(self, path: str) -> str:
        """A replaced file keeps its mode, as in a workspace."""
        pristine = self.known.get(path)
        is_executable = _is_executable(self.root / path) if pristine is None else pristine.startswith(EXECUTABLE)
        return (EXECUTABLE if is_executable else "") + _sha256(self.replaced[path])


def _mark(path: Path) -> str:
    return (EXECUTABLE if _is_executable(path) else "") + hashlib.sha256(path.read_bytes()).hexdigest()


def _line(path: str, mark: str) -> str:
    """The line of a file in the list. A name with a newline is quoted and marked, so that the list is unambiguous."""
    return f"{QUOTED}{mark} {json.dumps(path)}\n" if "\n" in path else f"{mark} {path}\n"


def _is_executable(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except OSError:  # a new file
        return False
    return stat.S_ISREG(mode) and bool(mode & stat.S_IXUSR)


def is_ignored(parent: str, name: str) -> bool:
    """Is the folder no part of the repository? A virtual environment has a file by which Python recognises it."""
    return name in IGNORED_DIRECTORIES or Path(parent, name, "pyvenv.cfg").is_file()


def _is_plain_file(path: Path) -> bool:
    """Is it no link, and no pipe, socket or device, on which a reader would block?"""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:  # deleted since the walk
        return False


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


@dataclass(frozen=True)
class Limits:
    """Limits of one execution of a candidate. A candidate that exceeds one is stopped, and caused that itself."""

    wall_seconds: float = 60.0
    memory_mb: int = 2048
    processes: int = 64
    file_mb: int = 64
    """Size limit of a file that it writes."""
    test_seconds: float | None = None
    """The shortest limit of a single test, which ends that test alone; None: 10 seconds if the tests of the base were
    timed (see `TestSuite.slow`), and otherwise none."""


@dataclass(frozen=True, kw_only=True)
class TestSuite:
    """The way to run the tests of a repository."""

    __test__ = False  # pytest must not collect it

    python_path: tuple[str, ...] = (".",)
    """Folders, relative to the root, at the start of sys.path ("src" for a src layout)."""
    paths: tuple[str, ...] = ()
    """Files or folders passed to pytest; empty: as in the repository's own configuration. OWN_PATHS among them: those
    of the configuration as well."""
    options: tuple[str, ...] = ()
    """Further pytest options, such as `-o addopts=`."""
    protected: tuple[str, ...] = (
        "**/test_*.py",
        "**/*_test.py",
        "**/tests/**",
        "**/test/**",
        "**/conftest.py",
        "**/pytest.ini",
        "**/.pytest.ini",
        "**/pytest.toml",
        "**/.pytest.toml",
        "tox.ini",
        "setup.cfg",
        "pyproject.toml",
        "**/.coveragerc",
        "**/__tests__/**",
        "**/*.test.*",
        "**/*.spec.*",
        "**/*_test.go",
    )
    """Globs, over root-relative paths, of the files that every run takes from the pristine tree, as far as no run has
    shown what they are: see `test_files` and `product_files`."""
    test_files: tuple[str, ...] = ()
    """Files of the base that decide its tests, measured by a run: those that pytest collected tests from, with the
    conftest.py files, plugins, fixtures and data files that the tests use. Every run takes them from the base."""
    product_files: tuple[str, ...] = ()
    """Files of the base that match a glob of `protected`, and that the code under test imports or opens: a patch may
    edit them."""
    doctest_files: tuple[str, ...] = ()
    """Modules with doctests in their docstrings. A patch may edit them; the examples are those of the base."""
    checked_files: tuple[str, ...] = field(default=(), compare=False, repr=False)
    """Files of the base that tests alone open, and that a patch may edit: documents, data of the product that a test
    checks. Nothing distinguishes expected output in them."""
    doctests: tuple[tuple[str, str], ...] = ()
    """Ids of the tests in these modules, each with its examples at the base (see `inside/recording/doctests.py`)."""
    test_modules: tuple[tuple[str, str], ...] = ()
    """Names of modules that are test files, each with its file: the tests must import them from such a file."""
    foreign_modules: tuple[str, ...] = ()
    """Names of modules from outside of the repository: top-level ones that test files import, which must still come
    from there; and members of its own packages, which may."""
    configuration: str | None = None
    """Path of pytest's configuration file in the base; empty: there is none; None: unknown."""
    runner: str = "pytest"
    """`pytest`; `node` (Node's own test runner) or `cargo`, a process for each file of `paths`. With an image: its
    result reader."""
    image: ContainerImage | None = field(default=None, repr=False)
    """The Docker image that the tests run in; None: they run in the environment of the task's requirements. Digests
    contain it beside the representation of a suite."""
    reach: Mapping[str, tuple[str, ...]] | None = field(default=None, compare=False, repr=False)
    """`file::qualified.function` -> ids of tests that execute it, and file -> ids of tests that read its text; measured
    once on the base; None: unknown."""
    imported: frozenset[str] = field(default=frozenset(), compare=False, repr=False)
    """Functions executed, and files read as text, during import or collection of tests: all tests need them."""
    companions: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)
    """Test -> the file whose other tests it needs to pass; empty: it needs the whole suite."""
    seconds: Mapping[str, float] | None = field(default=None, compare=False, repr=False)
    """Test file -> seconds of its tests at the base; "" -> seconds of a full run outside its tests, plus those of the
    longest test, which may have prepared shared state; None: unknown."""
    slow: Mapping[str, float] | None = field(default=None, compare=False, repr=False)
    """Test -> its seconds at the base, for tests that take more than one; 0 for a test that was stopped at its limit;
    "" -> the seconds of all slow set-ups and tear-downs, which any test may have to wait for; None: unknown."""

    @cached_property
    def protected_files(self) -> ProtectedFiles:
        """The files that every run takes from the pristine tree."""
        return ProtectedFiles(self.protected, frozenset(self.test_files), frozenset(self.product_files))

    def protects(self, path: str) -> bool:
        """Does every run take the file from the pristine tree, so that a patch cannot change it?"""
        return self.protected_files.contains(path)


@dataclass(frozen=True)
class Target:
    """The function with a task's bug, for policies that see one function."""

    file: str
    function: str
    """Qualified name, such as `Cache.__getitem__`."""
    first_line: int
    """First line of the function in the base tree (1-based, decorators left out)."""
    last_line: int


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What an agent is shown of a task. The verdict always comes from the full suite."""

    tests: tuple[str, ...] | None = None
    """Ids or files of the tests that it may run and read; None: all. A file of tests that contains no shown test is
    hidden from it."""
    names_failing_tests: bool = True
    """Is it told the ids of the FAIL_TO_PASS tests among these, and the error of one?"""


@dataclass(frozen=True, kw_only=True)
class Task:
    """A repository at a base state, and the tests that a patch must pass."""

    id: str
    repository: str
    """Name of the repository or package: the cluster of results and of splits."""
    base: Tree
    instruction: str
    fail_to_pass: tuple[str, ...]
    """Ids of the tests that fail at the base and must pass."""
    pass_to_pass: tuple[str, ...]
    """Ids of the tests that pass at the base in every run, and must still pass: of the whole suite, not a selection."""
    suite: TestSuite = TestSuite()
    requirements: tuple[str, ...] = ()
    """Pinned requirements of the tests' environment; empty: the current interpreter."""
    limits: Limits = Limits()
    unnamed: tuple[str, ...] = ()
    """Ids of the tests that fail at the base in every run and that no FAIL_TO_PASS names: a patch may fix them too."""
    source: str = "local"
    """Origin of the task: `mutation`, `local`, ..."""
    kind: str = ""
    """Kind of the task within its source, such as the kind of a planted bug; empty: none."""
    target: Target | None = None
    failure: str = ""
    """The line and the error of one test that fails at the base (a policy may see this)."""
    reference: Patch | None = field(default=None, repr=False)
    """A patch known to be correct. Never shown to a policy: see `without_reference`."""
    shown: Shown = Shown()
    """What an agent is shown of it."""
    difficulty: str = ""
    """The author's estimate (`15 min - 1 hour`), by which results are sliced; empty: no estimate."""
    assurance: str = ""
    """The least assurance level of a verdict that pays (`tripwired`, `out-of-process` or `held-out`), recorded because
    the tests of the task alone reward exploits; empty: none is recorded."""
    is_unmeasured: bool = False
    """Are the PASS_TO_PASS tests still unknown, because the task's file names none? See `with_pass_to_pass`."""

    def without_reference(self) -> Task:
        """The task without its reference, for policies."""
        return replace(self, reference=None)

    @property
    def tests(self) -> tuple[str, ...]:
        """Ids of all tests that run on a patch."""
        return self.fail_to_pass + self.pass_to_pass + self.unnamed

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all inputs of a verdict: base, tests, environment, limits and level (not the instruction)."""
        tests = (self.fail_to_pass, self.pass_to_pass, *([self.unnamed] if self.unnamed else []))
        image = () if self.suite.image is None else (self.suite.image,)
        level = [self.assurance] if self.assurance else []
        parts = (self.base.digest, *tests, self.suite, self.requirements, self.limits, *image, *level)
        return hashlib.sha256(repr(parts).encode("utf-8", "surrogateescape")).hexdigest()
