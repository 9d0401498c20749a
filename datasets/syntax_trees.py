"""Thread-safe parsing of Python source."""

from __future__ import annotations

import ast
import threading

_PARSER_LOCK = threading.RLock()
ATTEMPTS = 10
PARSE_ERRORS = (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError)
"""Exceptions of CPython for a source that it cannot parse or compile."""


def parse_tree(source: str | bytes, path: str = "<unknown>") -> ast.Module:
    """As `ast.parse`, in one thread at a time.

    CPython 3.11 and 3.12 count the depth of trees in one counter for all threads, and raise SystemError if two threads
    parse at once ("AST constructor recursion depth mismatch", python/cpython#106905). Threads of other libraries do not
    use the lock, so a SystemError is also retried.

    Raises:
        PARSE_ERRORS: as `ast.parse`.
    """
    with _PARSER_LOCK:
        for _ in range(ATTEMPTS - 1):
            try:
                return ast.parse(source, path)
            except SystemError:
                continue
        return ast.parse(source, path)


def parse_or_none(source: str | bytes, path: str = "<unknown>") -> ast.Module | None:
    """As `parse_tree`; None if the source does not parse, for any reason."""
    try:
        return parse_tree(source, path)
    except PARSE_ERRORS:
        return None
