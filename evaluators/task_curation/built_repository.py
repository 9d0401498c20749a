"""A repository that is ready for task sources: its environment is installed, and its tests are measured."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from regrade.datasets.caches import default_cache, usable
from regrade.datasets.errors import UserError
from regrade.datasets.mining.git_history import GitHistory
from regrade.datasets.mining.repositories import Repository, open_repository
from regrade.datasets.mutation.mutants import LONG
from regrade.datasets.mutation.packages import Package
from regrade.datasets.mutation.recipe_format import PackageRecipes
from regrade.datasets.mutation.syntax_mutations import parses
from regrade.datasets.node_ids import file_of
from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Limits, Task, TestSuite, Tree
from regrade.evaluators.scoring.arguments import checked_count, checked_path
from regrade.evaluators.scoring.scorer import Scorer
from regrade.evaluators.static.dependencies.distance import import_distances
from regrade.evaluators.static.dependencies.graph import graph_of
from regrade.evaluators.task_curation.baseline_results import Baseline
from regrade.evaluators.task_curation.chosen_tests import TestChoice, configured
from regrade.evaluators.task_curation.fail_to_pass import fails
from regrade.evaluators.task_curation.local_repository import MeasuredTests, measure_tests
from regrade.evaluators.task_curation.mutation_tasks import Progress, ignore_progress
from regrade.evaluators.task_curation.project_environment import ProjectEnvironment, build_environment
from regrade.evaluators.task_curation.sandbox_access import accesses_of, observed_task
from regrade.evaluators.task_curation.yields import YieldReport
from regrade.rewards.evidence import TestRun


@dataclass(frozen=True, kw_only=True)
class BuiltRepository:
    """What a task source works on. Its executions go through `scorer`, which caches them."""

    name: str
    origin: str
    """As the user named it."""
    version: str
    tree: Tree
    """The pristine files."""
    suite: TestSuite
    """With the tests' measured reach."""
    baseline: Baseline
    requirements: tuple[str, ...]
    """Locked."""
    limits: Limits
    scorer: Scorer = field(repr=False)
    cache: Path
    history: GitHistory | None = None
    generated: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    """Files that the build adds to each commit."""
    licence: str = ""
    groups: tuple[str, ...] = ()
    """Where the requirements are declared."""
    notes: tuple[str, ...] = ()
    choice: TestChoice = field(default_factory=TestChoice)
    """Which tests are collected, as far as the user names them."""
    seed: int = 0
    runs: int = 3
    """Runs of the tests without a patch, at each state."""
    limit: int | None = None
    """Maximum number of tasks of one source; None: no limit."""
    yields: YieldReport = field(default_factory=YieldReport, repr=False)
    wrong_fixes: dict[str, Patch] = field(default_factory=dict, repr=False)
    """Task -> a patch that passes its shown tests and breaks others, of the tasks that have been made."""
    report: Progress = field(default=ignore_progress, repr=False)

    @property
    def recipes(self) -> PackageRecipes:
        """The repository as a package whose functions can be mutated, without tasks."""
        # A test that passes only after other tests can't run alone.
        tests = tuple(sorted(test for test in self.baseline.stable if test not in self.baseline.companions))
        number = {test: index for index, test in enumerate(tests)}
        reach = {
            key: tuple(sorted(number[test] for test in ids if test in number))
            for key, ids in self.baseline.reach.items()
        }
        package = Package(
            name=self.name,
            version=self.version or "0",
            sha256=self.tree.digest,
            subject=self._subject(reach),
            paths=self.suite.paths,
            python_path=self.suite.python_path,
            requirements=self.requirements,
            wall_seconds=self.limits.wall_seconds,
        )
        return PackageRecipes(
            package=package,
            seed=self.seed,
            tests=tests,
            reach=reach,
            imported=tuple(sorted(self.baseline.imported)),
            tasks=(),
            suite=self.suite,
            size=LONG,
        )

    def _subject(self, reach: Collection[str]) -> tuple[str, ...]:
        """The files with functions to mutate: those that tests execute; of other languages than Python, whose reach is
        not measured, those that test files import."""
        if self.suite.runner == "pytest":
            return tuple(sorted({file_of(key) for key in reach if "::" in key and file_of(key).endswith(".py")}))
        tests = {file_of(test) for test in self.baseline.stable}
        imported = import_distances(graph_of(self.tree, self.suite.python_path), tests)
        return tuple(
            sorted(
                path
                for path in imported
                if path not in tests and not self.suite.protects(path) and parses(self.tree.read(path), path)
            )
        )


