"""Lines of a patch with their kinds, for pages and terminals."""

from __future__ import annotations

SHOWN_LINES = 120
"""Maximal number of shown lines of a patch."""


def diff_lines(patch: str) -> list[tuple[str, str]]:
    """Return (kind, text) of each line of a unified diff, without the `diff --git` line."""
    kinds = (("+++", "file"), ("---", "file"), ("@@", "hunk"), ("+", "add"), ("-", "del"))
    lines = [line for line in patch.splitlines() if not line.startswith("diff --git")]
    return [(next((kind for start, kind in kinds if line.startswith(start)), "same"), line) for line in lines]
