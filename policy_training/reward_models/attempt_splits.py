"""Splits of executed attempts by repository: what a model learned from is never what it is tested on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from regrade.datasets.errors import UserError
from regrade.datasets.mutation.packages import PACKAGES
from regrade.evaluators.storage.labelled_attempts import LabelledAttempt

HELD_OUT = frozenset(package.name for package in PACKAGES if package.group == "held_out")
"""The shipped repositories that nothing is trained on."""


@dataclass(frozen=True)
class AttemptSplit:
    """Attempts to learn from, and attempts to test on.

    Raises:
        UserError: attempts at one task, or at tasks of one repository, are on both sides.
    """

    training: tuple[LabelledAttempt, ...]
    test: tuple[LabelledAttempt, ...]

    def __post_init__(self) -> None:
        learned = {attempt.task_id for attempt in self.training}
        shared = next((attempt for attempt in self.test if attempt.task_id in learned), None)
        if shared is not None:
            raise UserError(
                f"attempts at task {shared.task_id!r} are in the training set and in the test set: the test would "
                "repeat what was learned; give all runs of a repository to one of the two"
            )
        both = {a.repository for a in self.training} & {a.repository for a in self.test}
        if both:
            raise UserError(
                f"tasks of repository {min(both)!r} are in the training set and in the test set: split by repository"
            )


def split_by_repository(attempts: Iterable[LabelledAttempt], held_out: Collection[str] = HELD_OUT) -> AttemptSplit:
    """The attempts at the repositories `held_out` test, all others train."""
    training: list[LabelledAttempt] = []
    test: list[LabelledAttempt] = []
    for attempt in attempts:
        (test if attempt.repository in held_out else training).append(attempt)
    return AttemptSplit(tuple(training), tuple(test))


def folds_of(attempts: Sequence[LabelledAttempt], folds: int) -> NDArray[np.int64]:
    """The fold of each attempt, (attempts,): whole repositories, or with fewer repositories than folds, functions.

    The largest goes first, each to the fold with the fewest attempts, so that folds are about equal in size.
    """
    names = [attempt.repository for attempt in attempts]
    if len(set(names)) < folds:
        names = ["::".join(attempt.cluster) for attempt in attempts]
    sizes = Counter(sorted(names))
    folds = min(folds, len(sizes))
    filled = [0] * folds
    place = {}
    for name, size in sizes.most_common():
        place[name] = min(range(folds), key=filled.__getitem__)
        filled[place[name]] += size
    return np.array([place[name] for name in names], dtype=np.int64)
