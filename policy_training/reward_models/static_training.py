"""Trains the static reward model, tests it on held-out repositories, and writes it with its card."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

from regrade.datasets.errors import UserError
from regrade.evaluators.storage.labelled_attempts import Component
from regrade.policy_training.reward_models.attempt_splits import AttemptSplit
from regrade.policy_training.reward_models.boosted_trees import ITERATIONS
from regrade.policy_training.reward_models.loading import CARD
from regrade.policy_training.reward_models.model_card import card, write_card
from regrade.policy_training.reward_models.quality import Quality, measure_quality
from regrade.policy_training.reward_models.static_features import FEATURE_FORMAT, FEATURES
from regrade.policy_training.reward_models.static_model import FOLDS, train_static_model
from regrade.policy_training.reward_models.training_record import training_record


def train_and_test_static(
    split: AttemptSplit, out: Path, *, seed: int = 0, iterations: int = ITERATIONS
) -> Quality | None:
    """Train on the one side of a split, test on the other, and write the model and its card.

    Returns:
        the quality on the test attempts; None: the split has none.

    Raises:
        UserError: the attempts teach nothing (see `train_static_model`), or the folder can't be written.
    """
    model = train_static_model(split.training, out.name, seed=seed, iterations=iterations)
    quality = measure_quality(model, split.test) if split.test else None
    about = {
        "kind": "static: gradient boosting, no language model",
        "components": ", ".join(model.heads),
        "features": f"{len(FEATURES)}, version {FEATURE_FORMAT}",
        "ensemble": f"{FOLDS} members of {iterations} trees, each without one fold of the repositories",
        "calibration": f"temperature {model.heads[Component.CLEAN].calibration.temperature:.2f}, on the left-out folds",
        "seed": str(seed),
        "versions": f"regrade {version('regrade')}, scikit-learn {version('scikit-learn')}",
    }
    try:
        model.save(out, {**training_record(split.training), "seed": seed})
        write_card(out / CARD, card(out.name, about, split.training, quality))
    except OSError as error:
        raise UserError(f"{out} can't be written: {error.strerror or error}; choose another folder") from error
    return quality
