"""How good are predictions of an executed outcome? Ranking, calibration and selection, with clustered intervals.

Every figure is a mean over tasks, or is written as one: the value of a task is the figure plus what its attempts
contribute to it (its influence, by the infinitesimal jackknife; for the AUC these are the placements of DeLong et al.
1988, Biometrics 44:837, in clusters as in Obuchowski 1997, Biometrics 53:567). So all intervals, and the paired
differences of two predictors on the same attempts, are those of `clustered_means`: tasks of one function are one
cluster, and repositories are strata.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata

from regrade.evaluators.analysis.clustered_means import Sample
from regrade.evaluators.analysis.score_interval import Interval
from regrade.evaluators.analysis.uncertainty import difference_interval, mean_interval

Floats = NDArray[np.float64]
BINS = 10
NOT_DEFINED = Interval(math.nan, math.nan)


class Figure(NamedTuple):
    """A figure with its 95 % interval for new tasks of these repositories; all NaN if it is not defined."""

    value: float
    interval: Interval
    tasks: int
    """Tasks that have a value."""


UNDEFINED = Figure(math.nan, NOT_DEFINED, 0)


@dataclass(frozen=True)
class TestedAttempts:
    """Executed attempts, on which predictors are compared. All of shape (attempts,)."""

    __test__ = False

    outcomes: NDArray[np.bool_]
    rewards: Floats
    tasks: NDArray[np.object_]
    functions: NDArray[np.object_]
    repositories: NDArray[np.object_]

    @classmethod
    def of(
        cls,
        outcomes: Sequence[bool],
        rewards: Sequence[float],
        tasks: Sequence[str],
        functions: Sequence[str],
        repositories: Sequence[str],
    ) -> TestedAttempts:
        """Raises ValueError if the lengths differ, or there are no attempts."""
        lengths = {len(each) for each in (outcomes, rewards, tasks, functions, repositories)}
        if len(lengths) != 1 or not len(outcomes):
            raise ValueError("give an outcome, a reward, a task, a function and a repository for each attempt")
        labels = (np.array(list(names), dtype=object) for names in (tasks, functions, repositories))
        return cls(np.array(outcomes, dtype=bool), np.array(rewards, dtype=np.float64), *labels)

    def __len__(self) -> int:
        return len(self.outcomes)

    def where(self, kept: NDArray[np.bool_]) -> TestedAttempts:
        return TestedAttempts(*(getattr(self, name)[kept] for name in self.__dataclass_fields__))

    @cached_property
    def labels(self) -> NDArray[np.intp]:
        """The number of each attempt's task, from 0, in the order of `table`."""
        return self._grouped[0]

    @property
    def table(self) -> pd.DataFrame:
        """One row a task: task, function, repository."""
        return self._grouped[1]

    @cached_property
    def _grouped(self) -> tuple[NDArray[np.intp], pd.DataFrame]:
        keys = pd.DataFrame({"task": self.tasks, "function": self.functions, "repository": self.repositories})
        numbers = keys.groupby(["repository", "task"], sort=True).ngroup().to_numpy(dtype=np.intp)
        first = keys.assign(number=numbers).drop_duplicates("number").sort_values("number").reset_index(drop=True)
        return np.asarray(numbers, dtype=np.intp), first

    @property
    def n_tasks(self) -> int:
        return len(self.table)


def auc(tested: TestedAttempts, scores: Floats) -> Floats:
    """Of each task: the AUC plus its influence, (tasks,). All NaN if all outcomes are equal.

    The AUC is the probability that an attempt with the outcome scores above one without it; a tie counts 1/2.
    """
    good = tested.outcomes
    n_good, n_bad = int(good.sum()), int((~good).sum())
    if not n_good or not n_bad:
        return np.full(tested.n_tasks, np.nan)
    ranks = rankdata(scores)
    placements = np.empty(len(tested))
    placements[good] = (ranks[good] - rankdata(scores[good])) / n_bad
    placements[~good] = 1 - (ranks[~good] - rankdata(scores[~good])) / n_good
    area = float(placements[good].mean())
    influence = (placements - area) / np.where(good, n_good, n_bad)
    sums = np.bincount(tested.labels, weights=influence, minlength=tested.n_tasks)
    return np.asarray(area + tested.n_tasks * sums, dtype=np.float64)


def _mean_over_attempts(tested: TestedAttempts, values: Floats) -> Floats:
    """Of each task: the mean over all attempts plus its influence, (tasks,)."""
    mean = float(values.mean())
    share = np.bincount(tested.labels, weights=values - mean, minlength=tested.n_tasks) / len(tested)
    return np.asarray(mean + tested.n_tasks * share, dtype=np.float64)


