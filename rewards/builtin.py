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
    simplified,
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

refactoring: Reward = (
    (0.7 * simplified + 0.3 * complexity.only_if(simplified)).only_if(resolved, builds, untampered).named("refactoring")
)
"""For tasks that name a function to simplify and no failing test: its complexity falls as asked, and the tests still
pass.

The last 0.3 is paid once the function is simple enough, and shrinks with the sum of the complexity of all changed
functions. With a broken test, or tampering, the value is 0, as it is for an empty patch.
"""


def builtin_rewards() -> dict[str, Reward]:
    """Name -> reward."""
    of_patch = (tests, resolved, builds, impact, style, complexity, readability, small_diff, untampered)
    components = (*of_patch, generalizes)
    named = {component.name: component for component in components}
    return {"default": default, **named, "simplified": simplified, "refactoring": refactoring}
