"""Paired differences of several trainings from one baseline, all from the same starts, over the seeds that both have.

Each seed is a block: its start, its tasks to learn from and its draws are the same for all variants, so what a seed
adds to all of them cancels in a difference. What is left beside chance at each task is the *spread of the runs*: how
much a training moves by itself, with one seed up and with the other one down. It is a variance component of the layout
of variants x seeds x tasks, whose entries are the means over the attempts: (mean square of variants x seeds - mean
square of variants x seeds x tasks) / tasks, pooled over all variants, as each alone has seeds - 1 degrees of freedom.
As in `runs`, it counts if its F test has p below `POOLED` (Bancroft 1964). A difference of means over k seeds has twice
this variance / k, besides the error of the tasks (`clustered_means`).

One spread for all: a variant that is less stable than the others moves more than its interval says. The numbers of each
seed stand beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy.special import fdtrc

from regrade.evaluators.analysis.clustered_means import Floats, MeanError, Sample
from regrade.evaluators.analysis.differences import outcomes
from regrade.evaluators.analysis.metrics import Metric
from regrade.evaluators.analysis.runs import POOLED
from regrade.evaluators.analysis.uncertainty import NO_RUNS, detectable_effect, difference_rule, holm, span


@dataclass(frozen=True, kw_only=True)
class VariantDifference:
    """One metric of a variant less that of the baseline, paired by task and seed."""

    value: float
    low: float
    high: float
    """95 % interval for new tasks of these repositories and new trainings."""
    p: float
    p_holm: float
    """Adjusted by Holm's method over the variants."""
    detectable: float
    """The smallest true difference that 80 % of such comparisons detect."""
    by_seed: Mapping[int, float]


def differences_from(tables: Mapping[str, pd.DataFrame], baseline: str, metric: Metric) -> dict[str, VariantDifference]:
    """Variant -> its difference from the baseline; without those that share no seed or a single function with it.

    Args:
        tables: variant -> its rows, of any seeds; all seeds are judged on the same tasks.
    """
    runs = spread_of_runs(list(tables.values()), metric)
    found = {
        name: difference
        for name, rows in tables.items()
        if name != baseline and (difference := _difference(tables[baseline], rows, metric, runs)) is not None
    }
    adjusted = holm({name: each.p for name, each in found.items()})
    return {name: replace(each, p_holm=adjusted[name]) for name, each in found.items()}


def _difference(
    baseline: pd.DataFrame, candidate: pd.DataFrame, metric: Metric, runs: MeanError | None
) -> VariantDifference | None:
    seeds = sorted(set(baseline["seed"]) & set(candidate["seed"]))
    if not seeds:
        return None
    baseline, candidate = (rows[rows["seed"].isin(seeds)] for rows in (baseline, candidate))
    both = outcomes(baseline, candidate, metric)
    sample = Sample.of_tasks(both, both["candidate"] - both["baseline"])
    if sample.n_functions < 2:
        return None
    most = 1.0 if metric.is_rate else span(pd.concat([metric.of_rows(rows) for rows in (baseline, candidate)]))
    added = NO_RUNS if not runs or not runs.variance else MeanError(2 * runs.variance / len(seeds), runs.freedom)
    rule = difference_rule(sample, most, added)
    low, high = rule.interval()
    p = rule.p()
    return VariantDifference(
        value=sample.mean,
        low=low,
        high=high,
        p=p,
        p_holm=p,
        detectable=detectable_effect(sample, added),
        by_seed={int(seed): _mean_difference(baseline, candidate, metric, seed) for seed in seeds},
    )


def _mean_difference(baseline: pd.DataFrame, candidate: pd.DataFrame, metric: Metric, seed: int) -> float:
    both = outcomes(baseline[baseline["seed"] == seed], candidate[candidate["seed"] == seed], metric)
    return float((both["candidate"] - both["baseline"]).mean())


def spread_of_runs(tables: Sequence[pd.DataFrame], metric: Metric) -> MeanError | None:
    """The variance of the mean of one training beyond chance at each task and beyond what its seed adds to all.

    Over the variants that have the most seeds; None if fewer than two have several seeds in common.
    """
    most = max((rows["seed"].nunique() for rows in tables), default=0)
    full = [rows for rows in tables if rows["seed"].nunique() == most]
    seeds = sorted(set.intersection(*(set(rows["seed"]) for rows in full))) if full else []
    if len(full) < 2 or len(seeds) < 2:
        return None
    layout = _layout(full, seeds, metric)
    tasks, variants, count = layout.shape
    if tasks < 2:
        return None
    freedom = (variants - 1.0) * (count - 1)
    of_runs = _interaction(layout.mean(axis=0), (0, 1))
    rest = _interaction(layout, (0, 1, 2))
    between = tasks * float(np.sum(of_runs**2)) / freedom
    within = float(np.sum(rest**2)) / ((tasks - 1) * freedom)
    if between <= within or (within and fdtrc(freedom, (tasks - 1) * freedom, between / within) >= POOLED):
        return MeanError(0.0, freedom)
    return MeanError((between - within) / tasks, freedom)


def _layout(tables: Sequence[pd.DataFrame], seeds: Sequence[int], metric: Metric) -> Floats:
    """(tasks, variants, seeds): means over the attempts, of the tasks that are known in all of them."""
    columns = []
    for rows in tables:
        values = pd.Series(metric.of_rows(rows).to_numpy(dtype=np.float64), index=rows.index)
        means = values.groupby([rows["task"], rows["seed"]]).mean().unstack()
        columns.append(means[list(seeds)])
    joined = pd.concat(columns, axis=1, join="inner").dropna()
    return joined.to_numpy(dtype=np.float64).reshape(len(joined), len(tables), len(seeds))


def _interaction(layout: Floats, axes: tuple[int, ...]) -> Floats:
    """What is left of the numbers without all effects of fewer factors: each factor's mean is taken away in turn."""
    for axis in axes:
        layout = layout - layout.mean(axis=axis, keepdims=True)
    return layout
