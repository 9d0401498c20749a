"""Verdicts from two intervals and the margin: every combination of answers, and what the words say of it."""

from __future__ import annotations

import itertools
import math

import pytest

from regrade.evaluators.analysis.verdicts import Ends, answer_of, decide

GAINS: dict[str, Ends] = {
    "better": (0.01, 0.09),
    "non-inferior": (-0.01, 0.03),
    "open": (-0.05, 0.03),
    "worse": (-0.09, -0.01),
    "worse within": (-0.015, -0.005),
}
"""Answer -> an interval of a gain that has it, with a margin of 2 points."""


def loss(gain: Ends) -> Ends:
    return (-gain[1], -gain[0])


@pytest.mark.parametrize(
    ("fixing", "breaking", "verdict", "detail"),
    [
        ("better", "better", "improved", "fixes more, breaks less"),
        ("better", "non-inferior", "improved", "fixes more, non-inferior on breakage"),
        ("better", "worse within", "improved", "fixes more, breaks more within the margin"),
        ("non-inferior", "better", "improved", "breaks less, non-inferior on fixes"),
        ("better", "open", "inconclusive", "fixes more, non-inferiority on breakage not shown"),
        ("open", "better", "inconclusive", "breaks less, non-inferiority on fixes not shown"),
        ("better", "unmeasured", "inconclusive", "fixes more, breakage unmeasured"),
        ("better", "worse", "regressed", "fixes more, breaks more"),
        ("worse", "better", "regressed", "breaks less, fixes less"),
        ("open", "worse", "regressed", "breaks more, non-inferiority on fixes not shown"),
        ("worse", "unmeasured", "regressed", "fixes less, breakage unmeasured"),
        ("worse within", "non-inferior", "regressed", "fixes less within the margin, non-inferior on breakage"),
        ("non-inferior", "non-inferior", "no difference shown", "non-inferior on fixes and breakage"),
        ("open", "open", "no difference shown", "non-inferiority on fixes and breakage not shown"),
        ("open", "non-inferior", "no difference shown", "non-inferiority on fixes not shown, non-inferior on breakage"),
        ("open", "unmeasured", "no difference shown", "non-inferiority on fixes not shown, breakage unmeasured"),
    ],
)
def test_both_answers_make_the_verdict(fixing, breaking, verdict, detail):
    found = decide(GAINS.get(fixing), loss(GAINS[breaking]) if breaking in GAINS else None, 0.02)
    assert (found.verdict, found.detail) == (verdict, detail)
    assert (found.fixing.kind, found.breaking.kind) == (
        fixing.removesuffix(" within"),
        breaking.removesuffix(" within"),
    )


def test_a_policy_is_never_improved_by_one_question_alone():
    for fixing, breaking in itertools.product(GAINS, GAINS):
        found = decide(GAINS[fixing], loss(GAINS[breaking]), 0.02)
        kinds = {fixing, breaking}
        assert (found.verdict == "improved") == ("better" in kinds and not kinds & {"open", "worse"})
        assert (found.verdict == "no difference shown") == (not kinds - {"open", "non-inferior"})
        assert found.reason.startswith("It ")


def test_an_interval_that_excludes_0_is_never_called_open():
    """One rule: no test beside the interval can contradict it."""
    assert answer_of((1e-9, 0.3), "lower", 0.02).kind == "worse"
    assert answer_of((1e-9, 0.3), "higher", 0.02).kind == "better"
    assert answer_of((0.0, 0.3), "higher", 0.02).kind == "non-inferior"
    assert answer_of((-0.02, 0.3), "higher", 0.02).kind == "open", "a loss of just the margin is a loss of the margin"
    assert answer_of((math.nan, math.nan), "higher", 0.02).kind == "open"


def test_with_a_margin_of_0_the_other_question_must_be_won_too():
    assert decide(GAINS["better"], (-0.1, 0.0), 0.0).verdict == "inconclusive"
    assert decide(GAINS["better"], (0.0, 0.0), 0.0).verdict == "inconclusive"
    assert decide(GAINS["better"], (-0.1, -0.01), 0.0).verdict == "improved"


def test_an_improvement_that_hangs_on_missing_attempts_is_inconclusive():
    found = decide(GAINS["better"], loss(GAINS["non-inferior"]), 0.02, depends_on_missing=True)
    assert found.verdict == "inconclusive"
    assert found.detail == "fixes more, non-inferior on breakage, but not in the worst case of the missing attempts"
    worse = decide(GAINS["better"], loss(GAINS["worse"]), 0.02, depends_on_missing=True)
    assert (worse.verdict, worse.detail) == ("regressed", "fixes more, breaks more")
    open_anyway = decide(GAINS["better"], loss(GAINS["open"]), 0.02, depends_on_missing=True)
    assert "missing" not in open_anyway.detail


@pytest.mark.parametrize(
    ("fixing", "breaking", "reason"),
    [
        ("better", "open", "It fixes more, but is not shown to be non-inferior on breakage (margin 2 points)"),
        ("better", "better", "It fixes more and breaks less"),
        ("better", "worse", "It fixes more, but breaks more"),
        ("worse", "better", "It breaks less, but fixes less"),
        ("worse", "worse", "It fixes less and breaks more"),
        ("open", "worse", "It breaks more"),
        ("better", "unmeasured", "It fixes more, but its breakage is unmeasured"),
        ("non-inferior", "better", "It breaks less and is non-inferior on fixes (margin 2 points)"),
        ("open", "open", "It is not shown to differ, nor to be non-inferior on fixes or on breakage (margin 2 points)"),
    ],
)
def test_the_reason_is_a_sentence(fixing, breaking, reason):
    found = decide(GAINS[fixing], loss(GAINS[breaking]) if breaking in GAINS else None, 0.02)
    assert found.reason == reason
