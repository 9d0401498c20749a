"""Which files of a tree decide its tests, and which are code under test: from a run, and from the imports."""

from __future__ import annotations

from dataclasses import dataclass, replace

from regrade.datasets.globs import ProtectedFiles, matches
from regrade.datasets.tasks import TestSuite, Tree
from regrade.evaluators.execution.records import TestSources
from regrade.evaluators.task_curation.data_files import DataFiles
from regrade.evaluators.task_curation.declared_modules import declared_modules
from regrade.evaluators.task_curation.module_imports import ModuleImports


@dataclass(frozen=True)
class ClassifiedFiles:
    """The files of a tree, as a run of its tests shows them. See the fields of the same names of `TestSuite`."""

    test_files: tuple[str, ...] = ()
    product_files: tuple[str, ...] = ()
    doctest_files: tuple[str, ...] = ()
    checked_files: tuple[str, ...] = ()
    doctests: tuple[tuple[str, str], ...] = ()
    test_modules: tuple[tuple[str, str], ...] = ()
    foreign_modules: tuple[str, ...] = ()


def classify_files(tree: Tree, suite: TestSuite, sources: TestSources) -> ClassifiedFiles:
    """Classify the files of the tree.

    A file decides the tests if tests were collected from it, if it is a conftest.py, if it defines their functions or
    fixtures beside such a file, if it is a helper of tests (see `_ModuleRoles`), or if it is their data (`DataFiles`).
    A file of conventional name (`suite.protected`) is code under test if code under test imports it, if it is a module
    of a package without tests, or if it is data in a folder of code that code under test opened.
    """
    paths = frozenset(tree.paths())
    modules = _ModuleRoles(tree, suite, sources, paths)
    data = DataFiles(tree, paths, sources, modules.tests, modules.code | modules.product)
    product = modules.product | {
        path for path in data.of_product() if matches(path, suite.protected) and not modules.has_tests(path)
    }
    classified = ClassifiedFiles(
        test_files=tuple(sorted(modules.tests | set(data.of_tests()))),
        product_files=tuple(sorted(product - modules.tests)),
        doctest_files=tuple(sorted({path for path, *_ in sources.doctests if path in paths} - modules.tests)),
        doctests=tuple(sorted((test, examples) for _, test, examples in sources.doctests)),
    )
    protected = ProtectedFiles(suite.protected, frozenset(classified.test_files), frozenset(classified.product_files))
    named = {name: path for name, path in sources.modules if path in paths and protected.contains(path)}
    named.pop("conftest", None)  # each folder has one
    # A run of some of the tests may find another helper of the same name, in the folder of another test.
    tails = {_tail(path) for path in named.values()}
    namesakes = {path for path in paths if _tail(path) in tails and protected.contains(path)}
    classified = replace(classified, test_files=tuple(sorted(namesakes.union(classified.test_files))))
    tests = modules.tests | {path for path in named.values() if path.endswith(".py")}
    imported = modules.imports.top_level_names(tests)
    own = {name.partition(".")[0] for name, _ in sources.modules}
    foreign = {name for name in sources.foreign if name in imported or name.partition(".")[0] in own}
    return replace(
        classified,
        test_modules=tuple(sorted(named.items())),
        foreign_modules=tuple(sorted(foreign)),
        checked_files=_checked_files(suite, sources, modules, protected, paths),
    )


def _checked_files(
    suite: TestSuite,
    sources: TestSources,
    modules: _ModuleRoles,
    protected: ProtectedFiles,
    paths: frozenset[str],
) -> tuple[str, ...]:
    """The files that tests alone opened, and that a patch may edit."""
    code = modules.code | modules.product
    opened = {path for path, openers, callers in sources.opened if code.isdisjoint((*openers, *callers))}
    editable = {path for path in opened & paths if not protected.contains(path) and not matches(path, suite.protected)}
    return tuple(sorted(editable.difference(sources.loaded)))


