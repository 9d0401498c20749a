"""The contract of a tested reward model: patches in, for each the chance of each component out. Nothing is executed.

A static model answers from the evidence that a run stored. Any other `Predictor` answers from the files of the tasks,
through `PredictorModel`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from regrade.datasets.errors import UserError
from regrade.datasets.patches import Patch
from regrade.evaluators.scoring.model_probes import Predictor
from regrade.evaluators.storage.labelled_attempts import Component, ProposedPatch
from regrade.policy_training.reward_models.loading import load_reward_model
from regrade.rewards.evidence import Prediction


class Chance(NamedTuple):
    """A calibrated probability with its doubt."""

    probability: float
    doubt: float
    """Half the width of its 95 % interval."""


Chances = Mapping[Component, Chance]
"""A component for which the model has no head is missing."""


@runtime_checkable
class PatchModel(Protocol):
    """A reward model that can be tested on executed attempts."""

    @property
    def name(self) -> str: ...

    def chances(self, patches: Sequence[ProposedPatch]) -> list[Chances]:
        """One entry per patch, in their order; empty for a patch that the model cannot read.

        It must not read executed evidence or labels, which a tested attempt has too.
        """
        ...


@dataclass(frozen=True)
class PredictorModel:
    """A `Predictor`, which reads the files of a task, as a `PatchModel`."""

    name: str
    predictor: Predictor

    def chances(self, patches: Sequence[ProposedPatch]) -> list[Chances]:
        """Raises UserError for a patch without the files of its task."""
        jobs = []
        for patch in patches:
            if patch.task is None:
                raise UserError(
                    f"{self.name} reads the files of a task, and those of {patch.task_id!r} are not loaded: give the "
                    "tasks with `tasks=`"
                )
            jobs.append((patch.task, Patch(patch.patch)))
        return [_chances(prediction) for prediction in self.predictor.predict(jobs)]


def load_patch_model(folder: Path) -> PatchModel:
    """The reward model of a folder. Raises UserError: see `load_reward_model`."""
    predictor = load_reward_model(folder)
    return predictor if isinstance(predictor, PatchModel) else PredictorModel(folder.name, predictor)


def _chances(prediction: Prediction) -> Chances:
    if prediction.resolved is None:
        return {}
    parts = {Component(part.name): Chance(part.value, part.doubt) for part in prediction.parts}
    return {**parts, Component.CLEAN: Chance(prediction.resolved, prediction.doubt)}
