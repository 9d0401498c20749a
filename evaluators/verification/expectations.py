"""The expectations of a test: spans of its text that can be perturbed into an expectation that can't be met."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

from regrade.evaluators.inside.expectation_helpers import perturbed_value

Definition = ast.FunctionDef | ast.AsyncFunctionDef
CompoundStatement = ast.For | ast.AsyncFor | ast.While | ast.If | ast.With | ast.AsyncWith | ast.Try
SECOND_IS_EXPECTED = re.compile(
    r"(?!\w*not)(?:assert|assert_|failUnless)_?(?:\w*equals?|is|almost_?equals?|count_?equal|array_equal|allclose)",
    re.IGNORECASE,
)
"""Names of methods and functions whose second argument is the expected value of the first."""
EXPECTED_NAME = re.compile(r"expect|want|correct|desired|truth|answer", re.IGNORECASE)
RAISING = frozenset({"raises", "assertRaises", "assertRaisesRegex", "assert_raises", "warns", "assertWarns"})
TRUE = frozenset({"assertTrue", "assertFalse", "assert_", "assert_true", "assert_false", "ok_"})
NONE = frozenset({"assertIsNone"})
LEAVING = (ast.Return, ast.Yield, ast.YieldFrom)


class Form(StrEnum):
    """Kind of an expectation."""

    VALUE = "value"
    LITERAL = "literal"
    TRUTH = "truth"
    PARAMETER = "parameter"
    """A parameter of the test, used only as an expected value."""
    ERROR = "error"
    """A class, such as of an expected exception."""
    END = "end"
    """The test reaches its end."""


class Site(NamedTuple):
    """An expectation of a test."""

    start: int
    """Offset in the file's text; for END and PARAMETER, of an added statement."""
    end: int
    form: Form
    line: int
    """Counts from 1."""
    certain: bool
    """No code under test can meet the perturbed expectation."""
    value: Any = None
    """Value of a literal; name of a parameter."""
    indent: str = ""
    """Of an added statement on a line of its own; empty: it shares a line."""


