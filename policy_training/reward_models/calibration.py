"""Calibration of a predictor: from a logit to a probability, with what held-out answers leave open about it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
BIN = 50
"""Answers in a bin, about; a share of fewer says little."""
MOST_BINS = 10
LOG_TEMPERATURES = (-3.0, 3.0)
"""Range of the temperature's logarithm: a held-out set that is all right or all wrong would make it 0 or infinite."""


@dataclass(frozen=True)
class Calibration:
    """Temperature scaling (Guo et al. 1706.04599), and the outcomes of the held-out answers that it was fitted on.

    A probability is sigmoid(logit / temperature). The answers are cut into bins of equal size by their logits. What
    they leave open about the probabilities of a bin is the distance of their mean to the farther end of the 95 % Wilson
    interval of the bin's share of positive outcomes: large if the bin has few answers, and if its probabilities are
    wrong. Answers of one cluster are not independent, so a bin counts its clusters. Beyond the held-out logits, the
    outermost bin counts.
    """

    temperature: float
    edges: tuple[float, ...]
    """The largest logit of each bin but the last, ascending."""
    means: tuple[float, ...]
    """Of the probabilities in each bin."""
    shares: tuple[float, ...]
    """Of positive outcomes in each bin."""
    clusters: tuple[int, ...]
    """In each bin."""

    @classmethod
    def fit(cls, logits: Floats, outcomes: Floats, clusters: Sequence[Hashable]) -> Calibration:
        """
        Args:
            logits: of held-out answers, (answers,).
            outcomes: 0 or 1, (answers,).
            clusters: answers of one cluster, such as a task, are not independent.

        Raises:
            ValueError: there is no answer, or the lengths differ.
        """
        if not len(logits) == len(outcomes) == len(clusters) > 0:
            raise ValueError("a calibration needs at least one answer, and an outcome and a cluster for each")
        order = np.argsort(logits, kind="stable")
        bins = np.array_split(order, min(MOST_BINS, max(1, len(order) // BIN)))
        temperature = _temperature(logits, outcomes)
        return cls(
            temperature,
            tuple(float(logits[members[-1]]) for members in bins[:-1]),
            tuple(float(_sigmoid(logits[members] / temperature).mean()) for members in bins),
            tuple(float(outcomes[members].mean()) for members in bins),
            tuple(len({clusters[index] for index in members}) for members in bins),
        )

    def probabilities(self, logits: Floats) -> Floats:
        """sigmoid(logit / temperature), of any shape."""
        return _sigmoid(logits / self.temperature)

    def margins(self, logits: Floats) -> Floats:
        """How far each probability may be from the truth, by the held-out answers; of any shape."""
        from statsmodels.stats.proportion import proportion_confint

        counts = np.asarray(self.clusters, dtype=np.float64)
        low, high = proportion_confint(np.asarray(self.shares) * counts, counts, method="wilson")
        means = np.asarray(self.means)
        farthest: Floats = np.maximum(means - low, high - means)
        return farthest[np.searchsorted(np.asarray(self.edges), logits, side="left")]

    def to_json(self) -> dict[str, Any]:
        """A dictionary for `json.dumps`; `from_json` reads it back."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Calibration:
        """Raises ValueError, KeyError or TypeError for another record."""
        edges, *columns = (tuple(values[name]) for name in ("edges", "means", "shares", "clusters"))
        if any(len(column) != len(edges) + 1 for column in columns) or not values["temperature"] > 0:
            raise ValueError("a calibration has a temperature above 0, and of each bin a mean, a share and a number")
        means, shares, clusters = columns
        return cls(float(values["temperature"]), edges, means, shares, clusters)


def _sigmoid(logits: Floats) -> Floats:
    from scipy.special import expit

    return np.asarray(expit(logits), dtype=np.float64)


def _temperature(logits: Floats, outcomes: Floats) -> float:
    """That with the smallest log-loss."""
    from scipy.optimize import minimize_scalar

    found = minimize_scalar(
        lambda log_temperature: log_loss(logits / np.exp(log_temperature), outcomes),
        bounds=LOG_TEMPERATURES,
        method="bounded",
    )
    return float(np.exp(found.x))


def log_loss(logits: Floats, outcomes: Floats) -> float:
    """Mean negative log-likelihood of outcomes, 0 or 1, in nats."""
    return float(np.mean(np.logaddexp(0.0, logits) - outcomes * logits))


def expected_calibration_error(probabilities: Floats, outcomes: Floats, bins: int = 10) -> float:
    """Mean gap between probability and share of positive outcomes, over equal bins of probability.

    Source: Naeini et al. 2015. 0 without answers.
    """
    if not len(outcomes):
        return 0.0
    numbers = np.minimum((probabilities * bins).astype(int), bins - 1)
    gaps = np.bincount(numbers, probabilities - outcomes, minlength=bins)
    return float(np.abs(gaps).sum() / len(outcomes))
