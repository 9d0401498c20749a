"""The range of a reward's values."""

from __future__ import annotations

import math

from regrade.rewards.algebra import AtLeast, Clip, Function, Minimum, Named, OnlyIf, Reward, Sum


def value_range(reward: Reward) -> tuple[float, float]:
    """Bounds on the reward's values: (lowest, highest). Infinite for a class of the user's own.

    The reward need not reach them.
    """
    if isinstance(reward, Function | AtLeast):
        return 0.0, 1.0
    if isinstance(reward, Named):
        return value_range(reward.inner)
    if isinstance(reward, Sum):
        # Inapplicable parts pass their weights to the others, so one part may have all the weight.
        ranges = [value_range(term) for weight, term in reward.terms if weight]
        weight = math.fsum(weight for weight, _ in reward.terms)
        return (weight * min(low for low, _ in ranges), weight * max(high for _, high in ranges)) if ranges else (0, 0)
    if isinstance(reward, OnlyIf):
        low, high = value_range(reward.inner)
        return min(0.0, low), max(0.0, high)
    if isinstance(reward, Clip):
        low, high = value_range(reward.inner)
        return min(max(low, reward.low), reward.high), min(max(high, reward.low), reward.high)
    if isinstance(reward, Minimum):
        ranges = [value_range(term) for term in reward.rewards]
        return min(low for low, _ in ranges), max(high for _, high in ranges)
    return -math.inf, math.inf