class SourceText:
    """A text, with the offsets of its syntax tree's nodes."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.lines = text.split("\n")
        self._starts = [0]
        for line in self.lines:
            self._starts.append(self._starts[-1] + len(line) + 1)

    def offset(self, line: int, column: int) -> int:
        """Offset in characters; columns of the syntax tree count bytes of UTF-8."""
        text = self.lines[line - 1]
        return self._starts[line - 1] + (column if text.isascii() else len(text.encode()[:column].decode()))

    def span(self, node: ast.expr) -> tuple[int, int]:
        """Start and end of an expression."""
        return (
            self.offset(node.lineno, node.col_offset),
            self.offset(node.end_lineno or node.lineno, node.end_col_offset or 0),
        )


class Expectations:
    """The expectations that one test reaches in each run that passes, whatever the code under test is."""

    def __init__(self, source: SourceText, assigned: Mapping[str, Sequence[ast.expr]], node: Definition) -> None:
        """`assigned`: see `assigned_in`, of the test's file."""
        self._source = source
        self._assigned = assigned
        self._node = node
        self._origins = dict(_origins_in(node))

    def sites(self) -> Iterator[Site]:
        """Expectations in the order of the text; the test's end is the last."""
        node = self._node
        if any(isinstance(inner, LEAVING) for inner in _own_nodes(node)):
            yield from self._sites_in(_before_leaving(node.body))
        else:
            yield from self._sites_in(node.body)
            yield self._end_of(node)

    def _sites_in(self, body: Sequence[ast.stmt]) -> Iterator[Site]:
        for statement in body:
            if isinstance(statement, ast.Assert):
                yield self._site_of_assert(statement.test)
            elif isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
                yield from self._site_of_call(statement.value)
            elif isinstance(statement, ast.With | ast.AsyncWith):
                yield from self._sites_of_with(statement)
            elif isinstance(statement, ast.For) and self._is_never_empty(statement.iter):
                leaves = any(isinstance(node, ast.Break | ast.Continue) for node in _own_nodes(statement))
                yield from self._sites_in(() if leaves else statement.body)
            elif isinstance(statement, ast.Try):
                yield from self._sites_in(statement.finalbody)

    def _sites_of_with(self, statement: ast.With | ast.AsyncWith) -> Iterator[Site]:
        calls = [item.context_expr for item in statement.items if isinstance(item.context_expr, ast.Call)]
        raising = [call for call in calls if _name_of_call(call) in RAISING]
        if len(statement.items) == 1 and raising:
            yield from self._site_of_call(raising[0])
        elif not raising and not any("suppress" in _name_of_call(call) for call in calls):
            yield from self._sites_in(statement.body)

    def _is_never_empty(self, node: ast.expr) -> bool:
        """Does a loop over the node's value run at least once, whatever the code under test is?"""
        if isinstance(node, ast.Name):
            values = self._assigned.get(node.id, ())
            displayed = all(isinstance(value, ast.List | ast.Tuple | ast.Set | ast.Dict) for value in values)
            return bool(values) and displayed and all(map(self._is_never_empty, values))
        if isinstance(node, ast.List | ast.Tuple | ast.Set):
            return bool(node.elts) and not isinstance(node.elts[0], ast.Starred)
        if isinstance(node, ast.Dict):
            return bool(node.keys) and node.keys[0] is not None
        if isinstance(node, ast.Constant):
            return isinstance(node.value, str | bytes) and bool(node.value)
        if not isinstance(node, ast.Call):
            return False
        if isinstance(node.func, ast.Attribute):
            views = node.func.attr in ("items", "keys", "values") and not node.args
            return views and isinstance(node.func.value, ast.Name | ast.Dict) and self._is_never_empty(node.func.value)
        name = _name_of_call(node)
        if name == "range":
            number = node.args[0] if len(node.args) == 1 else None
            return isinstance(number, ast.Constant) and isinstance(number.value, int) and number.value > 0
        keeps_length = name in ("enumerate", "zip", "product", "reversed", "sorted", "list", "tuple")
        return keeps_length and bool(node.args) and all(map(self._is_never_empty, node.args))

    def _site_of_assert(self, test: ast.expr) -> Site:
        if isinstance(test, ast.Compare) and len(test.ops) == 1:
            left, operator, right = test.left, test.ops[0], test.comparators[0]
            if isinstance(operator, ast.Eq):
                return self._site(self._expected_of(left, right), Form.VALUE)
            if isinstance(operator, ast.Is):
                return self._site(right, Form.VALUE)
            if isinstance(operator, ast.In) and _is_literal(left):
                return self._site(left, Form.VALUE, certain=False)
        return self._site(test, Form.TRUTH)

    def _site_of_call(self, call: ast.Call) -> Iterator[Site]:
        name, arguments = _name_of_call(call), call.args
        if not arguments or any(isinstance(argument, ast.Starred) for argument in arguments[:2]):
            return
        if name in RAISING:
            yield self._site(arguments[0], Form.ERROR)
        elif name in TRUE:
            yield self._site(arguments[0], Form.TRUTH)
        elif name in NONE:
            yield self._site(arguments[0], Form.VALUE, masked=False)
        elif name == "assertIsInstance" and len(arguments) > 1:
            yield self._site(arguments[1], Form.ERROR)
        elif name == "assertIn":
            yield self._site(arguments[0], Form.VALUE, certain=False)
        elif len(arguments) > 1 and SECOND_IS_EXPECTED.fullmatch(name):
            expected = self._expected_of(arguments[0], arguments[1])
            yield self._site(expected, Form.VALUE, certain=name.startswith("assert"))

    def _expected_of(self, first: ast.expr, second: ast.expr) -> ast.expr:
        """The one of two equal values that seems independent of the code under test."""
        return first if self._rank(first) > self._rank(second) else second

    def _rank(self, node: ast.expr) -> int:
        if _is_literal(node):
            return 3
        if isinstance(node, ast.Name):
            if EXPECTED_NAME.search(node.id) or isinstance(self._origins.get(node.id), Definition):
                return 2
            return int(node.id in self._assigned and all(map(_is_literal, self._assigned[node.id])))
        return 0

    def _site(self, node: ast.expr, form: Form, *, certain: bool = True, masked: bool = True) -> Site:
        if form is Form.VALUE and isinstance(node, ast.Name) and node.id in self._origins:
            origin = self._origins[node.id]
            if isinstance(origin, Definition):
                return self._site_of_parameter(origin, node.id)
            node = origin
        start, end = self._source.span(node)
        if form is Form.VALUE and masked and _is_literal(node):
            value = ast.literal_eval(node)
            if _survives_repr(value):
                return Site(start, end, Form.LITERAL, node.lineno, certain, value)
        # The code under test may define an equality by which a perturbed value of another kind is equal.
        return Site(start, end, form, node.lineno, certain and form is not Form.VALUE)

    def _site_of_parameter(self, node: Definition, name: str) -> Site:
        has_docstring = ast.get_docstring(node, clean=False) is not None and len(node.body) > 1
        first = node.body[int(has_docstring)]
        line = min([first.lineno, *(decorator.lineno for decorator in getattr(first, "decorator_list", ()))])
        start = self._source.offset(line, first.col_offset)
        simple = not isinstance(first, CompoundStatement | Definition | ast.ClassDef | ast.Match)
        indent = "" if simple else self._source.lines[line - 1][: first.col_offset]
        return Site(start, start, Form.PARAMETER, line, certain=False, value=name, indent=indent)

    def _end_of(self, node: Definition) -> Site:
        last = node.body[-1]
        line = last.end_lineno or last.lineno
        end = self._source.offset(line, last.end_col_offset or 0)
        if not isinstance(last, CompoundStatement | Definition | ast.ClassDef | ast.Match):
            return Site(end, end, Form.END, line, certain=True)
        column = node.body[0].col_offset
        return Site(end, end, Form.END, line, certain=True, indent=self._source.lines[node.body[0].lineno - 1][:column])


