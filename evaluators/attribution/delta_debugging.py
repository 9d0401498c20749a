"""A small part of a whole that still passes: delta debugging (Zeller and Hildebrandt 2002, ddmin)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise

PieceSet = frozenset[int]
Passes = Callable[[PieceSet], bool | None]
"""Does this part pass? None: it is not known, or may not be asked any more."""


@dataclass(frozen=True)
class Minimised:
    """A part that passes."""

    kept: PieceSet
    is_one_minimal: bool
    """Was every removal of a single piece tried, and did none pass?"""
    unknown: PieceSet
    """Pieces of `kept` of which it is not known whether what is left passes without them."""


def ddmin(whole: Collection[int], passes: Passes) -> Minimised:
    """Make a part that passes smaller until no single piece can be left out, as far as `passes` answers.

    Args:
        whole: it is known to pass.
        passes: is asked again about parts that it was asked about before.
    """
    kept, count = sorted(whole), 2
    while len(kept) > 1:
        pieces = _split(kept, min(count, len(kept)))
        smaller = next((piece for piece in pieces if passes(frozenset(piece))), None)
        if smaller is not None:
            kept, count = smaller, 2
            continue
        rests = [[each for each in kept if each not in piece] for piece in pieces] if len(pieces) > 2 else []
        rest = next((rest for rest in rests if passes(frozenset(rest))), None)
        if rest is not None:
            kept, count = rest, max(len(pieces) - 1, 2)
        elif len(pieces) == len(kept):
            break
        else:
            count = 2 * len(pieces)
    return _judged(frozenset(kept), passes)


def _judged(kept: PieceSet, passes: Passes) -> Minimised:
    """A single piece may be too much as well: so it is where nothing at all passes too."""
    answers = {piece: passes(kept - {piece}) for piece in sorted(kept)}
    spare = next((piece for piece, answer in answers.items() if answer), None)
    if spare is not None:
        return _judged(kept - {spare}, passes)
    unknown = frozenset(piece for piece, answer in answers.items() if answer is None)
    return Minimised(kept, not unknown, unknown)


def _split(pieces: Sequence[int], count: int) -> list[list[int]]:
    """`count` runs of nearly equal length."""
    ends = [len(pieces) * number // count for number in range(count + 1)]
    return [list(pieces[start:end]) for start, end in pairwise(ends)]
