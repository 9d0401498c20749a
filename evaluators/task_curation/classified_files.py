"""Which files of a tree decide its tests, and which are code under test: from a run, and from the imports."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from regrade.datasets.globs import matches
from regrade.datasets.tasks import TestSuite, Tree
from regrade.evaluators.execution.records import TestSources
from regrade.evaluators.static.dependencies.graph import Graph, graph_of
from regrade.evaluators.task_curation.data_of_tests import DataFiles, folder_of


@dataclass(frozen=True)
class ClassifiedFiles:
    """The files of a tree, as a run of its tests shows them. See the fields of the same names of `TestSuite`."""

    test_files: tuple[str, ...] = ()
    product_files: tuple[str, ...] = ()
    doctest_files: tuple[str, ...] = ()
    checked_files: tuple[str, ...] = ()


def classify_files(tree: Tree, suite: TestSuite, sources: TestSources) -> ClassifiedFiles:
    """Classify the files of the tree.

    A file decides the tests if tests were collected from it, if it is a conftest.py, if it defines their functions or
    fixtures beside such a file, or if only such files opened it. A file of conventional name (`suite.protected`) is
    code under test if code under test imports it, or if it is a module of a package without tests.
    """
    paths = set(tree.paths())
    collected = paths.intersection(sources.collected)
    beside = {folder_of(path) for path in collected} - {""}
    # A plugin under test defines fixtures as well: without a test beside it, such a file is code under test.
    tests = collected | {path for path in sources.used if path in paths and folder_of(path) in beside}
    loaded = [path for path in sources.loaded if path in paths]
    product = _product_files(graph_of(tree, suite.python_path), suite, loaded, tests)
    code = {path for path in loaded if path not in tests and (path in product or not matches(path, suite.protected))}
    files = DataFiles(tree, tests, code)
    opened = {path: openers for path, openers in sources.opened if path in paths and code.isdisjoint(openers)}
    data = {path for path, openers in opened.items() if files.are_data(path, openers)}
    known = {*loaded, *tests, *data}
    return ClassifiedFiles(
        test_files=tuple(sorted(tests | data)),
        product_files=tuple(sorted(product)),
        doctest_files=tuple(sorted(paths.intersection(sources.doctests))),
        checked_files=tuple(sorted(path for path in opened.keys() - known if not matches(path, suite.protected))),
    )


def _product_files(graph: Graph, suite: TestSuite, loaded: Iterable[str], tests: set[str]) -> set[str]:
    """Imported modules with the name of a test file that are code under test."""
    named = {path for path in loaded if path not in tests and matches(path, suite.protected)}
    code = {path for path in loaded if path not in tests and path not in named}
    packages = {folder_of(path) for path in code} - {""}
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
    return folder_of(_test_folder(path)) in packages
