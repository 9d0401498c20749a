"""Calibration of a reward model: from a score to the probability that an answer is verified, with its uncertainty."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from regrade.datasets.errors import UserError
from regrade.datasets.json_text import without_doubled_keys
from regrade.evaluators.storage.journal import write_atomically

FILE = "calibration.json"


class Chance(NamedTuple):
    """A probability with its uncertainty."""

    probability: float
    doubt: float
    """Half the width of the 95 % Wilson interval: small only if many answers with similar scores were executed."""


class _IsotonicStep(NamedTuple):
    highest: float
    verified: int
    answers: int


@dataclass(frozen=True)
class ScoreCalibration:
    """Scores of held-out executed answers, and their verdicts.

    An isotonic regression (Zadrozny and Elkan 2002), the best increasing step function, maps scores to probabilities.
    The interval of a step is that of the share of verified answers in it.

    Raises:
        ValueError: there is no answer, or the numbers of scores and verdicts differ.
    """

    scores: tuple[float, ...]
    verified: tuple[bool, ...]

    def __post_init__(self) -> None:
        if not self.scores or len(self.scores) != len(self.verified):
            raise ValueError("a calibration needs at least one executed answer, and a verdict for each score")

    @cached_property
    def _blocks(self) -> list[_IsotonicStep]:
        """The steps of the regression in ascending order."""
        from scipy.optimize import isotonic_regression

        order = sorted(range(len(self.scores)), key=lambda index: self.scores[index])
        outcomes = [float(self.verified[index]) for index in order]
        ends = isotonic_regression(outcomes).blocks.tolist()
        return [
            _IsotonicStep(self.scores[order[end - 1]], round(sum(outcomes[first:end])), end - first)
            for first, end in pairwise(ends)
        ]

    def chance(self, score: float) -> Chance:
        """The probability that an answer with this score is verified; outside the range of scores, that of its end."""
        from statsmodels.stats.proportion import proportion_confint

        index = min(bisect_left([block.highest for block in self._blocks], score), len(self._blocks) - 1)
        step = self._blocks[index]
        low, high = proportion_confint(step.verified, step.answers, method="wilson")
        return Chance(step.verified / step.answers, (float(high) - float(low)) / 2)

    def save(self, folder: Path) -> None:
        write_atomically(folder / FILE, json.dumps({"scores": self.scores, "verified": self.verified}))

    @classmethod
    def load(cls, folder: Path) -> ScoreCalibration | None:
        """None if the model was never tested. Raises UserError if the file is damaged."""
        path = folder / FILE
        if not path.is_file():
            return None
        try:
            values = json.loads(path.read_text(), object_pairs_hook=without_doubled_keys)
            return cls(tuple(map(float, values["scores"])), tuple(map(bool, values["verified"])))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} is damaged ({error}): train the reward model again") from error


def expected_calibration_error(chances: Sequence[Chance], verified: Sequence[bool], bins: int = 10) -> float:
    """Mean gap between probability and share of verified answers, over equal bins of probability.

    Source: Naeini et al. 2015. 0 without answers.
    """
    gaps = 0.0
    for number in range(bins):
        within = [
            (chance.probability, good)
            for chance, good in zip(chances, verified, strict=True)
            if min(int(chance.probability * bins), bins - 1) == number
        ]
        if within:
            mean = sum(probability for probability, _ in within) / len(within)
            gaps += abs(mean - sum(good for _, good in within) / len(within)) * len(within)
    return gaps / len(verified) if verified else 0.0
