"""The cache folder of fetched packages, environments and stored evidence."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import tempfile
from pathlib import Path

from regrade.datasets.errors import UserError

FREE_SPACE = (
    "free space on the disk: `regrade cache` lists the contents of the cache and deletes them; or name a folder on "
    "another disk with $REGRADE_CACHE (or $TMPDIR, for temporary files)"
)


LITTLE = 4 << 20
"""Bytes left on a disk that counts as full: what was written before the failure may be removed already."""


def default_cache() -> Path:
    """`$REGRADE_CACHE`, else `$XDG_CACHE_HOME/regrade`, else `~/.cache/regrade`. This does not create the folder."""
    if folder := os.environ.get("REGRADE_CACHE"):
        return Path(folder).expanduser().resolve()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").expanduser() / "regrade"


def usable(cache: Path) -> Path:
    """The folder, created if missing. Raises UserError if that fails, before any work whose results would be lost."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        advice = full_disk(error) or "name another with $REGRADE_CACHE"
        raise UserError(f"cannot use the cache folder {str(cache)!r} ({error.strerror}): {advice}") from error
    return cache


def full_disk(error: BaseException) -> str:
    """The remedy for a failure caused by a full disk or an exhausted quota; empty for other causes."""
    is_full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    if not is_full and not (isinstance(error, sqlite3.Error) and error.sqlite_errorcode == sqlite3.SQLITE_FULL):
        return ""
    temporary = Path(tempfile.gettempdir())
    file = getattr(error, "filename", None)
    if is_full and (Path(file).is_relative_to(temporary) if isinstance(file, str) else _is_full(temporary)):
        return f"free space in {str(temporary)!r}, or name another folder for temporary files with $TMPDIR"
    if isinstance(file, str) and not Path(file).resolve().is_relative_to(default_cache()):
        return "free space on its disk (`regrade cache` deletes what the cache holds), and run the same command again"
    return FREE_SPACE


def _is_full(folder: Path) -> bool:
    try:
        return shutil.disk_usage(folder).free < LITTLE
    except OSError:
        return False
