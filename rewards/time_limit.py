"""The time limit of a reward's own computation."""

from __future__ import annotations

import math
import os

from regrade.rewards.errors import RewardError

VARIABLE = "REGRADE_REWARD_SECONDS"
SECONDS = 60.0
"""Default wall time of one evaluation of a reward. The built-in ones take less than a millisecond."""


def longest_seconds() -> float:
    """The wall time that one evaluation of a reward may take: `$REGRADE_REWARD_SECONDS`, or the default.

    Raises:
        RewardError: the variable is no number above 0.
    """
    text = os.environ.get(VARIABLE, "")
    if not text:
        return SECONDS
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not seconds > 0:
        raise RewardError(f"${VARIABLE} is {text!r}: give the seconds that a reward may take, such as 600, or inf")
    return seconds
