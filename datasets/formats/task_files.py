"""The user's own tasks: a JSON file (one task, or a list of them) or a JSON Lines file (one task a line).

Keys of a task:

    instruction    the problem, in words
    fail_to_pass   ids of the tests that fail and must pass
    repository     folder of the repository, relative to the task file; or, instead of it,
    package        name of a pinned package (`regrade.datasets.mutation.packages`), which is fetched
  and, all of them optional,
    id             default: FILE:NUMBER
    base_patch     unified diff from the folder to the task's base
    pass_to_pass   ids of the tests that must still pass; default: all tests that pass at the base in every run, which
                   are measured; []: no test is guarded
    reference      unified diff, a patch known to be correct
    failure        the message of one failing test
    difficulty     the author's estimate, in a word or two: results are sliced by it
    target         {"file", "function", "first_line", "last_line"}: the place of the bug in the base
    shown          {"tests": ids or files of the tests that an agent may run and read, "names_failing_tests": is it told
                   the FAIL_TO_PASS tests among them}; default: all, and told
    python_path, paths, options   for pytest: folders on sys.path; files and folders to collect; further options
    requirements   pinned requirements of the environment; default: those of the package, or the current interpreter
    limits         {"wall_seconds", "memory_mb", "processes", "file_mb"}
    suite          file of measured tests, relative to the task file (`regrade.datasets.formats.measured_suites`), which
                   many tasks share: how to run the tests, requirements, limits, and the tests that must still pass
    assurance      least assurance level of a verdict that pays: tripwired, out-of-process or held-out
    split          name of the task's split
    wrong_fix      unified diff, a patch that passes the shown tests and breaks others
    origin         {"source", "kind", ...}: how the task was made
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

from regrade.datasets.applying import DOES_NOT_APPLY, apply_patch
from regrade.datasets.catalogue import CatalogueEntry, entry_of
from regrade.datasets.errors import UserError
from regrade.datasets.formats.measured_suites import MeasuredSuite, read_measured_suite
from regrade.datasets.json_structs import Plain, Positive, Seconds, converted
from regrade.datasets.json_text import parse_json, read_text, shown
from regrade.datasets.mutation.packages import Package, fetch, package
from regrade.datasets.node_ids import file_of, test_files_of
from regrade.datasets.own_environment import own_interpreter
from regrade.datasets.patches import Patch, PatchError
from regrade.datasets.tasks import Limits, Shown, Target, Task, TestSuite, Tree


class _TargetEntry(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    file: Plain
    function: Plain
    first_line: Positive
    last_line: Positive


class _ShownEntry(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    tests: tuple[Plain, ...] | UnsetType = UNSET
    names_failing_tests: bool = True


class _OriginEntry(msgspec.Struct, kw_only=True, frozen=True):
    """Further keys describe the task, and change nothing."""

    source: Plain = Task.source
    kind: Plain = ""
    repository: Plain | UnsetType = UNSET


class _LimitsEntry(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    wall_seconds: Seconds = Limits.wall_seconds
    memory_mb: Positive = Limits.memory_mb
    processes: Positive = Limits.processes
    file_mb: Positive = Limits.file_mb


class _TaskEntry(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    id: Plain
    instruction: Plain
    fail_to_pass: tuple[Plain, ...]
    repository: Plain | UnsetType = UNSET
    package: Plain | UnsetType = UNSET
    base_patch: Plain | UnsetType = UNSET
    pass_to_pass: tuple[Plain, ...] | UnsetType = UNSET
    reference: Plain | UnsetType = UNSET
    failure: Plain = ""
    difficulty: Plain = ""
    target: _TargetEntry | UnsetType = UNSET
    python_path: tuple[Plain, ...] | UnsetType = UNSET
    paths: tuple[Plain, ...] | UnsetType = UNSET
    options: tuple[Plain, ...] | UnsetType = UNSET
    requirements: tuple[Plain, ...] | UnsetType = UNSET
    limits: _LimitsEntry = _LimitsEntry()
    shown: _ShownEntry = _ShownEntry()
    suite: Plain | UnsetType = UNSET
    unnamed: tuple[Plain, ...] = ()
    assurance: Literal["", "tripwired", "out-of-process", "held-out"] = ""
    split: Plain = ""
    wrong_fix: Plain | UnsetType = UNSET
    origin: _OriginEntry = _OriginEntry()


def read_task_file(path: Path, cache: Path | None = None, split: str | None = None) -> list[Task]:
    """The tasks of a file, or of one of its splits, in its order.

    Raises:
        UserError: the file is unreadable or wrong, or has no such split; with the line, the key and the remedy.
    """
    suites = _Suites(path.parent)
    tasks = [_task(entry, where, path.parent, cache, suites) for entry, where in _chosen(path, split)]
    _check_ids([task.id for task in tasks], path)
    return tasks


def read_wrong_fixes(path: Path, split: str | None = None) -> dict[str, Patch]:
    """Id -> wrong fix, of the tasks that have one. Raises UserError as `read_task_file`."""
    found = {}
    for entry, where in _chosen(path, split):
        if (patch := _patch(entry.wrong_fix, "wrong_fix", where)) is not None:
            found[entry.id] = patch
    return found


def _chosen(path: Path, split: str | None) -> list[tuple[_TaskEntry, str]]:
    """The entries of a split. Raises UserError if the file has no such split."""
    entries = list(_entries(path))
    if split is None:
        return entries
    names = sorted({entry.split for entry, _ in entries} - {""})
    if not names:
        raise UserError(f"{path} is a task file, which has no splits: omit the split {split!r}")
    if split not in names:
        raise UserError(f"{path} has no task in the split {split!r}: choose from {', '.join(names)}")
    return [(entry, where) for entry, where in entries if entry.split == split]


class _Suites:
    """The suites that tasks of a file share, each read once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[str, MeasuredSuite] = {}
        self._trees: dict[Path, Tree] = {}

    def get(self, name: str, where: str) -> MeasuredSuite:
        if name.startswith("/") or ".." in PurePosixPath(name).parts:
            raise UserError(f"{where}: 'suite' is {shown(name)}: set a path below the folder of the task file")
        if name not in self._read:
            self._read[name] = read_measured_suite(self._folder / name)
        return self._read[name]

    def tree(self, root: Path) -> Tree:
        """One tree for all tasks of a repository, so that its files are read once."""
        return self._trees.setdefault(root, Tree(root))


