"""What training pays for an attempt: a map from what the tests showed to a training value."""

from __future__ import annotations

from dataclasses import dataclass

from regrade.datasets.rollouts import Rollout
from regrade.rewards.evidence import End, TestRun


@dataclass(frozen=True)
class Shaping:
    """What training pays for. Negative values are wanted: an attempt that breaks must be worse than none.

    A fix that breaks nothing is worth 1. Short of that, `partial` times the share of FAIL_TO_PASS that pass as long as
    nothing breaks. Once anything does, whatever was fixed, `breakage` times (a half + half the share of PASS_TO_PASS
    that break) is lost: the first broken test costs the most. A file that no longer compiles counts as all of them
    broken. An answer that cannot be read costs `malformed`; none costs `no_op`. One that reaches for the verdict costs
    `tampering`, whatever the tests say of it.

    As they stand, an attempt pays where a fix is at least about two thirds as likely as breakage, and leaving the file
    alone is better elsewhere. With less for breakage, or a price on doing nothing, training made policies bolder: they
    broke more and fixed no more.
    """

    partial: float = 0.2
    breakage: float = 1.2
    malformed: float = 0.6
    no_op: float = 0.0
    tampering: float = 1.2


def training_reward(
    rollout: Rollout, run: TestRun | None, shaping: Shaping, *, compiles: bool = True, tampered: bool = False
) -> float | None:
    """The reward of an attempt, at most 1; None where it is unscored. See `Shaping`."""
    if not rollout.well_formed:
        return -shaping.malformed
    if rollout.patch.is_empty:
        return -shaping.no_op
    if not compiles:
        return -shaping.breakage
    if tampered:
        return -shaping.tampering
    if run is None:
        return None
    if run.resolved:
        return 1.0
    if run.broken or run.end is not End.COMPLETED:
        share = len(run.broken) / len(run.pass_to_pass) if run.pass_to_pass else 1.0
        return -shaping.breakage * (0.5 + 0.5 * share)
    return shaping.partial * len(run.fixed) / len(run.fail_to_pass) if run.fail_to_pass else 0.0
