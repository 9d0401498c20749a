"""Figures of predictions: equal to their definitions, and intervals that hold for clustered tasks."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu

from regrade.evaluators.analysis import prediction_quality as quality
from regrade.evaluators.analysis.prediction_quality import TestedAttempts as Tested

attempts = st.lists(
    st.tuples(
        st.booleans(), st.sampled_from([0.0, 0.1, 0.5, 0.9]), st.integers(0, 4), st.sampled_from([0.0, 0.5, 1.0])
    ),
    min_size=1,
    max_size=14,
)


def table(found: list[tuple[bool, float, int, float]]) -> tuple[Tested, np.ndarray]:
    outcomes, scores, tasks, rewards = zip(*found, strict=True)
    names = [f"t{task}" for task in tasks]
    data = Tested.of(outcomes, rewards, names, [f"f{task // 2}" for task in tasks], [f"r{task % 2}" for task in tasks])
    return data, np.array(scores)


@given(attempts)
def test_figures_are_those_of_their_definitions(found: list[tuple[bool, float, int, float]]) -> None:
    data, scores = table(found)
    good, bad = scores[data.outcomes], scores[~data.outcomes]
    area = quality.figure(data, quality.auc(data, scores))
    if len(good) and len(bad):
        assert area.value == pytest.approx(mannwhitneyu(good, bad).statistic / (len(good) * len(bad)))
    else:
        assert math.isnan(area.value)
    assert quality.figure(data, quality.brier(data, scores)).value == pytest.approx(
        np.mean((scores - data.outcomes) ** 2)
    )
    gap = sum(
        abs(scores[rows].mean() - data.outcomes[rows].mean()) * rows.sum()
        for rows in (scores == value for value in np.unique(scores))
    ) / len(data)  # the scores lie in different bins
    assert quality.figure(data, quality.calibration_error(data, scores)).value == pytest.approx(gap)
    assert sum(each.attempts for each in quality.reliability(data, scores)) == len(data)


@given(attempts, st.integers(1, 5))
def test_selection_is_that_of_all_draws(found: list[tuple[bool, float, int, float]], n: int) -> None:
    data, scores = table(found)
    by_task = quality.best_of(data, scores, n)
    ordered = quality.pair_accuracy(data, scores)
    for number, task in enumerate(data.table["task"]):
        rows = [index for index, name in enumerate(data.tasks) if name == task]
        draws = list(itertools.combinations(rows, min(n, len(rows))))
        shares = []
        for draw in draws:
            best = max(scores[row] for row in draw)
            shares.append(np.mean([data.outcomes[row] for row in draw if scores[row] == best]))
        # Among equal scores of one draw each is chosen as often, over all draws as well.
        assert by_task[number] == pytest.approx(np.mean(shares))
        pairs = [(a, b) for a, b in itertools.permutations(rows, 2) if data.rewards[a] > data.rewards[b]]
        right = [1.0 if scores[a] > scores[b] else 0.5 if scores[a] == scores[b] else 0.0 for a, b in pairs]
        assert ordered[number] == pytest.approx(np.mean(right)) if right else math.isnan(ordered[number])


def simulated(chance: np.random.Generator, functions: int = 60) -> tuple[Tested, np.ndarray]:
    """Two repositories; scores of one function share an error, so attempts are far from independent."""
    rows = []
    for function in range(functions):
        shift = chance.normal(0, 1)
        for task in range(int(chance.integers(1, 5))):
            for _ in range(6):
                outcome = bool(chance.random() < 0.4)
                rows.append((outcome, function, task, outcome + shift + chance.normal(0, 1)))
    outcomes, numbers, tasks, scores = zip(*rows, strict=True)
    names = [f"f{number}" for number in numbers]
    data = Tested.of(
        outcomes,
        [float(each) for each in outcomes],
        [f"{name}/{task}" for name, task in zip(names, tasks, strict=True)],
        names,
        ["r0" if number % 2 else "r1" for number in numbers],
    )
    return data, np.array(scores)


def test_intervals_of_the_auc_hold_for_clustered_attempts() -> None:
    chance = np.random.default_rng(0)
    # The difference of two scores is N(1, 4): a shift and a noise of variance 1 on both sides.
    truth = 0.5 * (1 + math.erf(0.5 / math.sqrt(2)))
    found = [
        quality.figure(data, quality.auc(data, scores)) for data, scores in (simulated(chance) for _ in range(300))
    ]
    inside = np.mean([figure.interval.low <= truth <= figure.interval.high for figure in found])
    assert 0.92 <= inside <= 0.98
    assert np.mean([figure.value for figure in found]) == pytest.approx(truth, abs=0.01)


def test_a_difference_is_paired() -> None:
    data, scores = simulated(np.random.default_rng(1))
    one, other = quality.auc(data, scores), quality.auc(data, scores - 0.02 * data.outcomes)
    gain = quality.difference(data, one, other)
    assert gain.value == pytest.approx(quality.figure(data, one).value - quality.figure(data, other).value)
    assert gain.interval.low > 0
    single = quality.figure(data, one).interval
    assert gain.interval.high - gain.interval.low < 0.1 * (single.high - single.low)


def test_attempts_without_a_table_are_refused() -> None:
    with pytest.raises(ValueError, match="for each attempt"):
        Tested.of([], [], [], [], [])
    with pytest.raises(ValueError, match="for each attempt"):
        Tested.of([True], [1.0], ["t"], ["f"], [])