def list_task_file(path: Path, split: str | None = None) -> list[CatalogueEntry]:
    """The tasks of a file, in its order; pinned packages are not fetched. Raises UserError as `read_task_file`."""
    suites = _Suites(path.parent)
    listed = [_listed(entry, where, path.parent, suites) for entry, where in _chosen(path, split)]
    _check_ids([task.id for task in listed], path)
    return listed


def _check_ids(ids: Sequence[str], path: Path) -> None:
    if not ids:
        raise UserError(f"{path} contains no task; a task needs the keys instruction, fail_to_pass and repository")
    twice = next((each for each, count in Counter(ids).items() if count > 1), None)
    if twice is not None:
        raise UserError(f"{path}: the id {twice!r} occurs twice; ids must be unique")


def _listed(entry: _TaskEntry, where: str, folder: Path, suites: _Suites) -> CatalogueEntry:
    if entry.package is UNSET or entry.repository is not UNSET:
        return entry_of(_task(entry, where, folder, None, suites))
    return CatalogueEntry(
        id=entry.id,
        repository=package(entry.package).name,
        source=Task.source,
        file=None if entry.target is UNSET else entry.target.file,
        function=None if entry.target is UNSET else entry.target.function,
        fail_to_pass=len(entry.fail_to_pass),
        pass_to_pass=0 if entry.pass_to_pass is UNSET else len(entry.pass_to_pass),
    )


def _entries(path: Path) -> Iterator[tuple[_TaskEntry, str]]:
    """(entry of a task, file and line in JSON Lines, else file and number in the list)."""
    text = read_text(path)
    if path.suffix == ".jsonl":
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                yield _entry(parse_json(line, str(path), number), path, number, f"{path}:{number}")
        return
    value = parse_json(text, str(path))
    for number, item in enumerate(value if isinstance(value, list) else [value], start=1):
        yield _entry(item, path, number, f"{path}, task {number}")


