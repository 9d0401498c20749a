"""What learning from executed tests is worth in demonstrations: the exchange rate, and its interval.

SFT is evaluated after learning from D_1 < ... < D_k demonstrations, and another policy, which started from `start`
demonstrations, on the same tasks. Let s_i be the clean-fix rate of SFT with D_i, and r that of the other policy.

1. Isotonic regression: f_1 <= ... <= f_k are the non-decreasing numbers closest to s_1, ..., s_k (least squares;
   Barlow, Bartholomew, Bremner & Brunk 1972): f_i = max over a <= i of min over b >= i of mean(s_a, ..., s_b).
2. Between D_i and D_i+1, f is linear in log D.
3. E is the number of demonstrations with f(E) = r, and the **exchange rate** is M = E - start: "learning from these
   tested tasks, on top of `start` demonstrations, is worth M more demonstrations".

If r > f_k, the curve ends before it reaches r: E is *more than* D_k (infinite). If r < f_1, E is *fewer than* D_1
(minus infinite). Where f is flat at r, all its numbers of demonstrations solve the equation: E is their geometric
middle, and unknown (NaN) if the flat part contains an end of the curve.

The interval is a cluster bootstrap (Davison & Hinkley 1997, section 3.8): in each draw, the functions of each
repository are drawn with replacement, each with all its tasks, and s, r, f and E are computed anew from the same drawn
tasks for all policies. The ends of the interval are the 2.5 % quantile of the smallest solutions and the 97.5 %
quantile of the largest ones, so a flat or falling curve, which tells nothing, gives an interval without ends. It is for
new bugs of these repositories and for these trained policies: training runs are not drawn anew.

Breakage is compared at equal clean fixes: r's breakage less that of SFT, interpolated linearly in log D at E (at the
curve's end, if E lies beyond it), with the bootstrap interval of the same draws.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from regrade.evaluators.analysis import metrics as m
from regrade.evaluators.analysis.clustered_means import Labels, Sample
from regrade.evaluators.analysis.score_interval import Interval
from regrade.evaluators.analysis.uncertainty import task_means
from regrade.evaluators.storage.json_numbers import finite_values

Floats = NDArray[np.float64]

DRAWS = 4000
"""Of the bootstrap: the ends of a 95 % interval then have an error of 0.25 points of probability."""


@dataclass(frozen=True, kw_only=True)
class ExchangeRate:
    """The exchange rate of one policy, see the module."""

    start: int
    smallest: int
    largest: int
    """Demonstrations at the ends of the SFT curve."""
    equivalent: float
    """E: demonstrations with which SFT fixes as much. Infinite: more than `largest`; minus infinite: fewer than
    `smallest`; NaN: the curve is flat there."""
    low: float
    high: float
    """95 % interval of E, infinite beyond the ends of the curve."""
    breakage: Interval
    """95 % interval of the difference in breakage at equal clean fixes."""
    breakage_difference: float
    n_tasks: int
    n_functions: int

    @property
    def more(self) -> float:
        """M = E - start."""
        return self.equivalent - self.start

    @property
    def is_shown(self) -> bool:
        """Is it worth more than nothing, by the interval?"""
        return self.low > self.start

    @property
    def words(self) -> str:
        """Such as `58 more demonstrations [21, more than 163]`."""
        if math.isnan(self.equivalent):
            return f"not determined: the curve is flat there [{self._bound(self.low)}, {self._bound(self.high)}]"
        if self.equivalent == math.inf:
            what = f"more than {self.largest - self.start} more demonstrations"
        elif self.equivalent == -math.inf:
            what = f"no demonstration: it fixes less than SFT with {self.smallest}"
        elif round(self.more) < 0:
            what = f"{round(-self.more)} demonstrations less than none"
        else:
            what = f"{round(self.more)} more demonstrations"
        return f"{what} [{self._bound(self.low)}, {self._bound(self.high)}]"

    def _bound(self, end: float) -> str:
        if end == math.inf:
            return f"more than {self.largest - self.start}"
        if end == -math.inf:
            return f"less than {self.smallest - self.start}".replace("-", "−")
        return f"{round(end - self.start)}".replace("-", "−")

    def to_json(self) -> dict[str, Any]:
        """Numbers that are not finite become null; `is_censored` says that E lies beyond an end of the curve."""
        values = {**asdict(self), "more": self.more, "words": self.words, "is_shown": self.is_shown}
        return {
            **finite_values({**values, "breakage": list(self.breakage)}),
            "is_censored": math.isinf(self.equivalent),
        }


class CurveRates(NamedTuple):
    """Rates of SFT at each number of demonstrations, and of the other policy."""

    curve: Floats
    """Of shape (numbers of demonstrations, ...)."""
    other: Floats


def exchange_rate(
    curve: Mapping[int, pd.DataFrame], rows: pd.DataFrame, start: int, *, draws: int = DRAWS, seed: int = 0
) -> ExchangeRate | None:
    """The exchange rate of a policy; None if the curve has a single number of demonstrations or ends at `start`, or the
    tasks have a single function.

    Args:
        curve: number of demonstrations -> rows of SFT, of one or several seeds; rates are means over tasks of each
            task's mean. Tasks that a policy lacks are left out.
        rows: of the policy.
        start: demonstrations from which it started.
    """
    counts = sorted(curve)
    tables = [curve[count] for count in counts] + [rows]
    fixes, tasks = _by_task(tables, m.FIX_AND_CLEAN)
    if len(counts) < 2 or start >= counts[-1] or tasks.empty:
        return None
    sample = Sample.of_tasks(tasks, fixes[-1])
    if sample.n_functions < 2:
        return None
    breaks, _ = _by_task(tables, m.BREAKAGE_INCIDENCE, tasks["task"])
    logs = np.log(np.asarray(counts, dtype=np.float64))
    weights = cluster_weights(sample.functions, sample.repositories, draws, seed)
    observed, drawn = _rates(fixes, np.ones((1, sample.n))), _rates(fixes, weights)
    equivalent = _middle(*solutions(logs, isotonic(observed.curve), observed.other))[0]
    low, high = solutions(logs, isotonic(drawn.curve), drawn.other)
    gap = _breakage_at(logs, _rates(breaks, np.ones((1, sample.n))), isotonic(observed.curve), observed.other)[0]
    gaps = _breakage_at(logs, _rates(breaks, weights), isotonic(drawn.curve), drawn.other)
    return ExchangeRate(
        start=start,
        smallest=counts[0],
        largest=counts[-1],
        equivalent=float(_demonstrations(equivalent)),
        low=float(_demonstrations(np.quantile(low, 0.025, method="lower"))),
        high=float(_demonstrations(np.quantile(high, 0.975, method="higher"))),
        breakage=Interval(*(float(end) for end in np.nanquantile(gaps, [0.025, 0.975]))),
        breakage_difference=float(gap),
        n_tasks=sample.n,
        n_functions=sample.n_functions,
    )


def isotonic(rates: Floats) -> Floats:
    """The non-decreasing sequences closest to the columns of `rates`, of shape (numbers of demonstrations, draws)."""
    size = len(rates)
    sums = np.concatenate([np.zeros_like(rates[:1]), np.cumsum(rates, axis=0)])
    fitted = []
    for place in range(size):
        least = [
            np.min([(sums[end] - sums[first]) / (end - first) for end in range(place + 1, size + 1)], axis=0)
            for first in range(place + 1)
        ]
        fitted.append(np.max(least, axis=0))
    # Sums of equal parts differ in the last digits: what should be flat is made exactly flat.
    return np.maximum.accumulate(np.round(fitted, 12), axis=0)


def solutions(logs: Floats, curve: Floats, rates: Floats) -> tuple[Floats, Floats]:
    """The smallest and the largest x with curve(x) = rate, in each draw; infinite beyond the ends, or if the curve is
    flat up to an end at this rate.

    Args:
        logs: x at the knots, ascending.
        curve: non-decreasing, of shape (knots, draws).
        rates: one for each draw.
    """
    rates = np.round(rates, 12)
    smallest = _crossing(logs, curve, rates)
    largest = -_crossing(-logs[::-1], -curve[::-1], -rates)
    smallest = np.where(rates > curve[-1], np.inf, smallest)
    largest = np.where(rates < curve[0], -np.inf, largest)
    smallest = np.where((rates < curve[0]) | ((rates == curve[0]) & (curve[1] == curve[0])), -np.inf, smallest)
    largest = np.where((rates > curve[-1]) | ((rates == curve[-1]) & (curve[-2] == curve[-1])), np.inf, largest)
    return smallest, largest


def _crossing(logs: Floats, curve: Floats, rates: Floats) -> Floats:
    """The smallest x between the knots with curve(x) >= rate; the last knot if there is none."""
    reached = curve >= rates
    place = np.where(reached.any(axis=0), np.argmax(reached, axis=0), len(logs) - 1)
    before = np.maximum(place - 1, 0)
    column = np.arange(curve.shape[1])
    rise = curve[place, column] - curve[before, column]
    share = np.divide(rates - curve[before, column], rise, out=np.ones_like(rates), where=rise > 0)
    return np.asarray(logs[before] + np.clip(share, 0.0, 1.0) * (logs[place] - logs[before]), dtype=np.float64)


def _middle(smallest: Floats, largest: Floats) -> Floats:
    """The middle of the solutions; NaN if there are several and they have no end."""
    is_same = smallest == largest
    is_open = ~is_same & (np.isinf(smallest) | np.isinf(largest))
    with np.errstate(invalid="ignore"):
        middle = (smallest + largest) / 2
    return np.where(is_same, smallest, np.where(is_open, np.nan, middle))


def _breakage_at(logs: Floats, breakage: CurveRates, curve: Floats, rates: Floats) -> Floats:
    """The policy's breakage less that of SFT at equal clean fixes, in each draw."""
    smallest, largest = solutions(logs, curve, rates)
    place = np.clip((np.clip(smallest, logs[0], logs[-1]) + np.clip(largest, logs[0], logs[-1])) / 2, logs[0], logs[-1])
    after = np.clip(np.searchsorted(logs, place), 1, len(logs) - 1)
    share = (place - logs[after - 1]) / (logs[after] - logs[after - 1])
    column = np.arange(breakage.curve.shape[1])
    of_sft = (1 - share) * breakage.curve[after - 1, column] + share * breakage.curve[after, column]
    return np.asarray(breakage.other - of_sft, dtype=np.float64)