def _origins_in(node: Definition) -> Iterator[tuple[str, ast.expr | Definition]]:
    """Name that is used once -> the origin of its value: the test, of a parameter; an assigned expression.

    An expectation perturbed at its origin is perturbed for code that reads the test's frame as well.
    """
    names = [name for name in ast.walk(node) if isinstance(name, ast.Name)]
    loads = Counter(name.id for name in names if isinstance(name.ctx, ast.Load))
    stores = Counter(name.id for name in names if not isinstance(name.ctx, ast.Load))
    for argument in node.args.args:
        if loads[argument.arg] == 1 and not stores[argument.arg]:
            yield argument.arg, node
    for statement in node.body:
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            name = statement.targets[0].id
            if len(statement.targets) == 1 and loads[name] == stores[name] == 1:
                yield name, statement.value


def assigned_in(module: ast.Module) -> dict[str, list[ast.expr]]:
    """Variable -> its values, for variables that only plain assignments bind."""
    assigned: dict[str, list[ast.expr]] = {}
    stores: Counter[str] = Counter()
    for node in ast.walk(module):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    assigned.setdefault(target.id, []).append(node.value)
        elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            stores[node.id] += 1
        elif isinstance(node, ast.arg):
            stores[node.arg] += 1
    return {name: values for name, values in assigned.items() if stores[name] == len(values)}


def _before_leaving(body: Sequence[ast.stmt]) -> Sequence[ast.stmt]:
    """The statements before the first one that may return."""
    for number, statement in enumerate(body):
        if any(isinstance(node, LEAVING) for node in (statement, *_own_nodes(statement))):
            return body[:number]
    return body


def _own_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes below a node, without those of functions and classes in it."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, Definition | ast.Lambda | ast.ClassDef):
            yield child
            yield from _own_nodes(child)


def _name_of_call(call: ast.Call) -> str:
    function = call.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _is_literal(node: ast.expr) -> bool:
    try:
        ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return False
    return True


def _survives_repr(value: Any) -> bool:
    """Can the value and its perturbed value be restored from their texts?"""
    try:
        return all(repr(ast.literal_eval(repr(one))) == repr(one) for one in (value, perturbed_value(value)))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
