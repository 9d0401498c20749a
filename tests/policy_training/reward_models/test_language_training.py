"""A language reward model from the attempts of runs: trained on some repositories, tested on another, with its card."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from regrade.evaluators.storage.labelled_attempts import LabelledAttempt
from regrade.policy_training.reward_models.attempt_splits import AttemptSplit
from regrade.policy_training.reward_models.language_training import train_and_test_language
from regrade.policy_training.reward_models.loading import load_reward_model
from regrade.policy_training.reward_models.training_record import unseen
from regrade.policy_training.trainers.callbacks import Budget
from tests.policy_training.reward_models.conftest import SETTINGS


def test_it_is_tested_where_it_did_not_learn_and_its_card_says_so(
    base_folder: Path, attempts: list[LabelledAttempt], tmp_path: Path
) -> None:
    other = [replace(attempt, repository="other", task_id=f"other-{attempt.task_id}") for attempt in attempts[24:]]
    split, out = AttemptSplit(tuple(attempts[:24]), tuple(other)), tmp_path / "judge"
    seen: list[tuple[int, int]] = []
    quality = train_and_test_language(
        split, out, str(base_folder), SETTINGS, budget=Budget(), progress=lambda *counts: seen.append(counts)
    )
    assert quality is not None
    assert (quality.model, quality.attempts, quality.unread) == ("judge", len(other), 0)
    assert quality.auc.value > 0.6
    assert seen[-1] == (24, 24)
    card = (out / "model_card.md").read_text()
    assert "| objective | components |" in card
    assert "never trained on" in card
    assert load_reward_model(out).identity, "the card is no part of the model"
    assert unseen([out], [*attempts, *other]) == (other, len(attempts))
