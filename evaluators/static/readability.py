"""The readability of the changed functions, before and after a patch.

Each function, with its nested functions, has three measures: cognitive complexity (complexipy), Halstead volume and the
maintainability index (radon). Comments affect none of them: `complexipy: ignore` hides nothing, and comments do not
raise the index.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import lru_cache

from complexipy import code_complexity
from radon.metrics import halstead_visitor_report, mi_compute
from radon.visitors import ComplexityVisitor, HalsteadVisitor

from regrade.datasets.patches import Patch
from regrade.datasets.syntax_trees import parse_tree
from regrade.datasets.tasks import Task, Tree
from regrade.evaluators.static.files import LARGEST, ChangedFile, changed_files
from regrade.evaluators.static.syntax import parse, python_lines
from regrade.rewards.evidence import FunctionReadability, Readability, ReadabilityDelta

MODULE_CODE = "<module>"
"""Name of a module's statements outside its functions."""
Pieces = Mapping[str, tuple[tuple[str, ast.AST], ...]]
"""Qualified name -> source lines and syntax tree of each definition of the function."""


def probe(before: Tree, after: Tree, patch: Patch, task: Task) -> ReadabilityDelta:  # noqa: ARG001 (every probe has this signature)
    """The measures of every function whose code the patch changed."""
    files = [file for file in changed_files(before, after, task) if file.is_python]
    functions: list[FunctionReadability] = []
    unparsable: list[str] = []
    for file in files:
        changed = _changed(file)
        if changed is None:
            unparsable.append(file.path)
        else:
            functions.extend(changed)
    return ReadabilityDelta(tuple(functions), tuple(unparsable), tuple(file.path for file in files))


def _changed(file: ChangedFile) -> list[FunctionReadability] | None:
    """The changed functions of one file; None if the patch makes it unreadable."""
    old = _pieces(file.before) if file.before is not None else {}
    new = _pieces(file.after) if file.after is not None else {}
    if new is None:
        return None if old is not None else []  # the patch is not to blame for a file that old unreadable before
    old = old or {}
    names = [name for name in sorted(old.keys() | new.keys()) if _lines(old, name) != _lines(new, name)]
    try:
        measured = [FunctionReadability(file.path, name, _measures(old, name), _measures(new, name)) for name in names]
    except (RecursionError, MemoryError, ValueError):
        return None
    return [function for function in measured if function.before != function.after]


def _lines(pieces: Pieces, name: str) -> list[str]:
    return [lines for lines, _ in pieces.get(name, ())]


def _measures(pieces: Pieces, name: str) -> Readability | None:
    if name not in pieces:
        return None
    definitions = [measure(ast.unparse(node)) for _, node in pieces[name]]
    return Readability(
        sum(definition.cognitive for definition in definitions),
        round(sum(definition.volume for definition in definitions), 1),
        min(definition.maintainability for definition in definitions),
    )


@lru_cache(maxsize=2048)
def measure(source: str) -> Readability:
    """The measures of one function, or of statements outside functions.

    Sources: cognitive complexity, Campbell, "Cognitive Complexity" (SonarSource 2018); volume, Halstead, "Elements of
    Software Science" (1977); maintainability, Oman and Hagemeister (1992), as radon scales it to 0-100, without its
    term for comments.
    """
    tree = parse_tree(source)
    volume = halstead_visitor_report(HalsteadVisitor.from_ast(tree)).volume
    statements = sum(isinstance(node, ast.stmt) for node in ast.walk(tree))
    index = mi_compute(volume, ComplexityVisitor.from_ast(tree).total_complexity, statements, 0)
    cognitive = sum(function.complexity for function in code_complexity(source, check_script=True).functions)
    return Readability(cognitive, round(volume, 1), round(index, 1))


@lru_cache(maxsize=512)
def _pieces(text: str) -> Pieces | None:
    """None if the text does not parse or is longer than LARGEST."""
    tree = parse(text) if len(text) <= LARGEST else None
    if tree is None:
        return None
    lines = python_lines(text)
    pieces: defaultdict[str, list[tuple[str, ast.AST]]] = defaultdict(list)
    loose: list[ast.stmt] = []
    for name, node in _functions(tree.body, "", loose):
        pieces[name].append((_source(node, lines), node))
    if loose:
        pieces[MODULE_CODE].append(("\n".join(_source(node, lines) for node in loose), ast.Module(loose, [])))
    return {name: tuple(definitions) for name, definitions in pieces.items()}


def _functions(body: list[ast.stmt], prefix: str, loose: list[ast.stmt]) -> Iterator[tuple[str, ast.stmt]]:
    """(qualified name, definition) of functions and methods; adds other statements, less docstrings, to `loose`."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if len(node.body) > 1 and _is_text(node.body[0]):
                del node.body[0]
            yield f"{prefix}{node.name}", node
        elif isinstance(node, ast.ClassDef):
            yield from _functions(node.body, f"{prefix}{node.name}.", loose)
        elif not _is_text(node):
            loose.append(node)


def _source(node: ast.stmt, lines: list[str]) -> str:
    return "\n".join(lines[node.lineno - 1 : node.end_lineno])


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
