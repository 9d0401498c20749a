"""Differences of several trainings from one baseline: their spread, their intervals on simulated trainings."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from statsmodels.formula.api import ols

from regrade.evaluators.analysis.metrics import REWARD
from regrade.evaluators.analysis.variant_differences import differences_from, spread_of_runs

SEEDS = (3, 7)
NONE = dict.fromkeys(("base", "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7"), 0.0)
"""Variants without any difference."""


def simulated(
    random: np.random.Generator,
    effects: Mapping[str, float],
    *,
    tasks: int = 40,
    of_seeds: float = 0.0,
    of_runs: float = 0.0,
    noise: float = 0.2,
) -> dict[str, pd.DataFrame]:
    """Rows of variants with these true effects, one attempt a task; what a seed adds is the same for all of them."""
    of_tasks, of_start = random.normal(0, 0.3, tasks), random.normal(0, of_seeds, len(SEEDS))
    tables = {}
    for name, effect in effects.items():
        parts = []
        for number, seed in enumerate(SEEDS):
            mean = effect + of_tasks + of_start[number] + random.normal(0, of_runs)
            part = pd.DataFrame({"task": [f"t{task}" for task in range(tasks)], "seed": seed})
            parts.append(
                part.assign(reward=mean + random.normal(0, noise, tasks), repository="r", function=part["task"])
            )
        tables[name] = pd.concat(parts, ignore_index=True)
    return tables


def test_the_spread_is_the_interaction_of_an_analysis_of_variance() -> None:
    tables = simulated(np.random.default_rng(0), {"a": 0.0, "b": 0.1, "c": 0.2}, of_seeds=1.0, of_runs=0.3)
    long = pd.concat([rows.assign(variant=name) for name, rows in tables.items()])
    model = ols("reward ~ (C(task) + C(variant) + C(seed)) ** 2", long).fit()
    squares = sm.stats.anova_lm(model, typ=2)
    between = squares["sum_sq"]["C(variant):C(seed)"] / squares["df"]["C(variant):C(seed)"]
    within = squares["sum_sq"]["Residual"] / squares["df"]["Residual"]
    found = spread_of_runs(list(tables.values()), REWARD)
    assert found is not None
    assert found.variance == pytest.approx((between - within) / 40)
    assert found.freedom == 2


def test_the_spread_is_that_of_the_runs_whatever_the_starts_add() -> None:
    random = np.random.default_rng(1)
    found = [
        spread_of_runs(list(simulated(random, NONE, of_seeds=0.5, of_runs=0.2).values()), REWARD) for _ in range(8)
    ]
    variances = [each.variance for each in found if each is not None]
    assert len(variances) == 8
    assert 0.6 * 0.2**2 < np.mean(variances) < 1.4 * 0.2**2


def test_runs_that_move_widen_the_interval_and_starts_that_move_do_not() -> None:
    still, of_starts, of_runs = (
        differences_from(simulated(np.random.default_rng(3), NONE, **moves), "base", REWARD)["v0"]
        for moves in ({}, {"of_seeds": 0.3}, {"of_runs": 0.2})
    )
    assert of_starts.high - of_starts.low < 1.5 * (still.high - still.low)
    assert of_runs.high - of_runs.low > 3 * (still.high - still.low)
    assert of_runs.detectable > 2 * still.detectable


def test_a_variant_is_compared_over_the_seeds_that_it_has() -> None:
    tables = simulated(np.random.default_rng(2), NONE | {"late": 0.3}, of_seeds=0.3, noise=0.05)
    tables["late"] = tables["late"][tables["late"]["seed"] == 7]
    found = differences_from(tables, "base", REWARD)
    assert set(found["late"].by_seed) == {7}
    assert found["late"].value == pytest.approx(0.3, abs=0.05)
    assert found["late"].low > 0
    assert found["v1"].by_seed.keys() == {3, 7}
    assert found["late"].p_holm == pytest.approx(9 * found["late"].p), "the smallest of nine"
    assert spread_of_runs([tables["late"], tables["late"]], REWARD) is None, "one seed has no spread"
