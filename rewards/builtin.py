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

quality: Reward = (0.5 * impact + 0.25 * style + 0.125 * complexity + 0.125 * small_diff).named("quality")
"""Impact, style, complexity and size, whether or not the patch fixes the bug: never use it alone."""

_fix: Reward = 0.7 * tests + 0.3 * quality.only_if(resolved).named("quality")
default: Reward = _fix.only_if(builds, untampered).named("default")
"""A clean fix, and then its quality; 0 for a broken build or for tampering.

Quality counts only for a fix: a harmless edit without a fix has good quality as well, and if that paid, quality would
be half of the reward differences that a trainer sees within groups.
"""


def builtin_rewards() -> dict[str, Reward]:
    """Name -> reward."""
    components = (tests, resolved, builds, impact, style, complexity, readability, small_diff, untampered, learned)
    return {"default": default, **{component.name: component for component in components}}
