"""Rewrites: single-line edits that say the same in other words, as operators in the form of `operators`.

They leave the behaviour of usual code as it is. Whether that holds for a given line (operands with side effects, types
with unusual operators), its tests show, as for any other edit.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping

from regrade.datasets.mutation.operators import Edit, Operator, Surroundings

_MIRRORED: Mapping[type[ast.cmpop], str] = {
    ast.Eq: "==", ast.NotEq: "!=", ast.Lt: ">", ast.Gt: "<", ast.LtE: ">=", ast.GtE: "<=",
}  # fmt: skip
_AUGMENTED: Mapping[type[ast.operator], str] = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.FloorDiv: "//", ast.Div: "/", ast.Mod: "%", ast.BitOr: "|",
    ast.BitAnd: "&",
}  # fmt: skip


def _mirrored_comparison(node: ast.AST, around: Surroundings) -> Iterator[Edit]:
    """`a < b` -> `b > a`"""
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in _MIRRORED:
        left, right = around.text(node.left), around.text(node.comparators[0])
        if left and right:
            yield from around.replace(node, f"{right} {_MIRRORED[type(node.ops[0])]} {left}")


def _negated_twice(node: ast.AST, around: Surroundings) -> Iterator[Edit]:
    """`if x` -> `if not not x`"""
    if isinstance(node, ast.If | ast.While | ast.IfExp) and not isinstance(node.test, ast.UnaryOp):
        text = around.text(node.test)
        yield from around.replace(node.test, f"not not ({text})" if text else None)


def _de_morgan(node: ast.AST, around: Surroundings) -> Iterator[Edit]:
    """`if a and b` -> `if not (not (a) or not (b))`"""
    if isinstance(node, ast.If | ast.While | ast.IfExp) and isinstance(node.test, ast.BoolOp):
        texts = [around.text(value) for value in node.test.values]
        other = " or " if isinstance(node.test.op, ast.And) else " and "
        if all(texts):
            yield from around.replace(node.test, f"not ({other.join(f'not ({text})' for text in texts)})")


def _turned_choice(node: ast.AST, around: Surroundings) -> Iterator[Edit]:
    """`a if c else b` -> `b if not (c) else a`"""
    if isinstance(node, ast.IfExp):
        body, test, other = around.text(node.body), around.text(node.test), around.text(node.orelse)
        if body and test and other:
            yield from around.replace(node, f"{other} if not ({test}) else {body}")


def _written_out(node: ast.AST, around: Surroundings) -> Iterator[Edit]:
    """`x += y` -> `x = x + (y)`"""
    if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name) and type(node.op) in _AUGMENTED:
        start, end, value = around.span(node.target), around.span(node.value), around.text(node.value)
        if start and end and value and start[0] == end[0]:
            name = node.target.id
            yield Edit("", start[0], start[1], end[2], f"{name} = {name} {_AUGMENTED[type(node.op)]} ({value})")


def _constructor(node: ast.AST, around: Surroundings) -> Iterator[Edit]:
    """`[]` -> `list()`, `{}` -> `dict()`"""
    if isinstance(node, ast.List) and not node.elts and isinstance(node.ctx, ast.Load):
        yield from around.replace(node, "list()")
    elif isinstance(node, ast.Dict) and not node.keys:
        yield from around.replace(node, "dict()")


def _commuted(node: ast.AST, around: Surroundings) -> Iterator[Edit]:
    """`n + 1` -> `1 + n`, `not x in y` for `x not in y`"""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Mult):
        sides = [side for side in (node.left, node.right) if isinstance(side, ast.Constant)]
        if len(sides) == 1 and isinstance(sides[0].value, int | float):
            left, right = around.text(node.left), around.text(node.right)
            operator = "+" if isinstance(node.op, ast.Add) else "*"
            is_plain = isinstance(node.left, ast.Name | ast.Constant | ast.Call | ast.Attribute | ast.Subscript)
            if left and right and is_plain:
                yield from around.replace(node, f"{right} {operator} {left}")
    elif isinstance(node, ast.Compare) and len(node.ops) == 1 and isinstance(node.ops[0], ast.NotIn | ast.IsNot):
        left, right = around.text(node.left), around.text(node.comparators[0])
        word = "in" if isinstance(node.ops[0], ast.NotIn) else "is"
        if left and right:
            yield from around.replace(node, f"(not {left} {word} {right})")


def _through_a_name(node: ast.AST, around: Surroundings) -> Iterator[Edit]:
    """`return f(x)` -> `result = f(x); return result`"""
    if isinstance(node, ast.Return) and node.value is not None and not isinstance(node.value, ast.Name | ast.Constant):
        span, text = around.span(node.value), around.text(node.value)
        if span and text and "result" not in around.names and around.lines[span[0] - 1][: span[1]].strip() == "return":
            start = around.column(node.lineno, node.col_offset)
            yield Edit("", span[0], start, span[2], f"result = {text}; return result")


REWRITES: Mapping[str, Operator] = {
    "commuted": _commuted,
    "constructor": _constructor,
    "de-morgan": _de_morgan,
    "mirrored-comparison": _mirrored_comparison,
    "negated-twice": _negated_twice,
    "through-a-name": _through_a_name,
    "turned-choice": _turned_choice,
    "written-out": _written_out,
}
