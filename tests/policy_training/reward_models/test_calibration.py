"""Calibration: probabilities that mean what they say, and doubt that falls with what was executed."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrade.policy_training.reward_models.calibration import (
    BIN,
    MOST_BINS,
    Calibration,
    expected_calibration_error,
    log_loss,
)

answers = st.lists(st.tuples(st.floats(-10, 10), st.booleans(), st.integers(0, 5)), min_size=1, max_size=200)


def fitted(known: list[tuple[float, bool, int]]) -> Calibration:
    logits, outcomes, clusters = zip(*known, strict=True)
    return Calibration.fit(np.array(logits), np.array(outcomes, dtype=float), clusters)


@given(answers, st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=20))
def test_probabilities_rise_with_the_logit_and_margins_stay_sound(
    known: list[tuple[float, bool, int]], asked: list[float]
) -> None:
    calibration = fitted(known)
    logits = np.array(sorted(asked))
    probabilities, margins = calibration.probabilities(logits), calibration.margins(logits)
    assert all(one <= other for one, other in pairwise(probabilities))
    assert ((probabilities >= 0) & (probabilities <= 1)).all()
    assert ((margins > 0) & (margins <= 1)).all()
    assert Calibration.from_json(calibration.to_json()) == calibration


def drawn(count: int, temperature: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are `temperature` times too large, and outcomes."""
    chance = np.random.default_rng(seed)
    true = chance.normal(0, 1.5, count)
    return true * temperature, (chance.random(count) < 1 / (1 + np.exp(-true))).astype(float)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_the_temperature_is_found_and_corrects_overconfidence(temperature: float) -> None:
    logits, outcomes = drawn(6000, temperature)
    calibration = Calibration.fit(logits, outcomes, range(6000))
    assert calibration.temperature == pytest.approx(temperature, rel=0.1)
    grid = np.exp(np.linspace(-3, 3, 601))
    best = min(log_loss(logits / each, outcomes) for each in grid)
    assert log_loss(logits / calibration.temperature, outcomes) <= best + 1e-6
    fresh, new = drawn(6000, temperature, seed=1)
    error = expected_calibration_error(calibration.probabilities(fresh), new)
    assert error < 0.02
    if temperature != 1.0:
        assert error < expected_calibration_error(1 / (1 + np.exp(-fresh)), new) / 2


def test_the_margin_covers_the_share_that_new_answers_show() -> None:
    """Of 200 calibrations, in at least 93 % (95 % is meant) of the bins it covers the true mean."""
    covered = []
    for seed in range(40):
        logits, outcomes = drawn(5 * BIN, 2.0, seed)
        calibration = Calibration.fit(logits, outcomes, range(len(logits)))
        fresh, _ = drawn(4000, 2.0, seed + 1000)
        bins = np.searchsorted(np.array(calibration.edges), fresh)
        gaps = calibration.probabilities(fresh) - 1 / (1 + np.exp(-fresh / 2.0))
        for number in range(len(calibration.shares)):
            covered.append(abs(gaps[bins == number].mean()) <= calibration.margins(fresh[bins == number])[0])
    assert np.mean(covered) >= 0.93


def test_doubt_falls_with_independent_answers_and_rises_where_the_model_is_wrong() -> None:
    logits, outcomes = drawn(400, 1.0)
    alone = Calibration.fit(logits, outcomes, range(400)).margins(logits)
    in_tasks = Calibration.fit(logits, outcomes, [index // 8 for index in range(400)]).margins(logits)
    few = Calibration.fit(logits[:20], outcomes[:20], range(20)).margins(logits)
    assert alone.mean() < in_tasks.mean()
    assert alone.mean() < few.mean()
    shifted = np.where(logits > np.median(logits), 0.0, outcomes)  # what it is surest of is never right
    wrong = Calibration.fit(logits, shifted, range(400))
    assert wrong.margins(np.array([logits.max()]))[0] > alone.max()


def test_beyond_the_held_out_logits_the_outermost_bin_counts() -> None:
    logits, outcomes = drawn(BIN * MOST_BINS, 1.0)
    calibration = Calibration.fit(logits, outcomes, range(len(logits)))
    assert len(calibration.shares) == MOST_BINS
    ends = calibration.margins(np.array([logits.min(), logits.min() - 100, logits.max(), logits.max() + 100]))
    assert ends[0] == ends[1]
    assert ends[2] == ends[3]


def test_one_outcome_alone_leaves_the_temperature_finite() -> None:
    calibration = fitted([(1.0, True, 0), (2.0, True, 1)])
    assert 0.04 < calibration.temperature < 21
    assert calibration.margins(np.array([1.5]))[0] > 0.3


def test_the_error_of_calibration() -> None:
    assert expected_calibration_error(np.array([0.9, 0.9]), np.array([1.0, 0.0])) == pytest.approx(0.4)
    assert expected_calibration_error(np.array([]), np.array([])) == 0.0


def test_what_is_no_calibration_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one answer"):
        Calibration.fit(np.array([]), np.array([]), [])
    stored = fitted([(1.0, True, 0), (2.0, False, 1)]).to_json()
    for damaged in ({}, {**stored, "temperature": 0}, {**stored, "shares": []}, {**stored, "edges": None}):
        with pytest.raises((ValueError, KeyError, TypeError)):
            Calibration.from_json(damaged)
