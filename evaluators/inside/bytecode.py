"""The option of a session that only writes byte code, and removal of damaged byte code files."""

from __future__ import annotations

import contextlib
import marshal
import sys
from importlib.util import MAGIC_NUMBER
from pathlib import Path

COLLECT_ONLY = "--collect-only"
HEADER_BYTES = 16


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
