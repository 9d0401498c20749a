"""Paired differences of two policies for each metric, with intervals, p-values and noise."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from regrade.evaluators.analysis import metrics as m
from regrade.evaluators.analysis.uncertainty import (
    ClusterLevel,
    Clusters,
    Interval,
    bounded_difference_interval,
    cluster_labels,
    detectable_effect,
    difference_error,
    difference_interval,
    holm,
    mcnemar_p,
    method_of,
    newcombe_paired,
    sign_flip_p,
    span,
    task_means,
)
from regrade.evaluators.analysis.verdicts import Direction, Effect, effect_of
from regrade.evaluators.storage.json_numbers import finite_values

ALPHA = 0.05
NOISE = 1.96
"""Standard errors within which 95 % of the differences between two equal policies lie."""

COMPARED = (
    m.FIX_AND_CLEAN,
    m.BREAKAGE_INCIDENCE,
    m.FIX_RATE,
    m.FIXED_BUT_BROKE,
    m.SEVERITY,
    m.NET_VALUE,
    m.NO_OP_RATE,
    m.MALFORMED_RATE,
    m.REWARD,
)
VERDICT_METRICS = (m.FIX_AND_CLEAN, m.BREAKAGE_INCIDENCE)


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One metric of both policies, and the paired difference over tasks, candidate - baseline."""

    name: str
    label: str
    better: Direction
    is_rate: bool
    baseline: float
    candidate: float
    difference: float
    low: float
    high: float
    """95 % interval of the difference, over clusters of tasks (see `uncertainty.difference_interval`)."""
    p: float
    """Sign-flip permutation test by cluster, two-sided."""
    p_holm: float
    """Holm-adjusted over the metrics with a better direction that the verdict does not depend on; p for the others."""
    detectable: float
    """The smallest true difference that the comparison detects with 80 % power."""
    n_tasks: int
    n_clusters: int
    noise: float | None = None
    """A/A: with 95 % probability the baseline differs from itself, with other seeds, by less than this. Estimated from
    the variance of its attempts within a task; None with one attempt a task."""
    worst: float | None = None
    best: float | None = None
    """The difference if every missing attempt had ended in the candidate's disfavour, or favour; None without any."""
    over_repositories: Interval | None = None
    """t interval over repositories, if there are too few of them to be the clusters; else None."""
    method: str = ""
    """Method of the interval, such as `t(11)` or `bootstrap`."""
    is_constant: bool = False
    """All tasks have the same difference, so that the interval is only a bound."""

    @property
    def ends(self) -> Interval:
        return Interval(self.low, self.high)

    @property
    def is_decisive(self) -> bool:
        """Does the verdict depend on this metric?"""
        return self.name in {metric.name for metric in VERDICT_METRICS}

    @property
    def verdict(self) -> Effect:
        """Better or worse by the rule of the verdict: the interval excludes 0. Of the metrics that the verdict does not
        depend on there are several: their adjusted p must be at most `ALPHA` too."""
        is_shown = self.is_decisive or self.p_holm <= ALPHA
        return effect_of(self.ends, self.better) if is_shown else "no difference shown"

    def to_json(self) -> dict[str, Any]:
        """Numbers that are not finite become null."""
        values = {**asdict(self), "verdict": self.verdict}
        if self.over_repositories is not None:
            values["over_repositories"] = list(self.over_repositories)
        return finite_values(values)


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Numbers of tasks by the outcomes of both policies, with one attempt each at every task."""

    both: int
    only_baseline: int
    only_candidate: int
    neither: int
    p: float
    """Exact McNemar test."""
    low: float
    high: float
    """Newcombe's paired 95 % interval of candidate - baseline. Both assume independent tasks."""


def outcomes(baseline: pd.DataFrame, candidate: pd.DataFrame, metric: m.Metric = m.FIX_AND_CLEAN) -> pd.DataFrame:
    """One row a task with known values in both: task, repository, function, baseline, candidate (both means)."""
    first, second = (task_means(rows, metric.of_rows(rows)) for rows in (baseline, candidate))
    both = first.rename(columns={"value": "baseline"})
    both["candidate"] = both["task"].map(dict(zip(second["task"], second["value"], strict=True))).astype("float64")
    return both[both["baseline"].notna() & both["candidate"].notna()].reset_index(drop=True)


