"""Intervals and tests for means over tasks, with correlated attempts at a task and correlated tasks in a cluster.

Each task has one number: the mean over its samples and seeds. Resampling and sign flips act on clusters of tasks. The
cluster is the repository if there are at least `FEWEST_REPOSITORIES` of them, else the function with the bug, and the
task itself if it has none. Clusters of functions give intervals for new functions of *these* repositories, not for new
repositories: reports state the level. With at least `MINIMUM_CLUSTERS` clusters the interval of a mean is a bootstrap
interval; with fewer, a bootstrap is too narrow, and the interval is a t interval with C - 1 degrees of freedom.

Sources: E. Miller, Adding Error Bars to Evals, arXiv 2411.00640 (clusters, pairing, detectable effect);
T. Hesterberg, What Teachers Should Know About the Bootstrap, arXiv 1411.5279 (expanded percentile interval);
A. Cameron, J. Gelbach, D. Miller, Bootstrap-Based Improvements for Inference with Clustered Errors (2008);
N. Dean, M. Pagano, Evaluating Confidence Interval Methods for Binomial Proportions in Clustered Surveys (2015);
R. Newcombe, Interval estimation for the difference between independent (and: paired) proportions (1998).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as mcnemar_table
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

MINIMUM_CLUSTERS = 30
"""With fewer clusters, t intervals replace the bootstrap."""
FEWEST_REPOSITORIES = 6
"""Fewer repositories cannot show a difference: the smallest p of 2^5 sign flips is 0.0625."""
RESAMPLES = 10_000
EXACT_FLIPS = 14
"""Up to this number of clusters the test uses all 2^C sign flips, else `RESAMPLES` random ones."""

Floats = NDArray[np.float64]
ClusterLevel = Literal["repository", "function"]


class Interval(NamedTuple):
    low: float
    high: float


@dataclass(frozen=True)
class Clusters:
    """One number and one cluster for each task."""

    values: Floats
    """Shape (tasks,)."""
    labels: NDArray[np.intp]
    """Shape (tasks,): cluster of each task, numbered from 0 without gaps."""

    @classmethod
    def of(cls, values: ArrayLike, labels: Sequence[Any] | NDArray[Any]) -> Clusters:
        """Raises ValueError if the lengths differ."""
        numbers = np.asarray(values, dtype=np.float64)
        if numbers.shape != (len(labels),):
            raise ValueError(f"values of shape {numbers.shape}, {len(labels)} cluster labels: give one label a value")
        return cls(numbers, pd.factorize(np.asarray(labels))[0])

    @property
    def count(self) -> int:
        """Number of clusters."""
        return int(self.labels.max()) + 1 if self.labels.size else 0

    @property
    def mean(self) -> float:
        """The mean over tasks; each task has the same weight."""
        return float(self.values.mean()) if self.values.size else float("nan")

    @property
    def sums(self) -> Floats:
        """Shape (clusters,): sum of the values of each cluster."""
        return np.bincount(self.labels, weights=self.values, minlength=self.count).astype(np.float64)

    @property
    def sizes(self) -> Floats:
        """Shape (clusters,): tasks in each cluster."""
        return np.bincount(self.labels, minlength=self.count).astype(np.float64)

    @property
    def standard_error(self) -> float:
        """Cluster-robust standard error of the mean, with the factor C / (C - 1); NaN for fewer than two clusters."""
        if self.count < 2:
            return float("nan")
        residuals = self.sums - self.sizes * self.mean
        return float(np.sqrt(self.count / (self.count - 1) * np.sum(residuals**2)) / self.values.size)


def cluster_level(tasks: pd.DataFrame) -> ClusterLevel:
    """`repository` if the column `repository` has at least `FEWEST_REPOSITORIES` values, else `function`."""
    return "repository" if tasks["repository"].nunique() >= FEWEST_REPOSITORIES else "function"


def cluster_labels(tasks: pd.DataFrame, level: ClusterLevel) -> NDArray[Any]:
    """The cluster of each row of a table with the columns task, repository and function."""
    if level == "repository":
        return np.asarray(tasks["repository"], dtype=object)
    function = tasks["function"].where(tasks["function"] != "", tasks["task"])
    return np.asarray(tasks["repository"] + "::" + function, dtype=object)


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


def t_interval(sample: Clusters, confidence: float = 0.95) -> Interval:
    """Mean +- t(C - 1) x cluster-robust standard error; (NaN, NaN) for fewer than two clusters."""
    if sample.count < 2:
        return Interval(float("nan"), float("nan"))
    half = float(stats.t.ppf(0.5 + confidence / 2, sample.count - 1)) * sample.standard_error
    return Interval(sample.mean - half, sample.mean + half)


def bootstrap_interval(
    sample: Clusters, confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Percentile bootstrap interval of the mean over tasks; clusters are drawn with replacement.

    Hesterberg's expanded percentile interval: the percentiles are widened from normal to t quantiles, since the plain
    bootstrap is too narrow by sqrt((C - 1) / C) and ignores t. (NaN, NaN) for fewer than two clusters.
    """
    count = sample.count
    if count < 2:
        return Interval(float("nan"), float("nan"))
    totals = _draws(count, resamples, seed) @ np.column_stack([sample.sums, sample.sizes])
    means = totals[:, 0] / totals[:, 1]
    tail = _expanded_tail(count, confidence)
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(low), float(high))


