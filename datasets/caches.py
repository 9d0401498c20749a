"""Where fetched packages, environments and stored evidence are kept between runs."""

from __future__ import annotations

import os
from pathlib import Path

from regrade.datasets.errors import UserError


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
        raise UserError(
            f"the cache folder {str(cache)!r} can't be used ({error.strerror}): name another with $REGRADE_CACHE"
        ) from error
    return cache
