"""Between what a reward's values lie: whatever the evidence says, none lies outside."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrade.rewards import Diff, EvidenceSet, Reward, Score, minimum, reward
from regrade.rewards.algebra import Judgement
from regrade.rewards.ranges import value_range

VALUES = (None, 0.0, 0.3, 1.0)


def leaf(place: int) -> Reward:
    @reward
    def part(diff: Diff) -> Score:
        value = VALUES[diff.added_lines // 4**place % 4]
        return Score.unscored("not here") if value is None else Score(value)

    return part.named(f"part{place}")


LEAVES = tuple(leaf(place) for place in range(3))
weights = st.sampled_from([0.0, 0.25, 1.0, 3.0])
COMPOSE: tuple[Callable[[st.DrawFn, Reward, Reward], Reward], ...] = (
    lambda draw, one, other: draw(weights) * one + draw(weights) * other,
    lambda _draw, one, other: one.only_if(other.at_least(0.5)),
    lambda _draw, one, other: minimum(one, other),
    lambda draw, one, _other: one.clip(draw(st.sampled_from([-1.0, 0.2])), draw(st.sampled_from([0.2, 0.7, 2.0]))),
    lambda draw, one, _other: one.at_least(draw(st.sampled_from([0.1, 2.0]))),
)


@st.composite
def rewards(draw: st.DrawFn, depth: int = 3) -> Reward:
    if not depth or draw(st.booleans()):
        return draw(st.sampled_from(LEAVES))
    compose = draw(st.sampled_from(COMPOSE))
    return compose(draw, draw(rewards(depth - 1)), draw(rewards(depth - 1)))


@given(rewards(), st.integers(0, 63))
def test_no_value_lies_outside(composed: Reward, number: int) -> None:
    low, high = value_range(composed)
    value = composed.evaluate(EvidenceSet({Diff: Diff(number, 0, ("a.py",))})).value
    assert value is None or low - 1e-9 <= value <= high + 1e-9


def test_ranges_of_a_few() -> None:
    one, other, _ = LEAVES
    assert value_range(one) == (0.0, 1.0)
    assert value_range(0.6 * one + 0.2 * other) == pytest.approx((0.0, 0.8))
    assert value_range(one.clip(0.25, 0.5)) == (0.25, 0.5)
    assert value_range(one.clip(0.25, 0.5).only_if(other)) == (0.0, 0.5)
    assert value_range(minimum(one.clip(0.3, 0.6), other.clip(0.0, 0.4))) == (0.0, 0.6), "one may not apply"
    assert value_range((2 * one).at_least(1)) == (0.0, 1.0)


def test_of_a_class_of_ones_own_nothing_is_known() -> None:
    class Own(Reward):
        name = "own"
        needs = frozenset()

        def judge(self, _evidence: EvidenceSet) -> Judgement:
            return Judgement(7.0, "")

    assert value_range(Own()) == (-math.inf, math.inf)
