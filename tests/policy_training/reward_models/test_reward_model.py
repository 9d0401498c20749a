"""Preferences from executed scores, and a model that learns them."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from regrade.datasets.errors import UserError
from regrade.policy_training.environments.attempts import ScoredAnswer
from regrade.policy_training.policies.models import LanguageModel
from regrade.policy_training.reward_models.preferences import Preference, agreement, distinct, pairs, split_by_task
from regrade.policy_training.reward_models.reward_model import (
    RewardModel,
    train_and_test_reward_model,
    train_reward_model,
)
from regrade.policy_training.trainers.callbacks import Budget
from regrade.policy_training.trainers.settings import RewardModelSettings

DEFAULT = RewardModelSettings()


def answer(task: str, text: str, reward: float) -> ScoredAnswer:
    return ScoredAnswer(task, f"Prompt of {task}:\n", text, reward, reward == 1.0)


def test_pairs_are_of_one_task_of_different_rewards_and_distinct_answers() -> None:
    answers = [
        answer("a", "1 x", 1.0), answer("a", "2 y", -0.1), answer("a", "1 x ", 1.0), answer("a", "3 z", -0.1),
        answer("b", "1 x", -0.3), answer("b", "2 y", -0.3), answer("c", "1 x", 0.5),
    ]  # fmt: skip
    found = pairs(answers)
    assert found == [
        Preference("a", "Prompt of a:\n", "1 x", "2 y", pytest.approx(1.1)),
        Preference("a", "Prompt of a:\n", "1 x", "3 z", pytest.approx(1.1)),
    ]


def test_pairs_are_capped_per_task_and_do_not_depend_on_the_order_of_answers() -> None:
    answers = [answer(task, f"{k} line", float(k)) for task in ("a", "b") for k in range(6)]
    found = pairs(answers, per_task=4, seed=3)
    assert [pair.task_id for pair in found] == ["a"] * 4 + ["b"] * 4
    assert len(set(found)) == 8
    shuffled = random.Random(0).sample(answers, len(answers))
    assert pairs(shuffled, per_task=4, seed=3) == found
    assert pairs(answers, per_task=4, seed=4) != found
    assert len(pairs(answers, per_task=None)) == 2 * 15


def test_split_keeps_tasks_whole() -> None:
    answers = [answer(f"task{k}", text, 0.0) for k in range(8) for text in ("1 x", "2 y")]
    learned, tested = split_by_task(answers, 0.25, seed=0)
    assert len({a.task_id for a in tested}) == 2
    assert not {a.task_id for a in tested} & {a.task_id for a in learned}
    assert len(learned) + len(tested) == 16
    assert split_by_task(answers[:2], 0.25, seed=0) == (answers[:2], [])


def test_agreement_counts_pairs_and_ranks() -> None:
    answers = [answer("a", "1 x", 1.0), answer("a", "2 y", 0.0), answer("b", "1 x", 1.0), answer("b", "2 y", 0.0)]
    good = agreement(answers, [3.0, 1.0, 2.0, 0.0])
    assert (good.pair_accuracy, good.pairs, good.auc, good.answers, good.verified, good.tasks) == (1.0, 2, 1.0, 4, 2, 2)
    # a tie counts a half; of the 4 (verified, other) pairs 2 are in order and 1 is a tie
    mixed = agreement(answers, [1.0, 1.0, 0.5, 0.0])
    assert (mixed.pair_accuracy, mixed.auc) == (0.75, 0.625)
    nothing = agreement(answers[:1], [1.0])
    assert (nothing.pair_accuracy, nothing.auc) == (None, None)


WORDS = ["items", "self", "number", "step", "value", "len"]


def separable(tasks: int, seed: int) -> list[ScoredAnswer]:
    """Answers that say `return` pass, and those that say `pass` don't, whatever the prompt and the line."""
    chance = random.Random(seed)
    found = []
    for task in range(tasks):
        name = f"{seed}-{task} {chance.choice(WORDS)}"
        for line in range(1, 4):
            word = chance.choice(WORDS)
            found += [answer(name, f"{line} return {word}", 1.0), answer(name, f"{line} pass {word}", -0.3)]
    return found


@pytest.fixture
def learned(language_model: LanguageModel, tmp_path: Path) -> RewardModel:
    settings = RewardModelSettings(learning_rate=3e-3, head_learning_rate=1e-2, frozen=0.0)
    return train_reward_model(
        language_model, pairs(separable(16, 0)), settings, out=tmp_path / "reward-model", budget=Budget(steps=30),
        seed=0,
    )  # fmt: skip