def _entry(value: object, path: Path, number: int, where: str) -> tuple[_TaskEntry, str]:
    with_id = {"id": f"{path.name}:{number}", **value} if isinstance(value, dict) else value
    return converted(with_id, _TaskEntry, where), where


def _task(entry: _TaskEntry, where: str, folder: Path, cache: Path | None, suites: _Suites) -> Task:
    pinned, root = _repository(entry, where, folder, cache)
    if entry.suite is not UNSET:
        return _of_suite(entry, where, root, suites)
    _named_tests(entry, where)
    pass_to_pass = () if entry.pass_to_pass is UNSET else entry.pass_to_pass
    if both := set(entry.fail_to_pass) & set(pass_to_pass):
        raise UserError(f"{where}: {min(both)!r} is in 'fail_to_pass' and in 'pass_to_pass': leave it in one")
    for key, values in (("python_path", entry.python_path), ("paths", entry.paths)):
        for path in () if values is UNSET else values:
            if path.startswith("/") or ".." in PurePosixPath(path).parts:
                raise UserError(f"{where}: {key!r} contains {shown(path)}: set a path inside the repository")
    for requirement in () if entry.requirements is UNSET else entry.requirements:
        if requirement.lstrip().startswith("-"):
            raise UserError(
                f"{where}: 'requirements' contains the pip option {shown(requirement)}: set pinned packages only, such "
                "as 'pytest==9.2.0'"
            )
    base = _base(entry, where, Tree(root))
    suite: Package | TestSuite = pinned or TestSuite()
    return Task(
        id=entry.id,
        repository=pinned.name if pinned else root.name,
        base=base,
        instruction=entry.instruction,
        fail_to_pass=entry.fail_to_pass,
        pass_to_pass=pass_to_pass,
        is_unmeasured=entry.pass_to_pass is UNSET,
        suite=TestSuite(
            python_path=suite.python_path if entry.python_path is UNSET else entry.python_path,
            paths=suite.paths if entry.paths is UNSET else entry.paths,
            options=suite.options if entry.options is UNSET else entry.options,
            test_files=test_files_of(
                (*entry.fail_to_pass, *(() if entry.pass_to_pass is UNSET else entry.pass_to_pass))
            ),
        ),
        requirements=_default_requirements(pinned, root) if entry.requirements is UNSET else entry.requirements,
        limits=Limits(**msgspec.structs.asdict(entry.limits)),
        target=None if entry.target is UNSET else _target(entry.target, f"{where}, target", base),
        failure=entry.failure,
        reference=_patch(entry.reference, "reference", where),
        difficulty=entry.difficulty,
        shown=_shown(entry, where),
        assurance=entry.assurance,
    )


def _of_suite(entry: _TaskEntry, where: str, root: Path, suites: _Suites) -> Task:
    """A task of a set: all that concerns its tests but their outcome is in the shared suite."""
    measured = suites.get(str(entry.suite), where)
    own = (entry.python_path, entry.paths, entry.options, entry.requirements)
    if any(value is not UNSET for value in own):
        raise UserError(f"{where}: 'suite' holds python_path, paths, options and requirements: leave these keys out")
    failing = {*entry.fail_to_pass, *entry.unnamed}
    guarded = tuple(test for test in measured.tests if test not in failing)
    base = _base(entry, where, suites.tree(root))
    return Task(
        id=entry.id,
        repository=root.name if entry.origin.repository is UNSET else entry.origin.repository,
        base=base,
        instruction=entry.instruction,
        fail_to_pass=_named_tests(entry, where),
        pass_to_pass=guarded if entry.pass_to_pass is UNSET else entry.pass_to_pass,
        unnamed=entry.unnamed,
        suite=measured.suite,
        requirements=measured.requirements,
        limits=measured.limits,
        source=entry.origin.source,
        kind=entry.origin.kind,
        target=None if entry.target is UNSET else _target(entry.target, f"{where}, target", base),
        failure=entry.failure,
        reference=_patch(entry.reference, "reference", where),
        difficulty=entry.difficulty,
        shown=_shown(entry, where),
        assurance=entry.assurance,
    )


