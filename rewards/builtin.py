"""The rewards with a name on the command line."""

from __future__ import annotations

from regrade.rewards.algebra import Reward
from regrade.rewards.components import (
    builds,
    complexity,
    impact,
    learned,
    readability,
    resolved,
    small_diff,
    style,
    tests,
    untampered,
)

_QUALITY: tuple[tuple[float, Reward], ...] = (
    (0.15, impact),
    (0.045, style),
    (0.0525, complexity),
    (0.0525, small_diff),
)
_fix: Reward = sum((weight * part.only_if(resolved).named(part.name) for weight, part in _QUALITY), start=0.7 * tests)
default: Reward = _fix.only_if(builds, untampered).named("default")
"""A clean fix, and then its quality; 0 for a broken build or for tampering.

Quality counts only for a fix: a harmless edit without a fix has good quality as well, and if that paid, quality would
be half of the reward differences that a trainer sees within groups. Complexity and size together weigh more than twice
as much as style: a formatter repairs style, and nobody repairs superfluous code. All parts stand in one sum, so that
the weight of an inapplicable impact goes to all others in proportion, most of it to the tests.
"""


def builtin_rewards() -> dict[str, Reward]:
    """Name -> reward."""
    components = (tests, resolved, builds, impact, style, complexity, readability, small_diff, untampered, learned)
    return {"default": default, **{component.name: component for component in components}}
