"""The option of a session that only writes byte code, reuse of installed byte code, and removal of damaged files."""

from __future__ import annotations

import contextlib
import marshal
import os
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import MAGIC_NUMBER
from pathlib import Path
from typing import Any

COLLECT_ONLY = "--collect-only"
HEADER_BYTES = 16


def reuse_installed(folder: str, root: str) -> None:
    """While byte code is written to `folder`, copy that of installed modules instead of compiling them again.

    Installers write it to `__pycache__` beside a module, where an interpreter with another place for byte code doesn't
    look. The import system checks a copy as any byte code, and compiles the module if it is of another source. Byte
    code in the tree at `root` is not read: it may be older than its source with the same time.
    """
    read = SourceFileLoader.get_data
    installed = tuple(f"{prefix}/" for prefix in {sys.prefix, sys.base_prefix})

    def get_data(loader: SourceFileLoader, path: str) -> bytes:
        try:
            return read(loader, path)
        except OSError:
            place = path.removeprefix(folder)
            is_installed = place != path and place.startswith(installed) and not place.startswith(f"{root}/")
            if not is_installed or not place.endswith(".pyc"):
                raise
            parent, name = os.path.split(place)
            data = read(loader, f"{parent}/__pycache__/{name}")
            loader.set_data(path, data)
            return data

    patched: Any = SourceFileLoader
    patched.get_data = get_data


def remove_damaged(folder: str) -> None:
    """Delete all byte code that this interpreter can't load.

    On a full disk, or at a file size limit, the kernel writes a part and returns its length. importlib ignores that
    length, and every later import of the truncated file fails.
    """
    for path in Path(folder).rglob("*.pyc"):
        if not _is_loadable(path):
            with contextlib.suppress(OSError):  # another process of this suite removed it first
                path.unlink()


def _is_loadable(path: Path) -> bool:
    # Byte code of another interpreter (a subprocess of the tests) may be intact, but can't be checked here.
    if f".{sys.implementation.cache_tag}" not in path.name:
        return False
    try:
        data = path.read_bytes()
        return data.startswith(MAGIC_NUMBER) and marshal.loads(data[HEADER_BYTES:]) is not None
    except (OSError, EOFError, ValueError, TypeError, MemoryError):
        return False