def _expanded_tail(count: int, confidence: float) -> float:
    return float(stats.norm.cdf(np.sqrt(count / (count - 1)) * stats.t.ppf((1 - confidence) / 2, count - 1)))


@lru_cache(maxsize=2)  # drawing is slow, and many metrics share the same clusters
def _draws(count: int, resamples: int, seed: int) -> Floats:
    """Shape (resamples, count): number of draws of each cluster, `count` draws a resample."""
    return np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=resamples).astype(np.float64)


def mean_interval(sample: Clusters, confidence: float = 0.95, seed: int = 0) -> Interval:
    """Interval of the mean over tasks: bootstrap, or t with fewer than `MINIMUM_CLUSTERS` clusters."""
    if sample.count < MINIMUM_CLUSTERS:
        return t_interval(sample, confidence)
    return bootstrap_interval(sample, confidence, seed=seed)


def rate_interval(sample: Clusters, confidence: float = 0.95) -> Interval:
    """Wilson's interval of a rate, for the number of independent trials with the same cluster-robust error.

    The quantile is that of t(C - 1) (Dean & Pagano 2015, "modified Wilson"). The trials are at most the tasks, as the
    error of rare events is itself uncertain. Unlike bootstrap and t intervals, it keeps its level for rare events and
    few clusters. If all tasks are 0, or all 1, the error cannot be estimated, and each cluster is one trial, which is
    conservative. (NaN, NaN) for fewer than two clusters otherwise.
    """
    if _is_constant(sample) and sample.values[0] in (0, 1):
        return wilson(sample.count if sample.values[0] else 0, sample.count, confidence)
    if sample.count < 2:
        return Interval(float("nan"), float("nan"))
    rate, error = sample.mean, sample.standard_error**2
    trials = min(sample.values.size, rate * (1 - rate) / error) if error else sample.values.size
    weight = float(stats.t.ppf(0.5 + confidence / 2, sample.count - 1)) ** 2 / trials
    centre = (rate + weight / 2) / (1 + weight)
    half = np.sqrt(weight * (rate * (1 - rate) + weight / 4)) / (1 + weight)
    return Interval(float(max(0.0, centre - half)), float(min(1.0, centre + half)))


def share_interval(sample: Clusters, confidence: float = 0.95, seed: int = 0) -> Interval:
    """`mean_interval` of values in [0, 1] that are not 0 or 1 alone, such as a share of broken tests."""
    low, high = mean_interval(sample, confidence, seed)
    return Interval(max(0.0, low), min(1.0, high))


def difference_interval(sample: Clusters, confidence: float = 0.95, seed: int = 0) -> Interval:
    """Interval of the mean of paired differences, each between -1 and 1.

    If all tasks have the same difference, such as 0, the share of clusters with another difference is bounded by the
    upper end of Wilson's interval.
    """
    if _is_constant(sample):
        bound, value = wilson(0, sample.count, confidence).high, float(sample.values[0])
        return Interval(value - bound, value + bound)
    return mean_interval(sample, confidence, seed)


def method_of(sample: Clusters) -> str:
    """The method of `difference_interval`, for readers."""
    if _is_constant(sample):
        return "Wilson bound"
    return "bootstrap" if sample.count >= MINIMUM_CLUSTERS else f"t({sample.count - 1})"


