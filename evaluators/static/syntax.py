"""Parsing and compiling of Python source in this process, without running it."""

from __future__ import annotations

import ast
import re
import threading
import warnings
from collections.abc import Callable
from functools import lru_cache, partial
from typing import TypeVar

from regrade.datasets.syntax_trees import PARSE_ERRORS, parse_tree

T = TypeVar("T")
_LINE_END = re.compile(r"\r\n|\r|\n")
_FILTERS = threading.Lock()  # warning filters are global to the process


@lru_cache(maxsize=512)
def compile_error(text: str, path: str) -> str | None:
    """The error of byte-compiling the text, as `FILE:LINE: reason`; None if it compiles."""
    try:
        _quietly(text, partial(compile, mode="exec", dont_inherit=True), path)
    except SyntaxError as error:
        return f"{path}:{error.lineno or 1}: {type(error).__name__}: {error.msg}"
    except PARSE_ERRORS as error:
        return f"{path}:1: {type(error).__name__}: {error}"
    return None


def parse(text: str, path: str = "<file>") -> ast.Module | None:
    """The syntax tree; None if the text does not parse, for any reason."""
    try:
        return _quietly(text, parse_tree, path)
    except PARSE_ERRORS:  # `encode` raises one of them too
        return None


@lru_cache(maxsize=512)
def parses(text: str) -> bool:
    """Does the text parse?"""
    return parse(text) is not None


def python_lines(text: str) -> list[str]:
    """The lines that Python and ruff count: a form feed, for example, ends none."""
    return _LINE_END.split(text)


def _quietly(text: str, parser: Callable[[bytes, str], T], path: str) -> T:
    source = text.encode("utf-8", "surrogateescape")  # bytes, so that CPython obeys a coding cookie
    with _FILTERS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return parser(source, path)
