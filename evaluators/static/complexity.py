"""Cyclomatic complexity of the changed files, before and after a patch: radon for Python, lizard for other languages.

radon reports closures, inner classes and class bodies separately from the functions around them, and its command line
obeys `exclude` in setup.cfg. This probe counts every function, closure, class body and module body of the changed
files, so that branches cannot move out of sight.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
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
from regrade.evaluators.static.reference import of_reference
from regrade.evaluators.static.syntax import parse
from regrade.rewards.evidence import ComplexityDelta, FunctionComplexity


def probe(before: Tree, after: Tree, patch: Patch, task: Task) -> ComplexityDelta:  # noqa: ARG001 (every probe has this signature)
    """The functions whose complexity the patch changed.

    Sums and maxima cover these functions alone, so that a function that was complex before cannot hide a rise.
    """
    delta = replace(_measure(before, after, task), target=_target(before, after, task))
    reference = of_reference(_measure, before, task)
    if reference is None or reference.unparsable:
        return delta
    return replace(delta, reference_growth=reference.growth)


def _measure(before: Tree, after: Tree, task: Task) -> ComplexityDelta:
    files = [file for file in changed_files(before, after, task) if file.language is not None]
    unparsable = tuple(file.path for file in files if file.becomes_unsound(_is_sound))
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


def _target(before: Tree, after: Tree, task: Task) -> FunctionComplexity | None:
    """The complexity of the task's own function at both states."""
    if task.target is None:
        return None
    file, function = task.target.file, task.target.function
    old, new = (function_complexity(tree.read_or_none(file) or "", file, function) for tree in (before, after))
    return None if old is None else FunctionComplexity(file, function, old, new)


def function_complexity(text: str, path: str, function: str) -> int | None:
    """The cyclomatic complexity of one function of a file; None: there is no such function, or it can't be measured."""
    return (_file_complexities(text, path) or {}).get(function)


EXECUTING_BUILTINS = frozenset({"exec", "eval", "compile"})


@lru_cache(maxsize=512)
def complexities(text: str) -> Mapping[str, int] | None:
    """Qualified name -> cyclomatic complexity of Python; None if the text does not parse or is longer than LARGEST.

    Functions of one name (overloads, a property and its setter) are summed. `<module>` and `Class.<body>` count the
    branches outside functions, and are absent if there are none.
    """
    tree = parse(text) if len(text) <= LARGEST else None
    if tree is None:
        return None
    totals: Counter[str] = Counter()
    try:
        visitor = ComplexityVisitor()
        visitor.visit(tree)
        bodies = [("<module>", visitor.complexity - 1)]
        for name, value in (*bodies, *_functions(visitor.functions, ""), *_classes(visitor.classes, "")):
            totals[name] += value
        totals["<text that is run>"] += _in_strings(tree)
        for prefix, node in _classes_in_functions(tree):
            inner = ComplexityVisitor()
            inner.visit(node)
            totals.update(dict(_classes(inner.classes, prefix)))
    except RecursionError:
        return None
    return MappingProxyType({name: value for name, value in totals.items() if value})


@lru_cache(maxsize=512)
def _lizard_complexities(text: str, path: str, language: Language) -> Mapping[str, int] | None:
    """The same for other languages, by lizard. (lizard guesses at code that does not parse, so tree-sitter checks.)"""
    if len(text) > LARGEST or not facts(text, language).is_sound:
        return None
    totals: Counter[str] = Counter()
    for function in analyze_file.analyze_source_code(path, text).function_list:
        totals[function.name] += function.cyclomatic_complexity
    return MappingProxyType(dict(totals))


def _file_complexities(text: str, path: str) -> Mapping[str, int] | None:
    language = language_of(path)
    if language is None:
        return {}
    return complexities(text) if path.endswith(".py") else _lizard_complexities(text, path, language)


def _in_strings(tree: ast.AST) -> int:
    """The complexity of the string constants that parse as code, in a file that executes strings; 0 in other files."""
    if not any(_executes_string(node) for node in ast.walk(tree)):
        return 0
    total = 0
    for node in ast.walk(tree):
        text = node.value if isinstance(node, ast.Constant) else None
        inner = parse(text) if isinstance(text, str) and len(text) <= LARGEST else None
        if inner is not None:
            visitor = ComplexityVisitor()
            visitor.visit(inner)
            total += visitor.complexity - 1
            total += sum(block.complexity for block in (*visitor.functions, *visitor.classes))
    return total


def _executes_string(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in EXECUTING_BUILTINS


def _classes_in_functions(tree: ast.AST) -> Iterator[tuple[str, ast.ClassDef]]:
    """(prefix of its name, class) of the classes inside functions, which radon skips."""
    pending: list[tuple[ast.AST, str, bool]] = [(tree, "", False)]
    while pending:
        node, prefix, in_function = pending.pop()
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                pending.append((child, f"{prefix}{child.name}.", True))
            elif isinstance(child, ast.ClassDef):
                if in_function:
                    yield prefix, child
                pending.append((child, f"{prefix}{child.name}.", False))
            else:
                pending.append((child, prefix, in_function))


def _functions(functions: list[Any], prefix: str) -> Iterator[tuple[str, int]]:
    for function in functions:
        name = f"{prefix}{function.name}"
        yield name, function.complexity
        yield from _functions(function.closures, f"{name}.")


def _classes(classes: list[Any], prefix: str) -> Iterator[tuple[str, int]]:
    for cls in classes:
        name = f"{prefix}{cls.name}"
        yield f"{name}.<body>", cls.real_complexity - 1 - sum(method.complexity for method in cls.methods)
        yield from _functions(cls.methods, f"{name}.")
        yield from _classes(cls.inner_classes, f"{name}.")


def _is_sound(text: str, path: str) -> bool:
    return _file_complexities(text, path) is not None


def _changed(file: ChangedFile) -> Iterator[FunctionComplexity]:
    old = (_file_complexities(file.before, file.old_path) if file.before is not None else None) or {}
    new = (_file_complexities(file.after, file.path) if file.after is not None else None) or {}
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            yield FunctionComplexity(file.path, name, old.get(name), new.get(name))
