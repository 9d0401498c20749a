"""How hard the changed functions are to read, before and after a patch.

Three measures of each function, whole with what is nested in it: cognitive complexity (complexipy), Halstead volume and
the maintainability index (radon). Comments count in none of them: neither do `complexipy: ignore` and its like hide
anything, nor do comments raise the index.
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
from regrade.evaluators.static.syntax import parse
from regrade.rewards.evidence import FunctionReadability, Readability, ReadabilityDelta

REST = "<module>"
"""Stands for the statements of a module outside its functions."""
Pieces = Mapping[str, tuple[tuple[str, ast.AST], ...]]
"""Qualified name -> lines and syntax tree of the function; several where it is defined several times."""


def probe(before: Tree, after: Tree, patch: Patch, task: Task) -> ReadabilityDelta:
    """The measures of every function whose code the patch changed.

    Raises:
        PatchError: the text is no patch.
    """
    files = [file for file in changed_files(before, after, patch, task) if file.is_python]
    changed: list[FunctionReadability] = []
    unparsable: list[str] = []
    for file in files:
        found = _changed(file)
        if found is None:
            unparsable.append(file.path)
        else:
            changed.extend(found)
    return ReadabilityDelta(tuple(changed), tuple(unparsable), tuple(file.path for file in files))


def _changed(file: ChangedFile) -> list[FunctionReadability] | None:
    """The functions of one file that changed; None where it can be read no longer."""
    was = _pieces(file.before) if file.before is not None else {}
    now = _pieces(file.after) if file.after is not None else {}
    if now is None:
        return None if was is not None else []  # one that never could be read is no fault of the patch
    was = was or {}
    names = [name for name in sorted(was.keys() | now.keys()) if _lines(was, name) != _lines(now, name)]
    try:
        measured = [FunctionReadability(file.path, name, _measures(was, name), _measures(now, name)) for name in names]
    except (RecursionError, MemoryError, ValueError):
        return None
    return [function for function in measured if function.before != function.after]


def _lines(pieces: Pieces, name: str) -> list[str]:
    return [lines for lines, _ in pieces.get(name, ())]


def _measures(pieces: Pieces, name: str) -> Readability | None:
    if name not in pieces:
        return None
    each = [measure(ast.unparse(node)) for _, node in pieces[name]]
    return Readability(
        sum(found.cognitive for found in each),
        round(sum(found.volume for found in each), 1),
        min(found.maintainability for found in each),
    )


@lru_cache(maxsize=2048)
def measure(source: str) -> Readability:
    """The measures of one function, or of loose statements.

    Sources: cognitive complexity, Campbell, "Cognitive Complexity" (SonarSource 2018); volume, Halstead, "Elements of
    Software Science" (1977); maintainability, Oman and Hagemeister (1992) as radon scales it to 0-100, its term for
    comments left out.
    """
    tree = parse_tree(source)
    volume = halstead_visitor_report(HalsteadVisitor.from_ast(tree)).volume
    statements = sum(isinstance(node, ast.stmt) for node in ast.walk(tree))
    index = mi_compute(volume, ComplexityVisitor.from_ast(tree).total_complexity, statements, 0)
    cognitive = sum(each.complexity for each in code_complexity(source, check_script=True).functions)
    return Readability(cognitive, round(volume, 1), round(index, 1))


@lru_cache(maxsize=512)
def _pieces(text: str) -> Pieces | None:
    """None where the text does not parse or is too large to read."""
    tree = parse(text) if len(text) <= LARGEST else None
    if tree is None:
        return None
    lines = text.splitlines()
    found: defaultdict[str, list[tuple[str, ast.AST]]] = defaultdict(list)
    loose: list[ast.stmt] = []
    for name, node in _functions(tree.body, "", loose):
        found[name].append((_source(node, lines), node))
    if loose:
        found[REST].append(("\n".join(_source(node, lines) for node in loose), ast.Module(loose, [])))
    return {name: tuple(pieces) for name, pieces in found.items()}


def _functions(body: list[ast.stmt], prefix: str, loose: list[ast.stmt]) -> Iterator[tuple[str, ast.stmt]]:
    """(qualified name, definition) of functions and methods; what is neither they nor a docstring goes to `loose`."""
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
