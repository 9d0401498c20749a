"""Counts in words: singular and plural, and shortened lists of names."""

from __future__ import annotations

from collections.abc import Sequence


def plural(count: int, one: str, several: str) -> str:
    """The singular or plural form for a count."""
    return one if count == 1 else several


def counted(count: int, noun: str) -> str:
    """`1 test`, `2 tests`."""
    return f"{count} {plural(count, noun, f'{noun}s')}"


def listed(names: Sequence[str], most: int) -> str:
    """`a, b` or `a, b and 3 more`."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