def cluster_weights(functions: Labels, repositories: Labels, draws: int, seed: int) -> Floats:
    """How often each task is drawn, of shape (draws, tasks): functions with replacement within each repository."""
    random = np.random.default_rng(seed)
    owner = np.zeros(int(functions.max()) + 1, dtype=np.intp)
    owner[functions] = repositories
    counts = np.zeros((draws, owner.size))
    for repository in np.unique(owner):
        own = np.flatnonzero(owner == repository)
        counts[:, own] = random.multinomial(own.size, np.full(own.size, 1 / own.size), size=draws)
    return counts[:, functions]


def _rates(values: Floats, weights: Floats) -> CurveRates:
    """Weighted means over tasks, of shape (draws,) for each policy; the last row of `values` is the other policy."""
    known = ~np.isnan(values)
    sums, sizes = np.where(known, values, 0.0) @ weights.T, known.astype(np.float64) @ weights.T
    means = np.divide(sums, sizes, out=np.full_like(sums, np.nan), where=sizes > 0)
    return CurveRates(means[:-1], means[-1])


def _by_task(
    tables: list[pd.DataFrame], metric: m.Metric, only: pd.Series[Any] | None = None
) -> tuple[Floats, pd.DataFrame]:
    """The mean of each task, of shape (policies, tasks), and the tasks: `only` these, or those that all have."""
    means = [task_means(rows, metric.of_rows(rows)).set_index("task") for rows in tables]
    joined = pd.concat([one["value"] for one in means], axis=1)
    joined = joined.dropna() if only is None else joined.reindex(only)
    tasks = means[-1].reindex(joined.index)[["repository", "function"]].reset_index(names="task")
    return joined.to_numpy(dtype=np.float64).T, tasks


def _demonstrations(log: Any) -> Any:
    """exp, but minus infinity stays what it is: fewer than the curve's first number."""
    return -math.inf if log == -math.inf else np.exp(log)
