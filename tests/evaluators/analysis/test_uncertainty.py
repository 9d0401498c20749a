import itertools

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from statsmodels.stats.proportion import proportion_confint

from regrade.evaluators.analysis.uncertainty import (
    FEWEST_REPOSITORIES,
    MINIMUM_CLUSTERS,
    Clusters,
    bootstrap_interval,
    cluster_labels,
    cluster_level,
    detectable_effect,
    difference_error,
    difference_interval,
    holm,
    mcnemar_p,
    newcombe,
    newcombe_paired,
    rate_interval,
    ratio_interval,
    rule_of_three,
    sign_flip_p,
    t_interval,
    task_means,
    wilson,
)


def correlated(rng: np.random.Generator, clusters: int, rate: float = 0.3) -> Clusters:
    """Tasks of clusters of unequal size whose own rates vary: three samples a task."""
    sizes = rng.integers(1, 8, size=clusters)
    labels = np.repeat(np.arange(clusters), sizes)
    rates = rng.beta(4 * rate, 4 * (1 - rate), size=clusters)[labels]
    return Clusters.of(rng.binomial(3, rates) / 3, labels)


def test_wilson_agrees_with_statsmodels_and_scipy():
    for successes, n in ((0, 10), (3, 10), (10, 10), (137, 300)):
        ours = wilson(successes, n)
        theirs = stats.binomtest(successes, n).proportion_ci(method="wilson")
        assert ours == pytest.approx((theirs.low, theirs.high))
        assert ours == pytest.approx(proportion_confint(successes, n, method="wilson"), abs=1e-12)
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(0, 12).low == 0.0
    assert wilson(12, 12).high == 1.0


def test_standard_error_is_that_of_a_regression_with_clusters():
    sample = correlated(np.random.default_rng(1), 40)
    fit = sm.OLS(sample.values, np.ones(sample.values.size)).fit(
        cov_type="cluster", cov_kwds={"groups": sample.labels, "df_correction": True}
    )
    assert sample.standard_error == pytest.approx(float(fit.bse[0]))  # its further factor (n - 1) / (n - k) is 1 here


def test_standard_error_of_single_tasks_is_the_plain_one():
    values = np.random.default_rng(2).normal(size=50)
    sample = Clusters.of(values, list(range(50)))
    assert sample.standard_error == pytest.approx(stats.sem(values))
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert t_interval(sample) == pytest.approx((expected.low, expected.high))


def test_bootstrap_is_close_to_scipys_and_to_t():
    values = np.random.default_rng(3).normal(0.1, 1, size=200)
    sample = Clusters.of(values, list(range(200)))
    ours = bootstrap_interval(sample)
    theirs = stats.bootstrap((values,), np.mean, method="percentile", rng=np.random.default_rng(0)).confidence_interval
    assert ours == pytest.approx((theirs.low, theirs.high), abs=0.01)
    assert ours == pytest.approx(t_interval(sample), abs=0.01)
    assert ours == bootstrap_interval(sample)
    assert ours != bootstrap_interval(sample, seed=1)


def test_clusters_widen_the_interval():
    values = np.repeat(np.random.default_rng(4).integers(0, 2, size=40), 10)
    alone = bootstrap_interval(Clusters.of(values, list(range(400))))
    together = bootstrap_interval(Clusters.of(values, np.repeat(np.arange(40), 10)))
    assert (together.high - together.low) > 2.5 * (alone.high - alone.low)


def test_rates_at_their_ends_are_not_certain():
    nothing = rate_interval(Clusters.of(np.zeros(100), list(range(100))))
    assert nothing == wilson(0, 100)
    assert nothing.high == pytest.approx(3 / 100, rel=0.3)  # the rule of three, nearly
    assert rate_interval(Clusters.of(np.ones(9), list(range(9)))) == wilson(9, 9)
    same = difference_interval(Clusters.of(np.zeros(100), list(range(100))))
    assert same.high == -same.low == wilson(0, 100).high


def test_too_few_clusters_have_no_interval():
    one = Clusters.of([0.5, 0.2], ["a", "a"])
    assert np.isnan([*bootstrap_interval(one), *t_interval(one), one.standard_error, detectable_effect(0.1, 1)]).all()
    empty = Clusters.of([], [])
    assert empty.count == 0
    assert np.isnan(empty.mean)
    with pytest.raises(ValueError, match="one label a value"):
        Clusters.of([1.0], ["a", "b"])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(-3, 3), min_size=1, max_size=9))
def test_exact_sign_flips_are_all_of_them(values):
    sample = Clusters.of(values, list(range(len(values))))
    every = [abs(np.dot(signs, values)) for signs in itertools.product((1, -1), repeat=len(values))]
    assert sign_flip_p(sample) == pytest.approx(np.mean(np.array(every) >= abs(sum(values)) - 1e-9))


