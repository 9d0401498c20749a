"""Lines of a patch with their kinds, as pages and terminals show them."""

from __future__ import annotations

SHOWN_LINES = 120
"""Lines of a patch."""


def diff_lines(patch: str) -> list[tuple[str, str]]:
    """(kind, text) for each line of a unified diff; the `diff --git` line is left out."""
    kinds = (("+++", "file"), ("---", "file"), ("@@", "hunk"), ("+", "add"), ("-", "del"))
    lines = [line for line in patch.splitlines() if not line.startswith("diff --git")]
    return [(next((kind for start, kind in kinds if line.startswith(start)), "same"), line) for line in lines]
