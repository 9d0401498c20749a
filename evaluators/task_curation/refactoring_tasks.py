"""Refactoring under guard: tasks to lower the cyclomatic complexity of a function while all tests keep passing.

No test fails at the base, and there is no reference, so other facts make a task valid: its tests execute the function,
they notice most bugs that are planted in it, they all pass at the base in a further run, and doing nothing earns 0.
The reward of these tasks is `refactoring`: `default` pays for what tests alone show, which here is nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from regrade.datasets.mutation.mutants import Mutations, MutationTarget
from regrade.datasets.mutation.packages import subject_files
from regrade.datasets.mutation.rebuilding import planting_patch
from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Target, Task
from regrade.evaluators.static.complexity import complexities
from regrade.evaluators.task_curation.built_repository import BuiltRepository
from regrade.evaluators.task_curation.instructions import lower_complexity
from regrade.evaluators.task_curation.mutation_tasks import distinct_mutants, host_task, run_of
from regrade.rewards.builtin import refactoring
from regrade.rewards.evidence import End, TestRun

REFACTORS = "refactors"
"""`Task.source` of these tasks."""
KIND = "lower-complexity"
LEAST_COMPLEXITY = 10
"""Functions above it are candidates: McCabe's limit ("A Complexity Measure", 1976)."""
LEAST_TESTS = 3
"""Stable tests that must execute the function."""
MOST_BUGS, LEAST_NOTICED = 8, 0.75
"""Bugs that are planted in the function, and the share of them that its tests must notice."""


@dataclass(frozen=True)
class _Guarded:
    """A complex function that tests execute."""

    mutations: Mutations
    function: MutationTarget
    complexity: int
    guards: int
    """Number of tests that execute it."""


def from_refactors(repository: BuiltRepository) -> Iterator[Task]:
    """Functions of a cyclomatic complexity above 10 whose tests guard them, the most complex first; Python only."""
    found = 0
    for candidate in _candidates(repository):
        if repository.limit is not None and found >= repository.limit:
            return
        repository.report(f"{repository.name}: {candidate.function.name}", found, 0)
        reason, seconds = _weakness(repository, candidate)
        repository.yields.tried(KIND, seconds, reason)
        if reason:
            continue
        task = _task(repository, candidate)
        reason, seconds = _confirmed(repository, task)
        repository.yields.confirmed(KIND, seconds, reason)
        if not reason:
            found += 1
            yield task


def _candidates(repository: BuiltRepository) -> list[_Guarded]:
    recipes, found = repository.recipes, list[_Guarded]()
    files = subject_files(recipes.package, repository.tree.root)
    for file in (file for file in files if file.endswith(".py")):
        text = repository.tree.read(file)
        known = complexities(text) or {}
        mutations = Mutations(text, file, recipes.size)
        names = [function.name for function in mutations.functions]
        for function in mutations.functions:
            key = f"{file}::{function.name}"
            guards, value = len(recipes.reach.get(key, ())), known.get(function.name, 0)
            is_usable = key not in recipes.imported and names.count(function.name) == 1
            if is_usable and guards >= LEAST_TESTS and value > LEAST_COMPLEXITY:
                found.append(_Guarded(mutations, function, value, guards))
    return sorted(found, key=lambda one: (-one.complexity, one.mutations.file, one.function.first_line))


def _weakness(repository: BuiltRepository, candidate: _Guarded) -> tuple[str, float]:
    """(why its tests are no guard, seconds of executions)."""
    bugs = distinct_mutants(candidate.mutations, candidate.function, repository.seed)[:MOST_BUGS]
    host = host_task(repository.recipes, repository.tree.root)
    jobs = [(host, planting_patch(bug)) for bug in bugs]
    runs = [run_of(gathered) for gathered in repository.scorer.gather(jobs, [TestRun], reachable=True)]
    noticed = sum(bool(run.broken) or run.end is not End.COMPLETED for run in runs)
    seconds = sum(run.seconds for run in runs)
    if not bugs:
        return "no bug can be planted in it", seconds
    if noticed < LEAST_NOTICED * len(bugs):
        return f"its tests notice less than {LEAST_NOTICED:.0%} of the bugs planted in it", seconds
    return "", seconds


def _task(repository: BuiltRepository, candidate: _Guarded) -> Task:
    function, file = candidate.function, candidate.mutations.file
    return Task(
        id=f"{repository.name}/{file}:{function.name}:{KIND}",
        repository=repository.name,
        base=repository.tree,
        instruction=lower_complexity(file, function.name, candidate.complexity, candidate.guards),
        fail_to_pass=(),
        pass_to_pass=tuple(sorted(repository.baseline.stable)),
        suite=repository.suite,
        requirements=repository.requirements,
        limits=repository.limits,
        source=REFACTORS,
        kind=KIND,
        target=Target(file, function.name, function.first_line, function.last_line),
    )


def _confirmed(repository: BuiltRepository, task: Task) -> tuple[str, float]:
    """(why the task does not hold, seconds of the run without a patch)."""
    nothing = [(task, Patch(""))]
    run = run_of(*repository.scorer.gather(nothing, [TestRun]))
    (verdict,) = repository.scorer.score(nothing, refactoring)
    if run.end is not End.COMPLETED or run.broken:
        return "its tests don't all pass in a further run", run.seconds
    return ("" if verdict.value == 0.0 else "doing nothing is paid"), run.seconds
