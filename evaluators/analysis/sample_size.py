"""Sample size: the tasks and attempts needed to detect a difference, from a stored run or from assumptions.

The formula is McNemar's, for paired single attempts. With the discordance D (the share of tasks that exactly one of the
two policies solves) and the true difference d, a two-sided test at level alpha reaches the required power with

    n = (z_{1 - alpha/2} sqrt(D) + z_{power} sqrt(D - d^2))^2 / d^2

tasks (Connor 1987, Biometrics 43; Miettinen 1968). Two corrections apply. k attempts at each task reduce the variance
within a task: D falls by (1 - 1/k) of the discordance of the policies with themselves. Tasks of one repository are
correlated: n grows by the design effect, the ratio of the cluster-robust variance to the plain one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats
from scipy.optimize import brentq

from regrade.datasets.errors import UserError
from regrade.evaluators.analysis.differences import outcomes
from regrade.evaluators.analysis.metrics import Metric
from regrade.evaluators.analysis.uncertainty import Clusters, cluster_labels, cluster_level

POWER, ALPHA = 0.8, 0.05


@dataclass(frozen=True)
class Spread:
    """Discordance of two policies' outcomes at the same tasks, for one binary metric."""

    discordance: float
    """Share of the tasks at which exactly one of two attempts, one by each policy, has the outcome."""
    by_chance: float | None = None
    """Its part between a policy and itself, with other seeds. None: unknown, so further attempts at a task do not
    reduce the number of tasks."""
    design_effect: float = 1.0
    """Variance with tasks in clusters / variance of the same number of independent tasks."""

    def __post_init__(self) -> None:
        _check("the discordance", self.discordance, 0 < self.discordance <= 1, "in (0, 1]")
        _check(
            "the design effect", self.design_effect, 0 < self.design_effect < math.inf, "above 0 (1: independent tasks)"
        )
        if self.by_chance is not None:
            is_valid = 0 <= self.by_chance <= self.discordance
            _check("the discordance by chance", self.by_chance, is_valid, "between 0 and the discordance")

    def with_attempts(self, attempts: int) -> float:
        """Mean square of a task's difference with this number of attempts by each policy."""
        return self.discordance - (self.by_chance or 0.0) * (1 - 1 / attempts)


def tasks_needed(
    spread: Spread, effect: float, *, attempts: int = 1, power: float = POWER, alpha: float = ALPHA
) -> int:
    """Tasks needed by a two-sided test to detect a true difference of `effect` with this power.

    Raises:
        UserError: the effect exceeds the discordance, or an argument is out of range.
    """
    _check_test(power, alpha)
    effect = abs(effect)
    _check("the effect", effect, 0 < effect < 1, "between 0 and 1, both excluded (0.05 is 5 points)")
    if effect > spread.discordance:
        raise UserError(
            f"an effect of {effect:g} needs a discordance of at least {effect:g}; found {spread.discordance:g} (the "
            "share of tasks that exactly one of the policies solves): give a smaller effect"
        )
    return math.ceil(_tasks(spread, effect, attempts, power, alpha) - 1e-9)


def _tasks(spread: Spread, effect: float, attempts: int, power: float, alpha: float) -> float:
    square = max(spread.with_attempts(attempts), effect**2)
    root = _z(1 - alpha / 2) * math.sqrt(square) + _z(power) * math.sqrt(square - effect**2)
    return float(spread.design_effect * (root / effect) ** 2)


def tasks_for_margin(
    spread: Spread, margin: float, *, attempts: int = 1, power: float = POWER, alpha: float = ALPHA
) -> int:
    """Tasks needed to show, with this power, that an equally good policy is not worse by `margin`.

    A non-inferiority test, one-sided at alpha / 2, as in the verdict of a comparison.

    Raises:
        UserError: an argument is out of range.
    """
    _check_test(power, alpha)
    _check("the margin", margin, 0 < margin < 1, "between 0 and 1, both excluded (0.02 is 2 points)")
    z = _z(1 - alpha / 2) + _z(power)
    return math.ceil(spread.design_effect * spread.with_attempts(attempts) * (z / margin) ** 2 - 1e-9)


def smallest_effect(
    spread: Spread, tasks: int, *, attempts: int = 1, power: float = POWER, alpha: float = ALPHA
) -> float | None:
    """The smallest true difference that this number of tasks detects with this power; None if there is none.

    Raises:
        UserError: an argument is out of range, or there are no tasks.
    """
    _check_test(power, alpha)
    _check("the number of tasks", tasks, tasks >= 1, "at least 1")
    largest = spread.discordance

    def surplus(effect: float) -> float:
        return _tasks(spread, effect, attempts, power, alpha) - tasks

    if surplus(largest) > 0:
        return None
    return float(brentq(surplus, 1e-6, largest)) if surplus(1e-6) > 0 else 1e-6


def spread_of(baseline: pd.DataFrame, candidate: pd.DataFrame, metric: Metric) -> Spread | None:
    """The spread of two recorded evaluations of the same tasks; None if they never differ.

    Args:
        baseline, candidate: rows of one policy at one temperature each (see `regrade.evaluators.storage.rows`).

    Raises:
        UserError: they share no task with a known outcome.
    """
    both = outcomes(baseline, candidate, metric)
    if both.empty:
        raise UserError("the two evaluations share no task with a known outcome: give two of the same tasks")
    first, second = both["baseline"], both["candidate"]
    discordance = float((first + second - 2 * first * second).mean())
    if discordance <= 0:
        return None
    within = [_variance_within(rows, metric) for rows in (baseline, candidate)]
    by_chance = None if None in within else min(discordance, sum(value for value in within if value is not None))
    sample = Clusters.of(second - first, cluster_labels(both, cluster_level(both)))
    plain = float(np.var(sample.values, ddof=1)) / len(both) if len(both) > 1 else 0.0
    effect = sample.standard_error**2 / plain if plain and sample.count > 1 else 1.0
    return Spread(discordance, by_chance, max(1.0, effect))


def spread_within(rows: pd.DataFrame, metric: Metric) -> Spread | None:
    """A/A: the spread of a policy from itself, a lower bound of that from another policy. None with one attempt a task,
    or if attempts never differ."""
    within = _variance_within(rows, metric)
    return Spread(2 * within, 2 * within) if within else None


def _variance_within(rows: pd.DataFrame, metric: Metric) -> float | None:
    """Mean over tasks of the variance of the attempts at a task; None if no task has two."""
    values = metric.of_rows(rows)
    variances = values[values.notna()].groupby(rows["task"][values.notna()]).var(ddof=1).dropna()
    return None if variances.empty else float(variances.mean())


def _z(probability: float) -> float:
    return float(stats.norm.ppf(probability))


def _check_test(power: float, alpha: float) -> None:
    _check("the power", power, 0.5 <= power < 1, "between 0.5 and 1")
    _check("alpha", alpha, 0 < alpha < 0.5, "between 0 and 0.5")


def _check(name: str, value: float, is_valid: bool, expected: str) -> None:
    if not is_valid:
        raise UserError(f"{name} must be {expected}; found {value!r}")
