"""Doctests inside the modules that a patch may edit: the examples that run are those of the base."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import NamedTuple

from regrade.datasets.syntax_trees import parse_or_none

_LINE_END = re.compile(rb"\r\n|\r|\n")
"""Of Python: a lone CR ends a line too."""
Owner = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


class _Docstring(NamedTuple):
    first: int
    """Offset of its first byte."""
    last: int
    """Offset behind its last byte."""
    text: bytes
    """Its source, with quotes."""
    examples: tuple[tuple[str, str, str | None], ...]
    """(source, expected output, expected exception) of each example."""


def with_pristine_docstrings(pristine: str, patched: str) -> str:
    """The patched text, where each docstring whose examples a patch changes has the text of the base.

    A docstring that the patch removes or moves to another name is not put back: its test is then missing. The text
    is unchanged if one of the two cannot be parsed.
    """
    old, new = _docstrings(pristine), _docstrings(patched)
    source = patched.encode("utf-8", "surrogateescape")
    for name in sorted(_edited(old, new), key=lambda name: -new[name].first):
        source = source[: new[name].first] + old[name].text + source[new[name].last :]
    return source.decode("utf-8", "surrogateescape")


def edited_examples(pristine: str, patched: str) -> list[str]:
    """Qualified names of the docstrings whose examples the patch changes; the name of the module itself is empty."""
    return sorted(_edited(_docstrings(pristine), _docstrings(patched)))


def _edited(old: dict[str, _Docstring], new: dict[str, _Docstring]) -> list[str]:
    names = old.keys() & new.keys()
    return [name for name in names if old[name].examples and old[name].examples != new[name].examples]


def _docstrings(text: str) -> dict[str, _Docstring]:
    """Qualified name -> docstring."""
    tree = parse_or_none(text)
    if tree is None:
        return {}
    source = text.encode("utf-8", "surrogateescape")
    starts = [0, *(end.end() for end in _LINE_END.finditer(source))]
    docstrings = {}
    for name, owner in _owners(tree, ""):
        first = owner.body[0] if owner.body else None
        if not isinstance(first, ast.Expr) or not isinstance(first.value, ast.Constant):
            continue
        value = first.value
        if not isinstance(value.value, str) or value.end_lineno is None or value.end_col_offset is None:
            continue
        begin, end = starts[value.lineno - 1] + value.col_offset, starts[value.end_lineno - 1] + value.end_col_offset
        docstrings[name] = _Docstring(begin, end, source[begin:end], _examples(value.value))
    return docstrings


def _examples(docstring: str) -> tuple[tuple[str, str, str | None], ...]:
    """The examples with their expectations; the whole docstring as one, if doctest cannot read it."""
    try:
        import doctest  # with unittest and the debugger behind it

        found = doctest.DocTestParser().get_examples(docstring)
    except ValueError:
        return ((docstring, "", None),)
    return tuple((example.source, example.want, example.exc_msg) for example in found)


def _owners(owner: Owner, name: str) -> Iterator[tuple[str, Owner]]:
    yield name, owner
    for child in ast.iter_child_nodes(owner):
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _owners(child, f"{name}.{child.name}" if name else child.name)
