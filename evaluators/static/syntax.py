"""Python source as CPython reads it: parsed and compiled in this process, never run."""

from __future__ import annotations

import ast
import threading
import warnings
from collections.abc import Callable
from functools import lru_cache, partial
from typing import TypeVar

from regrade.datasets.syntax_trees import PARSE_ERRORS, parse_tree

T = TypeVar("T")
_FILTERS = threading.Lock()  # the warning filters belong to the whole process


@lru_cache(maxsize=512)
def compile_error(text: str, path: str) -> str | None:
    """Why the text does not byte-compile, as `FILE:LINE: reason`; None where it does."""
    try:
        _quietly(text, partial(compile, mode="exec", dont_inherit=True), path)
    except SyntaxError as error:
        return f"{path}:{error.lineno or 1}: {type(error).__name__}: {error.msg}"
    except PARSE_ERRORS as error:
        return f"{path}:1: {type(error).__name__}: {error}"
    return None


def parse(text: str, path: str = "<file>") -> ast.Module | None:
    """The syntax tree; None where the text does not parse (whatever the reason)."""
    try:
        return _quietly(text, parse_tree, path)
    except PARSE_ERRORS:  # also of `encode`
        return None


@lru_cache(maxsize=512)
def parses(text: str) -> bool:
    """Does the text parse?"""
    return parse(text) is not None


def _quietly(text: str, read: Callable[[bytes, str], T], path: str) -> T:
    source = text.encode("utf-8", "surrogateescape")  # bytes, so that a coding cookie is heeded
    with _FILTERS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return read(source, path)
