"""Which system is this? Patches run on Linux alone; runs and graded results are read on any system."""

from __future__ import annotations

import sys

NAMES = {"darwin": "macOS", "win32": "Windows"}


def why_not_linux() -> str:
    """Why this system cannot run patches, and a remedy; empty: it is Linux.

    Limits, process groups, namespaces and the start times that identify processes are those of the Linux kernel, also
    where Docker would isolate the candidate.
    """
    if sys.platform == "linux":
        return ""
    return (
        f"running patches needs Linux, and this is {NAMES.get(sys.platform, sys.platform)}: run regrade in a Linux "
        "container, a virtual machine or WSL 2 (docs/platforms.md); runs are compared and reported here too"
    )
