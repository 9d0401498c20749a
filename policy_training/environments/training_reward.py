"""From the verdict of a reward to the number that a trainer maximises.

Every `Reward` trains: its value in [0, 1] is what an attempt earns. Training often needs more than that: breakage must
be worse than no change, an unreadable answer has no patch to judge. `TrainingReward` adds exactly this.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import msgspec

from regrade.datasets.errors import UserError
from regrade.rewards.algebra import Function, Reward, own_code
from regrade.rewards.breakdown import Breakdown
from regrade.rewards.components import tests
from regrade.rewards.evidence import End, TestRun
from regrade.rewards.loading import load_named
from regrade.rewards.source_digest import source_digest

CAUSES = ("malformed", "no_op", "uncompilable", "tampering", "breakage")
"""What can have a value of its own in the place of the reward's; the first one that applies counts."""

LARGEST_PAY = 1e12
"""Largest number of a training reward: far beyond any use, and far from where sums overflow."""


class Payment(NamedTuple):
    """The training value of an attempt."""

    value: float | None
    """None: the attempt is unscored, which is not 0."""
    cause: str = ""
    """The cause whose own value it is (one of `TrainingReward.prices`); empty: the reward decided."""


UNSCORED = Payment(None)


@dataclass(frozen=True, kw_only=True)
class TrainingReward:
    """A map from the `Breakdown` of an attempt to its training value: `scale` x value + `offset`, with fixed values in
    the place of some causes, limited to [`low`, `high`].

    The first cause that applies counts: `malformed`, `no_op`, `uncompilable`, `tampering`, `breakage`. With None, a
    cause has no value of its own: the reward decides alone. An attempt with a value of its own for `no_op` or
    `uncompilable` is not executed. Training values may be negative.

    Raises:
        UserError: a number is beyond `LARGEST_PAY`, or `low` exceeds `high`.
    """

    reward: Reward
    """What an attempt earns otherwise."""
    scale: float = 1.0
    """Factor of the reward's value. Default: 1."""
    offset: float = 0.0
    """Added to the scaled value. Default: 0."""
    malformed: float = 0.0
    """An answer from which no patch can be read (no reward can judge it), or whose patch does not apply. Default: 0."""
    no_op: float | None = None
    """A patch that leaves the tree as it is. Default: None."""
    uncompilable: float | None = None
    """A patch that leaves a Python file that does not compile. Default: None."""
    tampering: float | None = None
    """A patch with a conclusive sign of tampering, whatever its test results. Default: None."""
    breakage: float | None = None
    """A patch that breaks all PASS_TO_PASS tests, or that stops the run. If it breaks a share of them, whatever it
    fixes, the value is this times (1/2 + 1/2 the share): the first broken test costs the most. Default: None."""
    low: float = -math.inf
    """Lower limit. Default: none."""
    high: float = math.inf
    """Upper limit. Default: none."""

    def __post_init__(self) -> None:
        if not isinstance(self.reward, Reward):
            raise UserError(
                f"TrainingReward: reward is {self.reward!r}, not a reward: decorate a function with @reward"
            )
        of_causes = {name: getattr(self, name) for name in CAUSES[1:]}
        needed = {"scale": self.scale, "offset": self.offset, "malformed": self.malformed}
        for name, value in {
            **needed,
            **{name: value for name, value in of_causes.items() if value is not None},
        }.items():
            if not _is_number(value) or not abs(value) <= LARGEST_PAY:
                raise UserError(
                    f"TrainingReward: {name} is {value!r}; give a number from -{LARGEST_PAY:g} to {LARGEST_PAY:g}"
                )
        if not (_is_number(self.low) and _is_number(self.high) and self.low <= self.high):
            raise UserError(f"TrainingReward: low is {self.low!r} and high is {self.high!r}; give numbers, low <= high")

    def has_own_value(self, *, is_empty: bool, compiles: bool) -> bool:
        """Is the value of such a patch known without executing it?"""
        return (is_empty and self.no_op is not None) or (not compiles and self.uncompilable is not None)

    @property
    def prices(self) -> tuple[str, ...]:
        """The causes with a value of their own, in the order in which they count."""
        return tuple(name for name in CAUSES if getattr(self, name) is not None)

    def payment(
        self,
        breakdown: Breakdown | None,
        run: TestRun | None,
        *,
        well_formed: bool = True,
        is_empty: bool = False,
        compiles: bool = True,
        tampered: bool | None = False,
    ) -> Payment:
        """What an attempt is paid.

        Args:
            breakdown: the reward's verdict; None if the attempt was not executed.
            run: the test results; None if they are not known.
            is_empty: the patch leaves the tree as it is.
            compiles: does every Python file of the patched tree that it changes compile?
            tampered: None if that is not known.
        """
        if not well_formed or (run is not None and run.end is End.NOT_APPLIED):
            return self._paid(self.malformed, "malformed")
        if is_empty and self.no_op is not None:
            return self._paid(self.no_op, "no_op")
        if not compiles and self.uncompilable is not None:
            return self._paid(self.uncompilable, "uncompilable")
        if tampered and self.tampering is not None:
            return self._paid(self.tampering, "tampering")
        if tampered is None and self.tampering is not None:
            return UNSCORED
        if self.breakage is not None:
            if run is None:
                return UNSCORED
            if run.broken or run.end is not End.COMPLETED:
                share = len(run.broken) / len(run.pass_to_pass) if run.pass_to_pass else 1.0
                return self._paid(self.breakage * (0.5 + 0.5 * share), "breakage")
        if breakdown is None or breakdown.value is None:
            return UNSCORED
        return self._paid(self.scale * breakdown.value + self.offset)

    def _paid(self, value: float, cause: str = "") -> Payment:
        return Payment(min(max(value, self.low), self.high), cause)

    def to_json(self) -> dict[str, Any]:
        """The reward with its composition, all numbers, and the digest of each function of the user's own; for the
        record of a run."""
        numbers = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "reward"}
        finite = {name: None if value is None or math.isinf(value) else value for name, value in numbers.items()}
        sources = {
            code.name: code.source if isinstance(code, Function) else source_digest(type(code))
            for code in own_code(self.reward)
        }
        return {
            "reward": self.reward.name,
            "composition": msgspec.to_builtins(self.reward, enc_hook=str),
            **finite,
            **({"sources": dict(sorted(sources.items()))} if sources else {}),
        }


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)


DEFAULT_TRAINING_REWARD = TrainingReward(
    reward=tests, malformed=-0.6, no_op=0.0, uncompilable=-1.2, tampering=-1.2, breakage=-1.2
)
"""What training pays by default: 1 for a clean fix, up to 0.2 for a partial one, less than nothing for breakage.

The expected value of an edit is positive if a fix is at least about two thirds as likely as breakage; otherwise no
change is better. With a lower price of breakage, or a price of no change, trained policies edited more often: they
broke more and fixed no more.
"""


def training_reward_of(reward: Reward | TrainingReward) -> TrainingReward:
    """A reward as it trains: itself, or its plain value."""
    return reward if isinstance(reward, TrainingReward) else TrainingReward(reward=reward)


def load_training_reward(spec: str) -> TrainingReward:
    """The training reward that `spec` names: a built-in reward, or `FILE:NAME` of a `Reward` or a `TrainingReward`.

    Raises:
        UserError: unknown reward, missing file, an error in the file, or a name of something else.
    """
    return training_reward_of(load_named(spec, (Reward, TrainingReward)))
