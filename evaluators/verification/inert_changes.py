"""Changes of a patch that reach no code but its own: documents, docstrings, and names that the base does not know.

Such a change makes no test of the base's code run otherwise, so it needs no confirmation.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from regrade.datasets.syntax_trees import parse_or_none
from regrade.datasets.tasks import Task, Tree
from regrade.evaluators.execution.native_code import EXTENSIONS, NATIVE

EXECUTABLE = frozenset({*EXTENSIONS, ".dll", ".dylib", ".egg", ".pth", ".pyc", ".pyo", ".pyw", ".whl", ".zip"})
"""Suffixes of files that Python may execute without a mention."""
BUILD_FILES = ("setup.py", "setup.cfg", "pyproject.toml", "CMakeLists.txt", "meson.build", "Makefile", "MANIFEST.in")
SCRIPTS = ("setup.py", "noxfile.py", "docs/", "doc/")
"""Python files that no test imports, and that name documents."""
LISTING = re.compile(r"\b(?:listdir|iterdir|scandir|r?i?glob|walk|files)\s*\(")
"""Calls that find files without their names."""
MOST_FILES = 2000
METADATA = frozenset({"__all__", "__author__", "__version__"})
Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def is_inert_file(task: Task, base: Tree, path: str) -> bool:
    """Does no code of the base read this file, which is no Python file, or find it by its kind or its folder?"""
    name = PurePosixPath(path)
    if name.suffix.lower() in EXECUTABLE:
        return False
    if path.endswith(NATIVE) and (base.read_or_none(path) is not None or _mentions(base, BUILD_FILES, name)):
        return False
    code = [each for each in base.paths() if each.endswith(".py") and not each.startswith(SCRIPTS)]
    if len(code) > MOST_FILES or _mentions(base, code, name):
        return False
    top = path.partition("/")[0]
    beside = [each for each in code if "/" in path and each.startswith(f"{top}/") and not task.suite.protects(each)]
    return not beside or not any(LISTING.search(base.read_or_none(each) or "") for each in code)


def _mentions(base: Tree, files: list[str] | tuple[str, ...], name: PurePosixPath) -> bool:
    """Does a text in the files (of a Python file: one that is no docstring) contain the name or end like it?"""
    # A name without a suffix, such as `.editorconfig`, is its own kind.
    marks = {name.name, name.suffix or name.name}
    for file in files:
        text = base.read_or_none(file) or ""
        if not any(mark in text for mark in marks):
            continue
        tree = parse_or_none(text) if file.endswith(".py") else None
        if tree is None:
            return True
        if any(name.name in found or found.endswith(tuple(marks)) for found in _texts(without_docstrings(tree))):
            return True
    return False


def _texts(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def without_docstrings(tree: ast.Module) -> ast.Module:
    """The tree, changed: without docstrings, if nothing in it reads one."""
    if any("__doc__" in (getattr(node, "attr", ""), getattr(node, "id", "")) for node in ast.walk(tree)):
        return tree
    for node in ast.walk(tree):
        if isinstance(node, Documented) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return tree


def without_annotations(tree: ast.Module) -> ast.Module:
    """The tree, changed: without the annotations of the values that a module sets."""
    tree.body = [
        ast.Assign([statement.target], statement.value)
        if isinstance(statement, ast.AnnAssign) and statement.simple and statement.value is not None
        else statement
        for statement in tree.body
    ]
    return tree


def is_new_name(statement: ast.stmt, scope: ast.Module | ast.ClassDef, known: frozenset[str]) -> bool:
    """Does a statement only bind names that the base's file does not contain, or metadata?

    In a class with bases, such a name may hide an inherited one; with an annotation, it may be a field.
    """
    in_class = isinstance(scope, ast.ClassDef)
    if isinstance(statement, ast.Assign):
        targets = statement.targets
    elif isinstance(statement, ast.AnnAssign) and not in_class:
        targets = [statement.target]
    else:
        return False
    if isinstance(scope, ast.ClassDef) and (scope.bases or scope.keywords):
        return False
    return all(
        isinstance(target, ast.Name)
        and ((target.id not in known and not target.id.startswith("__")) or (target.id in METADATA and not in_class))
        for target in targets
    )


def names_in(tree: ast.Module) -> frozenset[str]:
    """All identifiers of a module."""
    found = set()
    for node in ast.walk(tree):
        found |= {
            value
            for value in (getattr(node, field, None) for field in ("id", "attr", "name", "arg", "asname"))
            if isinstance(value, str)
        }
    return frozenset(found)
