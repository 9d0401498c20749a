"""The honest test of a reward model: on executed attempts of repositories that it never saw, against baselines.

A model that no baseline can replace beats each of them by more than chance: the size of the diff, the impact on other
modules, the policy's own log-probability where it was stored, and a static model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regrade.datasets.errors import UserError
from regrade.evaluators.analysis import prediction_quality as statistics
from regrade.evaluators.analysis.prediction_quality import CalibrationBin, Figure, TestedAttempts
from regrade.evaluators.storage.labelled_attempts import Component, LabelledAttempt, PatchOrigin, ProposedPatch
from regrade.policy_training.reward_models.patch_model import Chances, PatchModel
from regrade.rewards.evidence import Diff, Impact

Floats = NDArray[np.float64]
DRAWS = (1, 2, 4, 8)
"""Sizes of the groups of which the best attempt is selected."""
LAST = -1e12
"""The score of a patch without a change: it is no candidate for a fix."""
CONFIDENT = 0.5
"""A cheat above this probability would be taken for a clean fix."""


@dataclass(frozen=True)
class ComponentQuality:
    """How well one component is predicted."""

    component: Component
    attempts: int
    positive: float
    """Share of the attempts with the component."""
    auc: Figure
    calibration_error: Figure
    brier: Figure


@dataclass(frozen=True)
class BaselineQuality:
    """A simpler predictor on the attempts of which it says something, and by how much the model beats it there."""

    name: str
    attempts: int
    auc: Figure
    pair_accuracy: Figure
    best_of: Mapping[int, Figure]
    auc_gain: Figure
    """AUC of the model less that of the baseline, in pairs."""
    pair_gain: Figure

    @property
    def is_beaten(self) -> bool:
        """Is the model's AUC higher by more than chance?"""
        return self.auc_gain.interval.low > 0


@dataclass(frozen=True)
class OriginQuality:
    """The attempts of one origin that are no clean fixes: what the model takes them for."""

    origin: PatchOrigin
    attempts: int
    auc: Figure
    """Of clean fixes against these."""
    confident: float
    """Share with a probability above `CONFIDENT`."""


@dataclass(frozen=True)
class Quality:
    """The quality of a reward model, as a predictor of clean fixes, on the attempts that it can read."""

    model: str
    attempts: int
    unread: int
    """Attempts without a prediction, which are left out."""
    tasks: int
    clean: float
    """Share of clean fixes."""
    auc: Figure
    pair_accuracy: Figure
    calibration_error: Figure
    brier: Figure
    covered: float
    """Share of the attempts in bins of equal probability whose interval, probability and doubt, contains the share of
    clean fixes of the bin."""
    best_of: Mapping[int, Figure]
    best_possible: Mapping[int, Figure]
    """With the executed outcome in place of the model."""
    components: tuple[ComponentQuality, ...]
    repositories: Mapping[str, Quality]
    """Of each repository alone; empty within one."""
    baselines: tuple[BaselineQuality, ...]
    origins: tuple[OriginQuality, ...]
    reliability: tuple[CalibrationBin, ...]


def measure_quality(
    model: PatchModel, attempts: Sequence[LabelledAttempt], rivals: Sequence[PatchModel] = ()
) -> Quality:
    """Test a model on distinct executed attempts of repositories that it did not learn from.

    Args:
        rivals: other models that it must beat, such as a static one.

    Raises:
        UserError: there are no labelled attempts, or the model can read none of them.
    """
    labelled = [attempt for attempt in attempts if Component.CLEAN in attempt.labels]
    if not labelled:
        raise UserError("no attempt was executed to the end: there is nothing to test the reward model on")
    chances = model.chances(labelled)
    read = [(attempt, found) for attempt, found in zip(labelled, chances, strict=True) if Component.CLEAN in found]
    if not read:
        raise UserError(f"the reward model {model.name!r} can read none of the {len(labelled)} patches")
    kept = [attempt for attempt, _ in read]
    baselines = {**_simple_baselines(kept), **{rival.name: _clean(rival, kept) for rival in rivals}}
    return _quality(model.name, kept, [found for _, found in read], baselines, len(labelled) - len(read))


