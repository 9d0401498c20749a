"""Which data files of a tree are those of its tests: who opens them, and whose text mentions them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from functools import cached_property
from pathlib import PurePosixPath

from regrade.datasets.tasks import Tree
from regrade.evaluators.execution.records import TestSources
from regrade.evaluators.static.languages import language_of

PROSE = frozenset({".md", ".rst"})
"""Suffixes of documents. A test that reads one compares it with the code (a version, a list of names), and a right fix
may have to change both."""
WORD = re.compile(r"[\w.@+-]+")
PACKAGING = ("pyproject.toml", "setup.cfg", "setup.py", "MANIFEST.in")


class DataFiles:
    """The files that no run imports.

    A file is data of the tests if code of the tests opened it, or mentions it and called code that opened it, and no
    code under test mentions it; also if a test that may have ended before mentions its folder and its name. A file is
    no data of the tests if it is source code, or lies in a folder of code under test, unless only tests beside or above
    it open and name it; outside of the folders of tests, if it is a document, or a file without suffix at the root
    (`VERSION`).
    """

    def __init__(
        self, tree: Tree, paths: Collection[str], sources: TestSources, tests: set[str], code: set[str]
    ) -> None:
        self._tree = tree
        self._paths = paths
        self._tests, self._code = tests, code
        self._has_processes = sources.has_processes
        self._opened = {path: (set(openers), set(callers)) for path, openers, callers in sources.opened}
        self._test_folders = {_folder(path) for path in tests if path.endswith(".py")} - {""}
        self._code_folders = {_folder(path) for path in code} - {""}
        self._opened_by_code = {_folder(path) for path, (openers, _) in self._opened.items() if openers & code}

    def of_tests(self) -> Iterator[str]:
        return (path for path in self._paths if self._is_of_tests(path))

    def of_product(self) -> Iterator[str]:
        """Files in folders of code under test that it opened."""
        for path, (openers, _) in self._opened.items():
            if path in self._paths and openers & self._code and self._nearest(path) == "code":
                yield path

    def _is_of_tests(self, path: str) -> bool:
        if path in self._tests or path in self._code or language_of(path) is not None:
            return False
        nearest = self._nearest(path)
        openers, callers = self._opened.get(path, (set(), set()))
        if nearest == "code":
            return not callers & self._code and self._is_of_tests_among_code(path, openers)
        if nearest != "tests" and _is_document(path):
            return False
        if nearest == "tests" and openers and openers <= self._tests:
            return True
        if self._is_mentioned_by_code(path):
            return False
        if openers and not openers & self._code:
            return True
        if openers:
            return bool(callers & self._tests) and self._is_mentioned_by_tests(path)
        return "/" in path and self._is_mentioned_by_tests(path)

    def _is_of_tests_among_code(self, path: str, openers: set[str]) -> bool:
        """Do only tests beside or above it open and name it, and the product neither it nor its kind (`*.json`)?"""
        above = {folder.as_posix() for folder in PurePosixPath(path).parents}
        if _is_document(path) or not openers or not openers <= self._tests or above.isdisjoint(map(_folder, openers)):
            return False
        name, suffix = PurePosixPath(path).name, PurePosixPath(path).suffix
        of_product = {name, suffix, f"s{suffix}"} if suffix else {name}  # the last one as in "%s.json"
        named = any(name in words for words in self._words_of_tests)
        return named and of_product.isdisjoint(self._words_of_code)

    def _nearest(self, path: str) -> str:
        """Is the nearest folder above it, other than the root, one of `tests` or `code`? Empty: there is neither."""
        for folder in map(str, PurePosixPath(path).parents):
            if folder in self._code_folders:
                return "code"
            if folder in self._test_folders:
                return "tests"
        return ""

    def _is_mentioned_by_tests(self, path: str) -> bool:
        folder, _, name = path.rpartition("/")
        words = {name, *([folder.rpartition("/")[2]] if folder else [])}
        return any(words <= mentioned for mentioned in self._words_of_tests)

    def _is_mentioned_by_code(self, path: str) -> bool:
        folder, _, name = path.rpartition("/")
        if name in self._words_of_code:
            return True
        return bool(folder) and folder in self._opened_by_code and folder.rpartition("/")[2] in self._words_of_code

    @cached_property
    def _words_of_tests(self) -> list[set[str]]:
        return [self._words(path) for path in self._tests if path.endswith(".py")]

    @cached_property
    def _words_of_code(self) -> set[str]:
        """Of the loaded code, the modules that processes may have run (all, or those beside it), and the packaging."""
        modules = {path for path in self._paths if path.endswith(".py")} - self._tests
        beside = {path for path in modules if self._has_processes or _folder(path) in self._code_folders}
        packaging = (path for path in PACKAGING if path in self._paths)
        return {word for path in (*self._code, *beside, *packaging) for word in self._words(path)}

    def _words(self, path: str) -> set[str]:
        return set(WORD.findall(self._tree.read(path))) if path in self._paths else set()


def _is_document(path: str) -> bool:
    pure = PurePosixPath(path)
    is_bare = "/" not in path and not pure.suffix and not path.startswith(".")
    return is_bare or pure.suffix in PROSE


def _folder(path: str) -> str:
    return path.rpartition("/")[0]
