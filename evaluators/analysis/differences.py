"""Paired differences of two policies for each metric, with intervals, p-values and noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from regrade.evaluators.analysis import metrics as m
from regrade.evaluators.analysis.agent_metrics import AGENT_METRICS, has_episodes
from regrade.evaluators.analysis.clustered_means import Sample
from regrade.evaluators.analysis.runs import RunSpread, run_spread
from regrade.evaluators.analysis.score_interval import Interval
from regrade.evaluators.analysis.uncertainty import (
    NO_RUNS,
    detectable_effect,
    difference_rule,
    holm,
    mcnemar_p,
    newcombe_paired,
    over_repositories,
    span,
    task_means,
)
from regrade.evaluators.analysis.verdicts import Direction, Effect, effect_of
from regrade.evaluators.storage.json_numbers import finite_values

ALPHA = 0.05
CONFIDENCE = 0.95
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
    """95 % interval of the difference for new tasks of these repositories (see `uncertainty.difference_rule`); of a
    family of comparisons, at the family's level (see `comparison.compare_family`)."""
    p: float
    """Two-sided p of the same rule: at most 0.05 just if the 95 % interval excludes 0."""
    p_holm: float
    """Adjusted: Holm over the metrics with a better direction that the verdict does not depend on; p for the others."""
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
    """The same interval for other repositories, of which these are a sample; None for a single repository."""
    confidence: float = 0.95
    """Of both intervals."""
    method: str = ""
    """Method of the interval, such as `score, t(57)`."""
    is_constant: bool = False
    """All tasks have the same difference, so the interval is a bound for events that were not seen."""
    between_runs: float | None = None
    """Standard deviation between runs of a policy, beyond chance at each task; None with one run of each."""

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
        depend on there are several: their adjusted p must be at most 1 - confidence too."""
        is_shown = self.is_decisive or self.p_holm <= 1 - self.confidence
        return effect_of(self.ends, self.better) if is_shown else "no difference shown"

    @property
    def generalises(self) -> bool:
        """What the interval shows for these repositories, it shows for other repositories too."""
        low, high = self.over_repositories or (math.nan, math.nan)
        return low > 0 or high < 0

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


def outcomes(
    baseline: pd.DataFrame,
    candidate: pd.DataFrame,
    metric: m.Metric = m.FIX_AND_CLEAN,
    missing: tuple[float | None, float | None] = (None, None),
    *,
    may_be_unanswered: bool = True,
) -> pd.DataFrame:
    """One row a task with known values in both: task, repository, function, baseline, candidate (both means).

    Args:
        missing: the value of a missing attempt of the baseline, and of the candidate; None: left out.
        may_be_unanswered: see `metrics.bounded_values`.
    """
    first, second = (
        task_means(rows, m.bounded_values(rows, metric, end, may_be_unanswered=may_be_unanswered))
        for rows, end in zip((baseline, candidate), missing, strict=True)
    )
    both = first.rename(columns={"value": "baseline"})
    both["candidate"] = both["task"].map(dict(zip(second["task"], second["value"], strict=True))).astype("float64")
    return both[both["baseline"].notna() & both["candidate"].notna()].reset_index(drop=True)


def differences_of(
    baseline: pd.DataFrame, candidate: pd.DataFrame, confidence: float = CONFIDENCE
) -> dict[str, Difference]:
    """Metric -> the difference; without those that were not measured, such as the reward of rows without one."""
    compared = [metric for metric in COMPARED if metric is not m.REWARD or is_same_reward(baseline, candidate)]
    of_agents = AGENT_METRICS if has_episodes(baseline) and has_episodes(candidate) else ()
    return {
        name: one
        for family in (compared, of_agents)  # the p of the others are the same with and without agents
        for name, one in _adjusted(baseline, candidate, family, confidence).items()
    }


def _adjusted(
    baseline: pd.DataFrame, candidate: pd.DataFrame, metrics: Sequence[m.Metric], confidence: float
) -> dict[str, Difference]:
    """The differences, their p adjusted by Holm's method over these metrics."""
    found = [_difference(baseline, candidate, metric, confidence) for metric in metrics]
    differences = {one.name: one for one in found if one is not None}
    judged = {name: x.p for name, x in differences.items() if x.better != "neither" and not x.is_decisive}
    adjusted = holm(judged)
    return {name: replace(x, p_holm=adjusted.get(name, x.p)) for name, x in differences.items()}


def _difference(
    baseline: pd.DataFrame, candidate: pd.DataFrame, metric: m.Metric, confidence: float
) -> Difference | None:
    both = outcomes(baseline, candidate, metric)
    sample = _sample(both)
    if sample.n_functions < 2:
        return None
    most, runs = _most(metric, baseline, candidate), run_spread(baseline, candidate, metric)
    added = NO_RUNS if runs is None else runs.of_difference
    rule = difference_rule(sample, most, added)
    low, high = rule.interval(confidence)
    others = over_repositories(sample, most, added, confidence) if sample.n_repositories > 1 else None
    p = rule.p()
    return Difference(
        name=metric.name,
        label=metric.label,
        better=metric.better,
        is_rate=metric.is_rate,
        baseline=float(both["baseline"].mean()),
        candidate=float(both["candidate"].mean()),
        difference=sample.mean,
        low=low,
        high=high,
        p=p,
        p_holm=p,
        detectable=detectable_effect(sample, added, 1 - confidence),
        n_tasks=len(both),
        n_clusters=sample.n_functions,
        noise=noise_level(baseline, metric, attempts=_attempts(candidate)),
        over_repositories=others,
        confidence=confidence,
        method=f"score, t({rule.freedom:.0f})",
        is_constant=bool(np.ptp(sample.values) == 0),
        between_runs=None if runs is None else math.sqrt(runs.of_one),
    )


def bounds_of(
    baseline: pd.DataFrame, candidate: pd.DataFrame, metric: m.Metric, *, may_be_unanswered: bool = True
) -> tuple[Sample, Sample] | None:
    """The differences of the tasks in the worst and the best case of the missing attempts; None: not bounded."""
    if metric.ends is None:
        return None
    worst, best = metric.ends
    low, high = (
        _sample(outcomes(baseline, candidate, metric, case, may_be_unanswered=may_be_unanswered))
        for case in ((best, worst), (worst, best))
    )
    return low, high


def interval_of(sample: Sample, confidence: float, runs: RunSpread | None = None) -> Interval:
    """The interval of a difference of rates."""
    return difference_rule(sample, runs=NO_RUNS if runs is None else runs.of_difference).interval(confidence)


def _sample(both: pd.DataFrame) -> Sample:
    return Sample.of_tasks(both, both["candidate"] - both["baseline"])


def _most(metric: m.Metric, baseline: pd.DataFrame, candidate: pd.DataFrame) -> float:
    """The largest possible difference: of rates, and of rewards and counts, which lie in [0, 1] unless observed values
    exceed it."""
    if metric.range is None:
        return span(pd.concat([metric.of_rows(rows) for rows in (baseline, candidate)]))
    return metric.range[1] - metric.range[0]


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
