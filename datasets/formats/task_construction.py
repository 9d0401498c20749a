"""The task of an entry of a task file (see `task_entries.py`)."""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

import msgspec
from msgspec import UNSET, UnsetType

from regrade.datasets.applying import DOES_NOT_APPLY, apply_patch
from regrade.datasets.caches import default_cache, usable
from regrade.datasets.container_images import ContainerImage, repository_in
from regrade.datasets.errors import UserError
from regrade.datasets.formats.measured_suites import MeasuredSuite, read_measured_suite
from regrade.datasets.formats.task_entries import TargetEntry, TaskEntry, image_of
from regrade.datasets.json_text import shown
from regrade.datasets.mutation.packages import Package, fetch, package
from regrade.datasets.node_ids import file_of, test_files_of
from regrade.datasets.own_environment import own_interpreter
from regrade.datasets.patches import Patch, PatchError
from regrade.datasets.tasks import Limits, Shown, Target, Task, TestSuite, Tree


class Suites:
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


def task_of_entry(entry: TaskEntry, where: str, pinned: Package | None, pristine: Tree) -> Task:
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
    image = image_of(entry, where)
    task = Task(
        id=entry.id,
        repository=_repository_name(entry, pinned, root),
        base=base,
        instruction="",
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
    )
    return _described(task, entry, where)


def _repository_name(entry: TaskEntry, pinned: Package | None, root: Path) -> str:
    if entry.origin.repository is not UNSET:
        return entry.origin.repository
    return pinned.name if pinned else root.name


def task_of_suite(entry: TaskEntry, where: str, root: Path, suites: Suites) -> Task:
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
    task = Task(
        id=entry.id,
        repository=root.name if entry.origin.repository is UNSET else entry.origin.repository,
        base=base,
        instruction="",
        fail_to_pass=_named_tests(entry, where),
        pass_to_pass=guarded if entry.pass_to_pass is UNSET else entry.pass_to_pass,
        unnamed=entry.unnamed,
        suite=measured.suite,
        requirements=measured.requirements,
        limits=measured.limits,
    )
    return _described(task, entry, where)


def _described(task: Task, entry: TaskEntry, where: str) -> Task:
    """The task with all that an entry says of it beside its files and its tests."""
    return replace(
        task,
        instruction=entry.instruction,
        source=entry.origin.source,
        kind=entry.origin.kind,
        target=None if entry.target is UNSET else _target(entry.target, f"{where}, target", task.base),
        failure=entry.failure,
        reference=patch_of(entry.reference, "reference", where),
        difficulty=entry.difficulty,
        shown=_shown(entry, where),
        assurance=entry.assurance,
    )


def _named_tests(entry: TaskEntry, where: str) -> tuple[str, ...]:
    # A task can ask for less complexity of its target instead; one with a reference then says what that fixes.
    if not entry.fail_to_pass and (entry.target is UNSET or entry.reference is not UNSET):
        raise UserError(
            f"{where}: 'fail_to_pass' is empty; name at least one test that fails and must pass, or a 'target' function"
        )
    return entry.fail_to_pass


def _shown(entry: TaskEntry, where: str) -> Shown:
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
    entry: TaskEntry, pinned: Package | None, root: Path, image: ContainerImage | None
) -> tuple[str, ...]:
    if image is not None:
        return ()
    return _default_requirements(pinned, root) if entry.requirements is UNSET else entry.requirements


def _default_requirements(pinned: Package | None, root: Path) -> tuple[str, ...]:
    if pinned is not None:
        return pinned.requirements
    interpreter = own_interpreter(root)
    return () if interpreter is None else (str(interpreter),)


def repository_of(entry: TaskEntry, where: str, folder: Path, cache: Path | None) -> tuple[Package | None, Path]:
    """The pinned package of an entry, if it names one, and the folder of its files. Raises UserError: there is none."""
    if entry.package is not UNSET and entry.repository is UNSET:
        pinned = package(entry.package)
        return pinned, fetch(pinned, cache)
    if entry.repository is UNSET and entry.package is UNSET and entry.image is not UNSET:
        image_of(entry, where)
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


def _base(entry: TaskEntry, where: str, pristine: Tree) -> Tree:
    patch = patch_of(entry.base_patch, "base_patch", where)
    if patch is None:
        return pristine
    try:
        return apply_patch(pristine, patch)
    except PatchError as error:
        why = str(error).removeprefix(DOES_NOT_APPLY)
        raise UserError(f"{where}: 'base_patch' does not apply to {pristine.root}: {why}") from error
    except FileNotFoundError as error:
        raise UserError(f"{where}: 'base_patch' needs git, which is not installed: install git") from error


def patch_of(text: str | UnsetType, key: str, where: str) -> Patch | None:
    """The patch of a key; None: the entry lacks it. Raises UserError: it is none, or changes nothing."""
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


def _target(entry: TargetEntry, where: str, base: Tree) -> Target:
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
