"""Which files of a tree import which: the statements of their text, with the files that a run found for the names."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property

from regrade.datasets.syntax_trees import parse_or_none
from regrade.datasets.tasks import Tree
from regrade.evaluators.execution.records import TestSources

TEST_FRAMEWORKS = frozenset({"pytest", "_pytest", "unittest", "doctest", "hypothesis", "nose", "mock", "testtools"})


@dataclass(frozen=True)
class ModuleText:
    """The facts of one module's text."""

    imports: frozenset[str]
    """Absolute names that it imports: modules, and perhaps names in them."""
    asserts: bool
    """Do most of its functions state an expectation and return nothing?"""


class ModuleImports:
    """The imports of the modules that a run loaded."""

    def __init__(self, tree: Tree, sources: TestSources) -> None:
        self._tree = tree
        self._files = dict(sources.modules)
        self._names: dict[str, str] = {}
        for name, path in sources.modules:
            self._names.setdefault(path, name)
        self._first = {path: frozenset(importers) for path, importers in sources.importers}
        self._texts: dict[str, ModuleText] = {}

    def text(self, path: str) -> ModuleText:
        if path not in self._texts:
            self._texts[path] = _module_text(self._tree.read_or_none(path) or "", path, self._names.get(path, ""))
        return self._texts[path]

    def imported(self, path: str) -> frozenset[str]:
        """The files that a file imports, without the packages above them."""
        return frozenset(self._files[name] for name in self.text(path).imports if name in self._files) - {path}

    def importers(self, path: str) -> frozenset[str]:
        """The files that import a file; `*` if a library imported it (see `inside/recording/sources.py`)."""
        return frozenset(self._importers.get(path, ())) | (self._first.get(path, frozenset()) - {"", path})

    def uses_test_framework(self, path: str) -> bool:
        return any(name.partition(".")[0] in TEST_FRAMEWORKS for name in self.text(path).imports)

    def top_level_names(self, paths: Collection[str]) -> frozenset[str]:
        """Top-level names that the files import."""
        return frozenset(name.partition(".")[0] for path in paths for name in self.text(path).imports)

    @cached_property
    def _importers(self) -> dict[str, set[str]]:
        importers: dict[str, set[str]] = {}
        for path in self._names:
            if path.endswith(".py"):
                for imported in self.imported(path):
                    importers.setdefault(imported, set()).add(path)
        return importers


def _module_text(source: str, path: str, name: str) -> ModuleText:
    tree = parse_or_none(source, path) if path.endswith(".py") else None
    if tree is None:
        return ModuleText(frozenset(), asserts=False)
    package = name if path.endswith("/__init__.py") else name.rpartition(".")[0]
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    stating = sum(_states_expectations(function) for function in functions)
    return ModuleText(frozenset(_imported_names(tree, package)), bool(functions) and 2 * stating >= len(functions))


def _states_expectations(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    nodes = list(ast.walk(function))
    returns = any(isinstance(node, ast.Return) and node.value is not None for node in nodes)
    return not returns and any(_is_expectation(node) for node in nodes)


def _is_expectation(node: ast.AST) -> bool:
    if isinstance(node, ast.Raise):
        error = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
        return isinstance(error, ast.Name) and error.id == "AssertionError"
    return isinstance(node, ast.Assert)


def _imported_names(tree: ast.Module, package: str) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            folders = package.split(".") if package else []
            above = folders[: len(folders) - node.level + 1] if node.level else []
            module = ".".join([*above, *filter(None, [node.module])])
            if module:
                yield module
            yield from (f"{module}.{alias.name}" if module else alias.name for alias in node.names)
