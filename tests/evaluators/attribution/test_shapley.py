"""Shapley values: their characteristic properties, games with known values, and unknown worths."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from itertools import combinations, permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrade.evaluators.attribution.hunk_attribution import LEAST_PAIRS
from regrade.evaluators.attribution.shapley import (
    Coalition,
    Range,
    antithetic_orders,
    coalitions,
    exact,
    interactions,
    prefixes,
    sampled,
)

Game = dict[Coalition, float | None]
numbers = st.floats(-10, 10, allow_nan=False)
UNIT = Range(0.0, 1.0)


@st.composite
def games(draw: st.DrawFn, least: int = 1, most: int = 5) -> tuple[int, Game]:
    n = draw(st.integers(least, most))
    return n, {each: draw(numbers) for each in coalitions(n)}


def game_of(n: int, worth: Callable[[Coalition], float]) -> Game:
    return {each: worth(each) for each in coalitions(n)}


def values(shares: list) -> list[float]:
    return [share.value for share in shares]


@given(games())
def test_the_values_add_up_to_the_worth_of_all_less_that_of_none(game: tuple[int, Game]) -> None:
    n, worths = game
    gap = worths[frozenset(range(n))] - worths[frozenset()]
    assert math.fsum(values(exact(n, worths))) == pytest.approx(gap, abs=1e-9)
    orders = antithetic_orders(n, 3, seed=1)
    assert math.fsum(values(sampled(n, orders, worths))) == pytest.approx(gap, abs=1e-9)


@given(games(least=2), st.data())
def test_players_with_equal_contributions_have_equal_values(game: tuple[int, Game], data: st.DataObject) -> None:
    n, worths = game
    one, other = data.draw(st.permutations(range(n)))[:2]
    swap = {one: other, other: one}
    for each in list(worths):
        mirrored = frozenset(swap.get(player, player) for player in each)
        worths[mirrored] = worths[each]
    shares = values(exact(n, worths))
    assert shares[one] == pytest.approx(shares[other], abs=1e-9)


@given(games(), numbers)
def test_the_value_of_a_player_with_a_constant_contribution_is_that_contribution(
    game: tuple[int, Game], own: float
) -> None:
    n, worths = game
    more = {
        chosen | ({n} if joins else set()): worth + (own if joins else 0.0)
        for chosen, worth in worths.items()
        for joins in (False, True)
    }
    shares = values(exact(n + 1, more))
    assert shares[n] == pytest.approx(own, abs=1e-9)
    assert shares[:n] == pytest.approx(values(exact(n, worths)), abs=1e-9)
    assert values(sampled(n + 1, antithetic_orders(n + 1, 2, 0), more))[n] == pytest.approx(own, abs=1e-9)


@given(st.data())
def test_values_add_up_over_games(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 4))
    one, other = ({each: data.draw(numbers) for each in coalitions(n)} for _ in range(2))
    both = {each: one[each] + 2 * other[each] for each in one}
    wanted = [a + 2 * b for a, b in zip(values(exact(n, one)), values(exact(n, other)), strict=True)]
    assert values(exact(n, both)) == pytest.approx(wanted, abs=1e-9)


@given(games(most=4))
def test_values_are_the_mean_over_all_orders(game: tuple[int, Game]) -> None:
    n, worths = game
    added: list[list[float]] = [[] for _ in range(n)]
    for order in permutations(range(n)):
        steps = list(prefixes(order))
        for place, player in enumerate(order):
            added[player].append(worths[steps[place + 1]] - worths[steps[place]])
    assert values(exact(n, worths)) == pytest.approx([statistics.fmean(each) for each in added], abs=1e-9)


def test_games_with_known_values() -> None:
    gloves = game_of(3, lambda each: float(0 in each and len(each) > 1))  # one left glove, two right ones
    assert values(exact(3, gloves)) == pytest.approx([2 / 3, 1 / 6, 1 / 6])
    airport = game_of(4, lambda each: float(max((player + 1 for player in each), default=0)))  # runways of 1, 2, 3, 4
    assert values(exact(4, airport)) == pytest.approx(
        [1 / 4, 1 / 4 + 1 / 3, 1 / 4 + 1 / 3 + 1 / 2, 1 / 4 + 1 / 3 + 3 / 2]
    )
    assert exact(0, {frozenset(): 1.0}) == []


@given(st.data())
def test_interactions_of_a_game_of_pairs_are_the_worths_of_its_pairs(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 5))
    single = [data.draw(numbers) for _ in range(n)]
    pairs = {pair: data.draw(numbers) for pair in combinations(range(n), 2)}
    game = game_of(
        n,
        lambda each: (
            sum(single[player] for player in each) + sum(pairs[pair] for pair in combinations(sorted(each), 2))
        ),
    )
    assert interactions(n, game) == pytest.approx(pairs, abs=1e-9)


def test_interactions_of_three_that_need_each_other_and_of_unknown_worths() -> None:
    game = game_of(4, lambda each: float({0, 1, 2} <= each))
    found = interactions(4, game)
    assert found == pytest.approx({(0, 1): 0.5, (0, 2): 0.5, (1, 2): 0.5, (0, 3): 0.0, (1, 3): 0.0, (2, 3): 0.0})
    assert interactions(4, game | {frozenset({3}): None}) == {}, "each worth counts for every pair"
    assert interactions(1, game_of(1, len)) == {}


def test_an_order_and_its_reverse_are_exact_for_pairs_of_players() -> None:
    pairs = game_of(
        7, lambda each: sum(player + 1 for player in each) + 3.0 * sum(a * b for a in each for b in each if a < b)
    )
    shares = sampled(7, antithetic_orders(7, 2, seed=5), pairs)
    assert values(shares) == pytest.approx(values(exact(7, pairs)))
    assert all(share.standard_error == pytest.approx(0.0, abs=1e-9) for share in shares)


def test_the_standard_error_is_the_spread_of_samples() -> None:
    game = game_of(8, lambda each: float(len(each & {0, 1, 2}) == 3) - 0.5 * float({5, 6} <= each) + 0.1 * (7 in each))
    truth = values(exact(8, game))
    found = [sampled(8, antithetic_orders(8, 20, seed), game) for seed in range(300)]
    for player in (0, 5):
        estimates = [shares[player].value for shares in found]
        stated = math.sqrt(statistics.fmean(shares[player].standard_error ** 2 for shares in found))
        assert statistics.fmean(estimates) == pytest.approx(truth[player], abs=3 * stated / math.sqrt(300))
        assert statistics.stdev(estimates) == pytest.approx(stated, rel=0.2, abs=1e-12)


def test_most_shares_lie_within_two_standard_errors() -> None:
    """For the worths that are hardest to sample: two players need each other, and a third spoils it."""
    game = game_of(9, lambda each: float({0, 1} <= each and 2 not in each))
    truth = values(exact(9, game))
    found = [sampled(9, antithetic_orders(9, LEAST_PAIRS, seed), game) for seed in range(200)]
    within = [
        abs(shares[player].value - truth[player]) <= 2 * shares[player].standard_error
        for shares in found
        for player in range(3)
    ]
    assert statistics.fmean(within) > 0.85


def test_reversed_orders_help() -> None:
    """Spread of the estimate with reversed orders, compared with as many independent orders."""
    game = game_of(8, lambda each: float(len(each & {0, 1, 2}) == 3) - 0.5 * float({5, 6} <= each))

    def spread(orders_of: Callable[[int], list[tuple[int, ...]]]) -> float:
        return statistics.stdev(sampled(8, orders_of(seed), game)[0].value for seed in range(200))

    def independent(seed: int) -> list[tuple[int, ...]]:
        return antithetic_orders(8, 20, seed)[::2]

    assert spread(lambda seed: antithetic_orders(8, 10, seed)) < 0.8 * spread(independent)


@given(games(least=1, most=4), st.data())
def test_bounds_hold_whatever_the_unknown_worths_are(game: tuple[int, Game], data: st.DataObject) -> None:
    n, worths = game
    worths = {each: (worth + 10) / 20 for each, worth in worths.items()}
    lost = data.draw(st.sets(st.sampled_from(sorted(worths, key=sorted))))
    known = {each: None if each in lost else worth for each, worth in worths.items()}
    orders = antithetic_orders(n, 2, seed=3)
    for shares, truth in (
        (exact(n, known, UNIT), exact(n, worths)),
        (sampled(n, orders, known, UNIT), sampled(n, orders, worths)),
    ):
        for share, true in zip(shares, truth, strict=True):
            assert share.low - 1e-9 <= true.value <= share.high + 1e-9
            assert share.value is None or share.value == pytest.approx(true.value, abs=1e-9)
    if lost:
        assert all(share.value is None for share in exact(n, known, UNIT)), "every worth counts for every player"


def test_an_unknown_worth_is_no_zero() -> None:
    worths: Game = {frozenset(): 0.0, frozenset({0}): None, frozenset({1}): 0.5, frozenset({0, 1}): 1.0}
    first, second = exact(2, worths, UNIT)
    assert first.value is second.value is None
    assert (first.low, first.high) == pytest.approx((0.25, 0.75))
    assert (second.low, second.high) == pytest.approx((0.25, 0.75))
    unbounded = exact(2, worths)[0]
    assert (unbounded.low, unbounded.high) == (-math.inf, math.inf)
    shares = sampled(2, [(1, 0), (0, 1)], worths, UNIT)
    assert shares[0].value is None
    assert math.isnan(shares[0].standard_error)


def test_orders_are_the_same_for_a_seed_and_come_with_their_reverse() -> None:
    orders = antithetic_orders(6, 4, seed=2)
    assert orders == antithetic_orders(6, 4, seed=2) != antithetic_orders(6, 4, seed=3)
    assert all(second == first[::-1] for first, second in zip(orders[::2], orders[1::2], strict=True))
    assert math.isnan(sampled(2, [(0, 1), (1, 0)], game_of(2, len))[0].standard_error), "of one pair nothing is known"
    for wrong in ([], [(0, 1)]):
        with pytest.raises(ValueError, match="pairs"):
            sampled(2, wrong, game_of(2, len))
