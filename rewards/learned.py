"""The reward `learned`: what a reward model predicts, as a part of any composition."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from regrade.datasets.errors import UserError
from regrade.rewards.algebra import Judgement, Reward
from regrade.rewards.evidence import EvidenceSet, Prediction
from regrade.rewards.reward_model_folders import prediction_of

PREFIX = "learned:"
"""On the command line: `--reward learned:FOLDER`."""


@dataclass(frozen=True)
class Learned(Reward):
    """The probability that a reward model predicts for a clean fix, less its doubt (at least 0).

    This is the lower end of the interval, so that patches unlike the model's training data do not pay. It saves
    executions and certifies nothing: never use it as a gate or alone. Not applicable if the model cannot evaluate the
    patch.
    """

    folder: str
    """The model's folder."""

    @property
    def name(self) -> str:
        return f"learned({Path(self.folder).name})"

    @cached_property
    def kind(self) -> type[Prediction]:
        """The type of evidence that this model predicts."""
        return prediction_of(self.folder)

    @property
    def needs(self) -> frozenset[type]:
        return frozenset({self.kind})

    def judge(self, evidence: EvidenceSet) -> Judgement:
        prediction: Prediction = evidence.records[self.kind]
        if prediction.resolved is None:
            return Judgement(None, f"{prediction.model}: {prediction.why}")
        interval = f"{prediction.resolved:.2f} \N{PLUS-MINUS SIGN} {prediction.doubt:.2f}"
        return Judgement(
            prediction.lower, "; ".join(filter(None, (f"{prediction.model} predicts {interval}", prediction.cut)))
        )


def learned(folder: str | Path) -> Learned:
    """What the reward model in a folder predicts for a clean fix: see `Learned`.

    The scorer loads the model when it first needs a prediction; composing a reward loads nothing.

    Raises:
        UserError: the folder contains no reward model, or one of another version.
    """
    reward = Learned(str(folder))
    _ = reward.kind  # an error here, and not after the tests have run
    return reward


def learned_of(spec: str) -> Learned | None:
    """The reward of `learned:FOLDER`; None: `spec` names another reward.

    Raises:
        UserError: no folder, or see `learned`.
    """
    if spec == PREFIX.rstrip(":") or spec == PREFIX:
        raise UserError(
            f"reward {spec!r} names no reward model: pass {PREFIX}FOLDER, the output of `regrade train reward-model`"
        )
    return learned(spec.removeprefix(PREFIX)) if spec.startswith(PREFIX) else None
