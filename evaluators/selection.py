"""Which tests a change can reach: those that execute a changed function, where that is all there is to it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from regrade.datasets.syntax_trees import parse_tree
from regrade.datasets.tasks import Task, Tree
from regrade.evaluators.workspaces import Workspace

Definition = ast.FunctionDef | ast.AsyncFunctionDef


class Outline(NamedTuple):
    """A file in two pieces."""

    frame: str
    """Everything but the bodies of functions: signatures, defaults, decorators and docstrings are part of it."""
    bodies: dict[str, tuple[str, ...]]
    """Qualified name -> body of each outermost function of that name (a property has several)."""

    def differing(self, after: Outline) -> set[str] | None:
        """Names of the functions whose bodies differ; None: something else differs too."""
        if self.frame != after.frame or self.bodies.keys() != after.bodies.keys():
            return None
        return {name for name, body in after.bodies.items() if self.bodies[name] != body}


def selected_tests(task: Task, workspace: Workspace) -> frozenset[str] | None:
    """FAIL_TO_PASS and the PASS_TO_PASS tests that execute a changed function; None: the whole suite must run.

    Safe only where every change lies inside bodies of functions whose reach was measured and that nothing executes on
    import. The measure was taken on the base or on the pristine tree under it, so functions that differ from either
    count.
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
    # By text first, which costs a tenth: where only bodies differ as text, only they differ as syntax.
    for outline in (text_outline, syntax_outline):
        before, after = outline(old), outline(new)
        if before is None or after is None:
            continue
        functions = before.differing(after)
        if functions is not None:
            return functions
    return None


@lru_cache(maxsize=256)
def text_outline(source: str) -> Outline | None:
    """The file's outline as text; None where it is no Python, or a body shares a line with something else."""
    module = None if "\r" in source else _parsed(source)
    if module is None:
        return None
    lines = source.split("\n")
    frame: list[str] = []
    bodies: dict[str, tuple[str, ...]] = {}
    kept_to = 0
    for name, function in sorted(_outermost(module, ""), key=lambda found: found[1].lineno):
        statements = function.body[_documented(function) :]
        first, last = function.body[0].lineno, function.body[-1].end_lineno or 0
        if not statements or first <= kept_to or lines[first - 1][: function.body[0].col_offset].strip():
            return None
        start = statements[0].lineno - 1
        frame += lines[kept_to:start]
        bodies[name] = (*bodies.get(name, ()), "\n".join(lines[start:last]))
        kept_to = last
    return Outline("\n".join((*frame, *lines[kept_to:])), bodies)


@lru_cache(maxsize=128)
def syntax_outline(source: str) -> Outline | None:
    """The file's outline as syntax, in which positions and comments play no part; None where it is no Python."""
    module = _parsed(source)
    if module is None:
        return None
    bodies: dict[str, tuple[str, ...]] = {}
    try:
        for name, function in _outermost(module, ""):
            start = _documented(function)
            body = ast.dump(ast.Module(function.body[start:], []))
            bodies[name] = (*bodies.get(name, ()), body)
            function.body = function.body[:start]
        return Outline(ast.dump(module), bodies)
    except RecursionError:
        return None


def _parsed(source: str) -> ast.Module | None:
    try:
        return parse_tree(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _documented(function: Definition) -> int:
    """1 if the function's body begins with a docstring, else 0."""
    return int(ast.get_docstring(function, clean=False) is not None)


def _outermost(node: ast.AST, prefix: str) -> Iterator[tuple[str, Definition]]:
    """Functions that lie in no other function, with their qualified names."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Definition):
            yield prefix + child.name, child
        elif isinstance(child, ast.ClassDef):
            yield from _outermost(child, f"{prefix}{child.name}.")
        else:
            yield from _outermost(child, prefix)
