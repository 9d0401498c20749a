"""Score interval of a bounded mean: Wilson's for a rate, Tango's for a paired difference, and for means over attempts.

A value belongs to the interval if the observed mean lies within t standard errors of it, where the standard error is
that which the data would have *if this value were the mean*. For that, the observed distribution is reweighted to this
mean by empirical likelihood (Owen 2001, Empirical Likelihood), with the ends of the possible range as further support:
values that were possible but never seen. For outcomes 0 and 1 the interval is Wilson's; for differences of single
attempts it is Tango's (1998, Statistics in Medicine 17:891). It is never of width zero: if n tasks show no event, the
bound is t^2 / (n + t^2), about 3.8 / n.

The end that faces 0 moves out by a quarter of the step of a single event. So 0 is excluded about as soon as the mid-p
McNemar test rejects it (Fagerland, Lydersen & Laake 2013, BMC Medical Research Methodology 13:91).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

Floats = NDArray[np.float64]

CORRECTION = 0.25
"""Part of a single event's step by which the end that faces 0 moves out."""
GRID, ROUNDS, HALVINGS = 16, 4, 32
"""Points of a search for an end, its repetitions, and bisections for the weights: 1e-5 of the range or better."""


class Interval(NamedTuple):
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class ScoreRule:
    """All that an interval needs: a distribution, and the errors of its mean."""

    values: Floats
    shares: Floats
    """The distinct values, and the share of the tasks with each."""
    lowest: float
    highest: float
    """The ends of the possible range; both infinite: the variance is the observed one, and the interval Student's."""
    scale: float
    """Variance of the mean / variance of the values: design effect / tasks."""
    freedom: float
    further: float = 0.0
    """Variance of other sources, such as between runs of a policy."""
    step: float = 0.0
    """How far a single event moves the mean, for the end that faces 0; 0: no correction."""

    @property
    def mean(self) -> float:
        return float(self.values @ self.shares)

    def interval(self, confidence: float = 0.95) -> Interval:
        """Both ends, within the possible range; NaN without degrees of freedom."""
        if not self.freedom > 0:
            return Interval(float("nan"), float("nan"))
        t = quantile(0.5 + confidence / 2, self.freedom)
        if not self._is_bounded:
            half = t * float(np.sqrt(self._variance(np.array([self.mean]))[0]))
            return Interval(self.mean - half, self.mean + half)
        return Interval(self._end(self.lowest, t), self._end(self.highest, t))

    @property
    def _is_bounded(self) -> bool:
        return bool(np.isfinite(self.lowest) and np.isfinite(self.highest))

    def p(self) -> float:
        """Two-sided p of a mean of 0: at most 1 - confidence just if the interval excludes 0."""
        if not self.freedom > 0:
            return float("nan")
        distance = abs(self.mean) - CORRECTION * self.step
        if distance <= 0:
            return 1.0
        error = float(np.sqrt(self._variance(np.zeros(1))[0]))
        return float(min(1.0, 2 * special.stdtr(self.freedom, -distance / error))) if error else 0.0

    def _end(self, far: float, t: float) -> float:
        """The last value on the way from the mean to `far` that belongs to the interval."""
        near, mean = self.mean, self.mean
        moved = CORRECTION * self.step if mean * (far - mean) < 0 else 0.0
        for _ in range(ROUNDS):
            points = near + (far - near) * np.arange(1, GRID + 1) / GRID
            is_out = ~self._holds(points, moved, t)
            if not is_out.any():
                return float(far)
            first = int(np.argmax(is_out))
            near, far = float(points[first - 1]) if first else near, float(points[first])
        return (near + far) / 2

    def contains(self, means: Floats, confidence: float = 0.95) -> NDArray[np.bool_]:
        """Whether the interval contains each of these values: the same rule, without the search for the ends."""
        faces_zero = (means - self.mean) * self.mean < 0
        return self._holds(
            means, np.where(faces_zero, CORRECTION * self.step, 0.0), quantile(0.5 + confidence / 2, self.freedom)
        )

    def _holds(self, means: Floats, moved: float | Floats, t: float) -> NDArray[np.bool_]:
        distances = np.maximum(np.abs(means - self.mean) - moved, 0)
        held: NDArray[np.bool_] = distances**2 <= t**2 * self._variance(means)
        return held

    def _variance(self, means: Floats) -> Floats:
        return self.scale * self._tilted(means) + self.further

    def _tilted(self, means: Floats) -> Floats:
        """The variance of the values if they had these means, by empirical likelihood."""
        if not self._is_bounded:
            return np.full(means.shape, float(self.shares @ (self.values - self.mean) ** 2))
        means = np.clip(means, self.lowest, self.highest)
        if np.isin(self.values, (self.lowest, self.highest)).all():
            return (means - self.lowest) * (self.highest - means)
        if self.lowest == -self.highest and np.isin(self.values, (self.lowest, 0.0, self.highest)).all():
            gains, losses = (float(self.shares[self.values == end].sum()) for end in (self.highest, self.lowest))
            return self.highest**2 * of_trinomial(gains, losses, means / self.highest)
        return _reweighted(self.values, self.shares, means, self.highest - means, means - self.lowest)


def of_trinomial(gains: float | Floats, losses: float | Floats, means: float | Floats) -> Floats:
    """Of the values 1, -1 and 0, with these shares of the first two: the closed form of Tango (1998)."""
    b = (2 - gains + losses) * means - gains - losses
    q = (np.sqrt(np.maximum(b**2 + 8 * losses * means * (1 - means), 0)) - b) / 4
    variance: Floats = 2 * q + means * (1 - means)
    return variance


def _reweighted(values: Floats, shares: Floats, means: Floats, up: Floats, down: Floats) -> Floats:
    """Of any values, at the distances `up` and `down` from the means to the ends of the range.

    Weights share / (1 + w (value - mean)); w is found by bisection, between the two values of w at which an end of
    the range would take weight. What remains at such a w is the weight of that end.
    """
    gaps = values - means[:, None]
    inside = 1 - 1e-12
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        low, high = np.maximum(-1 / up, -1e12) * inside, np.minimum(1 / down, 1e12) * inside
        at_low, at_high = _moment(gaps, shares, low), _moment(gaps, shares, high)
        first, last = low.copy(), high.copy()
        for _ in range(HALVINGS):
            middle = (first + last) / 2
            is_above = _moment(gaps, shares, middle) > 0
            first, last = np.where(is_above, middle, first), np.where(is_above, last, middle)
        w = np.where(at_low < 0, low, np.where(at_high > 0, high, (first + last) / 2))
        weights = shares / (1 + w[:, None] * gaps)
        missing = np.where(at_low < 0, -at_low * up, np.where(at_high > 0, at_high * down, 0.0))
    variance: Floats = np.sum(weights * gaps**2, axis=1) + missing
    return variance


def _moment(gaps: Floats, shares: Floats, w: Floats) -> Floats:
    """The mean gap with weights at `w`; it falls with `w`, and is 0 at the solution."""
    moment: Floats = (gaps / (1 + w[:, None] * gaps)) @ shares
    return moment


def quantile(probability: float, freedom: float) -> float:
    """Of Student's t."""
    return float(special.stdtrit(freedom, probability))


def distribution(values: Floats) -> dict[str, Any]:
    """The fields `values` and `shares` of a rule."""
    numbers, counts = np.unique(np.round(values, 12), return_counts=True)
    return {"values": numbers, "shares": counts / max(1, values.size)}