class _ModuleRoles:
    """The imported modules of a tree: `tests` (and their helpers), `product` (code under test with the name of a test
    file) and `code` (all other code under test).

    A helper of tests is a module that only tests and such helpers import, that no user of the project gets, and that
    shows what it is: it defines functions or fixtures of tests, imports a test framework or a test file, or consists
    of functions that state expectations. All modules in a folder of tests are helpers: one from which tests of other
    code were collected, and whose modules no code under test imports.
    """

    def __init__(self, tree: Tree, suite: TestSuite, sources: TestSources, paths: frozenset[str]) -> None:
        self.imports = ModuleImports(tree, sources)
        self._suite = suite
        self._paths = paths
        self._used = frozenset(sources.used)
        self._declared = declared_modules(tree)
        collected = {path for path in sources.collected if path in paths}
        beside = {_folder(path) for path in collected} - {""}
        # A plugin under test defines fixtures as well: without a test beside it, such a file may be code under test.
        self.tests = collected | {path for path in sources.used if path in paths and _folder(path) in beside}
        loaded = [path for path in sources.loaded if path in paths]
        self._named = {path for path in loaded if path not in self.tests and matches(path, suite.protected)}
        self.code = {path for path in loaded if path not in self.tests and path not in self._named}
        self._beside: dict[str, list[str]] = {}
        for path in self.code:
            self._beside.setdefault(_folder(path), []).append(path)
        self._is_declared = any(_top(path) in self._declared for path in self.code)
        self._use_helpers(self._helpers())
        self._use_helpers(self._in_folders_of_tests(collected))
        self.product = self._product()

    def has_tests(self, path: str) -> bool:
        """Does its folder `test` or `tests` contain tests, or the file one?"""
        folder = _test_folder(path)
        return path in self.tests or (bool(folder) and any(test.startswith(f"{folder}/") for test in self.tests))

    def _use_helpers(self, helpers: set[str]) -> None:
        if self.code - helpers:  # otherwise the tests of the helpers themselves would have no code under test
            self.tests |= helpers
            self.code -= helpers

    def _helpers(self) -> set[str]:
        alone = {path for path in self.code if path.endswith(".py") and not self._is_of_project(path)}
        helpers = {path for path in alone if self._shows_helper(path)}
        while outer := {path for path in helpers if not self._is_for_tests(path, helpers)}:
            helpers -= outer
        tests = self.tests | {path for path in self._named if self.has_tests(path)}
        while further := {path for path in alone - helpers if self._uses_tests(path, tests | helpers, helpers)}:
            helpers |= further
        return helpers

    def _shows_helper(self, path: str) -> bool:
        return path in self._used or self.imports.uses_test_framework(path) or self.imports.text(path).asserts

    def _uses_tests(self, path: str, tests: set[str], helpers: set[str]) -> bool:
        imported = {file for file in self.imports.imported(path) & tests if _top(file) != _top(path)}
        return bool(imported) and self._is_for_tests(path, helpers)

    def _is_for_tests(self, path: str, helpers: set[str]) -> bool:
        return self.imports.importers(path) <= self.tests | self._named | helpers

    def _is_of_project(self, path: str) -> bool:
        """Do users of the project get it? Where its packaging files don't say so: does its folder contain a module that
        doesn't show what it is?"""
        folder = _folder(path)
        if self._is_given(path):
            return True
        if self._is_declared or not folder:
            return False
        return any(
            not other.endswith("__init__.py")
            and not self._shows_helper(other)
            and not self._uses_tests(other, self.tests | self._named, set())
            for other in self._beside[folder]
            if other != path
        )

    def _is_given(self, path: str) -> bool:
        beside = {_folder(test) for test in self.tests}  # on the python path because tests import helpers from there
        return _top(path) in self._declared or any(
            folder != "." and folder not in beside and path.startswith(f"{folder}/")
            for folder in self._suite.python_path
        )

    def _in_folders_of_tests(self, collected: set[str]) -> set[str]:
        found: set[str] = set()
        folders = {_folder(path) for path in collected if path.endswith(".py") and _name(path) != "conftest.py"} - {""}
        for folder in sorted(folders, key=lambda name: (name.count("/"), name)):
            inside = {path for path in self._paths if path.endswith(".py") and path.startswith(f"{folder}/")}
            if not inside <= found and self._is_folder_of_tests(folder, inside):
                found |= inside
        return found

    def _is_folder_of_tests(self, folder: str, inside: set[str]) -> bool:
        if self._is_given(f"{folder}/"):
            return False
        importers = {file for path in inside & self.code for file in self.imports.importers(path)}
        if importers - inside:
            return False
        imported = {file for test in inside & self.tests for file in self.imports.imported(test)}
        return not (imported & self.code) <= inside

    def _product(self) -> set[str]:
        """Imported modules with the name of a test file that are code under test."""
        packages = {_folder(path) for path in self.code} - {""}
        named = {path for path in self._named - self.tests if _name(path) != "conftest.py"}
        product = {path for path in named if not self.has_tests(path) and self._is_in(path, packages)}
        pending = named - product
        while imported := {
            path for path in pending if not (self.code | product).isdisjoint(self.imports.importers(path))
        }:
            product |= imported
            pending -= imported
        return product

    def _is_in(self, path: str, packages: set[str]) -> bool:
        """Does it lie in a package of code under test, or its folder of tests, without showing that tests use it?"""
        if folder := _test_folder(path):
            return _folder(folder) in packages
        beside = {_folder(test) for test in self.tests}
        return _folder(path) in packages - beside and not self._shows_helper(path)


def _test_folder(path: str) -> str:
    """The outermost folder of a path that is called `test` or `tests`; empty: there is none."""
    folders = path.split("/")[:-1]
    for number, name in enumerate(folders, start=1):
        if name in ("test", "tests"):
            return "/".join(folders[:number])
    return ""


def _folder(path: str) -> str:
    return path.rpartition("/")[0]


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _tail(path: str) -> str:
    """The name of a module's file, of a package with its folder."""
    return "/".join(path.split("/")[-2:]) if path.endswith("/__init__.py") else _name(path)


def _top(path: str) -> str:
    """The outermost folder of a path, or the name of a module at the root."""
    return path.partition("/")[0].removesuffix(".py")
