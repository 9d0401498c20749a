"""What is installed for an interpreter, down to single files. A program that this interpreter runs (with `-I`), so it
imports nothing but the standard library.

Names and versions of distributions say too little: a package that is installed as editable, or whose file was edited
where it lies, is another one under the same version.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import stat
import sys
from collections.abc import Collection, Iterator
from itertools import islice
from pathlib import Path
from urllib.parse import unquote, urlsplit

CACHES = frozenset({"__pycache__", ".cache", ".vite", ".vitest"})
"""Folders that Python and the tools of Node write into where packages lie; what is in them follows from the rest."""
READ_BYTES = 1 << 20
"""Sources up to this size count by their content, larger files by their time."""
READ_FILES = 10_000
"""So many files of a folder of sources are read, which takes less than a second; the others count by their time."""
MOST_FILES = 200_000
"""What holds more is no package but a disk or somebody's home: the others don't count."""


def identity(*, made: bool) -> list[object]:
    """The version, the distributions, and a digest of their files.

    Installed files count by their sizes and times: reading them all would take seconds. Sources that are used where
    they lie count by their contents, so that a checkout which comes back to a state comes back to its identity.

    Args:
        made: the environment was made from pinned requirements and is edited by nobody. Its own files say no more
            than its distributions do, and their times differ from machine to machine.
    """
    distributions = list(importlib.metadata.distributions())
    names = sorted({f"{found.name}=={found.version}" for found in distributions})
    whole = hashlib.sha256()
    for folder in dict.fromkeys([*_imported(), *_other_projects(distributions)]):
        if not (made and _is_below(folder, os.path.realpath(sys.prefix))):
            for line in _lines(folder, read=not _is_installed(folder)):
                whole.update(os.fsencode(line))
    return [sys.version, names, whole.hexdigest()]


def digest_of(folder: Path) -> str:
    """Of the names, sizes and times of all files of a folder of packages."""
    whole = hashlib.sha256()
    for line in _lines(str(folder), read=False):
        whole.update(os.fsencode(line))
    return whole.hexdigest()


def _imported() -> list[str]:
    """Folders, archives and modules outside the standard library that are imported from, in the order of the search."""
    library = Path(os.__file__).parent
    found = [Path(path) for path in sys.path if Path(path) not in (library, library / "lib-dynload")]
    for finder in sys.meta_path:
        name = str(getattr(finder, "__module__", ""))
        if name.startswith("__editable__"):  # as setuptools names them
            found += map(Path, getattr(sys.modules[name], "MAPPING", {}).values())
    return [os.path.realpath(path) for path in found if path.exists()]


def _other_projects(distributions: Collection[importlib.metadata.Distribution]) -> list[str]:
    """Roots of the projects that are installed as editable and imported in a way that only their backends know."""
    sources = [path for path in _imported() if not _is_installed(path)]
    roots = {root for root in map(_editable, distributions) if root}
    return sorted(root for root in roots if not any(_is_below(path, root) for path in sources))


def _editable(distribution: importlib.metadata.Distribution) -> str:
    """The root of the project that a distribution is an editable install of; empty: it is none."""
    try:
        origin = json.loads(distribution.read_text("direct_url.json") or "{}")
        url, is_editable = urlsplit(origin["url"]), origin["dir_info"]["editable"]
    except (ValueError, KeyError, TypeError):
        return ""
    return os.path.realpath(unquote(url.path)) if is_editable and url.scheme == "file" else ""


def _is_installed(path: str) -> bool:
    """Is it no source, but what an installer put there, of this environment or of another one?"""
    is_below = any(_is_below(path, os.path.realpath(prefix)) for prefix in (sys.prefix, sys.base_prefix))
    return is_below or Path(path).name in ("site-packages", "dist-packages")


def _is_below(path: str, folder: str) -> bool:
    return Path(path).is_relative_to(folder)


def _lines(top: str, *, read: bool) -> Iterator[str]:
    """A text for each file of a folder, or for the file itself; no two lists of files have the same."""
    yield "\0\0\0"
    for number, (path, target, file) in enumerate(islice(_files(top, hidden=not read), MOST_FILES)):
        yield f"{path}\0{target}\0{_mark(file, read=read and number < READ_FILES)}\0"


def _mark(file: str, *, read: bool) -> str:
    try:
        status = os.stat(file)  # noqa: PTH116 (quick)
        if not stat.S_ISREG(status.st_mode):
            return ""
        if read and status.st_size <= READ_BYTES:
            return hashlib.sha256(Path(file).read_bytes()).hexdigest()
    except OSError:  # a link that leads nowhere, or nothing that may be read
        return ""
    return f"{status.st_size} {status.st_mtime_ns}"


def _files(top: str, *, hidden: bool) -> Iterator[tuple[str, str, str]]:
    """Relative path, target (empty: it is no link) and whole path of all files, in an order that depends on their names
    alone. Links are followed, to each folder once.

    Args:
        hidden: hidden files as well. Beside sources they are version control, environments and what tools leave.
    """
    if not os.path.isdir(top):  # noqa: PTH112 (quick, as all that follows)
        yield "", "", top
    waiting, seen = [""], set[tuple[int, int]]()
    while waiting:
        parent = waiting.pop()
        for entry in _entries(f"{top}/{parent}", seen):
            if entry.name in CACHES or (entry.name.startswith(".") and not hidden):
                continue
            path, is_link = f"{parent}{entry.name}", entry.is_symlink()
            is_folder = os.path.isdir(entry.path) if is_link else entry.is_dir()  # noqa: PTH112
            if is_link or not is_folder:
                yield path, os.readlink(entry.path) if is_link else "", entry.path  # noqa: PTH115
            if is_folder:
                waiting.append(f"{path}/")


def _entries(folder: str, seen: set[tuple[int, int]]) -> list[os.DirEntry[str]]:
    """Sorted; none of a virtual environment, of a folder that was seen, and of one that can't be read."""
    try:
        status = os.stat(folder)  # noqa: PTH116
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError:
        return []
    key = (status.st_dev, status.st_ino)
    if key in seen or any(entry.name == "pyvenv.cfg" for entry in entries):
        return []
    seen.add(key)
    return entries


if __name__ == "__main__":
    print(json.dumps(identity(made="--made" in sys.argv)))
