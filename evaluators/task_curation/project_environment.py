"""The environment for the tests of a repository: which requirements it declares for them, locked and installed once.

The groups of requirements are chosen by facts: a group that installs pytest is for the tests; a further group is added
if it provides a module that the tests import and that is missing without it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from regrade.datasets.errors import UserError
from regrade.datasets.mining.declared_requirements import (
    RequirementGroup,
    build_requirements,
    declared_groups,
    locked_versions,
    runtime_requirements,
)
from regrade.datasets.mining.repositories import Repository
from regrade.evaluators.execution import environments
from regrade.evaluators.execution.native_code import EXTENSIONS
from regrade.evaluators.sandboxes.base import Sandbox
from regrade.evaluators.task_curation.layout import imported_by_tests, project_names, python_path
from regrade.evaluators.task_curation.locked_requirements import lock
from regrade.evaluators.task_curation.project_wheel import ProjectWheel, build_project_wheel, generated_files

RUNNER = "pytest"
MOST_GROUPS = 8
"""Groups that are tried for missing modules."""


@dataclass(frozen=True, kw_only=True)
class ProjectEnvironment:
    """An installed environment, and the repository with the files that its build generates."""

    repository: Repository
    requirements: tuple[str, ...]
    """Locked; see `Task.requirements`."""
    python: Path
    groups: tuple[str, ...]
    """Where the requirements are declared."""
    generated: Mapping[str, bytes] = field(default_factory=dict)
    """The files that the build added, without compiled ones: other commits need them too."""
    licence: str = ""
    notes: tuple[str, ...] = field(default=())
    """What could not be built or found."""


def build_environment(
    repository: Repository, sandbox: Sandbox, cache: Path, tell: Callable[[str], None] = lambda _: None
) -> ProjectEnvironment:
    """Lock and install what the repository's tests need. The network is used here, and by nothing later.

    Raises:
        UserError: the requirements can't be locked or installed; with pip's reason.
    """
    notes: list[str] = []
    wheel = _wheel(repository, sandbox, cache)
    if wheel.error:
        notes.append(f"the wheel of {repository.name} can't be built in the sandbox: {wheel.error}")
    chosen = _Requirements(repository, wheel, cache, notes)
    locked, python = chosen.locked()
    path = python_path(repository.root, repository.tree, python)
    files = generated_files(wheel, repository.root, path)
    repository = repository.with_files(files, cache)
    for note in notes:
        tell(note)
    return ProjectEnvironment(
        repository=repository,
        requirements=locked,
        python=python,
        groups=tuple(group.origin for group in chosen.groups),
        generated={path: content for path, content in files.items() if not path.endswith(EXTENSIONS)},
        licence=wheel.licence,
        notes=tuple(notes),
    )


def _wheel(repository: Repository, sandbox: Sandbox, cache: Path) -> ProjectWheel:
    required = build_requirements(repository.tree)
    if required is None:
        return ProjectWheel()
    try:
        python = environments.python_for(lock(required, cache), cache)
    except UserError as error:
        return ProjectWheel(error=str(error))
    return build_project_wheel(repository.root, python, sandbox, _version(repository))


def _version(repository: Repository) -> str:
    """A released package's version; that of a commit is unknown, and must look like a late one."""
    return repository.version if repository.history is None and repository.version else "999.0"


