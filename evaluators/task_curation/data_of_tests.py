"""Is a file that only tests opened their data, or a part of the product which they check?"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from regrade.datasets.tasks import Tree
from regrade.evaluators.static.languages import language_of

PROSE = frozenset({".md", ".rst"})
"""Suffixes of documents. A test that reads one compares it with the code (a version, a list of names), and a right fix
may have to change both."""
PACKAGING = ("pyproject.toml", "setup.cfg", "setup.py", "MANIFEST.in", "package.json")
"""Files that list the data which the product ships."""


@dataclass(frozen=True)
class DataFiles:
    """The files that tests opened, among the code under test and the tests of a tree."""

    tree: Tree
    tests: Collection[str]
    code: Collection[str]

    def are_data(self, path: str, openers: Iterable[str]) -> bool:
        """Is a file that these files alone opened data of the tests? The closest folder with tests or code decides.

        - Beside or below tests that opened it: yes, whatever it is.
        - Beside or below other tests, or none: yes, except documents and source code, which tests read to compare them
          with the code under test.
        - In a folder of the code under test, or at the root: only if tests beside or above it name it, and neither the
          code nor its packaging does.
        """
        openers = tuple(openers)
        beside = {folder_of(opener) for opener in openers}
        is_comparable = PurePosixPath(path).suffix in PROSE or language_of(path) is not None
        tests, code = {folder_of(test) for test in self.tests}, {folder_of(module) for module in self.code}
        are_beside = not beside.isdisjoint(_folders_above(path))
        for folder in _folders_above(path):
            if folder in code:
                return not is_comparable and are_beside and self._only_tests_name(path, openers)
            if folder in tests:
                return not is_comparable or (are_beside and path not in self.code)
        if is_comparable:
            return False
        if "/" not in path:
            return "" in beside and self._only_tests_name(path, openers)
        return "" not in code or self._only_tests_name(path, openers)

    def _only_tests_name(self, path: str, openers: Iterable[str]) -> bool:
        """Do tests name the file, or a folder of it without code, and the product neither it nor its kind?"""
        name, code = PurePosixPath(path), {folder_of(module) for module in self.code}
        folders = [parent.name for parent in name.parents if parent.name and parent.as_posix() not in code]
        named = rf"(?<![\w.-]){re.escape(name.name)}(?![\w.-])"
        by_tests = re.compile("|".join([named, *(rf"[\"'/]{re.escape(folder)}[\"'/]" for folder in folders)]))
        # `*.json` and `f"{name}.json"` may mean the file as well.
        kind = [rf"(?:\W|%s){re.escape(name.suffix)}(?!\w)"] if name.suffix else []
        by_product = re.compile("|".join([by_tests.pattern, *kind]))
        if not any(by_tests.search(self.tree.read_or_none(opener) or "") for opener in openers):
            return False
        product = (*self.code, *PACKAGING)
        return not any(by_product.search(self.tree.read_or_none(file) or "") for file in product)


def folder_of(path: str) -> str:
    return path.rpartition("/")[0]


def _folders_above(path: str) -> Iterator[str]:
    """The closest first, without the root."""
    return (parent.as_posix() for parent in PurePosixPath(path).parents if parent.as_posix() != ".")
