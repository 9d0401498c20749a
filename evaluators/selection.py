"""Which tests a change can reach: those that execute a changed function, where that is all there is to it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from regrade.datasets.tasks import Task, Tree
from regrade.evaluators.workspaces import Workspace

Definition = ast.FunctionDef | ast.AsyncFunctionDef


class Outline(NamedTuple):
    """A file's syntax tree in two pieces. Positions and comments play no part."""

    frame: str
    """Everything but the bodies of functions: signatures, defaults, decorators and docstrings are part of it."""
    bodies: dict[str, tuple[str, ...]]
    """Qualified name -> body of each outermost function of that name (a property has several)."""


def selected_tests(task: Task, workspace: Workspace) -> frozenset[str] | None:
    """FAIL_TO_PASS and the PASS_TO_PASS tests that execute a function changed by the patch; None: the whole suite must run.

    Safe only where every change lies inside bodies of functions whose reach was measured and that nothing executes on
    import. The measure was taken on the base or on the pristine tree under it, so functions that differ from either count.
    """
    changed = changed_functions(task, workspace)
    reach = task.suite.reach
    if changed is None or reach is None or not changed.isdisjoint(task.suite.imported):
        return None
    if any(function not in reach for function in changed):
        return None
    reached = {test for function in changed for test in reach[function]}
    return frozenset(task.fail_to_pass) | reached.intersection(task.pass_to_pass)


def changed_functions(task: Task, workspace: Workspace) -> frozenset[str] | None:
    """`file::qualified.name` of the functions whose bodies changed; None: something else changed as well."""
    before, after = workspace.before, workspace.after
    if before.removed != after.removed:
        return None
    changed: set[str] = set()
    for path, new in after.replaced.items():
        olds = {text for tree in (before, Tree(task.base.root)) if (text := _text(tree, path)) is not None}
        if not olds or _text(before, path) is None:
            return None
        for old in olds - {new}:
            functions = _differing(old, new) if path.endswith(".py") else None
            if functions is None:
                return None
            changed.update(f"{path}::{function}" for function in functions)
    return frozenset(changed)


def _text(tree: Tree, path: str) -> str | None:
    try:
        return tree.read(path)
    except FileNotFoundError:
        return None


def _differing(old: str, new: str) -> set[str] | None:
    before, after = outline(old), outline(new)
    if before is None or after is None or before.frame != after.frame or before.bodies.keys() != after.bodies.keys():
        return None
    return {name for name, body in after.bodies.items() if before.bodies[name] != body}


@lru_cache(maxsize=128)
def outline(source: str) -> Outline | None:
    """The file's outline; None where it is no Python."""
    try:
        module = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    bodies: dict[str, tuple[str, ...]] = {}
    try:
        for name, function in _outermost(module, ""):
            start = 1 if ast.get_docstring(function, clean=False) is not None else 0
            body = ast.dump(ast.Module(function.body[start:], []))
            bodies[name] = (*bodies.get(name, ()), body)
            function.body = function.body[:start]
        return Outline(ast.dump(module), bodies)
    except RecursionError:
        return None


def _outermost(node: ast.AST, prefix: str) -> Iterator[tuple[str, Definition]]:
    """Functions that lie in no other function, with their qualified names."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Definition):
            yield prefix + child.name, child
        elif isinstance(child, ast.ClassDef):
            yield from _outermost(child, f"{prefix}{child.name}.")
        else:
            yield from _outermost(child, prefix)
