"""The digest of a user's function or class: of what it says, and of what it uses of its file.

A reward can change tomorrow while its name stays. A training that goes on with another one would pay by both.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

LENGTH = 16
"""Hexadecimal digits."""


def source_digest(code: Callable[..., Any] | type) -> str:
    """The digest of its source, and of the functions, classes and constants of its file that it uses.

    Comments, layout, and all else in the file change nothing. Modules that the file imports are not read. Empty if the
    source is not in a file.
    """
    try:
        file = inspect.getsourcefile(code)
        statements = ast.parse(Path(file or "").read_bytes()).body
    except (TypeError, OSError, SyntaxError, ValueError):
        return ""
    used = _used(code.__qualname__.split(".")[0], statements)
    text = "\n".join(ast.dump(statement) for statement in used)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:LENGTH]


def _used(name: str, statements: list[ast.stmt]) -> list[ast.stmt]:
    """The statements of a module that bind a name or what these use, in turn."""
    bound = [set(_bound(statement)) for statement in statements]
    names, pending, used = {name}, [name], set[int]()
    while pending:
        wanted = pending.pop()
        for place, statement in enumerate(statements):
            if wanted in bound[place] and place not in used:
                used.add(place)
                new = {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)} - names
                names |= new
                pending += sorted(new)
    return [statements[place] for place in sorted(used)]


def _bound(statement: ast.stmt) -> Iterator[str]:
    """The names that a statement of a module may bind there."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield statement.name
        return
    for node in ast.walk(statement):
        match node:
            case ast.Name(ctx=ast.Store()):
                yield node.id
            case ast.FunctionDef() | ast.ClassDef():
                yield node.name
            case ast.alias():
                yield (node.asname or node.name).split(".")[0]
