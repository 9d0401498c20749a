"""Preferences from executed scores: of two patches for one task, the one with the higher reward."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from scipy.stats import mannwhitneyu

from regrade.evaluators.storage.labelled_attempts import Component, LabelledAttempt


@dataclass(frozen=True)
class Preference:
    """A pair of attempts at one task."""

    chosen: int
    """Index of the attempt with the higher reward."""
    rejected: int
    """Index of the other one."""
    margin: float
    """Difference of the two executed rewards; > 0."""


def pairs(attempts: Sequence[LabelledAttempt], *, per_task: int | None = 8, seed: int = 0) -> list[Preference]:
    """Pairs of attempts at the same task with different rewards, by the order of the tasks' names.

    Args:
        attempts: distinct ones.
        per_task: maximum number of pairs per task, drawn by `seed` and the task's id; None: all.
    """
    groups: dict[tuple[str, str], list[int]] = {}
    for index, attempt in enumerate(attempts):
        groups.setdefault(attempt.group, []).append(index)
    chosen = []
    for group, indices in sorted(groups.items()):
        ordered = sorted(indices, key=lambda index: attempts[index].patch)
        found = [_pair(attempts, *both) for both in combinations(ordered, 2) if _differ(attempts, *both)]
        if per_task is not None and len(found) > per_task:
            found = random.Random(f"{seed} {group}").sample(found, per_task)
        chosen.extend(found)
    return chosen


def _differ(attempts: Sequence[LabelledAttempt], one: int, other: int) -> bool:
    return attempts[one].reward != attempts[other].reward


def _pair(attempts: Sequence[LabelledAttempt], one: int, other: int) -> Preference:
    gap = attempts[one].reward - attempts[other].reward
    return Preference(one, other, gap) if gap > 0 else Preference(other, one, -gap)


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Agreement of scores with executed rewards."""

    pair_accuracy: float | None
    """Share of pairs (two attempts at one task with different rewards) that the scores order correctly; a tie counts
    1/2. None: there is no pair."""
    pairs: int
    auc: float | None
    """Probability that a clean fix scores above another patch, over all tasks; 0.5 is chance. None: all are of one
    kind."""
    answers: int
    verified: int
    """Clean fixes."""
    tasks: int


def agreement(attempts: Sequence[LabelledAttempt], scores: Sequence[float]) -> Agreement:
    """Compare scores with executed rewards. Attempts must be distinct: repeats would count easy ones several times."""
    every = pairs(attempts, per_task=None)
    gaps = [scores[pair.chosen] - scores[pair.rejected] for pair in every]
    right = sum(1.0 if gap > 0 else 0.5 if gap == 0 else 0.0 for gap in gaps)
    labels = [attempt.labels.get(Component.CLEAN) for attempt in attempts]
    good = [score for label, score in zip(labels, scores, strict=True) if label is True]
    bad = [score for label, score in zip(labels, scores, strict=True) if label is False]
    # AUC = U / (n1 n2), Mann and Whitney 1947
    auc = float(mannwhitneyu(good, bad).statistic) / (len(good) * len(bad)) if good and bad else None
    return Agreement(
        pair_accuracy=right / len(every) if every else None,
        pairs=len(every),
        auc=auc,
        answers=len(attempts),
        verified=len(good),
        tasks=len({attempt.group for attempt in attempts}),
    )


def split_by_cluster(
    attempts: Sequence[LabelledAttempt], share: float, seed: int
) -> tuple[list[LabelledAttempt], list[LabelledAttempt]]:
    """Training attempts and held-out attempts, of different functions (at least one in each, if there are two)."""
    clusters = sorted({attempt.cluster for attempt in attempts})
    random.Random(seed).shuffle(clusters)
    count = min(max(1, round(share * len(clusters))), len(clusters) - 1)
    held_out = set(clusters[:count])
    return [a for a in attempts if a.cluster not in held_out], [a for a in attempts if a.cluster in held_out]
