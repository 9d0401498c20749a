"""The ready-made tasks, built: which of the proposed bugs are bugs is found out by running the tests.

A mutant is kept if some tests that passed every time now fail, some still pass, it neither hangs nor crashes the run,
the same tests fail again in a second run, and the reference patch mends all of it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from regrade.datasets.errors import UserError
from regrade.datasets.mutation.mutants import Mutant, Mutations, MutationTarget, shuffled
from regrade.datasets.mutation.packages import PACKAGES, Package, fetch_all, subject_files
from regrade.datasets.mutation.rebuilding import measured_suite, planting_patch, rebuild
from regrade.datasets.mutation.recipe_format import Failure, PackageRecipes, TaskRecipe, write_recipes
from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Limits, Task, TestSuite, Tree
from regrade.evaluators.scoring.scorer import Scorer
from regrade.evaluators.task_curation.baseline import baseline
from regrade.evaluators.task_curation.failure_excerpts import failures
from regrade.rewards.evidence import End, EvidenceSet, TestRun, TestStatus

NOTICED = frozenset({TestStatus.FAILED, TestStatus.ERROR})
SLOW_KINDS = frozenset({"default-argument"})
"""Kinds that aren't built: they change a signature, so every patch of such a task has to run the whole suite."""

Progress = Callable[[str, int, int], None]
"""Called with (what is being done, steps done, steps in all)."""


@dataclass(frozen=True, kw_only=True)
class Amounts:
    """How many tasks are wanted of a package."""

    most: int = 320
    """At most so many, one a function as long as there are functions."""
    least: int = 120
    """Below it, functions serve for a second, third, ... task of another kind."""
    a_function: int = 4
    attempts: int = 8
    """Mutants of a function that are tried at most."""
    share_failing: float = 0.6
    """A mutant that fails a larger share of the suite is none that anyone would ship."""
    runs: int = 3
    """Runs of the pristine suite; a test that fails in one of them isn't used."""


@dataclass
class _FunctionMutants:
    """One function: its mutants that haven't been tried, and what came of the others."""

    waiting: list[Mutant]
    tried: int = 0
    kept: list[tuple[TaskRecipe, frozenset[Failure]]] = field(default_factory=list)
    """Recipes, each with what its failing tests showed."""

    def next(self) -> Mutant | None:
        """The next mutant of a kind that this function has no task of."""
        used = {recipe.kind for recipe, _ in self.kept}
        while self.waiting:
            mutant = self.waiting.pop(0)
            if mutant.kind not in used:
                self.tried += 1
                return mutant
        return None


def build(
    scorer: Scorer,
    out: Path,
    seed: int = 0,
    packages: Sequence[Package] = PACKAGES,
    amounts: Amounts | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> list[Path]:
    """Write one recipe file a package into `out`: the same seed, packages and amounts write the same bytes.

    Raises:
        UserError: a package can't be fetched, its tests can't be run, or no bug in it is noticed.
    """
    tell = progress or _silent
    wanted = amounts or Amounts()
    roots = fetch_all(packages, cache, lambda done, total: tell("fetching packages", done, total))
    written = []
    for package in packages:
        root = roots[package.name]
        measured = _measure(scorer, package, root, seed, wanted.runs, cache, tell)
        written.append(write_recipes(_build_package(scorer, measured, root, wanted, tell), out))
    return written


def _silent(what: str, done: int, total: int) -> None:
    """Progress that nobody watches."""


def _measure(
    scorer: Scorer, package: Package, root: Path, seed: int, runs: int, cache: Path | None, tell: Progress
) -> PackageRecipes:
    """The package's stable tests and their reach, still without tasks."""
    suite = TestSuite(python_path=package.python_path, paths=package.paths, options=package.options)
    found = baseline(
        Tree(root),
        suite,
        package.requirements,
        runs=runs,
        workers=1,
        sandbox=scorer.sandbox,
        cache=cache,
        progress=lambda done, total: tell(f"{package.name}: its tests as they are", done, total),
    )
    # What passes only behind other tests can't be run by itself.
    tests = tuple(sorted(test for test in found.stable if test not in found.companions))
    number = {test: index for index, test in enumerate(tests)}
    reach = {key: tuple(sorted(number[test] for test in ids if test in number)) for key, ids in found.reach.items()}
    return PackageRecipes(
        package=package, seed=seed, tests=tests, reach=reach, imported=tuple(sorted(found.imported)), tasks=()
    )


def _build_package(
    scorer: Scorer, empty: PackageRecipes, root: Path, amounts: Amounts, tell: Progress
) -> PackageRecipes:
    """The package's recipes, validated."""
    groups = _groups(empty, root)
    _try_in_rounds(scorer, empty, _host(empty, root), groups, amounts, tell)
    kept = sorted((entry for group in groups for entry in group.kept), key=lambda entry: _order(entry[0]))
    recipes = _confirmed(scorer, empty, kept, root, tell)
    if not recipes.tasks:
        raise UserError(f"no planted bug in {empty.package.folder} is noticed by its tests: leave the package out")
    return recipes


def _order(recipe: TaskRecipe) -> tuple[str, int, str, str]:
    return recipe.file, recipe.line, recipe.kind, recipe.place


def _groups(recipes: PackageRecipes, root: Path) -> list[_FunctionMutants]:
    """The functions that tests execute, in an order that the seed decides.

    Functions that are executed on import are left out: every test depends on them, so every patch would need all tests.
    """
    found = []
    for file in subject_files(recipes.package, root):
        mutations = Mutations(Tree(root).read(file), file)
        names = [function.name for function in mutations.functions]
        for function in mutations.functions:
            key = f"{file}::{function.name.split('.<locals>')[0]}"
            # Where one name is defined twice, it's unknown which of the two the tests execute.
            if recipes.reach.get(key) and key not in recipes.imported and names.count(function.name) == 1:
                found.append(_FunctionMutants(_distinct(mutations, function, recipes.seed)))
    random.Random(f"{recipes.seed}/{recipes.package.name}").shuffle(found)
    return found


def _distinct(mutations: Mutations, function: MutationTarget, seed: int) -> list[Mutant]:
    """The function's mutants that differ from it and from each other (kinds overlap: `x[0]` holds a constant).

    A set in place of a list is left out: where it holds functions or None, its order is one of memory addresses.
    """
    chosen: dict[tuple[int, str], Mutant] = {}
    for mutant in shuffled(mutations.of(function), seed):
        if mutant.kind not in SLOW_KINDS and mutant.edit.text != "set" and mutations.differs(mutant):
            chosen.setdefault((mutant.line, mutant.mutated_line), mutant)
    return list(chosen.values())


def _host(recipes: PackageRecipes, root: Path) -> Task:
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
    tell: Progress,
) -> None:
    """Find a first bug for every function; if these are too few, second ones, and so on."""
    what = f"{recipes.package.name}: trying mutants"
    for wanted in range(1, amounts.a_function + 1):
        limit = amounts.most if wanted == 1 else amounts.least
        while batch := _batch(groups, wanted, limit, amounts.attempts):
            jobs = [(host, planting_patch(mutant)) for _, mutant in batch]
            evidence = scorer.gather(
                jobs, [TestRun], reachable=True, progress=lambda done, total: tell(what, done, total)
            )
            for (group, mutant), found in zip(batch, evidence, strict=True):
                entry = _entry(mutant, _run(found), recipes.tests, amounts.share_failing)
                if entry is not None:
                    group.kept.append(entry)


