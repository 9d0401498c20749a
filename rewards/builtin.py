"""The rewards with a name on the command line."""

from __future__ import annotations

from regrade.rewards.algebra import Reward
from regrade.rewards.components import (
    builds,
    complexity,
    generalizes,
    impact,
    readability,
    resolved,
    small_diff,
    style,
    tests,
    untampered,
)

quality: Reward = (
    0.5 * impact.otherwise(1.0)
    + 0.15 * style.otherwise(1.0)
    + 0.175 * complexity.otherwise(1.0)
    + 0.175 * small_diff.otherwise(1.0)
).named("quality")
"""Impact, style, complexity and size, whether or not the patch fixes the bug: never use it alone.

A part that is not applicable counts as flawless. Otherwise its weight would go to the others: style would weigh double
wherever no module depends on the change.
"""

_fix: Reward = 0.7 * tests + 0.3 * quality.only_if(resolved).named("quality")
default: Reward = _fix.only_if(builds, untampered).named("default")
"""A clean fix, and then its quality; 0 for a broken build or for tampering.

Quality counts only for a fix: a harmless edit without a fix has good quality as well, and if that paid, quality would
be half of the reward differences that a trainer sees within groups. Complexity and size together weigh more than twice
as much as style: a formatter repairs style, and nobody repairs superfluous code.
"""


def builtin_rewards() -> dict[str, Reward]:
    """Name -> reward."""
    of_patch = (tests, resolved, builds, impact, style, complexity, readability, small_diff, untampered)
    components = (*of_patch, generalizes)
    return {"default": default, **{component.name: component for component in components}}
