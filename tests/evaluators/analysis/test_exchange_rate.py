"""The exchange rate on simulated policies whose worth in demonstrations is known."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import isotonic_regression

from regrade.evaluators.analysis.exchange_rate import ExchangeRate, cluster_weights, exchange_rate, isotonic, solutions

COUNTS = (16, 32, 64, 128, 195)


def rows(chances: np.ndarray, random: np.random.Generator, breaks: float = 0.1, samples: int = 4) -> pd.DataFrame:
    """Attempts at tasks with these chances of a clean fix, two tasks a function, in two repositories."""
    task = np.repeat(np.arange(len(chances)), samples)
    clean = random.random(task.size) < chances[task]
    return pd.DataFrame(
        {
            "task": [f"t{i:03d}" for i in task],
            "repository": [f"r{i % 4 // 2}" for i in task],
            "function": [f"f{i // 2}" for i in task],
            "clean_fix": clean.astype(float),
            "broke": (~clean & (random.random(task.size) < breaks)).astype(float),
            "fail_to_pass": 1,
        }
    )


def simulated(worth: float, seed: int, slope: float = 0.9, tasks: int = 250, breaks: float = 0.1) -> ExchangeRate:
    """The rate of a policy that fixes like SFT with `worth` demonstrations; tasks of one function are alike."""
    random = np.random.default_rng(seed)
    hardness = np.repeat(random.normal(0, 1.5, tasks // 2), 2)

    def chances(demonstrations: float) -> np.ndarray:
        return 1 / (1 + np.exp(hardness + 4 - slope * math.log(demonstrations)))

    curve = {count: rows(chances(count), random) for count in COUNTS}
    found = exchange_rate(curve, rows(chances(worth), random, breaks), 32, draws=600)
    assert found is not None
    return found


def test_the_interval_contains_the_truth_as_often_as_it_says() -> None:
    found = [simulated(80, seed) for seed in range(80)]
    assert np.mean([one.low <= 80 <= one.high for one in found]) >= 0.9
    assert np.median([one.equivalent for one in found]) == pytest.approx(80, rel=0.1)
    assert np.mean([one.is_shown for one in found]) > 0.5


def test_what_is_worth_nothing_is_seldom_shown_to_be_worth_something() -> None:
    found = [simulated(32, seed) for seed in range(80)]
    assert np.mean([one.is_shown for one in found]) <= 0.06


def test_beyond_the_curve_the_rate_is_censored() -> None:
    found = simulated(3000, 0)
    assert found.equivalent == found.high == math.inf
    assert found.words.startswith("more than 163 more demonstrations [")
    assert found.is_shown
    assert found.to_json()["is_censored"]
    assert found.to_json()["equivalent"] is None
    few = simulated(3, 0)
    assert few.equivalent == few.low == -math.inf
    assert few.words.startswith("no demonstration: it fixes less than SFT with 16 [less than −16")
    assert not few.is_shown


def test_a_flat_curve_tells_nothing() -> None:
    found = [simulated(64, seed, slope=0.0) for seed in range(40)]
    assert np.mean([one.low == -math.inf for one in found]) >= 0.8
    assert np.mean([one.high == math.inf for one in found]) >= 0.8
    assert np.mean([one.is_shown for one in found]) <= 0.1


def test_rates_that_are_all_equal_leave_the_rate_undetermined() -> None:
    random = np.random.default_rng(0)
    curve = {count: rows(np.zeros(40), random) for count in (16, 32)}
    found = exchange_rate(curve, rows(np.zeros(40), random), 16, draws=50)
    assert found is not None
    assert math.isnan(found.equivalent)
    assert (found.low, found.high) == (-math.inf, math.inf)
    assert found.words == "not determined: the curve is flat there [less than 0, more than 16]"


def test_breakage_is_compared_at_equal_clean_fixes() -> None:
    same, worse = simulated(80, 1), simulated(80, 1, breaks=0.4)
    assert same.breakage.low <= 0 <= same.breakage.high
    assert worse.breakage.low > 0.1


def test_one_number_of_demonstrations_or_one_function_gives_no_rate() -> None:
    random = np.random.default_rng(0)
    one = rows(np.full(40, 0.5), random)
    assert exchange_rate({16: one}, one, 16) is None
    assert exchange_rate({8: one, 16: one}, one, 16) is None, "the curve ends where the policy starts"
    two = rows(np.full(2, 0.5), random)
    assert exchange_rate({16: two, 32: two}, two, 16) is None


def test_a_task_that_one_policy_lacks_is_left_out() -> None:
    random = np.random.default_rng(0)
    curve = {count: rows(np.full(40, count / 200), random) for count in COUNTS}
    other = rows(np.full(40, 0.3), random)
    found = exchange_rate(curve, other[other["task"] != "t000"], 32, draws=50)
    assert found is not None
    assert found.n_tasks == 39


def test_the_isotonic_fit_is_that_of_scipy() -> None:
    random = np.random.default_rng(0)
    rates = random.random((6, 50))
    expected = np.stack([isotonic_regression(column).x for column in rates.T], axis=1)
    np.testing.assert_allclose(isotonic(rates), expected, atol=1e-9)


def test_solutions_of_a_line_with_a_flat_part() -> None:
    logs, curve = np.array([0.0, 1.0, 2.0, 3.0]), np.array([0.1, 0.2, 0.2, 0.4])
    rates = np.array([0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5])
    smallest, largest = solutions(logs, np.repeat(curve[:, None], rates.size, axis=1), rates)
    np.testing.assert_allclose(smallest, [-np.inf, 0, 0.5, 1, 2.5, 3, np.inf])
    np.testing.assert_allclose(largest, [-np.inf, 0, 0.5, 2, 2.5, 3, np.inf])


def test_whole_functions_are_drawn_within_their_repository() -> None:
    functions, repositories = np.array([0, 0, 1, 2, 2, 3]), np.array([0, 0, 0, 1, 1, 1])
    weights = cluster_weights(functions, repositories, 200, 0)
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, 0] + weights[:, 2] == 2).all()
    assert (weights[:, 3] + weights[:, 5] == 2).all()
    assert {0.0, 1.0, 2.0} == {*np.unique(weights)}