def _batch(
    groups: list[_FunctionMutants], wanted: int, limit: int, attempts: int
) -> list[tuple[_FunctionMutants, Mutant]]:
    """One mutant of each function that has too few tasks, as many as are missing from the limit."""
    missing = limit - sum(len(group.kept) for group in groups)
    batch: list[tuple[_FunctionMutants, Mutant]] = []
    for group in groups:
        if len(batch) < missing and len(group.kept) < wanted and group.tried < attempts * wanted:
            mutant = group.next()
            if mutant is not None:
                batch.append((group, mutant))
    return batch


def _run(evidence: EvidenceSet) -> TestRun:
    """Raises RuntimeError where the infrastructure failed: what can't be found out must not change what is built."""
    if TestRun in evidence.infrastructure:
        raise RuntimeError(f"a mutant could not be run: {evidence.infrastructure[TestRun]}")
    run = evidence.records[TestRun]
    assert isinstance(run, TestRun)
    return run


def _entry(
    mutant: Mutant, run: TestRun, tests: tuple[str, ...], share_failing: float
) -> tuple[TaskRecipe, frozenset[Failure]] | None:
    """The recipe of a mutant that some tests notice, with what they show; None if it is no good."""
    broken = set(run.broken)
    if run.end is not End.COMPLETED or not 0 < len(broken) <= share_failing * len(tests):
        return None
    if any(run.outcomes[test].status not in NOTICED for test in broken):
        return None
    noticed = tuple(index for index, test in enumerate(tests) if test in broken)
    recipe = TaskRecipe(
        file=mutant.file,
        function=mutant.function,
        kind=mutant.kind,
        place=mutant.place,
        line=mutant.line,
        digest=mutant.digest,
        fail_to_pass=noticed,
        failure=Failure("", 0, ""),
    )
    return recipe, frozenset(failures(run, {test: index for index, test in enumerate(tests)}))


def _confirmed(
    scorer: Scorer, empty: PackageRecipes, kept: list[tuple[TaskRecipe, frozenset[Failure]]], root: Path, tell: Progress
) -> PackageRecipes:
    """Those recipes whose rebuilt task fails in the same way again and is mended by its reference."""
    tasks = list(rebuild(replace(empty, tasks=tuple(recipe for recipe, _ in kept)), root))
    jobs = [(task, patch) for task in tasks for patch in (Patch(""), task.reference or Patch(""))]
    what = f"{empty.package.name}: confirming tasks"
    evidence = scorer.gather(jobs, [TestRun], reachable=True, progress=lambda done, total: tell(what, done, total))
    runs = [_run(found) for found in evidence]
    number = {test: index for index, test in enumerate(empty.tests)}
    confirmed = []
    for (recipe, shown), unmended, mended in zip(kept, runs[::2], runs[1::2], strict=True):
        again = [failure for failure in failures(unmended, number) if failure in shown]
        same = unmended.end is End.COMPLETED and not unmended.fixed and not unmended.broken
        if same and mended.resolved and again:
            confirmed.append(replace(recipe, failure=again[0]))
    return replace(empty, tasks=tuple(confirmed))
