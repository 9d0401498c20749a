"""The rewards that have a name on the command line."""

from __future__ import annotations

from regrade.rewards.algebra import Reward
from regrade.rewards.components import builds, complexity, impact, small_diff, style, tests, untampered

default: Reward = (
    (0.6 * tests + 0.2 * impact + 0.1 * style + 0.05 * complexity + 0.05 * small_diff)
    .only_if(builds, untampered)
    .named("default")
)
"""Did it fix the bug and break nothing, at what reach and with what care; nothing for a broken build or tampering."""


def builtin_rewards() -> dict[str, Reward]:
    """Name -> reward."""
    components: tuple[Reward, ...] = (tests, builds, impact, style, complexity, small_diff, untampered)
    return {"default": default, **{each.name: each for each in components}}
