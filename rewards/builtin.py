"""The rewards that have a name on the command line."""

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
"""At what reach and with what care, whether or not it helped: never to be had alone."""

default: Reward = ((0.7 * tests + 0.3 * quality.only_if(resolved).named("quality")).only_if(builds, untampered)).named(
    "default"
)
"""Did it fix the bug and break nothing; then, at what reach and with what care. Nothing for a broken build or for
tampering.

Quality stands behind the tests: a harmless edit that fixes nothing is clean as well, and if that is paid for, half of
what a trainer sees within groups is quality.
"""


def builtin_rewards() -> dict[str, Reward]:
    """Name -> reward."""
    components = (tests, resolved, builds, impact, style, complexity, readability, small_diff, untampered, learned)
    return {"default": default, **{each.name: each for each in components}}