def brier(tested: TestedAttempts, probabilities: Floats) -> Floats:
    """Of each task, likewise: the mean squared distance of probability and outcome."""
    return _mean_over_attempts(tested, (probabilities - tested.outcomes) ** 2)


def calibration_error(tested: TestedAttempts, probabilities: Floats, bins: int = BINS) -> Floats:
    """Of each task, likewise: the mean gap of probability and share of positive outcomes over equal bins (Naeini et al.
    2015).

    The gaps' signs count as known, so the interval is somewhat narrow; and as any mean of absolute values, the figure
    of few attempts is too large.
    """
    numbers = np.minimum((probabilities * bins).astype(int), bins - 1)
    gaps = np.bincount(numbers, probabilities - tested.outcomes, minlength=bins)
    return _mean_over_attempts(tested, np.sign(gaps)[numbers] * (probabilities - tested.outcomes))


def pair_accuracy(tested: TestedAttempts, scores: Floats) -> Floats:
    """Of each task: the share of its pairs with different rewards that the scores order correctly, a tie counts 1/2;
    NaN without such a pair. (tasks,)"""
    shares = np.full(tested.n_tasks, np.nan)
    for number, rows in _rows_by_task(tested):
        gaps = np.sign(tested.rewards[rows][:, None] - tested.rewards[rows])
        is_pair = np.triu(gaps != 0)
        if is_pair.any():
            agree = gaps * np.sign(scores[rows][:, None] - scores[rows])
            shares[number] = float(np.mean((agree[is_pair] + 1) / 2))
    return shares


def best_of(tested: TestedAttempts, scores: Floats, n: int) -> Floats:
    """Of each task: the probability that the best-scored of n of its attempts, drawn without replacement, has the
    outcome; of all its attempts, if it has fewer. (tasks,)

    With the attempts in ascending order of scores, number k of m is the best of the draw with probability
    C(k, n - 1) / C(m, n); among equal scores, each is chosen as often.
    """
    found = np.zeros(tested.n_tasks)
    for number, rows in _rows_by_task(tested):
        order = rows[np.argsort(scores[rows], kind="stable")]
        drawn = min(n, len(order))
        chosen = np.array([math.comb(k, drawn - 1) for k in range(len(order))]) / math.comb(len(order), drawn)
        _, ties = np.unique(scores[order], return_inverse=True)
        outcomes = np.bincount(ties, tested.outcomes[order]) / np.bincount(ties)
        found[number] = float(chosen @ outcomes[ties])
    return found


def _rows_by_task(tested: TestedAttempts) -> list[tuple[int, NDArray[np.intp]]]:
    order = np.argsort(tested.labels, kind="stable")
    ends = np.cumsum(np.bincount(tested.labels, minlength=tested.n_tasks))[:-1]
    return list(enumerate(np.split(order, ends)))


def figure(tested: TestedAttempts, by_task: Floats) -> Figure:
    """The mean over the tasks that have a value, in [0, 1]."""
    sample = _sample(tested, by_task)
    return _figure(sample, mean_interval(sample), 0.0) if sample.n else UNDEFINED


def difference(tested: TestedAttempts, by_task: Floats, other: Floats) -> Figure:
    """The mean of the paired differences of two predictors, the first less the other, in [-1, 1]."""
    sample = _sample(tested, by_task - other)
    return _figure(sample, difference_interval(sample, most=None), -1.0) if sample.n else UNDEFINED


def _figure(sample: Sample, interval: Interval, lowest: float) -> Figure:
    """An interval of fewer than two functions is not defined."""
    if math.isnan(interval.low):
        return Figure(sample.mean, NOT_DEFINED, sample.n)
    return Figure(sample.mean, Interval(max(lowest, interval.low), min(1.0, interval.high)), sample.n)


def _sample(tested: TestedAttempts, by_task: Floats) -> Sample:
    known = ~np.isnan(by_task)
    return Sample.of_tasks(tested.table[known], by_task[known])


class CalibrationBin(NamedTuple):
    """The attempts with probabilities in one bin."""

    mean: float
    """Of their probabilities."""
    share: float
    """Of them with the outcome."""
    attempts: int


def reliability(tested: TestedAttempts, probabilities: Floats, bins: int = BINS) -> list[CalibrationBin]:
    """The bins of `calibration_error` that have attempts, from the lowest probability."""
    numbers = np.minimum((probabilities * bins).astype(int), bins - 1)
    return [
        CalibrationBin(float(probabilities[rows].mean()), float(tested.outcomes[rows].mean()), int(rows.sum()))
        for rows in (numbers == number for number in range(bins))
        if rows.any()
    ]
