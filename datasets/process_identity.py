"""Process identity: the owner of a scratch folder or container, so that leftovers of a killed process are found."""

from __future__ import annotations

import os
from pathlib import Path


def this_process() -> str:
    """Identity of this process: its id and, since ids are reused, its start time."""
    return f"{os.getpid()}-{_start_time(os.getpid())}"


def is_gone(owner: str) -> bool:
    """Has the process of that identity exited? True for any other text."""
    pid, _, started = owner.partition("-")
    return not pid.isdigit() or _start_time(int(pid)) != started


def _start_time(pid: int) -> str:
    """In clock ticks since boot; empty: there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
    except (OSError, IndexError):
        return ""
