"""Builds the ready-made tasks whose visible tests do not see all that a wrong fix breaks.

Of each function, all mutants run. Two of them make a task: the bug, which tests of the shown file notice; and a wrong
fix, which takes the bug back and plants the other mutant. No test of the shown file notices the wrong fix. A guarded
test of another file does, one that runs a module which imports the function's module. The base, the reference and the
wrong fix are run again on the finished task.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from regrade.datasets.errors import UserError
from regrade.datasets.mutation.mutants import Mutant, Mutations
from regrade.datasets.mutation.packages import PACKAGES, Package, fetch_all, subject_files
from regrade.datasets.mutation.rebuilding import planting_patch, rebuild, wrong_fixes
from regrade.datasets.mutation.recipe_format import Failure, PackageRecipes, TaskRecipe, WrongFix, write_recipes
from regrade.datasets.node_ids import file_of
from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Task, Tree
from regrade.evaluators.scoring.scorer import Scorer
from regrade.evaluators.static.dependencies.graph import Graph, graph_of
from regrade.evaluators.static.dependencies.reach import Explorer
from regrade.evaluators.task_curation.failure_excerpts import failures
from regrade.evaluators.task_curation.mutation_tasks import (
    Progress,
    distinct_mutants,
    host_task,
    ignore_progress,
    measured_package,
    order_of,
    run_of,
    unsuitable,
)
from regrade.evaluators.task_curation.yields import YieldReport
from regrade.rewards.evidence import End, TestRun


@dataclass(frozen=True, kw_only=True)
class CrossModuleAmounts:
    """Limits on the number of cross-module tasks of a package."""

    most: int = 140
    """Maximum number of tasks."""
    a_function: int = 16
    functions: int = 80
    """Maximum number of functions whose mutants run, drawn by the seed."""
    mutants: int = 24
    """Maximum number of mutants of one function."""
    share_failing: float = 0.6
    """A mutant that fails a larger share of the suite is no realistic bug."""
    runs: int = 3
    """Runs of the pristine suite; a test that fails in one of them is not used."""


CROSS_MODULE = "cross-module"
"""Kind of these tasks in a yield report."""
FEWER_FUNCTIONS = {"anytree": 30}
"""`CrossModuleAmounts.functions` of the ready-made tasks, for packages whose mutants take long."""


@dataclass(frozen=True)
class _Killed:
    """A mutant, and the tests that notice it."""

    mutant: Mutant
    run: TestRun
    tests: frozenset[int]
    files: frozenset[str]


@dataclass(frozen=True)
class _Candidate:
    """A bug, the file of tests to show, and the wrong fix to guard against."""

    bug: _Killed
    shown: str
    wrong: _Killed
    breaks: tuple[int, ...]
    is_one_line: bool
    is_far: bool
    """Does the file of a broken test use the function only through other modules, as far as the texts tell?"""


def build_cross_module(
    scorer: Scorer,
    out: Path,
    seed: int = 0,
    packages: Sequence[Package] = PACKAGES,
    amounts: CrossModuleAmounts | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> list[Path]:
    """Write one recipe file into `out` for each package that has such tasks: the same arguments write the same bytes.

    Args:
        amounts: None: those of the ready-made tasks.

    Raises:
        UserError: a package can't be fetched, its tests can't be run, or no package has such a task.
    """
    report = progress or ignore_progress
    roots = fetch_all(packages, cache, lambda done, total: report("fetching packages", done, total))
    written = []
    for package in packages:
        root = roots[package.name]
        limits = amounts or _ready_made_amounts(package)
        measured = measured_package(scorer, package, root, seed, limits.runs, cache, report)
        recipes = find_cross_module(scorer, measured, root, limits, report)
        if recipes.tasks:
            written.append(write_recipes(recipes, out))
    if not written:
        names = ", ".join(package.name for package in packages)
        raise UserError(f"no bug of {names} has a wrong fix that only tests of other modules notice: choose others")
    return written


def find_cross_module(
    scorer: Scorer,
    measured: PackageRecipes,
    root: Path,
    amounts: CrossModuleAmounts,
    report: Progress = ignore_progress,
    tried: YieldReport | None = None,
) -> PackageRecipes:
    """The recipes of bugs with a wrong fix that only tests of other modules notice, each validated; perhaps none.

    Args:
        tried: counts what became of each mutant.
    """
    return _TaskSearch(scorer, measured, root, amounts, report, YieldReport() if tried is None else tried).recipes()


def _ready_made_amounts(package: Package) -> CrossModuleAmounts:
    usual = CrossModuleAmounts()
    return replace(usual, functions=FEWER_FUNCTIONS.get(package.name, usual.functions))


class _TaskSearch:
    """Finds the tasks of one package."""

    def __init__(
        self,
        scorer: Scorer,
        measured: PackageRecipes,
        root: Path,
        amounts: CrossModuleAmounts,
        report: Progress,
        tried: YieldReport,
    ) -> None:
        self._scorer, self._measured, self._root, self._amounts = scorer, measured, root, amounts
        self._report, self._tried = report, tried
        self._files = [file_of(test) for test in measured.tests]
        self._number = {test: index for index, test in enumerate(measured.tests)}
        graph = graph_of(Tree(root), measured.package.python_path)
        self._users, self._uses = users_of(graph), Explorer(graph)
        self._modules: dict[int, set[str]] = defaultdict(set)
        """Test -> the modules whose functions it runs."""
        for key, tests in measured.reach.items():
            if "::" in key:
                for test in tests:
                    self._modules[test].add(file_of(key))

    def recipes(self) -> PackageRecipes:
        """The package's recipes, validated."""
        functions = list(self._functions())
        random.Random(f"{self._measured.seed}/{self._measured.package.name}/functions").shuffle(functions)
        del functions[self._amounts.functions :]
        killed = self._killed([mutant for mutants in functions for mutant in mutants])
        groups = [
            list(self._candidates([killed[mutant] for mutant in mutants if mutant in killed])) for mutants in functions
        ]
        chosen = [self._recipe(candidate) for candidate in self._chosen(groups)]
        return self._confirmed(sorted((recipe for recipe in chosen if recipe), key=_order))

    def _functions(self) -> Iterator[list[Mutant]]:
        """The mutants of each function that tests of several files run, some of them through another module."""
        measured = self._measured
        files = subject_files(measured.package, self._root)
        for file in (file for file in files if file.endswith(".py")):  # of others, no reach is measured
            mutations = Mutations(Tree(self._root).read(file), file, measured.size)
            names = [function.name for function in mutations.functions]
            for function in mutations.functions:
                key = f"{file}::{function.name.split('.<locals>')[0]}"
                tests = measured.reach.get(key, ())
                # As for other tasks: functions executed on import, and names defined twice, are left out.
                is_usable = key not in measured.imported and names.count(function.name) == 1
                if is_usable and len({self._files[test] for test in tests}) > 1 and self._indirect(tests, file):
                    yield distinct_mutants(mutations, function, measured.seed)[: self._amounts.mutants]

    def _indirect(self, tests: Collection[int], file: str) -> list[int]:
        """Those of the tests that run a module which imports the file, directly or not."""
        return [test for test in tests if self._modules[test] & self._users(file)]

    def _killed(self, mutants: Sequence[Mutant]) -> dict[Mutant, _Killed]:
        """The mutants that tests notice, of those that neither hang nor crash the run."""
        host = host_task(self._measured, self._root)
        what = f"{self._measured.package.name}: trying mutants"
        evidence = self._scorer.gather(
            [(host, planting_patch(mutant)) for mutant in mutants],
            [TestRun],
            reachable=True,
            progress=lambda done, total: self._report(what, done, total),
        )
        killed = {}
        for mutant, gathered in zip(mutants, evidence, strict=True):
            run = run_of(gathered)
            tests = frozenset(self._number[test] for test in run.broken)
            reason = unsuitable(run, len(self._files), self._amounts.share_failing)
            self._tried.tried(CROSS_MODULE, run.seconds, reason)
            if not reason:
                killed[mutant] = _Killed(mutant, run, tests, frozenset(self._files[test] for test in tests))
        return killed

    def _candidates(self, killed: Sequence[_Killed]) -> Iterator[_Candidate]:
        """For each bug of a function and each file that notices it, the best wrong fix."""
        direct = self._direct(killed[0].mutant) if killed else frozenset()
        for bug in killed:
            for shown in sorted(bug.files):
                found = [candidate for wrong in killed if (candidate := self._candidate(bug, shown, wrong, direct))]
                if found:
                    yield min(found, key=_value)

    def _direct(self, mutant: Mutant) -> frozenset[str]:
        """The files that use the mutant's function directly, or what its module makes of it."""
        boundaries = self._uses.within({(mutant.file, mutant.function.split(".<locals>")[0])})
        return frozenset(file for file, count in boundaries.items() if count < 2)

    def _candidate(self, bug: _Killed, shown: str, wrong: _Killed, direct: Collection[str]) -> _Candidate | None:
        breaks = wrong.tests - bug.tests
        if wrong is bug or shown in wrong.files or not self._indirect(breaks, bug.mutant.file):
            return None
        is_far = any(self._files[test] not in direct for test in breaks)
        return _Candidate(bug, shown, wrong, tuple(sorted(breaks)), bug.mutant.line == wrong.mutant.line, is_far)

    def _chosen(self, groups: Sequence[list[_Candidate]]) -> list[_Candidate]:
        """Rounds over the functions, so that each gives its best first: new lines, far breakage, one-line wrong fixes,
        new files."""
        generator = random.Random(f"{self._measured.seed}/{self._measured.package.name}/cross-module")
        waiting = [list(group) for group in groups if group]
        for group in waiting:
            generator.shuffle(group)
        generator.shuffle(waiting)
        chosen: list[_Candidate] = []
        taken: list[list[_Candidate]] = [[] for _ in waiting]
        for _ in range(self._amounts.a_function):
            for group, own in zip(waiting, taken, strict=True):
                if group and len(chosen) < self._amounts.most:
                    best = min(group, key=lambda one: _rank(one, own))
                    group.remove(best)
                    own.append(best)
                    chosen.append(best)
        return chosen

    def _recipe(self, candidate: _Candidate) -> TaskRecipe | None:
        """None if no failure of the shown file can be told."""
        bug, wrong = candidate.bug.mutant, candidate.wrong.mutant
        told = self._told(candidate.bug.run, candidate.shown)
        if not told:
            return None
        return TaskRecipe(
            file=bug.file,
            function=bug.function,
            kind=bug.kind,
            place=bug.place,
            line=bug.line,
            digest=bug.digest,
            fail_to_pass=tuple(sorted(candidate.bug.tests)),
            failure=told[0],
            shown=candidate.shown,
            wrong_fix=WrongFix(line=wrong.line, kind=wrong.kind, place=wrong.place, breaks=candidate.breaks),
        )

    def _told(self, run: TestRun, shown: str) -> list[Failure]:
        own = {test: outcome for test, outcome in run.outcomes.items() if file_of(test) == shown}
        return failures(replace(run, outcomes=own), self._number)

    def _confirmed(self, found: Sequence[TaskRecipe]) -> PackageRecipes:
        """The recipes whose rebuilt task fails again in the same way, passes with its reference, and whose wrong fix
        again passes the shown tests and breaks the same guarded ones."""
        recipes = replace(self._measured, tasks=tuple(found))
        tasks, wrong = list(rebuild(recipes, self._root)), dict(wrong_fixes(recipes, self._root))
        jobs = [(task, patch) for task in tasks for patch in (Patch(""), task.reference or Patch(""), wrong[task.id])]
        what = f"{self._measured.package.name}: confirming tasks"
        evidence = self._scorer.gather(
            jobs, [TestRun], reachable=True, progress=lambda done, total: self._report(what, done, total)
        )
        runs = [run_of(gathered) for gathered in evidence]
        confirmed = []
        for recipe, task, *three in zip(found, tasks, runs[::3], runs[1::3], runs[2::3], strict=True):
            unpatched, patched, wrongly = three
            same = unpatched.end is End.COMPLETED and not unpatched.fixed and not unpatched.broken
            again = recipe.shown is not None and recipe.failure in self._told(unpatched, recipe.shown)
            holds = same and again and patched.resolved and self._slips_through(recipe, task, wrongly)
            seconds = unpatched.seconds + patched.seconds + wrongly.seconds
            self._tried.confirmed(CROSS_MODULE, seconds, "" if holds else "a second run differs")
            if holds:
                confirmed.append(recipe)
        return replace(self._measured, tasks=tuple(confirmed))

    def _slips_through(self, recipe: TaskRecipe, task: Task, run: TestRun) -> bool:
        """Do all shown tests pass with the wrong fix, and the same guarded ones break?"""
        fixed = {test for test in task.fail_to_pass if file_of(test) == recipe.shown} <= set(run.fixed)
        expected = recipe.wrong_fix.breaks if recipe.wrong_fix else ()
        broken = {self._number[test] for test in run.broken}
        return run.end is End.COMPLETED and fixed and broken == set(expected)


