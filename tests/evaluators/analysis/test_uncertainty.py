import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from regrade.evaluators.analysis.clustered_means import Sample
from regrade.evaluators.analysis.uncertainty import (
    detectable_effect,
    difference_interval,
    difference_rule,
    holm,
    mcnemar_p,
    mean_interval,
    newcombe,
    newcombe_paired,
    over_repositories,
    rate_interval,
    ratio_interval,
    rule_of_three,
    task_means,
    wilson,
)


def alone(values: np.ndarray | list[float]) -> Sample:
    """Independent tasks of one repository."""
    return Sample.of(values, np.arange(len(values)), np.zeros(len(values)))


def test_wilson_agrees_with_statsmodels_and_scipy():
    for successes, n in ((0, 10), (3, 10), (10, 10), (137, 300)):
        ours = wilson(successes, n)
        theirs = stats.binomtest(successes, n).proportion_ci(method="wilson")
        assert ours == pytest.approx((theirs.low, theirs.high))
        assert ours == pytest.approx(proportion_confint(successes, n, method="wilson"), abs=1e-12)
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(0, 12).low == 0.0
    assert wilson(12, 12).high == 1.0


def test_holm_steps_down():
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06})
    assert holm({}) == {}
    p_values = dict(enumerate(np.random.default_rng(6).uniform(0, 0.2, size=9)))
    named = {str(name): value for name, value in p_values.items()}
    assert list(holm(named).values()) == pytest.approx(list(multipletests(list(named.values()), method="holm")[1]))


def test_tasks_count_the_same_whatever_their_samples():
    rows = pd.DataFrame({"task": ["b", "a", "a", "a", "c"], "repository": "r", "function": "f"})
    means = task_means(rows, pd.Series([1.0, 0.0, np.nan, 1.0, np.nan]))
    assert list(means["task"]) == ["a", "b", "c"]
    assert list(means["value"][:2]) == [0.5, 1.0]
    assert np.isnan(means["value"][2])


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


def test_mcnemar_is_a_sign_test_of_the_discordant():
    assert mcnemar_p(5, 15) == pytest.approx(stats.binomtest(5, 20).pvalue)
    assert mcnemar_p(0, 0) == mcnemar_p(7, 7) == 1.0


def test_a_rate_of_independent_tasks_has_wilsons_interval():
    """But for t in place of z."""
    for cases in (0, 30, 400, 1000):
        values = np.array([1.0] * cases + [0.0] * (1000 - cases))
        assert rate_interval(alone(values)) == pytest.approx(wilson(cases, 1000), abs=3e-4)


def test_a_mean_without_bounds_has_students_interval():
    values = np.random.default_rng(3).normal(0.1, 1, size=50)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert mean_interval(alone(values)) == pytest.approx((expected.low, expected.high), rel=0.01)
    assert difference_rule(alone(values), None).p() == pytest.approx(stats.ttest_1samp(values, 0).pvalue, rel=0.05)


def test_functions_whose_tasks_agree_widen_the_interval():
    values = np.repeat(np.random.default_rng(4).integers(0, 2, size=40), 10)
    apart = rate_interval(alone(values))
    together = rate_interval(Sample.of(values, np.repeat(np.arange(40), 10), np.zeros(400)))
    assert (together.high - together.low) > 2.5 * (apart.high - apart.low)


def test_without_events_the_width_follows_the_functions():
    zeros = np.zeros(200)
    tasks = difference_interval(alone(zeros)).high
    assert tasks == pytest.approx(wilson(0, 200).high, rel=0.02)
    pairs = difference_interval(Sample.of(zeros, np.arange(200) // 2, np.zeros(200))).high
    assert pairs == pytest.approx(wilson(0, 100).high, rel=0.03)
    places = np.arange(200) % 12
    assert difference_interval(Sample.of(zeros, np.arange(200), places)).high == pytest.approx(tasks, rel=0.01)


def test_too_few_clusters_have_no_interval():
    one = Sample.of([0.5, 0.2], ["a", "a"], ["r", "r"])
    assert np.isnan([*mean_interval(one), *difference_interval(one), detectable_effect(one)]).all()
    assert np.isnan(over_repositories(alone([0.1, 0.2])).low)
    empty = Sample.of([], [], [])
    assert np.isnan([empty.mean, *mean_interval(empty)]).all()


def test_other_repositories_are_never_shown_more_than_these():
    rng = np.random.default_rng(6)
    for _ in range(20):
        places = np.repeat(np.arange(6), 10)
        sample = Sample.of(rng.integers(-1, 2, size=60), np.arange(60), places)
        inner, outer = difference_interval(sample), over_repositories(sample)
        assert outer.low <= inner.low < inner.high <= outer.high


def test_the_interval_of_a_ratio_is_scipys():
    rng = np.random.default_rng(12)
    top, bottom = rng.gamma(4.0, 100.0, size=120), rng.binomial(1, 0.4, size=120).astype(float)
    theirs = stats.bootstrap(
        (top, bottom), lambda a, b, axis: a.sum(axis) / b.sum(axis), paired=True, method="percentile", rng=rng
    ).confidence_interval
    assert ratio_interval(alone(top), alone(bottom)) == pytest.approx((theirs.low, theirs.high), rel=0.05)
    rare = ratio_interval(alone(top), alone([1.0] + [0.0] * 119))
    assert rare.high == np.inf
    assert 0 < rare.low < top.sum()
    assert ratio_interval(alone(top), alone([0.0] * 120)).high == np.inf
    assert np.isnan(ratio_interval(alone([1.0]), alone([1.0]))).all()


def test_the_detectable_effect_is_detected_with_its_power():
    rng = np.random.default_rng(13)
    for discordance, n in ((0.3, 200), (0.0, 200), (0.3, 60)):
        base = rng.choice([-1.0, 1.0], size=round(discordance * n) // 2 * 2)
        base[::2], base[1::2] = 1.0, -1.0
        effect = detectable_effect(alone(np.concatenate([base, np.zeros(n - base.size)])))
        share = max(discordance, effect)
        chances = [(share - effect) / 2, (share + effect) / 2, 1 - share]
        found = []
        for lost, won, rest in rng.multinomial(n, chances, size=1000):
            rule = difference_rule(alone(np.repeat([-1.0, 1.0, 0.0], [lost, won, rest])))
            found.append(rule.mean > 0 and not rule.contains(np.zeros(1))[0])
        assert np.mean(found) == pytest.approx(0.8, abs=0.05)
