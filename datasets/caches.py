"""Where fetched packages, environments and stored evidence are kept between runs."""

from __future__ import annotations

import os
from pathlib import Path


def default_cache() -> Path:
    """`$REGRADE_CACHE`, else `$XDG_CACHE_HOME/regrade`, else `~/.cache/regrade`. The folder is not created here."""
    chosen = os.environ.get("REGRADE_CACHE")
    if chosen:
        return Path(chosen).expanduser().resolve()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").expanduser() / "regrade"
