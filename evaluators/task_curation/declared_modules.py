"""The modules that a project declares as its own in its packaging files: what it gives to its users."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from configparser import ConfigParser, Error

from regrade.datasets.tasks import Tree

TABLES = (
    ("project", "name"), ("project", "scripts"), ("project", "gui-scripts"), ("project", "entry-points"),
    ("tool", "setuptools"), ("tool", "poetry", "name"), ("tool", "poetry", "packages"), ("tool", "poetry", "scripts"),
    ("tool", "poetry", "plugins"), ("tool", "flit"), ("tool", "hatch", "build"), ("tool", "pdm", "build"),
)  # fmt: skip
"""The parts of pyproject.toml that name modules."""
OPTIONS = (("metadata", "name"), ("options", "packages"), ("options", "py_modules"))
ARGUMENTS = re.compile(r"\b(?:name|packages|py_modules|entry_points)\s*=\s*(\[[^\]]*\]|\{[^}]*\}|[\"'][^\"']*[\"'])")
"""Arguments of `setup` in setup.py."""
NAME = re.compile(r"[A-Za-z_][\w-]*")


def declared_modules(tree: Tree) -> frozenset[str]:
    """Top-level names in the packaging files, and further words there."""
    texts = (*_of_pyproject(tree), *_of_setup_cfg(tree), *ARGUMENTS.findall(tree.read_or_none("setup.py") or ""))
    return frozenset(name.replace("-", "_") for text in texts for name in NAME.findall(text))


def _of_pyproject(tree: Tree) -> Iterator[str]:
    try:
        document: object = tomllib.loads(tree.read_or_none("pyproject.toml") or "")
    except (tomllib.TOMLDecodeError, RecursionError):
        return
    for keys in TABLES:
        table = document
        for key in keys:
            table = table.get(key) if isinstance(table, dict) else None
        yield from _texts(table)


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)


def _of_setup_cfg(tree: Tree) -> Iterator[str]:
    parser = ConfigParser(interpolation=None, strict=False)
    try:
        parser.read_string(tree.read_or_none("setup.cfg") or "")
    except Error:
        return
    yield from (parser.get(section, option, fallback="") for section, option in OPTIONS)
    if parser.has_section("options.entry_points"):
        yield from (text for _, text in parser.items("options.entry_points"))
