"""Minimisation of a set that passes: delta debugging (Zeller and Hildebrandt 2002, ddmin)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise

PieceSet = frozenset[int]
Passes = Callable[[PieceSet], bool | None]
"""Does this subset pass? None: unknown, or the budget is used up."""


@dataclass(frozen=True)
class Minimised:
    """A subset that passes."""

    pieces: PieceSet
    is_one_minimal: bool
    """Was every removal of a single piece tried, and does none pass?"""
    unknown: PieceSet
    """Pieces for which it is unknown whether the rest passes without them."""


def ddmin(whole: Collection[int], passes: Passes) -> Minimised:
    """Remove pieces from a set that passes until no single piece can be removed, as far as `passes` answers.

    Args:
        whole: must pass.
        passes: is called repeatedly with the same subset.
    """
    pieces, count = sorted(whole), 2
    while len(pieces) > 1:
        chunks = _split(pieces, min(count, len(pieces)))
        smaller = next((chunk for chunk in chunks if passes(frozenset(chunk))), None)
        if smaller is not None:
            pieces, count = smaller, 2
            continue
        complements = [[piece for piece in pieces if piece not in chunk] for chunk in chunks] if len(chunks) > 2 else []
        complement = next((complement for complement in complements if passes(frozenset(complement))), None)
        if complement is not None:
            pieces, count = complement, max(len(chunks) - 1, 2)
        elif len(chunks) == len(pieces):
            break
        else:
            count = 2 * len(chunks)
    return _one_minimal(frozenset(pieces), passes)


def _one_minimal(pieces: PieceSet, passes: Passes) -> Minimised:
    """Remove single pieces while the rest passes, down to the empty set."""
    answers = {piece: passes(pieces - {piece}) for piece in sorted(pieces)}
    spare = next((piece for piece, answer in answers.items() if answer), None)
    if spare is not None:
        return _one_minimal(pieces - {spare}, passes)
    unknown = frozenset(piece for piece, answer in answers.items() if answer is None)
    return Minimised(pieces, not unknown, unknown)


def _split(pieces: Sequence[int], count: int) -> list[list[int]]:
    """`count` runs of nearly equal length."""
    ends = [len(pieces) * number // count for number in range(count + 1)]
    return [list(pieces[start:end]) for start, end in pairwise(ends)]
