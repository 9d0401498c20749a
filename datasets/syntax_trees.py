"""Python source as a syntax tree, in programs with several threads."""

from __future__ import annotations

import ast
import threading

_ONE_AT_A_TIME = threading.RLock()
ATTEMPTS = 10
PARSE_ERRORS = (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError)
"""What CPython raises for a source that it does not parse or compile."""


def parse_tree(source: str | bytes, path: str = "<unknown>") -> ast.Module:
    """As `ast.parse`, by one thread at a time.

    CPython 3.11 and 3.12 count how deep a tree is in one place for all threads, and where two make a tree at once, they
    raise SystemError ("AST constructor recursion depth mismatch", python/cpython#106905). Threads of others parse when
    they like, so that error is tried again as well.

    Raises:
        PARSE_ERRORS: as `ast.parse`.
    """
    with _ONE_AT_A_TIME:
        for _ in range(ATTEMPTS - 1):
            try:
                return ast.parse(source, path)
            except SystemError:
                continue
        return ast.parse(source, path)


def parse_or_none(source: str | bytes, path: str = "<unknown>") -> ast.Module | None:
    """As `parse_tree`; None where the source does not parse, whatever the reason."""
    try:
        return parse_tree(source, path)
    except PARSE_ERRORS:
        return None