def span(values: ArrayLike, top: float = 1.0) -> float:
    """Width of the range from 0 to `top`, extended to the observed values."""
    known = np.asarray(values, dtype=np.float64)
    known = known[~np.isnan(known)]
    return max(top, float(known.max(initial=top))) - float(known.min(initial=0.0))


def bounded_difference_interval(sample: Clusters, most: float = 1.0) -> Interval:
    """`difference_interval` of differences in [-most, most], clipped to that range."""
    scaled = difference_interval(Clusters(sample.values / most, sample.labels))
    return Interval(max(-most, most * scaled.low), min(most, most * scaled.high))


def difference_error(sample: Clusters) -> float:
    """Standard error of the mean of paired differences; an upper bound if all tasks have the same difference."""
    if _is_constant(sample):
        return float(np.sqrt(wilson(0, sample.count).high / sample.count))
    return sample.standard_error


def _is_constant(sample: Clusters) -> bool:
    return bool(sample.values.size and np.all(sample.values == sample.values[0]))


def ratio_interval(top: Clusters, bottom: Clusters, confidence: float = 0.95, seed: int = 0) -> Interval:
    """Bootstrap interval, over clusters, of the ratio of two sums over the same tasks; infinite if the denominator is 0
    in too many resamples. (NaN, NaN) for fewer than two clusters."""
    count = top.count
    if count < 2:
        return Interval(float("nan"), float("nan"))
    totals = _draws(count, RESAMPLES, seed) @ np.column_stack([top.sums, bottom.sums])
    ratios = np.divide(totals[:, 0], totals[:, 1], out=np.full(len(totals), np.inf), where=totals[:, 1] > 0)
    tail = _expanded_tail(count, confidence)
    low, high = np.quantile(ratios, [tail, 1 - tail], method="inverted_cdf")
    return Interval(float(low), float(high))


def sign_flip_p(sample: Clusters, resamples: int = RESAMPLES, seed: int = 0) -> float:
    """Two-sided p of "the paired differences are symmetric about 0", from random sign flips of whole clusters.

    Exact for up to `EXACT_FLIPS` clusters; else (1 + hits) / (1 + resamples), never 0 (Phipson & Smyth 2010).
    """
    sums = sample.sums
    sums = sums[sums != 0]  # a flip does not change a cluster without a difference
    observed = abs(sums.sum()) * (1 - 1e-12)  # equal sums may differ in their last bit
    if not sums.size:
        return 1.0
    if sums.size <= EXACT_FLIPS:
        signs = 1 - 2 * ((np.arange(2**sums.size)[:, None] >> np.arange(sums.size)) & 1)
        return float(np.mean(np.abs(signs @ sums) >= observed))
    flips = 1 - 2 * np.random.default_rng(seed).integers(0, 2, size=(resamples, sums.size), dtype=np.int8)
    return float((1 + np.sum(np.abs(flips @ sums) >= observed)) / (1 + resamples))


def mcnemar_p(only_first: int, only_second: int) -> float:
    """Exact two-sided McNemar test of two binary outcomes on the same independent tasks, by discordant pairs."""
    if not only_first + only_second:
        return 1.0
    return float(mcnemar_table([[0, only_first], [only_second, 0]], exact=True).pvalue)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Name -> p-value, adjusted by Holm's step-down method."""
    order = sorted(p_values, key=lambda name: p_values[name])
    steps = np.array([p_values[name] for name in order]) * np.arange(len(order), 0, -1)
    adjusted = np.minimum(
        1.0, np.maximum.accumulate(steps)
    )  # statsmodels' version runs the garbage collector, 0.2 seconds
    by_name = dict(zip(order, map(float, adjusted), strict=True))
    return {name: by_name[name] for name in p_values}


def detectable_effect(standard_error: float, clusters: int, alpha: float = 0.05, power: float = 0.8) -> float:
    """The smallest true difference that a two-sided test at `alpha` detects with this power; NaN if unknown.

    (t_{1 - alpha/2} + t_{power}) x standard error, both with C - 1 degrees of freedom (Miller 2024, section 5).
    """
    if clusters < 2:
        return float("nan")
    freedom = clusters - 1
    return float(stats.t.ppf(1 - alpha / 2, freedom) + stats.t.ppf(power, freedom)) * standard_error
