"""Python source as CPython reads it: parsed and compiled in this process, never run."""

from __future__ import annotations

import ast
import threading
import warnings
from functools import lru_cache

_FILTERS = threading.Lock()  # the warning filters belong to the whole process


@lru_cache(maxsize=512)
def compile_error(text: str, path: str) -> str | None:
    """Why the text does not byte-compile, as `FILE:LINE: reason`; None where it does."""
    try:
        _quietly(text, path, flags=0)
    except SyntaxError as error:
        return f"{path}:{error.lineno or 1}: {type(error).__name__}: {error.msg}"
    except (ValueError, RecursionError, MemoryError, OverflowError) as error:
        return f"{path}:1: {type(error).__name__}: {error}"
    return None


def parse(text: str, path: str = "<file>") -> ast.Module | None:
    """The syntax tree; None where the text does not parse (whatever the reason)."""
    try:
        tree = _quietly(text, path, flags=ast.PyCF_ONLY_AST)
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError):
        return None
    assert isinstance(tree, ast.Module)
    return tree


@lru_cache(maxsize=512)
def parses(text: str) -> bool:
    """Does the text parse?"""
    return parse(text) is not None


def _quietly(text: str, path: str, flags: int) -> object:
    source = text.encode("utf-8", "surrogateescape")  # bytes, so that a coding cookie is heeded
    with _FILTERS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return compile(source, path, "exec", flags=flags, dont_inherit=True)
