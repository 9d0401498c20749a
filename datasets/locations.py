"""Where downloads, environments, converted models and stored evidence are kept between runs."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """`$REGRADE_CACHE`, else `$XDG_CACHE_HOME/regrade`, else `~/.cache/regrade`. Deleting it loses only time."""
    if chosen := os.environ.get("REGRADE_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "regrade"
