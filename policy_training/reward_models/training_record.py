"""What a reward model says of the attempts that it learned from, so that no test repeats them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from regrade.datasets.errors import UserError
from regrade.evaluators.storage.labelled_attempts import LabelledAttempt
from regrade.rewards.reward_model_folders import read_record


def training_record(attempts: Sequence[LabelledAttempt]) -> dict[str, Any]:
    """For the record of a model (`about`). `attempts`: all that it was trained, validated and calibrated on."""
    return {
        "training": {
            "repositories": sorted({attempt.repository for attempt in attempts}),
            "tasks": len({attempt.group for attempt in attempts}),
            "attempts": len(attempts),
        }
    }


def unseen(folders: Sequence[Path], attempts: Sequence[LabelledAttempt]) -> tuple[list[LabelledAttempt], int]:
    """The attempts at repositories that none of these models learned from, and the number of the others.

    Raises:
        UserError: a folder contains no reward model, or one that does not say what it learned from; or no attempt is
            left.
    """
    learned: set[str] = set()
    for folder in folders:
        training = read_record(folder).details.get("training")
        if not isinstance(training, dict):
            raise UserError(
                f"the reward model in {folder} does not say which repositories it was trained on, so nothing is known "
                "to be new to it: train it again"
            )
        learned |= set(training.get("repositories", ()))
    kept = [attempt for attempt in attempts if attempt.repository not in learned]
    if attempts and not kept:
        names = ", ".join(sorted({attempt.repository for attempt in attempts}))
        raise UserError(
            f"all attempts are at repositories that the model was trained on ({names}): give a run of other "
            "repositories, or train a model with `held_out=REPOSITORY`"
        )
    return kept, len(attempts) - len(kept)
