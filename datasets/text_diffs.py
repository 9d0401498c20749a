"""Unified diffs of texts, in bounded time whatever the texts."""

from __future__ import annotations

import difflib
import io
from collections import Counter
from collections.abc import Iterator, Sequence

from regrade.datasets.line_changes import LineRange, changed_numbers, equal_ends
from regrade.datasets.plain_diffs import NOWHERE, git_header, side

MOST_STEPS = 100_000_000
"""Of difflib in the worst case, some ten seconds (of usual texts, milliseconds); beyond them, `changed_numbers` aligns
the lines. difflib takes cubic time on texts that repeat their lines, which an agent can write."""
CONTEXT = 3
"""Unchanged lines around a change."""


def unified_diff_of(path: str, old: str | None, new: str | None) -> str:
    """The entry of one file in a patch (None: no file); empty if nothing differs."""
    if old == new:
        return ""
    old_name, new_name = (NOWHERE if text is None else path for text in (old, new))
    text = "".join(unified_lines(old or "", new or "", side("a", old_name), side("b", new_name)))
    mode = "new file mode 100644\n" if old is None else "deleted file mode 100644\n" if new is None else ""
    return f"{git_header(path, path)}\n{mode}{text}"


def unified_lines(old: str, new: str, old_side: str, new_side: str) -> Iterator[str]:
    """The lines of the unified diff of two texts, each with its newline; none if they are equal.

    Args:
        old_side, new_side: what follows `---` and `+++`.
    """
    before, after = lines_of(old), lines_of(new)
    if _worst_steps(before, after) <= MOST_STEPS:
        lines = difflib.unified_diff(before, after, old_side, new_side, n=CONTEXT)
    else:
        lines = _aligned(before, after, old_side, new_side)
    for line in lines:
        yield line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"


def lines_of(text: str) -> list[str]:
    """Lines with their newlines. As in git, a form feed or a carriage return does not end a line."""
    return io.StringIO(text, newline="\n").readlines()


def _worst_steps(before: Sequence[str], after: Sequence[str]) -> int:
    """An upper bound of difflib's steps: pairs of equal lines, once for all lines, and for each line that differs."""
    if not before or not after:
        return 0
    head, tail = equal_ends(before, after)
    middle = before[head : len(before) - tail]
    counts = Counter(after)
    popular = len(after) // 100 + 1 if len(after) >= 200 else len(after)  # difflib leaves out what is more frequent
    usual = {line: count for line, count in counts.items() if count <= popular}
    pairs, differing = (sum(1 + usual.get(line, 0) for line in lines) for lines in (before, middle))
    return pairs + differing * min(len(middle), len(after) - head - tail)


def _aligned(before: Sequence[str], after: Sequence[str], old_side: str, new_side: str) -> Iterator[str]:
    """As `difflib.unified_diff`, with another alignment."""
    yield f"--- {old_side}\n"
    yield f"+++ {new_side}\n"
    for hunk in _hunks(_changed_ranges(before, after)):
        first, other_first = max(0, hunk[0][0] - CONTEXT), max(0, hunk[0][2] - CONTEXT)
        end, other_end = min(len(before), hunk[-1][1] + CONTEXT), min(len(after), hunk[-1][3] + CONTEXT)
        yield f"@@ -{_range(first, end)} +{_range(other_first, other_end)} @@\n"
        place = first
        for start, stop, other_start, other_stop in hunk:
            yield from (f" {line}" for line in before[place:start])
            yield from (f"-{line}" for line in before[start:stop])
            yield from (f"+{line}" for line in after[other_start:other_stop])
            place = stop
        yield from (f" {line}" for line in before[place:end])


def _changed_ranges(before: Sequence[str], after: Sequence[str]) -> Iterator[LineRange]:
    removed, added = map(set, changed_numbers(before, after))
    place = other = 0
    while place < len(before) or other < len(after):
        start, other_start = place, other
        while place + 1 in removed:
            place += 1
        while other + 1 in added:
            other += 1
        if (place, other) == (start, other_start):
            place, other = place + 1, other + 1
        else:
            yield start, place, other_start, other


def _hunks(ranges: Iterator[LineRange]) -> Iterator[list[LineRange]]:
    """Ranges whose contexts meet."""
    hunk: list[LineRange] = []
    for each in ranges:
        if hunk and each[0] - hunk[-1][1] > 2 * CONTEXT:
            yield hunk
            hunk = []
        hunk.append(each)
    if hunk:
        yield hunk


def _range(first: int, end: int) -> str:
    """Of a hunk's header: an empty range is named by the line before it."""
    count = end - first
    return str(first + 1) if count == 1 else f"{first + (count > 0)},{count}"
