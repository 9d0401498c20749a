"""Shapley values: the shares of players in a worth that they earn together.

With v(S) the worth of the coalition S of n players, the share of player i is

    phi_i = sum over S without i of |S|! (n - |S| - 1)! / n! * (v(S with i) - v(S))

the mean of its marginal contributions over all orders of the players (Shapley 1953). Only these values add up to
v(all) - v(none), are equal for players with equal contributions, are 0 for a player without any, and are additive over
games. With too many coalitions the mean is taken over sampled orders (Castro, Gómez and Tejada 2009), each with its
reverse: if worths are sums over single players and pairs, an order and its reverse together are exact (Mitchell et al.
2022, JMLR 23, on antithetic permutations).

A worth may be unknown. It never counts as 0: the values that depend on it are unknown as well, with bounds if all
worths have bounds.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

Coalition = frozenset[int]
Worths = Mapping[Coalition, float | None]
"""Coalition -> its worth; None: unknown."""


class Range(NamedTuple):
    low: float
    high: float


UNBOUNDED = Range(-math.inf, math.inf)


@dataclass(frozen=True)
class Share:
    """The share of one player."""

    value: float | None
    """None: it depends on an unknown worth."""
    low: float
    high: float
    """Bounds of the value for any unknown worths; equal to it if it depends on none."""
    standard_error: float = 0.0
    """Of the value, from sampling orders; 0 if all orders count. NaN: unknown."""


def coalitions(n: int) -> list[Coalition]:
    """All 2^n coalitions of the players 0 to n - 1, small ones first."""
    return [frozenset(members) for size in range(n + 1) for members in combinations(range(n), size)]


def exact(n: int, worths: Worths, worth_range: Range = UNBOUNDED) -> list[Share]:
    """The share of each of n players, from the worths of all coalitions.

    Args:
        worth_range: range of every worth, for the bounds if some are unknown.

    Raises:
        KeyError: a coalition is missing.
    """
    shares = []
    for player in range(n):
        without = [coalition for coalition in coalitions(n) if player not in coalition]
        steps = [_step(coalition, player, worths, worth_range) for coalition in without]
        sizes = map(len, without)
        weights = [math.factorial(size) * math.factorial(n - size - 1) / math.factorial(n) for size in sizes]
        low, high = (math.fsum(w * step[side] for w, step in zip(weights, steps, strict=True)) for side in (0, 1))
        shares.append(Share(low if all(step.is_known for step in steps) else None, low, high))
    return shares


def interactions(n: int, worths: Worths) -> dict[tuple[int, int], float]:
    """For each pair of n players, the worth that they add together beyond the sum of their own.

    The Shapley interaction index (Grabisch and Roubens 1999), the mean over coalitions S of the others of
    v(S with both) - v(S with i) - v(S with j) + v(S), with equal weight for each size of S. A pair is missing if it
    depends on an unknown worth.

    Raises:
        KeyError: a coalition is missing.
    """
    indices = {}
    for pair in combinations(range(n), 2):
        one, other = (frozenset({player}) for player in pair)
        gains = []
        for rest in coalitions(n):
            if rest & {*pair}:
                continue
            weight = math.factorial(len(rest)) * math.factorial(n - len(rest) - 2) / math.factorial(n - 1)
            both, first, second, none = (worths[rest | added] for added in (one | other, one, other, frozenset()))
            if both is None or first is None or second is None or none is None:
                break
            gains.append(weight * (both - first - second + none))
        else:
            indices[pair] = math.fsum(gains)
    return indices


def antithetic_orders(n: int, pairs: int, seed: int) -> list[tuple[int, ...]]:
    """Random orders of n players, each followed by its reverse."""
    source = random.Random(seed)
    drawn = (tuple(source.sample(range(n), n)) for _ in range(pairs))
    return [one for order in drawn for one in (order, order[::-1])]


def prefixes(order: Sequence[int]) -> Iterator[Coalition]:
    """The coalitions of the first 0, 1, ..., n players of an order."""
    return (frozenset(order[:count]) for count in range(len(order) + 1))


def sampled(n: int, orders: Sequence[Sequence[int]], worths: Worths, worth_range: Range = UNBOUNDED) -> list[Share]:
    """The share of each of n players, estimated from pairs of orders, as from `antithetic_orders`.

    Shares add up to v(all) - v(none) exactly, as those of each single order do. The standard error is that of a mean
    over pairs: pairs are independent, the two orders of a pair are not.

    Raises:
        KeyError: the worth of a prefix is missing.
        ValueError: there are no orders, or an odd number of them.
    """
    if not orders or len(orders) % 2:
        raise ValueError(f"orders must come in pairs, and at least one pair: got {len(orders)}")
    steps: list[list[_MarginalContribution]] = [[] for _ in range(n)]
    for order in orders:
        for position, player in enumerate(order):
            steps[player].append(_step(frozenset(order[:position]), player, worths, worth_range))
    return [_mean(of_player) for of_player in steps]


class _MarginalContribution(NamedTuple):
    """Bounds of a player's contribution to a coalition."""

    low: float
    high: float
    is_known: bool


def _step(coalition: Coalition, player: int, worths: Worths, worth_range: Range) -> _MarginalContribution:
    before, after = worths[coalition], worths[coalition | {player}]
    lows = [worth_range.low if worth is None else worth for worth in (before, after)]
    highs = [worth_range.high if worth is None else worth for worth in (before, after)]
    return _MarginalContribution(lows[1] - highs[0], highs[1] - lows[0], before is not None and after is not None)


def _mean(steps: Sequence[_MarginalContribution]) -> Share:
    low, high = (math.fsum(step[side] for step in steps) / len(steps) for side in (0, 1))
    if not all(step.is_known for step in steps):
        return Share(None, low, high, math.nan)
    pairs = [(first.low + second.low) / 2 for first, second in zip(steps[::2], steps[1::2], strict=True)]
    error = statistics.stdev(pairs) / math.sqrt(len(pairs)) if len(pairs) > 1 else math.nan
    return Share(low, low, high, error)
