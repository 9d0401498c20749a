"""Shapley values: how a worth that players earn together is shared out among them.

With v(S) the worth of the coalition S out of n players, player i is due

    phi_i = sum over S without i of |S|! (n - |S| - 1)! / n! * (v(S with i) - v(S))

the mean of what it adds over all orders in which the players can come in (Shapley 1953). These are the only values that
add up to v(all) - v(none), treat players alike that add the same everywhere, give nothing to one that never adds
anything, and add up over games. Where there are too many coalitions the mean is taken over sampled orders (Castro,
Gómez and Tejada 2009), each with its reverse: where worths are sums over single players and pairs of them, an order and
its reverse together are exact (Mitchell et al. 2022, JMLR 23, on antithetic permutations).

A worth may be unknown. It is then never taken for 0: the values that depend on it are unknown as well, and lie within
bounds where all worths do.
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
"""Coalition -> its worth; None where it is not known."""


class Range(NamedTuple):
    low: float
    high: float


UNBOUNDED = Range(-math.inf, math.inf)


@dataclass(frozen=True)
class Share:
    """What one player is due."""

    value: float | None
    """None: it depends on a worth that is not known."""
    low: float
    high: float
    """Between what the value lies, whatever the unknown worths are; both equal it where none matters."""
    standard_error: float = 0.0
    """Of the value, from sampling orders; 0 where all of them count. NaN where it is not known."""


def coalitions(n: int) -> list[Coalition]:
    """All 2^n coalitions of the players 0 to n - 1, small ones first."""
    return [frozenset(members) for size in range(n + 1) for members in combinations(range(n), size)]


def exact(n: int, worths: Worths, worth_range: Range = UNBOUNDED) -> list[Share]:
    """The share of each of n players, from the worths of all coalitions.

    Args:
        worth_range: between what every worth lies, for the bounds where some are unknown.

    Raises:
        KeyError: a coalition is missing.
    """
    shares = []
    for player in range(n):
        others = [each for each in coalitions(n) if player not in each]
        steps = [_step(each, player, worths, worth_range) for each in others]
        weights = [math.factorial(len(each)) * math.factorial(n - len(each) - 1) / math.factorial(n) for each in others]
        low, high = (math.fsum(w * step[side] for w, step in zip(weights, steps, strict=True)) for side in (0, 1))
        shares.append(Share(low if all(step.is_known for step in steps) else None, low, high))
    return shares


def interactions(n: int, worths: Worths) -> dict[tuple[int, int], float]:
    """For each pair of n players how much more, or less, they earn together than apart.

    The Shapley interaction index (Grabisch and Roubens 1999), the mean over coalitions S of the others of
    v(S with both) - v(S with i) - v(S with j) + v(S), sizes of S counting alike. A pair is left out where a worth that
    counts is not known.

    Raises:
        KeyError: a coalition is missing.
    """
    found = {}
    for pair in combinations(range(n), 2):
        one, other = (frozenset({player}) for player in pair)
        gains = []
        for rest in coalitions(n):
            if rest & {*pair}:
                continue
            weight = math.factorial(len(rest)) * math.factorial(n - len(rest) - 2) / math.factorial(n - 1)
            square = [worths[each] for each in (rest | one | other, rest | one, rest | other, rest)]
            known = [worth for worth in square if worth is not None]
            if len(known) < len(square):
                break
            gains.append(weight * (known[0] - known[1] - known[2] + known[3]))
        else:
            found[pair] = math.fsum(gains)
    return found


def antithetic_orders(n: int, pairs: int, seed: int) -> list[tuple[int, ...]]:
    """Random orders of n players, each followed by its reverse."""
    source = random.Random(seed)
    drawn = (tuple(source.sample(range(n), n)) for _ in range(pairs))
    return [each for order in drawn for each in (order, order[::-1])]


def prefixes(order: Sequence[int]) -> Iterator[Coalition]:
    """The coalitions that come about as the players come in: of none of them, of the first, ..., of all."""
    return (frozenset(order[:count]) for count in range(len(order) + 1))


def sampled(n: int, orders: Sequence[Sequence[int]], worths: Worths, worth_range: Range = UNBOUNDED) -> list[Share]:
    """The share of each of n players, estimated from orders in pairs, as `antithetic_orders` gives them.

    They add up to v(all) - v(none) exactly, as the shares of each single order do. The standard error is that of a mean
    over pairs, which are independent while the two of a pair are not.

    Raises:
        KeyError: the worth of a prefix is missing.
        ValueError: there are no orders, or an odd number of them.
    """
    if not orders or len(orders) % 2:
        raise ValueError(f"{len(orders)} orders: pairs of them are needed")
    steps: list[list[_MarginalContribution]] = [[] for _ in range(n)]
    for order in orders:
        for place, player in enumerate(order):
            steps[player].append(_step(frozenset(order[:place]), player, worths, worth_range))
    return [_mean(each) for each in steps]


class _MarginalContribution(NamedTuple):
    """What a player adds to a coalition, between two bounds."""

    low: float
    high: float
    is_known: bool


def _step(others: Coalition, player: int, worths: Worths, worth_range: Range) -> _MarginalContribution:
    before, after = worths[others], worths[others | {player}]
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
