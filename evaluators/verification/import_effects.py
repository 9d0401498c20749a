"""What a patch does beside its functions: constants, and what it changes on import that is not its own."""

from __future__ import annotations

import ast
from typing import Any

from regrade.datasets.globs import is_protected
from regrade.datasets.syntax_trees import parse_or_none, parse_tree
from regrade.datasets.tasks import Task
from regrade.evaluators.execution.selection import changed_functions
from regrade.evaluators.execution.workspaces import Workspace
from regrade.evaluators.verification.counterfactuals import Definition

MEDDLING = frozenset({"setattr", "delattr", "exec", "eval", "__import__"})


def may_go_round(task: Task, workspace: Workspace) -> bool:
    """May the patch honestly mend something without any function that it changes, such as by a constant?

    Not where its changes lie in functions, and new imports, alone; nor where it puts its hand on what is not its own on
    import and the reference says that the functions are needed.
    """
    meddles, _ = meddling(task, workspace)
    if meddles:
        return task.reference is None
    if workspace.before.removed != workspace.after.removed:
        return True
    return any(before is None or before != after for before, after in _frames(task, workspace).values())


def meddling(task: Task, workspace: Workspace) -> tuple[bool, frozenset[str]]:
    """Does a patch do something on import to what is not its own, and the names that it mentions in doing so."""
    names: set[str] = set()
    meddles = False
    for path, (before, after) in _frames(task, workspace).items():
        for statement in after or ():
            if statement not in (before or ()) and _meddles(statement, workspace.after.read(path)):
                meddles = True
                names |= {node.id for node in ast.walk(parse_tree(statement)) if isinstance(node, ast.Name)}
    return meddles, frozenset(names)


def _frames(task: Task, workspace: Workspace) -> dict[str, tuple[list[str] | None, list[str] | None]]:
    """Changed file -> its frame before and after; empty where functions alone differ."""
    if changed_functions(task, workspace) is not None:
        return {}
    texts = {path: (workspace.before.read_or_none(path), text) for path, text in workspace.after.replaced.items()}
    return {
        path: (_frame(path, old or ""), _frame(path, new))
        for path, (old, new) in texts.items()
        if old != new and not is_protected(path, task.suite.protected)
    }


class _Stripped(ast.NodeTransformer):
    def visit(self, node: ast.AST) -> Any:
        if isinstance(node, Definition | ast.Import | ast.ImportFrom):
            return None
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            return None
        return self.generic_visit(node)


def _frame(path: str, text: str) -> list[str] | None:
    """The statements of a file, as text, without functions, imports and docstrings; None where it is no Python."""
    module = parse_or_none(text) if path.endswith(".py") else None
    return None if module is None else [ast.unparse(node) or "pass" for node in _Stripped().visit(module).body]


def _meddles(statement: str, text: str) -> bool:
    """Does a statement change an attribute of something imported, or call something imported for its effect?"""
    imported = set(MEDDLING)
    for node in ast.walk(parse_tree(text)):
        if isinstance(node, ast.Import | ast.ImportFrom) and not getattr(node, "level", 0):
            imported |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
    try:
        nodes = list(ast.walk(parse_tree(statement)))
    except SyntaxError:  # a block of nothing but functions
        return False
    for node in nodes:
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign | ast.Delete):
            targets = [each for each in node.targets if isinstance(each, ast.Attribute | ast.Subscript)]
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            targets = [node.value.func]
        if any(_root(target) in imported for target in targets):
            return True
    return False


def _root(node: ast.expr) -> str:
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Call):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""
