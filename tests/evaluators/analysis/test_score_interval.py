"""The score interval against the closed forms that it generalises."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize
from scipy.stats import binom, norm

from regrade.evaluators.analysis import score_interval
from regrade.evaluators.analysis.score_interval import ScoreRule, distribution
from regrade.evaluators.analysis.uncertainty import mcnemar_p, wilson


def rule(values: np.ndarray, lowest: float = -1.0, **fields: float) -> ScoreRule:
    """Of independent tasks, with normal quantiles."""
    given = {"scale": 1 / len(values), "freedom": 1e12} | fields
    return ScoreRule(**distribution(values), lowest=lowest, highest=1.0, **given)


def pairs(gains: int, losses: int, rest: int) -> np.ndarray:
    return np.repeat([1.0, -1.0, 0.0], [gains, losses, rest])


def tango(gains: int, losses: int, n: int) -> tuple[float, float]:
    """Tango (1998), solved for its ends."""

    def score(difference: float) -> float:
        b = -gains - losses + (2 * n - gains + losses) * difference
        q = (np.sqrt(b**2 + 8 * n * losses * difference * (1 - difference)) - b) / (4 * n)
        error = np.sqrt(n * (2 * q + difference * (1 - difference)))
        return (gains - losses - n * difference) / error

    z, middle = norm.ppf(0.975), (gains - losses) / n
    low = optimize.brentq(lambda x: score(x) - z, -0.9999, middle - 1e-9)
    return low, optimize.brentq(lambda x: score(x) + z, middle + 1e-9, 0.9999)


def test_the_interval_of_a_rate_is_wilsons():
    for cases in (0, 3, 50, 100):
        values = np.repeat([1.0, 0.0], [cases, 100 - cases])
        assert rule(values, lowest=0.0).interval() == pytest.approx(wilson(cases, 100), abs=2e-5)


@pytest.mark.parametrize(("gains", "losses", "rest"), [(10, 4, 86), (5, 0, 195), (1, 0, 199), (80, 80, 340)])
def test_the_interval_of_a_paired_difference_is_tangos(gains, losses, rest):
    found = rule(pairs(gains, losses, rest)).interval()
    assert found == pytest.approx(tango(gains, losses, gains + losses + rest), abs=5e-5)


def test_without_an_event_the_bound_is_wilsons():
    assert rule(np.zeros(200)).interval().high == pytest.approx(wilson(0, 200).high, abs=2e-5)


@pytest.mark.parametrize("values", [pairs(10, 4, 86), pairs(0, 3, 97), np.zeros(50)], ids=["usual", "rare", "none"])
def test_reweighting_agrees_with_the_closed_form(values):
    own = rule(values)
    means = np.linspace(-0.9, 0.9, 19)
    general = score_interval._reweighted(own.values, own.shares, means, 1 - means, means + 1)
    assert own._tilted(means) == pytest.approx(general, abs=1e-6)


def test_means_over_attempts_have_weights_of_maximal_likelihood():
    """Against a direct search over the weights of the observed values and of both ends."""
    values = np.repeat([-0.5, 0.0, 0.25, 0.5, 1.0], [3, 60, 12, 20, 5])
    own, target = rule(values), -0.05
    support = np.concatenate([[-1.0], own.values])
    counts = np.concatenate([[0.0], own.shares])
    found = optimize.minimize(
        lambda w: -np.sum(counts * np.log(np.maximum(w, 1e-300))),
        np.full(support.size, 1 / support.size),
        bounds=[(0, 1)] * support.size,
        constraints=[
            {"type": "eq", "fun": lambda w: w.sum() - 1},
            {"type": "eq", "fun": lambda w: w @ support - target},
        ],
        options={"ftol": 1e-14, "maxiter": 2000},
    )
    assert own._tilted(np.array([target]))[0] == pytest.approx(found.x @ (support - target) ** 2, abs=1e-5)


def test_the_interval_and_the_p_value_agree():
    rng = np.random.default_rng(1)
    for _ in range(200):
        values = rng.choice([-1.0, -0.5, 0.0, 0.5, 1.0], p=[0.03, 0.05, 0.77, 0.07, 0.08], size=60)
        own = rule(values, step=1 / 60, freedom=58.0)
        low, high = own.interval()
        excludes = low > 1e-4 or high < -1e-4
        if abs(own.p() - 0.05) > 1e-3:
            assert excludes == (own.p() < 0.05) == (not own.contains(np.zeros(1))[0])
        inside = own.contains(np.array([low + 1e-4, high - 1e-4, low - 1e-3, high + 1e-3]))
        assert list(inside) == [True, True, False, False]


def test_zero_is_excluded_about_as_soon_as_by_mcnemars_mid_p():
    for gains in range(1, 14):
        for losses in range(gains):
            own = rule(pairs(gains, losses, 300 - gains - losses), step=1 / 300)
            n = gains + losses
            mid = mcnemar_p(losses, gains) - float(binom.pmf(losses, n, 0.5))
            if not 0.03 < mid < 0.07:
                assert (own.p() <= 0.05) == (mid <= 0.05), (gains, losses)


def test_values_at_an_end_have_an_interval_of_some_width():
    for values in (np.ones(50), np.full(50, -1.0), np.full(50, 0.5)):
        low, high = rule(values).interval()
        assert 0.03 < high - low < 0.3
        assert low <= values[0] <= high


def test_variance_of_other_sources_widens_the_interval():
    values = pairs(20, 10, 70)
    narrow, wide = rule(values).interval(), rule(values, further=0.01).interval()
    assert wide.low < narrow.low < narrow.high < wide.high
