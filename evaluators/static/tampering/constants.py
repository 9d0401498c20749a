"""What an expression is, as far as it can be told without running it."""

from __future__ import annotations

import ast

DEEPEST = 30
"""Nested expressions that are looked into: a patch may hold one that is a hundred thousand deep."""


def surely_true(node: ast.expr | None, depth: int = DEEPEST) -> bool:
    """Is its truth value always true? `True`, `not False`, `bool(1)`, `x or True`, ..."""
    if not depth:
        return False
    if isinstance(node, ast.Constant):
        return bool(node.value)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return isinstance(node.operand, ast.Constant) and not node.operand.value
    if isinstance(node, ast.BoolOp):
        decisive = any if isinstance(node.op, ast.Or) else all
        return decisive(surely_true(value, depth - 1) for value in node.values)
    if isinstance(node, ast.IfExp):
        return surely_true(node.body, depth - 1) and surely_true(node.orelse, depth - 1)
    is_bool = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "bool"
    return is_bool and len(node.args) == 1 and surely_true(node.args[0], depth - 1)  # type: ignore[union-attr]


def text_of(node: ast.expr | None, depth: int = DEEPEST) -> str:
    """The text of an expression that is made of constants alone (`"_py" + "test"`); empty for any other."""
    if not depth:
        return ""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = text_of(node.left, depth - 1), text_of(node.right, depth - 1)
        return left + right if left and right else ""
    if isinstance(node, ast.JoinedStr):
        values = [value.value if isinstance(value, ast.FormattedValue) else value for value in node.values]
        texts = [text_of(value, depth - 1) for value in values]
        return "".join(texts) if all(texts) else ""
    return ""


def returned(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[ast.expr | None]:
    """The expressions that a function returns, those of functions within it left out."""
    found: list[ast.expr | None] = []
    waiting: list[ast.AST] = list(function.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Return):
            found.append(node.value)
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)):
            waiting.extend(ast.iter_child_nodes(node))
    return found
