"""Byte code that was just written is read again before anyone else believes it."""

from __future__ import annotations

import contextlib
import marshal
import sys
from importlib.util import MAGIC_NUMBER
from pathlib import Path

HEADER_BYTES = 16


def drop_damaged(folder: str) -> None:
    """Delete all byte code that this interpreter can't load.

    Where the disk is full, or a file grows beyond its limit, the kernel writes a part and says how much. importlib does
    not ask, and fails for ever to import what it finds cut short.
    """
    for path in Path(folder).rglob("*.pyc"):
        if not _loads(path):
            with contextlib.suppress(OSError):  # another process of this suite was faster
                path.unlink()


def _loads(path: Path) -> bool:
    # What another interpreter wrote, a subprocess of the tests, may be whole, but who could tell?
    if f".{sys.implementation.cache_tag}" not in path.name:
        return False
    try:
        data = path.read_bytes()
        return data.startswith(MAGIC_NUMBER) and marshal.loads(data[HEADER_BYTES:]) is not None
    except (OSError, EOFError, ValueError, TypeError, MemoryError):
        return False