def test_sign_flips_agree_with_scipy_on_cluster_sums():
    sample = correlated(np.random.default_rng(5), 40)
    shifted = Clusters.of(sample.values - 0.24, sample.labels)
    theirs = stats.permutation_test(
        (shifted.sums,), np.sum, permutation_type="samples", n_resamples=20_000, rng=np.random.default_rng(0)
    )
    assert 0.001 < theirs.pvalue < 0.5
    assert sign_flip_p(shifted, resamples=20_000) == pytest.approx(theirs.pvalue, abs=0.015)
    assert sign_flip_p(Clusters.of(np.zeros(3), [0, 1, 2])) == 1.0


def test_mcnemar_is_a_sign_test_of_the_discordant():
    assert mcnemar_p(5, 15) == pytest.approx(stats.binomtest(5, 20).pvalue)
    assert mcnemar_p(0, 0) == 1.0
    discordant = Clusters.of([-1.0] * 4 + [1.0] * 9, list(range(13)))
    assert mcnemar_p(4, 9) == pytest.approx(sign_flip_p(discordant))


def test_holm_steps_down():
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06})
    assert holm({}) == {}
    p_values = dict(enumerate(np.random.default_rng(6).uniform(0, 0.2, size=9)))
    named = {str(name): value for name, value in p_values.items()}
    assert list(holm(named).values()) == pytest.approx(list(multipletests(list(named.values()), method="holm")[1]))


def test_detectable_effect_of_many_clusters_is_the_textbooks():
    assert detectable_effect(0.01, 100_000) == pytest.approx(0.01 * (1.95996 + 0.84162), rel=1e-4)


def test_clusters_are_repositories_only_where_there_are_many():
    few = pd.DataFrame({"task": ["t1", "t2"], "repository": "r", "function": ["f.py::g", ""]})
    assert cluster_level(few) == "function"
    assert list(cluster_labels(few, "function")) == ["r::f.py::g", "r::t2"]
    many = pd.DataFrame({"task": range(MINIMUM_CLUSTERS), "repository": [f"r{i}" for i in range(MINIMUM_CLUSTERS)]})
    assert cluster_level(many) == "repository"
    assert cluster_level(many.head(FEWEST_REPOSITORIES)) == "repository"
    assert cluster_level(many.head(FEWEST_REPOSITORIES - 1)) == "function"


def test_tasks_count_the_same_whatever_their_samples():
    rows = pd.DataFrame({"task": ["b", "a", "a", "a", "c"], "repository": "r", "function": "f"})
    means = task_means(rows, pd.Series([1.0, 0.0, np.nan, 1.0, np.nan]))
    assert list(means["task"]) == ["a", "b", "c"]
    assert list(means["value"][:2]) == [0.5, 1.0]
    assert np.isnan(means["value"][2])


def paired_under_the_null(rng: np.random.Generator, clusters: int) -> Clusters:
    """Differences of two equally good policies on the same tasks: they agree on which functions are hard."""
    labels = np.repeat(np.arange(clusters), rng.integers(1, 8, size=clusters))
    hardness = rng.beta(0.4, 1.6, size=clusters)

    def policy() -> np.ndarray:
        rates = np.clip(hardness + rng.normal(0, 0.1, size=clusters), 0, 1)[labels]
        return rng.binomial(4, rates) / 4

    return Clusters.of(policy() - policy(), labels)


@pytest.mark.slow
def test_intervals_cover_the_truth_as_often_as_they_say():
    """2,000 simulated evaluations of 60 functions: 93 to 97 of 100 intervals of 95 % hold the true value."""
    rng = np.random.default_rng(8)
    runs, bootstrap, t, false_alarms = 2000, 0, 0, 0
    for run in range(runs):
        sample = paired_under_the_null(rng, 60)
        low, high = bootstrap_interval(sample, resamples=1000, seed=run)
        bootstrap += low <= 0 <= high
        low, high = t_interval(sample)
        t += low <= 0 <= high
        false_alarms += sign_flip_p(sample, resamples=400, seed=run) <= 0.05
    assert 0.93 <= bootstrap / runs <= 0.97
    assert 0.93 <= t / runs <= 0.97
    assert 0.03 <= false_alarms / runs <= 0.07


def test_newcombe_agrees_with_published_examples():
    """Newcombe 1998, 17:873, example (a), 56/70 against 48/80; Fagerland, Lydersen & Laake 2014, airways of children."""
    assert newcombe(56, 70, 48, 80) == pytest.approx((0.0524, 0.3339), abs=5e-5)
    assert newcombe_paired(1, 1, 7, 12) == pytest.approx((-0.507, -0.026), abs=5e-4)