class _Requirements:
    """Chooses the groups of requirements for the tests."""

    def __init__(self, repository: Repository, wheel: ProjectWheel, cache: Path, notes: list[str]) -> None:
        self._repository, self._wheel, self._cache, self._notes = repository, wheel, cache, notes
        self._constraints = locked_versions(repository.tree)
        declared = runtime_requirements(repository.tree)
        runtime = wheel.required_for() if wheel.files else declared.requirements
        self._runtime = RequirementGroup(declared.origin if not wheel.files else "the project's metadata", runtime)
        groups = declared_groups(repository.tree)
        named = {extra for group in groups for extra in group.extras}
        groups += [RequirementGroup(f"extra {name}", (), (name,)) for name in wheel.extras if name not in named]
        self._candidates = [self._expanded(group) for group in groups]
        runners = [group for group in self._candidates if RUNNER in group.names]
        self.groups = [self._runtime] if runtime else []
        # The smallest: others also hold what documents, linters or releases need.
        self.groups += sorted(runners, key=lambda group: len(group.requirements))[:1]

    def locked(self) -> tuple[tuple[str, ...], Path]:
        """The lock, and the interpreter of its environment."""
        locked = self._lock_what_fits()
        python = environments.python_for(locked, self._cache)
        missing = self._missing(python)
        waiting = [group for group in self._candidates if group not in self.groups]
        waiting.sort(key=lambda group: (not _hints_at(group, missing), len(group.requirements)))
        for group in waiting[:MOST_GROUPS]:
            if not missing:
                break
            try:
                larger = self._lock([*self.groups, group])
                other = environments.python_for(larger, self._cache)
            except UserError:
                continue  # a group for another purpose may not fit here
            still = self._missing(other)
            if len(still) < len(missing):
                self.groups.append(group)
                locked, python, missing = larger, other, still
        if missing:
            names = ", ".join(sorted(missing)[:5])
            self._notes.append(f"the tests import {names}, which no declared requirement provides")
        return locked, python

    def _lock_what_fits(self) -> tuple[str, ...]:
        """The lock of the groups, without those of the tests' own requirements, such as a linter's plugin, of which no
        wheel fits here. A note names them; if the tests need one, they fail at the base."""
        notes = list(self._notes)
        try:
            return self._lock(self.groups)
        except UserError:
            needed = [group for group in self.groups if group is self._runtime]
            own = [each for group in self.groups if group not in needed for each in group.requirements]
            self._lock(needed)  # if the project itself cannot be installed, nothing helps
            fitting = tuple(each for each in own if self._fits(each, needed))
            lacking = [each for each in own if each not in fitting]
            if not lacking or RUNNER in RequirementGroup("", tuple(lacking)).names:
                raise
        self._notes[:] = notes  # without those on trials
        self.groups = [*needed, *(replace(group, requirements=fitting) for group in self.groups if group not in needed)]
        locked = self._lock(self.groups)
        self._notes.append(
            f"the tests run without {', '.join(lacking)}, of which no wheel fits here; if they need it, install their "
            "dependencies yourself, and name that interpreter with `python=PATH`"
        )
        return locked

    def _fits(self, requirement: str, needed: Sequence[RequirementGroup]) -> bool:
        try:
            self._lock([*needed, RequirementGroup("", (requirement,))])
        except UserError:
            return False
        return True

    def _lock(self, groups: Sequence[RequirementGroup]) -> tuple[str, ...]:
        requirements = [*dict.fromkeys(each for group in groups for each in group.requirements)]
        if RUNNER not in {name for group in groups for name in group.names}:
            requirements.append(RUNNER)
        if self._constraints:
            try:
                return lock(requirements, self._cache, self._constraints)
            except UserError as error:
                note = f"the repository's own lock is not used: {error}"
                if note not in self._notes:
                    self._notes.append(note)
        return lock(requirements, self._cache)

    def _missing(self, python: Path) -> set[str]:
        """Top-level modules that the test files import, and that neither the environment nor the repository has."""
        tree = self._repository.tree
        paths = tree.paths()
        own = {part for path in paths if path.endswith(".py") for part in path.removesuffix(".py").split("/")}
        names = tuple(sorted(imported_by_tests(tree, paths) - own))
        return set(names) - set(environments.import_origins(python, names)) if names else set()

    def _expanded(self, group: RequirementGroup) -> RequirementGroup:
        """The group with the requirements of its extras, and without the project itself: its own files are tested."""
        own = {*project_names(self._repository.root), self._wheel.name}
        extras, requirements = list(group.extras), list[str]()
        for text in group.requirements:
            requirement = Requirement(text)
            if canonicalize_name(requirement.name) in own:
                extras += sorted(requirement.extras)
            else:
                requirements.append(text)
        runtime = set(self._wheel.required_for())
        requirements += [each for each in self._wheel.required_for(extras) if each not in runtime]
        return RequirementGroup(group.origin, tuple(dict.fromkeys(requirements)), tuple(extras))


def _hints_at(group: RequirementGroup, missing: set[str]) -> bool:
    """Does a distribution of the group have the name of a missing module?"""
    return bool({name.replace("_", "-").lower() for name in missing} & group.names)
