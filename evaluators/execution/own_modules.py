"""Names of the modules that a tree provides by itself: tests must import them from the tree, not from an installed
copy."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

SOURCES = (".py", ".so", ".pyd")
MOST_ENTRIES = 2000
"""Entries read per folder: a folder with more is data."""

DEEPEST = 16
"""Folders below a package that are read: links may lead round in circles."""


def own_modules(root: Path, python_path: Sequence[str]) -> tuple[str, ...]:
    """Names of top-level modules and packages in the folders of the python path, and of the members of namespace
    packages there (`namespace.package`), without those of the standard library."""
    names: set[str] = set()
    for folder in python_path:
        for name, path in _children(root / folder):
            if path is None or _is_package(path):
                names.add(name)
            else:
                names.update(
                    f"{name}.{child}" for child, below in _children(path) if below is None or _is_package(below)
                )
    return tuple(sorted(name for name in names if name.partition(".")[0] not in sys.stdlib_module_names))


def own_submodules(root: Path, python_path: Sequence[str], own: Iterable[str]) -> tuple[str, ...]:
    """Full names of the modules in the packages among these names (see `own_modules`)."""
    names: set[str] = set()
    for name in own:
        for folder in python_path:
            names.update(_below(root / folder / name.replace(".", "/"), name))
    return tuple(sorted(names))


def _below(folder: Path, name: str, depth: int = 0) -> Iterator[str]:
    if depth > DEEPEST or not _is_package(folder):
        return
    for child, path in _children(folder):
        yield f"{name}.{child}"
        if path is not None:
            yield from _below(path, f"{name}.{child}", depth + 1)


def _children(folder: Path) -> Iterator[tuple[str, Path | None]]:
    """Import name -> None for a module, the path for a folder."""
    try:
        with os.scandir(folder) as scan:
            entries = [entry for _, entry in zip(range(MOST_ENTRIES), scan, strict=False)]
    except OSError:
        return
    for entry in entries:
        name = entry.name.partition(".")[0]
        if not name.isidentifier() or name in ("__init__", "__main__"):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield entry.name, Path(entry.path)
        elif entry.name.endswith(SOURCES):
            yield name, None


def _is_package(folder: Path) -> bool:
    return (folder / "__init__.py").is_file()
