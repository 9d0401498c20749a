"""Where fetched packages, environments and stored evidence are kept between runs."""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path

from regrade.datasets.errors import UserError

MAKE_ROOM = (
    "free space on the disk: `regrade cache` shows what is kept and makes room; or name a folder on another one with "
    "$REGRADE_CACHE (or $TMPDIR, for what is needed only while it runs)"
)


def default_cache() -> Path:
    """`$REGRADE_CACHE`, else `$XDG_CACHE_HOME/regrade`, else `~/.cache/regrade`. The folder is not created here."""
    chosen = os.environ.get("REGRADE_CACHE")
    if chosen:
        return Path(chosen).expanduser().resolve()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").expanduser() / "regrade"


def usable(cache: Path) -> Path:
    """The folder, made if there is none. Raises UserError where that can't be, before any work that it would lose."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        advice = full_disk(error) or "name another with $REGRADE_CACHE"
        raise UserError(f"the cache folder {str(cache)!r} can't be used ({error.strerror}): {advice}") from error
    return cache


def full_disk(error: BaseException) -> str:
    """What to do about a failure where a full disk is its cause, or an exhausted quota; empty: it is another one."""
    is_full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    if is_full or (isinstance(error, sqlite3.Error) and error.sqlite_errorcode == sqlite3.SQLITE_FULL):
        return MAKE_ROOM
    return ""
