"""To whom a scratch folder or a container belongs, so that what a killed process left behind is found."""

from __future__ import annotations

import os
from pathlib import Path


def this_process() -> str:
    """This process, told from a later one of the same id by its start time."""
    return f"{os.getpid()}-{_start_time(os.getpid())}"


def is_gone(owner: str) -> bool:
    """Is the process of that name dead? A name that `this_process` did not make counts as gone."""
    pid, _, started = owner.partition("-")
    return not pid.isdigit() or _start_time(int(pid)) != started


def _start_time(pid: int) -> str:
    """In clock ticks since boot; empty where there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
    except (OSError, IndexError):
        return ""
