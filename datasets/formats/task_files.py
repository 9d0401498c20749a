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
    image          {"name", "workdir", "user", "activate", "setup", "command", "reader", "environment"}: the Docker
                   image that the tests run in, in place of requirements; without 'repository', the files at its
                   'workdir' are the repository
    limits         {"wall_seconds", "memory_mb", "processes", "file_mb"}
    suite          file of measured tests, relative to the task file (`regrade.datasets.formats.measured_suites`), which
                   many tasks share: how to run the tests, requirements, limits, and the tests that must still pass
    assurance      least assurance level of a verdict that pays: tripwired, out-of-process or held-out
    split          name of the task's split
    wrong_fix      unified diff, a patch that passes the shown tests and breaks others
    origin         {"source", "kind", "repository", ...}: how the task was made

Rows of SWE-bench, SWE-smith and R2E are read too (`swe_bench.py`), and folders of Harbor tasks (`harbor.py`).
"""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

from regrade.datasets.applying import DOES_NOT_APPLY, apply_patch
from regrade.datasets.caches import default_cache, usable
from regrade.datasets.catalogue import CatalogueEntry, entry_of
from regrade.datasets.container_images import PYTEST, READERS, ContainerImage, repository_in
from regrade.datasets.errors import UserError
from regrade.datasets.formats.checkouts import Clones
from regrade.datasets.formats.harbor import harbor_entries
from regrade.datasets.formats.measured_suites import MeasuredSuite, read_measured_suite
from regrade.datasets.formats.swe_bench import RowTask, is_row, task_of_row
from regrade.datasets.formats.task_rows import task_rows
from regrade.datasets.formats.task_sets import patch_from
from regrade.datasets.graded.records import Findings
from regrade.datasets.json_structs import Plain, Positive, Seconds, converted
from regrade.datasets.json_text import shown
from regrade.datasets.mutation.packages import Package, fetch, package
from regrade.datasets.node_ids import file_of, test_files_of
from regrade.datasets.own_environment import own_interpreter
from regrade.datasets.patches import Patch, PatchError
from regrade.datasets.tasks import Limits, Shown, Target, Task, TestSuite, Tree

ENVIRONMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
SYSTEM_FOLDERS = frozenset({"/", "/bin", "/dev", "/etc", "/lib", "/lib64", "/proc", "/sbin", "/sys", "/tmp", "/usr"})
"""Folders of an image that no repository may cover."""


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


class _ImageEntry(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    name: Plain
    workdir: Plain = ""
    user: Plain = ""
    activate: Plain = ""
    setup: Plain = ""
    command: Plain = ""
    reader: Plain = PYTEST
    environment: dict[Plain, Plain] = msgspec.field(default_factory=dict)


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
    image: _ImageEntry | UnsetType = UNSET
    limits: _LimitsEntry = _LimitsEntry()
    shown: _ShownEntry = _ShownEntry()
    suite: Plain | UnsetType = UNSET
    unnamed: tuple[Plain, ...] = ()
    assurance: Literal["", "tripwired", "out-of-process", "held-out"] = ""
    split: Plain = ""
    wrong_fix: Plain | UnsetType = UNSET
    origin: _OriginEntry = _OriginEntry()


@dataclass(frozen=True)
class _Listed:
    """A task of a file."""

    entry: _TaskEntry
    where: str
    """The file and the place in it."""
    row: RowTask | None = None
    """Where the base comes from, if the file names a commit."""


CLONES = "repositories"
"""The folder of clones, beside a file of rows that name a commit."""


def read_task_file(
    path: Path,
    cache: Path | None = None,
    split: str | None = None,
    *,
    repositories: Path | None = None,
    findings: Findings | None = None,
) -> list[Task]:
    """The tasks of a file, of a folder of Harbor tasks, or of one of their splits, in order.

    Args:
        repositories: clones, for rows that name a commit: see `Clones`; None: the folder `repositories` beside
            the file.
        findings: receives what is odd in the lists of tests of such rows, which is then left out; None: it is an error.

    Raises:
        UserError: the file is unreadable or wrong, or has no such split; with the line, the key and the remedy.
    """
    reader = _TaskReader(path, cache, repositories)
    tasks = [reader.task(each) for each in _chosen(path, split, findings)]
    _check_ids([task.id for task in tasks], path)
    return tasks


def read_wrong_fixes(path: Path, split: str | None = None) -> dict[str, Patch]:
    """Id -> wrong fix, of the tasks that have one. Raises UserError as `read_task_file`."""
    found = {}
    for each in _chosen(path, split):
        if (patch := _patch(each.entry.wrong_fix, "wrong_fix", each.where)) is not None:
            found[each.entry.id] = patch
    return found


def _chosen(path: Path, split: str | None, findings: Findings | None = None) -> list[_Listed]:
    """The tasks of a split. Raises UserError if the file has no such split."""
    tasks = list(_listed(path, findings))
    if split is None:
        return tasks
    names = sorted({each.entry.split for each in tasks} - {""})
    if not names:
        raise UserError(f"{path} is a task file, which has no splits: omit the split {split!r}")
    if split not in names:
        raise UserError(f"{path} has no task in the split {split!r}: choose from {', '.join(names)}")
    return [each for each in tasks if each.entry.split == split]


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
    """The tasks of a file, in its order; neither packages nor clones are read. Raises UserError as `read_task_file`."""
    reader = _TaskReader(path, None, None)
    listed = [_catalogued(each, reader) for each in _chosen(path, split)]
    _check_ids([task.id for task in listed], path)
    return listed


def _check_ids(ids: Sequence[str], path: Path) -> None:
    if not ids:
        raise UserError(f"{path} contains no task; a task needs the keys instruction, fail_to_pass and repository")
    twice = next((each for each, count in Counter(ids).items() if count > 1), None)
    if twice is not None:
        raise UserError(f"{path}: the id {twice!r} occurs twice; ids must be unique")


def _catalogued(each: _Listed, reader: _TaskReader) -> CatalogueEntry:
    """An entry of the list; an image that holds the files of a task is not opened."""
    entry = each.entry
    is_in_image = entry.image is not UNSET and entry.repository is UNSET and entry.package is UNSET
    if each.row is None and not is_in_image and (entry.package is UNSET or entry.repository is not UNSET):
        return entry_of(reader.task(each))
    origin = entry.origin
    if entry.image is not UNSET and is_in_image:
        repository = entry.image.name
    else:
        repository = package(entry.package).name if entry.package is not UNSET else str(origin.repository)
    return CatalogueEntry(
        id=entry.id,
        repository=repository,
        source=origin.source,
        file=None if entry.target is UNSET else entry.target.file,
        function=None if entry.target is UNSET else entry.target.function,
        fail_to_pass=len(entry.fail_to_pass),
        pass_to_pass=0 if entry.pass_to_pass is UNSET else len(entry.pass_to_pass),
    )


def _listed(path: Path, findings: Findings | None) -> Iterator[_Listed]:
    if path.is_dir():
        for value, where in harbor_entries(path):
            yield _Listed(converted(value, _TaskEntry, where), where)
        return
    for value, number, where in task_rows(path):
        if not is_row(value):
            with_id = {"id": f"{path.name}:{number}", **value} if isinstance(value, dict) else value
            yield _Listed(converted(with_id, _TaskEntry, where), where)
        elif (row := task_of_row(value, where, findings)) is not None:
            named = f"{where} ({row.entry['id']})"
            yield _Listed(converted(row.entry, _TaskEntry, named), named, row)


class _TaskReader:
    """Makes the tasks of one file."""

    def __init__(self, path: Path, cache: Path | None, clones: Path | None) -> None:
        self._folder = path if path.is_dir() else path.parent
        self._cache = cache
        self._suites = _Suites(self._folder)
        advice = (
            f"clone it into {self._folder / CLONES / 'OWNER__NAME'}, or name the folder of your clones with "
            "`repositories=FOLDER` (of `regrade tasks import`)"
        )
        self._clones = Clones(clones or self._folder / CLONES, cache, "" if clones else advice)

    def task(self, each: _Listed) -> Task:
        """Raises UserError: see `read_task_file`."""
        if each.row is None:
            pinned, root = _repository(each.entry, each.where, self._folder, self._cache)
            return self._task(each, pinned, root)
        task = self._task(each, None, self._clones.export(each.row.checkout, each.where))
        return replace(task, reference=patch_from(task)) if each.row.plants_bug else task

    def _task(self, each: _Listed, pinned: Package | None, root: Path) -> Task:
        if each.entry.suite is not UNSET:
            return _of_suite(each.entry, each.where, root, self._suites)
        return _of_entry(each.entry, each.where, pinned, self._suites.tree(root))


def _of_entry(entry: _TaskEntry, where: str, pinned: Package | None, pristine: Tree) -> Task:
    """A task that says itself how its tests run."""
    root = pristine.root
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
    base = _base(entry, where, pristine)
    suite: Package | TestSuite = pinned or TestSuite()
    image = _image(entry, where)
    return Task(
        id=entry.id,
        repository=_repository_name(entry, pinned, root),
        source=entry.origin.source,
        kind=entry.origin.kind,
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
            image=image,
            runner=TestSuite.runner if image is None else image.reader,
        ),
        requirements=_requirements(entry, pinned, root, image),
        limits=Limits(**msgspec.structs.asdict(entry.limits)),
        target=None if entry.target is UNSET else _target(entry.target, f"{where}, target", base),
        failure=entry.failure,
        reference=_patch(entry.reference, "reference", where),
        difficulty=entry.difficulty,
        shown=_shown(entry, where),
        assurance=entry.assurance,
    )


def _repository_name(entry: _TaskEntry, pinned: Package | None, root: Path) -> str:
    if entry.origin.repository is not UNSET:
        return entry.origin.repository
    return pinned.name if pinned else root.name


def _of_suite(entry: _TaskEntry, where: str, root: Path, suites: _Suites) -> Task:
    """A task of a set: all that concerns its tests but their outcome is in the shared suite."""
    measured = suites.get(str(entry.suite), where)
    own = (entry.python_path, entry.paths, entry.options, entry.requirements, entry.image)
    if any(value is not UNSET for value in own):
        raise UserError(
            f"{where}: 'suite' holds python_path, paths, options, requirements and image: leave these keys out"
        )
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
    # A task can ask for less complexity of its target instead; one with a reference then says what that fixes.
    if not entry.fail_to_pass and (entry.target is UNSET or entry.reference is not UNSET):
        raise UserError(
            f"{where}: 'fail_to_pass' is empty; name at least one test that fails and must pass, or a 'target' function"
        )
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


def _requirements(
    entry: _TaskEntry, pinned: Package | None, root: Path, image: ContainerImage | None
) -> tuple[str, ...]:
    if image is not None:
        return ()
    return _default_requirements(pinned, root) if entry.requirements is UNSET else entry.requirements


def _image(entry: _TaskEntry, where: str) -> ContainerImage | None:
    image = entry.image
    if image is UNSET:
        return None
    if entry.requirements is not UNSET:
        raise UserError(f"{where}: 'image' holds the environment of the tests: leave the key 'requirements' out")
    if image.reader not in READERS:
        raise UserError(f"{where}, image: 'reader' is {shown(image.reader)}: choose one of {', '.join(READERS)}")
    traits = READERS[image.reader]
    if traits.needs_command and not image.command.strip():
        raise UserError(
            f"{where}, image: the reader {image.reader!r} needs 'command', the shell lines that run the tests"
        )
    if traits.has_report and "{report}" not in image.command:
        raise UserError(
            f"{where}, image: the reader {image.reader!r} reads a file: 'command' must pass its path, {{report}}, to "
            "the program that writes it"
        )
    if image.workdir and (not image.workdir.startswith("/") or posixpath.normpath(image.workdir) in SYSTEM_FOLDERS):
        raise UserError(
            f"{where}, image: 'workdir' is {shown(image.workdir)}: set the absolute path of the repository in the image"
        )
    name = next((name for name in image.environment if not ENVIRONMENT_NAME.fullmatch(name)), None)
    if name is not None:
        raise UserError(f"{where}, image: 'environment' names {shown(name)}, which is no name of a variable")
    return ContainerImage(
        name=image.name,
        workdir=posixpath.normpath(image.workdir) if image.workdir else "",
        user=image.user,
        activate=image.activate,
        setup=image.setup,
        command=image.command,
        reader=image.reader,
        environment=tuple(sorted(image.environment.items())),
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
    if entry.repository is UNSET and entry.package is UNSET and entry.image is not UNSET:
        _image(entry, where)
        workdir = posixpath.normpath(entry.image.workdir) if entry.image.workdir else ""
        try:
            return None, repository_in(entry.image.name, workdir, usable(cache or default_cache()))
        except UserError as error:
            raise UserError(f"{where}: {error}; or set 'repository', a folder with the files") from error
    if entry.repository is UNSET or entry.package is not UNSET:
        raise UserError(
            f"{where}: set either 'repository' (a folder) or 'package' (a pinned package's name), or 'image' alone"
        )
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