def differences_of(baseline: pd.DataFrame, candidate: pd.DataFrame, level: ClusterLevel) -> dict[str, Difference]:
    compared = [metric for metric in COMPARED if metric is not m.REWARD or is_same_reward(baseline, candidate)]
    both = {metric.name: outcomes(baseline, candidate, metric) for metric in compared}
    samples = {name: _sample(pairs, level) for name, pairs in both.items()}
    p_values = {name: sign_flip_p(sample) for name, sample in samples.items() if sample.count > 1}
    family = [x.name for x in compared if x.better != "neither" and x not in VERDICT_METRICS and x.name in p_values]
    adjusted = holm({name: p_values[name] for name in family})
    differences = {}
    for metric in compared:
        sample = samples[metric.name]
        if sample.count < 2:
            continue  # not measured, such as the reward of rows without one
        p = p_values[metric.name]
        most = _most(metric, baseline, candidate)
        low, high = _agreeing(_interval(sample, most), p)
        differences[metric.name] = Difference(
            name=metric.name,
            label=metric.label,
            better=metric.better,
            is_rate=metric.is_rate,
            baseline=float(both[metric.name]["baseline"].mean()),
            candidate=float(both[metric.name]["candidate"].mean()),
            difference=sample.mean,
            low=low,
            high=high,
            p=p,
            p_holm=adjusted.get(metric.name, p),
            detectable=detectable_effect(difference_error(sample), sample.count),
            n_tasks=len(both[metric.name]),
            n_clusters=sample.count,
            noise=noise_level(baseline, metric, attempts=_attempts(candidate)),
            over_repositories=_over_repositories(both[metric.name], most, level),
            method=method_of(sample),
            is_constant=bool(np.ptp(sample.values) == 0),
        )
    return differences


def _sample(both: pd.DataFrame, level: ClusterLevel) -> Clusters:
    return Clusters.of(both["candidate"] - both["baseline"], cluster_labels(both, level))


def _most(metric: m.Metric, baseline: pd.DataFrame, candidate: pd.DataFrame) -> float | None:
    """The largest possible difference: of rates, and of rewards, which lie in [0, 1] unless observed values exceed it.
    None: unbounded."""
    if metric is m.REWARD:
        return span(pd.concat([baseline["reward"], candidate["reward"]]))
    return 1.0 if metric.is_rate else None


def _interval(sample: Clusters, most: float | None) -> Interval:
    return difference_interval(sample) if most is None else bounded_difference_interval(sample, most)


def _agreeing(interval: Interval, p: float) -> Interval:
    """The interval, extended to 0 if the sign-flip test does not exclude 0: a bootstrap excludes 0 too early if only a
    few tasks differ, all in one direction."""
    return interval if p <= ALPHA else Interval(min(interval.low, 0.0), max(interval.high, 0.0))


def _over_repositories(both: pd.DataFrame, most: float | None, level: ClusterLevel) -> Interval | None:
    sample = _sample(both, "repository")
    return _interval(sample, most) if level == "function" and sample.count > 1 else None


def is_same_reward(baseline: pd.DataFrame, candidate: pd.DataFrame) -> bool:
    return len({*baseline["reward_name"], *candidate["reward_name"]}) == 1


def _attempts(rows: pd.DataFrame) -> float:
    """Attempts a task: their harmonic mean, which determines the standard error."""
    return float(1 / np.mean(1 / np.unique(np.asarray(rows["task"], dtype=object), return_counts=True)[1]))


def noise_level(rows: pd.DataFrame, metric: m.Metric, attempts: float | None = None) -> float | None:
    """The largest difference of a policy from itself, with other seeds, at 95 % probability.

    `NOISE` x standard error of the difference of two means over tasks, from the variance of the attempts within tasks.
    None if no task has two attempts.

    Args:
        attempts: number a task in the other evaluation; None: as in these rows.
    """
    values = metric.of_rows(rows).to_numpy(dtype=np.float64)
    known = ~np.isnan(values)
    tasks = pd.factorize(np.asarray(rows["task"], dtype=object)[known])[0]
    counts = np.bincount(tasks)
    means = np.bincount(tasks, weights=values[known]) / counts
    squares = np.bincount(tasks, weights=(values[known] - means[tasks]) ** 2)
    several = counts > 1
    if not several.any():
        return None
    variance = float(np.mean(squares[several] / (counts[several] - 1)))
    own = float(1 / np.mean(1 / counts))
    return NOISE * math.sqrt(variance * (1 / own + 1 / (attempts or own)) / len(counts))


def pairs_of(baseline: pd.DataFrame, candidate: pd.DataFrame) -> dict[str, Pairs]:
    if baseline["task"].duplicated().any() or candidate["task"].duplicated().any():
        return {}
    both = {metric.name: outcomes(baseline, candidate, metric) for metric in VERDICT_METRICS}
    return {name: _table_of(pairs) for name, pairs in both.items() if len(pairs)}


def _table_of(both: pd.DataFrame) -> Pairs:
    first, second = both["baseline"] == 1, both["candidate"] == 1
    lost, won = int((first & ~second).sum()), int((~first & second).sum())
    both_won, neither = int((first & second).sum()), int((~first & ~second).sum())
    low, high = newcombe_paired(both_won, won, lost, neither)
    return Pairs(
        both=both_won,
        only_baseline=lost,
        only_candidate=won,
        neither=neither,
        p=mcnemar_p(lost, won),
        low=low,
        high=high,
    )
