"""The task sources: each is one function from a built repository to its validated tasks.

with Scorer() as scorer:
    repository = built_repository("FOLDER", scorer)
    for task in from_commits(repository):
        ...
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from regrade.datasets.mutation.mutants import ALL_OPERATORS
from regrade.datasets.mutation.rebuilding import rebuild, wrong_fixes
from regrade.datasets.mutation.statement_operators import REMOVED_BODY, SEVERAL
from regrade.datasets.tasks import Task
from regrade.evaluators.task_curation.built_repository import BuiltRepository
from regrade.evaluators.task_curation.commit_tasks import COMMITS, from_commits
from regrade.evaluators.task_curation.cross_module_tasks import CrossModuleAmounts, find_cross_module
from regrade.evaluators.task_curation.instructions import failing_behaviour, missing_feature
from regrade.evaluators.task_curation.mutation_tasks import Amounts, find_bugs
from regrade.evaluators.task_curation.refactoring_tasks import REFACTORS, from_refactors

TaskSource = Callable[[BuiltRepository], Iterator[Task]]
"""It validates what it yields, and counts the candidates in `repository.yields`."""
MUTATION, CROSS_MODULE, FEATURES = "mutation", "cross-module", "features"
ALL_KINDS = (*(kind for kind in ALL_OPERATORS if kind != REMOVED_BODY), SEVERAL)
TRIVIAL_ERRORS = ("NameError", "UnboundLocalError", "SyntaxError", "IndentationError", "ImportError")
"""The errors by which Python itself reports code that does not compile, and names that nothing defines. The language
fixes this list, and no run can show it: that a checker finds a bug is no property of the failing tests."""
MOST_TASKS = 320
"""Tasks of one source, where no limit is set."""

__all__ = [
    "SOURCES",
    "TaskSource",
    "from_commits",
    "from_cross_module",
    "from_features",
    "from_mutation",
    "from_refactors",
]


def from_mutation(repository: BuiltRepository) -> Iterator[Task]:
    """Bugs of all kinds, planted into functions that tests execute; one of a function while functions remain."""
    most = repository.limit or MOST_TASKS
    amounts = Amounts(
        most=most,
        least=most,
        runs=repository.runs,
        kinds=ALL_KINDS,
        left_out=frozenset(),
        trivial_errors=TRIVIAL_ERRORS,
    )
    found = find_bugs(
        repository.scorer, repository.recipes, repository.tree.root, amounts, repository.report, repository.yields
    )
    for task in rebuild(found, repository.tree.root):
        yield replace(task, source=MUTATION, instruction=failing_behaviour(task))


def from_features(repository: BuiltRepository) -> Iterator[Task]:
    """Functions without their bodies: the instruction is the signature, the docstring and the tests."""
    most = repository.limit or MOST_TASKS
    amounts = Amounts(most=most, least=0, a_function=1, runs=repository.runs, kinds=(REMOVED_BODY,))
    found = find_bugs(
        repository.scorer, repository.recipes, repository.tree.root, amounts, repository.report, repository.yields
    )
    for task in rebuild(found, repository.tree.root):
        yield replace(task, source=FEATURES, instruction=missing_feature(task))


def from_cross_module(repository: BuiltRepository) -> Iterator[Task]:
    """Bugs with a tempting wrong fix: it passes the one test file that is shown, and breaks tests of other modules."""
    most = repository.limit or CrossModuleAmounts.most
    amounts = replace(
        CrossModuleAmounts(runs=repository.runs), most=most, functions=min(CrossModuleAmounts.functions, 4 * most)
    )
    found = find_cross_module(
        repository.scorer, repository.recipes, repository.tree.root, amounts, repository.report, repository.yields
    )
    repository.wrong_fixes.update(wrong_fixes(found, repository.tree.root))
    for task in rebuild(found, repository.tree.root):
        shown = replace(task, fail_to_pass=tuple(test for test in task.fail_to_pass if _is_shown(test, task)))
        yield replace(task, source=CROSS_MODULE, kind=CROSS_MODULE, instruction=failing_behaviour(shown))


def _is_shown(test: str, task: Task) -> bool:
    return task.shown.tests is None or test.partition("::")[0] in task.shown.tests


SOURCES: Mapping[str, TaskSource] = {
    COMMITS: from_commits,
    MUTATION: from_mutation,
    CROSS_MODULE: from_cross_module,
    FEATURES: from_features,
    REFACTORS: from_refactors,
}
"""Name -> source, in the order in which they are searched."""
