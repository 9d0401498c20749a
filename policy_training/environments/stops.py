"""What answered for an attempt in training: a stage of a cascade. An evaluation always runs the whole suite."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from regrade.rewards.evidence import PartialRun, Prediction


class CascadeStage(StrEnum):
    """The stages of a cascade, from the cheapest to the surest."""

    STATIC = "static"
    """What is read from the patch alone: no change, a file that does not compile, tampering."""
    FAIL_TO_PASS = "fail_to_pass"
    """The FAIL_TO_PASS tests alone."""
    FILE = "file"
    """The FAIL_TO_PASS tests, and the tests of their files that the change can reach."""
    MODEL = "model"
    """A reward model, after these."""
    IMPACTED = "impacted"
    """All tests that the change can reach."""
    FULL = "full"
    """The whole suite."""


class Ground(StrEnum):
    """Why a cascade could stop."""

    EXACT = "exact"
    """No further test can change what is paid."""
    SEVERITY = "severity"
    """It broke something. How much more it breaks is charged by the declared severity."""
    NOTHING_BROKEN = "nothing_broken"
    """A FAIL_TO_PASS test fails, and no test of its file breaks. Breakage elsewhere was not looked for."""
    PREDICTED = "predicted"
    """A reward model is sure of the rest."""
    EXPECTED = "expected"
    """A reward model answers for everything: its expected pay is paid."""


@dataclass(frozen=True)
class Stop:
    """What a cascade knew of an attempt when it stopped."""

    stage: CascadeStage
    ground: Ground
    low: float
    """The least that the whole execution could have paid."""
    high: float
    """The most."""
    broke: bool
    """Was breakage seen, or the run stopped by the patch?"""
    seen: PartialRun
    """The last partial run; without outcomes: no test ran."""
    prediction: Prediction | None = None
    """Of the stage `model`."""
    paid: float | None = None
    """What the stage `model` pays; None: what was seen is paid."""