@pytest.mark.slow
def test_it_learns_a_separable_preference_and_is_saved(learned: RewardModel, tmp_path: Path) -> None:
    unseen = distinct(separable(6, 1))
    found = agreement(unseen, learned.score([a.prompt for a in unseen], [a.completion for a in unseen]))
    assert found.pairs > 40
    assert found.pair_accuracy is not None
    assert found.pair_accuracy > 0.95
    assert found.auc is not None
    assert found.auc > 0.95
    prompts, texts = [a.prompt for a in unseen], [a.completion for a in unseen]
    loaded = RewardModel.load(tmp_path / "reward-model")
    assert loaded.score(prompts, texts) == pytest.approx(learned.score(prompts, texts), abs=1e-5)


def test_scores_are_those_of_plain_transformers(language_model: LanguageModel, tmp_path: Path) -> None:
    """Whoever loads the folder without regrade, and pads to the right, gets the same numbers."""
    learned = train_reward_model(
        language_model, pairs(separable(2, 0)), DEFAULT, out=tmp_path / "reward-model", budget=Budget(steps=1), seed=0
    )
    unseen = separable(3, 2)
    prompts, texts = [a.prompt for a in unseen], [a.completion for a in unseen]
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "reward-model").eval()
    encoded = [learned.encode(prompt) + learned.encode(text) for prompt, text in zip(prompts, texts, strict=True)]
    width = max(map(len, encoded))
    padding = learned.tokenizer.pad_token_id
    ids = torch.tensor([row + [padding] * (width - len(row)) for row in encoded])
    with torch.no_grad():
        expected = plain(input_ids=ids, attention_mask=(ids != padding).long()).logits[:, 0].tolist()
    assert learned.score(prompts, texts) == pytest.approx(expected, abs=1e-4)


def test_the_policy_and_the_frozen_layers_stay_as_they_are(language_model: LanguageModel, tmp_path: Path) -> None:
    policy = {name: weight.clone() for name, weight in language_model.model.state_dict().items()}
    steps: list[dict[str, float]] = []
    reward_model = train_reward_model(
        language_model, pairs(separable(4, 0)), RewardModelSettings(pairs_per_step=8), out=tmp_path / "out",
        budget=Budget(steps=3), seed=0, log=lambda _step, _seconds, numbers: steps.append(dict(numbers)),
    )  # fmt: skip
    for name, weight in language_model.model.state_dict().items():
        assert torch.equal(weight, policy[name])
    changed = {
        name for name, weight in reward_model.model.base_model.state_dict().items()
        if not torch.equal(weight, policy[f"model.{name}"])
    }  # fmt: skip
    assert changed
    assert not [name for name in changed if name.startswith(("layers.0.", "embed_tokens"))]
    assert len(steps) == 3
    assert {"loss", "accuracy", "margin"} <= steps[0].keys()


def test_training_is_the_same_with_the_same_seed(language_model: LanguageModel, tmp_path: Path) -> None:
    def scores(seed: int) -> list[float]:
        model = train_reward_model(
            language_model, pairs(separable(4, 0)), DEFAULT, out=tmp_path / "out", budget=Budget(steps=2), seed=seed
        )
        return model.score(["Prompt:\n"], ["1 return x"])

    assert scores(1) == scores(1)
    assert scores(1) != scores(2)


def test_it_is_tested_on_other_tasks_than_it_learned_from(language_model: LanguageModel, tmp_path: Path) -> None:
    figures = train_and_test_reward_model(
        language_model,
        separable(8, 0),
        RewardModelSettings(preferences=20),
        out=tmp_path / "out",
        budget=Budget(steps=1),
        seed=0,
    )
    assert figures["tasks"] == 2
    assert figures["training_tasks"] <= 6
    assert figures["training_pairs"] == 20
    assert 0 <= figures["pair_accuracy"] <= 1
    assert 0 <= figures["auc"] <= 1


def test_without_held_out_pairs_the_figures_are_not_numbers(language_model: LanguageModel, tmp_path: Path) -> None:
    figures = train_and_test_reward_model(
        language_model, separable(1, 0), DEFAULT, out=tmp_path / "out", budget=Budget(steps=1), seed=0
    )
    assert math.isnan(figures["auc"])
    assert figures["tasks"] == 0


def test_nothing_to_learn_from_is_a_user_error(language_model: LanguageModel, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no preferences to learn from"):
        train_reward_model(language_model, [], DEFAULT, out=tmp_path / "out", budget=Budget(steps=1), seed=0)


def test_loading_something_else_is_a_user_error(language_model: LanguageModel, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no reward model"):
        RewardModel.load(tmp_path)
    language_model.save(tmp_path / "policy")
    with pytest.raises(UserError, match="another kind of model"):
        RewardModel.load(tmp_path / "policy")


def test_scoring_nothing_and_empty_answers(language_model: LanguageModel, tmp_path: Path) -> None:
    model = train_reward_model(
        language_model, pairs(separable(2, 0)), DEFAULT, out=tmp_path / "out", budget=Budget(steps=1), seed=0
    )
    assert model.score([], []) == []
    assert all(map(math.isfinite, model.score(["Prompt:\n", "Prompt:\n"], ["", " \n"])))
