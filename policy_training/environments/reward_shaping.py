"""The training reward of an attempt, from its test results."""

from __future__ import annotations

from dataclasses import dataclass

from regrade.datasets.rollouts import Rollout
from regrade.rewards.evidence import End, TestRun


@dataclass(frozen=True)
class Shaping:
    """The weights of the training reward. It can be negative: breakage must be worse than no change.

    A clean fix has reward 1. A partial fix without breakage has `partial` times the share of FAIL_TO_PASS tests that
    pass. With breakage, whatever was fixed, the reward is -`breakage` times (1/2 + 1/2 the share of PASS_TO_PASS tests
    that break): the first broken test costs the most. A file that does not compile counts as all of them broken.

    With the defaults, the expected reward of an edit is positive if a fix is at least about two thirds as likely as
    breakage; otherwise no change is better. With a lower `breakage` or a positive `no_op`, trained policies edited more
    often: they broke more and fixed no more.
    """

    partial: float = 0.2
    """Reward of a full share of FAIL_TO_PASS tests that pass, in an attempt that is no clean fix. Default: 0.2."""
    breakage: float = 1.2
    """Penalty of an attempt that breaks all PASS_TO_PASS tests. Default: 1.2."""
    malformed: float = 0.6
    """Penalty of a malformed answer. Default: 0.6."""
    no_op: float = 0.0
    """Penalty of an answer without a change. Default: 0."""
    tampering: float = 1.2
    """Penalty of an attempt that tampers with the evaluation, whatever its test results. Default: 1.2."""


def training_reward(
    rollout: Rollout,
    run: TestRun | None,
    shaping: Shaping,
    *,
    is_empty: bool = False,
    compiles: bool = True,
    tampered: bool = False,
) -> float | None:
    """The reward of an attempt, at most 1; None if it is unscored. See `Shaping`.

    Args:
        is_empty: the patch leaves the tree as it is.
    """
    if not rollout.well_formed:
        return -shaping.malformed
    if is_empty:
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
