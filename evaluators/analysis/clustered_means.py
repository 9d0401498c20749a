"""The mean over tasks: its error for new tasks of these repositories, and for other repositories.

A sample has one number, one function and one repository for each task. Its mean supports two claims:

- **these repositories** (`Sample.within`): the tasks are a sample of the bugs of these repositories. Functions are the
  clusters, since bugs of one function resemble each other, and repositories are strata, since they are fixed.
- **other repositories** (`Sample.between`): the repositories themselves are a sample of repositories, and the clusters.

Both variances are CR2 (Bell & McCaffrey 2002, Survey Methodology 28:169): the residuals of each cluster are divided by
the square root of 1 - its share of the mean that they are measured from. Both have Satterthwaite's degrees of freedom
under independent errors (Pustejovsky & Tipton 2018, J. Business & Economic Statistics 36:672; Imbens & Kolesar 2016,
Review of Economics and Statistics 98:701). For the mean of n tasks in clusters of m_g tasks, with 1 - m_g / n = l_g and
residual sums s_g, the variance is sum(s_g^2 / l_g) / n^2, and with x_g = m_g^2 / l_g the degrees of freedom are
n^2 / (sum(m_g^2) + (sum(x_g)^2 - sum(x_g^2)) / n^2). Strata add up: each has its own mean and its own n.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Labels = NDArray[np.intp]

PRIOR = 2.0
"""Weight, in functions with an event, of full correlation within functions. Few events cannot show the correlation."""


class Spread(NamedTuple):
    """Variance of a mean, and its degrees of freedom; both NaN if they cannot be estimated."""

    variance: float
    freedom: float


UNKNOWN = Spread(float("nan"), float("nan"))


@dataclass(frozen=True)
class Sample:
    """One number, one function and one repository for each task; see the module."""

    values: Floats
    functions: Labels
    repositories: Labels
    """All of shape (tasks,). Labels are numbered from 0 without gaps."""

    @classmethod
    def of(cls, values: ArrayLike, functions: ArrayLike, repositories: ArrayLike) -> Sample:
        """Equal names of functions in different repositories are different functions.

        Raises:
            ValueError: the lengths differ.
        """
        numbers = np.asarray(values, dtype=np.float64)
        labels = [pd.factorize(np.asarray(names))[0].astype(np.intp) for names in (functions, repositories)]
        if any(names.shape != numbers.shape for names in labels):
            shapes = ", ".join(str(names.shape) for names in labels)
            raise ValueError(f"values of shape {numbers.shape}, labels of shape {shapes}: give one label a value")
        pairs = labels[1] * (len(numbers) + 1) + labels[0]
        return cls(numbers, np.unique(pairs, return_inverse=True)[1].astype(np.intp), labels[1])

    @classmethod
    def of_tasks(cls, tasks: pd.DataFrame, values: ArrayLike) -> Sample:
        """Of a table with the columns task, repository and function; a task without a function is its own cluster."""
        names = np.asarray(tasks["function"], dtype=object)
        alone = np.asarray([not isinstance(name, str) or not name for name in names], dtype=bool)
        functions = np.where(alone, "\0" + np.asarray(tasks["task"], dtype=object), names)
        return cls.of(values, functions, np.asarray(tasks["repository"], dtype=object))

    @property
    def n(self) -> int:
        return int(self.values.size)

    @property
    def n_functions(self) -> int:
        return int(self.functions.max()) + 1 if self.n else 0

    @property
    def n_repositories(self) -> int:
        return int(self.repositories.max()) + 1 if self.n else 0

    @property
    def mean(self) -> float:
        """Every task counts the same."""
        return float(self.values.mean()) if self.n else float("nan")

    @cached_property
    def within(self) -> Spread:
        """For new tasks of these repositories."""
        if self.n_functions < 2:
            return UNKNOWN
        return _spread(self.values, self.functions, self._strata)

    @cached_property
    def between(self) -> Spread:
        """For other repositories."""
        if self.n_repositories < 2:
            return UNKNOWN
        found = _spread(self.values, self.repositories, np.zeros(self.n, dtype=np.intp))
        return Spread(found.variance, min(found.freedom, self.within.freedom))

    @cached_property
    def _strata(self) -> Labels:
        """The stratum of each task: its repository. Repositories of a single function form one stratum together."""
        owner = np.zeros(self.n_functions, dtype=np.intp)
        owner[self.functions] = self.repositories
        counts = np.bincount(owner, minlength=self.n_repositories)
        is_single = counts < 2
        if is_single.sum() == 1 and len(counts) > 1:  # and the smallest other one joins it
            is_single[np.argmin(np.where(is_single, self.n + 1, counts))] = True
        strata = np.where(is_single, len(counts), np.arange(len(counts)))[self.repositories]
        return np.unique(strata, return_inverse=True)[1].astype(np.intp)

    @cached_property
    def design_effect(self) -> float:
        """`within` over the variance of as many independent tasks.

        Estimated from the functions with an unusual value (an event), and shrunk to its largest possible value, that of
        functions whose tasks always agree: without any event, a function is one trial.
        """
        sizes = np.bincount(self.functions).astype(np.float64)
        bound = float(np.sum(sizes**2)) / self.n
        plain = float(np.mean((self.values - self.mean) ** 2)) / self.n
        if not plain or np.isnan(self.within.variance):
            return bound
        numbers, counts = np.unique(self.values, return_counts=True)
        events = np.unique(self.functions[self.values != numbers[np.argmax(counts)]]).size
        return (events * self.within.variance / plain + PRIOR * bound) / (events + PRIOR)

    @cached_property
    def grain(self) -> float:
        """The step by which a single function with a value other than 0 moves the mean (root mean square)."""
        sums = np.bincount(self.functions, weights=self.values)
        sums = sums[sums != 0]
        return float(np.sqrt(np.mean(sums**2))) / self.n if sums.size else 0.0


def _spread(values: Floats, clusters: Labels, strata: Labels) -> Spread:
    sizes = np.bincount(clusters).astype(np.float64)
    owner = np.zeros(sizes.size, dtype=np.intp)
    owner[clusters] = strata
    totals = np.bincount(strata).astype(np.float64)
    means = np.bincount(strata, weights=values) / totals
    sums = np.bincount(clusters, weights=values - means[strata])
    rest = 1 - sizes / totals[owner]
    if not np.all(rest > 0):
        return UNKNOWN  # a stratum of a single cluster
    x = sizes**2 / rest
    crossed = np.bincount(owner, weights=x) ** 2 - np.bincount(owner, weights=x**2)
    spread = float(np.sum(sizes**2) + np.sum(crossed / totals**2))
    return Spread(float(np.sum(sums**2 / rest)) / values.size**2, values.size**2 / spread)


def combined(parts: list[Spread]) -> Spread:
    """The sum of independent parts, with Satterthwaite's degrees of freedom."""
    total = sum(part.variance for part in parts)
    if not total > 0:
        return Spread(float(total), parts[0].freedom)
    return Spread(float(total), float(total**2 / sum(part.variance**2 / part.freedom for part in parts)))
