"""Finds the folders of a repository that must be on sys.path, so that tests import the repository's own modules."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from regrade.datasets.globs import matches
from regrade.datasets.tasks import TestSuite, Tree
from regrade.evaluators.execution import environments

IMPORT = re.compile(r"^[ \t]*(?:from[ \t]+([\w.]+)[ \t]+import\b|import[ \t]+([\w., \t]+))", re.MULTILINE)
NAME = re.compile(r"""^\s*(?:name\s*=\s*["']?|Name:\s*)([\w.-]+)""", re.MULTILINE)


def python_path(repo: Path, tree: Tree, interpreter: Path) -> tuple[str, ...]:
    """The folders, the root last. `src` if it contains modules; and each folder that provides a module which the tests
    import and no other folder provides, unless the environment has a module of that name from another project."""
    paths = tree.paths()
    folders = ["src"] if _has_code(repo / "src") else []
    names = imported_by_tests(tree, paths)
    missing = {
        name: places for name, places in _providers(names, paths).items() if not {".", *folders}.intersection(places)
    }
    if missing:
        installed = environments.import_origins(interpreter, tuple(sorted(missing)))
        for name in sorted(missing):
            folder = _folder_of(missing[name], installed.get(name), repo)
            if folder and folder not in folders:
                folders.append(folder)
    return (*folders, ".")


def _has_code(folder: Path) -> bool:
    return folder.is_dir() and not (folder / "__init__.py").exists() and any(folder.rglob("*.py"))


def imported_by_tests(tree: Tree, paths: Iterable[str]) -> set[str]:
    """Top-level names of the absolute imports in test files and their helpers, which only their names show: a run that
    collects the tests needs the folders first. If a name lacks, `untested_code` reports that nothing is tested."""
    protected, names = TestSuite().protected, set[str]()
    for path in paths:
        if path.endswith(".py") and matches(path, protected):
            for source, listed in IMPORT.findall(tree.read(path)):
                modules = [source] if source else [item.split()[0] for item in listed.split(",") if item.split()]
                names.update(module.partition(".")[0] for module in modules)
    return names - sys.stdlib_module_names - {""}


def _providers(names: set[str], paths: Iterable[str]) -> dict[str, list[str]]:
    """Name -> folders, no packages themselves, in which it is a module or a package; the shallowest first."""
    files = set(paths)
    places: dict[str, set[str]] = {}
    for path in files:
        pure = PurePosixPath(path)
        module = pure.parent if pure.name == "__init__.py" else pure.with_suffix("")
        if pure.suffix == ".py" and module.name in names:
            folder = module.parent.as_posix()
            if folder == "." or f"{folder}/__init__.py" not in files:
                places.setdefault(module.name, set()).add(folder)
    # pytest itself puts the folder of a test file on the path, or the test files do that for their helpers.
    return {
        name: sorted(folders, key=lambda folder: (folder.count("/"), folder))
        for name, folders in places.items()
        if not any(folder != "." and matches(f"{folder}/x.py", TestSuite().protected) for folder in folders)
    }


def _folder_of(folders: list[str], installed: list[str] | None, repo: Path) -> str:
    """The folder that provides a module; empty: it is another project's module, or it is unclear which."""
    if installed:
        file, *owners = installed
        place = Path(file).parent if Path(file).name.startswith("__init__.") or Path(file).suffix else Path(file)
        top = place.parent if Path(file).name.startswith("__init__.") or not Path(file).suffix else place
        if top.resolve().is_relative_to(repo) and top.resolve().relative_to(repo).as_posix() in folders:
            return top.resolve().relative_to(repo).as_posix()  # an editable installation
        if not _is_own(owners, repo):
            return ""
    depth = folders[0].count("/")
    return folders[0] if sum(folder.count("/") == depth for folder in folders) == 1 else ""


def _is_own(owners: list[str], repo: Path) -> bool:
    """Do the names and URLs of distributions name this repository's own?"""
    names = project_names(repo)
    return any(
        _normal(owner) in names or (owner.startswith("file:") and Path(unquote(urlsplit(owner).path)).resolve() == repo)
        for owner in owners
    )


def project_names(repo: Path) -> set[str]:
    """Normalised names that the repository declares for its distribution."""
    names: set[str] = set()
    for file in ("setup.cfg", "PKG-INFO", "setup.py"):
        text = _text(repo / file)
        names.update(NAME.findall(text) if file != "setup.py" else re.findall(r"""\bname\s*=\s*["']([\w.-]+)""", text))
    try:
        project = tomllib.loads(_text(repo / "pyproject.toml"))
    except tomllib.TOMLDecodeError:
        project = {}
    for table in (
        project.get("project"),
        _table(project, "tool", "poetry"),
        _table(project, "tool", "flit", "metadata"),
    ):
        if isinstance(table, Mapping):
            names.update(str(table[key]) for key in ("name", "module") if key in table)
    return {_normal(name) for name in names}


def _table(document: object, *keys: str) -> object:
    for key in keys:
        document = document.get(key) if isinstance(document, Mapping) else None
    return document


def _text(path: Path) -> str:
    return path.read_text("utf-8", "replace") if path.is_file() else ""


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
