"""Installed packages of an interpreter, down to single files. The interpreter runs this file (with `-I`), so it imports
only the standard library.

Names and versions of distributions do not suffice: an editable package, or one with an edited file, differs under the
same version.
"""

from __future__ import annotations

import email
import hashlib
import importlib.metadata
import json
import os
import stat
import sys
from collections.abc import Collection, Iterator
from operator import attrgetter
from pathlib import Path
from urllib.parse import unquote, urlsplit

CACHES = frozenset({"__pycache__", ".cache", ".vite", ".vitest"})
"""Caches that Python and the tools of Node write beside packages; their content is derived."""
READ_BYTES = 1 << 20
"""Sources up to this size count by content, larger files by modification time."""
READ_FILES = 10_000
"""Files read per folder of sources (takes less than a second); the rest count by modification time."""
MOST_FILES = 200_000
"""A folder with more files is no package but a disk or a home folder: further files do not count."""


def identity(*, is_created: bool) -> list[object]:
    """The version, the distributions, and a digest of their files.

    Installed files count by size and modification time: reading them all takes seconds. Sources used in place count by
    content, so that a checkout that returns to a state has the same identity again.

    Args:
        is_created: the environment was created from pinned requirements and is never edited. Its distributions
            identify its files, whose modification times differ between machines.
    """
    distributions = list(importlib.metadata.distributions())
    names = sorted(set(map(_pinned, distributions)))
    whole = hashlib.sha256()
    for folder in dict.fromkeys([*_imported(), *_other_projects(distributions)]):
        if not (is_created and _is_below(folder, os.path.realpath(sys.prefix))):
            whole.update(os.fsencode("".join(_lines(folder, read=not _is_installed(folder)))))
    return [sys.version, names, whole.hexdigest()]


def _pinned(distribution: importlib.metadata.Distribution) -> str:
    """`name==version`, from the head of the metadata: the description that follows takes long to parse."""
    text = next(filter(None, map(distribution.read_text, ("METADATA", "PKG-INFO", ""))), "")
    head = email.message_from_string(text.partition("\n\n")[0])
    return f"{head['Name']}=={head['Version']}"


def digest_of(folder: Path) -> str:
    """Digest of the names, sizes and modification times of all files of a folder of packages."""
    return hashlib.sha256(os.fsencode("".join(_lines(str(folder), read=False)))).hexdigest()


def _imported() -> list[str]:
    """Folders, archives and modules outside the standard library on the import path, in search order."""
    library = Path(os.__file__).parent
    paths = [Path(path) for path in sys.path if Path(path) not in (library, library / "lib-dynload")]
    for finder in sys.meta_path:
        name = str(getattr(finder, "__module__", ""))
        if name.startswith("__editable__"):  # as setuptools names them
            paths += map(Path, getattr(sys.modules[name], "MAPPING", {}).values())
    return [os.path.realpath(path) for path in paths if path.exists()]


def _other_projects(distributions: Collection[importlib.metadata.Distribution]) -> list[str]:
    """Roots of editable projects that are imported by a mechanism of their backend."""
    sources = [path for path in _imported() if not _is_installed(path)]
    roots = {root for root in map(_editable, distributions) if root}
    return sorted(root for root in roots if not any(_is_below(path, root) for path in sources))


def _editable(distribution: importlib.metadata.Distribution) -> str:
    """The root of the project of an editable install; empty: the install is not editable."""
    try:
        origin = json.loads(distribution.read_text("direct_url.json") or "{}")
        url, is_editable = urlsplit(origin["url"]), origin["dir_info"]["editable"]
    except (ValueError, KeyError, TypeError):
        return ""
    return os.path.realpath(unquote(url.path)) if is_editable and url.scheme == "file" else ""


def _is_installed(path: str) -> bool:
    """Was it written by an installer, into this environment or another one? Otherwise it is a source."""
    is_below = any(_is_below(path, os.path.realpath(prefix)) for prefix in (sys.prefix, sys.base_prefix))
    return is_below or Path(path).name in ("site-packages", "dist-packages")


def _is_below(path: str, folder: str) -> bool:
    return Path(path).is_relative_to(folder)


def _lines(top: str, *, read: bool) -> Iterator[str]:
    """Texts for all files of a folder, or for the file itself; different lists of files have different texts.

    Files are in an order that depends on names alone. Links are followed, to each folder once. Hidden files beside
    sources are left out: they are version control, environments and output of tools.
    """
    yield "\0\0\0"
    if not os.path.isdir(top):  # noqa: PTH112 (quick, as all that follows)
        yield f"\0\0{_mark(top, read=read)}\0"
    number = 0
    waiting, seen = [""], set[tuple[int, int]]()
    while waiting:
        parent = waiting.pop()
        for entry in _entries(f"{top}/{parent}", seen):
            name = entry.name
            if name in CACHES or (read and name.startswith(".")):
                continue
            is_link = entry.is_symlink()
            if os.path.isdir(entry.path) if is_link else entry.is_dir():  # noqa: PTH112
                waiting.append(f"{parent}{name}/")
                if not is_link:
                    continue
            if number == MOST_FILES:
                return
            if is_link or (read and number < READ_FILES):
                target = os.readlink(entry.path) if is_link else ""  # noqa: PTH115
                mark = _mark(entry.path, read=read and number < READ_FILES)
            else:
                target, mark = "", _mark_of(entry)
            number += 1
            yield f"{parent}{name}\0{target}\0{mark}\0"


def _mark_of(entry: os.DirEntry[str]) -> str:
    """The mark of an entry that is no link and is not read: one system call for each of tens of thousands of files."""
    try:
        status = entry.stat(follow_symlinks=False)
    except OSError:
        return ""
    return f"{status.st_size} {status.st_mtime_ns}" if stat.S_ISREG(status.st_mode) else ""


def _mark(file: str, *, read: bool) -> str:
    try:
        status = os.stat(file)  # noqa: PTH116
        if not stat.S_ISREG(status.st_mode):
            return ""
        if read and status.st_size <= READ_BYTES:
            return hashlib.sha256(Path(file).read_bytes()).hexdigest()
    except OSError:  # a dangling link, or an unreadable file
        return ""
    return f"{status.st_size} {status.st_mtime_ns}"


def _entries(folder: str, seen: set[tuple[int, int]]) -> list[os.DirEntry[str]]:
    """Sorted entries; none for a virtual environment, a folder that was seen, or one that can't be read."""
    try:
        status = os.stat(folder)  # noqa: PTH116
        with os.scandir(folder) as scan:
            entries = sorted(scan, key=attrgetter("name"))
    except OSError:
        return []
    key = (status.st_dev, status.st_ino)
    if key in seen or "pyvenv.cfg" in map(attrgetter("name"), entries):
        return []
    seen.add(key)
    return entries


if __name__ == "__main__":
    print(json.dumps(identity(is_created="--made" in sys.argv)))