def built_repository(
    source: str | Path,
    scorer: Scorer,
    *,
    seed: int = 0,
    runs: int = 3,
    limit: int | None = None,
    python: str | Path | None = None,
    cache: str | Path | None = None,
    choice: TestChoice | None = None,
    progress: Progress | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> BuiltRepository:
    """Copy a repository, install what its tests need, and run them `runs` times. All of it is cached.

    Args:
        source: a folder, a git URL or clone, an archive, or a package such as `NAME==VERSION`.
        limit: maximum number of tasks of one task source.
        python: an interpreter with the dependencies of the tests and pytest; None: an environment is built.
        choice: which tests are collected, and time limits; None: what the repository configures.
        progress: called with (current activity, steps done, total steps).
        tell: called with notes.

    Raises:
        UserError: there is no such repository, its environment can't be built, or none of its tests can judge a patch;
            with the reason.
    """
    report = progress or ignore_progress
    place = usable(checked_path("cache", cache) if cache else default_cache())
    runs = checked_count("runs", runs) or 3
    report(f"fetching {source}", 0, 0)
    repository = open_repository(str(source), place, tell)
    installed = _installed(repository, scorer, python, place, report, tell)
    repository, environment = installed.repository, installed.environment
    named = choice or TestChoice()
    choice = configured(repository.tree, named)
    measured = measure_tests(
        repository.tree,
        installed.requirements,
        choice,
        sandbox=scorer.sandbox,
        runs=runs,
        cache=place,
        progress=lambda done, total: report(f"{repository.name}: its tests at the base", done, total),
    )
    if measured.advice:
        tell(measured.advice)
    if not measured.baseline.stable:
        raise UserError(f"{source}: {_no_stable_test(repository, measured, scorer)}")
    return BuiltRepository(
        name=repository.name,
        origin=repository.origin,
        version=repository.version,
        tree=repository.tree,
        suite=measured.suite,
        baseline=measured.baseline,
        requirements=measured.requirements,
        limits=Limits(wall_seconds=measured.wall_seconds, test_seconds=choice.test_limit),
        scorer=scorer,
        cache=place,
        history=repository.history,
        generated=environment.generated if environment else {},
        licence=(environment.licence if environment else "") or _licence(repository.tree),
        groups=environment.groups if environment else (),
        notes=environment.notes if environment else (),
        choice=named,
        seed=seed,
        runs=runs,
        limit=limit,
        report=report,
    )


@dataclass(frozen=True)
class _Installed:
    """A repository, and the environment that its tests run in."""

    repository: Repository
    requirements: tuple[str, ...] = ()
    environment: ProjectEnvironment | None = None
    """None: it was not built."""


def _installed(
    repository: Repository,
    scorer: Scorer,
    python: str | Path | None,
    cache: Path,
    report: Progress,
    tell: Callable[[str], None],
) -> _Installed:
    """The environment that `python` names; else a built one, if there is Python code."""
    if python is not None:
        return _Installed(repository, (str(checked_path("python", python).absolute()),))
    if not _has_python(repository):
        report(f"{repository.name}: installing what its tests import", 0, 0)
        return _Installed(repository)
    report(f"{repository.name}: building the environment of the tests", 0, 0)
    environment = build_environment(repository, scorer.sandbox, cache, tell)
    return _Installed(environment.repository, environment.requirements, environment)


def built_ones(
    sources: Sequence[str], build: Callable[[str], BuiltRepository], tell: Callable[[str], None]
) -> list[BuiltRepository]:
    """The repositories that can be built; of each other one, a note says why not.

    Raises:
        UserError: none can be built, or two have one name; with the reason.
    """
    built: dict[str, BuiltRepository] = {}
    problems: list[UserError] = []
    for source in sources:
        try:
            made = build(source)
        except UserError as error:
            problems.append(error)
            if len(sources) > 1:
                tell(f"{source} is left out: {error}")
            continue
        if made.name in built:
            raise UserError(
                f"{source} and {built[made.name].origin} are both called {made.name!r}: build two task sets"
            )
        built[made.name] = made
    if not built:
        raise problems[0]
    return list(built.values())


def _has_python(repository: Repository) -> bool:
    return any(path.endswith(".py") for path in repository.tree.paths())


def _no_stable_test(repository: Repository, measured: MeasuredTests, scorer: Scorer) -> str:
    """Why no test can judge a patch."""
    baseline = measured.baseline
    count, flaky = len(baseline.outcomes), len(baseline.flaky)
    failing = [test for test in baseline.failing if fails(test, baseline)]
    if flaky and not failing:
        return f"all {flaky} tests are flaky (they pass in some runs only), so none can judge a patch: fix them"
    needing = _needing_network(failing, repository, measured, scorer) if failing else {}
    if needing:
        first = next(iter(needing.values()))
        reason = f"{len(needing)} of {count} tests need the network ({first}), which a sandbox has not"
        return f"{reason}, and no other passes in every run"
    messages = [baseline.outcomes[test].message for test in failing]
    first = " ".join(messages[0].split())[-200:] if messages else "all are skipped"
    return f"none of the {count} tests passes in every run ({first}): fix them, or set `python=PATH`, their interpreter"


def _needing_network(
    failing: Sequence[str], repository: Repository, measured: MeasuredTests, scorer: Scorer
) -> Mapping[str, str]:
    """The tests that try to reach another machine, and which: a run records it."""
    task = Task(
        id=repository.name,
        repository=repository.name,
        base=repository.tree,
        instruction="",
        fail_to_pass=(),
        pass_to_pass=tuple(failing),
        suite=measured.suite,
        requirements=measured.requirements,
        limits=Limits(wall_seconds=measured.wall_seconds),
    )
    (evidence,) = scorer.gather([(observed_task(task, repository.tree), Patch(""))], [TestRun])
    run = evidence.records.get(TestRun)
    accesses = accesses_of(task, run) if isinstance(run, TestRun) else None
    return accesses.network if accesses is not None else {}


def _licence(tree: Tree) -> str:
    """The first words of the licence file."""
    for path in tree.paths():
        if "/" not in path and path.upper().startswith(("LICENSE", "LICENCE", "COPYING")):
            lines = [line.strip() for line in tree.read(path).splitlines() if line.strip()]
            return lines[0][:60] if lines else ""
    return ""
