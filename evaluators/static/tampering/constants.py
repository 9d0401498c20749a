"""Constant values of expressions, without running them."""

from __future__ import annotations

import ast

MAX_DEPTH = 30
"""Most nested expressions that are evaluated: a patch may contain a hundred thousand."""


def is_always_true(node: ast.expr | None, depth: int = MAX_DEPTH) -> bool:
    """Is the expression certainly true? `True`, `not False`, `bool(1)`, `x or True`, ..."""
    if not depth:
        return False
    if isinstance(node, ast.Constant):
        return bool(node.value)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return isinstance(node.operand, ast.Constant) and not node.operand.value
    if isinstance(node, ast.BoolOp):
        decisive = any if isinstance(node.op, ast.Or) else all
        return decisive(is_always_true(value, depth - 1) for value in node.values)
    if isinstance(node, ast.IfExp):
        return is_always_true(node.body, depth - 1) and is_always_true(node.orelse, depth - 1)
    is_bool = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "bool"
    return is_bool and len(node.args) == 1 and is_always_true(node.args[0], depth - 1)  # type: ignore[union-attr]


def text_of(node: ast.expr | None, depth: int = MAX_DEPTH) -> str:
    """The text of an expression of constants alone (`"_py" + "test"`); empty for other expressions."""
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


def returned_expressions(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[ast.expr | None]:
    """The expressions that a function returns, without those of nested functions."""
    expressions: list[ast.expr | None] = []
    pending: list[ast.AST] = list(function.body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Return):
            expressions.append(node.value)
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)):
            pending.extend(ast.iter_child_nodes(node))
    return expressions
