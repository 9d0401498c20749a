"""Reward models as probes: predictions for many patches in one call, loaded when a reward first needs one."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol

from regrade.datasets.errors import UserError
from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Task, Tree
from regrade.evaluators.sandboxes import SandboxError
from regrade.evaluators.scoring.jobs import Job
from regrade.rewards.evidence import Prediction
from regrade.rewards.reward_model_folders import PredictionKind

LOADER = "regrade.policy_training.reward_models.loading"
"""The module that loads reward models. It stands above this one, and needs libraries that scoring does without, so it
is imported by name when a reward needs a prediction."""


class Predictor(Protocol):
    """A reward model."""

    @property
    def identity(self) -> str:
        """Digest of all that its predictions depend on, besides the task and the patch."""

    def predict(self, jobs: Sequence[Job]) -> list[Prediction]:
        """One prediction for each task and patch, in order, without executing anything.

        A patch that does not apply fixes nothing; one that the model cannot evaluate has a prediction without a
        probability, with the reason.

        Raises:
            SandboxError: an input could not be read, for a reason that the patch did not cause.
        """


def load_predictor(folder: str | Path) -> Predictor:
    """The reward model of a folder.

    Raises:
        UserError: see `regrade.policy_training.reward_models.loading.load_reward_model`.
    """
    predictor: Predictor = importlib.import_module(LOADER).load_reward_model(folder)
    return predictor


class ModelProbe:
    """Gathers the predictions of one reward model. Safe for several threads.

    While the model answers one call, others wait; whoever comes next answers all that wait in one batch.
    """

    def __init__(self, kind: PredictionKind) -> None:
        """
        Raises:
            UserError: see `load_predictor`; or the folder now contains another model.
        """
        self._kind = kind
        self._predictor = load_predictor(kind.folder)
        self._busy = threading.Lock()
        self._lock = threading.Lock()
        self._waiting: list[_Call] = []

    @property
    def identity(self) -> str:
        return self._predictor.identity

    def __call__(self, before: Tree, after: Tree, patch: Patch, task: Task) -> Prediction:  # noqa: ARG002 (as all probes)
        (prediction,) = self.predict([(task, patch)])
        return prediction

    def predict(self, jobs: Sequence[Job]) -> list[Prediction]:
        """The evidence of each job, in order. The model never sees the tasks' references. Raises SandboxError."""
        call = _Call([(task.without_reference(), patch) for task, patch in jobs])
        with self._lock:
            self._waiting.append(call)
        with self._busy:
            if not call.is_answered:
                with self._lock:
                    calls, self._waiting = self._waiting, []
                self._answer(calls)
        if call.error is not None:
            raise call.error
        return [self._of_kind(prediction) for prediction in call.predictions]

    def _answer(self, calls: Sequence[_Call]) -> None:
        try:
            predictions = self._predictor.predict([job for call in calls for job in call.jobs])
        except BaseException as error:
            if isinstance(error, SandboxError) and len(calls) > 1:  # perhaps of one of them only
                for call in calls:
                    self._answer([call])
                return
            for call in calls:
                call.error = error
            return
        for call in calls:
            call.predictions, predictions = predictions[: len(call.jobs)], predictions[len(call.jobs) :]

    def _of_kind(self, prediction: Prediction) -> Prediction:
        values: dict[str, Any] = {field.name: getattr(prediction, field.name) for field in fields(prediction)}
        return self._kind(**values)  # type: ignore[no-any-return]


@dataclass
class _Call:
    jobs: list[Job]
    predictions: Sequence[Prediction] = ()
    error: BaseException | None = None

    @property
    def is_answered(self) -> bool:
        return self.error is not None or len(self.predictions) == len(self.jobs)


def model_probe(kind: type) -> ModelProbe | None:
    """The probe of a type of predictions; None: it is another type of evidence.

    Raises:
        UserError: see `ModelProbe`; or the type names no model.
    """
    if not issubclass(kind, Prediction):
        return None
    if not isinstance(kind, PredictionKind):
        raise UserError(
            "Prediction names no reward model: compose the reward of learned(FOLDER), or annotate the parameter of "
            "yours with prediction_of(FOLDER)"
        )
    return ModelProbe(kind)
