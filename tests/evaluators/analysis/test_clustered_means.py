"""Variances and degrees of freedom against statsmodels and against their definitions."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import linalg

from regrade.evaluators.analysis.clustered_means import Sample


def tasks(seed: int, repositories: int = 8) -> Sample:
    """Tasks of repositories and functions of unequal size."""
    rng = np.random.default_rng(seed)
    places = np.repeat(np.arange(repositories), rng.integers(4, 30, size=repositories))
    functions = rng.integers(0, 9, size=places.size)
    shared = rng.normal(0, 0.3, size=(repositories, 9))[places, functions]
    return Sample.of(shared + rng.normal(size=places.size), functions, places)


def definition(sample: Sample, clusters: np.ndarray, design: np.ndarray, contrast: np.ndarray) -> tuple[float, float]:
    """CR2 and Satterthwaite's degrees of freedom of a contrast, by matrices (Pustejovsky & Tipton 2018, section 2)."""
    inverse = linalg.inv(design.T @ design)
    hat = np.eye(sample.n) - design @ inverse @ design.T
    residuals, rows = hat @ sample.values, []
    for cluster in np.unique(clusters):
        inside = clusters == cluster
        values, vectors = linalg.eigh(hat[np.ix_(inside, inside)])
        root = vectors @ np.diag(np.where(values > 1e-9, 1 / np.sqrt(np.maximum(values, 1e-9)), 0)) @ vectors.T
        rows.append(contrast @ inverse @ design[inside].T @ root @ np.eye(sample.n)[inside])
    matrix = np.array(rows)
    variance = float(np.sum((matrix @ residuals) ** 2))
    omega = matrix @ hat @ matrix.T
    return variance, float(np.trace(omega) ** 2 / np.sum(omega**2))


@pytest.mark.parametrize("seed", range(3))
def test_both_spreads_are_cr2_with_satterthwaites_degrees_of_freedom(seed):
    sample = tasks(seed)
    dummies = np.eye(sample.n_repositories)[sample.repositories]
    weights = dummies.mean(axis=0)
    within = definition(sample, sample.functions, dummies, weights)
    assert sample.within == pytest.approx(within)
    between = definition(sample, sample.repositories, np.ones((sample.n, 1)), np.ones(1))
    assert sample.between == pytest.approx(between)


def test_independent_tasks_have_the_error_of_a_regression_on_repositories():
    """statsmodels' HC2, which is CR2 with each task as its own cluster."""
    sample = tasks(1)
    own = Sample.of(sample.values, np.arange(sample.n), sample.repositories)
    dummies = np.eye(own.n_repositories)[own.repositories]
    fit = sm.OLS(own.values, dummies).fit(cov_type="HC2")
    test = fit.t_test(dummies.mean(axis=0))
    assert own.within.variance == pytest.approx(float(np.squeeze(test.sd)) ** 2)
    assert own.mean == pytest.approx(float(np.squeeze(test.effect)))


def test_repositories_of_equal_size_have_the_error_of_a_mixed_model():
    """With balanced data all agree: CR2, OLS with clusters, and REML; CR2 lies between plain and bias-reduced GEE."""
    rng = np.random.default_rng(5)
    places = np.repeat(np.arange(20), 12)
    values = rng.normal(0.1, 1, size=20)[places] + rng.normal(size=places.size)
    found = Sample.of(values, np.arange(places.size), places).between
    ones = np.ones(places.size)
    ols = sm.OLS(values, ones).fit(cov_type="cluster", cov_kwds={"groups": places, "df_correction": True})
    mixed = sm.MixedLM(values, ones, groups=places).fit(reml=True)
    assert found.variance == pytest.approx(float(ols.bse[0]) ** 2, rel=0.01)
    assert found.variance == pytest.approx(float(mixed.bse_fe[0]) ** 2, rel=0.01)
    assert found.freedom == pytest.approx(19)
    unequal = tasks(3)
    frame = sm.GEE(unequal.values, np.ones(unequal.n), groups=unequal.repositories)
    plain, reduced = (float(frame.fit(cov_type=kind).bse[0]) ** 2 for kind in ("robust", "bias_reduced"))
    assert plain < unequal.between.variance < reduced


def test_unequal_repositories_have_fewer_degrees_of_freedom():
    sizes = np.array([100, 10, 10, 10, 10, 10])
    places = np.repeat(np.arange(6), sizes)
    values = np.random.default_rng(2).normal(size=places.size)
    assert Sample.of(values, np.arange(places.size), places).between.freedom < 3.5


def test_repositories_of_one_function_share_a_stratum():
    values, places = np.random.default_rng(4).normal(size=12), np.arange(12)
    single = Sample.of(values, np.arange(12), places)
    assert single.within == pytest.approx((values.var(ddof=1) / 12, 11))
    lone = Sample.of(values, np.arange(12), [0] * 8 + [1] * 3 + [2])
    assert np.isfinite(lone.within).all()
    strata = np.array([0] * 8 + [1] * 4)
    assert lone.within == pytest.approx(Sample.of(values, np.arange(12), strata).within)


def test_tasks_without_a_function_are_their_own_cluster():
    rows = pd.DataFrame({
        "task": ["a", "b", "c", "d"], "repository": ["r", "r", "r", "s"], "function": ["f", "f", "", "f"],
    })  # fmt: skip
    sample = Sample.of_tasks(rows, np.zeros(4))
    assert (sample.n, sample.n_functions, sample.n_repositories) == (4, 3, 2)
    with pytest.raises(ValueError, match="one label a value"):
        Sample.of([1.0], ["a", "b"], ["r"])


def test_the_design_effect_is_bounded_without_events_and_estimated_with_many():
    functions = np.repeat(np.arange(100), 3)
    place = np.zeros(300)
    assert Sample.of(np.zeros(300), functions, place).design_effect == 3
    rng = np.random.default_rng(3)
    apart = Sample.of(rng.integers(0, 2, size=300), functions, place)
    together = Sample.of(np.repeat(rng.integers(0, 2, size=100), 3), functions, place)
    assert apart.design_effect == pytest.approx(1, abs=0.3)
    assert together.design_effect == pytest.approx(3, abs=0.3)
