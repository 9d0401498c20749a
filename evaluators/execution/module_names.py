"""Import names of a tree's modules, and their byte-compilation."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Task, Tree
from regrade.evaluators.static import builds
from regrade.rewards.evidence import BuildRun

NOT_MODULES = frozenset({"setup", "conftest", "conf", "noxfile", "tasks", "fabfile", "__main__"})
"""Names of Python files whose import has side effects."""


def compiled(before: Tree, after: Tree, patch: Patch, task: Task) -> BuildRun:
    """Does every patched file byte-compile? The part of BuildRun that executes nothing."""
    return builds.probe(before, after, patch, task)


def module_names(path: str, task: Task) -> Iterator[str]:
    """Import names of a file: one for each folder of the python path that contains it."""
    for folder in task.suite.python_path:
        pure = PurePosixPath(path)
        if pure.suffix == ".py" and pure.is_relative_to(PurePosixPath(folder)):
            parts = pure.relative_to(PurePosixPath(folder)).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def importable_modules(tree: Tree, task: Task) -> tuple[str, ...]:
    """Dotted names of the project's modules on its python path: single files and packages, without tests."""
    paths = set(tree.paths())
    names = set()
    for folder in task.suite.python_path:
        base = PurePosixPath(folder)
        for path in paths:
            pure = PurePosixPath(path)
            if pure.suffix != ".py" or not pure.is_relative_to(base) or task.suite.protects(path):
                continue
            parts = pure.relative_to(base).with_suffix("").parts
            packages = [base.joinpath(*parts[: count + 1], "__init__.py").as_posix() for count in range(len(parts) - 1)]
            if (
                all(package in paths for package in packages)
                and not NOT_MODULES.intersection(parts)
                and _are_names(parts)
            ):
                names.add(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return tuple(sorted(names - {""}))


def _are_names(parts: tuple[str, ...]) -> bool:
    return all(part.isidentifier() for part in parts)
