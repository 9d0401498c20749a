"""The measured difficulty of a task: facts of its tests and of its change, and how many wrong fixes pass what is shown.

No single number is derived from them: only attempts of policies show how hard a task is. These facts are known before
any attempt, so results can be sliced by them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from regrade.datasets.leak_free_splits import changed_functions, fixed_tree
from regrade.datasets.mutation.mutants import LONG, Mutant
from regrade.datasets.mutation.syntax_mutations import mutations_of, parses
from regrade.datasets.node_ids import file_of
from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Task, Tree
from regrade.evaluators.scoring.scorer import Scorer
from regrade.evaluators.static.complexity import function_complexity
from regrade.evaluators.static.dependencies.distance import import_distances
from regrade.evaluators.static.dependencies.graph import graph_of
from regrade.evaluators.task_curation.built_repository import BuiltRepository
from regrade.evaluators.task_curation.mutation_tasks import distinct_mutants, run_of
from regrade.rewards.evidence import End, TestRun

DRAWS = 6
"""Wrong fixes that are drawn for a task."""


@dataclass(frozen=True, kw_only=True)
class WrongFixDraws:
    """What became of wrong fixes of a task: its reference with one more bug in the function that it changes."""

    drawn: int
    passing: int
    """Those that pass all shown FAIL_TO_PASS tests, and break another test: the shown tests alone would accept them."""
    unnoticed: int
    """Those that pass every test: no test covers the bug, or it is none."""


class DifficultyFacts:
    """Measures the tasks of one repository."""

    def __init__(self, repository: BuiltRepository) -> None:
        self._repository = repository
        self._graph = graph_of(repository.tree, repository.suite.python_path)

    def of(self, task: Task) -> dict[str, Any]:
        """Facts as keys of `origin`; a key is missing where the fact can't be measured."""
        return dict([*self._size(task), *self._tests(task), *self._target(task), *self._wrong_fixes(task)])

    def _size(self, task: Task) -> Iterator[tuple[str, Any]]:
        files = {file.path for file in task.reference.files} if task.reference else set()
        yield "changed_files", len(files)
        yield "changed_lines", task.reference.changed_lines if task.reference else 0

    def _tests(self, task: Task) -> Iterator[tuple[str, Any]]:
        """Imports from the nearest failing test to the farthest change, and the tests that execute the target."""
        changed = sorted({file.path for file in task.reference.files}) if task.reference else []
        distances = import_distances(self._graph, {file_of(test) for test in task.fail_to_pass})
        known = [distances[path] for path in changed if path in distances]
        if known:
            yield "distance", max(known)
        if task.target is not None and task.suite.reach:  # empty for other languages than Python: not measured
            key = f"{task.target.file}::{task.target.function.split('.<locals>')[0]}"
            yield "guards", len(task.suite.reach.get(key, ()))

    def _target(self, task: Task) -> Iterator[tuple[str, Any]]:
        """Size of the function to change, once it is right: what a policy has to understand."""
        if task.target is None:
            return
        text = fixed_tree(task).read_or_none(task.target.file) or ""
        complexity = function_complexity(text, task.target.file, task.target.function)
        if complexity is not None:
            yield "target_complexity", complexity
        for function in mutations_of(text, task.target.file, LONG).functions if parses(text, task.target.file) else ():
            if function.name == task.target.function:
                yield "target_lines", function.last_line - function.first_line + 1

    def _wrong_fixes(self, task: Task) -> Iterator[tuple[str, Any]]:
        draws = drawn_wrong_fixes(task, self._repository.seed) if task.fail_to_pass else []
        if not draws:
            return
        found = run_wrong_fixes(task, draws, self._repository.scorer)
        yield "wrong_fixes", {"drawn": found.drawn, "passing": found.passing, "unnoticed": found.unnoticed}


def drawn_wrong_fixes(task: Task, seed: int) -> list[Patch]:
    """Up to six patches of the base to its reference with another bug in a function that the reference changes."""
    fixed, mutants = fixed_tree(task), list[Mutant]()
    for file, name in sorted(changed_functions(task)):
        text = fixed.read_or_none(file) if file else None
        if not name or text is None or not parses(text, file):
            continue
        mutations = mutations_of(text, file, LONG)
        for function in mutations.functions:
            if function.name == name:
                mutants += distinct_mutants(mutations, function, seed)
    if fixed.removed != task.base.removed:
        return []  # the reference moves files
    changed = {path: text for path, text in fixed.replaced.items() if text != task.base.read_or_none(path)}
    patches = [_patch_to(task.base, {**changed, mutant.file: mutant.source}) for mutant in mutants]
    distinct = {patch.text: patch for patch in patches if not patch.is_empty}
    return list(distinct.values())[:DRAWS]


def _patch_to(base: Tree, texts: dict[str, str]) -> Patch:
    before = {path: text for path in texts if (text := base.read_or_none(path)) is not None}
    return Patch.between(before, texts)


def run_wrong_fixes(task: Task, patches: Sequence[Patch], scorer: Scorer) -> WrongFixDraws:
    """Run them on the task's tests."""
    gathered = scorer.gather([(task, patch) for patch in patches], [TestRun], reachable=True)
    runs = [run_of(evidence) for evidence in gathered]
    shown = {
        test for test in task.fail_to_pass if task.shown.tests is None or {test, file_of(test)} & {*task.shown.tests}
    }
    passing = [run for run in runs if run.end is End.COMPLETED and shown <= {*run.fixed}]
    unnoticed = sum(run.resolved for run in passing)
    return WrongFixDraws(drawn=len(runs), passing=len(passing) - unnoticed, unnoticed=unnoticed)
