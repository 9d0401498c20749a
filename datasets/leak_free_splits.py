"""Seeded splits of tasks that share nothing across a split: no repository, module or function, and no copy of one."""

from __future__ import annotations

import ast
import copy
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal

from regrade.datasets.applying import apply_patch
from regrade.datasets.patches import Patch, PatchError
from regrade.datasets.syntax_trees import parse_tree
from regrade.datasets.tasks import Task, Tree

Unit = Literal["repository", "module", "function"]
SHARES: Mapping[str, float] = {"demonstrations": 0.2, "tests_only": 0.5, "validation": 0.1, "held_out": 0.2}
"""Split -> share of the units. See `regrade.datasets.mutation.splits` for the use of each."""
SMALLEST_COPY = 60
"""Characters of the syntax tree of a function below which an equal one is no copy: `return self._x` is everywhere."""


def leak_free_splits(tasks: Sequence[Task], unit: Unit, seed: int) -> list[str]:
    """The split of each task, in order.

    Tasks that change the same unit are in one split, as are tasks that change equal functions (compared without names
    of the functions, docstrings and annotations) anywhere. The split of a group depends on the seed and the smallest
    name in the group, so that further tasks of the same units move no other task.
    """
    groups = _Groups()
    keys = [sorted(_keys(task, unit)) for task in tasks]
    for names in keys:
        groups.join(names)
    smallest: dict[str, str] = {}
    for name in sorted({name for names in keys for name in names}):
        smallest.setdefault(groups.root(name), name)
    return [_drawn(smallest[groups.root(names[0])], seed) for names in keys]


def _drawn(name: str, seed: int) -> str:
    digest = hashlib.sha256(f"{seed}/{name}".encode("utf-8", "surrogateescape")).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    for split, share in SHARES.items():
        place -= share
        if place < 0:
            return split
    return "held_out"


def _keys(task: Task, unit: Unit) -> Iterator[str]:
    if unit == "repository":
        yield task.repository
        return
    before, after = task.base, fixed_tree(task)
    for path, function in sorted(changed_functions(task)):
        yield f"{task.repository}/{path}" if unit == "module" else f"{task.repository}/{path}::{function}"
        for tree in (before, after):
            text = _normalised(tree, path, function)
            if len(text) >= SMALLEST_COPY:
                yield f"text/{hashlib.sha256(text.encode()).hexdigest()}"


def fixed_tree(task: Task) -> Tree:
    """The base with the reference; the base itself, if there is none."""
    try:
        return apply_patch(task.base, task.reference or Patch(""))
    except PatchError:
        return task.base


def changed_functions(task: Task) -> set[tuple[str, str]]:
    """(file, qualified name) of each function that the reference changes; empty name: a change outside of functions."""
    if task.target is not None:
        return {(task.target.file, task.target.function)}
    if task.reference is None:
        return {("", "")}
    after = fixed_tree(task)
    found: set[tuple[str, str]] = set()
    for file in task.reference.files:
        for tree, lines in ((task.base, file.removed), (after, file.added)):
            spans = list(_spans(tree, file.path))
            for number, text in lines:
                if text.strip():
                    inside = [name for first, last, name in spans if first <= number <= last]
                    found.add((file.path, inside[-1] if inside else ""))
    return found or {("", "")}


def _spans(tree: Tree, path: str) -> Iterator[tuple[int, int, str]]:
    """(first line, last line, qualified name) of each outermost function, decorators included."""

    def visit(node: ast.AST, prefix: str) -> Iterator[tuple[int, int, str]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                first = min([child.lineno, *(each.lineno for each in child.decorator_list)])
                yield first, child.end_lineno or child.lineno, prefix + child.name
            elif isinstance(child, ast.ClassDef):
                yield from visit(child, f"{prefix}{child.name}.")

    text = tree.read_or_none(path) if path.endswith(".py") else None
    try:
        yield from visit(parse_tree(text or ""), "")
    except (SyntaxError, ValueError):
        return


def _normalised(tree: Tree, path: str, function: str) -> str:
    """The syntax tree of a function without its name, docstring and annotations; empty: there is none."""
    text = tree.read_or_none(path) if path.endswith(".py") and function else None
    try:
        body: Iterable[ast.stmt] = parse_tree(text or "").body
    except (SyntaxError, ValueError):
        return ""
    node: ast.stmt | None = None
    for name in function.split(".<locals>")[0].split("."):
        node = next((each for each in body if getattr(each, "name", None) == name), None)
        body = getattr(node, "body", [])
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return ""
    node = copy.deepcopy(node)
    first = node.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        node.body = node.body[1:]
    node.name, node.returns = "", None
    for argument in ast.walk(node.args):
        if isinstance(argument, ast.arg):
            argument.annotation = None
    return ast.dump(node)


class _Groups:
    """Names in disjoint groups."""

    def __init__(self) -> None:
        self._above: dict[str, str] = {}

    def root(self, name: str) -> str:
        self._above.setdefault(name, name)
        while self._above[name] != name:
            self._above[name] = self._above[self._above[name]]
            name = self._above[name]
        return name

    def join(self, names: Sequence[str]) -> None:
        for name in names[1:]:
            self._above[self.root(name)] = self.root(names[0])
