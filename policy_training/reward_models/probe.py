"""A trained reward model as a probe: it predicts the verdict on a patch without execution."""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path

from regrade.datasets.errors import UserError
from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Task, Tree
from regrade.policy_training.policies.single_turn_prompt import prompt_of
from regrade.policy_training.reward_models.calibration import ScoreCalibration
from regrade.policy_training.reward_models.reward_model import RewardModel
from regrade.rewards.evidence import Prediction


class RewardModelProbe:
    """Gathers `Prediction`, for the reward `learned`: `Scorer(probes={Prediction: RewardModelProbe(folder)})`."""

    def __init__(self, folder: Path) -> None:
        """
        Args:
            folder: the output of `regrade train reward-model`.

        Raises:
            UserError: the folder contains no reward model, or one that was never tested on executed answers.
        """
        self._model = RewardModel.load(folder)
        self._name = folder.name
        calibration = ScoreCalibration.load(folder)
        if calibration is None:
            raise UserError(
                f"the reward model in {folder} was never tested, so its scores are not calibrated: train it with "
                "`regrade train reward-model` on the attempts at two tasks or more"
            )
        self._calibration = calibration

    @cached_property
    def identity(self) -> str:
        """Digest of the weights and of the calibration: a part of the key of stored evidence."""
        # The words are part of the key of stored evidence, so they do not follow the name of the class.
        scores, verified = self._calibration.scores, self._calibration.verified
        whole = hashlib.sha256(f"Calibration(scores={scores!r}, verified={verified!r})".encode())
        for name, weights in sorted(self._model.model.state_dict().items()):
            whole.update(name.encode())
            whole.update(weights.detach().cpu().float().numpy().tobytes())
        return whole.hexdigest()

    def __call__(self, before: Tree, after: Tree, patch: Patch, task: Task) -> Prediction:  # noqa: ARG002 (as all probes)
        """The prediction for the patch, without a probability if the prompt or the answer format cannot express it."""
        try:
            prompt = prompt_of(task)
        except UserError as error:
            return Prediction(None, 0.0, self._name, str(error))
        answer = prompt.answer_of(patch)
        if answer is None:
            return Prediction(None, 0.0, self._name, "it does not replace exactly one line of the function shown")
        (score,) = self._model.score([prompt.text], [answer])
        chance = self._calibration.chance(score)
        return Prediction(chance.probability, chance.doubt, self._name)
