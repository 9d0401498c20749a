"""Trains a language reward model on executed attempts: the trunk if asked for, then the heads, then the calibration.

The heads are trained in both objectives, so every model predicts components, with probabilities and doubt. They differ
in the trunk: `components` leaves it as it is, so its activations are computed once; `preferences` first adapts its
upper layers to pairs of attempts by Bradley-Terry.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from regrade.datasets.errors import UserError
from regrade.datasets.patches import Patch
from regrade.evaluators.storage.labelled_attempts import Component, LabelledAttempt
from regrade.policy_training.policies.models import LanguageModel
from regrade.policy_training.reward_models.activation_store import ActivationStore, Progress
from regrade.policy_training.reward_models.calibration import Calibration, expected_calibration_error
from regrade.policy_training.reward_models.heads import HeadEnsemble, HeadExamples, train_heads
from regrade.policy_training.reward_models.inputs import InputReader, PatchInput
from regrade.policy_training.reward_models.language_reward_model import LanguageRewardModel
from regrade.policy_training.reward_models.preference_trainer import adapt_trunk
from regrade.policy_training.reward_models.preferences import agreement, pairs, split_by_cluster
from regrade.policy_training.reward_models.trunks import Trunk
from regrade.policy_training.trainers.callbacks import Budget, StepLog
from regrade.policy_training.trainers.settings import RewardModelSettings


class UnlearnableError(UserError):
    """The attempts teach a reward model nothing."""


@dataclass(frozen=True)
class ReadAttempts:
    """Attempts with what a model reads of them; those of a task are neighbours."""

    attempts: list[LabelledAttempt]
    inputs: list[PatchInput]
    unreadable: int
    """Attempts whose patch does not apply, which are left out."""

    @classmethod
    def of(cls, attempts: Sequence[LabelledAttempt], reader: InputReader) -> ReadAttempts:
        """Raises UserError for an attempt without the files of its task."""
        for attempt in attempts:
            if attempt.task is None:
                raise UserError(
                    f"the attempts at task {attempt.task_id!r} have no files: a language reward model reads the "
                    "repository, so give the tasks too (see `labelled_attempts`)"
                )
        ordered = sorted(attempts, key=lambda attempt: attempt.group)
        jobs = ((attempt.task, Patch(attempt.patch)) for attempt in ordered if attempt.task is not None)
        read = list(zip(ordered, reader.read(jobs), strict=True))
        kept = [(attempt, each) for attempt, each in read if isinstance(each, PatchInput)]
        return cls([attempt for attempt, _ in kept], [each for _, each in kept], len(read) - len(kept))

    def examples(self, activations: Tensor, components: Sequence[Component]) -> HeadExamples:
        rows = [[float(attempt.labels.get(name, math.nan)) for name in components] for attempt in self.attempts]
        labels = torch.tensor(rows).view(len(rows), len(components))
        return HeadExamples(activations, labels, [attempt.cluster for attempt in self.attempts])


def train_reward_model(
    source: LanguageModel | str,
    attempts: Sequence[LabelledAttempt],
    settings: RewardModelSettings,
    *,
    out: Path,
    budget: Budget,
    seed: int,
    validation: Sequence[LabelledAttempt] | None = None,
    store: Path | None = None,
    log: StepLog | None = None,
    progress: Progress | None = None,
) -> dict[str, float]:
    """Train a reward model and save it in `out`; the language model itself does not change.

    Args:
        source: a causal language model, or its name or folder.
        attempts: distinct executed ones.
        budget: of the adaptation of the trunk, in optimizer steps, seconds, or both.
        validation: attempts at other tasks, which choose the penalties and calibrate. Default: None: those at a share
            of the functions (`settings.test_share`).
        store: a folder for activations, from which a killed training goes on. Default: None.
        progress: called with the number of inputs whose activations are known, and of all.

    Returns:
        figures on the validation attempts, which are optimistic, since the model was calibrated on them: `auc`,
        `pair_accuracy`, `pairs`, `calibration_error`, `answers`, `verified`, `tasks` (NaN if undefined); and the
        numbers of `training_attempts`, `training_tasks` and `unreadable` attempts.

    Raises:
        UnlearnableError: there are no clean fixes or nothing else, or no preferences, on either side.
        UserError: there is no such model, its context is too short, or a task is in both sets.
    """
    learned, held_out = _split(attempts, validation, settings.test_share, seed)
    components = _learnable(learned, held_out)
    base = Trunk.of(source) if isinstance(source, LanguageModel) else Trunk.named(str(source))
    base.check_tokens(settings.input_tokens)
    reader = InputReader(base.encode, settings.input_tokens)
    train, test = (ReadAttempts.of(each, reader) for each in (learned, held_out))
    trunk = base if settings.objective == "components" else _adapted(base, train, settings, budget, seed, log)
    states = ActivationStore(trunk, store).activations([*train.inputs, *test.inputs], progress)
    examples = train.examples(states[: len(train.inputs)], components)
    checks = test.examples(states[len(train.inputs) :], components)
    heads = train_heads(examples, checks, members=settings.members, seed=seed)
    calibrations = _calibrated(heads, checks, components)
    model = LanguageRewardModel(out.name, trunk, heads, calibrations, settings.input_tokens)
    figures = _figures(model, test, checks, components)
    figures |= {
        "training_attempts": float(len(train.attempts)),
        "training_tasks": float(len({attempt.group for attempt in train.attempts})),
        "unreadable": float(train.unreadable + test.unreadable),
    }
    about = {"objective": settings.objective, "seed": seed, "figures": {k: _json(v) for k, v in figures.items()}}
    with_trunk = trunk is not base or isinstance(source, LanguageModel) or Path(str(source)).is_dir()
    model.save(out, about, with_trunk=with_trunk)
    return figures


def _json(number: float) -> float | None:
    return None if math.isnan(number) else number


def _split(
    attempts: Sequence[LabelledAttempt], validation: Sequence[LabelledAttempt] | None, share: float, seed: int
) -> tuple[Sequence[LabelledAttempt], Sequence[LabelledAttempt]]:
    if not attempts:
        raise UnlearnableError("there are no executed attempts to learn from: give those of a run that executed some")
    if validation is None:
        return split_by_cluster(attempts, share, seed)
    both = {attempt.cluster for attempt in attempts} & {attempt.cluster for attempt in validation}
    if both:
        raise UserError(
            f"attempts at {' '.join(min(both))} are in the training set and in the validation set: the probabilities "
            "would be those of tasks that were learned; put all attempts at a function into one set"
        )
    return attempts, validation


def _learnable(learned: Sequence[LabelledAttempt], held_out: Sequence[LabelledAttempt]) -> list[Component]:
    """The components with both outcomes in both sets; CLEAN must be among them."""
    for name, attempts in (("training", learned), ("validation", held_out)):
        outcomes = {attempt.labels[Component.CLEAN] for attempt in attempts if Component.CLEAN in attempt.labels}
        if len(outcomes) < 2:
            what = (
                "no executed attempts"
                if not outcomes
                else "clean fixes alone"
                if outcomes == {True}
                else "no clean fix"
            )
            raise UnlearnableError(
                f"the {name} tasks have {what}: a reward model learns from both outcomes; sample more attempts per "
                "task, or at more tasks"
            )
    return [
        component
        for component in Component
        if all(
            len({attempt.labels[component] for attempt in attempts if component in attempt.labels}) == 2
            for attempts in (learned, held_out)
        )
    ]


def _adapted(
    base: Trunk, train: ReadAttempts, settings: RewardModelSettings, budget: Budget, seed: int, log: StepLog | None
) -> Trunk:
    preferences = pairs(train.attempts, seed=seed)
    if not preferences:
        raise UnlearnableError(
            "no preferences to learn from: no task had two attempts with different rewards; sample more attempts per "
            "task, or at a higher temperature"
        )
    if settings.preferences is not None and len(preferences) > settings.preferences:
        preferences = random.Random(seed).sample(preferences, settings.preferences)
    groups = [" ".join(attempt.group) for attempt in train.attempts]
    return adapt_trunk(base, train.inputs, groups, preferences, settings, budget=budget, seed=seed, log=log)


def _calibrated(
    heads: HeadEnsemble, checks: HeadExamples, components: Sequence[Component]
) -> dict[Component, Calibration]:
    logits = heads.logits(checks.activations).mean(0).double().numpy()
    labels = checks.labels.double().numpy()
    calibrations = {}
    for index, component in enumerate(components):
        rows = np.flatnonzero(~np.isnan(labels[:, index]))
        clusters = [checks.clusters[row] for row in rows]
        calibrations[component] = Calibration.fit(logits[rows, index], labels[rows, index], clusters)
    return calibrations


def _figures(
    model: LanguageRewardModel, test: ReadAttempts, checks: HeadExamples, components: Sequence[Component]
) -> dict[str, float]:
    index = components.index(Component.CLEAN)
    logits = model.heads.logits(checks.activations).mean(0).double().numpy()[:, index]
    probabilities = model.calibrations[Component.CLEAN].probabilities(logits)
    labels = checks.labels[:, index].double().numpy()
    known = ~np.isnan(labels)
    found = {
        name: math.nan if value is None else float(value)
        for name, value in asdict(agreement(test.attempts, probabilities.tolist())).items()
    }
    return {**found, "calibration_error": expected_calibration_error(probabilities[known], labels[known])}