def test_newcombe_paired_is_the_unpaired_one_where_nothing_is_shared():
    """With no correlation between the two rates, square-and-add is that of independent rates."""
    assert newcombe_paired(25, 25, 25, 25) == pytest.approx(newcombe(50, 100, 50, 100))
    low, high = newcombe_paired(50, 3, 9, 40)
    assert newcombe_paired(50, 9, 3, 40) == pytest.approx((-high, -low))
    assert newcombe_paired(0, 0, 0, 20) == pytest.approx(newcombe(0, 20, 0, 20))
    with pytest.raises(ValueError, match="no tasks"):
        newcombe_paired(0, 0, 0, 0)


def test_the_rule_of_three():
    for n in (3, 30, 300):
        assert rule_of_three(n) == pytest.approx(1 - 0.05 ** (1 / n))
        assert rule_of_three(n) == pytest.approx(stats.binomtest(0, n).proportion_ci(0.90, method="exact").high)
    assert rule_of_three(300) == pytest.approx(3 / 300, rel=0.01)
    assert rule_of_three(0) == 1.0


def test_wilsons_interval_of_clusters_is_wilsons_where_there_are_none():
    """Single attempts at independent tasks: but for t in place of z, and C - 1 in place of C."""
    values = np.array([1.0] * 30 + [0.0] * 970)
    ours = rate_interval(Clusters.of(values, list(range(1000))))
    assert ours == pytest.approx(wilson(30, 1000), abs=2e-4)


@pytest.mark.parametrize("clusters", [8, 40])
def test_a_rate_in_clusters_has_their_error(clusters):
    sample = correlated(np.random.default_rng(9), clusters)
    low, high = rate_interval(sample)
    width = 2 * stats.t.ppf(0.975, clusters - 1) * sample.standard_error
    assert high - low == pytest.approx(width, rel=0.2)
    assert 0 < low < sample.mean < high < 1


def test_under_thirty_clusters_the_interval_is_t():
    few, many = (correlated(np.random.default_rng(10), count) for count in (MINIMUM_CLUSTERS - 1, MINIMUM_CLUSTERS))
    assert difference_interval(few) == t_interval(few)
    assert difference_interval(many) == bootstrap_interval(many)


def test_differences_that_are_all_the_same_are_not_certain():
    ones = difference_interval(Clusters.of(np.ones(50), list(range(50))))
    assert ones.low == pytest.approx(1 - wilson(0, 50).high)
    for value in (0.0, 1.0):
        sample = Clusters.of(np.full(50, value), list(range(50)))
        assert sample.standard_error == 0
        assert 0.02 < difference_error(sample) < 0.05
    varying = correlated(np.random.default_rng(11), 20)
    assert difference_error(varying) == varying.standard_error


def test_the_interval_of_a_ratio_is_scipys():
    rng = np.random.default_rng(12)
    top, bottom = rng.gamma(4.0, 100.0, size=120), rng.binomial(1, 0.4, size=120).astype(float)
    labels = list(range(120))
    ours = ratio_interval(Clusters.of(top, labels), Clusters.of(bottom, labels))
    theirs = stats.bootstrap(
        (top, bottom), lambda a, b, axis: a.sum(axis) / b.sum(axis), paired=True, method="percentile", rng=rng
    ).confidence_interval
    assert ours == pytest.approx((theirs.low, theirs.high), rel=0.03)
    rare = ratio_interval(Clusters.of(top, labels), Clusters.of([1.0] + [0.0] * 119, labels))
    assert rare.high == np.inf
    assert np.isnan(ratio_interval(Clusters.of([1.0], ["a"]), Clusters.of([1.0], ["a"])).low)


def test_the_detectable_effect_is_detected_with_its_power():
    """By simulation: a t test finds it in 80 of 100 evaluations; statsmodels plans the same power."""
    clusters, spread = 40, 0.3
    effect = detectable_effect(spread / np.sqrt(clusters), clusters)
    power = TTestPower().power(effect / spread, clusters, 0.05, alternative="two-sided")
    assert power == pytest.approx(0.8, abs=0.01)
    rng = np.random.default_rng(13)
    found = [stats.ttest_1samp(rng.normal(effect, spread, size=clusters), 0).pvalue <= 0.05 for _ in range(1000)]
    assert np.mean(found) == pytest.approx(0.8, abs=0.04)


@pytest.mark.slow
def test_rare_events_in_clusters_are_covered():
    """Of 1,000 simulated evaluations, 93 to 98 of 100 intervals hold a true rate of 3 %; t and the bootstrap do not."""
    rng = np.random.default_rng(14)
    runs, covered, by_t = 1000, 0, 0
    for _ in range(runs):
        labels = np.repeat(np.arange(60), rng.integers(1, 8, size=60))
        rates = rng.beta(4 * 0.03, 4 * 0.97, size=60)[labels]
        sample = Clusters.of(rng.binomial(2, rates) / 2, labels)
        low, high = rate_interval(sample)
        covered += low <= 0.03 <= high
        low, high = t_interval(sample)
        by_t += low <= 0.03 <= high
    assert 0.93 <= covered / runs <= 0.98
    assert by_t / runs < 0.92
