"""The language reward model: a trunk, an ensemble of heads on its activations, and a calibration for each head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from regrade.datasets.errors import UserError
from regrade.evaluators.scoring.jobs import Job
from regrade.evaluators.storage.journal import replaced_folder
from regrade.evaluators.storage.labelled_attempts import Component
from regrade.policy_training.policies.writing_errors import os_errors, writing
from regrade.policy_training.reward_models.calibration import Calibration, Floats
from regrade.policy_training.reward_models.heads import HeadEnsemble
from regrade.policy_training.reward_models.inputs import INPUT_FORMAT, InputReader, PatchInput
from regrade.policy_training.reward_models.loading import write_record
from regrade.policy_training.reward_models.trunks import Trunk
from regrade.rewards.evidence import PredictedPart, Prediction
from regrade.rewards.reward_model_folders import RewardModelRecord

KIND = "language"
NORMAL_95 = 1.96
"""Standard deviations within which 95 % of a normal distribution lie."""


@dataclass(frozen=True)
class ComponentPredictions:
    """Probabilities of some patches, with their doubt; each (patches, components)."""

    components: tuple[Component, ...]
    probabilities: Floats
    disagreements: Floats
    """Of the ensemble: 1.96 standard deviations of its members' probabilities."""
    margins: Floats
    """What the calibration leaves open: see `Calibration`."""

    @property
    def doubts(self) -> Floats:
        """Half the width of the 95 % interval: the sum of both, at most 1. They are not independent, so their squares
        may not be added instead."""
        return np.minimum(self.disagreements + self.margins, 1.0)


@dataclass
class LanguageRewardModel:
    """Predicts the components of a verdict from a task and a patch."""

    name: str
    trunk: Trunk
    heads: HeadEnsemble
    calibrations: Mapping[Component, Calibration]
    """Of each head, in the order of the heads; CLEAN is among them."""
    tokens: int
    """The longest input."""
    identity: str = ""
    """Digest of its files; empty: it is not stored."""
    reader: InputReader = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.reader = InputReader(self.trunk.encode, self.tokens)

    def predict(self, jobs: Sequence[Job]) -> list[Prediction]:
        """One prediction for each task and patch, in order: see `Predictor`."""
        read = list(self.reader.read(jobs))
        inputs = [each for each in read if isinstance(each, PatchInput)]
        predicted = iter(self._explained(inputs))
        return [
            next(predicted) if isinstance(each, PatchInput) else Prediction(0.0, 0.0, self.name, each) for each in read
        ]

    def components(self, inputs: Sequence[PatchInput]) -> ComponentPredictions:
        """The calibrated predictions of all heads."""
        logits = self.heads.logits(self.trunk.activations(inputs)).double().numpy()
        calibrations = list(self.calibrations.values())
        members = np.stack([each.probabilities(logits[:, :, k]) for k, each in enumerate(calibrations)], axis=2)
        means = logits.mean(axis=0)
        disagreements = np.zeros_like(means) if len(logits) == 1 else NORMAL_95 * members.std(axis=0, ddof=1)
        return ComponentPredictions(
            tuple(self.calibrations),
            np.stack([each.probabilities(means[:, k]) for k, each in enumerate(calibrations)], axis=1),
            disagreements,
            np.stack([each.margins(means[:, k]) for k, each in enumerate(calibrations)], axis=1),
        )

    def _explained(self, inputs: Sequence[PatchInput]) -> list[Prediction]:
        if not inputs:
            return []
        found = self.components(inputs)
        clean = found.components.index(Component.CLEAN)
        doubts = found.doubts
        return [
            Prediction(
                resolved=float(found.probabilities[row, clean]),
                doubt=float(doubts[row, clean]),
                model=self.name,
                parts=tuple(
                    PredictedPart(component.value, float(found.probabilities[row, k]), float(doubts[row, k]))
                    for k, component in enumerate(found.components)
                ),
                cut=each.cut,
            )
            for row, each in enumerate(inputs)
        ]

    def save(self, folder: Path, about: Mapping[str, Any], *, with_trunk: bool) -> RewardModelRecord:
        """Write the model atomically.

        Args:
            about: of its training, for the record.
            with_trunk: write the trunk too; otherwise it is loaded by its name, and must be the same then.

        Raises:
            UserError: it cannot be written, as on a full disk.
        """
        details = {
            **about,
            "base": self.trunk.base,
            "trunk_digest": self.trunk.digest,
            "with_trunk": with_trunk,
            "tokens": self.tokens,
            "input_format": INPUT_FORMAT,
            "calibrations": {component: each.to_json() for component, each in self.calibrations.items()},
        }
        with (
            writing("the reward model", folder, "the attempts are kept"),
            replaced_folder(folder) as draft,
            os_errors(draft),
        ):
            if with_trunk:
                self.trunk.save(draft)
            self.heads.save(draft)
            record = write_record(draft, KIND, details)
        self.name, self.identity = folder.name, record.digest
        return record


def load_predictor(folder: Path, record: RewardModelRecord) -> LanguageRewardModel:
    """The model of a folder.

    Raises:
        UserError: its base is missing or another version, or it reads inputs of another version.
    """
    details = record.details
    try:
        if details["input_format"] != INPUT_FORMAT:
            raise UserError(
                f"the reward model in {folder} reads inputs of version {details['input_format']!r}, and this version "
                f"of regrade writes {INPUT_FORMAT}: train it again"
            )
        calibrations = {Component(name): Calibration.from_json(each) for name, each in details["calibrations"].items()}
        base, tokens, digest = details["base"], int(details["tokens"]), details["trunk_digest"]
        trunk = Trunk.load(folder, base) if details["with_trunk"] else _trunk_of_base(folder, base)
        heads = HeadEnsemble.load(folder)
    except UserError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"the reward model in {folder} is damaged ({error}): train it again") from error
    if trunk.digest != digest:
        raise UserError(
            f"the reward model in {folder} was trained on another version of {base!r} than the one here: train it "
            "again on this one"
        )
    return LanguageRewardModel(folder.name, trunk, heads, calibrations, tokens, record.digest)


def _trunk_of_base(folder: Path, base: str) -> Trunk:
    try:
        return Trunk.named(base)
    except UserError as error:
        raise UserError(f"the reward model in {folder} needs its base: {error}") from error
