"""`latest.json`: the figures of the last run of each benchmark, for machines to read."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("latest.json")


def record(name: str, figures: Mapping[str, Any]) -> None:
    """Put the figures of one benchmark in place of its earlier ones, with when and on what they were measured."""
    known = json.loads(FILE.read_text()) if FILE.is_file() else {}
    machine = {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "measured": f"{datetime.now(UTC):%Y-%m-%d}",
    }
    known[name] = {**machine, **figures}
    making = FILE.with_suffix(".making")
    making.write_text(json.dumps(known, indent=2, sort_keys=True) + "\n")
    making.replace(FILE)