def users_of(graph: Graph) -> Callable[[str], frozenset[str]]:
    """A function from a file to the files that import it, directly or not, itself left out."""
    known: dict[str, frozenset[str]] = {}

    def users(file: str) -> frozenset[str]:
        if file not in known:
            seen, waiting = {file}, [file]
            while waiting:
                new = set(graph.importers(waiting.pop())) - seen
                seen |= new
                waiting += new
            known[file] = frozenset(seen - {file})
        return known[file]

    return users


def _value(candidate: _Candidate) -> tuple[bool, bool, int, str]:
    """Smaller is better."""
    return not candidate.is_far, not candidate.is_one_line, -len(candidate.breaks), candidate.wrong.mutant.place


def _rank(candidate: _Candidate, chosen: Sequence[_Candidate]) -> tuple[int, bool, bool, bool]:
    """Smaller is better, beside the tasks of the same function that are chosen already."""
    bug = candidate.bug.mutant
    same = sum((other.bug.mutant.line, other.bug.mutant.kind) == (bug.line, bug.kind) for other in chosen)
    is_shown = any(other.shown == candidate.shown for other in chosen)
    return same, not candidate.is_far, not candidate.is_one_line, is_shown


def _order(recipe: TaskRecipe) -> tuple[tuple[str, int, str, str], str]:
    return order_of(recipe), recipe.shown or ""
