"""Cyclomatic complexity before and after a patch, with nothing hidden: by radon, and by lizard where that can't read.

radon keeps closures, inner classes and class bodies apart from the functions around them, and its command line heeds
`exclude` in setup.cfg. Here every function, closure, class body and module body of the changed files is counted, so
that moving branches from one into another shows.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from lizard import analyze_file
from radon.visitors import ComplexityVisitor

from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Task, Tree
from regrade.evaluators.static.dependencies.facts import facts
from regrade.evaluators.static.files import LARGEST, ChangedFile, changed_files
from regrade.evaluators.static.languages import Language, language_of
from regrade.evaluators.static.syntax import parse
from regrade.rewards.evidence import ComplexityDelta, FunctionComplexity


def probe(before: Tree, after: Tree, patch: Patch, task: Task) -> ComplexityDelta:
    """The complexity of every function whose complexity the patch changed.

    Sums and maxima are over these functions, so that one that is complex already hides nothing.

    Raises:
        PatchError: the text is no patch.
    """
    files = [file for file in changed_files(before, after, patch, task) if file.language is not None]
    unparsable = tuple(file.path for file in files if _breaks(file))
    changed = [function for file in files if file.path not in unparsable for function in _changed(file)]
    old = [function.before for function in changed if function.before is not None]
    new = [function.after for function in changed if function.after is not None]
    return ComplexityDelta(
        functions=tuple(changed),
        sum_before=sum(old),
        sum_after=sum(new),
        max_before=max(old, default=0),
        max_after=max(new, default=0),
        unparsable=unparsable,
        files=tuple(file.path for file in files),
    )


RUN_TEXT = frozenset({"exec", "eval", "compile"})


@lru_cache(maxsize=512)
def complexities(text: str) -> Mapping[str, int] | None:
    """Qualified name -> cyclomatic complexity; None where the text does not parse or is too large to read.

    Functions of one name (overloads, a property and its setter) are added up. `<module>` and `Class.<body>` stand for
    the branches outside functions, and are there only where there are any.
    """
    tree = parse(text) if len(text) <= LARGEST else None
    if tree is None:
        return None
    found: Counter[str] = Counter()
    try:
        visitor = ComplexityVisitor()
        visitor.visit(tree)
        bodies = [("<module>", visitor.complexity - 1)]
        for name, value in (*bodies, *_functions(visitor.functions, ""), *_classes(visitor.classes, "")):
            found[name] += value
        found["<text that is run>"] += _in_texts(tree)
        for prefix, node in _classes_in_functions(tree):
            inner = ComplexityVisitor()
            inner.visit(node)
            found.update(dict(_classes(inner.classes, prefix)))
    except RecursionError:
        return None
    return MappingProxyType({name: value for name, value in found.items() if value})


@lru_cache(maxsize=512)
def _of_other_languages(text: str, path: str, language: Language) -> Mapping[str, int] | None:
    """The same for what is no Python, by lizard. (It guesses at what it cannot parse; tree-sitter says where.)"""
    if len(text) > LARGEST or not facts(text, language).is_sound:
        return None
    found: Counter[str] = Counter()
    for function in analyze_file.analyze_source_code(path, text).function_list:
        found[function.name] += function.cyclomatic_complexity
    return MappingProxyType(dict(found))


def _read(text: str, path: str) -> Mapping[str, int] | None:
    language = language_of(path)
    if language is None:
        return {}
    return complexities(text) if path.endswith(".py") else _of_other_languages(text, path, language)


def _in_texts(tree: ast.AST) -> int:
    """The complexity of the texts that hold branches, in a file that runs text: they hide nothing there."""
    if not any(_runs_text(node) for node in ast.walk(tree)):
        return 0
    count = 0
    for node in ast.walk(tree):
        text = node.value if isinstance(node, ast.Constant) else None
        inner = parse(text) if isinstance(text, str) and len(text) <= LARGEST else None
        if inner is not None:
            visitor = ComplexityVisitor()
            visitor.visit(inner)
            own = visitor.complexity - 1
            count += own + sum(each.complexity for each in (*visitor.functions, *visitor.classes))
    return count


def _runs_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in RUN_TEXT


def _classes_in_functions(tree: ast.AST) -> Iterator[tuple[str, ast.ClassDef]]:
    """(prefix of its name, class) of those that stand inside functions, which radon passes over."""
    waiting: list[tuple[ast.AST, str, bool]] = [(tree, "", False)]
    while waiting:
        node, prefix, in_function = waiting.pop()
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                waiting.append((child, f"{prefix}{child.name}.", True))
            elif isinstance(child, ast.ClassDef):
                if in_function:
                    yield prefix, child
                waiting.append((child, f"{prefix}{child.name}.", False))
            else:
                waiting.append((child, prefix, in_function))


def _functions(functions: list[Any], prefix: str) -> Iterator[tuple[str, int]]:
    for function in functions:
        name = f"{prefix}{function.name}"
        yield name, function.complexity
        yield from _functions(function.closures, f"{name}.")


def _classes(classes: list[Any], prefix: str) -> Iterator[tuple[str, int]]:
    for each in classes:
        name = f"{prefix}{each.name}"
        yield f"{name}.<body>", each.real_complexity - 1 - sum(method.complexity for method in each.methods)
        yield from _functions(each.methods, f"{name}.")
        yield from _classes(each.inner_classes, f"{name}.")


def _breaks(file: ChangedFile) -> bool:
    """Does the file parse no longer? (One that never did is no fault of the patch.)"""
    was_sound = file.before is None or _read(file.before, file.old_path) is not None
    return file.after is not None and was_sound and _read(file.after, file.path) is None


def _changed(file: ChangedFile) -> Iterator[FunctionComplexity]:
    was = (_read(file.before, file.old_path) if file.before is not None else None) or {}
    now = (_read(file.after, file.path) if file.after is not None else None) or {}
    for name in sorted(was.keys() | now.keys()):
        if was.get(name) != now.get(name):
            yield FunctionComplexity(file.path, name, was.get(name), now.get(name))
