"""The packages that scripts of Node import, as their texts name them, through the files of their repository."""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

_IMPORT = re.compile(r"""\b(?:from|import|require)\s*\(?\s*(['"])([^'"\n]+)\1""")
_ENDINGS = ("", ".js", ".mjs", ".cjs", "/index.js", "/index.mjs", "/index.cjs")


def imported_packages(root: Path, files: Iterable[str]) -> Iterator[str]:
    """Names of packages that the files, and the files of the repository that they import, name; with repetitions.

    A name in a comment counts too. Computed names, and names that package.json maps to others, do not.
    """
    waiting, seen = sorted(files), set[str]()
    for path in waiting:  # it grows
        if path in seen:
            continue
        seen.add(path)
        try:
            text = (root / path).read_text("utf-8", "replace")
        except OSError:
            continue
        for _, name in _IMPORT.findall(text):
            if name.startswith("."):
                waiting += _resolved(root, posixpath.normpath(posixpath.join(posixpath.dirname(path), name)))
            else:
                yield "/".join(name.split("/")[: 2 if name.startswith("@") else 1])


def _resolved(root: Path, name: str) -> list[str]:
    """The file that a relative import names, if it is part of the repository."""
    if name.startswith(".."):
        return []
    names = [posixpath.normpath(f"{name}{ending}") for ending in _ENDINGS]
    if isinstance(main := manifest_of(root / name).get("main"), str):
        names = [posixpath.normpath(f"{name}/{main}{ending}") for ending in _ENDINGS] + names
    return next(([path] for path in names if not path.startswith("..") and (root / path).is_file()), [])


def manifest_of(folder: Path) -> dict[str, Any]:
    """The package.json of a folder; empty if there is none, or it is no JSON object."""
    try:
        value = json.loads((folder / "package.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