def _named_tests(entry: _TaskEntry, where: str) -> tuple[str, ...]:
    if not entry.fail_to_pass:
        raise UserError(f"{where}: 'fail_to_pass' is empty; name at least one test that fails and must pass")
    return entry.fail_to_pass


def _shown(entry: _TaskEntry, where: str) -> Shown:
    names = entry.shown.tests
    if names is UNSET:
        return Shown(names_failing_tests=entry.shown.names_failing_tests)
    if entry.pass_to_pass is not UNSET:  # else the tests are not known yet
        check_shown(names, (*entry.fail_to_pass, *entry.pass_to_pass), f"{where}, shown")
    return Shown(tests=names, names_failing_tests=entry.shown.names_failing_tests)


def check_shown(names: Sequence[str], tests: Collection[str], where: str) -> None:
    """Raises UserError if a shown test is none of the task's, nor a file of some."""
    known = {*tests, *map(file_of, tests)}
    unknown = next((name for name in names if name not in known), None)
    if unknown is not None:
        raise UserError(
            f"{where}: 'tests' names {shown(unknown)}, which is no test of the task and no file of its tests: set ids "
            "or files of tests in 'fail_to_pass' or 'pass_to_pass'"
        )


def _default_requirements(pinned: Package | None, root: Path) -> tuple[str, ...]:
    if pinned is not None:
        return pinned.requirements
    interpreter = own_interpreter(root)
    return () if interpreter is None else (str(interpreter),)


def _repository(entry: _TaskEntry, where: str, folder: Path, cache: Path | None) -> tuple[Package | None, Path]:
    if entry.package is not UNSET and entry.repository is UNSET:
        pinned = package(entry.package)
        return pinned, fetch(pinned, cache)
    if entry.repository is UNSET or entry.package is not UNSET:
        raise UserError(f"{where}: set either 'repository' (a folder) or 'package' (a pinned package's name)")
    root = (folder / entry.repository).resolve()
    try:
        is_folder = root.is_dir()
    except OSError:  # the name is too long
        is_folder = False
    if not is_folder:
        raise UserError(
            f"{where}: 'repository' is {shown(entry.repository)}, but {shown(str(root))} is not a folder: "
            "set a folder, relative to the task file"
        )
    if root == Path(root.anchor):
        raise UserError(f"{where}: 'repository' is the root of the file system: set the folder of one repository")
    return None, root


def _base(entry: _TaskEntry, where: str, pristine: Tree) -> Tree:
    patch = _patch(entry.base_patch, "base_patch", where)
    if patch is None:
        return pristine
    try:
        return apply_patch(pristine, patch)
    except PatchError as error:
        why = str(error).removeprefix(DOES_NOT_APPLY)
        raise UserError(f"{where}: 'base_patch' does not apply to {pristine.root}: {why}") from error
    except FileNotFoundError as error:
        raise UserError(f"{where}: 'base_patch' needs git, which is not installed: install git") from error


def _patch(text: str | UnsetType, key: str, where: str) -> Patch | None:
    if text is UNSET:
        return None
    patch = Patch(text)
    try:
        files = patch.files
    except PatchError as error:
        raise UserError(f"{where}: {key!r} is not a patch: {error}") from error
    if not files:
        raise UserError(f"{where}: {key!r} changes nothing; omit the key or set a unified diff")
    return patch


def _target(entry: _TargetEntry, where: str, base: Tree) -> Target:
    target = Target(**msgspec.structs.asdict(entry))
    if target.file not in base.paths():
        raise UserError(f"{where}: the base has no file {target.file!r}; set a path relative to the repository")
    lines = base.read(target.file).count("\n") + 1
    if not target.first_line <= target.last_line <= lines:
        raise UserError(
            f"{where}: lines {target.first_line} to {target.last_line} are not in {target.file!r}, "
            f"which has {lines} lines: count from 1, in the base"
        )
    return target
