"""Minimised sets that still pass: what is proven about them, and the effect of unknown answers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from regrade.evaluators.attribution.delta_debugging import PieceSet, ddmin


@given(st.data())
def test_exactly_the_needed_pieces_remain(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 20))
    needed = frozenset(data.draw(st.sets(st.integers(0, n - 1))))
    found = ddmin(range(n), lambda part: needed <= part)
    assert found.pieces == needed
    assert found.is_one_minimal
    assert not found.unknown


@given(st.data())
def test_the_result_passes_and_no_piece_can_be_removed(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 7))
    verdicts: dict[PieceSet, bool | None] = {}

    def passes(part: PieceSet) -> bool | None:
        if part not in verdicts:
            verdicts[part] = len(part) == n or data.draw(st.sampled_from([True, False, False, None]))
        return verdicts[part]

    found = ddmin(range(n), passes)
    assert passes(found.pieces)
    rests = {piece: passes(found.pieces - {piece}) for piece in found.pieces}
    assert not any(rests.values())
    assert found.unknown == {piece for piece, answer in rests.items() if answer is None}
    assert found.is_one_minimal == (not found.unknown)


def test_it_tries_far_fewer_than_all_subsets() -> None:
    asked: set[PieceSet] = set()

    def passes(part: PieceSet) -> bool:
        asked.add(part)
        return {3, 100} <= part

    assert ddmin(range(128), passes).pieces == {3, 100}
    assert len(asked) < 100
