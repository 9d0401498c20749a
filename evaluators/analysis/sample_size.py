"""Sample size: the tasks, attempts and runs needed to detect a difference, from a stored run or from assumptions.

The power is that of the rule that decides a verdict (`power.Plan`), so what is planned here is what `compare` reports
as detectable. For single attempts at independent tasks it needs about as many tasks as McNemar's test, by the formula
of Connor (1987, Biometrics 43), and some more for small numbers. k attempts at each task reduce the variance within a
task: the discordance D falls by (1 - 1/k) of the discordance of the policies with themselves. Tasks of one function are
correlated: they count as tasks / design effect. Runs of a policy that differ by more than chance at each task add a
variance that no number of tasks reduces, only further runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from regrade.datasets.errors import UserError
from regrade.evaluators.analysis.clustered_means import Sample
from regrade.evaluators.analysis.differences import outcomes
from regrade.evaluators.analysis.metrics import Metric
from regrade.evaluators.analysis.power import ALPHA, POWER, Plan
from regrade.evaluators.analysis.runs import between_runs

MOST_TASKS = 10_000_000


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
    between_runs: float | None = None
    """Standard deviation between runs of a policy, beyond chance at each task. None: unknown, taken as 0."""

    def __post_init__(self) -> None:
        _check("the discordance", self.discordance, 0 < self.discordance <= 1, "in (0, 1]")
        _check(
            "the design effect", self.design_effect, 0 < self.design_effect < math.inf, "above 0 (1: independent tasks)"
        )
        if self.by_chance is not None:
            is_valid = 0 <= self.by_chance <= self.discordance
            _check("the discordance by chance", self.by_chance, is_valid, "between 0 and the discordance")
        if self.between_runs is not None:
            _check("the deviation between runs", self.between_runs, 0 <= self.between_runs < 1, "in [0, 1)")

    def with_attempts(self, attempts: int) -> float:
        """Mean square of a task's difference with this number of attempts by each policy."""
        return self.discordance - (self.by_chance or 0.0) * (1 - 1 / attempts)

    def plan(self, tasks: float, attempts: int = 1, runs: int = 1) -> Plan:
        """The evaluation of so many tasks, with so many attempts at each in every run, for its power.

        With several attempts a task differs more often, and by less: the share of tasks that differ is taken as if
        attempts were independent.
        """
        attempts *= runs  # of all runs together
        square = self.with_attempts(attempts)
        share = 1 - (1 - self.discordance) ** attempts if attempts > 1 and self.by_chance else self.discordance
        independent = tasks / self.design_effect
        return Plan(
            tasks=independent,
            discordance=share,
            size=math.sqrt(square / share) if square > 0 else 1.0,
            freedom=max(1.0, independent - 1),
            further=2 * (self.between_runs or 0.0) ** 2 / runs,
        )


def tasks_needed(
    spread: Spread, effect: float, *, attempts: int = 1, runs: int = 1, power: float = POWER, alpha: float = ALPHA
) -> int | None:
    """Tasks needed to show a true difference of `effect` with this power; None if no number suffices for these runs.

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
    return _fewest(lambda tasks: spread.plan(tasks, attempts, runs).detects(effect, alpha) >= power)


def tasks_for_margin(
    spread: Spread, margin: float, *, attempts: int = 1, runs: int = 1, power: float = POWER, alpha: float = ALPHA
) -> int | None:
    """Tasks needed to show, with this power, that an equally good policy is not worse by `margin`.

    Raises:
        UserError: an argument is out of range.
    """
    _check_test(power, alpha)
    _check("the margin", margin, 0 < margin < 1, "between 0 and 1, both excluded (0.02 is 2 points)")
    return _fewest(lambda tasks: spread.plan(tasks, attempts, runs).holds(margin, alpha) >= power)


def _fewest(suffice: Callable[[int], bool]) -> int | None:
    """The smallest number of tasks that suffices, by bisection; None beyond `MOST_TASKS`."""
    high = 2
    while not suffice(high):
        if high >= MOST_TASKS:
            return None
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if suffice(middle) else (middle, high)
    return high


def smallest_effect(
    spread: Spread, tasks: int, *, attempts: int = 1, runs: int = 1, power: float = POWER, alpha: float = ALPHA
) -> float | None:
    """The smallest true difference that this number of tasks detects with this power; None if there is none.

    Raises:
        UserError: an argument is out of range, or there are no tasks.
    """
    _check_test(power, alpha)
    _check("the number of tasks", tasks, tasks >= 1, "at least 1")
    effect = spread.plan(tasks, attempts, runs).detectable(power, alpha)
    return effect if effect <= spread.discordance else None


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
    effect = Sample.of_tasks(both, second - first).design_effect
    return Spread(discordance, by_chance, max(1.0, effect), _between((baseline, candidate), metric))


def spread_within(rows: pd.DataFrame, metric: Metric) -> Spread | None:
    """A/A: the spread of a policy from itself, a lower bound of that from another policy. None with one attempt a task,
    or if attempts never differ."""
    within = _variance_within(rows, metric)
    return Spread(2 * within, 2 * within, between_runs=_between((rows,), metric)) if within else None


def _between(tables: tuple[pd.DataFrame, ...], metric: Metric) -> float | None:
    found = between_runs(tables, metric)
    return None if found is None else math.sqrt(found.variance)


def _variance_within(rows: pd.DataFrame, metric: Metric) -> float | None:
    """Mean over tasks of the variance of the attempts at a task; None if no task has two."""
    values = metric.of_rows(rows)
    variances = values[values.notna()].groupby(rows["task"][values.notna()]).var(ddof=1).dropna()
    return None if variances.empty else float(variances.mean())


def _check_test(power: float, alpha: float) -> None:
    _check("the power", power, 0.5 <= power < 1, "between 0.5 and 1")
    _check("alpha", alpha, 0 < alpha < 0.5, "between 0 and 0.5")


def _check(name: str, value: float, is_valid: bool, expected: str) -> None:
    if not is_valid:
        raise UserError(f"{name} must be {expected}; found {value!r}")
