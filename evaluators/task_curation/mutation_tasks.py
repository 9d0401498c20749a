"""Finds bugs that tests notice: mutants, validated by running the tests. Writes those of the ready-made tasks.

A mutant becomes a task if some stable tests fail and some still pass, the run neither hangs nor crashes, the same tests
fail in a second run, and the reference patch fixes all of them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from regrade.datasets.errors import UserError
from regrade.datasets.mutation.mutants import Mutant, shuffled
from regrade.datasets.mutation.operators import OPERATORS
from regrade.datasets.mutation.packages import PACKAGES, Package, fetch_all, subject_files
from regrade.datasets.mutation.rebuilding import measured_suite, planting_patch, rebuild
from regrade.datasets.mutation.recipe_format import Failure, PackageRecipes, TaskRecipe, write_recipes
from regrade.datasets.mutation.syntax_mutations import AnyMutations, mutations_of
from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Limits, Task, TestSuite, Tree
from regrade.evaluators.scoring.scorer import Scorer
from regrade.evaluators.task_curation.baseline import baseline
from regrade.evaluators.task_curation.failure_excerpts import failures, parse
from regrade.evaluators.task_curation.yields import YieldReport
from regrade.rewards.evidence import End, EvidenceSet, TestRun, TestStatus

FAILING = frozenset({TestStatus.FAILED, TestStatus.ERROR})
SLOW_KINDS = frozenset({"default-argument"})
"""Excluded kinds: they change a signature, so every patch of such a task must run the whole suite."""

Progress = Callable[[str, int, int], None]
"""Called with (current activity, steps done, total steps)."""
Accepted = tuple[TaskRecipe, frozenset[Failure]]
"""A recipe, with the failures of its tests."""


@dataclass(frozen=True, kw_only=True)
class Amounts:
    """Limits on the number of tasks of a package."""

    most: int = 320
    """Maximum number of tasks, one per function while functions remain."""
    least: int = 120
    """Below this number, functions get a second, third, ... task of another kind."""
    a_function: int = 4
    attempts: int = 8
    """Maximum number of mutants to try per function and task."""
    share_failing: float = 0.6
    """A mutant that fails a larger share of the suite is no realistic bug."""
    runs: int = 3
    """Runs of the pristine suite; a test that fails in one of them is not used."""
    kinds: tuple[str, ...] = tuple(OPERATORS)
    left_out: frozenset[str] = SLOW_KINDS
    """Kinds among them that are not used."""
    trivial_errors: tuple[str, ...] = ()
    """Errors that need no test to be found: a bug is trivial if all its failures are of these."""


READY_MADE = Amounts()


@dataclass
class _FunctionMutants:
    """The mutants of one function: untried ones, and recipes of accepted ones."""

    waiting: list[Mutant]
    tried: int = 0
    accepted: list[Accepted] = field(default_factory=list)

    def next(self) -> Mutant | None:
        """The next mutant of a kind without a task of this function."""
        used = {recipe.kind for recipe, _ in self.accepted}
        while self.waiting:
            mutant = self.waiting.pop(0)
            if mutant.kind not in used:
                self.tried += 1
                return mutant
        return None


def ignore_progress(what: str, done: int, total: int) -> None:
    """No progress callback."""


def build(
    scorer: Scorer,
    out: Path,
    seed: int = 0,
    packages: Sequence[Package] = PACKAGES,
    amounts: Amounts | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> list[Path]:
    """Write one recipe file per package into `out`: the same seed, packages and amounts write the same bytes.

    Raises:
        UserError: a package can't be fetched, its tests can't be run, or they kill no mutant.
    """
    report = progress or ignore_progress
    amounts = amounts or Amounts()
    roots = fetch_all(packages, cache, lambda done, total: report("fetching packages", done, total))
    written = []
    for package in packages:
        root = roots[package.name]
        measured = measured_package(scorer, package, root, seed, amounts.runs, cache, report)
        recipes = find_bugs(scorer, measured, root, amounts, report)
        if not recipes.tasks:
            raise UserError(f"the tests of {package.folder} kill no mutant: leave the package out")
        written.append(write_recipes(recipes, out))
    return written


def measured_package(
    scorer: Scorer, package: Package, root: Path, seed: int, runs: int, cache: Path | None, report: Progress
) -> PackageRecipes:
    """The stable tests of the package and their reach, without tasks."""
    suite = TestSuite(python_path=package.python_path, paths=package.paths, options=package.options)
    measured = baseline(
        Tree(root),
        suite,
        package.requirements,
        runs=runs,
        workers=1,
        sandbox=scorer.sandbox,
        cache=cache,
        progress=lambda done, total: report(f"{package.name}: its tests at the base", done, total),
    )
    # A test that passes only after other tests can't run alone.
    tests = tuple(sorted(test for test in measured.stable if test not in measured.companions))
    number = {test: index for index, test in enumerate(tests)}
    reach = {key: tuple(sorted(number[test] for test in ids if test in number)) for key, ids in measured.reach.items()}
    return PackageRecipes(
        package=package, seed=seed, tests=tests, reach=reach, imported=tuple(sorted(measured.imported)), tasks=()
    )


def find_bugs(
    scorer: Scorer,
    measured: PackageRecipes,
    root: Path,
    amounts: Amounts,
    report: Progress = ignore_progress,
    tried: YieldReport | None = None,
) -> PackageRecipes:
    """The recipes of bugs that the measured tests notice, each validated; none if they notice no bug.

    Args:
        tried: counts what became of each mutant.
    """
    tried = YieldReport() if tried is None else tried
    groups = _function_mutants(measured, root, amounts)
    _try_in_rounds(scorer, measured, host_task(measured, root), groups, amounts, report, tried)
    accepted = sorted((entry for group in groups for entry in group.accepted), key=lambda entry: order_of(entry[0]))
    return _confirm(scorer, measured, accepted, root, report, tried)


def order_of(recipe: TaskRecipe) -> tuple[str, int, str, str]:
    return recipe.file, recipe.line, recipe.kind, recipe.place


def _function_mutants(recipes: PackageRecipes, root: Path, amounts: Amounts) -> list[_FunctionMutants]:
    """The functions that tests execute, in an order that depends on the seed.

    Functions executed on import are left out: every test depends on them, so every patch would need all tests.
    """
    groups = []
    for file in subject_files(recipes.package, root):
        mutations = mutations_of(Tree(root).read(file), file, recipes.size)
        names = [function.name for function in mutations.functions]
        for function in mutations.functions:
            key = f"{file}::{function.name.split('.<locals>')[0]}"
            # Only for Python is it measured which functions tests execute; for others, only that they import the file.
            is_executed = bool(recipes.reach.get(key)) or not file.endswith(".py")
            # If a name is defined twice, it is unknown which definition the tests execute.
            if is_executed and key not in recipes.imported and names.count(function.name) == 1:
                groups.append(_FunctionMutants(distinct_mutants(mutations, function, recipes.seed, amounts)))
    random.Random(f"{recipes.seed}/{recipes.package.name}").shuffle(groups)
    return groups


def distinct_mutants(mutations: AnyMutations, function: Any, seed: int, amounts: Amounts = READY_MADE) -> list[Mutant]:
    """The function's mutants that differ from it and from each other (kinds overlap: `x[0]` contains a constant).

    A set in place of a list is left out: if it contains functions or None, its order depends on memory addresses.
    """
    chosen: dict[tuple[int, str], Mutant] = {}
    for mutant in shuffled(mutations.of(function, amounts.kinds), seed):
        if mutant.kind not in amounts.left_out and mutant.edit.text != "set" and mutations.differs(mutant):
            chosen.setdefault((mutant.line, mutant.mutated_line), mutant)
    return list(chosen.values())


def host_task(recipes: PackageRecipes, root: Path) -> Task:
    """The pristine package as a task: a mutant is run as if it were a patch that breaks some of its tests."""
    package = recipes.package
    return Task(
        id=package.folder,
        repository=package.name,
        base=Tree(root),
        instruction="",
        fail_to_pass=(),
        pass_to_pass=recipes.tests,
        suite=measured_suite(recipes),
        requirements=package.requirements,
        limits=Limits(wall_seconds=package.wall_seconds),
    )


def _try_in_rounds(
    scorer: Scorer,
    recipes: PackageRecipes,
    host: Task,
    groups: list[_FunctionMutants],
    amounts: Amounts,
    report: Progress,
    tried: YieldReport,
) -> None:
    """Find a first task for every function; if these are too few, second ones, and so on."""
    what = f"{recipes.package.name}: trying mutants"
    for per_function in range(1, amounts.a_function + 1):
        limit = amounts.most if per_function == 1 else amounts.least
        while batch := _batch(groups, per_function, limit, amounts.attempts):
            jobs = [(host, planting_patch(mutant)) for _, mutant in batch]
            evidence = scorer.gather(
                jobs, [TestRun], reachable=True, progress=lambda done, total: report(what, done, total)
            )
            for (group, mutant), gathered in zip(batch, evidence, strict=True):
                run = run_of(gathered)
                reason = unsuitable(run, len(recipes.tests), amounts.share_failing)
                reason = reason or _trivial(mutant, run, amounts.trivial_errors)
                tried.tried(mutant.kind, run.seconds, reason)
                if not reason:
                    group.accepted.append(_recipe(mutant, run, recipes.tests))


def _batch(
    groups: list[_FunctionMutants], per_function: int, limit: int, attempts: int
) -> list[tuple[_FunctionMutants, Mutant]]:
    """One mutant of each function with too few tasks, up to the limit."""
    missing = limit - sum(len(group.accepted) for group in groups)
    batch: list[tuple[_FunctionMutants, Mutant]] = []
    for group in groups:
        if len(batch) < missing and len(group.accepted) < per_function and group.tried < attempts * per_function:
            mutant = group.next()
            if mutant is not None:
                batch.append((group, mutant))
    return batch


def run_of(evidence: EvidenceSet) -> TestRun:
    """Raises RuntimeError if the infrastructure failed, since such a failure must not change the tasks."""
    if TestRun in evidence.infrastructure:
        raise RuntimeError(f"a mutant could not be run: {evidence.infrastructure[TestRun]}")
    run = evidence.records[TestRun]
    assert isinstance(run, TestRun)
    return run


def unsuitable(run: TestRun, tests: int, share_failing: float) -> str:
    """Why a mutant makes no task; empty: it does."""
    if run.end is not End.COMPLETED:
        return f"the run ended early ({run.end.value})"
    if not run.broken:
        return "no test notices it"
    if len(run.broken) > share_failing * tests:
        return f"more than {share_failing:.0%} of the tests fail"
    if any(run.outcomes[test].status not in FAILING for test in run.broken):
        return "a test is skipped or missing with it"
    return ""


def _trivial(mutant: Mutant, run: TestRun, errors: tuple[str, ...]) -> str:
    if not mutant.file.endswith(".py") and all(run.outcomes[test].status is TestStatus.ERROR for test in run.broken):
        return "trivial: it does not compile, or no test file of it loads"
    texts = [parse(run.outcomes[test].message)[0].error for test in run.broken] if errors else []
    if texts and all(text.startswith(errors) for text in texts):
        return "trivial: a static check finds it"
    return ""


def _recipe(mutant: Mutant, run: TestRun, tests: tuple[str, ...]) -> Accepted:
    """The recipe of a killed mutant, with the failures of its tests."""
    broken = set(run.broken)
    failing = tuple(index for index, test in enumerate(tests) if test in broken)
    recipe = TaskRecipe(
        file=mutant.file,
        function=mutant.function,
        kind=mutant.kind,
        place=mutant.place,
        line=mutant.line,
        digest=mutant.digest,
        fail_to_pass=failing,
        failure=Failure("", 0, ""),
    )
    return recipe, frozenset(failures(run, {test: index for index, test in enumerate(tests)}))


def _confirm(
    scorer: Scorer,
    empty: PackageRecipes,
    accepted: list[Accepted],
    root: Path,
    report: Progress,
    tried: YieldReport,
) -> PackageRecipes:
    """The recipes whose rebuilt task fails again in the same way and passes with its reference."""
    tasks = list(rebuild(replace(empty, tasks=tuple(recipe for recipe, _ in accepted)), root))
    jobs = [(task, patch) for task in tasks for patch in (Patch(""), task.reference or Patch(""))]
    what = f"{empty.package.name}: confirming tasks"
    evidence = scorer.gather(jobs, [TestRun], reachable=True, progress=lambda done, total: report(what, done, total))
    runs = [run_of(gathered) for gathered in evidence]
    number = {test: index for index, test in enumerate(empty.tests)}
    confirmed = []
    for (recipe, shown), unpatched, patched in zip(accepted, runs[::2], runs[1::2], strict=True):
        again = [failure for failure in failures(unpatched, number) if failure in shown]
        same = unpatched.end is End.COMPLETED and not unpatched.fixed and not unpatched.broken
        reason = "" if same else "other tests fail in a second run"
        reason = reason or ("" if patched.resolved else "the reference does not fix it")
        reason = reason or ("" if again else "its failures differ from run to run")
        tried.confirmed(recipe.kind, unpatched.seconds + patched.seconds, reason)
        if not reason:
            confirmed.append(replace(recipe, failure=again[0]))
    return replace(empty, tasks=tuple(confirmed))
