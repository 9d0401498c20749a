"""Variance between the runs of a policy: how much a whole pass over the tasks moves by itself.

A run is a whole evaluation: the attempts of one seed. Attempts at a task differ by chance, which the interval over
tasks contains already. Runs may differ by more, since what they share (the state of a service, a version, a training
run) moves all tasks at once. The variance component is that of a two-way layout of tasks and runs, of each task's mean
in each run: (mean square between runs - mean square of the rest) / tasks. It is counted if the F test of the runs has p
below `POOLED`, as Bancroft (1964, Biometrics 20:427) recommends for preliminary tests; else it is taken as 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import fdtrc

from regrade.evaluators.analysis.clustered_means import Spread
from regrade.evaluators.analysis.metrics import Metric
from regrade.evaluators.analysis.uncertainty import NO_RUNS

POOLED = 0.25


def n_runs(rows: pd.DataFrame) -> int:
    """Runs of one policy at one temperature."""
    return int(rows["seed"].nunique())


def between_runs(tables: Sequence[pd.DataFrame], metric: Metric) -> Spread | None:
    """The variance of a single run's mean, beyond chance at each task, pooled over policies; None with single runs."""
    found = [squares for squares in (_squares(rows, metric) for rows in tables) if squares is not None]
    if not found:
        return None
    runs, rest = sum(x[0] for x in found), sum(x[1] for x in found)
    freedom, rest_freedom = sum(x[2] for x in found), sum(x[3] for x in found)
    tasks = sum(x[2] * x[4] for x in found) / freedom
    between, within = runs / freedom, rest / rest_freedom
    if between <= within or (within and fdtrc(freedom, rest_freedom, between / within) >= POOLED):
        return Spread(0.0, freedom)
    return Spread((between - within) / tasks, freedom)


@dataclass(frozen=True)
class RunSpread:
    """Variance between runs."""

    of_one: float
    """Of the mean of a single run."""
    of_difference: Spread
    """Of the difference of the two policies' means over their runs."""


def run_spread(baseline: pd.DataFrame, candidate: pd.DataFrame, metric: Metric) -> RunSpread | None:
    """The variance that runs add to the comparison; None with one run of each policy."""
    found = between_runs((baseline, candidate), metric)
    if found is None:
        return None
    if not found.variance:
        return RunSpread(0.0, NO_RUNS)
    factor = 1 / n_runs(baseline) + 1 / n_runs(candidate)
    return RunSpread(found.variance, Spread(found.variance * factor, found.freedom))


def _squares(rows: pd.DataFrame, metric: Metric) -> tuple[float, float, float, float, float] | None:
    """Sums of squares between runs and of the rest, their degrees of freedom, and tasks; None without several runs."""
    count = n_runs(rows)
    if count < 2 or len(rows) < 2 * count:
        return None
    values = metric.of_rows(rows).to_numpy(dtype=np.float64)
    known = ~np.isnan(values)
    tasks = pd.factorize(np.asarray(rows["task"], dtype=object))[0]
    cells = tasks * count + pd.factorize(rows["seed"])[0]
    size = (int(tasks.max()) + 1) * count
    sums = np.bincount(cells[known], weights=values[known], minlength=size)
    counts = np.bincount(cells[known], minlength=size)
    layout = np.divide(sums, counts, out=np.full(size, np.nan), where=counts > 0).reshape(-1, count)
    layout = layout[~np.isnan(layout).any(axis=1)]
    n = len(layout)
    if n < 2:
        return None
    of_runs = layout.mean(axis=0)
    rest = layout - layout.mean(axis=1, keepdims=True) - of_runs + layout.mean()
    return (
        float(n * np.sum((of_runs - of_runs.mean()) ** 2)),
        float(np.sum(rest**2)),
        count - 1.0,
        (n - 1.0) * (count - 1),
        float(n),
    )