def _simple_baselines(attempts: Sequence[LabelledAttempt]) -> dict[str, Floats]:
    """Name -> scores, higher is better; NaN: unknown. A baseline that is nowhere known is left out."""
    found = {
        "small diff": [_small_diff(attempt) for attempt in attempts],
        "small impact": [_small_impact(attempt) for attempt in attempts],
        "log-probability": [_or_nan(attempt.log_probability) for attempt in attempts],
    }
    scores = {name: np.array(values, dtype=np.float64) for name, values in found.items()}
    return {name: values for name, values in scores.items() if not np.isnan(values).all()}


def _small_diff(patch: ProposedPatch) -> float:
    diff: Diff | None = patch.evidence.of(frozenset({Diff})).records.get(Diff)
    if diff is not None:
        return -float(diff.changed_lines) if diff.changed_lines else LAST
    lines = [line for line in patch.patch.split("\n") if line[:1] in "+-" and line[:3] not in ("+++", "---")]
    return -float(len(lines)) if any(lines) else LAST


def _small_impact(patch: ProposedPatch) -> float:
    impact: Impact | None = patch.evidence.of(frozenset({Impact})).records.get(Impact)
    if impact is None:
        return math.nan
    return -sum(module.weight for module in impact.modules) if impact.changed_symbols else LAST


def _or_nan(number: float | None) -> float:
    return math.nan if number is None else number


def _clean(model: PatchModel, attempts: Sequence[LabelledAttempt]) -> Floats:
    """A patch that the rival cannot read scores lowest."""
    return np.array([chances[Component.CLEAN].probability if chances else 0.0 for chances in model.chances(attempts)])


def outcome_table(attempts: Sequence[LabelledAttempt], component: Component = Component.CLEAN) -> TestedAttempts:
    """The attempts, all of which have this label. Raises ValueError without attempts."""
    return TestedAttempts.of(
        [attempt.labels[component] for attempt in attempts],
        [attempt.reward for attempt in attempts],
        [attempt.task_id for attempt in attempts],
        [attempt.function for attempt in attempts],
        [attempt.repository for attempt in attempts],
    )


def _quality(
    name: str,
    attempts: Sequence[LabelledAttempt],
    chances: Sequence[Chances],
    baselines: Mapping[str, Floats],
    unread: int = 0,
) -> Quality:
    data = outcome_table(attempts)
    probabilities = np.array([each[Component.CLEAN].probability for each in chances])
    doubts = np.array([each[Component.CLEAN].doubt for each in chances])
    return Quality(
        model=name,
        attempts=len(data),
        unread=unread,
        tasks=data.n_tasks,
        clean=float(data.outcomes.mean()),
        auc=statistics.figure(data, statistics.auc(data, probabilities)),
        pair_accuracy=statistics.figure(data, statistics.pair_accuracy(data, probabilities)),
        calibration_error=statistics.figure(data, statistics.calibration_error(data, probabilities)),
        brier=statistics.figure(data, statistics.brier(data, probabilities)),
        covered=_covered(data, probabilities, doubts),
        best_of=_best_of(data, probabilities),
        best_possible=_best_of(data, data.outcomes.astype(np.float64)),
        components=tuple(_components(attempts, chances)),
        repositories=_by_repository(name, attempts, chances, baselines),
        baselines=tuple(filter(None, (_baseline(data, *each, probabilities) for each in baselines.items()))),
        origins=tuple(_origins(data, attempts, probabilities)),
        reliability=tuple(statistics.reliability(data, probabilities)),
    )


def _best_of(data: TestedAttempts, scores: Floats) -> dict[int, Figure]:
    return {n: statistics.figure(data, statistics.best_of(data, scores, n)) for n in DRAWS}


