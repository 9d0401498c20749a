"""What a score means: probabilities that rise with it, and doubt that falls with what was executed."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrade.datasets.errors import UserError
from regrade.policy_training.reward_models.calibration import FILE, Chance, ScoreCalibration, expected_calibration_error

answers = st.lists(st.tuples(st.floats(-10, 10), st.booleans()), min_size=1, max_size=60)


@given(answers, st.lists(st.floats(-20, 20), min_size=2, max_size=20))
def test_probabilities_rise_with_the_score_and_intervals_stay_sound(
    known: list[tuple[float, bool]], asked: list[float]
) -> None:
    found = ScoreCalibration(tuple(score for score, _ in known), tuple(good for _, good in known))
    chances = [found.chance(score) for score in sorted(asked)]
    assert all(0.0 <= chance.probability <= 1.0 and 0.0 < chance.doubt <= 0.5 for chance in chances)
    assert all(one.probability <= other.probability for one, other in pairwise(chances))


def test_the_mean_is_kept() -> None:
    chance = random.Random(0)
    scores = [chance.gauss(0, 1) for _ in range(400)]
    verified = [chance.random() < 1 / (1 + 2.7**-score) for score in scores]
    found = ScoreCalibration(tuple(scores), tuple(verified))
    chances = [found.chance(score) for score in scores]
    assert sum(each.probability for each in chances) == pytest.approx(sum(verified))
    assert expected_calibration_error(chances, verified) < 0.02
    fresh = [chance.gauss(0, 1) for _ in range(2000)]
    outcomes = [chance.random() < 1 / (1 + 2.7**-score) for score in fresh]
    assert expected_calibration_error([found.chance(score) for score in fresh], outcomes) < 0.1
    assert found.chance(3.0).probability > 0.8 > 0.3 > found.chance(-3.0).probability


def test_doubt_falls_with_what_was_executed() -> None:
    few = ScoreCalibration((0.0, 1.0), (False, True)).chance(1.0)
    many = ScoreCalibration((0.0,) * 50 + (1.0,) * 50, (False,) * 50 + (True,) * 50).chance(1.0)
    assert few.probability == many.probability == 1.0
    assert few.doubt > 0.35
    assert many.doubt < 0.05


def test_the_error_of_calibration() -> None:
    assert expected_calibration_error([Chance(0.9, 0), Chance(0.9, 0)], [True, False]) == pytest.approx(0.4)
    assert expected_calibration_error([], []) == 0.0


def test_it_is_kept_beside_the_model_and_damage_is_told(tmp_path: Path) -> None:
    assert ScoreCalibration.load(tmp_path) is None
    made = ScoreCalibration((0.5, -1.25), (True, False))
    made.save(tmp_path)
    assert ScoreCalibration.load(tmp_path) == made
    for damaged in ("", "{}", '{"scores": [1], "verified": []}', '{"scores": ["x"], "verified": [true]}'):
        (tmp_path / FILE).write_text(damaged)
        with pytest.raises(UserError, match="damaged"):
            ScoreCalibration.load(tmp_path)
