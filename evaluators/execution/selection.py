"""Which tests a change can reach: those that execute a changed function, where that is all there is to it."""

from __future__ import annotations

from regrade.datasets.node_ids import file_of
from regrade.datasets.tasks import Task, Tree
from regrade.evaluators.execution.function_bodies import outline_of_edit, syntax_outline, text_outline
from regrade.evaluators.execution.workspaces import Workspace


def selected_tests(task: Task, workspace: Workspace) -> frozenset[str] | None:
    """FAIL_TO_PASS, and the PASS_TO_PASS tests that execute a changed function or read a changed file; None: the whole
    suite must run.

    Safe only where every change lies inside bodies of functions whose reach was measured and that nothing executes on
    import. The measure was taken on the base or on the pristine tree under it, so functions that differ from either
    count.
    """
    changed = changed_functions(task, workspace)
    reach, imported = task.suite.reach, task.suite.imported
    if changed is None or reach is None or any(function not in reach for function in changed):
        return None
    touched = changed | {file_of(function) for function in changed}
    if not touched.isdisjoint(imported):
        return None
    reached = {test for place in touched for test in reach.get(place, ())}
    return frozenset(task.fail_to_pass) | reached.intersection(task.pass_to_pass)


def in_company(task: Task, wanted: frozenset[str]) -> frozenset[str] | None:
    """The tests that must run for the wanted ones to tell anything: themselves, and whole files; None: the whole suite.

    What a FAIL_TO_PASS test needs can't be measured at the base, where it fails: it is taken to need what the others of
    its file need.
    """
    companions = task.suite.companions
    if not companions:
        return wanted
    failing = wanted.intersection(task.fail_to_pass)
    files = {file_of(test) for test in failing}
    asked = {test for test in companions if test in wanted or file_of(test) in files}
    places = {companions[test] for test in asked}
    return None if "" in places else wanted | places


def changed_functions(task: Task, workspace: Workspace) -> frozenset[str] | None:
    """`file::qualified.name` of the functions whose bodies changed; None: something else changed as well."""
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
    # By text first, which costs a tenth: where only bodies differ as text, only they differ as syntax.
    before = outline_of_edit(old, None if pristine is None else text_outline(pristine))
    after = outline_of_edit(new, before)
    functions = before.differing(after) if before is not None and after is not None else None
    if functions is not None:
        return functions
    before, after = syntax_outline(old), syntax_outline(new)
    return before.differing(after) if before is not None and after is not None else None
