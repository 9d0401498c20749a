"""Variance between runs of a policy."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import f_oneway

from regrade.evaluators.analysis.metrics import FIX_AND_CLEAN
from regrade.evaluators.analysis.runs import between_runs, n_runs, run_spread


def passes(outcomes: np.ndarray, policy: str = "p") -> pd.DataFrame:
    """Rows of outcomes of shape (tasks, runs)."""
    tasks, runs = outcomes.shape
    each = np.repeat(np.arange(tasks), runs)
    return pd.DataFrame({
        "policy": policy, "task": [f"t{n}" for n in each], "sample": 0, "seed": np.tile(np.arange(runs), tasks),
        "clean_fix": outcomes.ravel().astype(float),
    })  # fmt: skip


def drawn(rates: list[float], tasks: int = 500, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).random((tasks, len(rates))) < np.array(rates)


def test_runs_that_solve_72_41_and_62_of_500_differ_by_more_than_chance():
    columns = [np.arange(500) < count for count in (72, 41, 62)]
    rows = passes(np.stack([np.random.default_rng(n).permutation(column) for n, column in enumerate(columns)], axis=1))
    found = between_runs((rows,), FIX_AND_CLEAN)
    assert f_oneway(*columns).pvalue < 0.01
    assert found.freedom == 2
    assert found.variance == pytest.approx(np.var([0.144, 0.082, 0.124], ddof=1) - 0.1 * 0.9 / 500, rel=0.2)
    added = run_spread(rows, rows, FIX_AND_CLEAN)
    assert added.of_difference.variance == pytest.approx(found.variance * 2 / 3)
    assert added.of_difference.freedom == 4


def test_runs_that_differ_by_chance_add_nothing_three_times_in_four():
    added = [between_runs((passes(drawn([0.3] * 4, seed=n)),), FIX_AND_CLEAN).variance > 0 for n in range(200)]
    assert np.mean(added) == pytest.approx(0.25, abs=0.09)


def test_single_runs_say_nothing():
    one = passes(drawn([0.3]))
    assert n_runs(one) == 1
    assert between_runs((one, one), FIX_AND_CLEAN) is None
    assert run_spread(one, one, FIX_AND_CLEAN) is None
    several = passes(drawn([0.1, 0.5]))
    added = run_spread(one, several, FIX_AND_CLEAN)
    assert added.of_difference.variance == pytest.approx(1.5 * added.of_one)


def test_tasks_that_lack_a_run_are_left_out():
    rows = passes(drawn([0.1, 0.4, 0.2]))
    whole = between_runs((rows,), FIX_AND_CLEAN)
    rows.loc[0, "clean_fix"] = np.nan
    assert between_runs((rows.drop(index=5),), FIX_AND_CLEAN).variance == pytest.approx(whole.variance, rel=0.05)
