"""Intervals and tests for means over tasks: one rule for rates, paired differences and other means.

Each task has one number: the mean over its samples and seeds. Every interval is a score interval (`score_interval`)
with the error of new tasks of these repositories (`clustered_means.Sample.within`), whatever their number. A second
interval of a difference, `over_repositories`, is for other repositories.

Sources: E. Miller, Adding Error Bars to Evals, arXiv 2411.00640 (clusters, pairing, detectable effect);
R. Newcombe, Interval estimation for the difference between independent (and: paired) proportions (1998);
E. Fieller, Some problems in interval estimation, J. Royal Statistical Society B 16:175 (1954).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import bdtr
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

from regrade.evaluators.analysis.clustered_means import Sample, Spread, combined
from regrade.evaluators.analysis.power import Plan
from regrade.evaluators.analysis.score_interval import Interval, ScoreRule, distribution, quantile

Floats = NDArray[np.float64]
ClusterLevel = Literal["repository", "function"]


def task_means(rows: pd.DataFrame, values: pd.Series[Any]) -> pd.DataFrame:
    """One row a task, sorted: task, repository, function, value (mean of the known values; NaN without any)."""
    labels, tasks = pd.factorize(np.asarray(rows["task"], dtype=object), sort=True)
    numbers = values.to_numpy(dtype=np.float64)
    known = ~np.isnan(numbers)
    sums = np.bincount(labels[known], weights=numbers[known], minlength=len(tasks))
    counts = np.bincount(labels[known], minlength=len(tasks))
    first = np.zeros(len(tasks), dtype=np.intp)
    first[labels[::-1]] = np.arange(len(labels))[::-1]  # the last assignment, that of the task's first row, stays
    means = np.divide(sums, counts, out=np.full(len(tasks), np.nan), where=counts > 0)
    columns = {name: np.asarray(rows[name], dtype=object)[first] for name in ("repository", "function")}
    return pd.DataFrame({"task": tasks, **columns, "value": means})


def wilson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Wilson's score interval of a rate of independent trials; [0, 1] without trials."""
    if not n:
        return Interval(0.0, 1.0)
    low, high = proportion_confint(successes, n, alpha=1 - confidence, method="wilson")
    return Interval(float(low) if successes else 0.0, float(high) if successes < n else 1.0)  # exact at the ends


def rule_of_three(n: int, confidence: float = 0.95) -> float:
    """Upper bound of a rate after n independent trials without a case: 1 - (1 - confidence)^(1/n), about 3 / n.

    The exact (Clopper-Pearson) bound, one-sided; 1 without trials.
    """
    return float(proportion_confint(0, n, alpha=2 * (1 - confidence), method="beta")[1]) if n else 1.0


def newcombe(successes: int, n: int, other_successes: int, other_n: int, confidence: float = 0.95) -> Interval:
    """Newcombe's interval of the difference of two rates of independent trials, first - other."""
    low, high = confint_proportions_2indep(
        successes, n, other_successes, other_n, method="newcomb", compare="diff", alpha=1 - confidence
    )
    return Interval(float(low), float(high))


def newcombe_paired(both: int, only_first: int, only_second: int, neither: int, confidence: float = 0.95) -> Interval:
    """Newcombe's interval of the difference, first - second, of two rates on the same independent tasks.

    Method 10 (Newcombe 1998), square-and-add: it combines Wilson's intervals of both rates with their correlation phi,
    which is corrected for continuity. Raises ValueError without tasks.
    """
    n = both + only_first + only_second + neither
    if not n:
        raise ValueError("no tasks: a rate needs at least one")
    first, second = (both + only_first) / n, (both + only_second) / n
    low, high = wilson(both + only_first, n, confidence)
    other_low, other_high = wilson(both + only_second, n, confidence)
    margins = (both + only_first) * (only_second + neither) * (both + only_second) * (only_first + neither)
    surplus = both * neither - only_first * only_second
    corrected = max(surplus - n / 2, 0.0) if surplus > 0 else surplus
    phi = corrected / np.sqrt(margins) if margins else 0.0

    def distance(one: float, other: float) -> float:
        return float(np.sqrt(max(0.0, one**2 - 2 * phi * one * other + other**2)))

    difference = first - second
    return Interval(
        difference - distance(first - low, other_high - second), difference + distance(high - first, second - other_low)
    )


NO_RUNS = Spread(0.0, float("inf"))
"""Runs of a policy do not differ, or it is unknown whether they do."""


def score_rule(sample: Sample, lowest: float, highest: float, runs: Spread = NO_RUNS) -> ScoreRule:
    """The rule for a mean of values in this range, for new tasks of these repositories; infinite ends: any values.

    Args:
        runs: further variance of the mean, from the differences between runs of a policy.
    """
    numbers = distribution(sample.values)
    scale = sample.design_effect / sample.n if sample.n else float("nan")
    spread = float(np.var(sample.values)) * scale if sample.n else float("nan")
    freedom = sample.within.freedom
    if runs.variance:
        freedom = combined([Spread(spread, freedom), runs]).freedom
    return ScoreRule(**numbers, lowest=lowest, highest=highest, scale=scale, freedom=freedom, further=runs.variance)


