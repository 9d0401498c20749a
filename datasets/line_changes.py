"""The removed and added lines between two texts, in linear time but for a bounded factor, whatever the texts."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")

MOST_CHANGES = 400
"""Changed lines of a range without unique lines, up to which its smallest difference is searched; a range with more
counts as changed as a whole. The search takes time in proportion to their number."""
MOST_IN_ALL = 20_000
"""The same limit for all ranges of two texts together."""
LineRange = tuple[int, int, int, int]
"""A range of lines before, and the range of lines after in its place: first, end, first, end (0-based)."""


def changed_numbers(before: Sequence[str], after: Sequence[str]) -> tuple[list[int], list[int]]:
    """Numbers, from 1, of the removed lines and of the added lines.

    Lines that occur once in both texts align the rest, as in `git diff --patience`.
    """
    ids: dict[str, int] = {}  # to compare numbers is quicker than to compare long lines
    old, new = ([ids.setdefault(line, len(ids)) for line in lines] for lines in (before, after))
    removed: list[int] = []
    added: list[int] = []
    left = MOST_IN_ALL
    for first, end, other_first, other_end in _between_unique_lines(old, new):
        gone, come, tried = _smallest_difference(old[first:end], new[other_first:other_end], min(MOST_CHANGES, left))
        left -= tried
        removed.extend(first + index + 1 for index in gone)
        added.extend(other_first + index + 1 for index in come)
    return removed, added


def _between_unique_lines(old: Sequence[int], new: Sequence[int]) -> Iterator[LineRange]:
    """The ranges between the lines that occur once in both, in the longest sequence that both have in common."""
    head, tail = equal_ends(old, new)
    old_counts, new_counts = Counter(old[head : len(old) - tail]), Counter(new[head : len(new) - tail])
    places = {line: place for place, line in enumerate(new) if head <= place < len(new) - tail}
    pairs = [
        (place, places[line])
        for place, line in enumerate(old)
        if head <= place < len(old) - tail and old_counts[line] == 1 == new_counts[line]
    ]
    first, other_first = head, head
    for place, other in [*_longest_increasing(pairs), (len(old) - tail, len(new) - tail)]:
        if place > first or other > other_first:
            yield first, place, other_first, other
        first, other_first = place + 1, other + 1


def _longest_increasing(pairs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The longest part of the pairs, which are sorted by their first numbers, whose second numbers increase."""
    ends: list[int] = []
    last: list[int] = []
    previous: list[int] = []
    for index, (_, other) in enumerate(pairs):
        length = bisect_left(ends, other)
        previous.append(last[length - 1] if length else -1)
        ends[length : length + 1] = [other]
        last[length : length + 1] = [index]
    chosen = []
    at = last[-1] if last else -1
    while at >= 0:
        chosen.append(pairs[at])
        at = previous[at]
    return chosen[::-1]


def equal_ends(old: Sequence[T], new: Sequence[T]) -> tuple[int, int]:
    """Numbers of equal lines at the start and at the end."""
    shorter = min(len(old), len(new))
    head = next((n for n in range(shorter) if old[n] != new[n]), shorter)
    tail = next((n for n in range(shorter - head) if old[-1 - n] != new[-1 - n]), shorter - head)
    return head, tail


def _smallest_difference(old: Sequence[int], new: Sequence[int], most: int) -> tuple[list[int], list[int], int]:
    """Indexes of the removed and of the added lines: as few as possible (Myers 1986), or all if these are more than
    `most`; and how many changes were tried."""
    head, tail = equal_ends(old, new)
    width, height = len(old) - head - tail, len(new) - head - tail
    if not width or not height:
        return list(range(head, head + width)), list(range(head, head + height)), 0
    reached = {1: 0}  # diagonal (x - y) -> furthest x
    history: list[dict[int, int]] = []
    for changes in range(min(most, width + height) + 1):
        history.append(dict(reached))
        for diagonal in range(-changes, changes + 1, 2):
            is_down = diagonal == -changes or (diagonal != changes and reached[diagonal - 1] < reached[diagonal + 1])
            x = reached[diagonal + 1] if is_down else reached[diagonal - 1] + 1
            while x < width and x - diagonal < height and old[head + x] == new[head + x - diagonal]:
                x += 1
            reached[diagonal] = x
            if x >= width and x - diagonal >= height:
                return *_path(history, width, height, head), changes
    return list(range(head, head + width)), list(range(head, head + height)), most


def _path(history: Sequence[dict[int, int]], x: int, y: int, head: int) -> tuple[list[int], list[int]]:
    """The changes on the way to the end, read backwards from the furthest points of each number of changes."""
    removed, added = [], []
    for changes in range(len(history) - 1, 0, -1):
        reached, diagonal = history[changes], x - y
        is_down = diagonal == -changes or (diagonal != changes and reached[diagonal - 1] < reached[diagonal + 1])
        x = reached[diagonal + 1] if is_down else reached[diagonal - 1]
        y = x - (diagonal + 1 if is_down else diagonal - 1)
        if is_down:
            added.append(head + y)
        else:
            removed.append(head + x)
    return removed[::-1], added[::-1]
