"""Test impact analysis: the tests that can reach a change, if it changes function bodies alone."""

from __future__ import annotations

from regrade.datasets.node_ids import file_of
from regrade.datasets.tasks import Task, Tree
from regrade.evaluators.execution.function_bodies import outline_of_edit, syntax_outline, text_outline
from regrade.evaluators.execution.workspaces import Workspace


def selected_tests(task: Task, workspace: Workspace) -> frozenset[str] | None:
    """FAIL_TO_PASS, and the other tests that execute a changed function or read a changed file; None: the whole suite
    must run.

    Safe only if every change is inside the bodies of functions whose reach was measured and that no import executes.
    Reach was measured on the base or on the pristine tree under it, so functions that differ from either count.
    """
    changed = changed_functions(task, workspace)
    reach, imported = task.suite.reach, task.suite.imported
    is_measured = reach is not None
    # Comments alone, for example. Without a measured reach, no change at all runs all tests: their state at the base.
    if changed is not None and not changed and (is_measured or workspace.after != workspace.before):
        return frozenset(task.fail_to_pass)
    if changed is None or reach is None or any(function not in reach for function in changed):
        return None
    touched = changed | {file_of(function) for function in changed}
    if not touched.isdisjoint(imported):
        return None
    reached = {test for key in touched for test in reach.get(key, ())}
    return frozenset(task.fail_to_pass) | reached.intersection((*task.pass_to_pass, *task.unnamed))


def with_companions(task: Task, tests: frozenset[str]) -> frozenset[str] | None:
    """The tests, and the tests or whole files that must run for them to pass; None: the whole suite.

    The needs of a test that fails at the base can't be measured there: the needs of the other tests of its file are
    assumed.
    """
    companions = task.suite.companions
    if not companions:
        return tests
    failing = tests.intersection((*task.fail_to_pass, *task.unnamed))
    files = {file_of(test) for test in failing}
    dependent = {test for test in companions if test in tests or file_of(test) in files}
    needed = {companions[test] for test in dependent}
    return None if "" in needed else tests | needed


def changed_functions(task: Task, workspace: Workspace) -> frozenset[str] | None:
    """`file::qualified.name` of the functions whose bodies changed; None: other code changed as well."""
    before, after = workspace.before, workspace.after
    if before.removed != after.removed:
        return None
    changed: set[str] = set()
    for path, new in after.replaced.items():
        old, pristine = before.read_or_none(path), Tree(task.base.root).read_or_none(path)
        if old is None:
            return None
        for other in {old, old if pristine is None else pristine} - {new}:
            functions = _differing(other, new, pristine) if path.endswith(".py") else None
            if functions is None:
                return None
            changed.update(f"{path}::{function}" for function in functions)
    return frozenset(changed)


def _differing(old: str, new: str, pristine: str | None) -> set[str] | None:
    # By text first, at a tenth of the cost: if only bodies differ as text, only bodies differ as syntax.
    before = outline_of_edit(old, None if pristine is None else text_outline(pristine))
    after = outline_of_edit(new, before)
    functions = before.differing(after) if before is not None and after is not None else None
    if functions is not None:
        return functions
    before, after = syntax_outline(old), syntax_outline(new)
    return before.differing(after) if before is not None and after is not None else None