def _covered(data: TestedAttempts, probabilities: Floats, doubts: Floats) -> float:
    numbers = np.minimum((probabilities * statistics.BINS).astype(int), statistics.BINS - 1)
    sums = np.bincount(numbers, data.outcomes, minlength=statistics.BINS)
    shares = (sums / np.maximum(np.bincount(numbers, minlength=statistics.BINS), 1))[numbers]
    return float(np.mean(np.abs(shares - probabilities) <= doubts))


def _baseline(whole: TestedAttempts, name: str, scores: Floats, probabilities: Floats) -> BaselineQuality | None:
    """None without an attempt of which it says something."""
    known = ~np.isnan(scores)
    if not known.any():
        return None
    data, scores, probabilities = whole.where(known), scores[known], probabilities[known]
    areas, ordered = statistics.auc(data, scores), statistics.pair_accuracy(data, scores)
    return BaselineQuality(
        name=name,
        attempts=len(data),
        auc=statistics.figure(data, areas),
        pair_accuracy=statistics.figure(data, ordered),
        best_of=_best_of(data, scores),
        auc_gain=statistics.difference(data, statistics.auc(data, probabilities), areas),
        pair_gain=statistics.difference(data, statistics.pair_accuracy(data, probabilities), ordered),
    )


def _components(attempts: Sequence[LabelledAttempt], chances: Sequence[Chances]) -> list[ComponentQuality]:
    found = []
    for component in Component:
        rows = [
            (attempt, each[component].probability)
            for attempt, each in zip(attempts, chances, strict=True)
            if component in attempt.labels and component in each
        ]
        if not rows:
            continue
        data, probabilities = outcome_table([attempt for attempt, _ in rows], component), np.array([p for _, p in rows])
        quality = ComponentQuality(
            component=component,
            attempts=len(rows),
            positive=float(data.outcomes.mean()),
            auc=statistics.figure(data, statistics.auc(data, probabilities)),
            calibration_error=statistics.figure(data, statistics.calibration_error(data, probabilities)),
            brier=statistics.figure(data, statistics.brier(data, probabilities)),
        )
        found.append(quality)
    return found


def _by_repository(
    name: str, attempts: Sequence[LabelledAttempt], chances: Sequence[Chances], baselines: Mapping[str, Floats]
) -> dict[str, Quality]:
    names = np.array([attempt.repository for attempt in attempts], dtype=object)
    found = sorted(set(names))
    if len(found) < 2:
        return {}
    parts = {}
    for repository in found:
        rows = np.flatnonzero(names == repository).tolist()
        own = {each: scores[rows] for each, scores in baselines.items()}
        parts[repository] = _quality(name, [attempts[row] for row in rows], [chances[row] for row in rows], own)
    return parts


def _origins(data: TestedAttempts, attempts: Sequence[LabelledAttempt], probabilities: Floats) -> list[OriginQuality]:
    names = np.array([attempt.origin for attempt in attempts], dtype=object)
    found = []
    for origin in PatchOrigin:
        rows = (names == origin) & ~data.outcomes
        if rows.any():
            both = rows | data.outcomes
            part = data.where(both)
            area = statistics.figure(part, statistics.auc(part, probabilities[both]))
            confident = float(np.mean(probabilities[rows] > CONFIDENT))
            found.append(OriginQuality(origin, int(rows.sum()), area, confident))
    return found


def to_json(quality: Quality) -> dict[str, Any]:
    """For `json.dumps`; a figure is {"value", "low", "high", "tasks"}, with null for what is not defined."""
    found: dict[str, Any] = _plain(quality)
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, Figure):
        numbers = {"value": value.value, "low": value.interval.low, "high": value.interval.high}
        return {**{name: _plain(number) for name, number in numbers.items()}, "tasks": value.tasks}
    if is_dataclass(value):
        return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, CalibrationBin):
        return value._asdict()
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and math.isnan(value) else value
