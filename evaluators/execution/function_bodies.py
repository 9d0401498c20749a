"""Outline of a Python file: the bodies of its functions, and a frame with everything else.

Parsing a file of some thousand lines takes longer than many tests. So if a text differs from a parsed one in the body
of a single function, only that function is parsed.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from regrade.datasets.syntax_trees import PARSE_ERRORS, parse_tree

CHECKED = "<checked>"
warnings.filterwarnings("ignore", module=re.escape(CHECKED))  # of other people's code
Definition = ast.FunctionDef | ast.AsyncFunctionDef


class FunctionSpan(NamedTuple):
    """Lines of an outermost function, counted from 0."""

    name: str
    """Qualified."""
    number: int
    """Index among the functions of the same name, such as the parts of a property."""
    documented: int
    """1 if it has a docstring, else 0."""
    definition: int
    """The line of its `def`."""
    start: int
    """The first line of its body after a docstring."""
    end: int
    """The line after its last."""


class Outline(NamedTuple):
    """The frame and the function bodies of a file."""

    frame: str
    """Everything except function bodies; includes signatures, defaults, decorators and docstrings."""
    bodies: dict[str, tuple[str, ...]]
    """Qualified name -> body of each outermost function of that name (a property has several)."""
    lines: tuple[str, ...] = ()
    spans: tuple[FunctionSpan, ...] = ()
    """The functions in the order of the file; empty in an outline of syntax."""

    def differing(self, after: Outline) -> set[str] | None:
        """Names of the functions whose bodies differ; None: other code differs too."""
        if self.frame != after.frame or self.bodies.keys() != after.bodies.keys():
            return None
        return {name for name, body in after.bodies.items() if self.bodies[name] != body}

    def edited(self, source: str) -> Outline | None:
        """The outline of a text that differs from this one in one body; None: it may differ in more."""
        lines = tuple(source.split("\n"))
        first, last = _span_of_difference(self.lines, lines)
        added = len(lines) - len(self.lines)
        around = (index for index, span in enumerate(self.spans) if span.start <= first and last <= span.end)
        index = next(around, None)
        if index is None:
            return None
        span = self.spans[index]
        if "\r" in source or not _is_one_function(lines[span.definition : span.end + added], span):
            return None
        bodies = list(self.bodies[span.name])
        bodies[span.number] = "\n".join(lines[span.start : span.end + added])
        moved = [
            later._replace(definition=later.definition + added, start=later.start + added, end=later.end + added)
            for later in self.spans[index + 1 :]
        ]
        spans = (*self.spans[:index], span._replace(end=span.end + added), *moved)
        return Outline(self.frame, {**self.bodies, span.name: tuple(bodies)}, lines, spans)


def _span_of_difference(old: tuple[str, ...], new: tuple[str, ...]) -> tuple[int, int]:
    """The first line that differs, and the line after the last one, in the old text."""
    shorter = min(len(old), len(new))
    first = next((line for line in range(shorter) if old[line] != new[line]), shorter)
    last = next((line for line in range(1, shorter - first + 1) if old[-line] != new[-line]), shorter - first + 1)
    return first, len(old) - last + 1


def _is_one_function(lines: tuple[str, ...], span: FunctionSpan) -> bool:
    """Are these lines alone a function of that name, whose body has exactly the expected lines?

    If so, the meaning of the lines around them is unchanged: no bracket or string stays open at the end, and no line is
    indented less than the definition.
    """
    indented = lines[0][:1].isspace()
    module = _parsed("\n".join((*(["if True:"] if indented else []), *lines, "")))
    if module is None:
        return False
    statements = module.body
    if indented:
        (block,) = statements if len(statements) == 1 else (None,)
        if not isinstance(block, ast.If) or block.orelse:
            return False
        statements = block.body
    function = statements[0]
    if len(statements) != 1 or not isinstance(function, Definition) or function.name != span.name.split(".")[-1]:
        return False
    body = function.body[documented(function) :]
    if documented(function) != span.documented or not body:
        return False
    start, end = body[0].lineno - 1 - indented, (body[-1].end_lineno or 0) - indented
    return (start, end) == (span.start - span.definition, len(lines))


def outline_of_edit(source: str, other: Outline | None) -> Outline | None:
    """As `text_outline`; faster if the text differs from `other` in a single body."""
    edited = other.edited(source) if other is not None else None
    return edited or text_outline(source)


@lru_cache(maxsize=64)
def text_outline(source: str) -> Outline | None:
    """The file's outline as text; None: it is not Python, or two functions share a line."""
    module = None if "\r" in source else _parsed(source)
    if module is None:
        return None
    lines = source.split("\n")
    frame: list[str] = []
    bodies: dict[str, tuple[str, ...]] = {}
    spans: list[FunctionSpan] = []
    framed_to = 0
    for name, function in sorted(_outermost(module, ""), key=lambda pair: pair[1].lineno):
        statements = function.body[documented(function) :]
        first, last = function.body[0].lineno, function.body[-1].end_lineno or 0
        if first <= framed_to:
            return None
        if not statements or _shares_a_line(function, statements[0], lines):
            continue  # no lines of its own (an overload): it stays in the frame
        start = statements[0].lineno - 1
        frame += lines[framed_to:start]
        frame.append(f"\0{name}")  # marks the removed body: moving it to another function changes the frame
        spans.append(
            FunctionSpan(name, len(bodies.get(name, ())), documented(function), function.lineno - 1, start, last)
        )
        bodies[name] = (*bodies.get(name, ()), "\n".join(lines[start:last]))
        framed_to = last
    return Outline("\n".join((*frame, *lines[framed_to:])), bodies, tuple(lines), tuple(spans))


@lru_cache(maxsize=128)
def syntax_outline(source: str) -> Outline | None:
    """The file's outline as syntax, without positions and comments; None: it is not Python."""
    module = _parsed(source)
    if module is None:
        return None
    bodies: dict[str, tuple[str, ...]] = {}
    try:
        for name, function in _outermost(module, ""):
            start = documented(function)
            body = ast.dump(ast.Module(function.body[start:], []))
            bodies[name] = (*bodies.get(name, ()), body)
            function.body = function.body[:start]
        return Outline(ast.dump(module), bodies)
    except RecursionError:
        return None


def _shares_a_line(function: Definition, first: ast.stmt, lines: list[str]) -> bool:
    """Does the body begin on the line of the signature, or of the docstring?"""
    head = function.body[0]
    on_signature = bool(lines[head.lineno - 1][: head.col_offset].strip())
    return on_signature or (first is not head and first.lineno == head.end_lineno)


def documented(function: Definition) -> int:
    """1 if the function's body begins with a docstring, else 0."""
    return int(ast.get_docstring(function, clean=False) is not None)


def _parsed(source: str) -> ast.Module | None:
    try:
        compile(source, CHECKED, "exec", dont_inherit=True)  # parsing accepts a `break` outside a loop
        return parse_tree(source)
    except PARSE_ERRORS:
        return None


def _outermost(node: ast.AST, prefix: str) -> Iterator[tuple[str, Definition]]:
    """Qualified name and definition of each outermost function."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Definition):
            yield prefix + child.name, child
        elif isinstance(child, ast.ClassDef):
            yield from _outermost(child, f"{prefix}{child.name}.")
        else:
            yield from _outermost(child, prefix)
