"""Mutation operators for whole statements, and bugs that consist of two edits in one function.

The ready-made tasks have none of these kinds; repositories that tasks are built from have them all.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from regrade.datasets.mutation.operators import Edit, Operator, Surroundings

SEVERAL = "several"
"""Kind of a bug of two edits, on two lines of one function."""
REMOVED_BODY = "removed-body"
"""Kind of a function without an implementation."""
COMBINATIONS = 3
"""Combined edits of two neighbouring lines."""
_ACTIONS = (ast.Assign, ast.AugAssign, ast.Delete, ast.Expr)


def _dropped_statement(node: ast.AST, around: Surroundings) -> Iterator[Edit]:
    """A call, a deletion, or an assignment to a part of an object; a plain name would be undefined afterwards."""
    for statement in _statements(node):
        if id(statement) in around.behaviour and isinstance(statement, _ACTIONS) and _acts(statement):
            yield from _replaced([statement], "pass", around)


def _acts(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Assign):
        return all(isinstance(target, ast.Attribute | ast.Subscript) for target in statement.targets)
    return not isinstance(statement, ast.Expr) or isinstance(statement.value, ast.Call | ast.Await | ast.Yield)


def _removed_guard(node: ast.AST, around: Surroundings) -> Iterator[Edit]:
    """An `if` that only leaves: it raises, returns, or ends a step of a loop."""
    for statement in _statements(node):
        if isinstance(statement, ast.If) and not statement.orelse and len(statement.body) == 1:
            leaves = isinstance(statement.body[0], ast.Raise | ast.Return | ast.Continue | ast.Break)
            # `elif` begins where its `if` would, and is no statement of its own.
            if (
                leaves
                and around.lines[statement.lineno - 1][
                    : around.column(statement.lineno, statement.col_offset)
                ].isspace()
            ):
                is_elif = around.lines[statement.lineno - 1].lstrip().startswith("elif")
                yield from () if is_elif else _replaced([statement], "pass", around)


def _swallowed_exception(node: ast.AST, around: Surroundings) -> Iterator[Edit]:
    """A handler that raises, and now does nothing."""
    if isinstance(node, ast.ExceptHandler) and any(isinstance(each, ast.Raise) for each in ast.walk(node)):
        yield from _replaced(node.body, "pass", around)


def _removed_branch(node: ast.AST, around: Surroundings) -> Iterator[Edit]:
    """The statements of an `else`, or of the `finally` of a `try`."""
    if isinstance(node, ast.If | ast.For | ast.While | ast.Try) and node.orelse:
        is_elif = isinstance(node.orelse[0], ast.If) and around.lines[node.orelse[0].lineno - 1].lstrip().startswith(
            "elif"
        )
        if not is_elif:
            yield from _replaced(node.orelse, "pass", around)
    if isinstance(node, ast.Try) and node.finalbody:
        yield from _replaced(node.finalbody, "pass", around)


def _removed_body(node: ast.AST, around: Surroundings) -> Iterator[Edit]:
    """All statements of the outermost function but its docstring, if they take several lines."""
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or not around.is_outermost(node):
        return
    first = node.body[0]
    is_docstring = (
        isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
    )
    body = node.body[1:] if is_docstring else node.body
    if body and body[0].lineno > node.lineno and (body[-1].end_lineno or 0) - body[0].lineno >= 2:
        # A generator must stay one: its callers would see the error at another time.
        yield from _replaced(body, "raise NotImplementedError", around)


def _statements(node: ast.AST) -> Iterator[ast.stmt]:
    for name in ("body", "orelse", "finalbody"):
        block = getattr(node, name, None)
        yield from block if isinstance(block, list) else ()


def _replaced(statements: Sequence[ast.stmt], text: str, around: Surroundings) -> Iterator[Edit]:
    first, last = statements[0], statements[-1]
    if last.end_lineno is None or last.end_col_offset is None:
        return
    start = around.column(first.lineno, first.col_offset)
    decorated = isinstance(first, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and first.decorator_list
    # Only whole lines: `if a: return` and `a; b` stay as they are.
    tail = around.lines[last.end_lineno - 1][around.column(last.end_lineno, last.end_col_offset) :].strip()
    if not decorated and not around.lines[first.lineno - 1][:start].strip() and (not tail or tail.startswith("#")):
        end = around.column(last.end_lineno, last.end_col_offset)
        yield Edit("", first.lineno, start, end, text, last.end_lineno - first.lineno + 1)


def combined(edits: Sequence[Edit], lines: Sequence[str]) -> Iterator[Edit]:
    """Edits of one line each, combined in pairs: of neighbouring lines with edits, and of the first and last one."""
    by_line: dict[int, list[Edit]] = defaultdict(list)
    for edit in edits:
        if edit.lines == 1:
            by_line[edit.line].append(edit)
    numbers = sorted(by_line)
    pairs = [*pairwise(numbers), *([(numbers[0], numbers[-1])] if len(numbers) > 2 else [])]
    for one, other in pairs:
        firsts, seconds = by_line[one], by_line[other]
        for turn in range(min(COMBINATIONS, len(firsts) * len(seconds))):
            # Steps of different length, so that the kinds of both vary.
            first, second = firsts[turn * 5 % len(firsts)], seconds[(turn * 7 + 2) % len(seconds)]
            between = lines[one : other - 1]
            text = [first.text + lines[one - 1][first.end :], *between, lines[other - 1][: second.start] + second.text]
            yield Edit("", one, first.start, second.end, "\n".join(text), other - one + 1)


STATEMENT_OPERATORS: Mapping[str, Operator] = {
    "dropped-statement": _dropped_statement,
    "removed-branch": _removed_branch,
    "removed-guard": _removed_guard,
    "swallowed-exception": _swallowed_exception,
    REMOVED_BODY: _removed_body,
}
"""Kind -> operator. The names of kinds must not change, because task sets store them."""
