"""The result of one reward function."""

from __future__ import annotations

import math
from dataclasses import dataclass

from regrade.rewards.errors import OutOfBoundsError, RewardError

LARGEST_WEIGHT = 1e6
"""With larger weights, the parts of a breakdown no longer add up exactly."""


@dataclass(frozen=True, slots=True)
class Score:
    """A value in [0, 1], or none, with its reason.

    Raises:
        RewardError: the value is not a number in [0, 1], or the reason is not a string.
    """

    value: float | None
    why: str = ""

    def __post_init__(self) -> None:
        if self.why.__class__ is not str:
            raise RewardError(f"Score(..., why={self.why!r}): the reason must be a string")
        if self.value is None:
            return
        try:
            number = float(self.value if not isinstance(self.value, str | bytes) else "text")
        except (TypeError, ValueError):
            problem = f"Score({self.value!r}) is not a number: pass a float in [0, 1], or use Score.unscored(why)"
            raise RewardError(problem) from None
        if not 0.0 <= number <= 1.0:
            advice = "divide by the largest possible value" if number > 1.0 else "pass a number from 0 to 1"
            raise OutOfBoundsError(f"Score({number!r}) is outside [0, 1]: {advice}")
        object.__setattr__(self, "value", number)

    @classmethod
    def unscored(cls, why: str) -> Score:
        """Not applicable to this patch: the other parts receive the weight. This is not zero."""
        return cls(None, why)


def checked_weight(weight: float, name: str) -> float:
    """The weight as a float.

    Raises:
        RewardError: it is negative, not finite, or above LARGEST_WEIGHT.
    """
    try:
        number = float(weight)
    except (TypeError, ValueError):
        raise RewardError(f"{weight!r} * {name}: a weight must be a number") from None
    if not math.isfinite(number) or number < 0:
        raise RewardError(
            f"{number!r} * {name}: a weight must be finite and not negative "
            "(for a penalty, use a reward that decreases with the defect)"
        )
    if number > LARGEST_WEIGHT:
        raise RewardError(f"{number:g} * {name}: a weight must be at most {LARGEST_WEIGHT:g}")
    return number
