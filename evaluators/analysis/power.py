"""Power of the verdict's own rule (`score_interval`): the chance that an interval excludes 0, or a loss of the margin.

Differences of tasks are +size, -size or 0; a share of the tasks (the discordance) differs at all. Given the number of
tasks that differ, the number of gains is binomial, and the rule decides. Correlated tasks count as fewer independent
ones: tasks / design effect. Everything is counted exactly up to `EXACT` differing tasks, else by the normal law.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special
from scipy.optimize import brentq

from regrade.evaluators.analysis.score_interval import CORRECTION, of_trinomial, quantile

POWER, ALPHA = 0.8, 0.05
EXACT = 4000
TAIL = 6.0
"""Standard deviations of the number of differing tasks that are counted."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """An evaluation, as far as its power depends on it."""

    tasks: float
    """Independent ones: tasks / design effect."""
    discordance: float
    """Share of the tasks with a difference."""
    size: float = 1.0
    """Root mean square of the differences that are not 0: 1 with single attempts."""
    freedom: float = math.inf
    further: float = 0.0
    """Variance of the mean difference from other sources, such as between runs of a policy."""

    def detects(self, effect: float, alpha: float = ALPHA) -> float:
        """Probability that the interval excludes 0 on the side of this true difference."""
        effect = abs(effect)
        size = max(self.size, effect)
        discordance = min(1.0, max(self.discordance, effect / size))
        counts, weights = _counts(self.tasks, discordance)
        step = size / self.tasks
        needed = CORRECTION * step + self._t(alpha) * np.sqrt(step**2 * counts + self.further)
        return float(weights @ self._reaches(needed, step, counts, effect / (size * discordance)))

    def holds(self, margin: float, alpha: float = ALPHA) -> float:
        """Probability that the interval of an equally good policy excludes a loss of `margin`."""
        counts, weights = _counts(self.tasks, self.discordance)
        step, loss = self.size / self.tasks, margin / self.size
        shares = np.minimum(counts / self.tasks, 1) / 2  # as many gains as losses
        error = of_trinomial(shares, shares, loss) * self.size**2 / self.tasks
        needed = self._t(alpha) * np.sqrt(error + self.further) - margin
        return float(weights @ self._reaches(needed, step, counts, 0.0))

    def detectable(self, power: float = POWER, alpha: float = ALPHA) -> float:
        """The smallest true difference that is detected with this power; infinite if there is none."""
        if not self.tasks > 0 or not self.freedom > 0 or math.isnan(self.discordance):
            return math.nan
        most = max(1.0, self.size)
        if self.detects(most, alpha) < power:
            return math.inf
        return float(brentq(lambda effect: self.detects(effect, alpha) - power, 1e-9, most, xtol=1e-5))

    def _t(self, alpha: float) -> float:
        return (
            quantile(1 - alpha / 2, self.freedom)
            if math.isfinite(self.freedom)
            else float(special.ndtri(1 - alpha / 2))
        )

    def _reaches(self, needed: Floats, step: float, counts: Floats, lead: float) -> Floats:
        """Probability that the mean difference is at least `needed`, given each number of differing tasks.

        Args:
            lead: (gains - losses) / differing tasks, expected.
        """
        if self.further or counts.size == 1:
            mean, variance = step * counts * lead, step**2 * counts * (1 - lead**2) + self.further
            found: Floats = special.ndtr((mean - needed) / np.sqrt(np.maximum(variance, 1e-300)))
            return found
        gains = np.ceil((counts + needed / step) / 2 - 1e-9)  # gains - losses = 2 gains - differing tasks
        chance = min(1.0, (1 + lead) / 2)
        tail = special.betainc(np.maximum(gains, 1), np.maximum(counts - gains + 1, 1), chance)
        reached: Floats = np.where(gains <= 0, 1.0, np.where(gains > counts, 0.0, tail))
        return reached


def _counts(tasks: float, discordance: float) -> tuple[Floats, Floats]:
    """Numbers of differing tasks, and their probabilities."""
    total = max(1, round(tasks))
    mean, deviation = total * discordance, math.sqrt(total * discordance * (1 - discordance))
    if mean > EXACT or deviation == 0:
        return np.array([mean]), np.ones(1)
    low, high = max(0, math.floor(mean - TAIL * deviation - 3)), min(total, math.ceil(mean + TAIL * deviation + 3))
    counts = np.arange(low, high + 1, dtype=np.float64)
    logs = (
        special.gammaln(total + 1)
        - special.gammaln(counts + 1)
        - special.gammaln(total - counts + 1)
        + counts * math.log(discordance)
        + (total - counts) * math.log1p(-discordance)
        if discordance > 0
        else np.where(counts == 0, 0.0, -np.inf)
    )
    weights = np.exp(logs)
    return counts, weights / weights.sum()
