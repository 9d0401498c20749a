"""Which files of a tree decide its tests, and which are code under test: from a run, and from the imports."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from regrade.datasets.globs import matches
from regrade.datasets.tasks import TestSuite, Tree
from regrade.evaluators.execution.records import TestSources
from regrade.evaluators.static.dependencies.graph import Graph, graph_of
from regrade.evaluators.static.languages import language_of

PROSE = frozenset({".md", ".rst"})
"""Suffixes of documents. A test that reads one compares it with the code (a version, a list of names), and a right fix
may have to change both."""


@dataclass(frozen=True)
class ClassifiedFiles:
    """The files of a tree, as a run of its tests shows them. See the fields of the same names of `TestSuite`."""

    test_files: tuple[str, ...] = ()
    product_files: tuple[str, ...] = ()
    doctest_files: tuple[str, ...] = ()


def classify_files(tree: Tree, suite: TestSuite, sources: TestSources) -> ClassifiedFiles:
    """Classify the files of the tree.

    A file decides the tests if tests were collected from it, if it is a conftest.py, if it defines their functions or
    fixtures beside such a file, or if only such files opened it. A file of conventional name (`suite.protected`) is
    code under test if code under test imports it, or if it is a module of a package without tests.
    """
    paths = set(tree.paths())
    collected = paths.intersection(sources.collected)
    beside = {_folder(path) for path in collected} - {""}
    # A plugin under test defines fixtures as well: without a test beside it, such a file is code under test.
    tests = collected | {path for path in sources.used if path in paths and _folder(path) in beside}
    loaded = [path for path in sources.loaded if path in paths]
    product = _product_files(graph_of(tree, suite.python_path), suite, loaded, tests)
    code = {path for path in loaded if path not in tests and (path in product or not matches(path, suite.protected))}
    opened = {
        path
        for path, openers in sources.opened
        if path in paths and code.isdisjoint(openers) and _is_data_of_tests(path, tests, code)
    }
    return ClassifiedFiles(
        tuple(sorted(tests | opened)), tuple(sorted(product)), tuple(sorted(paths.intersection(sources.doctests)))
    )


def _product_files(graph: Graph, suite: TestSuite, loaded: Iterable[str], tests: set[str]) -> set[str]:
    """Imported modules with the name of a test file that are code under test."""
    named = {path for path in loaded if path not in tests and matches(path, suite.protected)}
    code = {path for path in loaded if path not in tests and path not in named}
    packages = {_folder(path) for path in code} - {""}
    product = {path for path in named if not _has_tests(_test_folder(path), tests) and _parent_in(path, packages)}
    pending = named - product
    while imported := {
        path for path in pending if path in graph.texts and not (code | product).isdisjoint(graph.importers(path))
    }:
        product |= imported
        pending -= imported
    return {path for path in product if PurePosixPath(path).name != "conftest.py"}


def _test_folder(path: str) -> str:
    """The outermost folder of a path that is called `test` or `tests`; empty: there is none."""
    folders = path.split("/")[:-1]
    for number, name in enumerate(folders, start=1):
        if name in ("test", "tests"):
            return "/".join(folders[:number])
    return ""


def _has_tests(folder: str, tests: set[str]) -> bool:
    return not folder or any(test.startswith(f"{folder}/") for test in tests)


def _parent_in(path: str, packages: set[str]) -> bool:
    """Does its folder of tests lie in a package with code under test?"""
    return _folder(_test_folder(path)) in packages


def _is_data_of_tests(path: str, tests: set[str], code: set[str]) -> bool:
    """Is an opened file data of the tests rather than of the code under test? Files at the root, documents and source
    code are not; of the others, those in a package of the code under test are not."""
    if "/" not in path or PurePosixPath(path).suffix in PROSE or language_of(path) is not None:
        return False
    folders = {_folder(test) for test in tests}, {_folder(module) for module in code}
    for parent in map(str, PurePosixPath(path).parents):
        folder = "" if parent == "." else parent
        if folder in folders[1]:
            return False
        if folder in folders[0]:
            return True
    return True


def _folder(path: str) -> str:
    return path.rpartition("/")[0]
