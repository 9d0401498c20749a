"""A patch's changes outside of functions: constants, and import-time side effects on other modules."""

from __future__ import annotations

import ast
from typing import Any

from regrade.datasets.syntax_trees import parse_or_none, parse_tree
from regrade.datasets.tasks import Task
from regrade.evaluators.execution.selection import changed_functions
from regrade.evaluators.execution.workspaces import Workspace
from regrade.evaluators.verification.counterfactuals import Definition

EFFECTFUL_BUILTINS = frozenset({"setattr", "delattr", "exec", "eval", "__import__"})


def may_fix_outside_functions(task: Task, workspace: Workspace) -> bool:
    """Can an honest version of this patch fix the bug outside of the functions that it changes, such as by a constant?

    No, if it changes only functions and imports; no, if it has import-time side effects on other modules and the task
    has a reference, which shows that the functions are needed.
    """
    has_effects, _ = find_import_effects(task, workspace)
    if has_effects:
        return task.reference is None
    if workspace.before.removed != workspace.after.removed:
        return True
    return any(before is None or before != after for before, after in _module_statements(task, workspace).values())


def find_import_effects(task: Task, workspace: Workspace) -> tuple[bool, frozenset[str]]:
    """Return whether a patch has import-time side effects on other modules, and the names in their statements."""
    names: set[str] = set()
    has_effects = False
    for path, (before, after) in _module_statements(task, workspace).items():
        for statement in after or ():
            if statement not in (before or ()) and _has_import_effect(statement, workspace.after.read(path)):
                has_effects = True
                names |= {node.id for node in ast.walk(parse_tree(statement)) if isinstance(node, ast.Name)}
    return has_effects, frozenset(names)


def _module_statements(task: Task, workspace: Workspace) -> dict[str, tuple[list[str] | None, list[str] | None]]:
    """Changed file -> its statements outside of functions, before and after; empty if only functions differ."""
    if changed_functions(task, workspace) is not None:
        return {}
    texts = {path: (workspace.before.read_or_none(path), text) for path, text in workspace.after.replaced.items()}
    return {
        path: (_statements_outside_functions(path, old or ""), _statements_outside_functions(path, new))
        for path, (old, new) in texts.items()
        if old != new and not task.suite.protects(path)
    }


class _FunctionRemover(ast.NodeTransformer):
    def visit(self, node: ast.AST) -> Any:
        if isinstance(node, Definition | ast.Import | ast.ImportFrom):
            return None
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            return None
        return self.generic_visit(node)


def _statements_outside_functions(path: str, text: str) -> list[str] | None:
    """The statements of a file, as text, without functions, imports and docstrings; None: it does not parse."""
    module = parse_or_none(text) if path.endswith(".py") else None
    return None if module is None else [ast.unparse(node) or "pass" for node in _FunctionRemover().visit(module).body]


def _has_import_effect(statement: str, text: str) -> bool:
    """Does a statement of the text change an attribute of an imported object, or call one without using the result?"""
    imported = set(EFFECTFUL_BUILTINS)
    for node in ast.walk(parse_tree(text)):
        if isinstance(node, ast.Import | ast.ImportFrom) and not getattr(node, "level", 0):
            imported |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
    try:
        nodes = list(ast.walk(parse_tree(statement)))
    except SyntaxError:  # a block that has only functions
        return False
    for node in nodes:
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign | ast.Delete):
            targets = [target for target in node.targets if isinstance(target, ast.Attribute | ast.Subscript)]
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            targets = [node.value.func]
        if any(_root(target) in imported for target in targets):
            return True
    return False


def _root(node: ast.expr) -> str:
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Call):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""
