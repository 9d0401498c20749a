"""Between what the values of a reward lie."""

from __future__ import annotations

import math

from regrade.rewards.algebra import AtLeast, Clip, Function, Minimum, Named, OnlyIf, Reward, Sum


def value_range(reward: Reward) -> tuple[float, float]:
    """The lowest and the highest value that the reward can have; infinite for a class of the user's own.

    Not every value between them need come about.
    """
    if isinstance(reward, Function | AtLeast):
        return 0.0, 1.0
    if isinstance(reward, Named):
        return value_range(reward.inner)
    if isinstance(reward, Sum):
        # Parts that do not apply hand their weights to the others, so that one of them may be the whole.
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
        ranges = [value_range(each) for each in reward.rewards]
        return min(low for low, _ in ranges), max(high for _, high in ranges)
    return -math.inf, math.inf