def rate_interval(sample: Sample, confidence: float = 0.95) -> Interval:
    """Of the mean of values in [0, 1]. Of 0 and 1 at independent tasks: Wilson's, with t in place of z."""
    return score_rule(sample, 0.0, 1.0).interval(confidence)


def mean_interval(sample: Sample, span: tuple[float, float] | None = None, confidence: float = 0.95) -> Interval:
    """Of the mean of values between the ends of `span`; None: any values, and Student's t."""
    return score_rule(sample, *(span or UNBOUNDED)).interval(confidence)


UNBOUNDED = (float("-inf"), float("inf"))


def difference_rule(sample: Sample, most: float | None = 1.0, runs: Spread = NO_RUNS) -> ScoreRule:
    """The rule for a mean of paired differences, each between -most and most; None: any differences."""
    ends = UNBOUNDED if most is None else (-most, most)
    return replace(score_rule(sample, *ends, runs), step=sample.grain)


def difference_interval(sample: Sample, most: float | None = 1.0, confidence: float = 0.95) -> Interval:
    """Of the mean of paired differences: see `difference_rule`."""
    return difference_rule(sample, most).interval(confidence)


def over_repositories(
    sample: Sample, most: float | None = 1.0, runs: Spread = NO_RUNS, confidence: float = 0.95
) -> Interval:
    """The same difference for other repositories, of which these are a sample; NaN with fewer than two.

    CR2 over repositories. What is not shown for these repositories is not shown for others: the interval contains that
    of these repositories.
    """
    spread = sample.between
    if not spread.freedom > 0:
        return Interval(float("nan"), float("nan"))
    own = difference_rule(sample, most, runs)
    plain = float(np.var(sample.values))
    scale = spread.variance / plain if plain else own.scale
    freedom = combined([spread, runs]).freedom if runs.variance else spread.freedom
    other, inner = replace(own, scale=scale, freedom=freedom).interval(confidence), own.interval(confidence)
    return Interval(min(other.low, inner.low), max(other.high, inner.high))


def detectable_effect(sample: Sample, runs: Spread = NO_RUNS, alpha: float = 0.05, power: float = 0.8) -> float:
    """The smallest true difference that `difference_rule` shows with this power; infinite: none, NaN: unknown."""
    if not sample.within.freedom > 0:
        return float("nan")
    differing = sample.values[sample.values != 0]
    size = float(np.sqrt(np.mean(differing**2))) if differing.size else 1.0
    rule = score_rule(sample, *UNBOUNDED, runs)
    return Plan(
        tasks=sample.n / sample.design_effect,
        discordance=differing.size / sample.n,
        size=size,
        freedom=rule.freedom,
        further=runs.variance,
    ).detectable(power, alpha)


def span(values: ArrayLike, top: float = 1.0) -> float:
    """Width of the range from 0 to `top`, extended to the observed values."""
    known = np.asarray(values, dtype=np.float64)
    known = known[~np.isnan(known)]
    return max(top, float(known.max(initial=top))) - float(known.min(initial=0.0))


def ratio_interval(top: Sample, bottom: Sample, confidence: float = 0.95) -> Interval:
    """Fieller's interval of the ratio of two sums over the same tasks, neither below 0; infinite if the denominator is
    not shown to differ from 0. (NaN, NaN) for fewer than two functions."""

    def variance(values: Floats) -> float:
        return Sample(values, top.functions, top.repositories).within.variance

    if not top.within.freedom > 0:
        return Interval(float("nan"), float("nan"))
    square = quantile(0.5 + confidence / 2, top.within.freedom) ** 2
    covariance = (variance(top.values + bottom.values) - variance(top.values - bottom.values)) / 4
    a = bottom.mean**2 - square * bottom.within.variance
    b = top.mean * bottom.mean - square * covariance
    c = top.mean**2 - square * top.within.variance
    root = np.sqrt(max(0.0, b**2 - a * c))
    if a > 0:
        return Interval(float(max(0.0, (b - root) / a)), float((b + root) / a))
    return Interval(float(max(0.0, c / (b + root))) if b + root > 0 else 0.0, float("inf"))


def mcnemar_p(only_first: int, only_second: int) -> float:
    """Exact two-sided McNemar test of two binary outcomes on the same independent tasks, by discordant pairs."""
    total = only_first + only_second
    return min(1.0, 2 * float(bdtr(min(only_first, only_second), total, 0.5))) if total else 1.0


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Name -> p-value, adjusted by Holm's step-down method."""
    order = sorted(p_values, key=lambda name: p_values[name])
    steps = np.array([p_values[name] for name in order]) * np.arange(len(order), 0, -1)
    adjusted = np.minimum(
        1.0, np.maximum.accumulate(steps)
    )  # statsmodels' version runs the garbage collector, 0.2 seconds
    by_name = dict(zip(order, map(float, adjusted), strict=True))
    return {name: by_name[name] for name in p_values}
