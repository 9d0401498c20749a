"""The answer of one reward function."""

from __future__ import annotations

import math
from dataclasses import dataclass

from regrade.rewards.errors import RewardError


@dataclass(frozen=True, slots=True)
class Score:
    """A value in [0, 1], or none, with its reason.

    Raises:
        RewardError: the value is no number in [0, 1].
    """

    value: float | None
    why: str = ""

    def __post_init__(self) -> None:
        if self.value is None:
            return
        try:
            number = float(self.value)
        except (TypeError, ValueError):
            problem = f"Score({self.value!r}) is no number: give a float in [0, 1], or use Score.unscored(why)"
            raise RewardError(problem) from None
        if not 0.0 <= number <= 1.0:
            raise RewardError(f"Score({number!r}) is outside [0, 1]: divide by the largest possible value")
        object.__setattr__(self, "value", number)

    @classmethod
    def unscored(cls, why: str) -> Score:
        """Not applicable to this patch: the weight goes to the other parts. This is not zero."""
        return cls(None, why)


def checked_weight(weight: float, name: str) -> float:
    """The weight as a float.

    Raises:
        RewardError: it is negative or not finite.
    """
    try:
        number = float(weight)
    except (TypeError, ValueError):
        raise RewardError(f"{weight!r} * {name}: a weight must be a number") from None
    if not math.isfinite(number) or number < 0:
        raise RewardError(
            f"{number!r} * {name}: a weight must be finite and not negative "
            "(for a penalty, write a reward that falls as things get worse)"
        )
    return number
